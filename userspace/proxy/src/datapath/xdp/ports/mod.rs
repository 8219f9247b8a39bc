//! The port space of one shard: from which port a connection is dialled, so that its replies come back here.
//!
//! ```text
//!   ports of the range          61000  61001  61002  61003  61004  61005 …      4 shards
//!   owner = port % shards           0      1      2      3      0      1 …
//!   reply queue, shard 1 asks              1             ·             2 …      as RSS hashes this flow
//!                                          ▲ first choice              ▲ only when no first choice is left
//! ```
//! Which ports these are is settled in [`port_range`](super::port_range).
//!
//! Ownership is by the port alone, whatever the device does: a reply that comes to the wrong queue is
//! forwarded to [`owner`] of its port, and that is always who dialled. Those ports come first whose replies need
//! no forwarding: as the device tells how it spreads packets, and as each reply that has come shows.
//!
//! A port is free or taken for a pair of local address and remote end, since that is what makes a connection
//! different. It is taken until the stack has forgotten the tuple, its TIME-WAIT too: otherwise ports that look
//! free would hide those that are. Each pair goes round its ports and begins again only at the end, so that the
//! other end has forgotten (RFC 9293 §3.6.1) before a port comes again; where it begins is not to be guessed
//! (RFC 6056 §3.3). Read `pair.rs` for the order. Nothing here outlasts [`PAIRS_MAX`] pairs.

mod bits;
mod pair;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use mtproxy_nic::rss::QueueOf;
use mtproxy_tcp::Standing;
use siphasher::sip::SipHasher13;

use self::pair::{Pair, Replies};

/// Pairs of local address and remote end that one shard dials at a time. Data centres and fronts are
/// dozens; more means that something dials at random.
pub const PAIRS_MAX: usize = 4096;

/// Asks a stack what a tuple, our side first, is to it.
pub type Ask<'a> = &'a dyn Fn(SocketAddr, SocketAddr) -> Standing;

/// The shard that dials from `port`, and gets its replies.
#[must_use]
pub fn owner(port: u16, shards: NonZeroU16) -> usize {
    usize::from(port % shards)
}

/// No port is left for a pair, or no room for another pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

/// What happened so far, and what is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// Dials for which there was no port.
    pub exhausted: u64,
    /// Ports given though their replies come to another queue.
    pub off_queue: u64,
    /// Ports given whose TIME-WAIT was cut short.
    pub reopened: u64,
    /// Ports taken now, for all pairs together.
    pub taken: usize,
    /// Of those, the ones that nobody uses and the stack may still know.
    pub lingering: usize,
}

/// Which shard of how many a port space is for, and on which queue that shard receives.
#[derive(Clone, Copy, Debug)]
pub struct ShardPlace {
    /// Counted from zero.
    pub shard: u16,
    /// All there are.
    pub shards: NonZeroU16,
    /// The queue that the shard receives from.
    pub queue: u32,
}

/// The ports of one shard.
#[derive(Debug)]
pub struct PortSpace {
    /// Ascending; pairs number their ports by the place in here.
    ports: Box<[u16]>,
    queue: u32,
    queue_of: QueueOf,
    /// So that nobody foresees where a pair begins.
    secret: [u8; 16],
    pairs: HashMap<PairName, Pair>,
    /// Pairs met so far: one that was forgotten and comes again begins elsewhere.
    pairs_met: u64,
    counts: PortCounts,
}

/// Local address and remote end, in the one form that a packet has: no address is an IPv4-mapped one, none has a
/// scope or a flow label. A name's resolution may answer all of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PairName {
    local: IpAddr,
    remote: SocketAddr,
}

impl PairName {
    fn new(local: IpAddr, remote: SocketAddr) -> Self {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        Self { local: local.to_canonical(), remote }
    }

    /// What the stack would say of this port.
    fn ask(self, ask: Ask<'_>, port: u16) -> Standing {
        ask(SocketAddr::new(self.local, port), self.remote)
    }
}

impl PortSpace {
    /// The part of `ports` that belongs to the shard at `place`; `secret` is random.
    #[must_use]
    pub fn new(ports: &[u16], place: ShardPlace, queue_of: QueueOf, secret: [u8; 16]) -> Self {
        let is_ours = |port: &u16| owner(*port, place.shards) == usize::from(place.shard);
        let mut ports: Vec<u16> = ports.iter().copied().filter(is_ours).collect();
        ports.sort_unstable();
        ports.dedup();
        Self {
            ports: ports.into(),
            queue: place.queue,
            queue_of,
            secret,
            pairs: HashMap::new(),
            pairs_met: 0,
            counts: PortCounts::default(),
        }
    }

    /// Takes a port for a connection from `local` to `remote`. The stack is asked about ports that linger, once
    /// no other is left.
    ///
    /// # Errors
    /// If none can be had.
    pub fn take(&mut self, local: IpAddr, remote: SocketAddr, ask: Ask<'_>) -> Result<u16, Exhausted> {
        let name = PairName::new(local, remote);
        if !self.meet(name) {
            self.counts.exhausted += 1;
            return Err(Exhausted);
        }
        let Self { ports, pairs, counts, .. } = self;
        let taken = pairs.get_mut(&name).and_then(|pair| pair.take(|index| name.ask(ask, ports[index])));
        let Some(taken) = taken else {
            counts.exhausted += 1;
            return Err(Exhausted);
        };
        counts.off_queue += u64::from(taken.replies == Replies::Elsewhere);
        counts.reopened += u64::from(taken.is_reopened);
        Ok(ports[taken.index])
    }

    /// The driver lets go of a connection from a port that it has taken. The port stays taken for as long as the
    /// stack knows the tuple.
    ///
    /// # Panics
    /// If the port is not taken for this pair: two connections would share it.
    pub fn let_go(&mut self, local: IpAddr, remote: SocketAddr, port: u16) {
        let index = self.index(port).expect("a taken port is one of the shard's");
        let pair = self.pairs.get_mut(&PairName::new(local, remote));
        pair.expect("the pair of a taken port is known").let_go(index);
    }

    /// Frees ports that the stack has forgotten. To be called about once a second.
    pub fn reclaim(&mut self, ask: Ask<'_>) {
        let ports = &self.ports;
        for (name, pair) in &mut self.pairs {
            pair.reclaim(|index| name.ask(ask, ports[index]));
        }
    }

    /// The first reply to a port has come to this shard's queue, or else by way of another's.
    pub fn learn(&mut self, local: IpAddr, remote: SocketAddr, port: u16, is_here: bool) {
        if let (Some(index), Some(pair)) =
            (self.index(port), self.pairs.get_mut(&PairName::new(local, remote)))
        {
            pair.learn(index, is_here);
        }
    }

    /// What happened so far, and what is now.
    #[must_use]
    pub fn counts(&self) -> PortCounts {
        let sum = |of: fn(&Pair) -> usize| self.pairs.values().map(of).sum();
        PortCounts { taken: sum(Pair::taken), lingering: sum(Pair::lingering), ..self.counts }
    }

    fn index(&self, port: u16) -> Option<usize> {
        self.ports.binary_search(&port).ok()
    }

    /// Makes a pair known. False if there is no room for it. Where there is none, idle pairs go, and with them what
    /// was learned of their ports.
    fn meet(&mut self, name: PairName) -> bool {
        if self.pairs.contains_key(&name) {
            return true;
        }
        if self.pairs.len() >= PAIRS_MAX {
            self.pairs.retain(|_, pair| pair.taken() > 0);
        }
        if self.ports.is_empty() || self.pairs.len() >= PAIRS_MAX {
            return false;
        }
        self.pairs_met += 1;
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        (name, self.pairs_met).hash(&mut hasher);
        let next = (hasher.finish() % self.ports.len() as u64) as usize;
        let flow = self.queue_of.of_flow(name.local, name.remote);
        let replies = |index: usize| match flow.queue(self.ports[index]) {
            None => Replies::Unknown,
            Some(queue) if queue == self.queue => Replies::Here,
            Some(_) => Replies::Elsewhere,
        };
        let pair = Pair::new(self.ports.len(), next, replies);
        self.pairs.insert(name, pair);
        true
    }
}
