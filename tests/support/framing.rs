//! Packets inside the obfuscated stream, in each of the three transports (protocol.md section 4).

use mtproxy_core::transport::Transport;

use crate::error::PeerError;

/// Longest packet that section 4 allows, in bytes of payload and padding.
pub const PACKET_LEN_MAX: usize = 1_044_480;

/// From this many words on, abridged writes its long form.
const ABRIDGED_LONG_FORM: usize = 0x7f;
/// Abridged: quick ack wanted, or is one.
const ABRIDGED_QUICK_ACK: u8 = 0x80;
/// The other transports: the same, in the length.
const QUICK_ACK: u32 = 1 << 31;

/// One packet on its way out.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketOptions<'a> {
    /// Ask the data centre to confirm receipt at once. Only clients may.
    pub wants_quick_ack: bool,
    /// Random bytes behind the body, 0 to 15. Padded intermediate only.
    pub padding: &'a [u8],
}

/// Appends `body` to `wire` as one packet.
///
/// # Panics
/// If the transport cannot say it: a body that is empty, not a multiple of four bytes or too long, or
/// padding where there is none.
pub fn frame_packet(transport: Transport, body: &[u8], options: PacketOptions<'_>, wire: &mut Vec<u8>) {
    let padding = options.padding;
    assert!(!body.is_empty() && body.len().is_multiple_of(4), "a body of {} bytes", body.len());
    assert!(body.len() + padding.len() <= PACKET_LEN_MAX, "a body of {} bytes", body.len());
    let may_pad = transport == Transport::PaddedIntermediate && padding.len() < 16;
    assert!(padding.is_empty() || may_pad, "{} bytes of padding in {transport:?}", padding.len());
    match transport {
        Transport::Abridged => {
            let words = body.len() / 4;
            let flag = if options.wants_quick_ack { ABRIDGED_QUICK_ACK } else { 0 };
            let [first, second, third, ..] = words.to_le_bytes();
            if words < ABRIDGED_LONG_FORM {
                wire.push(first | flag);
            } else {
                wire.extend([0x7f | flag, first, second, third]);
            }
        }
        Transport::Intermediate | Transport::PaddedIntermediate => {
            let flag = if options.wants_quick_ack { QUICK_ACK } else { 0 };
            let length = u32::try_from(body.len() + padding.len()).expect("bounded by PACKET_LEN_MAX");
            wire.extend((length | flag).to_le_bytes());
        }
    }
    wire.extend_from_slice(body);
    wire.extend_from_slice(padding);
}

/// Appends a quick ack as a data centre sends it: outside the framing (section 4.5). In the padded
/// transport this is the raw form, which every client accepts.
pub fn frame_quick_ack(transport: Transport, token: u32, wire: &mut Vec<u8>) {
    let token = token | QUICK_ACK;
    match transport {
        Transport::Abridged => wire.extend(token.to_be_bytes()),
        Transport::Intermediate | Transport::PaddedIntermediate => wire.extend(token.to_le_bytes()),
    }
}

/// What a [`PacketReader`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A packet, without the up to three bytes of padding that its length gives away.
    Message {
        /// The payload, and in the padded transport up to 12 bytes of padding that look like payload.
        body: Vec<u8>,
        /// The client wants a quick ack. Never set on the way to a client.
        wants_quick_ack: bool,
    },
    /// A quick ack with its token, bit 31 set. Only on the way to a client.
    QuickAck(u32),
}

/// Who reads: it decides what the quick-ack bit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The bit means "this is a quick ack".
    Client,
    /// The bit means "I want a quick ack".
    Dc,
}

/// Finds packets in a decrypted stream that arrives in any pieces.
#[derive(Debug)]
pub struct PacketReader {
    transport: Transport,
    reader: Reader,
    buffer: Vec<u8>,
    /// Bytes of `buffer` already handed out.
    consumed: usize,
}

impl PacketReader {
    /// A reader at the beginning of a stream.
    #[must_use]
    pub fn new(transport: Transport, reader: Reader) -> Self {
        Self { transport, reader, buffer: Vec::new(), consumed: 0 }
    }

    /// Takes bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that belong to a packet not complete yet.
    #[must_use]
    pub fn buffered_len(&self) -> usize {
        self.buffer.len() - self.consumed
    }

    /// The next complete packet; `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`PeerError::PacketLength`] for a length that section 4.4 forbids. The stream is then lost.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, PeerError> {
        let rest = &self.buffer[self.consumed..];
        let Some(header) = parse_header(self.transport, self.reader, rest)? else { return Ok(None) };
        let (header_len, body_len, wants_quick_ack) = match header {
            Header::QuickAck(token) => {
                self.consumed += 4;
                return Ok(Some(Packet::QuickAck(token)));
            }
            Header::Message { header_len, body_len, wants_quick_ack } => {
                (header_len, body_len, wants_quick_ack)
            }
        };
        let Some(body) = rest.get(header_len..header_len + body_len) else { return Ok(None) };
        let body = body[..body_len - body_len % 4].to_vec();
        self.consumed += header_len + body_len;
        Ok(Some(Packet::Message { body, wants_quick_ack }))
    }
}

enum Header {
    QuickAck(u32),
    Message { header_len: usize, body_len: usize, wants_quick_ack: bool },
}

fn parse_header(transport: Transport, reader: Reader, bytes: &[u8]) -> Result<Option<Header>, PeerError> {
    match transport {
        Transport::Abridged => parse_abridged_header(reader, bytes),
        Transport::Intermediate | Transport::PaddedIntermediate => {
            let Some(&first_word) = bytes.first_chunk::<4>() else { return Ok(None) };
            let word = u32::from_le_bytes(first_word);
            let flagged = word & QUICK_ACK != 0;
            if flagged && reader == Reader::Client {
                return Ok(Some(Header::QuickAck(word)));
            }
            let body_len = (word & !QUICK_ACK) as usize;
            let is_whole_words = body_len.is_multiple_of(4) || transport == Transport::PaddedIntermediate;
            checked(4, body_len, is_whole_words, flagged)
        }
    }
}

fn parse_abridged_header(reader: Reader, bytes: &[u8]) -> Result<Option<Header>, PeerError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let flagged = first & ABRIDGED_QUICK_ACK != 0;
    let first_word = bytes.first_chunk::<4>();
    if flagged && reader == Reader::Client {
        return Ok(first_word.map(|&token| Header::QuickAck(u32::from_be_bytes(token))));
    }
    let short_words = usize::from(first & !ABRIDGED_QUICK_ACK);
    if short_words < ABRIDGED_LONG_FORM {
        return checked(1, short_words * 4, true, flagged);
    }
    let Some(&[_, low, middle, high]) = first_word else { return Ok(None) };
    let words = u32::from_le_bytes([low, middle, high, 0]) as usize;
    checked(4, words * 4, words >= ABRIDGED_LONG_FORM, flagged)
}

fn checked(
    header_len: usize,
    body_len: usize,
    is_well_formed: bool,
    wants_quick_ack: bool,
) -> Result<Option<Header>, PeerError> {
    if !is_well_formed || !(4..=PACKET_LEN_MAX).contains(&body_len) {
        return Err(PeerError::PacketLength { found: body_len });
    }
    Ok(Some(Header::Message { header_len, body_len, wants_quick_ack }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRANSPORTS: [Transport; 3] =
        [Transport::Abridged, Transport::Intermediate, Transport::PaddedIntermediate];

    fn framed(transport: Transport, body: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        frame_packet(transport, body, PacketOptions::default(), &mut wire);
        wire
    }

    fn first_packet(transport: Transport, reader: Reader, wire: &[u8]) -> Result<Option<Packet>, PeerError> {
        let mut packets = PacketReader::new(transport, reader);
        packets.push(wire);
        packets.next_packet()
    }

    #[test]
    fn abridged_changes_to_its_long_form_at_127_words() {
        assert_eq!(framed(Transport::Abridged, &[1; 126 * 4])[..2], [126, 1]);
        assert_eq!(framed(Transport::Abridged, &[1; 127 * 4])[..5], [0x7f, 127, 0, 0, 1]);
    }

    #[test]
    fn lengths_that_the_protocol_forbids_end_the_stream() {
        let over_long = [0x7f, 126, 0, 0];
        assert!(first_packet(Transport::Abridged, Reader::Dc, &over_long).is_err());
        assert!(first_packet(Transport::Abridged, Reader::Dc, &[0]).is_err());
        assert!(first_packet(Transport::Intermediate, Reader::Dc, &[5, 0, 0, 0]).is_err());
        assert_eq!(first_packet(Transport::PaddedIntermediate, Reader::Dc, &[5, 0, 0, 0]), Ok(None));
        for (words, accepted) in [(PACKET_LEN_MAX / 4, true), (PACKET_LEN_MAX / 4 + 1, false)] {
            let length = u32::try_from(words * 4).unwrap().to_le_bytes();
            assert_eq!(first_packet(Transport::Intermediate, Reader::Dc, &length).is_ok(), accepted);
        }
    }

    #[test]
    fn a_quick_ack_is_told_from_a_packet_by_its_first_bit() {
        for transport in TRANSPORTS {
            let mut wire = Vec::new();
            frame_quick_ack(transport, 0x0102_0304, &mut wire);
            wire.extend(framed(transport, &[9; 8]));
            let mut packets = PacketReader::new(transport, Reader::Client);
            packets.push(&wire);
            assert_eq!(packets.next_packet(), Ok(Some(Packet::QuickAck(0x8102_0304))));
            let message = Packet::Message { body: vec![9; 8], wants_quick_ack: false };
            assert_eq!(packets.next_packet(), Ok(Some(message)));
        }
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read_whatever_the_split(
            transport in proptest::sample::select(&TRANSPORTS),
            lengths in proptest::collection::vec(1usize..600, 1..8),
            padding_len in 0usize..16, wants_quick_ack: bool, piece_len in 1usize..100,
        ) {
            let padding = vec![7; if transport == Transport::PaddedIntermediate { padding_len } else { 0 }];
            let options = PacketOptions { wants_quick_ack, padding: &padding };
            let bodies: Vec<Vec<u8>> = lengths.iter().map(|&words| crate::pattern::bytes(0, words * 4)).collect();
            let mut wire = Vec::new();
            for body in &bodies {
                frame_packet(transport, body, options, &mut wire);
            }
            let mut packets = PacketReader::new(transport, Reader::Dc);
            let mut found = Vec::new();
            for piece in wire.chunks(piece_len) {
                packets.push(piece);
                while let Some(packet) = packets.next_packet().unwrap() {
                    found.push(packet);
                }
            }
            prop_assert_eq!(packets.buffered_len(), 0);
            prop_assert_eq!(found.len(), bodies.len());
            for (packet, body) in found.iter().zip(&bodies) {
                let Packet::Message { body: read, wants_quick_ack: wanted } = packet else { panic!() };
                // Whole words of padding cannot be told from payload (section 4.3).
                prop_assert_eq!(&read[..body.len()], &body[..]);
                prop_assert_eq!(read.len(), body.len() + padding.len() / 4 * 4);
                prop_assert_eq!(*wanted, wants_quick_ack);
            }
        }
    }
}
