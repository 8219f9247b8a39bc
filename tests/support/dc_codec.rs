//! A data centre's side of the wire, as a pure value.
//!
//! Opens the 64-byte init frame (no secret: keys unhashed, protocol.md section 8), then either answers
//! packets or echoes the stream without looking at it. Output is made when it is asked for, so a bulk
//! answer of any length costs no memory, and a driver that stops reading while
//! [`has_output`](DcCodec::has_output) bounds everything.

use std::collections::VecDeque;

use mtproxy_core::aes_ctr::AesCtr;
use mtproxy_core::dc::DcId;
use mtproxy_core::obfuscated2::{INIT_FRAME_LEN, InitFrame};
use mtproxy_core::random::Random;
use mtproxy_core::transport::Transport;
use sha2::{Digest, Sha256};

use crate::command::{self, BULK_CHUNK_LEN, Command};
use crate::error::PeerError;
use crate::framing::{Packet, PacketOptions, PacketReader, Reader, frame_packet, frame_quick_ack};
use crate::mtproto;
use crate::pattern;

/// What a data centre does with what it receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DcMode {
    /// Reads packets: `req_pq_multi` and the commands of [`Command`].
    #[default]
    Packets,
    /// Sends every decrypted byte back, whatever it means.
    EchoBytes,
}

/// How a data centre ends a connection of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// FIN, and nothing is read any more.
    Close,
    /// RST.
    Reset,
    /// FIN, and reading goes on.
    HalfClose,
}

/// A data centre's side of the wire.
#[derive(Debug)]
pub struct DcCodec {
    mode: DcMode,
    random: Random,
    phase: Phase,
    jobs: VecDeque<Job>,
    payload_len: u64,
    sunk_len: u64,
    sunk: Sha256,
}

#[derive(Debug)]
enum Phase {
    AwaitingInitFrame(Vec<u8>),
    Open(Link),
}

#[derive(Debug)]
struct Link {
    dc: DcId,
    transport: Transport,
    up: AesCtr,
    down: AesCtr,
    packets: PacketReader,
}

/// Output that is still to be made.
#[derive(Debug)]
enum Job {
    /// Framed and plain bytes.
    Bytes(Vec<u8>),
    /// Packets of the pattern.
    Bulk {
        position: u64,
        len: u64,
    },
    End(Ending),
}

impl DcCodec {
    /// A data centre at the beginning of a connection. `random` makes server nonces and padding.
    #[must_use]
    pub fn new(mode: DcMode, random: Random) -> Self {
        Self {
            mode,
            random,
            phase: Phase::AwaitingInitFrame(Vec::new()),
            jobs: VecDeque::new(),
            payload_len: 0,
            sunk_len: 0,
            sunk: Sha256::new(),
        }
    }

    /// The data centre and transport in the init frame, once it has come.
    #[must_use]
    pub fn init(&self) -> Option<(DcId, Transport)> {
        match &self.phase {
            Phase::AwaitingInitFrame(_) => None,
            Phase::Open(link) => Some((link.dc, link.transport)),
        }
    }

    /// Bytes received behind the init frame.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        self.payload_len
    }

    /// Takes bytes from the wire, cut anywhere.
    ///
    /// # Errors
    /// [`PeerError`] for an init frame without a known tag, a forbidden packet length, or a packet that
    /// is no command.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), PeerError> {
        if let Phase::AwaitingInitFrame(received) = &mut self.phase {
            let (head, rest) = bytes.split_at(bytes.len().min(INIT_FRAME_LEN - received.len()));
            received.extend_from_slice(head);
            let Some(frame) = received.first_chunk() else { return Ok(()) };
            let init = InitFrame::open(frame, None).ok_or(PeerError::UnknownProtocolTag)?;
            self.phase = Phase::Open(Link {
                dc: init.dc,
                transport: init.transport,
                up: init.streams.forward,
                down: init.streams.backward.stream(),
                packets: PacketReader::new(init.transport, Reader::Dc),
            });
            bytes = rest;
        }
        let Phase::Open(link) = &mut self.phase else { return Ok(()) };
        self.payload_len += bytes.len() as u64;
        let mut plain = bytes.to_vec();
        link.up.apply(&mut plain);
        match self.mode {
            DcMode::EchoBytes if plain.is_empty() => Ok(()),
            DcMode::EchoBytes => {
                self.jobs.push_back(Job::Bytes(plain));
                Ok(())
            }
            DcMode::Packets => {
                link.packets.push(&plain);
                self.answer_packets()
            }
        }
    }

    /// The peer has sent FIN: what was asked is still answered, then the connection is closed.
    pub fn end_of_input(&mut self) {
        self.jobs.push_back(Job::End(Ending::Close));
    }

    /// True while there is something to send. A driver that reads only when this is false keeps the
    /// memory of a connection bounded by its own read and output sizes.
    #[must_use]
    pub fn has_output(&self) -> bool {
        matches!(self.jobs.front(), Some(Job::Bytes(_) | Job::Bulk { .. }))
    }

    /// Appends encrypted output to `wire` until it holds at least `len_min` bytes or there is no more.
    /// Exceeds `len_min` by one packet at most.
    pub fn fill(&mut self, wire: &mut Vec<u8>, len_min: usize) {
        let Phase::Open(link) = &mut self.phase else { return };
        let start = wire.len();
        while wire.len() < len_min {
            match self.jobs.front_mut() {
                Some(Job::Bytes(bytes)) => {
                    wire.extend_from_slice(bytes);
                    self.jobs.pop_front();
                }
                Some(Job::Bulk { position, len }) => {
                    append_bulk_packet(link.transport, &mut self.random, position, *len, wire);
                    if position == len {
                        self.jobs.pop_front();
                    }
                }
                Some(Job::End(_)) | None => break,
            }
        }
        link.down.apply(&mut wire[start..]);
    }

    /// What to do with the connection, now that everything before has been made. Given once.
    pub fn take_ending(&mut self) -> Option<Ending> {
        let Some(&Job::End(ending)) = self.jobs.front() else { return None };
        self.jobs.pop_front();
        Some(ending)
    }

    fn answer_packets(&mut self) -> Result<(), PeerError> {
        loop {
            let Phase::Open(link) = &mut self.phase else { return Ok(()) };
            let transport = link.transport;
            let Some(packet) = link.packets.next_packet()? else { return Ok(()) };
            let Packet::Message { body, wants_quick_ack } = packet else {
                return Err(PeerError::UnknownPacket);
            };
            if wants_quick_ack {
                let mut wire = Vec::new();
                frame_quick_ack(transport, quick_ack_token(&body), &mut wire);
                self.jobs.push_back(Job::Bytes(wire));
            }
            self.answer(transport, &body)?;
        }
    }

    fn answer(&mut self, transport: Transport, body: &[u8]) -> Result<(), PeerError> {
        if let Some((message_id, nonce)) = mtproto::parse_req_pq_multi(body) {
            let server_nonce = self.random.bytes();
            // Answers have a message id of 1 modulo 4 (core.telegram.org/mtproto/description).
            let answer = mtproto::res_pq(message_id | 1, &nonce, &server_nonce);
            self.send_packet(transport, &answer);
            return Ok(());
        }
        match Command::parse(body).ok_or(PeerError::UnknownPacket)? {
            Command::Echo(payload) => self.send_packet(transport, &Command::Echo(payload).body()),
            Command::Bulk { len: 0 } => {}
            Command::Bulk { len } => self.jobs.push_back(Job::Bulk { position: 0, len }),
            Command::Sink(payload) => {
                self.sunk_len += payload.len() as u64;
                self.sunk.update(&payload);
            }
            Command::Digest => {
                let sha256 = self.sunk.clone().finalize().into();
                self.send_packet(transport, &command::digest_answer(self.sunk_len, &sha256));
            }
            Command::Close => self.jobs.push_back(Job::End(Ending::Close)),
            Command::Reset => self.jobs.push_back(Job::End(Ending::Reset)),
            Command::HalfClose => self.jobs.push_back(Job::End(Ending::HalfClose)),
        }
        Ok(())
    }

    fn send_packet(&mut self, transport: Transport, body: &[u8]) {
        let mut wire = Vec::with_capacity(body.len() + 20);
        append_packet(transport, &mut self.random, body, &mut wire);
        self.jobs.push_back(Job::Bytes(wire));
    }
}

/// The token with which a data centre confirms this packet: made from it, so that a client can tell
/// which packet is meant.
#[must_use]
pub fn quick_ack_token(body: &[u8]) -> u32 {
    let digest: [u8; 32] = Sha256::digest(body).into();
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) | 1 << 31
}

fn append_packet(transport: Transport, random: &mut Random, body: &[u8], wire: &mut Vec<u8>) {
    let padding: [u8; 16] = random.bytes();
    let padding_len = match transport {
        Transport::PaddedIntermediate => usize::from(padding[15] % 16),
        Transport::Abridged | Transport::Intermediate => 0,
    };
    let options = PacketOptions { wants_quick_ack: false, padding: &padding[..padding_len] };
    frame_packet(transport, body, options, wire);
}

/// Appends the packet of the pattern at `position`, which moves behind it.
fn append_bulk_packet(
    transport: Transport,
    random: &mut Random,
    position: &mut u64,
    len: u64,
    wire: &mut Vec<u8>,
) {
    let left = usize::try_from(len - *position).unwrap_or(usize::MAX);
    let chunk_len = left.min(BULK_CHUNK_LEN);
    let mut body = command::bulk_header(*position).to_vec();
    let header_len = body.len();
    body.resize((header_len + chunk_len).next_multiple_of(4), 0);
    pattern::fill(*position, &mut body[header_len..header_len + chunk_len]);
    append_packet(transport, random, &body, wire);
    *position += chunk_len as u64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy_core::obfuscated2::ComposedInitFrame;
    use proptest::prelude::*;

    const TRANSPORTS: [Transport; 3] =
        [Transport::Abridged, Transport::Intermediate, Transport::PaddedIntermediate];

    /// A client that talks to the data centre without a proxy.
    struct Direct {
        dc: DcCodec,
        transport: Transport,
        up: AesCtr,
        down: AesCtr,
        answers: PacketReader,
    }

    impl Direct {
        fn new(mode: DcMode, transport: Transport) -> Self {
            let mut random = Random::from_seed([1; 32]);
            let init = ComposedInitFrame::random(&mut random, None, transport, DcId(203));
            let mut dc = DcCodec::new(mode, Random::from_seed([2; 32]));
            for byte in init.wire {
                assert_eq!(dc.init(), None);
                dc.receive(&[byte]).unwrap();
            }
            assert_eq!(dc.init(), Some((DcId(203), transport)));
            let answers = PacketReader::new(transport, Reader::Client);
            let streams = init.streams;
            Self { dc, transport, up: streams.forward, down: streams.backward.stream(), answers }
        }

        fn send(&mut self, body: &[u8], wants_quick_ack: bool) {
            let mut wire = Vec::new();
            let options = PacketOptions { wants_quick_ack, padding: &[] };
            frame_packet(self.transport, body, options, &mut wire);
            self.up.apply(&mut wire);
            self.dc.receive(&wire).unwrap();
        }

        fn take(&mut self, len_min: usize) -> usize {
            let mut wire = Vec::new();
            self.dc.fill(&mut wire, len_min);
            self.down.apply(&mut wire);
            self.answers.push(&wire);
            wire.len()
        }

        fn answer(&mut self) -> Option<Vec<u8>> {
            match self.answers.next_packet().unwrap()? {
                Packet::Message { body, .. } => Some(body),
                Packet::QuickAck(token) => panic!("a quick ack {token:x} instead of a packet"),
            }
        }
    }

    #[test]
    fn a_question_is_answered_with_its_own_nonce_in_every_transport() {
        for transport in TRANSPORTS {
            let mut direct = Direct::new(DcMode::Packets, transport);
            direct.send(&mtproto::req_pq_multi(4, &[9; 16]), false);
            direct.take(usize::MAX);
            let (nonce, _) = mtproto::parse_res_pq(&direct.answer().unwrap()).unwrap();
            assert_eq!(nonce, [9; 16]);
        }
    }

    #[test]
    fn a_quick_ack_comes_before_the_answer_and_names_the_packet() {
        for transport in TRANSPORTS {
            let mut direct = Direct::new(DcMode::Packets, transport);
            let body = Command::Echo(vec![1, 2, 3]).body();
            direct.send(&body, true);
            direct.take(usize::MAX);
            let acknowledged = direct.answers.next_packet().unwrap();
            assert_eq!(acknowledged, Some(Packet::QuickAck(quick_ack_token(&body))));
            assert_eq!(Command::parse(&direct.answer().unwrap()), Some(Command::Echo(vec![1, 2, 3])));
        }
    }

    #[test]
    fn a_bulk_answer_is_made_only_as_fast_as_it_is_taken() {
        const LEN: u64 = 3_000_001;
        for transport in TRANSPORTS {
            let mut direct = Direct::new(DcMode::Packets, transport);
            direct.send(&Command::Bulk { len: LEN }.body(), false);
            let mut position = 0;
            while direct.dc.has_output() {
                let taken = direct.take(64 * 1024);
                assert!(taken < 64 * 1024 + BULK_CHUNK_LEN + 64, "{taken}");
                while let Some(body) = direct.answer() {
                    let (at, bytes) = command::parse_bulk(&body, LEN).unwrap();
                    assert_eq!((at, pattern::first_difference(at, bytes)), (position, None));
                    position += bytes.len() as u64;
                }
            }
            assert_eq!(position, LEN);
        }
    }

    #[test]
    fn endings_wait_for_the_output_before_them() {
        let mut direct = Direct::new(DcMode::Packets, Transport::Intermediate);
        direct.send(&Command::Bulk { len: 100 }.body(), false);
        direct.send(&Command::HalfClose.body(), false);
        direct.send(&Command::Reset.body(), false);
        assert_eq!(direct.dc.take_ending(), None);
        direct.take(usize::MAX);
        assert!(!direct.dc.has_output());
        assert_eq!(direct.dc.take_ending(), Some(Ending::HalfClose));
        assert_eq!(direct.dc.take_ending(), Some(Ending::Reset));
        assert_eq!(direct.dc.take_ending(), None);
    }

    #[test]
    fn what_is_sunk_is_counted_and_hashed() {
        let mut direct = Direct::new(DcMode::Packets, Transport::PaddedIntermediate);
        direct.send(&Command::Sink(b"ab".to_vec()).body(), false);
        direct.send(&Command::Sink(b"c".to_vec()).body(), false);
        direct.send(&Command::Digest.body(), false);
        direct.take(usize::MAX);
        let (count, sha256) = command::parse_digest(&direct.answer().unwrap()).unwrap();
        assert_eq!((count, sha256), (3, Sha256::digest(b"abc").into()));
    }

    #[test]
    fn strange_packets_and_frames_are_errors() {
        let mut direct = Direct::new(DcMode::Packets, Transport::Intermediate);
        let mut wire = Vec::new();
        frame_packet(Transport::Intermediate, &[1; 56], PacketOptions::default(), &mut wire);
        direct.up.apply(&mut wire);
        assert_eq!(direct.dc.receive(&wire), Err(PeerError::UnknownPacket));
        let mut dc = DcCodec::new(DcMode::Packets, Random::from_seed([0; 32]));
        assert_eq!(dc.receive(&[1; INIT_FRAME_LEN]), Err(PeerError::UnknownProtocolTag));
    }

    proptest! {
        #[test]
        fn bytes_are_echoed_whatever_the_split(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            len_min in 1usize..500,
        ) {
            let mut direct = Direct::new(DcMode::EchoBytes, Transport::Abridged);
            let mut echoed = Vec::new();
            for piece in &pieces {
                let mut wire = piece.clone();
                direct.up.apply(&mut wire);
                direct.dc.receive(&wire).unwrap();
            }
            while direct.dc.has_output() {
                let start = echoed.len();
                direct.dc.fill(&mut echoed, start + len_min);
                direct.down.apply(&mut echoed[start..]);
            }
            prop_assert_eq!(echoed, pieces.concat());
        }
    }
}
