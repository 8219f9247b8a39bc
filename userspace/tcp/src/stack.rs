//! All connections of one shard: the driver's door.
//!
//! ```text
//!   receive ─► parse ─► flow table ─► connection ─► segment_arrives.rs
//!                          │ no
//!                          ├─► TIME-WAIT ─► acknowledge, ignore, or open again
//!                          ├─► listener  ─► half-open connection, or cookie
//!                          └─► Unknown: the driver's to pass on, or to refuse
//!   transmit ─► connections that have something to say ─► output.rs
//!   time_out ─► wheel ─► timeouts.rs
//! ```
//! The contract: after each `receive`, `time_out` and `transmit` the driver drains [`Stack::next_event`]. Time
//! never goes backwards. A [`ConnectionId`] is the driver's until it calls [`Stack::close`] or
//! [`Stack::abort`], or an event says that the stack has forgotten it; a connection that both sides have
//! closed stays until then.

// A method's path fits one lifetime of a connection only; the closures fit all.
#![expect(clippy::redundant_closure_for_method_calls)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use crate::answer_limit::AnswerLimit;
use crate::congestion::CongestionControl;
use crate::connection::{Connection, Shared};
use crate::connections::{ConnectionId, Connections};
use crate::counters::Counters;
pub use crate::demultiplex::Unknown;
use crate::event::{ConnectError, Event, Read, Standing};
use crate::flow_table::FlowTable;
use crate::four_tuple::FourTuple;
use crate::link::Link;
use crate::output::Turn;
use crate::pressure::{Holdings, Pressure};
use crate::queues::Pool;
use crate::receive_queue::Text;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::tcb::{NEVER, State, Tcb};
use crate::time::Instant;
use crate::time_wait::TimeWait;
use crate::wheel::Wheel;

/// Keys of the two tables.
const CONNECTIONS_KEY: u32 = 0;
const TIME_WAIT_KEY: u32 = 1;

/// Text of a full segment to a peer that said no MSS (RFC 9293 section 3.7.1), less timestamps: what
/// `can_take` counts frames by. A peer that names less breaks its own connection, when frames are few.
const TEXT_A_FRAME: usize = 536 - 12;

/// What is known of a connection, for tests and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// State.
    pub state: State,
    /// Our side.
    pub local: SocketAddr,
    /// The peer's side.
    pub remote: SocketAddr,
    /// Congestion window.
    pub cwnd: u32,
    /// Text of a full segment.
    pub smss: u16,
    /// Smoothed round-trip time, once measured.
    pub srtt: Option<Duration>,
    /// Retransmission timeout.
    pub rto: Duration,
    /// The peer's window.
    pub send_window: u32,
    /// What we have promised.
    pub receive_window: u32,
    /// Text queued or in flight.
    pub queued: u32,
    /// Sequence space in flight.
    pub in_flight: u32,
    /// Text received and not read.
    pub unread: usize,
}

/// Connections of one shard.
pub struct Stack<L: Link> {
    pub(crate) now: Instant,
    pub(crate) connections: Connections<L::Frame>,
    table: FlowTable,
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) shared: Shared<L::Frame>,
}

impl<L: Link> Stack<L> {
    /// A stack without connections. `secrets` are shared by all shards of a process.
    #[must_use]
    pub fn new(settings: Settings, secrets: Secrets, now: Instant) -> Self {
        Self {
            now,
            connections: Connections::default(),
            table: FlowTable::new(secrets.table_key(CONNECTIONS_KEY)),
            listeners: Vec::new(),
            shared: Shared {
                counters: Counters::default(),
                events: VecDeque::new(),
                wheel: Wheel::new(now),
                ready: VecDeque::new(),
                pinched: VecDeque::new(),
                pool: Pool::default(),
                holdings: Holdings::default(),
                next_shed: now,
                challenges: AnswerLimit::new(settings.answers_per_second),
                answers: AnswerLimit::new(settings.answers_per_second),
                time_wait: TimeWait::new(settings.time_wait_max.max(1), secrets.table_key(TIME_WAIT_KEY)),
                half_open: 0,
                hop_epoch: 0,
                cookie_sent_at: None,
                secrets,
                settings,
            },
        }
    }

    /// Accepts connections to an address; an unspecified one stands for all addresses of its family.
    pub fn listen(&mut self, at: SocketAddr) {
        if !self.listeners.contains(&at) {
            self.listeners.push(at);
        }
    }

    /// Accepts no more connections. Those that there are stay.
    pub fn stop_listening(&mut self) {
        self.listeners.clear();
    }

    /// What happened since the last call, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        self.shared.events.pop_front()
    }

    /// What a four-tuple is to [`connect`](Self::connect).
    #[must_use]
    pub fn standing(&self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Standing {
        if self.find(local, remote).is_some() {
            return Standing::InUse;
        }
        self.shared.time_wait.standing(now, local, remote)
    }

    /// Dials. An event tells how it ends. A tuple that [may be opened again](Standing::MayReopen) is.
    ///
    /// # Errors
    /// Why there can be no such connection now.
    pub fn connect(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        link: &mut L,
    ) -> Result<ConnectionId, ConnectError> {
        self.now = now;
        let is_sound = local.is_ipv4() == remote.is_ipv4() && local != remote && remote.port() != 0;
        if !is_sound || link.hop(local.ip(), remote.ip(), None).is_none() {
            return Err(ConnectError::NoRoute);
        }
        if self.standing(now, local, remote) == Standing::InUse {
            return Err(ConnectError::InUse);
        }
        if self.connections.len() >= self.shared.settings.connections_max {
            return Err(ConnectError::TooMany);
        }
        let reopened = self.shared.time_wait.reopen(now, local, remote);
        let iss = reopened.unwrap_or_else(|| self.shared.secrets.isn(now, local, remote));
        let tuple = FourTuple::new(local, remote);
        let tcb = Tcb::open(&self.shared, now, tuple, State::SynSent, iss, None);
        let index = self.insert(tcb);
        let id = self.visit(index, link, |connection| {
            connection.ready();
            connection.id
        });
        Ok(id.expect("it was inserted just now"))
    }

    /// Queues bytes behind what is queued, also before the connection is established. All are taken: a driver
    /// sends only what [`can_take`](Self::can_take) allows. Answers how many bytes came within the send buffer
    /// by this; [`Event::Sent`] reports the others as the peer acknowledges.
    pub fn send(&mut self, id: ConnectionId, bytes: &[u8], link: &mut L) -> usize {
        self.call(id, link, |connection| connection.send(bytes)).unwrap_or(0)
    }

    /// Like [`send`](Self::send), from a range of another frame.
    pub fn send_from(
        &mut self,
        id: ConnectionId,
        from: &L::Frame,
        range: Range<usize>,
        link: &mut L,
    ) -> usize {
        self.call(id, link, |connection| connection.send_from(from, range)).unwrap_or(0)
    }

    /// True if so many bytes can be queued and memory for retransmissions and acknowledgements is left.
    #[must_use]
    pub fn can_take(&self, len: usize, link: &L) -> bool {
        self.shared.holdings.can_take(len, TEXT_A_FRAME, link)
    }

    /// What has come, in order.
    pub fn read(&mut self, id: ConnectionId) -> Read<L::Frame> {
        let Some(tcb) = self.connections.view_mut(id) else { return Read::Nothing };
        let read = tcb.read();
        self.shared.holdings.received -= usize::from(matches!(read, Read::Text { .. }));
        if tcb.flags.window_moved {
            self.shared.ready(slot_of(id), tcb);
        }
        read
    }

    /// Gives back what the driver could not take: it comes first again.
    pub fn unread(&mut self, id: ConnectionId, frame: L::Frame, range: Range<usize>, link: &mut L) {
        match self.connections.view_mut(id) {
            Some(tcb) => {
                self.shared.queues(tcb);
                tcb.unread(Text { frame, range });
                self.shared.holdings.received += 1;
            }
            None => link.release(frame),
        }
    }

    /// True if [`read`](Self::read) would answer text.
    #[must_use]
    pub fn has_text(&self, id: ConnectionId) -> bool {
        self.connections.view(id).is_some_and(|tcb| tcb.unread_bytes() > 0)
    }

    /// CLOSE as the RFC means it: FIN goes behind what is queued, and reading goes on.
    pub fn shut_down(&mut self, id: ConnectionId) {
        if let Some(tcb) = self.connections.view_mut(id)
            && tcb.state.may_send()
            && !tcb.flags.fin_queued
        {
            self.shared.queue_fin(slot_of(id), tcb);
        }
    }

    /// The driver lets go: what is queued and FIN are still delivered, within bounds of time; text that comes is
    /// answered with a reset, and so is unread text.
    pub fn close(&mut self, now: Instant, id: ConnectionId, link: &mut L) {
        self.now = now;
        self.call(id, link, |connection| connection.close());
    }

    /// Resets the connection and forgets it.
    pub fn abort(&mut self, now: Instant, id: ConnectionId, link: &mut L) {
        self.now = now;
        self.call(id, link, |connection| connection.abort());
    }

    /// Does what is due by now.
    pub fn time_out(&mut self, now: Instant, link: &mut L) {
        self.now = now;
        while let Some(index) = self.shared.wheel.pop_expired(now) {
            if let Some((_, tcb)) = self.connections.at(index) {
                tcb.deadlines.armed = NEVER;
            }
            self.visit(index, link, |connection| connection.time_out());
        }
        while self.shared.time_wait.expire(now).is_some() {}
        self.shed(link);
    }

    /// When [`time_out`](Self::time_out) has something to do: not later than that, perhaps earlier.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let deadlines = [self.shared.wheel.next(), self.shared.time_wait.next(self.now)];
        deadlines.into_iter().flatten().min()
    }

    /// Sends everything that is due, until the transmit ring is full.
    pub fn transmit(&mut self, now: Instant, link: &mut L) {
        self.now = now;
        self.reopen_pinched(link);
        while let Some(index) = self.shared.ready.pop_front() {
            let sent_before = self.shared.counters.segments_sent;
            let turn = self.visit(index, link, |connection| {
                connection.tcb.flags.is_ready = false;
                connection.transmit()
            });
            match turn {
                None | Some(Turn::Done) => {}
                Some(Turn::Again) => self.make_ready(index, VecDeque::push_back),
                Some(Turn::RingFull) => {
                    // Who has sent something lets the others go first: acknowledgements that come as fast as
                    // the ring empties would keep a flight at the front for ever.
                    let has_sent = self.shared.counters.segments_sent > sent_before;
                    self.make_ready(index, if has_sent { VecDeque::push_back } else { VecDeque::push_front });
                    return;
                }
            }
        }
    }

    fn make_ready(&mut self, index: u32, push: fn(&mut VecDeque<u32>, u32)) {
        if let Some((_, tcb)) = self.connections.at(index)
            && !tcb.flags.is_ready
        {
            tcb.flags.is_ready = true;
            push(&mut self.shared.ready, index);
        }
    }

    /// Windows that want of frames has shut are looked at again when there are frames.
    fn reopen_pinched(&mut self, link: &L) {
        if self.shared.pinched.is_empty() || Pressure::of(link) > Pressure::Enough {
            return;
        }
        while let Some(index) = self.shared.pinched.pop_front() {
            if let Some((_, tcb)) = self.connections.at(index) {
                tcb.flags.is_pinched = false;
                tcb.flags.window_moved = true;
                self.shared.ready(index, tcb);
            }
        }
    }

    /// True if [`transmit`](Self::transmit) has something to do.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        !self.shared.ready.is_empty()
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Connections, half-open and orphaned ones too; TIME-WAIT records not.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Connections in SYN-RECEIVED.
    #[must_use]
    pub fn half_open_count(&self) -> usize {
        self.shared.half_open
    }

    /// Records in TIME-WAIT.
    #[must_use]
    pub fn time_wait_count(&self) -> usize {
        self.shared.time_wait.len()
    }

    /// The connection between two sockets, ours first.
    #[must_use]
    pub fn connection_between(&self, local: SocketAddr, remote: SocketAddr) -> Option<ConnectionId> {
        self.connections.name(self.find(local, remote)?)
    }

    /// Both ends of a connection, ours first.
    #[must_use]
    pub fn endpoints(&self, id: ConnectionId) -> Option<(SocketAddr, SocketAddr)> {
        self.connections.view(id).map(|tcb| (tcb.tuple.local(), tcb.tuple.remote()))
    }

    /// The peer's side of a connection.
    #[must_use]
    pub fn remote(&self, id: ConnectionId) -> Option<SocketAddr> {
        self.connections.view(id).map(|tcb| tcb.tuple.remote())
    }

    /// STATUS.
    #[must_use]
    pub fn info(&self, id: ConnectionId) -> Option<Info> {
        self.connections.view(id).map(|tcb| {
            let send = tcb.queues.as_ref().map(|queues| &queues.send);
            Info {
                state: tcb.state,
                local: tcb.tuple.local(),
                remote: tcb.tuple.remote(),
                cwnd: tcb.congestion.cwnd(),
                smss: tcb.smss(),
                srtt: tcb.rtt.srtt(),
                rto: tcb.rtt.rto(),
                send_window: tcb.snd.wnd,
                receive_window: tcb.rcv.wnd,
                queued: send.map_or(0, |send| send.text_bytes()),
                in_flight: send.map_or(0, |send| send.in_flight()),
                unread: tcb.unread_bytes(),
            }
        })
    }

    /// Routes or neighbours have changed: each connection asks [`Link::hop`] again at its next segment.
    pub fn forget_hops(&mut self) {
        self.shared.hop_epoch = self.shared.hop_epoch.wrapping_add(1);
    }

    /// Frames that the stack holds, for the driver's conservation check. Looks at every connection.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        self.connections.iter().filter_map(|tcb| tcb.queues.as_ref()).map(|queues| queues.frames()).sum()
    }

    /// Aborts every connection and releases every frame.
    pub fn stop(&mut self, now: Instant, link: &mut L) {
        self.now = now;
        for index in 0..self.connections.slots() {
            self.visit(index, link, |connection| connection.abort());
        }
        self.shared.ready.clear();
        self.shared.pinched.clear();
    }
}

fn slot_of(id: ConnectionId) -> u32 {
    u32::try_from(id.slot()).expect("slots are counted in 32 bits")
}

impl<L: Link> Stack<L> {
    pub(crate) fn find(&self, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        let tuple = FourTuple::new(local, remote);
        self.table
            .find(local, remote, |index| self.connections.peek(index).is_some_and(|tcb| tcb.tuple == tuple))
    }

    /// Adds a connection whose tuple is not in the table.
    pub(crate) fn insert(&mut self, mut tcb: Tcb<L::Frame>) -> u32 {
        tcb.flags.in_table = true;
        let (local, remote) = (tcb.tuple.local(), tcb.tuple.remote());
        let index = slot_of(self.connections.insert(tcb));
        let connections = &self.connections;
        self.table.insert(local, remote, index, |index| {
            let tuple = connections.peek(index).expect("the table names connections only").tuple;
            (tuple.local(), tuple.remote())
        });
        index
    }

    fn call<R>(
        &mut self,
        id: ConnectionId,
        link: &mut L,
        call: impl FnOnce(&mut Connection<'_, L>) -> R,
    ) -> Option<R> {
        if !self.connections.contains(id) {
            return None;
        }
        self.visit(slot_of(id), link, call)
    }

    /// Does something with one connection, and then what must be true between any two calls.
    pub(crate) fn visit<R>(
        &mut self,
        index: u32,
        link: &mut L,
        visit: impl FnOnce(&mut Connection<'_, L>) -> R,
    ) -> Option<R> {
        let (id, tcb) = self.connections.at(index)?;
        let held = tcb.holdings();
        let mut connection = Connection { now: self.now, id, tcb, shared: &mut self.shared, link };
        let result = visit(&mut connection);
        connection.settle();
        connection.shared.holdings.change(held, connection.tcb.holdings());
        let flags = connection.tcb.flags;
        if connection.tcb.state == State::Closed && flags.in_table {
            connection.tcb.flags.in_table = false;
            let tuple = connection.tcb.tuple;
            self.table.remove(tuple.local(), tuple.remote(), index);
        }
        if flags.forget {
            self.shared.wheel.disarm(index);
            self.connections.remove(index);
        }
        Some(result)
    }
}
