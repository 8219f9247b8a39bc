//! The links of one engine: which there are, who goes by which, and what they have gathered.
//!
//! ```text
//!   DcId ──► cluster ──► targets ──► links        choosing.rs   by which link a client's packets go
//!                           ▲                     pool.rs       how many links, when dialled, when given up
//!                           └── configuration     flight.rs     encryption and writing at the end of a turn
//! ```
//! Sessions are known by their keys only. What needs both a link and a session is in `engine/middle_proxies.rs`.

mod choosing;
mod flight;
mod pool;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use slotmap::SlotMap;

use super::link::{Link, LinkKey};
use super::settings::MiddleProxies;
use super::target::{Target, TargetKey};
use super::{Forwarded, LinkEvent, LinkEventKind, message};
use crate::dc::DcId;
use crate::session_key::SessionKey;
use crate::stream::Streams;
use crate::time::Instant;

/// Link events that wait for telemetry; more are lost, and counted.
const EVENTS_MAX: usize = 1024;

/// All links, and what they are for.
#[derive(Default)]
pub(crate) struct Links {
    table: SlotMap<LinkKey, Link>,
    targets: SlotMap<TargetKey, Target>,
    clusters: BTreeMap<DcId, Vec<TargetKey>>,
    default_dc: Option<DcId>,
    settings: Option<Arc<MiddleProxies>>,
    /// Clients whose packets wait for a link to become ready, in order of arrival. Some may be gone by now.
    unbound: VecDeque<SessionKey>,
    wake_at: Option<Instant>,
    has_work: bool,
    is_draining: bool,
    events: Vec<LinkEvent>,
    events_lost: u64,
    /// What was forwarded so far.
    pub(crate) forwarded: Forwarded,
    /// The header of a request, while it is composed.
    pub(crate) header: Vec<u8>,
    /// An answer while it is encrypted.
    pub(crate) answer: Vec<u8>,
}

impl Links {
    pub(crate) fn settings(&self) -> Option<&Arc<MiddleProxies>> {
        self.settings.as_ref()
    }

    pub(crate) fn get(&self, key: LinkKey) -> Option<&Link> {
        self.table.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: LinkKey) -> Option<&mut Link> {
        self.table.get_mut(key)
    }

    /// How many links there are, in whatever phase.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn keys(&self) -> Vec<LinkKey> {
        self.table.keys().collect()
    }

    /// How many links carry packets.
    pub(crate) fn ready_count(&self) -> usize {
        self.table.values().filter(|link| link.is_ready()).count()
    }

    /// Targets with a ready link, and all targets that the configuration names.
    pub(crate) fn target_counts(&self) -> (usize, usize) {
        let named = self.targets.values().filter(|target| target.is_named);
        let is_ready = |target: &&Target| target.links.iter().any(|key| self.table[*key].is_ready());
        (named.clone().filter(is_ready).count(), named.count())
    }

    /// Something is to be done at the end of this turn.
    pub(crate) fn note_work(&mut self) {
        self.has_work = true;
    }

    /// True if something was gathered, or may be, since the last call.
    pub(crate) fn take_work(&mut self) -> bool {
        std::mem::take(&mut self.has_work)
    }

    /// The next client that waits for a link that has room.
    pub(crate) fn next_waiting(&mut self, streams: &Streams) -> Option<SessionKey> {
        let mut links = self.table.values_mut();
        links.find_map(|link| if link.has_room(streams) { link.waiting.pop_front() } else { None })
    }

    /// When something is due: at once if packets are gathered.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.has_work { Some(Instant::ORIGIN) } else { self.wake_at }
    }

    /// True if the link takes more of clients' packets.
    pub(crate) fn has_room(&self, key: LinkKey, streams: &Streams) -> bool {
        self.table.get(key).is_some_and(|link| link.has_room(streams))
    }

    /// Lets a client with packets wait for room, behind those who wait already.
    pub(crate) fn wait_for_room(&mut self, key: LinkKey, session: SessionKey) {
        if let Some(link) = self.table.get_mut(key) {
            link.waiting.push_back(session);
        }
    }

    /// True if somebody waits for room on this link already.
    pub(crate) fn is_waited_for(&self, key: LinkKey) -> bool {
        self.table.get(key).is_some_and(|link| !link.waiting.is_empty())
    }

    /// Lets a client with packets wait for a link.
    pub(crate) fn wait_for_link(&mut self, session: SessionKey) {
        self.unbound.push_back(session);
    }

    /// Those who wait for a link: a new one is ready.
    pub(crate) fn take_unbound(&mut self) -> VecDeque<SessionKey> {
        std::mem::take(&mut self.unbound)
    }

    /// A client leaves: tells the middle proxy.
    pub(crate) fn close_mapping(&mut self, key: LinkKey, conn_id: i64) {
        let Some(link) = self.table.get_mut(key) else { return };
        link.clients -= 1;
        self.refuse(key, conn_id);
    }

    /// Tells a middle proxy that nobody here is `conn_id` any more.
    pub(crate) fn refuse(&mut self, key: LinkKey, conn_id: i64) {
        let Some(link) = self.table.get_mut(key) else { return };
        link.outbox.append(&[&message::close_conn(conn_id)]);
        self.has_work = true;
    }

    pub(crate) fn report(&mut self, key: LinkKey, kind: LinkEventKind) {
        let Some(link) = self.table.get(key) else { return };
        if self.events.len() == EVENTS_MAX {
            self.events_lost += 1;
            return;
        }
        self.events.push(LinkEvent { address: link.address, kind });
    }

    pub(crate) fn drain_events(&mut self) -> std::vec::Drain<'_, LinkEvent> {
        self.events.drain(..)
    }

    pub(crate) fn events_lost(&self) -> u64 {
        self.events_lost
    }
}
