//! How many links there are: which are dialled, which are given up, and when to look again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Links;
use crate::action::{Action, Actions};
use crate::middle_proxy::link::{Due, Link, LinkKey};
use crate::middle_proxy::settings::MiddleProxies;
use crate::middle_proxy::target::{Target, TargetKey};
use crate::middle_proxy::{LinkLoss, TargetConfig};
use crate::policy::net_connections::pool::{Backoff, connections_needed, count, may_open};
use crate::policy::net_connections::target::{
    Create, RetiredLink, TargetId, Tick, create, retired_link, tick,
};
use crate::random::Random;
use crate::stream::{Owner, Streams};
use crate::time::Instant;

impl Links {
    /// Follows a new configuration: targets that it names still keep their links (protocol.md section 9.3).
    pub(crate) fn set_settings(&mut self, settings: Option<Arc<MiddleProxies>>, random: &mut Random) {
        let mut keys: Vec<TargetKey> = Vec::new();
        for config in settings.iter().flat_map(|settings| settings.clusters.targets()) {
            keys.push(self.create(*config, random));
        }
        let is_named = |key: &TargetKey| keys.contains(key);
        for (_, target) in self.targets.iter_mut().filter(|(key, _)| !is_named(key)) {
            target.is_named = false;
        }
        self.clusters = settings.iter().flat_map(|settings| settings.clusters.iter()).fold(
            BTreeMap::new(),
            |mut clusters, (dc, targets)| {
                clusters.insert(dc, targets.iter().map(|&index| keys[index]).collect());
                clusters
            },
        );
        self.default_dc = settings.as_ref().map(|settings| settings.clusters.default_dc());
        // A deployment without middle proxies, before and after, has nothing to look after.
        if settings.is_some() || !self.table.is_empty() {
            self.look_soon();
        }
        self.settings = settings;
    }

    /// The target that `config` describes, made or used again.
    fn create(&mut self, config: TargetConfig, random: &mut Random) -> TargetKey {
        let id = TargetId::of(config.address);
        let known = self.targets.iter_mut().find(|(_, target)| target.id == id);
        let named_by = known.as_ref().map(|(_, target)| usize::from(target.is_named));
        match (create(named_by), known) {
            (Create::Reuse | Create::Revive, Some((key, target))) => {
                target.min_connections = config.min_connections;
                target.max_connections = config.max_connections;
                target.is_named = true;
                key
            }
            _ => self.targets.insert(Target::new(config, Backoff::new(random_part(random)))),
        }
    }

    /// Pools and links are looked at in this turn.
    pub(crate) fn look_soon(&mut self) {
        self.wake_at = Some(Instant::ORIGIN);
    }

    /// No new links from now on; those there are end when no session needs them.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
        self.note_last_session();
    }

    /// No session is left.
    pub(crate) fn note_last_session(&mut self) {
        if self.is_draining && !self.table.is_empty() {
            self.look_soon();
        }
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.wake_at.is_some_and(|at| at <= now)
    }

    /// Looks after every link; pings are gathered. Answers those to be given up.
    pub(crate) fn overdue(&mut self, now: Instant, has_sessions: bool) -> Vec<(LinkKey, LinkLoss)> {
        self.wake_at = None;
        let Some(settings) = self.settings.clone() else {
            return self.keys().into_iter().map(|key| (key, LinkLoss::Retired)).collect();
        };
        for target in self.targets.values_mut() {
            target.retired_at = if target.is_named { None } else { target.retired_at.or(Some(now)) };
        }
        let mut lost = Vec::new();
        for key in self.keys() {
            let link = &mut self.table[key];
            let target = &self.targets[link.target];
            if self.is_draining && !has_sessions {
                lost.push((key, LinkLoss::Retired));
                continue;
            }
            let retired = target.retired_at.map(|at| retired_link(now.since(at), link.clients));
            if let Some(RetiredLink::Close) = retired {
                lost.push((key, LinkLoss::Retired));
                continue;
            }
            match link.look_after(now, &settings.limits) {
                Due::Lost(why) => lost.push((key, why)),
                Due::Nothing(until) => wake(&mut self.wake_at, until),
            }
            if let Some(RetiredLink::KeepFor(time)) = retired {
                wake(&mut self.wake_at, now.plus(time));
            }
            self.has_work |= !self.table[key].outbox.is_empty();
        }
        lost
    }

    /// Forgets targets without a purpose, and dials what pools lack.
    pub(crate) fn fill_pools(
        &mut self,
        now: Instant,
        random: &mut Random,
        streams: &mut Streams,
        actions: &mut Actions,
    ) {
        if self.is_draining {
            return;
        }
        self.targets.retain(|_, target| tick(target.is_named, target.links.len()) != Tick::Free);
        let keys: Vec<TargetKey> = self.targets.keys().collect();
        for key in keys {
            let missing = self.missing(key, now);
            for _ in 0..missing {
                self.dial(key, now, streams, actions);
            }
            self.end_round(key, missing, now, random);
        }
    }

    /// How many links `target` lacks that may be dialled now.
    fn missing(&mut self, key: TargetKey, now: Instant) -> usize {
        let target = &self.targets[key];
        if tick(target.is_named, target.links.len()) != Tick::Fill {
            return 0;
        }
        let counts = count(target.links.iter().map(|link| self.table[*link].readiness(now)));
        let needed = connections_needed(target.min_connections, target.max_connections, &counts);
        let missing = usize::from(needed).saturating_sub(target.links.len());
        if missing > 0 && !may_open(now, target.next_reconnect, counts.is_ready()) {
            let at = target.next_reconnect;
            wake(&mut self.wake_at, at);
            return 0;
        }
        missing
    }

    fn end_round(&mut self, key: TargetKey, dialled: usize, now: Instant, random: &mut Random) {
        if dialled == 0 {
            return;
        }
        let has_active = self.targets[key].links.iter().any(|link| self.table[*link].is_ready());
        let target = &mut self.targets[key];
        let pause = target.backoff.after_round(has_active, random_part(random));
        target.next_reconnect = now.plus(pause);
    }

    fn dial(&mut self, target: TargetKey, now: Instant, streams: &mut Streams, actions: &mut Actions) {
        let address = self.targets[target].id.address();
        let key = self.table.insert_with_key(|key| {
            let stream = streams.open(Owner::Link(key));
            actions.push(Action::Dial { stream, address });
            Link::dialing(stream, target, address, now)
        });
        self.targets[target].links.push(key);
        wake(&mut self.wake_at, self.table[key].ready_until());
    }

    /// Takes a link out of its pool and of the table.
    pub(crate) fn remove(&mut self, key: LinkKey) -> Option<Link> {
        let link = self.table.remove(key)?;
        if let Some(target) = self.targets.get_mut(link.target) {
            target.links.retain(|other| *other != key);
        }
        if !self.is_draining {
            self.look_soon();
        }
        Some(link)
    }
}

fn wake(at: &mut Option<Instant>, time: Instant) {
    *at = Some(at.map_or(time, |earlier| earlier.min(time)));
}

/// A number from 0 to 1.
fn random_part(random: &mut Random) -> f64 {
    f64::from(random.below(1 << 16)) / f64::from(1 << 16)
}
