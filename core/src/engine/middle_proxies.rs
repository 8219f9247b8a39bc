//! Where links and sessions meet: what comes over a link goes to the sessions it is for, and what sessions wait for is
//! given to them in turn.
//!
//! A link's bytes are handled like a session's: transformed in place, each frame once and in order. But what is gathered
//! for links leaves at the end of the turn, with [`Engine::time_out`], and until then
//! [`Engine::next_timeout`] says that it is due.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Engine, Input};
use crate::action::{Action, Actions};
use crate::error::DropReason;
use crate::middle_proxy::inbound::Inbound;
use crate::middle_proxy::link::LinkKey;
use crate::middle_proxy::message::{self, Message};
use crate::middle_proxy::{Forwarded, LinkEvent, LinkEventKind, LinkLoss};
use crate::policy::forwarding::{Burden, Reaction, Said, react};
use crate::policy::net_msg_buffers::{PressureInput, bytes_to_free};
use crate::policy::net_thread::{Notice, Noticed, noticed};
use crate::session::{Phase, Session, Turn};
use crate::session_key::SessionKey;
use crate::stream::{Leg, StreamId};
use crate::time::Now;

/// Bytes of a link that are handed in at once.
pub(super) const LINK_READ_BYTES: usize = 64 * 1024;

impl Engine {
    /// What happened to links since the last call.
    pub fn drain_link_events(&mut self) -> std::vec::Drain<'_, LinkEvent> {
        self.shared.links.drain_events()
    }

    /// Link events that nobody asked for in time.
    #[must_use]
    pub fn link_events_lost(&self) -> u64 {
        self.shared.links.events_lost()
    }

    /// What was forwarded over links so far.
    #[must_use]
    pub fn forwarded(&self) -> Forwarded {
        self.shared.links.forwarded
    }

    /// How many links there are, and how many of them carry packets.
    #[must_use]
    pub fn link_counts(&self) -> (usize, usize) {
        (self.shared.links.len(), self.shared.links.ready_count())
    }

    /// How many targets have a ready link, and how many the configuration names.
    #[must_use]
    pub fn target_counts(&self) -> (usize, usize) {
        self.shared.links.target_counts()
    }

    /// Bytes that wait for clients of middle proxies, or came from them and wait for a link.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.shared.held_bytes + self.shared.streams.metered_bytes()
    }

    /// The proxy takes no more clients: links end with the last session.
    pub fn drain(&mut self) {
        self.shared.links.drain();
    }

    /// Something happened to the connection of a link.
    pub(super) fn handle_link(&mut self, now: Now, key: LinkKey, input: Input<'_>, actions: &mut Actions) {
        match input {
            Input::Connected(_, local) => self.link_connected(now, key, local),
            Input::DialFailed(_, why) => self.lose_link(now, key, LinkLoss::Dial(why), actions),
            Input::Bytes(_, bytes) => self.link_speaks(now, key, bytes, actions),
            // The bytes of a link are never opaque.
            Input::PassedOn(..) => {}
            Input::Eof(_) => self.lose_link(now, key, LinkLoss::Ended, actions),
            Input::Reset(_) => self.lose_link(now, key, LinkLoss::Reset, actions),
        }
    }

    fn link_connected(&mut self, now: Now, key: LinkKey, local: SocketAddr) {
        let shared = &mut self.shared;
        let Some(settings) = shared.links.settings().cloned() else { return };
        let Some(link) = shared.links.get_mut(key) else { return };
        link.connected(local, now, &settings, &mut shared.random);
        shared.links.note_work();
    }

    fn link_speaks(&mut self, now: Now, key: LinkKey, bytes: &mut [u8], actions: &mut Actions) {
        self.shared.received_bytes[Leg::Upstream as usize] += bytes.len() as u64;
        let Some(link) = self.shared.links.get_mut(key) else { return };
        link.note_received(now.instant);
        // Out of the table while it is read: what it says may change the table.
        let mut inbound = std::mem::take(&mut link.inbound);
        let outcome = self.read_frames(now, key, &mut inbound, bytes, actions);
        if let Some(link) = self.shared.links.get_mut(key) {
            link.inbound = inbound;
        }
        if let Err(why) = outcome {
            self.lose_link(now, key, why, actions);
        }
    }

    fn read_frames(
        &mut self,
        now: Now,
        key: LinkKey,
        inbound: &mut Inbound,
        input: &mut [u8],
        actions: &mut Actions,
    ) -> Result<(), LinkLoss> {
        let clear = inbound.decrypt(input);
        let mut at = 0;
        while let Some(frame) = inbound.next(input, clear, &mut at).map_err(LinkLoss::Frame)? {
            let Some(link) = self.shared.links.get_mut(key) else { return Ok(()) };
            if link.is_ready() {
                self.obey(now, key, Message::parse(frame.payload), actions);
                continue;
            }
            let payload = frame.payload.to_vec();
            if self.shake_hands(key, &payload, inbound, inbound.unread_len(input, clear, at))? {
                self.notify(now, key, Notice::Ready, actions);
            }
        }
        inbound.keep(input, clear, at);
        Ok(())
    }

    /// A frame of a link that is not ready. True if it is now.
    fn shake_hands(
        &mut self,
        key: LinkKey,
        payload: &[u8],
        inbound: &mut Inbound,
        unread_len: usize,
    ) -> Result<bool, LinkLoss> {
        let links = &mut self.shared.links;
        let Some(settings) = links.settings().cloned() else { return Ok(false) };
        let Some(link) = links.get_mut(key) else { return Ok(false) };
        let is_ready = link.shake_hands(payload, unread_len, inbound, &settings)?;
        let clock_skew_seconds = link.clock_skew_seconds();
        links.note_work();
        if is_ready {
            links.look_soon();
            links.report(key, LinkEventKind::Ready { clock_skew_seconds });
        }
        Ok(is_ready)
    }

    fn obey(&mut self, now: Now, key: LinkKey, message: Message<'_>, actions: &mut Actions) {
        match message {
            Message::ProxyAns { conn_id, data, .. } => {
                let step = |session: &mut Session, turn: &mut Turn<'_>| session.deliver(data, turn);
                self.in_client(now, key, conn_id, Said::Answer, actions, step);
            }
            Message::SimpleAck { conn_id, token } => {
                let step = |session: &mut Session, turn: &mut Turn<'_>| session.acknowledge(token, turn);
                self.in_client(now, key, conn_id, Said::Acknowledgement, actions, step);
            }
            Message::CloseExt { conn_id } => {
                self.in_client(now, key, conn_id, Said::Close, actions, Session::closed_by_middle_proxy);
            }
            Message::Ping { id } => {
                if let Some(link) = self.shared.links.get_mut(key) {
                    link.outbox.append(&[&message::pong(id)]);
                    self.shared.links.note_work();
                }
            }
            Message::Pong { .. } => {
                if let Some(link) = self.shared.links.get_mut(key) {
                    link.note_pong();
                }
            }
            Message::CloseConn { .. } | Message::Unknown { .. } | Message::Malformed { .. } => {
                self.shared.links.forwarded.unknown += 1;
            }
        }
    }

    /// Lets the session that `conn_id` names hear what is said of it, if its packets go by this link.
    fn in_client(
        &mut self,
        now: Now,
        link: LinkKey,
        conn_id: i64,
        said: Said,
        actions: &mut Actions,
        hear: impl FnOnce(&mut Session, &mut Turn<'_>),
    ) {
        let key = SessionKey::from_u64(u64::from_le_bytes(conn_id.to_le_bytes()));
        let is_its = self.sessions.get(key).is_some_and(|session| session.phase.link() == Some(link));
        match react(said, is_its) {
            Reaction::Deliver => self.in_session(now, key, actions, hear),
            Reaction::Ignore => {}
            Reaction::Refuse => {
                let forwarded = &mut self.shared.links.forwarded;
                match said {
                    Said::Answer => forwarded.answers_dropped += 1,
                    Said::Acknowledgement | Said::Close => forwarded.acks_dropped += 1,
                }
                self.shared.links.refuse(link, conn_id);
            }
        }
    }

    /// A link is gone, or is given up: whoever went by it is told, and its pool dials another.
    pub(super) fn lose_link(&mut self, now: Now, key: LinkKey, why: LinkLoss, actions: &mut Actions) {
        let shared = &mut self.shared;
        let clients = shared.links.get(key).map_or(0, |link| link.clients);
        shared.links.report(key, LinkEventKind::Lost { why, clients });
        let Some(link) = shared.links.remove(key) else { return };
        let backlog_bytes = shared.streams.backlog_bytes(link.stream);
        shared.streams.remove(link.stream);
        if why != LinkLoss::Reset {
            let is_flushed = backlog_bytes == 0 && link.outbox.is_empty();
            actions.push(if is_flushed { Action::Close(link.stream) } else { Action::Abort(link.stream) });
        }
        if clients > 0 {
            self.notify(now, key, Notice::Close, actions);
        }
    }

    /// Tells those whom it concerns that something has happened to a link.
    fn notify(&mut self, now: Now, link: LinkKey, notice: Notice, actions: &mut Actions) {
        match noticed(notice) {
            Noticed::ServeWaiting => self.serve_unbound(now, actions),
            Noticed::TellClients => {
                for session in self.sessions.keys() {
                    if self.sessions.get(session).is_some_and(|session| session.phase.link() == Some(link)) {
                        self.in_session(now, session, actions, Session::link_lost);
                    }
                }
                self.serve_unbound(now, actions);
            }
            Noticed::LookAfter => self.shared.links.look_soon(),
            Noticed::ServeQueued => self.shared.links.note_work(),
        }
    }

    /// Those who wait for a link get one, if one is ready now.
    fn serve_unbound(&mut self, now: Now, actions: &mut Actions) {
        for session in self.shared.links.take_unbound() {
            self.in_session(now, session, actions, Session::serve);
        }
    }

    /// Everything about links that is due at the end of a turn.
    pub(super) fn time_out_links(&mut self, now: Now, actions: &mut Actions) {
        if self.shared.links.is_due(now.instant) {
            let has_sessions = self.sessions.len() > 0;
            for (link, why) in self.shared.links.overdue(now.instant, has_sessions) {
                self.lose_link(now, link, why, actions);
            }
            let shared = &mut self.shared;
            shared.links.fill_pools(now.instant, &mut shared.random, &mut shared.streams, actions);
        }
        if self.shared.links.take_work() {
            self.relieve(now, actions);
            self.serve_waiting(now, actions);
            self.shared.links.flush(&mut self.shared.streams, actions);
        }
    }

    /// Serves those who wait for room, link by link, each client about a quantum, until the room is used up.
    fn serve_waiting(&mut self, now: Now, actions: &mut Actions) {
        while let Some(session) = self.shared.links.next_waiting(&self.shared.streams) {
            self.in_session(now, session, actions, Session::serve);
        }
    }

    /// Too much waits: those who have been quiet longest are closed.
    fn relieve(&mut self, now: Now, actions: &mut Actions) {
        let Some(settings) = self.shared.links.settings().map(Arc::clone) else { return };
        let input =
            PressureInput { used_bytes: self.buffered_bytes(), limit_bytes: settings.limits.buffer_bytes };
        let mut to_free = bytes_to_free(input);
        if to_free == 0 {
            return;
        }
        let burdens = self.sessions.keys().into_iter().filter_map(|key| self.burden(key));
        let mut burdens: Vec<Burden<SessionKey>> = burdens.collect();
        burdens.sort_unstable();
        for Burden { client, bytes: Reverse(bytes), .. } in burdens {
            self.in_session(now, client, actions, |session, turn| {
                session.drop_client(DropReason::MemoryPressure, turn);
            });
            to_free = to_free.saturating_sub(bytes);
            if to_free == 0 {
                return;
            }
        }
    }

    /// When a client of a middle proxy was last active, and how many bytes wait because of it.
    fn burden(&self, key: SessionKey) -> Option<Burden<SessionKey>> {
        let Phase::Proxied(proxied) = &self.sessions.get(key)?.phase else { return None };
        let backlog = self.shared.streams.backlog_bytes(proxied.client());
        let bytes = backlog + proxied.held_bytes();
        (bytes > 0).then(|| Burden { active_at: proxied.active_at(), bytes: Reverse(bytes), client: key })
    }

    /// Bytes of a link were sent: there may be room again for those who wait.
    pub(super) fn link_sent(
        &mut self,
        now: Now,
        stream: StreamId,
        len: usize,
        key: LinkKey,
        actions: &mut Actions,
    ) {
        self.shared.streams.sent(stream, len);
        if self.shared.links.is_waited_for(key) && self.shared.links.has_room(key, &self.shared.streams) {
            self.notify(now, key, Notice::WakeUp, actions);
        }
    }
}
