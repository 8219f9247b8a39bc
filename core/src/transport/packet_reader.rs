//! Packets in a client's stream, its ciphers taken off (protocol.md section 4).
//!
//! ```text
//!   abridged       ├ q·n ┤ packet: 4n bytes ┤            q: the highest bit asks for a quick acknowledgement
//!                  ├ q·7f ┼ n: 24 bits ┤ packet ┤        from n = 127 on
//!   intermediate   ├ q·len: 32 bits ┤ packet: len bytes ┤
//!   padded         ├ q·len: 32 bits ┤ packet ┤ 0 to 15 random bytes, which len counts ┤
//! ```
//! Of the padding only what makes words uneven can be told from the packet; whole words of it are forwarded, and a
//! message's own length leaves them out.

use std::ops::Range;

use super::{PACKET_LEN_MAX, Transport};
use crate::error::PeerMisbehaved;

/// Finds packets; keeps nothing but how they are framed.
#[derive(Clone, Copy, Debug)]
pub struct PacketReader {
    transport: Transport,
}

/// What stands at the front of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The beginning of a packet, or nothing.
    NeedMore {
        /// Nothing can be said before there are so many bytes.
        at_least: usize,
    },
    /// A whole packet.
    Packet {
        /// Its bytes, without what is surely padding.
        body: Range<usize>,
        /// Bytes up to the next packet.
        consumed: usize,
        /// The client wants to hear when it has arrived.
        quick_ack: bool,
    },
}

/// Most padding, which lengths count.
const PADDING_LEN_MAX: usize = 15;
/// In the abridged form: the length follows in 24 bits.
const LONG_FORM: u8 = 0x7f;
/// The highest bit of the first byte, or of the length.
const QUICK_ACK_BYTE: u8 = 0x80;
const QUICK_ACK: u32 = 1 << 31;

/// A packet's framing.
struct Header {
    len: usize,
    body_len: usize,
    quick_ack: bool,
}

impl PacketReader {
    /// A reader of this transport.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        Self { transport }
    }

    /// What stands at the front of `bytes`.
    ///
    /// # Errors
    /// [`PeerMisbehaved::BadPacketLength`] as soon as the length cannot be one (spec 4.4).
    pub fn next(&self, bytes: &[u8]) -> Result<Next, PeerMisbehaved> {
        let header = match self.transport {
            Transport::Abridged => abridged(bytes),
            Transport::Intermediate | Transport::PaddedIntermediate => intermediate(bytes),
        };
        let Header { len, body_len, quick_ack } = match header {
            Ok(header) => header,
            Err(at_least) => return Ok(Next::NeedMore { at_least }),
        };
        if !self.admits(body_len) || self.is_overlong(len, body_len) {
            return Err(PeerMisbehaved::BadPacketLength);
        }
        let consumed = len + body_len;
        if bytes.len() < consumed {
            return Ok(Next::NeedMore { at_least: consumed });
        }
        let body = len..consumed - body_len % 4;
        Ok(Next::Packet { body, consumed, quick_ack })
    }

    fn admits(&self, body_len: usize) -> bool {
        match self.transport {
            Transport::Abridged | Transport::Intermediate => {
                (4..=PACKET_LEN_MAX).contains(&body_len) && body_len.is_multiple_of(4)
            }
            Transport::PaddedIntermediate => (1..=PACKET_LEN_MAX + PADDING_LEN_MAX).contains(&body_len),
        }
    }

    /// Written in the long form although the short one would have done.
    fn is_overlong(&self, header_len: usize, body_len: usize) -> bool {
        self.transport == Transport::Abridged && header_len == 4 && body_len / 4 < usize::from(LONG_FORM)
    }
}

/// `Err`: there must be so many bytes.
fn abridged(bytes: &[u8]) -> Result<Header, usize> {
    let &first = bytes.first().ok_or(1_usize)?;
    let quick_ack = first & QUICK_ACK_BYTE != 0;
    let words = first & !QUICK_ACK_BYTE;
    if words != LONG_FORM {
        return Ok(Header { len: 1, body_len: 4 * usize::from(words), quick_ack });
    }
    let &[_, low, middle, high] = bytes.first_chunk().ok_or(4_usize)?;
    let words = u32::from_le_bytes([low, middle, high, 0]);
    Ok(Header { len: 4, body_len: 4 * words as usize, quick_ack })
}

fn intermediate(bytes: &[u8]) -> Result<Header, usize> {
    let word = u32::from_le_bytes(*bytes.first_chunk().ok_or(4_usize)?);
    Ok(Header { len: 4, body_len: (word & !QUICK_ACK) as usize, quick_ack: word & QUICK_ACK != 0 })
}

#[cfg(test)]
mod tests {
    use super::super::packet_writer::append_packet;
    use super::*;
    use crate::random::Random;
    use proptest::prelude::*;

    const ALL: [Transport; 3] = [Transport::Abridged, Transport::Intermediate, Transport::PaddedIntermediate];
    const BAD: Result<Next, PeerMisbehaved> = Err(PeerMisbehaved::BadPacketLength);

    fn intermediate(len: u32) -> Result<Next, PeerMisbehaved> {
        PacketReader::new(Transport::Intermediate).next(&len.to_le_bytes())
    }

    fn padded(len: usize) -> Result<Next, PeerMisbehaved> {
        PacketReader::new(Transport::PaddedIntermediate).next(&u32::try_from(len).unwrap().to_le_bytes())
    }

    fn abridged(bytes: &[u8]) -> Result<Next, PeerMisbehaved> {
        PacketReader::new(Transport::Abridged).next(bytes)
    }

    fn need(at_least: usize) -> Result<Next, PeerMisbehaved> {
        Ok(Next::NeedMore { at_least })
    }

    #[test]
    fn lengths_end_where_the_official_proxy_ends_them() {
        for bad in [0, 1, 6, 1_044_484, 1 << 30, 1 << 31] {
            assert_eq!(intermediate(bad), BAD, "{bad}");
        }
        assert_eq!((intermediate(4), intermediate(1_044_480)), (need(8), need(1_044_484)));
        assert_eq!((padded(0), padded(1), padded(1_044_495)), (BAD, need(5), need(1_044_499)));
        assert_eq!(padded(1_044_496), BAD);
    }

    #[test]
    fn an_abridged_length_has_one_form() {
        assert_eq!((abridged(&[0]), abridged(&[0x80])), (BAD, BAD));
        assert_eq!((abridged(&[1]), abridged(&[126])), (need(5), need(1 + 504)));
        assert_eq!((abridged(&[]), abridged(&[0x7f, 1, 2])), (need(1), need(4)));
        assert_eq!(abridged(&[0x7f, 126, 0, 0]), BAD);
        assert_eq!(abridged(&[0x7f, 127, 0, 0]), need(4 + 508));
        // 1 044 480 bytes are 261 120 words.
        assert_eq!(abridged(&[0xff, 0x00, 0xfc, 0x03]), need(4 + 1_044_480));
        assert_eq!(abridged(&[0xff, 0x01, 0xfc, 0x03]), BAD);
    }

    #[test]
    fn the_highest_bit_asks_for_an_acknowledgement() {
        let asks = |transport, bytes: &[u8]| match PacketReader::new(transport).next(bytes) {
            Ok(Next::Packet { quick_ack, .. }) => quick_ack,
            other => panic!("{other:?}"),
        };
        assert!(asks(Transport::Abridged, &[0x81, 1, 2, 3, 4]));
        assert!(!asks(Transport::Abridged, &[0x01, 1, 2, 3, 4]));
        assert!(asks(Transport::Intermediate, &[4, 0, 0, 0x80, 1, 2, 3, 4]));
        assert!(asks(Transport::PaddedIntermediate, &[5, 0, 0, 0x80, 1, 2, 3, 4, 5]));
    }

    #[test]
    fn uneven_padding_is_cut_off_and_whole_words_of_it_stay() {
        for padding in 0..=15 {
            let mut wire = u32::try_from(8 + padding).unwrap().to_le_bytes().to_vec();
            wire.resize(4 + 8 + padding, 7);
            let next = PacketReader::new(Transport::PaddedIntermediate).next(&wire).unwrap();
            let body = 4..4 + 8 + padding / 4 * 4;
            assert_eq!(next, Next::Packet { body, consumed: 12 + padding, quick_ack: false });
        }
    }

    proptest! {
        #[test]
        fn packets_are_found_however_they_are_cut(
            words in proptest::collection::vec(1_usize..200, 1..10),
            cuts in proptest::collection::vec(1_usize..300, 1..40),
            seed: [u8; 32],
        ) {
            for transport in ALL {
                let mut random = Random::from_seed(seed);
                let mut wire = Vec::new();
                let packets: Vec<Vec<u8>> = words.iter().map(|&words| vec![words.to_le_bytes()[0]; 4 * words]).collect();
                for packet in &packets {
                    append_packet(transport, packet, &mut wire, &mut random);
                }
                let reader = PacketReader::new(transport);
                let (mut found, mut at, mut arrived) = (Vec::new(), 0, 0);
                for cut in cuts.iter().copied().chain([wire.len()]) {
                    arrived = (arrived + cut).min(wire.len());
                    while let Next::Packet { body, consumed, quick_ack } = reader.next(&wire[at..arrived]).unwrap() {
                        prop_assert!(!quick_ack);
                        found.push(wire[at..][body].to_vec());
                        at += consumed;
                    }
                }
                prop_assert_eq!(&found, &packets);
            }
        }

        #[test]
        fn nothing_makes_it_panic_and_it_always_asks_for_more_than_there_is(bytes: Vec<u8>, transport in 0_usize..3) {
            match PacketReader::new(ALL[transport]).next(&bytes) {
                Ok(Next::NeedMore { at_least }) => prop_assert!(at_least > bytes.len()),
                Ok(Next::Packet { body, consumed, .. }) => {
                    prop_assert!(body.end <= consumed && consumed <= bytes.len());
                }
                Err(_) => {}
            }
        }
    }
}
