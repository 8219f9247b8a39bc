//! Streams over frames: the engine's actions become TCP-lite calls, TCP-lite's events the engine's inputs.
//!
//! ```text
//!   Stack ── Readable ─► read ─► Engine::handle(bytes, in the frame they came in) ─► Relay ─► send_from
//!             Sent ────► Engine::sent                                                (the one copy)
//!             Accepted, Connected, ConnectFailed, Reset ─► the input of that name
//! ```
//! Knows no MTProto, no ring and no clock. It is generic over the link, so that the same code relays over
//! AF_XDP and in memory, where it is measured.
//!
//! A stream that is dialled keeps what waits for it here: it must survive the next address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use mtproxy_core::action::Action;
use mtproxy_core::event::DialError;
use mtproxy_core::stream::StreamId;
use mtproxy_tcp::link::Link;
use mtproxy_tcp::time::Instant;
use mtproxy_tcp::{ConnectError, ConnectFailure, ConnectionId, Read, Stack};

use super::super::buffers::BufferPool;
use super::super::epoll::ConnectionLimit;
use super::super::{Elsewhere, Outcome, Outcomes, Payload, UNKNOWN_ADDRESS, Waiting};
use super::ports::{Ask, PortCounts};

/// Chooses our own address and port for a connection, and takes the port back. What is not said otherwise suits ports that are
/// never used again, as in tests and measurements.
pub trait SourcePorts {
    /// Where to dial `remote` from. `None`: it is not reached over this interface.
    ///
    /// # Errors
    /// When no port is left.
    fn take(&mut self, remote: SocketAddr, ask: Ask<'_>) -> Option<Result<SocketAddr, NoPortLeft>>;

    /// Nobody uses the connection from `local` to `remote` any more, which the stack may still know.
    fn let_go(&mut self, local: SocketAddr, remote: SocketAddr) {
        let _ = (local, remote);
    }

    /// Takes ports back that the stack has forgotten.
    fn reclaim(&mut self, ask: Ask<'_>) {
        let _ = ask;
    }

    /// The first reply to `local` has come to this shard's queue, or else by way of another's.
    fn learn(&mut self, local: SocketAddr, remote: SocketAddr, is_here: bool) {
        let _ = (local, remote, is_here);
    }

    /// What happened to ports so far.
    fn counts(&self) -> PortCounts {
        PortCounts::default()
    }

    /// The shard whose port this is; `None` for one that no shard dials from.
    fn owner(&self, local: SocketAddr) -> Option<usize> {
        let _ = local;
        None
    }
}

/// All ports of this shard toward that address are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPortLeft;

/// How often ports are taken back that the stack has forgotten.
const RECLAIM_EVERY: Duration = Duration::from_secs(1);

/// What one text may be answered with: a whole handshake on its way to a front, and some more.
const OUTPUT_OF_ONE_TEXT_MAX_BYTES: usize = 40 * 1024;

/// Streams of one shard.
pub struct Streams<L: Link, P> {
    /// The connections.
    pub stack: Stack<L>,
    /// What they stand on.
    pub link: L,
    /// Our own addresses.
    pub ports: P,
    /// The time of this turn.
    pub now: Instant,
    next_reclaim: Instant,
    limit: ConnectionLimit,
    /// By slot of the stream.
    carried: Vec<Option<Carried>>,
    /// By slot of the connection.
    of_connection: Vec<Option<StreamId>>,
    /// By slot of the stream: what waits for those that are being dialled. Few at a time.
    waiting: HashMap<usize, Waiting>,
    spare: BufferPool,
    /// Streams to read without a new event.
    ready: std::collections::VecDeque<StreamId>,
    /// The text at hand.
    text: Option<Text<L::Frame>>,
}

/// In-order bytes, still in the frame in which they came.
struct Text<F> {
    frame: F,
    range: Range<usize>,
}

/// A stream of ours.
struct Carried {
    stream: StreamId,
    /// `None` between a failed dial and the next.
    connection: Option<ConnectionId>,
    is_client: bool,
    is_open: bool,
    is_queued_to_read: bool,
    /// The peer has reset. What it had sent before is still to be read; then the stream is broken.
    is_reset: bool,
}

/// What one attempt to read has brought.
pub(super) enum Reading {
    /// Bytes are at hand: [`Streams::text_mut`].
    Text,
    /// FIN.
    End,
    /// The peer is gone, and everything that it had sent has been read.
    Broken,
    /// Nothing now.
    Nothing,
}

impl<L: Link, P: SourcePorts> Streams<L, P> {
    /// No streams yet.
    pub fn new(stack: Stack<L>, link: L, ports: P, limit: ConnectionLimit, now: Instant) -> Self {
        Self {
            stack,
            link,
            ports,
            now,
            next_reclaim: now.plus(RECLAIM_EVERY),
            limit,
            carried: Vec::new(),
            of_connection: Vec::new(),
            waiting: HashMap::new(),
            spare: BufferPool::default(),
            ready: std::collections::VecDeque::new(),
            text: None,
        }
    }

    /// True if there is a place for one more client, which is then taken.
    pub(super) fn admit(&mut self) -> bool {
        self.limit.try_take()
    }

    /// A client's connection is the stream `stream`.
    pub(super) fn insert_client(&mut self, stream: StreamId, connection: ConnectionId) {
        self.insert(Carried {
            stream,
            connection: Some(connection),
            is_client: true,
            is_open: true,
            is_queued_to_read: false,
            is_reset: false,
        });
        self.name(connection, Some(stream));
    }

    /// Whose connection this is. `None` also for one that was let go of, whoever has its slot now: an event may be
    /// older than that.
    #[must_use]
    pub fn stream_of(&self, connection: ConnectionId) -> Option<StreamId> {
        let stream = self.of_connection.get(connection.slot()).copied().flatten()?;
        let carried = self.carried.get(stream.slot())?.as_ref()?;
        (carried.stream == stream && carried.connection == Some(connection)).then_some(stream)
    }

    /// Our end of a connection that has just been opened.
    pub(super) fn local(&self, connection: ConnectionId) -> SocketAddr {
        self.stack.endpoints(connection).map_or(UNKNOWN_ADDRESS, |(local, _)| local)
    }

    /// The first reply to a dial has come to this shard's queue, or else by way of another's.
    pub(super) fn learn(&mut self, connection: ConnectionId, is_here: bool) {
        if let Some((local, remote)) = self.stack.endpoints(connection) {
            self.ports.learn(local, remote, is_here);
        }
    }

    /// Now and then takes ports back that the stack has forgotten.
    pub(super) fn reclaim_ports(&mut self) {
        if self.next_reclaim <= self.now {
            self.next_reclaim = self.now.plus(RECLAIM_EVERY);
            let (stack, now) = (&self.stack, self.now);
            self.ports.reclaim(&|local, remote| stack.standing(now, local, remote));
        }
    }

    /// A dial has come about: sends what has waited for it. Answers how many bytes of it need no more
    /// thought.
    pub(super) fn open(&mut self, stream: StreamId) -> usize {
        let Some(carried) = find(&mut self.carried, stream) else { return 0 };
        carried.is_open = true;
        let (Some(connection), Some(waiting)) = (carried.connection, self.waiting.remove(&stream.slot()))
        else {
            return 0;
        };
        let sent = match waiting.queue.pending() {
            [] => 0,
            bytes => self.stack.send(connection, bytes, &mut self.link),
        };
        if waiting.fin {
            self.stack.shut_down(connection);
        }
        self.spare.give_back(waiting.queue);
        sent
    }

    /// A dial has come to nothing; the stream waits for its next address.
    pub(super) fn dial_failed(&mut self, stream: StreamId) {
        let Some(connection) = find(&mut self.carried, stream).and_then(|carried| carried.connection.take())
        else {
            return;
        };
        self.forget_connection(connection);
    }

    /// The peer has reset the connection.
    pub(super) fn note_reset(&mut self, stream: StreamId) {
        if let Some(carried) = find(&mut self.carried, stream) {
            carried.is_reset = true;
        }
    }

    /// Takes the next of what the peer has said. Text must be put back with [`release`](Self::release).
    pub(super) fn read(&mut self, stream: StreamId) -> Reading {
        let Some(carried) = find(&mut self.carried, stream) else { return Reading::Nothing };
        let (Some(connection), is_reset) = (carried.connection, carried.is_reset) else {
            return Reading::Nothing;
        };
        match self.stack.read(connection) {
            Read::Text { frame, range } => {
                self.text = Some(Text { frame, range });
                Reading::Text
            }
            Read::End => Reading::End,
            Read::Nothing if is_reset => Reading::Broken,
            Read::Nothing => Reading::Nothing,
        }
    }

    /// At most `len` bytes of the text at hand, to be transformed in place.
    pub(super) fn text_mut(&mut self, len: usize) -> &mut [u8] {
        let Some(text) = &mut self.text else { return &mut [] };
        let end = text.range.end.min(text.range.start + len);
        let range = text.range.start..end;
        &mut self.link.bytes_mut(&mut text.frame)[range]
    }

    /// Done with the first `len` bytes of the text at hand; the stream keeps the rest.
    pub(super) fn release(&mut self, stream: StreamId, len: usize) {
        let Some(Text { frame, range }) = self.text.take() else { return };
        let rest = (range.start + len).min(range.end)..range.end;
        let connection = find(&mut self.carried, stream).and_then(|carried| carried.connection);
        match connection {
            Some(connection) if !rest.is_empty() => {
                self.stack.unread(connection, frame, rest, &mut self.link);
            }
            _ => self.link.release(frame),
        }
    }

    /// Reads this stream in the next turn, or as soon as the present one gets to it.
    pub(super) fn read_later(&mut self, stream: StreamId) {
        if let Some(carried) = find(&mut self.carried, stream)
            && !std::mem::replace(&mut carried.is_queued_to_read, true)
        {
            self.ready.push_back(stream);
        }
    }

    /// True if text would be read next.
    pub(super) fn has_text(&mut self, stream: StreamId) -> bool {
        let connection = find(&mut self.carried, stream).and_then(|carried| carried.connection);
        connection.is_some_and(|connection| self.stack.has_text(connection))
    }

    /// True if whatever one text leads to will find frames.
    pub(super) fn has_room_for_text(&self) -> bool {
        self.stack.can_take(OUTPUT_OF_ONE_TEXT_MAX_BYTES, &self.link)
    }

    /// How many streams are to be read without a new event.
    pub(super) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// The next of them.
    pub(super) fn next_ready(&mut self) -> Option<StreamId> {
        let stream = self.ready.pop_front()?;
        if let Some(carried) = find(&mut self.carried, stream) {
            carried.is_queued_to_read = false;
        }
        Some(stream)
    }

    /// Forgets a stream whose peer is gone.
    pub(super) fn lose(&mut self, stream: StreamId) {
        self.remove(stream, |stack, connection, now, link| stack.close(now, connection, link));
    }

    fn insert(&mut self, carried: Carried) {
        let slot = carried.stream.slot();
        if slot >= self.carried.len() {
            self.carried.resize_with(slot + 1, || None);
        }
        self.carried[slot] = Some(carried);
    }

    fn name(&mut self, connection: ConnectionId, stream: Option<StreamId>) {
        let slot = connection.slot();
        if slot >= self.of_connection.len() {
            self.of_connection.resize_with(slot + 1, || None);
        }
        self.of_connection[slot] = stream;
    }

    /// Ends the driver's interest in a connection that is over or is given up before it was open.
    fn forget_connection(&mut self, connection: ConnectionId) {
        self.let_go_of_port(connection);
        self.name(connection, None);
        self.stack.abort(self.now, connection, &mut self.link);
    }

    fn let_go_of_port(&mut self, connection: ConnectionId) {
        if let Some((local, remote)) = self.stack.endpoints(connection) {
            self.ports.let_go(local, remote);
        }
    }

    fn remove(&mut self, stream: StreamId, end: impl FnOnce(&mut Stack<L>, ConnectionId, Instant, &mut L)) {
        if find(&mut self.carried, stream).is_none() {
            return;
        }
        let Some(carried) = self.carried[stream.slot()].take() else { return };
        if let Some(waiting) = self.waiting.remove(&stream.slot()) {
            self.spare.give_back(waiting.queue);
        }
        if carried.is_client {
            self.limit.release();
        }
        if let Some(connection) = carried.connection {
            if !carried.is_client {
                self.let_go_of_port(connection);
            }
            self.name(connection, None);
            end(&mut self.stack, connection, self.now, &mut self.link);
        }
    }

    /// Connects from a port of ours. `None`: not reached from here.
    fn connect(&mut self, remote: SocketAddr) -> Option<Result<ConnectionId, DialError>> {
        let (stack, now) = (&self.stack, self.now);
        let local = match self.ports.take(remote, &|local, remote| stack.standing(now, local, remote))? {
            Ok(local) => local,
            Err(NoPortLeft) => return Some(Err(DialError::NoResources)),
        };
        let connected = self.stack.connect(now, local, remote, &mut self.link);
        Some(connected.map_err(|error| {
            self.ports.let_go(local, remote);
            match error {
                ConnectError::NoRoute => DialError::Unreachable,
                ConnectError::InUse | ConnectError::TooMany => DialError::NoResources,
            }
        }))
    }
}

impl<L: Link, P: SourcePorts> Elsewhere for Streams<L, P> {
    fn dial(&mut self, stream: StreamId, address: SocketAddr, outcomes: &mut Outcomes) -> bool {
        // An attempt that takes too long is given up for this one.
        self.dial_failed(stream);
        let Some(connected) = self.connect(address) else { return false };
        if find(&mut self.carried, stream).is_none() {
            self.insert(Carried {
                stream,
                connection: None,
                is_client: false,
                is_open: false,
                is_queued_to_read: false,
                is_reset: false,
            });
            self.waiting.insert(stream.slot(), Waiting::default());
        }
        match connected {
            Ok(connection) => {
                self.name(connection, Some(stream));
                if let Some(carried) = find(&mut self.carried, stream) {
                    carried.connection = Some(connection);
                }
            }
            Err(why) => outcomes.push_back(Outcome::DialFailed(stream, why)),
        }
        true
    }

    fn surrender(&mut self, stream: StreamId) -> Waiting {
        let waiting = self.waiting.remove(&stream.slot()).unwrap_or_default();
        self.lose(stream);
        waiting
    }

    fn send(
        &mut self,
        to: StreamId,
        outputs: &[Action],
        bytes: &[u8],
        input: Payload<'_>,
        outcomes: &mut Outcomes,
    ) {
        let Some(carried) = find(&mut self.carried, to) else { return };
        let mut sent = 0;
        for output in outputs {
            let piece = match output {
                Action::Write { range, .. } => Piece::Bytes(&bytes[range.clone()]),
                Action::Relay { range, .. } => match input {
                    Payload::Here(input) => Piece::Bytes(&input[range.clone()]),
                    Payload::Elsewhere => Piece::Text(range.clone()),
                },
                _ => continue,
            };
            match (carried.is_open, carried.connection, piece) {
                (true, Some(connection), Piece::Bytes(bytes)) => {
                    sent += self.stack.send(connection, bytes, &mut self.link);
                }
                (true, Some(connection), Piece::Text(range)) => {
                    let Some(text) = &self.text else { continue };
                    let range = text.range.start + range.start..text.range.start + range.end;
                    sent += self.stack.send_from(connection, &text.frame, range, &mut self.link);
                }
                (_, _, piece) => {
                    let waiting = self.waiting.entry(to.slot()).or_default();
                    let bytes = match piece {
                        Piece::Bytes(bytes) => bytes,
                        Piece::Text(range) => &text_bytes(&self.link, self.text.as_ref())[range],
                    };
                    waiting.queue.append(bytes, &mut self.spare);
                }
            }
        }
        if sent > 0 {
            outcomes.push_back(Outcome::Sent(to, sent));
        }
    }

    fn payload(&self) -> &[u8] {
        text_bytes(&self.link, self.text.as_ref())
    }

    fn can_take(&self, len: usize) -> bool {
        self.stack.can_take(len, &self.link)
    }

    fn shut_down(&mut self, stream: StreamId) {
        let Some(carried) = find(&mut self.carried, stream) else { return };
        match (carried.is_open, carried.connection) {
            (true, Some(connection)) => self.stack.shut_down(connection),
            _ => self.waiting.entry(stream.slot()).or_default().fin = true,
        }
    }

    fn close(&mut self, stream: StreamId) {
        self.lose(stream);
    }

    fn abort(&mut self, stream: StreamId) {
        self.remove(stream, |stack, connection, now, link| stack.abort(now, connection, link));
    }

    fn resume(&mut self, stream: StreamId) {
        self.read_later(stream);
    }
}

/// A part of what is to be sent.
enum Piece<'a> {
    Bytes(&'a [u8]),
    /// Of the text at hand, counted from its start.
    Text(Range<usize>),
}

fn text_bytes<'a, L: Link>(link: &'a L, text: Option<&'a Text<L::Frame>>) -> &'a [u8] {
    text.map_or(&[], |text| &link.bytes(&text.frame)[text.range.clone()])
}

/// The stream of that name, unless it is gone or its slot is another's by now.
fn find(carried: &mut [Option<Carried>], stream: StreamId) -> Option<&mut Carried> {
    carried.get_mut(stream.slot())?.as_mut().filter(|carried| carried.stream == stream)
}

/// What the engine needs to know of a connection that did not come about.
pub(super) fn classify(failure: ConnectFailure) -> DialError {
    match failure {
        ConnectFailure::Refused => DialError::Refused,
        ConnectFailure::Unreachable => DialError::Unreachable,
        ConnectFailure::TimedOut => DialError::TimedOut,
    }
}
