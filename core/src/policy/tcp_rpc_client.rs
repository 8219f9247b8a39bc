//! Links toward middle proxies: what the C proxy's net-tcp-rpc-client decides (policies.md section 4), and what it should
//! have decided about silence.
//!
//! Used by `middle_proxy/link.rs`. The bytes are in [`middle_proxy`](crate::middle_proxy); nothing here reads any.

use std::time::Duration;

/// What a side of a link may do: the C proxy's bits (section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u32);

impl Permissions {
    /// No cipher.
    pub const ALLOW_UNENCRYPTED: Self = Self(1);
    /// AES.
    pub const ALLOW_ENCRYPTED: Self = Self(2);
    /// Diffie-Hellman is insisted on.
    pub const REQUIRE_DH: Self = Self(4);
    /// … unless the peer does not want it.
    pub const ALLOW_SKIP_DH: Self = Self(8);
    /// The nonce was sent.
    pub const ENCRYPTED_SENT: Self = Self(16);
    /// CRC-32C may be agreed on.
    pub const CRC32C: Self = Self(0x800);
    /// What a caller may ask for.
    const ASKED: u32 = 1 | 2 | 4 | 8;

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Any bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// These and others.
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// These less others.
    #[must_use]
    pub const fn without(self, less: Self) -> Self {
        Self(self.0 & !less.0)
    }

    /// True if all of `wanted` are among these.
    #[must_use]
    pub const fn allow(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

/// A caller's wish as it holds: other bits are dropped, and a wish for neither cipher nor clear text is refused (-1).
///
/// # Errors
/// [`NoPermission`].
pub fn permissions_of(asked: u32) -> Result<Permissions, NoPermission> {
    let kept = Permissions(asked & Permissions::ASKED);
    let either = Permissions::ALLOW_UNENCRYPTED.bits() | Permissions::ALLOW_ENCRYPTED.bits();
    if kept.bits() & either == 0 { Err(NoPermission) } else { Ok(kept) }
}

/// Neither cipher nor clear text is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPermission;

impl NoPermission {
    /// The C proxy's code.
    #[must_use]
    pub fn code(self) -> i32 {
        -1
    }
}

/// Toward middle proxies: AES, never in clear text, and CRC-32C if they know it.
#[must_use]
pub fn permissions_toward_middle_proxy() -> Permissions {
    Permissions::ALLOW_ENCRYPTED.with(Permissions::CRC32C)
}

/// How a link begins (section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOfCrypto {
    /// With a nonce of this schema: 1 for AES, 3 with Diffie-Hellman.
    SendNonce {
        /// The schema.
        schema: u32,
    },
    /// With a nonce of zeros, schema 0: no cipher follows.
    FakeCrypto,
    /// Not at all.
    Refuse,
}

/// Section 4.2.
#[must_use]
pub fn start_of_crypto(permissions: Permissions) -> StartOfCrypto {
    let encrypted = permissions.allow(Permissions::ALLOW_ENCRYPTED);
    match encrypted {
        true if permissions.allow(Permissions::REQUIRE_DH) => StartOfCrypto::SendNonce { schema: SCHEMA_DH },
        true => StartOfCrypto::SendNonce { schema: SCHEMA_AES },
        false if permissions.allow(Permissions::ALLOW_UNENCRYPTED) => StartOfCrypto::FakeCrypto,
        false => StartOfCrypto::Refuse,
    }
}

/// AES with keys from nonces, addresses and the shared secret.
pub const SCHEMA_AES: u32 = 1;
/// The same, and a key agreement.
pub const SCHEMA_DH: u32 = 3;
/// How far the peer's clock may be from ours.
pub const CLOCK_SKEW_SECONDS_MAX: u32 = 30;

/// What we said in our nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceSent {
    /// Which secret.
    pub selector: [u8; 4],
    /// Our clock.
    pub unix: i32,
}

/// What the peer says in its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceAnswer {
    /// Which secret.
    pub selector: [u8; 4],
    /// Which cipher.
    pub schema: u32,
    /// Its clock.
    pub unix: i32,
}

/// Why a peer's nonce is not taken (section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceRefusal {
    /// It wants to speak in clear text.
    Unencrypted,
    /// A schema that we did not ask for.
    Schema(u32),
    /// Another secret than ours.
    Selector,
    /// Its clock is so many seconds later than ours.
    ClockSkew(i64),
}

impl NonceRefusal {
    /// The C proxy's code.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Unencrypted => -5,
            Self::Schema(SCHEMA_DH) => -7,
            Self::Schema(_) | Self::Selector => -3,
            Self::ClockSkew(_) => -6,
        }
    }
}

/// Section 4.3, for a link that is to be encrypted without Diffie-Hellman. Other schemas than ours are refused:
/// the C proxy takes schema 2, whose further secrets it does not have.
///
/// # Errors
/// Why the link ends.
pub fn check_nonce(answer: &NonceAnswer, sent: &NonceSent) -> Result<(), NonceRefusal> {
    match answer.schema {
        0 => return Err(NonceRefusal::Unencrypted),
        SCHEMA_AES => {}
        other => return Err(NonceRefusal::Schema(other)),
    }
    if answer.selector != sent.selector {
        return Err(NonceRefusal::Selector);
    }
    let skew = i64::from(answer.unix) - i64::from(sent.unix);
    if skew.unsigned_abs() > u64::from(CLOCK_SKEW_SECONDS_MAX) {
        return Err(NonceRefusal::ClockSkew(skew));
    }
    Ok(())
}

/// What the peer says in its handshake, as far as it is checked: real ones say what they like of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeAnswer {
    /// It names us as we named ourselves.
    pub is_for_us: bool,
    /// Its flags.
    pub flags: u32,
}

/// A handshake that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeAccepted {
    /// Frames have CRC-32C from now on.
    pub use_crc32c: bool,
}

/// Why a peer's handshake is not taken (section 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeRefusal {
    /// It is for somebody else.
    PeerId,
    /// Flags that nobody knows.
    Flags(u32),
    /// It wants CRC-32C, which we did not offer.
    Crc32c,
}

impl HandshakeRefusal {
    /// The C proxy's code.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::PeerId => -4,
            Self::Flags(_) => -7,
            Self::Crc32c => -8,
        }
    }
}

/// Flags whose meaning must be known to be allowed.
const CRITICAL_FLAGS: u32 = 0xff;

/// Section 4.4; `our_flags` are those that we sent.
///
/// # Errors
/// Why the link ends.
pub fn check_handshake(
    answer: &HandshakeAnswer,
    our_flags: u32,
) -> Result<HandshakeAccepted, HandshakeRefusal> {
    let crc32c = Permissions::CRC32C.bits();
    if !answer.is_for_us {
        return Err(HandshakeRefusal::PeerId);
    }
    if answer.flags & CRITICAL_FLAGS != 0 {
        return Err(HandshakeRefusal::Flags(answer.flags));
    }
    let use_crc32c = answer.flags & crc32c != 0;
    if use_crc32c && our_flags & crc32c == 0 {
        return Err(HandshakeRefusal::Crc32c);
    }
    Ok(HandshakeAccepted { use_crc32c })
}

/// From the dial of a link to its handshake.
pub const READY_WITHIN: Duration = Duration::from_secs(3);

/// How a connection stands with its pool (section 4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// On its way.
    NotYet,
    /// It carries packets.
    Ok,
    /// It would, but takes nothing now.
    Stopped,
    /// It is doing something else.
    Busy,
    /// It is of no use any more; with the C proxy's code.
    Failed(i32),
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Being dialled, or shaking hands, since so long ago.
    Beginning(Duration),
    /// Its hands are shaken.
    Working,
    /// It has failed.
    Failed,
    /// Anything else.
    Unexpected,
}

/// Section 4.6.
#[must_use]
pub fn readiness(progress: Progress) -> Readiness {
    match progress {
        Progress::Working => Readiness::Ok,
        Progress::Beginning(since) if since < READY_WITHIN => Readiness::NotYet,
        Progress::Beginning(_) => Readiness::Failed(-6),
        Progress::Failed => Readiness::Failed(-1),
        Progress::Unexpected => Readiness::Failed(-7),
    }
}

/// How a ready link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivenessInput {
    /// Since the last byte from the peer.
    pub since_received: Duration,
    /// Since our ping, if none has come since.
    pub since_ping: Option<Duration>,
    /// The peer has answered a ping before.
    pub has_ponged: bool,
    /// A client's packet went out, and no byte has come since.
    pub has_unanswered: bool,
    /// Silence after which we ask.
    pub ping_after: Duration,
    /// Silence after our question that is an answer.
    pub stalled_after: Duration,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Nothing.
    Alive,
    /// Ask.
    Ping,
    /// Give the link up.
    Stalled,
}

/// The C proxy never asks, and finds a dead middle proxy by TCP keep-alive after four minutes (section 11, item 9).
///
/// Whether every middle proxy answers pings is not written anywhere. So one that never has is taken for dead only
/// if it does not answer clients either.
#[must_use]
pub fn liveness(link: LivenessInput) -> Liveness {
    match link.since_ping {
        None if link.since_received < link.ping_after => Liveness::Alive,
        None => Liveness::Ping,
        Some(silence) if silence < link.stalled_after => Liveness::Alive,
        Some(_) if link.has_ponged || link.has_unanswered => Liveness::Stalled,
        Some(_) => Liveness::Alive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_keeps_the_bits_that_may_be_asked_for() {
        for (asked, kept) in [(1, Ok(1)), (2, Ok(2)), (3, Ok(3)), (14, Ok(14)), (0xffff, Ok(15))] {
            assert_eq!(permissions_of(asked).map(Permissions::bits), kept);
        }
        for refused in [0, 4, 8, 12, 16, 0x800] {
            assert_eq!(permissions_of(refused), Err(NoPermission), "{refused}");
        }
        assert_eq!(NoPermission.code(), -1);
    }

    #[test]
    fn a_link_begins_as_it_is_permitted() {
        let aes = Permissions::ALLOW_ENCRYPTED;
        for (permissions, start) in [
            (permissions_toward_middle_proxy(), StartOfCrypto::SendNonce { schema: 1 }),
            (aes.with(Permissions::ALLOW_UNENCRYPTED), StartOfCrypto::SendNonce { schema: 1 }),
            (aes.with(Permissions::REQUIRE_DH), StartOfCrypto::SendNonce { schema: 3 }),
            (Permissions::ALLOW_UNENCRYPTED, StartOfCrypto::FakeCrypto),
            (Permissions::default(), StartOfCrypto::Refuse),
            (Permissions::REQUIRE_DH, StartOfCrypto::Refuse),
        ] {
            assert_eq!(start_of_crypto(permissions), start, "{permissions:?}");
        }
    }

    #[test]
    fn toward_middle_proxies_nothing_goes_in_clear_text() {
        assert!(!permissions_toward_middle_proxy().allow(Permissions::ALLOW_UNENCRYPTED));
        assert_eq!(permissions_toward_middle_proxy().bits(), 0x802);
    }

    #[test]
    fn a_nonce_is_taken_with_our_secret_our_cipher_and_about_our_time() {
        let sent = NonceSent { selector: [1, 2, 3, 4], unix: 1000 };
        let answer = NonceAnswer { selector: [1, 2, 3, 4], schema: 1, unix: 1000 };
        let skewed = |by| NonceAnswer { unix: 1000 + by, ..answer };
        for (answer, expected, code) in [
            (answer, Ok(()), 0),
            (skewed(30), Ok(()), 0),
            (skewed(-30), Ok(()), 0),
            (skewed(31), Err(NonceRefusal::ClockSkew(31)), -6),
            (skewed(-31), Err(NonceRefusal::ClockSkew(-31)), -6),
            (NonceAnswer { schema: 0, ..answer }, Err(NonceRefusal::Unencrypted), -5),
            (NonceAnswer { schema: 2, ..answer }, Err(NonceRefusal::Schema(2)), -3),
            (NonceAnswer { schema: 3, ..answer }, Err(NonceRefusal::Schema(3)), -7),
            (NonceAnswer { selector: [1, 2, 3, 5], ..answer }, Err(NonceRefusal::Selector), -3),
        ] {
            assert_eq!(check_nonce(&answer, &sent), expected);
            assert_eq!(expected.err().map_or(0, NonceRefusal::code), code);
        }
    }

    #[test]
    fn clocks_at_both_ends_of_their_range_are_compared_without_overflow() {
        let sent = NonceSent { selector: [0; 4], unix: i32::MIN };
        let answer = NonceAnswer { selector: [0; 4], schema: 1, unix: i32::MAX };
        let skew = i64::from(u32::MAX);
        assert_eq!(check_nonce(&answer, &sent), Err(NonceRefusal::ClockSkew(skew)));
    }

    #[test]
    fn a_handshake_is_taken_if_it_is_for_us_and_wants_nothing_unknown() {
        let answer = |is_for_us, flags| HandshakeAnswer { is_for_us, flags };
        let with = |use_crc32c| Ok(HandshakeAccepted { use_crc32c });
        for (answer, our_flags, expected, code) in [
            (answer(true, 0x800), 0x800, with(true), 0),
            (answer(true, 0), 0x800, with(false), 0),
            (answer(true, 0x100), 0x800, with(false), 0),
            (answer(false, 0x800), 0x800, Err(HandshakeRefusal::PeerId), -4),
            (answer(true, 0x801), 0x800, Err(HandshakeRefusal::Flags(0x801)), -7),
            (answer(true, 0x80), 0x800, Err(HandshakeRefusal::Flags(0x80)), -7),
            (answer(true, 0x800), 0, Err(HandshakeRefusal::Crc32c), -8),
        ] {
            assert_eq!(check_handshake(&answer, our_flags), expected, "{answer:?}");
            assert_eq!(expected.err().map_or(0, HandshakeRefusal::code), code);
        }
    }

    #[test]
    fn a_connection_has_three_seconds_to_become_ready() {
        let nanosecond = Duration::from_nanos(1);
        for (progress, expected) in [
            (Progress::Beginning(Duration::ZERO), Readiness::NotYet),
            (Progress::Beginning(READY_WITHIN - nanosecond), Readiness::NotYet),
            (Progress::Beginning(READY_WITHIN), Readiness::Failed(-6)),
            (Progress::Working, Readiness::Ok),
            (Progress::Failed, Readiness::Failed(-1)),
            (Progress::Unexpected, Readiness::Failed(-7)),
        ] {
            assert_eq!(readiness(progress), expected, "{progress:?}");
        }
    }

    #[test]
    fn silence_is_asked_about_and_silence_after_that_is_the_end() {
        let second = Duration::from_secs(1);
        let link = LivenessInput {
            since_received: Duration::ZERO,
            since_ping: None,
            has_ponged: true,
            has_unanswered: false,
            ping_after: 10 * second,
            stalled_after: 5 * second,
        };
        let silent = |seconds| LivenessInput { since_received: seconds * second, ..link };
        let asked = |seconds| LivenessInput { since_ping: Some(seconds * second), ..silent(20) };
        for (link, expected) in [
            (silent(9), Liveness::Alive),
            (silent(10), Liveness::Ping),
            (asked(4), Liveness::Alive),
            (asked(5), Liveness::Stalled),
            (LivenessInput { has_ponged: false, ..asked(500) }, Liveness::Alive),
            (LivenessInput { has_ponged: false, has_unanswered: true, ..asked(5) }, Liveness::Stalled),
        ] {
            assert_eq!(liveness(link), expected, "{link:?}");
        }
    }
}
