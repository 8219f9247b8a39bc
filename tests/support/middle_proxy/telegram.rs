//! Telegram behind a middle proxy: what becomes of one link's clients and their packets.
//!
//! Answers of one client stay in order; clients take turns packet by packet, so that a bulk answer
//! holds nobody up. Packets are made when they are asked for: a bulk answer of any length costs no memory.

use std::collections::{HashMap, HashSet, VecDeque};

use mtproxy_core::random::Random;
use sha2::{Digest, Sha256};

use super::manner::Telegram;
use super::request::ProxyRequest;
use super::wire::Message;
use crate::command::{self, BULK_CHUNK_LEN, Command};
use crate::dc_codec::quick_ack_token;
use crate::mtproto;
use crate::pattern;

/// Connections that we closed and whose ids are remembered, because requests may still be on their way.
const CLOSED_MAX: usize = 65_536;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is answered, or Telegram has nothing to say to it.
    Taken,
    /// Telegram does not know what it means.
    Unknown,
    /// It comes from a connection that we have closed.
    Late,
    /// It says of a connection what an earlier one said otherwise.
    Contradiction(&'static str),
}

/// The clients of one link.
#[derive(Debug, Default)]
pub(super) struct Clients {
    by_connection: HashMap<i64, Client>,
    /// Clients with something to be sent, each once.
    turns: VecDeque<i64>,
    closed: HashSet<i64>,
    closed_order: VecDeque<i64>,
    /// Bytes of answers that are already made.
    queued_len: usize,
    /// Connections ever.
    pub(super) opened: u64,
}

#[derive(Debug)]
struct Client {
    /// From its first request: transport, addresses and tag of a connection do not change.
    first: ProxyRequest,
    jobs: VecDeque<Job>,
    sunk_len: u64,
    sunk: Sha256,
}

/// Something to be sent.
#[derive(Debug)]
enum Job {
    Packet(Vec<u8>),
    QuickAck(u32),
    Bulk { position: u64, len: u64 },
    Close,
}

impl Clients {
    pub(super) fn open(&self) -> usize {
        self.by_connection.len()
    }

    pub(super) fn connections(&self) -> Vec<i64> {
        let mut connections: Vec<i64> = self.by_connection.keys().copied().collect();
        connections.sort_unstable();
        connections
    }

    pub(super) fn queued_len(&self) -> usize {
        self.queued_len
    }

    pub(super) fn have_output(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Takes a request, whoever it is from.
    pub(super) fn hear(
        &mut self,
        request: &ProxyRequest,
        telegram: Telegram,
        random: &mut Random,
    ) -> Outcome {
        let connection = request.connection;
        if self.closed.contains(&connection) {
            return Outcome::Late;
        }
        if !self.by_connection.contains_key(&connection) {
            self.opened += 1;
            let first = ProxyRequest { packet: Vec::new(), ..request.clone() };
            let client = Client { first, jobs: VecDeque::new(), sunk_len: 0, sunk: Sha256::new() };
            self.by_connection.insert(connection, client);
        }
        let client = self.by_connection.get_mut(&connection).expect("inserted above");
        if let Some(what) = contradiction(&client.first, request) {
            return Outcome::Contradiction(what);
        }
        if request.wants_quick_ack() && telegram != Telegram::Silent {
            let token = quick_ack_token(&request.packet);
            self.add(connection, Job::QuickAck(token));
        }
        match telegram {
            Telegram::Silent => Outcome::Taken,
            Telegram::Echo => {
                self.add(connection, Job::Packet(request.packet.clone()));
                Outcome::Taken
            }
            Telegram::Commands => self.obey(connection, &request.packet, random),
        }
    }

    fn obey(&mut self, connection: i64, packet: &[u8], random: &mut Random) -> Outcome {
        if let Some((message_id, nonce)) = mtproto::parse_req_pq(packet) {
            // Answers have a message id of 1 modulo 4 (core.telegram.org/mtproto/description).
            let answer = mtproto::res_pq(message_id | 1, &nonce, &random.bytes());
            self.add(connection, Job::Packet(answer));
            return Outcome::Taken;
        }
        let Some(command) = Command::parse(packet) else { return Outcome::Unknown };
        let Some(client) = self.by_connection.get_mut(&connection) else { return Outcome::Unknown };
        let job = match command {
            Command::Echo(_) => Job::Packet(packet.to_vec()),
            Command::Bulk { len: 0 } => return Outcome::Taken,
            Command::Bulk { len } => Job::Bulk { position: 0, len },
            Command::Sink(payload) => {
                client.sunk_len += payload.len() as u64;
                client.sunk.update(&payload);
                return Outcome::Taken;
            }
            Command::Digest => {
                let sha256 = client.sunk.clone().finalize().into();
                Job::Packet(command::digest_answer(client.sunk_len, &sha256))
            }
            Command::Close | Command::Reset | Command::HalfClose => Job::Close,
        };
        self.add(connection, job);
        Outcome::Taken
    }

    /// Sends a packet that the client has not asked for. False if there is no such client.
    pub(super) fn push(&mut self, connection: i64, packet: Vec<u8>) -> bool {
        self.add(connection, Job::Packet(packet))
    }

    /// Sends a quick ack that the client has not asked for. False if there is no such client.
    pub(super) fn acknowledge(&mut self, connection: i64, token: u32) -> bool {
        self.add(connection, Job::QuickAck(token))
    }

    /// Closes a connection once everything before is sent. False if there is no such client.
    pub(super) fn close(&mut self, connection: i64) -> bool {
        self.add(connection, Job::Close)
    }

    /// The proxy has closed a connection. False if there is no such client.
    pub(super) fn forget(&mut self, connection: i64) -> bool {
        // Its turn, if it has one, finds nobody.
        let Some(client) = self.by_connection.remove(&connection) else { return false };
        for job in client.jobs {
            self.queued_len -= job.len();
        }
        true
    }

    /// Forgets everything that was to be sent.
    pub(super) fn hush(&mut self) {
        self.turns.clear();
        self.queued_len = 0;
        self.by_connection.values_mut().for_each(|client| client.jobs.clear());
    }

    /// The next message, of whoever's turn it is.
    pub(super) fn next_message(&mut self, answer_flags: u32) -> Option<Message> {
        loop {
            let connection = self.turns.pop_front()?;
            let Some(client) = self.by_connection.get_mut(&connection) else { continue };
            let Some(job) = client.jobs.pop_front() else { continue };
            self.queued_len -= job.len();
            let message = match job {
                Job::Packet(packet) => Message::Answer { flags: answer_flags, connection, packet },
                Job::QuickAck(token) => Message::SimpleAck { connection, token },
                Job::Bulk { mut position, len } => {
                    let packet = bulk_packet(&mut position, len);
                    if position < len {
                        client.jobs.push_front(Job::Bulk { position, len });
                    }
                    Message::Answer { flags: answer_flags, connection, packet }
                }
                Job::Close => {
                    self.forget(connection);
                    self.remember_closed(connection);
                    return Some(Message::CloseExt(connection));
                }
            };
            if !client.jobs.is_empty() {
                self.turns.push_back(connection);
            }
            return Some(message);
        }
    }

    fn add(&mut self, connection: i64, job: Job) -> bool {
        let Some(client) = self.by_connection.get_mut(&connection) else { return false };
        self.queued_len += job.len();
        // A client that is closed and comes again under its old id may find its old turn: one too many
        // does no harm.
        if client.jobs.is_empty() {
            self.turns.push_back(connection);
        }
        client.jobs.push_back(job);
        true
    }

    fn remember_closed(&mut self, connection: i64) {
        if self.closed.insert(connection) {
            self.closed_order.push_back(connection);
        }
        if self.closed_order.len() > CLOSED_MAX
            && let Some(oldest) = self.closed_order.pop_front()
        {
            self.closed.remove(&oldest);
        }
    }
}

impl Job {
    /// Bytes of memory, about.
    fn len(&self) -> usize {
        match self {
            Self::Packet(packet) => packet.len(),
            Self::QuickAck(_) | Self::Bulk { .. } | Self::Close => 0,
        }
    }
}

/// What a request says otherwise than the first one of its connection.
fn contradiction(first: &ProxyRequest, request: &ProxyRequest) -> Option<&'static str> {
    use super::request::flag::{ABRIDGED, INTERMEDIATE, PADDED, PROXY_TAG};
    const LASTING: u32 = ABRIDGED | INTERMEDIATE | PADDED | PROXY_TAG;
    if (first.client, first.ours) != (request.client, request.ours) {
        return Some("the addresses of the connection have changed");
    }
    if (first.flags ^ request.flags) & LASTING != 0 || first.proxy_tag != request.proxy_tag {
        return Some("the transport or the tag of the connection has changed");
    }
    None
}

/// The packet of the pattern at `position`, which moves behind it.
fn bulk_packet(position: &mut u64, len: u64) -> Vec<u8> {
    let left = usize::try_from(len - *position).unwrap_or(usize::MAX);
    let chunk_len = left.min(BULK_CHUNK_LEN);
    let mut packet = command::bulk_header(*position).to_vec();
    let header_len = packet.len();
    packet.resize((header_len + chunk_len).next_multiple_of(4), 0);
    pattern::fill(*position, &mut packet[header_len..header_len + chunk_len]);
    *position += chunk_len as u64;
    packet
}
