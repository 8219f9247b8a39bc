//! A session: one client's conversation, from its first byte to its last.
//!
//! ```text
//!                ┌────────────── authentic init frame ─────────────┐
//!  Handshaking ──┤                                                 ▼
//!      │         └─ authentic hello ─► Greeted ── init frame ─► Dialing ── connected ─► Relaying ─┐
//!      │                                                           ▲  │                           │
//!      ├─ stranger, and there is a front ──────────────────────────┘  └─ connected ─► Fronting ──┤
//!      └─ stranger, and there is none ─► Discarding ─────────────────────────────────────────────┤
//!                                                                                                ▼
//!                                                                            Closing: flush, FIN, gone
//! ```
//! Each phase owns only what it needs; a transition consumes the old phase. docs/session.md has the table
//! of endings, and a test for each of its rows.
//!
//! Nothing here reads a clock, allocates per relayed message, or knows a socket.

mod closing;
mod dialing;
mod discarding;
mod greeted;
mod handshaking;
mod proxied;
mod relaying;
mod turn;

use slotmap::{DefaultKey, SlotMap};

use crate::deadline::Deadline;
use crate::error::{DropReason, PeerMisbehaved};
use crate::event::{DialError, SessionNumber, What};
use crate::middle_proxy::link::LinkKey;
use crate::session_key::SessionKey;
use crate::stream::{Endpoints, Leg, StreamId};
use crate::time::Instant;

pub(crate) use closing::Closing;
pub(crate) use dialing::{AfterDial, Dialing};
pub(crate) use discarding::Discarding;
pub(crate) use greeted::Greeted;
pub(crate) use handshaking::Handshaking;
pub(crate) use proxied::{Authentic, Proxied};
pub(crate) use relaying::Relaying;
pub(crate) use turn::{Shared, Turn};

/// The sessions of one engine.
#[derive(Default)]
pub(crate) struct Sessions {
    table: SlotMap<DefaultKey, Session>,
}

impl Sessions {
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(SessionKey) -> Session) -> SessionKey {
        SessionKey(self.table.insert_with_key(|key| make(SessionKey(key))))
    }

    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.table.get(key.0)
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.table.get_mut(key.0)
    }

    pub(crate) fn remove(&mut self, key: SessionKey) {
        self.table.remove(key.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.table.values()
    }

    pub(crate) fn keys(&self) -> Vec<SessionKey> {
        self.table.keys().map(SessionKey).collect()
    }
}

/// One client's conversation.
pub(crate) struct Session {
    pub(crate) number: SessionNumber,
    pub(crate) opened_at: Instant,
    pub(crate) phase: Phase,
    pub(crate) from_client_bytes: u64,
    pub(crate) from_upstream_bytes: u64,
}

/// Where a session stands.
pub(crate) enum Phase {
    /// Who is this? Every byte is kept, because a stranger's belong to the front.
    Handshaking(Handshaking),
    /// An authentic hello was answered; the init frame is still to come.
    Greeted(Greeted),
    /// Waiting for the data centre or the front to answer.
    Dialing(Dialing),
    /// An authentic client whose packets go through a middle proxy, over a link that others share.
    Proxied(Box<Proxied>),
    /// An authentic client and its data centre.
    Relaying(Legs, Relaying),
    /// A stranger and the real site: bytes pass unseen.
    Fronting(Legs),
    /// A stranger and silence.
    Discarding(Discarding),
    /// Nothing more is relayed; what is queued is still being sent.
    Closing(Closing),
}

impl Session {
    pub(crate) fn begin(number: SessionNumber, client: StreamId, ends: Endpoints, now: Instant) -> Self {
        let phase = Phase::Handshaking(Handshaking::begin(client, ends));
        Self { number, opened_at: now, phase, from_client_bytes: 0, from_upstream_bytes: 0 }
    }

    /// Bytes have come from one side. They are transformed in place.
    pub(crate) fn receive(&mut self, from: Leg, bytes: &mut [u8], turn: &mut Turn<'_>) {
        self.count(from, bytes.len(), turn);
        match &mut self.phase {
            Phase::Relaying(legs, relaying) => {
                let legs = *legs;
                if let Err(why) = relaying.receive(from, legs, bytes, turn) {
                    turn.report(What::Misbehaved(why));
                    let farewells = [(legs.client, Farewell::Close), (legs.upstream, Farewell::Close)];
                    self.phase = turn.leave(&farewells, Err(DropReason::Misbehaved));
                }
            }
            Phase::Fronting(legs) => turn.relay(legs.to(from.other()), 0..bytes.len()),
            Phase::Proxied(proxied) => {
                if let Err(why) = proxied.receive(bytes, 0, turn) {
                    self.advance(|phase| phase.misbehaved(why, turn));
                }
            }
            _ => self.advance(|phase| phase.receive(bytes, turn)),
        }
    }

    /// The driver has moved `len` bytes to the other side's queue by itself (an opaque direction).
    pub(crate) fn passed_on(&mut self, from: Leg, len: usize, turn: &mut Turn<'_>) {
        self.count(from, len, turn);
        if let Phase::Relaying(legs, _) | Phase::Fronting(legs) = &self.phase {
            turn.add_backlog(legs.to(from.other()), len);
        }
    }

    fn count(&mut self, from: Leg, len: usize, turn: &mut Turn<'_>) {
        match from {
            Leg::Client => self.from_client_bytes += len as u64,
            Leg::Upstream => self.from_upstream_bytes += len as u64,
        }
        turn.shared.received_bytes[from as usize] += len as u64;
        turn.shared.deadlines.touch_idle(turn.session, turn.now.instant);
    }

    pub(crate) fn connected(&mut self, turn: &mut Turn<'_>) {
        self.advance(|phase| match phase {
            Phase::Dialing(dialing) => dialing.connected(turn),
            other => other,
        });
    }

    pub(crate) fn dial_failed(&mut self, why: DialError, turn: &mut Turn<'_>) {
        self.advance(|phase| match phase {
            Phase::Dialing(dialing) => dialing.failed(why, turn),
            other => other,
        });
    }

    /// One side has sent FIN: it will say no more, but it still listens.
    pub(crate) fn ended(&mut self, from: Leg, turn: &mut Turn<'_>) {
        self.advance(|phase| phase.ended(from, turn));
    }

    /// One side has reset its connection. The driver has already lost the stream.
    pub(crate) fn reset(&mut self, from: Leg, stream: StreamId, turn: &mut Turn<'_>) {
        let unsent_bytes = turn.shared.streams.backlog_bytes(stream);
        turn.forget(stream);
        let why = match from {
            Leg::Client => DropReason::ClientReset,
            Leg::Upstream => DropReason::UpstreamReset,
        };
        self.advance(|phase| match phase {
            Phase::Handshaking(_) | Phase::Greeted(_) | Phase::Discarding(_) => turn.leave(&[], Err(why)),
            Phase::Dialing(dialing) => {
                turn.abort(dialing.legs.to(from.other()));
                turn.leave(&[], Err(why))
            }
            Phase::Proxied(mut proxied) => {
                proxied.part(turn);
                turn.leave(&[], Err(why))
            }
            Phase::Relaying(legs, _) => turn.leave(&[(legs.to(from.other()), Farewell::Close)], Err(why)),
            Phase::Fronting(legs) => turn.leave(&[(legs.to(from.other()), Farewell::Abort)], Err(why)),
            Phase::Closing(mut closing) => {
                closing.lost(stream, unsent_bytes);
                Phase::Closing(closing)
            }
        });
    }

    /// The driver has sent something: a queue is shorter.
    pub(crate) fn sent(&mut self, turn: &mut Turn<'_>) {
        if let Phase::Closing(closing) = &mut self.phase {
            closing.sent(turn);
        }
    }

    pub(crate) fn timed_out(&mut self, deadline: Deadline, turn: &mut Turn<'_>) {
        self.advance(|phase| phase.timed_out(deadline, turn));
    }

    /// A middle proxy's packet for the client.
    pub(crate) fn deliver(&mut self, packet: &[u8], turn: &mut Turn<'_>) {
        self.count(Leg::Upstream, packet.len(), turn);
        self.with_proxied(turn, |proxied, turn| proxied.deliver(packet, turn));
    }

    /// A middle proxy's word that a packet of the client has arrived.
    pub(crate) fn acknowledge(&mut self, token: u32, turn: &mut Turn<'_>) {
        self.with_proxied(turn, |proxied, turn| proxied.acknowledge(token, turn));
    }

    /// The link is gone by which this client's packets went.
    pub(crate) fn link_lost(&mut self, turn: &mut Turn<'_>) {
        self.with_proxied(turn, Proxied::link_lost);
    }

    /// It is this client's turn to use a link.
    pub(crate) fn serve(&mut self, turn: &mut Turn<'_>) {
        let Phase::Proxied(proxied) = &mut self.phase else { return };
        if let Err(why) = proxied.serve(turn) {
            self.advance(|phase| phase.misbehaved(why, turn));
        }
    }

    /// The middle proxy has ended this client's conversation.
    pub(crate) fn closed_by_middle_proxy(&mut self, turn: &mut Turn<'_>) {
        self.advance(|phase| match phase {
            Phase::Proxied(mut proxied) => {
                proxied.unbind(turn);
                proxied.leave(Ok(()), turn)
            }
            other => other,
        });
    }

    /// Closes a client of a middle proxy for a reason of ours.
    pub(crate) fn drop_client(&mut self, why: DropReason, turn: &mut Turn<'_>) {
        self.with_proxied(turn, |_, _| Err(why));
    }

    /// Lets a client of a middle proxy do something that may be its end.
    fn with_proxied(
        &mut self,
        turn: &mut Turn<'_>,
        step: impl FnOnce(&mut Proxied, &mut Turn<'_>) -> Outcome,
    ) {
        let Phase::Proxied(proxied) = &mut self.phase else { return };
        if let Err(why) = step(proxied, turn) {
            self.advance(|phase| match phase {
                Phase::Proxied(proxied) => proxied.drop_client(why, turn),
                other => other,
            });
        }
    }

    /// Ends at once; nothing is flushed.
    pub(crate) fn stop(&mut self, why: DropReason, turn: &mut Turn<'_>) {
        if let Phase::Proxied(proxied) = &mut self.phase {
            proxied.part(turn);
        }
        for leg in [Leg::Client, Leg::Upstream] {
            if let Some(stream) = self.phase.stream(leg) {
                turn.abort(stream);
            }
        }
        self.phase = Phase::Closing(Closing::gone(Err(why)));
    }

    /// How the session ended, once it has.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match &self.phase {
            Phase::Closing(closing) if closing.is_gone() => Some(closing.outcome),
            _ => None,
        }
    }

    /// Consumes the phase and puts its successor in its place.
    fn advance(&mut self, step: impl FnOnce(Phase) -> Phase) {
        let placeholder = Phase::Closing(Closing::gone(Ok(())));
        self.phase = step(std::mem::replace(&mut self.phase, placeholder));
    }
}

impl Phase {
    fn receive(self, bytes: &mut [u8], turn: &mut Turn<'_>) -> Self {
        match self {
            Self::Handshaking(handshaking) => handshaking.receive(bytes, turn),
            Self::Greeted(greeted) => greeted.receive(bytes, turn),
            Self::Discarding(discarding) => discarding.receive(bytes.len(), turn),
            Self::Closing(mut closing) => {
                closing.receive(bytes.len());
                Self::Closing(closing)
            }
            // Without credit nothing is read.
            other @ (Self::Dialing(_) | Self::Relaying(..) | Self::Fronting(_) | Self::Proxied(_)) => other,
        }
    }

    fn misbehaved(self, why: PeerMisbehaved, turn: &mut Turn<'_>) -> Self {
        match self {
            Self::Proxied(proxied) => proxied.misbehaved(why, turn),
            other => other,
        }
    }

    /// The link by which the packets of this session go.
    pub(crate) fn link(&self) -> Option<LinkKey> {
        match self {
            Self::Proxied(proxied) => proxied.link(),
            _ => None,
        }
    }

    fn ended(self, from: Leg, turn: &mut Turn<'_>) -> Self {
        match self {
            Self::Handshaking(handshaking) => handshaking.ended(turn),
            Self::Greeted(greeted) => greeted.misbehaved(PeerMisbehaved::EndedBeforeHandshake, turn),
            Self::Discarding(discarding) => discarding.close(DropReason::NoFront, turn),
            Self::Proxied(proxied) => proxied.ended(turn),
            Self::Dialing(dialing) => {
                turn.shut_down(dialing.legs.upstream);
                Self::Dialing(dialing)
            }
            Self::Relaying(legs, _) | Self::Fronting(legs)
                if turn.has_ended(legs.client) && turn.has_ended(legs.upstream) =>
            {
                turn.leave(&[(legs.client, Farewell::Close), (legs.upstream, Farewell::Close)], Ok(()))
            }
            Self::Relaying(legs, relaying) => {
                turn.shut_down(legs.to(from.other()));
                Self::Relaying(legs, relaying)
            }
            Self::Fronting(legs) => {
                turn.shut_down(legs.to(from.other()));
                Self::Fronting(legs)
            }
            Self::Closing(mut closing) => {
                closing.proceed(turn);
                Self::Closing(closing)
            }
        }
    }

    fn timed_out(self, deadline: Deadline, turn: &mut Turn<'_>) -> Self {
        match self {
            Self::Handshaking(handshaking) => handshaking.timed_out(deadline, turn),
            Self::Greeted(greeted) => greeted.misbehaved(PeerMisbehaved::HandshakeTooSlow, turn),
            Self::Proxied(proxied) => proxied.timed_out(deadline, turn),
            Self::Dialing(dialing) => dialing.failed(DialError::TimedOut, turn),
            Self::Relaying(legs, _) | Self::Fronting(legs) => {
                let farewells = [(legs.client, Farewell::Close), (legs.upstream, Farewell::Close)];
                turn.leave(&farewells, Err(DropReason::Idle))
            }
            Self::Discarding(discarding) => discarding.close(DropReason::NoFront, turn),
            Self::Closing(mut closing) => {
                closing.timed_out(turn);
                Self::Closing(closing)
            }
        }
    }

    pub(crate) fn stream_count(&self) -> usize {
        [Leg::Client, Leg::Upstream].into_iter().filter(|leg| self.stream(*leg).is_some()).count()
    }

    /// The session's stream on `leg`, if the phase has one.
    pub(crate) fn stream(&self, leg: Leg) -> Option<StreamId> {
        let client = match self {
            Self::Handshaking(handshaking) => handshaking.client(),
            Self::Greeted(greeted) => greeted.client(),
            Self::Discarding(discarding) => discarding.client(),
            Self::Proxied(proxied) => proxied.client(),
            Self::Dialing(dialing) => return Some(dialing.legs.to(leg)),
            Self::Relaying(legs, _) | Self::Fronting(legs) => return Some(legs.to(leg)),
            Self::Closing(closing) => return closing.stream(leg),
        };
        (leg == Leg::Client).then_some(client)
    }
}

/// Both streams of a session that has two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Legs {
    pub(crate) client: StreamId,
    pub(crate) upstream: StreamId,
}

impl Legs {
    pub(crate) fn to(self, leg: Leg) -> StreamId {
        match leg {
            Leg::Client => self.client,
            Leg::Upstream => self.upstream,
        }
    }
}

/// How a session takes leave of one of its peers, once what is queued for it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// FIN, and patience until the peer's own.
    Close,
    /// RST: what the other side did is passed on as it was.
    Abort,
}

/// How a session ended.
pub(crate) type Outcome = Result<(), DropReason>;
