//! Packets for a client, before ciphers are put on (protocol.md sections 4.1 to 4.5). `packet_reader.rs` draws them.

use super::Transport;
use crate::random::Random;

/// From so many words on an abridged length has its long form.
const LONG_FORM_WORDS: usize = 0x7f;
/// Random bytes behind a padded packet: fewer than this.
const PADDING_LEN_BOUND: u32 = 4;

/// Appends `body` as one packet; in the padded transport with 0 to 3 random bytes behind it, as the official proxy does.
///
/// # Panics
/// If `body` is not whole words, or too long for its length to be written.
pub fn append_packet(transport: Transport, body: &[u8], out: &mut Vec<u8>, random: &mut Random) {
    assert!(body.len().is_multiple_of(4) && body.len() < 1 << 26, "a packet of {} bytes", body.len());
    let len = body.len() as u32;
    match transport {
        Transport::Abridged => {
            let [low, middle, high, _] = (len / 4).to_le_bytes();
            if body.len() / 4 < LONG_FORM_WORDS {
                out.push(low);
            } else {
                out.extend_from_slice(&[0x7f, low, middle, high]);
            }
            out.extend_from_slice(body);
        }
        Transport::Intermediate => {
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(body);
        }
        Transport::PaddedIntermediate => {
            let padding_len = random.below(PADDING_LEN_BOUND);
            let padding: [u8; 4] = random.bytes();
            out.extend_from_slice(&(len + padding_len).to_le_bytes());
            out.extend_from_slice(body);
            out.extend_from_slice(&padding[..padding_len as usize]);
        }
    }
}

/// A quick acknowledgement: outside of all packets, told from a length by its highest bit, which comes first on the wire
/// where a length's does. Padded clients take the plain form, too.
#[must_use]
pub fn quick_ack(transport: Transport, token: u32) -> [u8; 4] {
    match transport {
        Transport::Abridged => token.to_be_bytes(),
        Transport::Intermediate | Transport::PaddedIntermediate => token.to_le_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(transport: Transport, words: usize, seed: u8) -> Vec<u8> {
        let mut out = Vec::new();
        append_packet(transport, &vec![9; 4 * words], &mut out, &mut Random::from_seed([seed; 32]));
        out
    }

    #[test]
    fn an_abridged_length_grows_at_127_words() {
        assert_eq!(packet(Transport::Abridged, 126, 0)[..2], [126, 9]);
        assert_eq!(packet(Transport::Abridged, 127, 0)[..5], [0x7f, 127, 0, 0, 9]);
        assert_eq!(packet(Transport::Abridged, 0x12345, 0)[..5], [0x7f, 0x45, 0x23, 0x01, 9]);
    }

    #[test]
    fn an_intermediate_packet_has_its_length_in_front_and_nothing_behind() {
        assert_eq!(packet(Transport::Intermediate, 1, 0), [4, 0, 0, 0, 9, 9, 9, 9]);
    }

    #[test]
    fn padding_has_every_length_from_none_to_three() {
        let mut seen = [false; 4];
        for seed in 0..64 {
            let out = packet(Transport::PaddedIntermediate, 2, seed);
            let len = u32::from_le_bytes(*out.first_chunk().unwrap()) as usize;
            assert_eq!(out.len(), 4 + len);
            seen[len - 8] = true;
        }
        assert_eq!(seen, [true; 4]);
    }

    #[test]
    fn an_acknowledgement_shows_its_highest_bit_first_where_a_length_does() {
        let token = 0x8123_4567;
        assert_eq!(quick_ack(Transport::Abridged, token), [0x81, 0x23, 0x45, 0x67]);
        assert_eq!(quick_ack(Transport::Intermediate, token), [0x67, 0x45, 0x23, 0x81]);
        assert_eq!(quick_ack(Transport::PaddedIntermediate, token), [0x67, 0x45, 0x23, 0x81]);
    }
}
