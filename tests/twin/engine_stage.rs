//! The engine in memory: streams are pipes, time is virtual, and nothing is in between.
//!
//! The smallest driver that keeps the contract, and the reference for the others. What a kernel does for a
//! driver it does itself: FIN behind what is queued, RST for whoever talks to a connection that is closed.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use mtproxy_core::action::{Action, Actions};
use mtproxy_core::engine::{Direction, Engine, Input};
use mtproxy_core::event::DialError;
use mtproxy_core::stream::{Endpoints, StreamId};

use crate::deployment;
use crate::script::Scene;
use crate::stage::{READ_MAX, Received, Sent, Stage, Upstream};

/// What one direction holds before its speaker must wait.
const PIPE_BYTES: usize = 64 * 1024;
/// Virtual time that passes at once while nothing has a deadline.
const MOMENT: Duration = Duration::from_millis(50);

pub(crate) struct EngineStage {
    engine: Engine,
    actions: Actions,
    elapsed: Duration,
    unix_seconds: u32,
    wires: Vec<Wire>,
    of_stream: BTreeMap<StreamId, usize>,
    dials: VecDeque<(StreamId, SocketAddr)>,
    /// Output for streams that are being dialled.
    waiting: BTreeMap<StreamId, Queue>,
    accepted: VecDeque<(Upstream, usize)>,
}

/// A connection.
struct Wire {
    stream: StreamId,
    to_proxy: Pipe,
    to_peer: Pipe,
    queue: Queue,
    has_read_fin: bool,
    is_closed: bool,
}

/// What the driver has still to send.
#[derive(Default)]
struct Queue {
    bytes: VecDeque<u8>,
    fin: bool,
}

#[derive(Default)]
struct Pipe {
    pieces: VecDeque<Vec<u8>>,
    len: usize,
    fin: bool,
    rst: bool,
    is_fin_told: bool,
    is_rst_told: bool,
}

impl Pipe {
    fn push(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(PIPE_BYTES - self.len);
        if len > 0 {
            self.pieces.push_back(bytes[..len].to_vec());
            self.len += len;
        }
        len
    }

    /// At most `len` bytes of one piece.
    fn pop(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut piece = self.pieces.pop_front()?;
        if piece.len() > len {
            self.pieces.push_front(piece.split_off(len));
        }
        self.len -= piece.len();
        Some(piece)
    }
}

impl Stage for EngineStage {
    fn set(scene: Scene, unix_seconds: u32) -> Self {
        Self {
            engine: deployment::engine(scene),
            actions: Actions::new(),
            elapsed: Duration::ZERO,
            unix_seconds,
            wires: Vec::new(),
            of_stream: BTreeMap::new(),
            dials: VecDeque::new(),
            waiting: BTreeMap::new(),
            accepted: VecDeque::new(),
        }
    }

    fn connect(&mut self, is_v6: bool) -> usize {
        let (local, remote) = (deployment::proxy_address(is_v6), deployment::client_address(is_v6, 0));
        let now = deployment::now(self.elapsed, self.unix_seconds);
        let stream = self.engine.accept(now, Endpoints { local, remote }, &mut self.actions);
        let connection = self.wire(stream, Queue::default());
        self.carry_out(&[]);
        connection
    }

    fn accept(&mut self) -> Option<(Upstream, usize)> {
        self.accepted.pop_front()
    }

    fn send(&mut self, connection: usize, bytes: &[u8]) -> Sent {
        let wire = &mut self.wires[connection];
        if wire.is_closed {
            wire.to_peer.rst = true;
        }
        if wire.to_peer.rst { Sent::Broken } else { Sent::Took(wire.to_proxy.push(bytes)) }
    }

    fn receive(&mut self, connection: usize) -> Received {
        let pipe = &mut self.wires[connection].to_peer;
        if let Some(bytes) = pipe.pop(READ_MAX) {
            Received::Bytes(bytes)
        } else if pipe.fin && !std::mem::replace(&mut pipe.is_fin_told, true) {
            Received::Fin
        } else if pipe.rst && !std::mem::replace(&mut pipe.is_rst_told, true) {
            Received::Rst
        } else {
            Received::Nothing
        }
    }

    fn finish(&mut self, connection: usize) {
        self.wires[connection].to_proxy.fin = true;
    }

    fn reset(&mut self, connection: usize) {
        let wire = &mut self.wires[connection];
        wire.to_proxy.rst = true;
        wire.to_peer.pieces.clear();
        wire.to_peer.len = 0;
    }

    fn let_go(&mut self, connection: usize) {
        self.finish(connection);
        let pipe = &mut self.wires[connection].to_peer;
        if pipe.len > 0 || !pipe.fin {
            self.reset(connection);
        }
    }

    fn pass(&mut self, is_waiting: bool) {
        let mut has_moved = self.answer_dials();
        for connection in 0..self.wires.len() {
            if !self.wires[connection].is_closed {
                has_moved |= self.flush(connection);
                has_moved |= self.read(connection);
            }
        }
        if is_waiting && !has_moved {
            let due = self.engine.next_timeout().map(|at| at.since(mtproxy_core::time::Instant::ORIGIN));
            let later = self.elapsed + MOMENT;
            self.elapsed = due.map_or(later, |due| due.clamp(self.elapsed, later));
            let now = deployment::now(self.elapsed, self.unix_seconds);
            self.engine.time_out(now, &mut self.actions);
            self.carry_out(&[]);
        }
    }

    fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl EngineStage {
    fn wire(&mut self, stream: StreamId, queue: Queue) -> usize {
        let (to_proxy, to_peer) = (Pipe::default(), Pipe::default());
        self.wires.push(Wire { stream, to_proxy, to_peer, queue, has_read_fin: false, is_closed: false });
        let connection = self.wires.len() - 1;
        self.of_stream.insert(stream, connection);
        connection
    }

    fn tell(&mut self, input: Input<'_>) {
        let now = deployment::now(self.elapsed, self.unix_seconds);
        self.engine.handle(now, input, &mut self.actions);
        self.carry_out(&[]);
    }

    fn answer_dials(&mut self) -> bool {
        let Some((stream, address)) = self.dials.pop_front() else { return false };
        let server = deployment::servers().into_iter().find(|(_, at)| *at == address);
        if let Some((who, _)) = server {
            let queue = self.waiting.remove(&stream).unwrap_or_default();
            let connection = self.wire(stream, queue);
            self.accepted.push_back((who, connection));
            self.tell(Input::Connected(stream, deployment::proxy_address(address.is_ipv6())));
        } else {
            self.tell(Input::DialFailed(stream, DialError::Refused));
        }
        true
    }

    /// One read, as far as there is credit.
    fn read(&mut self, connection: usize) -> bool {
        let wire = &mut self.wires[connection];
        let stream = wire.stream;
        let credit = self.engine.credit(stream);
        let is_of_no_use = credit == 0 && self.engine.direction(stream) == Direction::Unsettled;
        if wire.to_proxy.rst && (is_of_no_use || wire.to_proxy.len == 0) {
            wire.is_closed = true;
            self.of_stream.remove(&stream);
            self.tell(Input::Reset(stream));
            return true;
        }
        if credit == 0 {
            return false;
        }
        if let Some(mut bytes) = wire.to_proxy.pop(credit) {
            let now = deployment::now(self.elapsed, self.unix_seconds);
            self.engine.handle(now, Input::Bytes(stream, &mut bytes), &mut self.actions);
            self.carry_out(&bytes);
            return true;
        }
        if wire.to_proxy.fin && !std::mem::replace(&mut wire.has_read_fin, true) {
            self.tell(Input::Eof(stream));
            return true;
        }
        false
    }

    /// Moves what the pipe has room for out of the queue.
    fn flush(&mut self, connection: usize) -> bool {
        let wire = &mut self.wires[connection];
        let sent = wire.to_peer.push(wire.queue.bytes.make_contiguous());
        wire.queue.bytes.drain(..sent);
        wire.to_peer.fin |= wire.queue.fin && wire.queue.bytes.is_empty();
        if sent == 0 {
            return false;
        }
        let now = deployment::now(self.elapsed, self.unix_seconds);
        self.engine.sent(now, wire.stream, sent, &mut self.actions);
        self.carry_out(&[]);
        true
    }

    fn queue(&mut self, stream: StreamId) -> &mut Queue {
        match self.of_stream.get(&stream) {
            Some(&connection) => &mut self.wires[connection].queue,
            None => self.waiting.entry(stream).or_default(),
        }
    }

    fn carry_out(&mut self, input: &[u8]) {
        let actions = std::mem::take(&mut self.actions);
        for action in actions.as_slice() {
            match action {
                Action::Dial { stream, address } => {
                    self.dials.retain(|(dialled, _)| dialled != stream);
                    self.dials.push_back((*stream, *address));
                }
                Action::Write { to, range } => {
                    self.queue(*to).bytes.extend(&actions.bytes()[range.clone()]);
                }
                Action::Relay { to, range } => self.queue(*to).bytes.extend(&input[range.clone()]),
                Action::Shutdown(stream) => self.queue(*stream).fin = true,
                Action::Close(stream) => self.close(*stream, false),
                Action::Abort(stream) => self.close(*stream, true),
                Action::Resume(_) | Action::Report(_) => {}
            }
        }
    }

    fn close(&mut self, stream: StreamId, is_abort: bool) {
        self.waiting.remove(&stream);
        self.dials.retain(|(dialled, _)| *dialled != stream);
        let Some(connection) = self.of_stream.remove(&stream) else { return };
        let wire = &mut self.wires[connection];
        wire.is_closed = true;
        // RFC 1122 section 4.2.2.13: who closes with unread data resets.
        let is_unread = wire.to_proxy.len > 0;
        wire.to_peer.rst |= is_abort || is_unread;
        wire.to_peer.fin |= !is_abort;
    }
}
