//! The epoll datapath: the engine over the kernel's TCP, on any Linux host.
//!
//! ```text
//!   listener ─► accept ─► Engine::accept ┐
//!   socket ──► recv ───► Engine::handle ─┴─► Actions ─► send / connect / shutdown / close
//!                 ▲                             │
//!                 └── credit > 0 ◄── Resume ────┘ what the kernel does not take waits in OutputQueue
//! ```
//! Sockets are registered once, edge-triggered, for both directions; readiness is remembered per socket,
//! so that a message costs epoll_wait, recv and send and nothing else. A socket is read while it is
//! readable *and* the engine gives credit; a socket that would never stop is interrupted after
//! [`READS_PER_TURN`] so that others get their turn.
//!
//! Nothing here knows MTProto. Buffers and queues are bounded by the engine's credit.

mod dial;
mod listener;
mod pipe;
mod socket;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mtproxy_core::action::{Action, Actions};
use mtproxy_core::engine::{Direction, Engine, Input};
use mtproxy_core::event::{DialError, Event};
use mtproxy_core::stream::{Endpoints, StreamId};
use mtproxy_core::time::{Instant, Now};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::Timespec;
use rustix::io::Errno;

use listener::Listeners;
pub use listener::{ConnectionLimit, bind, bind_alone};
pub(crate) use pipe::PIPES_MAX;
use pipe::PipePool;
use socket::{Received, Socket};

use super::buffers::BufferPool;
use super::{Datapath, Elsewhere, Nowhere, Outcome, Outcomes, Payload};
use crate::telemetry::metrics::WorkerCounters;

/// Size of the one buffer that is read into: what the engine's default window admits at once.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Reads of one socket before the others get their turn.
const READS_PER_TURN: usize = 8;
/// Another try to read what there was no memory for.
const MEMORY_RETRY: Duration = Duration::from_millis(10);
/// Clients accepted from one listener in a turn that has other work, too.
const ACCEPTS_PER_TURN: usize = 16;
/// Events taken per call of epoll_wait.
const EVENTS_PER_TURN: usize = 256;
/// Low half of the user data of what is not a stream: no stream has this slot.
const NOT_A_STREAM: u64 = 0xffff_ffff;
/// User data of the eventfd that wakes a sleeping worker; listener `i` has `(i + 1) << 32 | NOT_A_STREAM`.
const WAKE: u64 = NOT_A_STREAM;

/// One worker's sockets, and what carries the engine's other streams.
pub struct Epoll<E = Nowhere> {
    pub(super) elsewhere: E,
    /// Readable when there are events.
    pub(super) epoll: OwnedFd,
    wake: OwnedFd,
    listeners: Listeners,
    /// By slot of the stream.
    sockets: Vec<Option<Socket>>,
    /// Sockets to read again without a new event.
    ready: VecDeque<StreamId>,
    /// Some of them wait for memory, until then at the latest.
    retry_at: Option<Instant>,
    events: Vec<epoll::Event>,
    read_buffer: Box<[u8]>,
    spare: BufferPool,
    pipes: PipePool,
    pub(super) actions: Actions,
    outcomes: Outcomes,
    reports: Vec<Event>,
}

impl Epoll {
    /// A datapath that accepts from `listeners` and is woken by writing to the eventfd `wake`.
    ///
    /// # Errors
    /// When the kernel has no epoll instance for us.
    pub fn new(listeners: Vec<OwnedFd>, limit: ConnectionLimit, wake: OwnedFd) -> io::Result<Self> {
        Self::beside(Nowhere, listeners, limit, wake)
    }
}

impl<E: Elsewhere> Epoll<E> {
    /// The same, where `elsewhere` carries the streams that are no sockets.
    ///
    /// # Errors
    /// When the kernel has no epoll instance for us.
    pub(super) fn beside(
        elsewhere: E,
        listeners: Vec<OwnedFd>,
        limit: ConnectionLimit,
        wake: OwnedFd,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        let listeners = Listeners::register(&epoll, listeners, limit)?;
        Ok(Self {
            elsewhere,
            epoll,
            wake,
            listeners,
            sockets: Vec::new(),
            ready: VecDeque::new(),
            retry_at: None,
            events: Vec::with_capacity(EVENTS_PER_TURN),
            read_buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            spare: BufferPool::default(),
            pipes: PipePool::default(),
            actions: Actions::new(),
            outcomes: Outcomes::new(),
            reports: Vec::new(),
        })
    }

    /// True if there is something to read without a new event, and memory to read it into as far as is known.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty() && self.retry_at.is_none()
    }
}

impl<E: Elsewhere> Datapath for Epoll<E> {
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = if self.is_ready() { Some(Duration::ZERO) } else { timeout };
        // Rounded up: waking before the deadline would find nothing to do and spin.
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos().next_multiple_of(1_000_000)),
        });
        let timeout = timeout.map(normalized);
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&mut self, now: Now, engine: &mut Engine) {
        for index in 0..self.events.len() {
            let (data, flags) = (self.events[index].data.u64(), self.events[index].flags);
            if data == WAKE {
                let mut counter = [0; 8];
                let _ = rustix::io::read(&self.wake, &mut counter);
            } else if data & NOT_A_STREAM == NOT_A_STREAM {
                self.accept((data >> 32) as usize - 1, now, engine);
            } else {
                self.notice(StreamId::from_u64(data), flags, now, engine);
            }
        }
        self.retry_at = None;
        for _ in 0..self.ready.len() {
            if let Some(stream) = self.ready.pop_front() {
                if let Some(socket) = self.socket(stream) {
                    socket.is_queued_to_read = false;
                }
                self.read(stream, now, engine);
            }
        }
        self.listeners.resume_if_due(&self.epoll, now.instant);
    }

    fn time_out(&mut self, now: Now, engine: &mut Engine) {
        engine.time_out(now, &mut self.actions);
        self.settle(now, engine, Payload::Here(&[]));
    }

    /// When accepting, which was paused, or reading, which waits for memory, is to be tried again.
    fn next_timeout(&self) -> Option<Instant> {
        [self.listeners.resume_at(), self.retry_at].into_iter().flatten().min()
    }

    fn stop_accepting(&mut self) {
        self.listeners.close();
    }

    fn stop(&mut self, now: Now, engine: &mut Engine) {
        engine.stop(now, &mut self.actions);
        self.settle(now, engine, Payload::Here(&[]));
    }

    fn drain_reports(&mut self) -> std::vec::Drain<'_, Event> {
        self.reports.drain(..)
    }

    fn publish(&self, counters: &WorkerCounters) {
        counters.accept_pauses.publish(self.listeners.pauses());
    }
}

impl<E: Elsewhere> Epoll<E> {
    /// Accepts clients. Listeners are level-triggered: whoever else waits is reported in the next turn. So a
    /// quiet worker takes one and spares itself the call that finds nobody; a busy one, whose next turn
    /// may be far, takes several.
    fn accept(&mut self, listener: usize, now: Now, engine: &mut Engine) {
        let most = if self.events.len() > 1 { ACCEPTS_PER_TURN } else { 1 };
        for _ in 0..most {
            let Some((fd, ends)) = self.listeners.accept(&self.epoll, listener, now.instant) else { return };
            self.adopt(fd, ends, now, engine);
        }
    }

    fn adopt(&mut self, fd: OwnedFd, ends: Endpoints, now: Now, engine: &mut Engine) {
        let stream = engine.accept(now, ends, &mut self.actions);
        let socket = Socket::accepted(stream, fd);
        let registered = socket.register(&self.epoll);
        self.insert(stream, socket);
        if registered.is_err() {
            // Out of epoll watches (fs.epoll.max_user_watches): this client cannot be served.
            self.outcomes.push_back(Outcome::Broken(stream));
        }
        self.settle(now, engine, Payload::Here(&[]));
    }

    fn notice(&mut self, stream: StreamId, flags: EventFlags, now: Now, engine: &mut Engine) {
        let Some(socket) = self.socket(stream) else { return };
        if socket.is_dialing() {
            match socket.dial_result(flags) {
                None => return,
                Some(Err(error)) => {
                    // The flags were about a descriptor that may have been replaced by now.
                    self.outcomes.push_back(Outcome::DialFailed(stream, dial::classify(error)));
                    return self.settle(now, engine, Payload::Here(&[]));
                }
                Some(Ok(local)) => {
                    engine.handle(now, Input::Connected(stream, local), &mut self.actions);
                    self.settle(now, engine, Payload::Here(&[]));
                }
            }
        }
        let Some(socket) = self.socket(stream) else { return };
        socket.notice(flags);
        if socket.can_flush() {
            self.flush(stream);
            self.settle(now, engine, Payload::Here(&[]));
        }
        if flags.contains(EventFlags::ERR) && is_waited_for_in_vain(engine, stream) {
            self.outcomes.push_back(Outcome::Broken(stream));
            return self.settle(now, engine, Payload::Here(&[]));
        }
        self.read(stream, now, engine);
    }

    /// Reads while there is something to read and somebody to take it.
    fn read(&mut self, stream: StreamId, now: Now, engine: &mut Engine) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let is_interrupted = (0..READS_PER_TURN).all(|_| self.read_once(stream, &mut buffer, now, engine));
        self.read_buffer = buffer;
        if is_interrupted {
            self.read_later(stream);
        }
    }

    /// Reads once and handles it. False if something else has to happen before the next read: an event, a
    /// `Resume`, or that the other side catches up.
    fn read_once(&mut self, stream: StreamId, buffer: &mut [u8], now: Now, engine: &mut Engine) -> bool {
        let credit = engine.credit(stream).min(buffer.len());
        let Some(socket) = self.socket(stream) else { return false };
        if socket.is_lost() {
            // Takes no credit, and need not wait for the other side.
            self.outcomes.push_back(Outcome::Broken(stream));
            self.settle(now, engine, Payload::Here(&[]));
            return false;
        }
        if credit == 0 || !socket.is_readable() {
            return false;
        }
        let is_bulk = socket.is_bulk();
        let direction = engine.direction(stream);
        if direction.to().is_some_and(|to| self.must_wait_for(to, stream)) {
            return false;
        }
        if !self.elsewhere.can_take(credit) {
            self.read_later(stream);
            self.retry_at.get_or_insert(now.instant.plus(MEMORY_RETRY));
            return false;
        }
        let piped = match direction {
            Direction::Opaque { to } if is_bulk => self.splice(stream, to),
            _ => None,
        };
        let received = piped.unwrap_or_else(|| self.receive_into(stream, &mut buffer[..credit]));
        match received {
            Received::Bytes(len) => {
                engine.handle(now, Input::Bytes(stream, &mut buffer[..len]), &mut self.actions);
            }
            Received::Piped { to, len } => {
                engine.handle(now, Input::PassedOn(stream, len), &mut self.actions);
                self.flush(to);
            }
            Received::Eof => engine.handle(now, Input::Eof(stream), &mut self.actions),
            Received::Nothing => {}
            Received::Broken => self.outcomes.push_back(Outcome::Broken(stream)),
        }
        self.settle(now, engine, Payload::Here(buffer));
        true
    }

    /// True if the socket of `to` is behind. More for it is better left in the kernel: what is read now
    /// would only be copied once more, into its queue. `reader` is read again when `to` has caught up.
    fn must_wait_for(&mut self, to: StreamId, reader: StreamId) -> bool {
        self.socket(to).is_some_and(|socket| socket.keeps_waiting(reader))
    }

    fn receive_into(&mut self, stream: StreamId, buffer: &mut [u8]) -> Received {
        find(&mut self.sockets, stream).map_or(Received::Nothing, |socket| socket.receive(buffer))
    }

    /// Moves a bulk transfer's bytes into the pipe of the socket they go to. `None`: read them instead.
    fn splice(&mut self, from: StreamId, to: StreamId) -> Option<Received> {
        let mut pipe = find(&mut self.sockets, to)?.take_pipe(&mut self.pipes)?;
        let received = find(&mut self.sockets, from)?.splice_into(&mut pipe, to);
        find(&mut self.sockets, to)?.put_pipe(pipe, &mut self.pipes);
        received
    }

    /// Queues a stream for reading, if there is something to read.
    fn read_later(&mut self, stream: StreamId) {
        if let Some(socket) = self.socket(stream)
            && socket.is_readable()
            && !std::mem::replace(&mut socket.is_queued_to_read, true)
        {
            self.ready.push_back(stream);
        }
    }

    /// Carries out the actions at hand, tells the engine what that led to, and so on until all is quiet.
    /// `input` is what `Relay` actions point into.
    pub(super) fn settle(&mut self, now: Now, engine: &mut Engine, input: Payload<'_>) {
        loop {
            let mut actions = std::mem::take(&mut self.actions);
            self.carry_out(&actions, input);
            actions.clear();
            self.actions = actions;
            let Some(outcome) = self.outcomes.pop_front() else {
                if self.actions.as_slice().is_empty() {
                    return;
                }
                continue;
            };
            match outcome {
                Outcome::Sent(stream, len) => engine.sent(now, stream, len, &mut self.actions),
                Outcome::DialFailed(stream, why) => {
                    if why == DialError::NoResources {
                        // Whoever is accepted now could not be served either.
                        self.listeners.pause(&self.epoll, now.instant);
                    }
                    engine.handle(now, Input::DialFailed(stream, why), &mut self.actions);
                }
                Outcome::Broken(stream) => {
                    self.remove(stream);
                    engine.handle(now, Input::Reset(stream), &mut self.actions);
                }
            }
        }
    }

    fn carry_out(&mut self, actions: &Actions, input: Payload<'_>) {
        let mut list = actions.as_slice();
        while let Some(action) = list.first() {
            let run = match action {
                Action::Write { to, .. } | Action::Relay { to, .. } => {
                    list.iter().take_while(|next| is_output_to(next, *to)).count()
                }
                _ => 1,
            };
            let (outputs, rest) = list.split_at(run);
            list = rest;
            match action {
                Action::Write { to, .. } | Action::Relay { to, .. } => {
                    self.send(*to, outputs, actions.bytes(), input);
                }
                Action::Dial { stream, address } => self.dial(*stream, *address),
                Action::Shutdown(stream) => match self.socket(*stream) {
                    Some(socket) => socket.shut_down(),
                    None => self.elsewhere.shut_down(*stream),
                },
                Action::Close(stream) => self.remove(*stream),
                Action::Abort(stream) => match self.socket(*stream) {
                    Some(socket) => {
                        socket.prepare_reset();
                        self.remove(*stream);
                    }
                    None => self.elsewhere.abort(*stream),
                },
                Action::Resume(stream) => match self.socket(*stream) {
                    Some(_) => self.read_later(*stream),
                    None => self.elsewhere.resume(*stream),
                },
                Action::Report(event) => self.reports.push(*event),
            }
        }
    }

    fn send(&mut self, to: StreamId, outputs: &[Action], bytes: &[u8], input: Payload<'_>) {
        let Some(socket) = find(&mut self.sockets, to) else {
            return self.elsewhere.send(to, outputs, bytes, input, &mut self.outcomes);
        };
        let input = match input {
            Payload::Here(input) => input,
            Payload::Elsewhere => self.elsewhere.payload(),
        };
        let done = socket.send(outputs, bytes, input, &mut self.spare);
        self.account(to, done);
    }

    /// Tells the engine of bytes that are done with. A peer that turned out to be gone is read at once.
    fn account(&mut self, to: StreamId, done: usize) {
        if done > 0 {
            self.outcomes.push_back(Outcome::Sent(to, done));
        }
        if self.socket(to).is_some_and(|socket| socket.has_failed()) {
            self.read_later(to);
        }
    }

    fn flush(&mut self, stream: StreamId) {
        let Some(socket) = find(&mut self.sockets, stream) else { return };
        let done = socket.flush(&mut self.spare, &mut self.pipes);
        let reader = socket.reader_to_release();
        self.account(stream, done);
        if let Some(reader) = reader {
            self.read_later(reader);
        }
    }

    fn dial(&mut self, stream: StreamId, address: std::net::SocketAddr) {
        if self.socket(stream).is_none() {
            if self.elsewhere.dial(stream, address, &mut self.outcomes) {
                return;
            }
            let waiting = self.elsewhere.surrender(stream);
            self.insert(stream, Socket::dialing_with(stream, waiting));
        }
        match dial::connect(address) {
            Ok(fd) => {
                let Some(socket) = find(&mut self.sockets, stream) else { return };
                if let Err(error) = socket.dial_over(fd, &self.epoll) {
                    self.outcomes.push_back(Outcome::DialFailed(stream, dial::classify(error)));
                }
            }
            Err(error) => self.outcomes.push_back(Outcome::DialFailed(stream, dial::classify(error))),
        }
    }

    fn insert(&mut self, stream: StreamId, socket: Socket) {
        let slot = stream.slot();
        if slot >= self.sockets.len() {
            self.sockets.resize_with(slot + 1, || None);
        }
        self.sockets[slot] = Some(socket);
    }

    fn remove(&mut self, stream: StreamId) {
        if find(&mut self.sockets, stream).is_none() {
            return self.elsewhere.close(stream);
        }
        if let Some(socket) = self.sockets[stream.slot()].take() {
            self.listeners.release(socket.is_client());
            socket.dismantle(&mut self.spare, &mut self.pipes);
        }
    }

    fn socket(&mut self, stream: StreamId) -> Option<&mut Socket> {
        find(&mut self.sockets, stream)
    }
}

/// The socket of `stream`, unless it is gone or its slot is another's by now.
fn find(sockets: &mut [Option<Socket>], stream: StreamId) -> Option<&mut Socket> {
    sockets.get_mut(stream.slot())?.as_mut().filter(|socket| socket.stream() == stream)
}

/// True if nothing of `stream` is read and nothing that it says would be relayed: while its other side is
/// dialled, for instance. Then its reset need not wait for a read to find it.
fn is_waited_for_in_vain(engine: &Engine, stream: StreamId) -> bool {
    engine.credit(stream) == 0 && engine.direction(stream) == Direction::Unsettled
}

fn is_output_to(action: &Action, stream: StreamId) -> bool {
    matches!(action, Action::Write { to, .. } | Action::Relay { to, .. } if *to == stream)
}

/// Rounding up may have made a whole second of the nanoseconds.
fn normalized(timeout: Timespec) -> Timespec {
    if timeout.tv_nsec < 1_000_000_000 {
        return timeout;
    }
    Timespec { tv_sec: timeout.tv_sec.saturating_add(1), tv_nsec: 0 }
}
