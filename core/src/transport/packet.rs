//! What is inside a client's packet, as far as a proxy looks (protocol.md section 5): the kind of message, never its
//! content. A middle proxy is not bothered with what cannot be one.
//!
//! ```text
//!  0          8          16       20           24
//!  ├ key id ──┼ message key ──────┼ encrypted ─ … ─┤   an encrypted message: 56 bytes at least
//!  ├ 0 ───────┼ message id ┼ len ─┼ function ─┼ … ───┤   of the handshake: one of four functions
//! ```

use crate::middle_proxy::message;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// An encrypted message.
    Encrypted,
    /// A message of the handshake, not encrypted.
    Handshake,
    /// A ping of the RPC layer: to be answered with the same number.
    Ping(i64),
    /// Nothing that is forwarded; the client stays.
    Ignored(IgnoredPacket),
}

/// Why a packet is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoredPacket {
    /// Shorter than any message, or not whole words.
    Length,
    /// An encrypted message without room for its own header.
    EncryptedLength,
    /// A message of the handshake whose length field is wrong.
    HandshakeLength,
    /// Not encrypted, and none of the handshake's functions.
    Function(u32),
}

/// Shortest message.
const LEN_MIN: usize = 28;
/// Shortest encrypted message: key id, message key, and the header behind them.
const ENCRYPTED_LEN_MIN: usize = 56;
/// Bytes before what the length field of a message counts.
const HANDSHAKE_HEADER_LEN: usize = 20;
/// Least that it counts.
const HANDSHAKE_INNER_LEN_MIN: usize = 20;
/// req_pq, req_pq_multi, req_DH_params, set_client_DH_params.
const HANDSHAKE_FUNCTIONS: [u32; 4] = [0x6046_9778, 0xbe7e_8ef1, 0xd712_e4be, 0xf504_5f1f];

/// Looks at a packet without its padding.
#[must_use]
pub fn classify(packet: &[u8]) -> PacketKind {
    if let Some(id) = message::parse_ping(packet) {
        return PacketKind::Ping(id);
    }
    if packet.len() < LEN_MIN || !packet.len().is_multiple_of(4) {
        return PacketKind::Ignored(IgnoredPacket::Length);
    }
    if packet[..8] != [0; 8] {
        return match packet.len() {
            ENCRYPTED_LEN_MIN.. => PacketKind::Encrypted,
            _ => PacketKind::Ignored(IgnoredPacket::EncryptedLength),
        };
    }
    let inner_len = word(packet, 16) as usize;
    if inner_len < HANDSHAKE_INNER_LEN_MIN || inner_len > packet.len() - HANDSHAKE_HEADER_LEN {
        return PacketKind::Ignored(IgnoredPacket::HandshakeLength);
    }
    match word(packet, 20) {
        function if HANDSHAKE_FUNCTIONS.contains(&function) => PacketKind::Handshake,
        function => PacketKind::Ignored(IgnoredPacket::Function(function)),
    }
}

fn word(packet: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message of the handshake of `len` bytes that says so of itself.
    fn handshake(len: usize, inner_len: usize, function: u32) -> Vec<u8> {
        let mut packet = vec![0; len];
        packet[8..16].copy_from_slice(&7_i64.to_le_bytes());
        packet[16..20].copy_from_slice(&u32::try_from(inner_len).unwrap().to_le_bytes());
        packet[20..24].copy_from_slice(&function.to_le_bytes());
        packet
    }

    #[test]
    fn an_encrypted_message_has_56_bytes_at_least() {
        for (len, kind) in [
            (24, PacketKind::Ignored(IgnoredPacket::Length)),
            (28, PacketKind::Ignored(IgnoredPacket::EncryptedLength)),
            (52, PacketKind::Ignored(IgnoredPacket::EncryptedLength)),
            (56, PacketKind::Encrypted),
            (57, PacketKind::Ignored(IgnoredPacket::Length)),
            (60, PacketKind::Encrypted),
        ] {
            assert_eq!(classify(&vec![1; len]), kind, "{len}");
        }
    }

    #[test]
    fn the_four_functions_of_the_handshake_are_forwarded_and_no_other() {
        for function in HANDSHAKE_FUNCTIONS {
            assert_eq!(classify(&handshake(40, 20, function)), PacketKind::Handshake);
        }
        let other = PacketKind::Ignored(IgnoredPacket::Function(0x6046_9779));
        assert_eq!(classify(&handshake(40, 20, 0x6046_9779)), other);
    }

    #[test]
    fn the_length_field_of_a_handshake_message_fits_its_packet() {
        for (len, inner_len, is_good) in [
            (40, 19, false),
            (40, 20, true),
            (40, 21, false),
            (44, 20, true),
            (44, 24, true),
            (36, 20, false),
        ] {
            let kind = classify(&handshake(len, inner_len, HANDSHAKE_FUNCTIONS[0]));
            let expected = if is_good {
                PacketKind::Handshake
            } else {
                PacketKind::Ignored(IgnoredPacket::HandshakeLength)
            };
            assert_eq!(kind, expected, "{len} {inner_len}");
        }
    }

    #[test]
    fn twelve_bytes_that_are_a_ping_are_one() {
        assert_eq!(classify(&message::ping(-3)), PacketKind::Ping(-3));
        assert_eq!(classify(&message::pong(-3)), PacketKind::Ignored(IgnoredPacket::Length));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(packet: Vec<u8>) {
            let _ = classify(&packet);
        }
    }
}
