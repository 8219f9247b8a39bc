//! The engine: all sessions of one worker, behind the one door through which a datapath enters.
//!
//! The contract, for every driver (sockets, frames, simulator):
//!
//! * one input, then carry out all its [`Actions`] in order, then clear them, then the next input;
//! * time never goes backwards from one call to the next;
//! * bytes of a stream are handed in in order, each once, and not more than [`Engine::credit`] allows;
//! * whatever was accepted for sending is acknowledged with [`Engine::sent`];
//! * after `Close` or `Abort` the stream is gone: the driver forgets it and so has the engine;
//! * when [`Engine::next_timeout`] has passed, call [`Engine::time_out`].
//!
//! See the crate's front page for a complete drive of one session.

mod middle_proxies;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::action::Actions;
use crate::config::Config;
use crate::credentials::RecentSecrets;
use crate::deadline::{Deadline, Deadlines};
use crate::error::DropReason;
use crate::event::{DialError, SessionNumber, What};
use crate::fake_tls::KeyShares;
use crate::keyed_hash::KeyedHash;
use crate::middle_proxy::links::Links;
use crate::packet_buffers::PacketBuffers;
use crate::policy::address_memory::AddressMemory;
use crate::policy::replay::HelloAdmission;
use crate::random::Random;
use crate::session::{Phase, Session, Sessions, Shared, Turn};
use crate::session_key::SessionKey;
use crate::stream::{Endpoints, Leg, Owner, StreamId, Streams};
use crate::time::{Instant, Now};
use middle_proxies::LINK_READ_BYTES;

/// What the world tells the engine about one stream.
#[derive(Debug)]
pub enum Input<'a> {
    /// A dialled stream is connected, from this address of ours.
    Connected(StreamId, SocketAddr),
    /// A dialled stream cannot be connected.
    DialFailed(StreamId, DialError),
    /// Bytes have come. They are transformed in place; `Relay` actions point into them.
    Bytes(StreamId, &'a mut [u8]),
    /// The driver itself moved this many bytes along an opaque direction, into the output queue of the
    /// other side. They count like relayed ones: `sent` is still to come. They may exceed the credit, since
    /// they cost this process no memory; then there is none until they are sent.
    PassedOn(StreamId, usize),
    /// The peer has sent FIN, and all bytes before it have been handed in.
    Eof(StreamId),
    /// The connection was reset or broke. The driver has forgotten the stream.
    Reset(StreamId),
}

impl Input<'_> {
    fn stream(&self) -> StreamId {
        match self {
            Self::Connected(stream, _)
            | Self::DialFailed(stream, _)
            | Self::Bytes(stream, _)
            | Self::PassedOn(stream, _)
            | Self::Eof(stream)
            | Self::Reset(stream) => *stream,
        }
    }
}

/// What the engine does to the bytes of a stream on their way to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nothing: a driver may pass them on unseen and say so with `PassedOn`.
    Opaque {
        /// Where they go.
        to: StreamId,
    },
    /// Puts record headers between them.
    Framed {
        /// Where they go.
        to: StreamId,
    },
    /// Changes the cipher, and takes record headers off.
    Rekeyed {
        /// Where they go.
        to: StreamId,
    },
    /// The session has not got that far, or is already over.
    Unsettled,
}

impl Direction {
    /// The stream that the bytes go to, once that is settled.
    #[must_use]
    pub fn to(self) -> Option<StreamId> {
        match self {
            Self::Opaque { to } | Self::Framed { to } | Self::Rekeyed { to } => Some(to),
            Self::Unsettled => None,
        }
    }
}

/// All sessions of one worker.
pub struct Engine {
    sessions: Sessions,
    shared: Shared,
    sessions_opened: u64,
    /// Half of the smallest relay window so far. A backlog that sinks through it resumes whoever fills it,
    /// also one who was stopped by a window that a reload has since enlarged.
    resume_backlog_bytes: usize,
}

impl Engine {
    /// An engine without sessions. All randomness follows from `seed`; `admission` decides on hellos.
    #[must_use]
    pub fn new(config: Arc<Config>, seed: [u8; 32], admission: Box<dyn HelloAdmission + Send>) -> Self {
        let mut random = Random::from_seed(seed);
        let recent_secrets = RecentSecrets::new(KeyedHash::new(&mut random));
        let resume_backlog_bytes = config.relay_window_bytes / 2;
        let mut links = Links::default();
        links.set_settings(config.middle_proxies.clone(), &mut random);
        let shared = Shared {
            deadlines: Deadlines::new(&config.timeouts),
            config,
            random,
            key_shares: KeyShares::default(),
            admission,
            recent_secrets,
            address_memory: AddressMemory::default(),
            streams: Streams::default(),
            links,
            buffers: PacketBuffers::default(),
            held_bytes: 0,
            received_bytes: [0; 2],
        };
        Self { sessions: Sessions::default(), shared, sessions_opened: 0, resume_backlog_bytes }
    }

    /// Replaces the configuration. Open sessions keep what they already took from the old one.
    pub fn set_config(&mut self, config: Arc<Config>) {
        self.shared.deadlines.set_timeouts(&config.timeouts);
        self.shared.recent_secrets.forget_all();
        self.resume_backlog_bytes = self.resume_backlog_bytes.min(config.relay_window_bytes / 2);
        self.shared.links.set_settings(config.middle_proxies.clone(), &mut self.shared.random);
        self.shared.config = config;
    }

    /// A client has connected: names its stream.
    pub fn accept(&mut self, now: Now, ends: Endpoints, actions: &mut Actions) -> StreamId {
        self.sessions_opened += 1;
        let number = SessionNumber(self.sessions_opened);
        let shared = &mut self.shared;
        let mut client = None;
        let session = self.sessions.insert_with(|key| {
            let stream = *client.insert(shared.streams.open(Owner::Session(key, Leg::Client)));
            Session::begin(number, stream, ends.to_canonical(), now.instant)
        });
        let mut turn = Turn { now, session, number, shared, actions };
        turn.arm(Deadline::FirstByte);
        turn.report(What::Opened);
        client.expect("set while the session was made")
    }

    /// Handles one input. A stream that is already gone is ignored: drivers learn late.
    pub fn handle(&mut self, now: Now, input: Input<'_>, actions: &mut Actions) {
        let id = input.stream();
        let Some(stream) = self.shared.streams.get_mut(id) else { return };
        let owner = stream.owner;
        if matches!(input, Input::Eof(_)) {
            stream.ended = true;
        }
        let (key, leg) = match owner {
            Owner::Session(key, leg) => (key, leg),
            Owner::Link(link) => return self.handle_link(now, link, input, actions),
        };
        self.in_session(now, key, actions, |session, turn| match input {
            Input::Bytes(_, bytes) => session.receive(leg, bytes, turn),
            Input::PassedOn(_, len) => session.passed_on(leg, len, turn),
            Input::Connected(..) => session.connected(turn),
            Input::DialFailed(_, why) => session.dial_failed(why, turn),
            Input::Eof(_) => session.ended(leg, turn),
            Input::Reset(stream) => session.reset(leg, stream, turn),
        });
    }

    /// `len` more queued bytes of `stream` have been sent.
    pub fn sent(&mut self, now: Now, stream: StreamId, len: usize, actions: &mut Actions) {
        let Some(owner) = self.shared.streams.get(stream).map(|stream| stream.owner) else { return };
        let (key, leg) = match owner {
            Owner::Session(key, leg) => (key, leg),
            Owner::Link(link) => return self.link_sent(now, stream, len, link, actions),
        };
        let before = self.shared.streams.backlog_bytes(stream);
        self.shared.streams.sent(stream, len);
        let after = self.shared.streams.backlog_bytes(stream);
        let has_sunk = before > self.resume_backlog_bytes && after <= self.resume_backlog_bytes;
        if after == 0 || has_sunk {
            self.in_session(now, key, actions, |session, turn| {
                session.sent(turn);
                if has_sunk && let Some(feeder) = session.phase.stream(leg.other()) {
                    turn.resume(feeder);
                }
            });
        }
    }

    /// Handles every deadline that has passed, and sends what links to middle proxies have gathered.
    pub fn time_out(&mut self, now: Now, actions: &mut Actions) {
        while let Some((key, deadline)) = self.shared.deadlines.pop_expired(now.instant) {
            self.in_session(now, key, actions, |session, turn| session.timed_out(deadline, turn));
        }
        self.time_out_links(now, actions);
    }

    /// When [`time_out`](Self::time_out) has something to do: long ago if it is due in this very turn. `None`: nothing
    /// is waiting for time.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        [self.shared.deadlines.next(), self.shared.links.next_timeout()].into_iter().flatten().min()
    }

    /// How many more bytes of `from` may be handed in now. Zero means: stop reading until `Resume`.
    #[must_use]
    pub fn credit(&self, from: StreamId) -> usize {
        let Some(stream) = self.shared.streams.get(from) else { return 0 };
        let (key, leg) = match stream.owner {
            Owner::Session(key, leg) => (key, leg),
            Owner::Link(_) => return LINK_READ_BYTES,
        };
        let Some(session) = self.sessions.get(key) else { return 0 };
        match &session.phase {
            Phase::Handshaking(handshaking) => handshaking.credit(),
            Phase::Greeted(_) | Phase::Discarding(_) => self.shared.config.relay_window_bytes,
            Phase::Relaying(legs, _) | Phase::Fronting(legs) => {
                let backlog = self.shared.streams.backlog_bytes(legs.to(leg.other()));
                self.shared.config.relay_window_bytes.saturating_sub(backlog)
            }
            Phase::Closing(closing) => closing.credit(),
            Phase::Proxied(proxied) => proxied.credit(self.shared.config.relay_window_bytes),
            Phase::Dialing(_) => 0,
        }
    }

    /// What happens to the bytes of `from`.
    #[must_use]
    pub fn direction(&self, from: StreamId) -> Direction {
        let Some((leg, phase)) = self.find(from) else { return Direction::Unsettled };
        let (legs, relaying) = match phase {
            Phase::Fronting(legs) => (legs, None),
            Phase::Relaying(legs, relaying) => (legs, Some(relaying)),
            _ => return Direction::Unsettled,
        };
        let to = legs.to(leg.other());
        match relaying {
            Some(_) if leg == Leg::Client => Direction::Rekeyed { to },
            Some(relaying) if !relaying.is_opaque(leg) => Direction::Framed { to },
            _ => Direction::Opaque { to },
        }
    }

    /// Ends every session and every link at once.
    pub fn stop(&mut self, now: Now, actions: &mut Actions) {
        self.shared.links.drain();
        for key in self.sessions.keys() {
            self.in_session(now, key, actions, |session, turn| session.stop(DropReason::Stopping, turn));
        }
        self.time_out_links(now, actions);
    }

    /// How many sessions there are.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes received from that side so far, over all sessions, those that are open included.
    #[must_use]
    pub fn received_bytes(&self, from: Leg) -> u64 {
        self.shared.received_bytes[from as usize]
    }

    /// What is left of ended sessions: `(streams, deadlines)` beyond those of the open ones. Always `(0, 0)`;
    /// the simulator checks it.
    #[must_use]
    pub fn leftovers(&self) -> (usize, usize) {
        let of_sessions: usize = self.sessions.iter().map(|session| session.phase.stream_count()).sum();
        let deadlines = self.shared.deadlines.armed();
        let of_links = self.shared.links.len();
        (self.shared.streams.len() - of_sessions - of_links, deadlines.saturating_sub(self.sessions.len()))
    }

    fn find(&self, id: StreamId) -> Option<(Leg, &Phase)> {
        let Owner::Session(key, leg) = self.shared.streams.get(id)?.owner else { return None };
        Some((leg, &self.sessions.get(key)?.phase))
    }

    /// Lets `step` handle one thing in one session, and removes the session if that was its end.
    fn in_session(
        &mut self,
        now: Now,
        key: SessionKey,
        actions: &mut Actions,
        step: impl FnOnce(&mut Session, &mut Turn<'_>),
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let number = session.number;
        let mut turn = Turn { now, session: key, number, shared: &mut self.shared, actions };
        step(session, &mut turn);
        let Some(outcome) = session.outcome() else { return };
        let ended = What::Ended {
            outcome,
            from_client_bytes: session.from_client_bytes,
            from_upstream_bytes: session.from_upstream_bytes,
            lasted: now.instant.since(session.opened_at),
        };
        turn.report(ended);
        self.shared.deadlines.disarm(key);
        self.sessions.remove(key);
        if self.sessions.len() == 0 {
            self.shared.links.note_last_session();
        }
    }
}
