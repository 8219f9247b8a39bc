//! The relay over frames: TCP-lite and the engine face to face, whatever the link below.
//!
//! One segment in, then all that follows from it, then the next: an input of the engine, its actions, what
//! came of those. Acknowledgements and data leave together at the end of the turn.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mtproxy_core::engine::{Direction, Engine, Input};
use mtproxy_core::stream::{Endpoints, StreamId};
use mtproxy_core::time::{Instant as CoreInstant, Now};
use mtproxy_tcp::link::Link;
use mtproxy_tcp::time::Instant;
use mtproxy_tcp::{Event, ResetReason, Unknown};

use super::super::epoll::{ConnectionLimit, Epoll};
use super::super::{Datapath as _, Payload};
use super::streams::{Reading, SourcePorts, Streams, classify};

/// Texts of one stream before the others get their turn.
const TEXTS_OF_A_STREAM: usize = 64;
/// Texts of all streams in a turn. With two microseconds each a turn stays far below the time after which a shard
/// is taken for hung.
const TEXTS_PER_TURN: usize = 1024;
/// Another try to read what there were no frames for. What frees some, an acknowledgement, makes a turn anyway.
const FRAMES_RETRY: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;

/// On which queue a frame has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrivedOn {
    /// On this shard's.
    OurQueue,
    /// On another shard's, which handed it over.
    AnotherQueue,
}

/// Streams over frames, and beside them the sockets of those that the link does not lead to.
pub struct Relay<L: Link, P> {
    /// Sockets, and the frames as their Elsewhere.
    pub(super) sockets: Epoll<Streams<L, P>>,
    /// How the frame at hand has come.
    arrived_on: ArrivedOn,
    /// Texts that may still be read in this turn.
    texts_left: usize,
    /// Streams that are ready wait for frames, until then at the latest.
    retry_at: Option<CoreInstant>,
}

impl<L: Link, P: SourcePorts> Relay<L, P> {
    /// A relay over `streams`; `wake` is the eventfd by which other threads wake it.
    ///
    /// # Errors
    /// When the kernel has no epoll instance for us.
    pub fn new(streams: Streams<L, P>, limit: ConnectionLimit, wake: OwnedFd) -> io::Result<Self> {
        let sockets = Epoll::beside(streams, Vec::new(), limit, wake)?;
        Ok(Self { sockets, arrived_on: ArrivedOn::OurQueue, texts_left: TEXTS_PER_TURN, retry_at: None })
    }

    /// The streams over frames.
    pub fn streams(&mut self) -> &mut Streams<L, P> {
        &mut self.sockets.elsewhere
    }

    /// A turn begins.
    pub fn begin(&mut self, now: Now) {
        self.streams().now = tcp_instant(now);
        self.texts_left = TEXTS_PER_TURN;
    }

    /// A frame has come whose part `packet` is used. Answers it back if it belongs to no connection here.
    pub fn arrive(
        &mut self,
        now: Now,
        frame: L::Frame,
        packet: Range<usize>,
        arrived_on: ArrivedOn,
        engine: &mut Engine,
    ) -> Option<Unknown<L::Frame>> {
        self.arrived_on = arrived_on;
        let Streams { stack, link, now: instant, .. } = &mut self.sockets.elsewhere;
        let unknown = stack.receive(*instant, frame, packet, link);
        self.handle_events(now, engine);
        unknown
    }

    /// Reads the streams that are to be read without a new event.
    pub fn read_ready(&mut self, now: Now, engine: &mut Engine) {
        self.retry_at = None;
        for _ in 0..self.streams().ready_count() {
            if self.texts_left == 0 || self.must_wait_for_frames(now) {
                return;
            }
            let Some(stream) = self.streams().next_ready() else { return };
            self.read(stream, now, engine);
            // What reading led to may be the end of a connection whose slot the next dial would take.
            self.handle_events(now, engine);
        }
    }

    /// Lets stack and engine handle their deadlines.
    pub fn time_out(&mut self, now: Now, engine: &mut Engine) {
        let Streams { stack, link, now: instant, .. } = &mut self.sockets.elsewhere;
        stack.time_out(*instant, link);
        self.handle_events(now, engine);
        self.streams().reclaim_ports();
        self.sockets.time_out(now, engine);
    }

    /// Sends what the turn has gathered.
    pub fn transmit(&mut self, now: Now, engine: &mut Engine) {
        let Streams { stack, link, now: instant, .. } = &mut self.sockets.elsewhere;
        stack.transmit(*instant, link);
        self.handle_events(now, engine);
    }

    /// True if the next turn has something to do whatever happens.
    pub fn is_busy(&self) -> bool {
        let is_ready = self.sockets.elsewhere.ready_count() > 0 && self.retry_at.is_none();
        is_ready || self.sockets.is_ready()
    }

    /// When streams that wait for frames are to be tried again.
    pub fn retry_at(&self) -> Option<CoreInstant> {
        self.retry_at
    }

    /// True if there are no frames for what one text may lead to.
    fn must_wait_for_frames(&mut self, now: Now) -> bool {
        let must_wait = !self.streams().has_room_for_text();
        if must_wait {
            self.retry_at.get_or_insert(now.instant.plus(FRAMES_RETRY));
        }
        must_wait
    }

    /// What the engine has reported since the last call.
    pub fn drain_reports(&mut self) -> std::vec::Drain<'_, mtproxy_core::event::Event> {
        self.sockets.drain_reports()
    }

    fn handle_events(&mut self, now: Now, engine: &mut Engine) {
        while let Some(event) = self.streams().stack.next_event() {
            self.handle_event(event, now, engine);
        }
    }

    fn handle_event(&mut self, event: Event, now: Now, engine: &mut Engine) {
        if let Event::Accepted(connection, remote) = event {
            if !self.streams().admit() {
                let Streams { stack, link, now: instant, .. } = &mut self.sockets.elsewhere;
                return stack.abort(*instant, connection, link);
            }
            let ends = Endpoints { local: self.streams().local(connection), remote };
            let stream = engine.accept(now, ends, &mut self.sockets.actions);
            self.streams().insert_client(stream, connection);
            return self.sockets.settle(now, engine, Payload::Here(&[]));
        }
        let Some(stream) = self.streams().stream_of(event.connection()) else { return };
        match event {
            Event::Accepted(..) => {}
            Event::Connected(connection) => {
                let is_here = self.arrived_on == ArrivedOn::OurQueue;
                self.streams().learn(connection, is_here);
                let sent = self.streams().open(stream);
                let local = self.streams().local(connection);
                engine.handle(now, Input::Connected(stream, local), &mut self.sockets.actions);
                self.sockets.settle(now, engine, Payload::Here(&[]));
                self.sent(stream, sent, now, engine);
            }
            Event::ConnectFailed(_, failure) => {
                self.streams().dial_failed(stream);
                let input = Input::DialFailed(stream, classify(failure));
                engine.handle(now, input, &mut self.sockets.actions);
                self.sockets.settle(now, engine, Payload::Here(&[]));
            }
            Event::Readable(_) => self.read(stream, now, engine),
            Event::Sent(_, len) => self.sent(stream, len, now, engine),
            // What it had said went with it: its session ends at once, and frees what it holds elsewhere.
            Event::Reset(_, ResetReason::Shed) => self.lose(stream, now, engine),
            Event::Reset(..) => {
                self.streams().note_reset(stream);
                if is_waited_for_in_vain(engine, stream) {
                    return self.lose(stream, now, engine);
                }
                self.read(stream, now, engine);
            }
        }
    }

    fn sent(&mut self, stream: StreamId, len: usize, now: Now, engine: &mut Engine) {
        if len > 0 {
            engine.sent(now, stream, len, &mut self.sockets.actions);
            self.sockets.settle(now, engine, Payload::Here(&[]));
        }
    }

    fn lose(&mut self, stream: StreamId, now: Now, engine: &mut Engine) {
        self.streams().lose(stream);
        engine.handle(now, Input::Reset(stream), &mut self.sockets.actions);
        self.sockets.settle(now, engine, Payload::Here(&[]));
    }

    /// Reads while there is something to read and somebody to take it.
    fn read(&mut self, stream: StreamId, now: Now, engine: &mut Engine) {
        for _ in 0..TEXTS_OF_A_STREAM {
            if !self.read_once(stream, now, engine) {
                return;
            }
        }
        self.streams().read_later(stream);
    }

    /// False if something else has to happen before the next read.
    fn read_once(&mut self, stream: StreamId, now: Now, engine: &mut Engine) -> bool {
        let credit = engine.credit(stream);
        if credit == 0 {
            return false;
        }
        // An end or a reset needs no frame.
        let is_text = self.streams().has_text(stream);
        if self.texts_left == 0 || is_text && self.must_wait_for_frames(now) {
            self.streams().read_later(stream);
            return false;
        }
        let streams = &mut self.sockets.elsewhere;
        match streams.read(stream) {
            Reading::Text => {
                self.texts_left -= 1;
                let text = streams.text_mut(credit);
                let len = text.len();
                engine.handle(now, Input::Bytes(stream, text), &mut self.sockets.actions);
                self.sockets.settle(now, engine, Payload::Elsewhere);
                self.streams().release(stream, len);
                true
            }
            Reading::End => {
                engine.handle(now, Input::Eof(stream), &mut self.sockets.actions);
                self.sockets.settle(now, engine, Payload::Here(&[]));
                true
            }
            Reading::Broken => {
                self.lose(stream, now, engine);
                false
            }
            Reading::Nothing => false,
        }
    }
}

/// True if nothing of `stream` is read and nothing that it says would be relayed: its reset need not wait.
fn is_waited_for_in_vain(engine: &Engine, stream: StreamId) -> bool {
    engine.credit(stream) == 0 && engine.direction(stream) == Direction::Unsettled
}

/// Both clocks count from the same origin.
pub fn tcp_instant(now: Now) -> Instant {
    let elapsed = now.instant.since(mtproxy_core::time::Instant::ORIGIN);
    Instant::from_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}
