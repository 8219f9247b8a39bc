//! A middle proxy's side of one link, as a pure value: bytes in, bytes out.
//!
//! ```text
//!   proxy                                          middle proxy
//!     │── nonce, in clear ──────────────────────────▶│  checked; both keys follow from it
//!     │◀─────────────────────────── nonce, in clear ─│
//!     │── handshake ────────────────────────────────▶│  from here on AES-256-CBC both ways
//!     │◀───────────────────────────────── handshake ─│  from here on CRC-32C, if both can
//!     │── RPC_PROXY_REQ, CLOSE_CONN, PING, PONG ────▶│
//!     │◀ RPC_PROXY_ANS, SIMPLE_ACK, CLOSE_EXT, … ────│
//! ```
//! Strict in what it takes: whatever differs from protocol.md section 7 is a [`LinkFault`]. What it sends
//! is as it should be, but for the one [`Misbehaviour`] it was told. Knows no clock, thread or socket:
//! equal inputs make equal outputs.
//!
//! The driver's part: [`receive`](MiddleProxyCodec::receive) while
//! [`is_reading`](MiddleProxyCodec::is_reading); [`fill`](MiddleProxyCodec::fill) while
//! [`has_output`](MiddleProxyCodec::has_output), the one never waiting for the other; then
//! [`take_ending`](MiddleProxyCodec::take_ending).

use std::collections::{HashSet, VecDeque};

use mtproxy_core::random::Random;

use super::fault::LinkFault;
use super::frames::{Checksum, Flaw, FrameReader, FrameWriter, append_fillers};
use super::keys::{BLOCK_LEN, Decryptor, Encryptor, Ends};
use super::manner::{MiddleProxyOptions, Misbehaviour};
use super::record::{LinkReport, Phase, RECORDED_IDS_MAX, RECORDED_PACKET_BYTES_MAX};
use super::request::ProxyRequest;
use super::telegram::{Clients, Outcome};
use super::wire::{Message, ProcessId};
use crate::dc_codec::Ending;

/// Bytes of answers from which on nothing is read: a bound for whoever takes none.
const QUEUED_LEN_MAX: usize = 64 << 20;
/// The low half of our process id. It means nothing.
const PID: u16 = 0x4d50;
/// How long we have been running when a link comes, in seconds.
const UPTIME: u32 = 1000;

/// A middle proxy's side of one link.
#[derive(Debug)]
pub struct MiddleProxyCodec {
    pub(super) options: MiddleProxyOptions,
    pub(super) ends: Ends,
    pub(super) unix: i32,
    pub(super) random: Random,
    pub(super) ciphers: Option<Ciphers>,
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
    /// To be sent as it is, before everything else.
    pub(super) clear: Vec<u8>,
    pub(super) outbox: VecDeque<Outgoing>,
    pub(super) clients: Clients,
    pub(super) is_stalled: bool,
    pub(super) answers_pings: bool,
    pub(super) ending: Option<Ending>,
    pub(super) abrupt_ending: Option<Ending>,
    /// Our pings without an answer.
    pub(super) pings: HashSet<i64>,
    pub(super) last_connection: Option<i64>,
    pub(super) report: LinkReport,
    pub(super) recorded_requests: usize,
    pub(super) recorded_packet_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Ciphers {
    pub(super) from_proxy: Decryptor,
    pub(super) to_proxy: Encryptor,
    /// The beginning of a block.
    pub(super) cut: Vec<u8>,
}

/// Output that is decided on.
#[derive(Debug)]
pub(super) enum Outgoing {
    Message(Message),
    /// Any payload, with or without a flaw.
    Frame {
        payload: Vec<u8>,
        flaw: Option<Flaw>,
    },
    /// Words inside the cipher that are no frame.
    Words(Vec<u8>),
    /// Bytes outside the cipher.
    Raw(Vec<u8>),
    /// What comes behind has this checksum.
    Checksum(Checksum),
}

impl MiddleProxyCodec {
    /// A middle proxy at the beginning of a link between `ends`, as it sees them, at `unix` seconds.
    /// `random` makes nonces.
    #[must_use]
    pub fn new(options: MiddleProxyOptions, ends: Ends, unix: i32, random: Random) -> Self {
        let ending = match options.misbehaviour {
            Some(Misbehaviour::EndsAtOnce(ending)) => Some(ending),
            _ => None,
        };
        Self {
            options,
            ends,
            unix,
            random,
            ciphers: None,
            reader: FrameReader::new(true),
            writer: FrameWriter::default(),
            clear: Vec::new(),
            outbox: VecDeque::new(),
            clients: Clients::default(),
            is_stalled: false,
            answers_pings: true,
            ending,
            abrupt_ending: None,
            pings: HashSet::new(),
            last_connection: None,
            report: LinkReport { ends: Some(ends), ..LinkReport::default() },
            recorded_requests: 0,
            recorded_packet_bytes: 0,
        }
    }

    /// Who this is.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        let start_unix = self.unix.cast_unsigned().wrapping_sub(UPTIME);
        ProcessId { pid: PID, start_unix, ..ProcessId::at(self.ends.middle_proxy) }
    }

    /// What has been seen so far.
    #[must_use]
    pub fn report(&self) -> &LinkReport {
        &self.report
    }

    /// The clients' connections that there are now, in order of their numbers.
    #[must_use]
    pub fn connections(&self) -> Vec<i64> {
        self.clients.connections()
    }

    /// Brings `report` up to date, moving to it what has been recorded since it was last.
    pub fn move_report_to(&mut self, report: &mut LinkReport) {
        report.requests.append(&mut self.report.requests);
        report.closed.append(&mut self.report.closed);
        report.pongs.append(&mut self.report.pongs);
        let mut scalars = self.report.clone();
        std::mem::swap(&mut scalars.requests, &mut report.requests);
        std::mem::swap(&mut scalars.closed, &mut report.closed);
        std::mem::swap(&mut scalars.pongs, &mut report.pongs);
        *report = scalars;
    }

    /// Takes bytes from the wire, cut anywhere.
    ///
    /// # Errors
    /// What the proxy did wrong. The link is then lost.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), LinkFault> {
        match &mut self.ciphers {
            None => self.reader.push(bytes),
            Some(ciphers) => ciphers.decrypt(bytes, &mut self.reader),
        }
        self.read_frames()
    }

    /// The proxy has sent FIN: the link ends.
    pub fn end_of_input(&mut self) {
        let cut_len = self.ciphers.as_ref().map_or(0, |ciphers| ciphers.cut.len());
        if cut_len > 0 && self.report.fault.is_none() {
            self.report.fault = Some(LinkFault::CutBlock { found: cut_len });
        }
        self.ending = Some(Ending::Close);
    }

    /// False while a driver must leave received bytes where they are.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        !self.is_stalled && self.clients.queued_len() <= QUEUED_LEN_MAX
    }

    /// True while there is something to send.
    #[must_use]
    pub fn has_output(&self) -> bool {
        let has_any = !self.clear.is_empty() || !self.outbox.is_empty() || self.clients.have_output();
        has_any && !self.is_stalled
    }

    /// Appends output to `wire` until it holds at least `len_min` bytes or there is no more. Exceeds
    /// `len_min` by one frame at most. Whatever one call appends is whole blocks, once the link is encrypted.
    pub fn fill(&mut self, wire: &mut Vec<u8>, len_min: usize) {
        if self.is_stalled {
            return;
        }
        wire.append(&mut self.clear);
        while wire.len() < len_min && self.flush(wire, len_min) {}
    }

    /// How to end the connection, now that everything before has been made. Given once.
    pub fn take_ending(&mut self) -> Option<Ending> {
        if self.has_output() { None } else { self.ending.take() }
    }

    /// How to end the connection now, whatever has not been sent. Given once.
    pub fn take_abrupt_ending(&mut self) -> Option<Ending> {
        self.abrupt_ending.take()
    }

    /// Ends the link without sending what is still to be sent.
    pub fn end_abruptly(&mut self, ending: Ending) {
        self.abrupt_ending = Some(ending);
    }

    /// Reads and says nothing until [`resume`](Self::resume).
    pub fn stall(&mut self) {
        self.is_stalled = true;
    }

    /// Goes on after [`stall`](Self::stall).
    ///
    /// # Errors
    /// Those of [`receive`](Self::receive).
    pub fn resume(&mut self) -> Result<(), LinkFault> {
        self.is_stalled = false;
        self.read_frames()
    }

    /// Asks the proxy whether it is there.
    pub fn ping(&mut self, id: i64) {
        self.pings.insert(id);
        self.outbox.push_back(Outgoing::Message(Message::Ping(id)));
    }

    /// Sends a client a packet that it has not asked for: whole words.
    pub fn push(&mut self, connection: i64, packet: &[u8]) {
        let is_known = self.clients.push(connection, packet.to_vec());
        self.report.counters.orders_lost += u64::from(!is_known);
    }

    /// Sends a client a quick ack that it has not asked for.
    pub fn acknowledge(&mut self, connection: i64, token: u32) {
        let is_known = self.clients.acknowledge(connection, token);
        self.report.counters.orders_lost += u64::from(!is_known);
    }

    /// Has a client's connection closed, once everything for it is sent.
    pub fn close_client(&mut self, connection: i64) {
        let is_known = self.clients.close(connection);
        self.report.counters.orders_lost += u64::from(!is_known);
    }

    fn read_frames(&mut self) -> Result<(), LinkFault> {
        let result = self.hear_frames();
        let counters = &mut self.report.counters;
        counters.fillers_received = self.reader.fillers();
        counters.connections_open = self.clients.open() as u64;
        counters.connections_opened = self.clients.opened;
        if let Err(fault) = &result {
            self.report.fault = Some(fault.clone());
        }
        result
    }

    fn hear_frames(&mut self) -> Result<(), LinkFault> {
        while !self.is_stalled && self.ending.is_none() {
            let Some(payload) = self.reader.next_frame()? else { return Ok(()) };
            self.report.counters.frames_received += 1;
            match self.report.phase {
                Phase::AwaitingNonce => self.hear_nonce(&payload)?,
                Phase::AwaitingHandshake => self.hear_handshake(&payload)?,
                Phase::Ready => self.hear_message(&payload)?,
            }
        }
        Ok(())
    }

    fn hear_message(&mut self, payload: &[u8]) -> Result<(), LinkFault> {
        match Message::parse(payload)? {
            Message::Request(request) => return self.hear_request(request),
            Message::CloseConn(connection) => {
                let is_known = self.clients.forget(connection);
                self.report.counters.close_conns += 1;
                self.report.counters.close_conns_unknown += u64::from(!is_known);
                record_id(&mut self.report.closed, self.report.counters.close_conns, connection);
            }
            Message::Ping(id) => {
                self.report.counters.pings_received += 1;
                if self.answers_pings {
                    self.outbox.push_back(Outgoing::Message(Message::Pong(id)));
                }
            }
            Message::Pong(id) => {
                if !self.pings.remove(&id) {
                    return Err(LinkFault::UnaskedPong { id });
                }
                self.report.counters.pongs_received += 1;
                record_id(&mut self.report.pongs, self.report.counters.pongs_received, id);
            }
            Message::Answer { .. } | Message::SimpleAck { .. } | Message::CloseExt(_) => {
                let op = payload.first_chunk().map_or(0, |&op| u32::from_le_bytes(op));
                return Err(LinkFault::UnexpectedMessage { op });
            }
        }
        Ok(())
    }

    fn hear_request(&mut self, request: ProxyRequest) -> Result<(), LinkFault> {
        self.report.counters.requests += 1;
        self.report.counters.request_bytes += request.packet.len() as u64;
        self.last_connection = Some(request.connection);
        match self.clients.hear(&request, self.options.telegram, &mut self.random) {
            Outcome::Taken => {}
            Outcome::Unknown => self.report.counters.requests_unknown += 1,
            Outcome::Late => self.report.counters.requests_late += 1,
            Outcome::Contradiction(what) => return Err(LinkFault::Request { what }),
        }
        self.record_request(request);
        self.misbehave_if_due();
        Ok(())
    }

    fn record_request(&mut self, mut request: ProxyRequest) {
        if self.recorded_requests == self.options.recorded_requests_max {
            return;
        }
        self.recorded_requests += 1;
        self.recorded_packet_bytes += request.packet.len();
        if self.recorded_packet_bytes > RECORDED_PACKET_BYTES_MAX {
            request.packet = Vec::new();
        }
        self.report.requests.push(request);
    }

    /// Appends one flush: frames, fillers behind them, all encrypted; then bytes outside the cipher if there
    /// are any. False if there was nothing.
    fn flush(&mut self, wire: &mut Vec<u8>, len_min: usize) -> bool {
        let start = wire.len();
        let mut behind = None;
        while wire.len() < len_min && behind.is_none() {
            let Some(outgoing) = self.next_outgoing() else { break };
            match outgoing {
                Outgoing::Message(message) => {
                    self.count_sent(&message);
                    self.writer.append(&message.payload(), None, wire);
                }
                Outgoing::Frame { payload, flaw } => {
                    self.report.counters.frames_sent += 1;
                    self.writer.append(&payload, flaw, wire);
                }
                Outgoing::Words(words) => wire.extend(words),
                Outgoing::Raw(bytes) => behind = Some(bytes),
                Outgoing::Checksum(checksum) => self.writer.set_checksum(checksum),
            }
        }
        let Some(ciphers) = &mut self.ciphers else { return false };
        append_fillers(wire, start);
        ciphers.to_proxy.encrypt(&mut wire[start..]);
        wire.extend(behind.unwrap_or_default());
        wire.len() > start
    }

    fn next_outgoing(&mut self) -> Option<Outgoing> {
        let answer_flags = self.options.answer_flags;
        let next = self.outbox.pop_front();
        next.or_else(|| self.clients.next_message(answer_flags).map(Outgoing::Message))
    }

    fn count_sent(&mut self, message: &Message) {
        let counters = &mut self.report.counters;
        counters.frames_sent += 1;
        match message {
            Message::Answer { packet, .. } => {
                counters.answers += 1;
                counters.answer_bytes += packet.len() as u64;
            }
            Message::SimpleAck { .. } => counters.simple_acks += 1,
            Message::CloseExt(_) => counters.close_exts += 1,
            Message::Ping(_) => counters.pings_sent += 1,
            Message::Pong(_) => counters.pongs_sent += 1,
            Message::Request(_) | Message::CloseConn(_) => unreachable!("only proxies say this"),
        }
    }
}

impl Ciphers {
    /// Decrypts what makes whole blocks, and keeps the rest.
    fn decrypt(&mut self, bytes: &[u8], reader: &mut FrameReader) {
        self.cut.extend_from_slice(bytes);
        let whole_len = self.cut.len() / BLOCK_LEN * BLOCK_LEN;
        self.from_proxy.decrypt(&mut self.cut[..whole_len]);
        reader.push(&self.cut[..whole_len]);
        self.cut.drain(..whole_len);
    }
}

/// Keeps an id, the `count`-th of its kind, if it is among the first.
fn record_id(ids: &mut Vec<i64>, count: u64, id: i64) {
    if count <= RECORDED_IDS_MAX as u64 {
        ids.push(id);
    }
}
