//! Why a packet was dropped, or its reaction suppressed: one name for each cause, to count by.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $variant:ident => $name:literal,)+) => {
        /// Why a packet, or a part of it, was not taken. Counters are indexed by [`DropReason::index`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])+ $variant,)+ }

        impl DropReason {
            /// Every variant, in the order of [`index`](Self::index).
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name in metrics and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

drop_reasons! {
    // What `wire` says of a frame.
    /// The frame ends before its headers do.
    Runt => "runt",
    /// The frame carries neither IPv4 nor IPv6, or more than two VLAN tags.
    NotIp => "not_ip",
    /// IP version, header length, options or order of extension headers make no sense.
    BadIpHeader => "bad_ip_header",
    /// The length that the IP header states does not fit the frame.
    BadIpLength => "bad_ip_length",
    /// The checksum of the IPv4 header is wrong.
    BadIpHeaderChecksum => "bad_ip_header_checksum",
    /// A fragment. We never reassemble: our own segments are sent with DF or the path's MTU.
    Fragment => "fragment",
    /// A source route, IPv4 or IPv6.
    SourceRoute => "source_route",
    /// More extension headers than we walk.
    TooManyExtensionHeaders => "too_many_extension_headers",
    /// An address that cannot be a source or destination of TCP.
    Martian => "martian",
    /// Source and destination are the same address and port.
    Land => "land",
    /// Neither TCP nor an ICMP error about TCP.
    NotTcp => "not_tcp",
    /// The TCP header's length makes no sense.
    BadTcpHeader => "bad_tcp_header",
    /// The TCP checksum is wrong.
    BadTcpChecksum => "bad_tcp_checksum",
    /// The TCP checksum covers the pseudo-header only: a virtual peer left the rest to hardware.
    PartialTcpChecksum => "partial_tcp_checksum",
    /// The ICMP checksum is wrong.
    BadIcmpChecksum => "bad_icmp_checksum",
    /// An ICMP error that quotes no packet of ours, or says what may not be said.
    BadIcmp => "bad_icmp",
    /// A SYN again, in SYN-RECEIVED: our answer goes out again.
    DuplicateSyn => "duplicate_syn",
    /// A segment without a timestamp after timestamps were negotiated (RFC 7323 section 3.2).
    NoTimestamp => "no_timestamp",
    /// A timestamp older than the last (PAWS).
    OldTimestamp => "old_timestamp",
    /// Text for a window that is shut: a probe, whose acknowledgement counted.
    ZeroWindow => "zero_window",
    /// All of the segment was here already.
    Duplicate => "duplicate",
    /// A segment that holds nothing of the window.
    OutsideWindow => "outside_window",
    /// The end of a segment beyond the window; its beginning was taken.
    BeyondWindow => "beyond_window",
    /// A reset outside the window.
    ResetOutsideWindow => "reset_outside_window",
    /// A reset in the window whose number was not exact: challenged (RFC 5961).
    ResetNotExact => "reset_not_exact",
    /// A reset in TIME-WAIT (RFC 1337).
    ResetInTimeWait => "reset_in_time_wait",
    /// A SYN on a connection: challenged (RFC 5961).
    SynInWindow => "syn_in_window",
    /// A segment without ACK, where every segment has it.
    NoAck => "no_ack",
    /// A segment without SYN, where it had to come.
    NoSyn => "no_syn",
    /// An acknowledgement of what was never sent, or of what nobody remembers.
    UnacceptableAck => "unacceptable_ack",
    /// Text or FIN behind the peer's FIN.
    TextAfterFin => "text_after_fin",
    /// Text for a connection whose user has closed: answered with a reset.
    TextAfterClose => "text_after_close",
    /// Text ahead of a gap, or a SYN, when frames were scarce.
    Pressure => "pressure",
    /// Text in order and within the window, when the connection or all of them had no frame left for it. It was not
    /// acknowledged, and comes again.
    OverBudget => "over_budget",
    /// Text ahead of a gap, when a connection held too many pieces.
    TooManyGaps => "too_many_gaps",
    /// A SYN when there were as many connections as there may be.
    TooManyConnections => "too_many_connections",
    /// An answer that could not be sent: no frame, no route or no room in the ring. The peer tries again.
    Unanswered => "unanswered",
    /// A segment of nobody, whose reset was withheld by the limit of answers.
    AnswersLimited => "answers_limited",
    /// A segment for a connection in TIME-WAIT.
    TimeWait => "time_wait",
    /// An ICMP error that quotes nothing in flight, or tells nothing new.
    IcmpNotInFlight => "icmp_not_in_flight",
    /// A segment of nobody that needs no answer: a reset.
    Stray => "stray",
}

impl DropReason {
    /// Position in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_index_and_name() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
        let names: HashSet<_> = DropReason::ALL.into_iter().map(DropReason::name).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
