//! How a shard asks for a neighbour, without ever waiting, and which neighbours the kernel must keep.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use super::mirror::Counters;

/// Between uses of a neighbour that the kernel is told about. An entry stays reachable for 15 to 45 s after
/// it was confirmed (`base_reachable_time_ms`, man 7 arp), and is removed some time after 60 s without use
/// (`gc_stale_time`).
pub const POKE_EVERY: Duration = Duration::from_secs(20);

/// A hop counts as in use for so long after a shard said so.
pub const ACTIVE_FOR: Duration = Duration::from_secs(60);

/// Hops kept in use at a time; more are resolved but not kept. A proxy has a handful of gateways.
const ACTIVE_MAX: usize = 4096;

/// A neighbour that a shard sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Need {
    pub(super) interface: u32,
    pub(super) gateway: IpAddr,
}

/// A shard's way to ask. Cheap to clone; each shard has its own.
#[derive(Clone, Debug)]
pub struct Resolver {
    pub(super) needs: Sender<Need>,
    pub(super) wake: Arc<OwnedFd>,
    pub(super) counters: Arc<Counters>,
}

impl Resolver {
    /// Says that packets are to go to `gateway` on `interface`: on a miss, and every 30 s for each hop in use.
    ///
    /// The kernel is asked to resolve the neighbour, and to keep it for [`ACTIVE_FOR`]. False if too much is
    /// asked for at once; then ask again later.
    pub fn need(&self, interface: u32, gateway: IpAddr) -> bool {
        let is_queued = self.needs.try_send(Need { interface, gateway }).is_ok();
        if is_queued {
            // The counter of an eventfd is full only after 2⁶⁴ wakes that nobody read: woken it is anyway.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        } else {
            Counters::count(&self.counters.needs_dropped);
        }
        is_queued
    }
}

/// The hops in use.
#[derive(Debug, Default)]
pub(super) struct Active {
    /// When a shard last said so.
    said: HashMap<Need, Instant>,
    /// When they are used again. `None` without hops: an idle mirror does not wake.
    next: Option<Instant>,
}

impl Active {
    /// Notes that a hop is in use. True if it was known to be.
    pub(super) fn note(&mut self, need: Need, now: Instant) -> bool {
        let is_known = self.said.contains_key(&need);
        if is_known || self.said.len() < ACTIVE_MAX {
            self.said.insert(need, now);
            self.next.get_or_insert(now + POKE_EVERY);
        }
        is_known
    }

    /// When [`due`](Self::due) has something next, if ever.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The hops that the kernel must be told about now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Need> {
        if self.next.is_none_or(|next| now < next) {
            return vec![];
        }
        self.said.retain(|_, said| now.duration_since(*said) < ACTIVE_FOR);
        self.next = (!self.said.is_empty()).then_some(now + POKE_EVERY);
        self.said.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(last: u32) -> Need {
        Need { interface: 2, gateway: IpAddr::V4((0xc000_0200 + last).into()) }
    }

    #[test]
    fn a_hop_in_use_is_due_every_20_s_until_60_s_after_it_was_last_said() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut active = Active::default();
        assert_eq!(active.next(), None);
        assert!(!active.note(need(1), at(0)));
        assert_eq!(active.next(), Some(at(20)));
        assert!(active.due(at(19)).is_empty());
        assert_eq!(active.due(at(20)), [need(1)]);
        assert!(active.note(need(1), at(30)));
        assert_eq!(active.next(), Some(at(40)), "saying it again puts nothing off");
        assert_eq!(active.due(at(89)), [need(1)]);
        assert!(active.due(at(109)).is_empty());
        assert_eq!(active.next(), None);
    }

    #[test]
    fn hops_beyond_the_bound_are_not_kept() {
        let now = Instant::now();
        let mut active = Active::default();
        for last in 0..=ACTIVE_MAX as u32 {
            assert!(!active.note(need(last), now));
        }
        assert_eq!(active.due(now + POKE_EVERY).len(), ACTIVE_MAX);
        assert!(!active.note(need(ACTIVE_MAX as u32), now));
    }
}
