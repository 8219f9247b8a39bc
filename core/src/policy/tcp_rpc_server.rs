//! The server's side of RPC connections: what the C proxy's net-tcp-rpc-server decides (policies.md sections 5 and 6).
//!
//! Two things of it run in production. Clients' packets are framed by its rules for ports without a handshake, which
//! [`transport`](crate::transport) has; and the local port turns to HTTP by [`upgrade`]. The server's part of nonces and
//! handshakes is for code that accepts RPC connections: none of ours does, since nobody but the C proxy's own tools ever
//! connected to that port.

use super::tcp_rpc_client::{CLOCK_SKEW_SECONDS_MAX, HandshakeAccepted, Permissions, SCHEMA_AES, SCHEMA_DH};

/// What a server allows by default (section 5.1): AES with Diffie-Hellman.
#[must_use]
pub fn permissions_of_server(allows_skipping_dh: bool) -> Permissions {
    let strict = Permissions::ALLOW_ENCRYPTED.with(Permissions::REQUIRE_DH).with(Permissions::CRC32C);
    if allows_skipping_dh { strict.with(Permissions::ALLOW_SKIP_DH) } else { strict }
}

/// What a peer says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerNonce {
    /// Which cipher it wants.
    pub schema: u32,
    /// It names no secret.
    pub selector_is_zero: bool,
    /// Our secret is the one it names first.
    pub names_ours_first: bool,
    /// Our secret is among those it names.
    pub names_ours: bool,
    /// Its group for Diffie-Hellman is ours.
    pub has_our_group: bool,
    /// How much later its clock is than ours, in seconds.
    pub clock_skew_seconds: i64,
}

/// What its nonce leads to (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceVerdict {
    /// Both sides go on in clear text.
    Unencrypted,
    /// Both sides go on with AES.
    Encrypted {
        /// … and a key agreement.
        with_dh: bool,
    },
    /// The connection ends.
    Refused(ServerRefusal),
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerRefusal {
    /// No secret in common, or a selector where there must be none.
    Selector,
    /// Clear text, or a cipher, that is not allowed.
    NotAllowed,
    /// Its clock is too far from ours.
    ClockSkew,
    /// Diffie-Hellman is insisted on.
    NeedsDh,
    /// A schema that nobody knows.
    Schema,
}

impl ServerRefusal {
    /// The C proxy's code. It finds an unknown schema by its size already, with -3.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Selector | Self::Schema => -3,
            Self::NotAllowed => -5,
            Self::ClockSkew => -6,
            Self::NeedsDh => -7,
        }
    }
}

/// Section 5.2. The schemas fall through: 3 without our group is 2, 2 with a secret of ours is 1.
#[must_use]
pub fn judge_nonce(peer: PeerNonce, permissions: Permissions) -> NonceVerdict {
    let clear = permissions.allow(Permissions::ALLOW_UNENCRYPTED);
    let clear_or = |why| if clear { NonceVerdict::Unencrypted } else { NonceVerdict::Refused(why) };
    let names_ours = match peer.schema {
        0 if !peer.selector_is_zero => return NonceVerdict::Refused(ServerRefusal::Selector),
        0 => return clear_or(ServerRefusal::NotAllowed),
        SCHEMA_AES => peer.names_ours_first,
        2 | SCHEMA_DH => peer.names_ours,
        _ => return clear_or(ServerRefusal::Schema),
    };
    if !names_ours {
        return clear_or(ServerRefusal::Selector);
    }
    if !permissions.allow(Permissions::ALLOW_ENCRYPTED) {
        return clear_or(ServerRefusal::NotAllowed);
    }
    if peer.clock_skew_seconds.unsigned_abs() > u64::from(CLOCK_SKEW_SECONDS_MAX) {
        return NonceVerdict::Refused(ServerRefusal::ClockSkew);
    }
    let with_dh = peer.schema == SCHEMA_DH && peer.has_our_group;
    let insists =
        permissions.allow(Permissions::REQUIRE_DH) && !permissions.allow(Permissions::ALLOW_SKIP_DH);
    if insists && !with_dh {
        return NonceVerdict::Refused(ServerRefusal::NeedsDh);
    }
    NonceVerdict::Encrypted { with_dh }
}

/// Why a peer's handshake is refused (section 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeRefused {
    /// It is not as long as one.
    Length,
    /// It is for somebody else.
    PeerId,
    /// Flags that nobody knows.
    Flags,
}

impl HandshakeRefused {
    /// The C proxy's code.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Length => -3,
            Self::PeerId => -4,
            Self::Flags => -7,
        }
    }
}

/// Section 5.3: `is_for_us` unless whom it is for does not matter; `allows_crc32c`: we do.
///
/// # Errors
/// Why the connection ends.
pub fn check_handshake(
    len: usize,
    is_for_us: bool,
    flags: u32,
    allows_crc32c: bool,
) -> Result<HandshakeAccepted, HandshakeRefused> {
    const HANDSHAKE_LEN: usize = 32;
    if len != HANDSHAKE_LEN {
        return Err(HandshakeRefused::Length);
    }
    if !is_for_us {
        return Err(HandshakeRefused::PeerId);
    }
    if flags & 0xff != 0 {
        return Err(HandshakeRefused::Flags);
    }
    let use_crc32c = allows_crc32c && flags & Permissions::CRC32C.bits() != 0;
    Ok(HandshakeAccepted { use_crc32c })
}

/// What a first word that is no length leads to (section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// It is a length.
    No,
    /// The connection speaks HTTP.
    Http,
    /// The peer is neither RPC nor HTTP: the connection ends (-1).
    BadLength,
}

/// First words of HTTP requests.
const HTTP_WORDS: [[u8; 4]; 4] = [*b"HEAD", *b"POST", *b"GET ", *b"OPTI"];
/// Bits that no length has.
const NO_LENGTH_BITS: u32 = 0xc000_0003;

/// Section 5.4. `is_first`: nothing was understood on this connection yet.
#[must_use]
pub fn upgrade(first_word: [u8; 4], is_first: bool, serves_http: bool) -> Upgrade {
    let word = u32::from_le_bytes(first_word);
    if word != 0 && word & NO_LENGTH_BITS == 0 {
        return Upgrade::No;
    }
    if is_first && serves_http && HTTP_WORDS.contains(&first_word) {
        Upgrade::Http
    } else {
        Upgrade::BadLength
    }
}

/// How a stream's frames are numbered and lengths read (section 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRules {
    /// Numbers may be left out.
    pub allows_holes: bool,
    /// The highest bit of a length asks for an acknowledgement.
    pub has_quick_ack: bool,
}

impl StreamRules {
    /// Clients of the proxy: no numbers, quick acknowledgements.
    pub const CLIENT_PORT: Self = Self { allows_holes: true, has_quick_ack: true };
    /// RPC peers.
    pub const RPC: Self = Self { allows_holes: false, has_quick_ack: false };

    /// A length as it was written: its value, and whether an acknowledgement is asked for.
    #[must_use]
    pub fn length(self, word: u32) -> (u32, bool) {
        const QUICK_ACK: u32 = 1 << 31;
        if self.has_quick_ack { (word & !QUICK_ACK, word & QUICK_ACK != 0) } else { (word, false) }
    }

    /// True if frame `found` may follow where `expected` is due.
    #[must_use]
    pub fn admits_sequence(self, expected: i32, found: i32) -> bool {
        self.allows_holes || expected == found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerNonce = PeerNonce {
        schema: 1,
        selector_is_zero: false,
        names_ours_first: true,
        names_ours: true,
        has_our_group: true,
        clock_skew_seconds: 0,
    };

    #[test]
    fn a_server_insists_on_diffie_hellman_unless_it_is_told_not_to() {
        assert_eq!((permissions_of_server(false).bits(), permissions_of_server(true).bits()), (0x806, 0x80e));
    }

    #[test]
    fn each_schema_leads_where_the_table_says() {
        let aes = Permissions::ALLOW_ENCRYPTED;
        let both = aes.with(Permissions::ALLOW_UNENCRYPTED);
        let clear = Permissions::ALLOW_UNENCRYPTED;
        let strict = permissions_of_server(false);
        let lenient = permissions_of_server(true);
        let refused = NonceVerdict::Refused;
        let encrypted = |with_dh| NonceVerdict::Encrypted { with_dh };
        let schema = |schema| PeerNonce { schema, ..PEER };
        let stranger = PeerNonce { names_ours_first: false, names_ours: false, ..PEER };
        for (peer, permissions, expected) in [
            (PeerNonce { selector_is_zero: true, ..schema(0) }, both, NonceVerdict::Unencrypted),
            (PeerNonce { selector_is_zero: true, ..schema(0) }, aes, refused(ServerRefusal::NotAllowed)),
            (schema(0), both, refused(ServerRefusal::Selector)),
            (schema(1), aes, encrypted(false)),
            (schema(1), strict, refused(ServerRefusal::NeedsDh)),
            (schema(1), lenient, encrypted(false)),
            (schema(1), clear, NonceVerdict::Unencrypted),
            (stranger, aes, refused(ServerRefusal::Selector)),
            (stranger, both, NonceVerdict::Unencrypted),
            (PeerNonce { names_ours_first: false, ..schema(2) }, aes, encrypted(false)),
            (PeerNonce { names_ours_first: false, ..schema(1) }, aes, refused(ServerRefusal::Selector)),
            (schema(3), strict, encrypted(true)),
            (PeerNonce { has_our_group: false, ..schema(3) }, lenient, encrypted(false)),
            (PeerNonce { has_our_group: false, ..schema(3) }, strict, refused(ServerRefusal::NeedsDh)),
            (schema(4), aes, refused(ServerRefusal::Schema)),
            (schema(4), both, NonceVerdict::Unencrypted),
            (PeerNonce { clock_skew_seconds: 30, ..PEER }, aes, encrypted(false)),
            (PeerNonce { clock_skew_seconds: -31, ..PEER }, both, refused(ServerRefusal::ClockSkew)),
        ] {
            assert_eq!(judge_nonce(peer, permissions), expected, "{peer:?} {permissions:?}");
        }
    }

    #[test]
    fn refusals_have_the_numbers_of_the_c_proxy() {
        use ServerRefusal::{ClockSkew, NeedsDh, NotAllowed, Schema, Selector};
        assert_eq!(
            [Selector, Schema, NotAllowed, ClockSkew, NeedsDh].map(ServerRefusal::code),
            [-3, -3, -5, -6, -7]
        );
        use HandshakeRefused::{Flags, Length, PeerId};
        assert_eq!([Length, PeerId, Flags].map(HandshakeRefused::code), [-3, -4, -7]);
    }

    #[test]
    fn a_handshake_has_its_length_its_addressee_and_known_flags() {
        let with = |use_crc32c| Ok(HandshakeAccepted { use_crc32c });
        assert_eq!(check_handshake(32, true, 0x800, true), with(true));
        assert_eq!(check_handshake(32, true, 0x800, false), with(false));
        assert_eq!(check_handshake(32, true, 0, true), with(false));
        assert_eq!(check_handshake(31, true, 0, true), Err(HandshakeRefused::Length));
        assert_eq!(check_handshake(33, true, 0, true), Err(HandshakeRefused::Length));
        assert_eq!(check_handshake(32, false, 0, true), Err(HandshakeRefused::PeerId));
        assert_eq!(check_handshake(32, true, 1, true), Err(HandshakeRefused::Flags));
    }

    #[test]
    fn only_the_first_word_of_a_connection_may_be_a_method() {
        for word in HTTP_WORDS {
            assert_eq!(upgrade(word, true, true), Upgrade::Http);
            assert_eq!(upgrade(word, false, true), Upgrade::BadLength);
            assert_eq!(upgrade(word, true, false), Upgrade::BadLength);
        }
        assert_eq!(upgrade([44, 0, 0, 0], true, true), Upgrade::No);
        assert_eq!(upgrade(*b"XYZW", true, true), Upgrade::BadLength);
        for no_length in [[0; 4], [1, 0, 0, 0], [0, 0, 0, 0x80], [0, 0, 0, 0x40]] {
            assert_eq!(upgrade(no_length, true, true), Upgrade::BadLength);
        }
    }

    #[test]
    fn the_highest_bit_is_part_of_a_length_only_where_clients_do_not_ask_with_it() {
        assert_eq!(StreamRules::CLIENT_PORT.length(0x8000_0010), (16, true));
        assert_eq!(StreamRules::RPC.length(0x8000_0010), (0x8000_0010, false));
        assert!(StreamRules::CLIENT_PORT.admits_sequence(0, 7) && !StreamRules::RPC.admits_sequence(0, 7));
    }
}
