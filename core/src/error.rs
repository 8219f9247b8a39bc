//! Who is to blame, and why a session ended: precise values that tests compare and telemetry counts.
//!
//! What to *do* about a misbehaving peer is decided where it is met: before authentication it is fronted
//! to the real site (or met with silence), afterwards its session is closed. docs/session.md has the table.

/// What a client did that ours do not do. Carries no data: nothing of a stranger's bytes reaches a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerMisbehaved {
    /// The first word is an HTTP method.
    SpokeHttp,
    /// 64 bytes that no secret opens.
    UnknownInitFrame,
    /// A TLS hello that is not laid out as ours are (spec 6.1).
    MalformedHello,
    /// Bytes behind the hello before our answer: no client of ours sends any (spec 6.3).
    TrailingData,
    /// The hello greets no domain, or one that is not configured.
    UnknownServerName,
    /// No secret verifies the hello.
    UnauthenticHello,
    /// The hello was sent before, by somebody.
    ReplayedHello,
    /// The clock in the hello is ahead of ours (spec 6.5).
    ClockAhead,
    /// The clock in the hello is too far behind ours (spec 6.5).
    ClockBehind,
    /// The hello offers no TLS 1.3 cipher suite first (spec 6.6).
    NoCommonCipherSuite,
    /// Sent nothing in time.
    SilentTooLong,
    /// Began, but did not authenticate itself in time.
    HandshakeTooSlow,
    /// Ended its side before it authenticated itself.
    EndedBeforeHandshake,
    /// Behind an accepted hello: something else than ChangeCipherSpec (spec 6.8).
    ExpectedChangeCipherSpec,
    /// In an established fake-TLS stream: something else than an application-data record (spec 6.8).
    ExpectedApplicationData,
    /// Behind an accepted hello: an init frame that the hello's secret does not open, or one whose
    /// transport is not padded intermediate (spec 6.8).
    UnknownInnerInitFrame,
    /// Toward a middle proxy: a packet whose length cannot be one (spec 4.4).
    BadPacketLength,
}

impl PeerMisbehaved {
    /// Every variant, for tables that count them.
    pub const ALL: [Self; 17] = [
        Self::SpokeHttp,
        Self::UnknownInitFrame,
        Self::MalformedHello,
        Self::TrailingData,
        Self::UnknownServerName,
        Self::UnauthenticHello,
        Self::ReplayedHello,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::NoCommonCipherSuite,
        Self::SilentTooLong,
        Self::HandshakeTooSlow,
        Self::EndedBeforeHandshake,
        Self::ExpectedChangeCipherSpec,
        Self::ExpectedApplicationData,
        Self::UnknownInnerInitFrame,
        Self::BadPacketLength,
    ];

    /// The name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SpokeHttp => "spoke_http",
            Self::UnknownInitFrame => "unknown_init_frame",
            Self::MalformedHello => "malformed_hello",
            Self::TrailingData => "trailing_data",
            Self::UnknownServerName => "unknown_server_name",
            Self::UnauthenticHello => "unauthentic_hello",
            Self::ReplayedHello => "replayed_hello",
            Self::ClockAhead => "clock_ahead",
            Self::ClockBehind => "clock_behind",
            Self::NoCommonCipherSuite => "no_common_cipher_suite",
            Self::SilentTooLong => "silent_too_long",
            Self::HandshakeTooSlow => "handshake_too_slow",
            Self::EndedBeforeHandshake => "ended_before_handshake",
            Self::ExpectedChangeCipherSpec => "expected_change_cipher_spec",
            Self::ExpectedApplicationData => "expected_application_data",
            Self::UnknownInnerInitFrame => "unknown_inner_init_frame",
            Self::BadPacketLength => "bad_packet_length",
        }
    }
}

/// Why a session ended otherwise than by both sides finishing. Each session that is dropped counts
/// in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The client reset its connection.
    ClientReset,
    /// The data centre or front reset its connection.
    UpstreamReset,
    /// No byte in either direction for the idle timeout.
    Idle,
    /// The peer did not take what was queued for it before the linger timeout.
    Unflushed,
    /// No address of the data centre or front answered.
    UpstreamUnreachable,
    /// A stranger, and no front is configured or resolved.
    NoFront,
    /// A stranger without a front sent more than is worth discarding.
    DiscardLimit,
    /// An authenticated client broke the protocol.
    Misbehaved,
    /// The proxy is stopping and the grace period is over.
    Stopping,
    /// The link to the middle proxy was lost while the client waited for an answer.
    MiddleProxyLost,
    /// A client of a middle proxy took its answers too slowly.
    SlowReader,
    /// Too much waited for clients of middle proxies, and this one had been quiet longest.
    MemoryPressure,
}

impl DropReason {
    /// Every variant, for tables that count them.
    pub const ALL: [Self; 12] = [
        Self::ClientReset,
        Self::UpstreamReset,
        Self::Idle,
        Self::Unflushed,
        Self::UpstreamUnreachable,
        Self::NoFront,
        Self::DiscardLimit,
        Self::Misbehaved,
        Self::Stopping,
        Self::MiddleProxyLost,
        Self::SlowReader,
        Self::MemoryPressure,
    ];

    /// The name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientReset => "client_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::Idle => "idle",
            Self::Unflushed => "unflushed",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::NoFront => "no_front",
            Self::DiscardLimit => "discard_limit",
            Self::Misbehaved => "misbehaved",
            Self::Stopping => "stopping",
            Self::MiddleProxyLost => "middle_proxy_lost",
            Self::SlowReader => "slow_reader",
            Self::MemoryPressure => "memory_pressure",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn lists_are_in_declaration_order_so_that_a_variant_is_its_own_index() {
        for (index, reason) in PeerMisbehaved::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
    }

    #[test]
    fn no_two_reasons_share_a_name() {
        let names: HashSet<_> = PeerMisbehaved::ALL
            .map(PeerMisbehaved::name)
            .into_iter()
            .chain(DropReason::ALL.map(DropReason::name))
            .collect();
        assert_eq!(names.len(), PeerMisbehaved::ALL.len() + DropReason::ALL.len());
    }
}
