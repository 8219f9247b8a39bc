//! The ports of one pair of local address and remote end: which are free, and which to take first.
//!
//! ```text
//!            take                 let_go                    the stack knows the tuple no more
//!   free ───────────► taken ────────────────► lingering ─────────────────────────────────────► free
//!                       ▲                        │
//!                       └────────────────────────┘ none is free, and TIME-WAIT may be cut short (RFC 6191)
//! ```

use mtproxy_tcp::Standing;

use super::bits::Bits;

/// Lingering ports of one kind about which the stack is asked for one dial. The next dial asks on where this one
/// stopped, so that ports that cannot be had hide no others for long.
const ASKED_PER_DIAL: usize = 16;

/// Lingering ports of a pair about which the stack is asked in one [`reclaim`](Pair::reclaim): the ports of a shard
/// of four in five rounds, and some 20 µs.
const ASKED_PER_ROUND: usize = 256;

/// Ports known to be right before they come first. A shorter round would come back to a port so soon that the
/// other end may not have forgotten it.
const RIGHT_MIN: usize = 32;

/// Where the replies to a port come to, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    Here,
    Unknown,
    Elsewhere,
}

/// A port that was free, or was made so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) index: usize,
    pub(super) replies: Replies,
    /// TIME-WAIT was cut short for it.
    pub(super) is_reopened: bool,
}

/// The round of one pair. Ports are numbered by their place in the shard's list.
#[derive(Debug)]
pub(super) struct Pair {
    ports: usize,
    /// Where the next search for a free port begins.
    next: usize,
    /// Where the next search for a lingering one begins, by [`Replies`].
    next_lingering: [usize; 3],
    /// Where the next round of questions begins.
    next_asked: usize,
    free: Bits,
    lingering: Bits,
    here: Bits,
    elsewhere: Bits,
}

impl Pair {
    /// All of so many ports are free; the round begins at `next`.
    pub(super) fn new(ports: usize, next: usize, replies: impl Fn(usize) -> Replies) -> Self {
        Self {
            ports,
            next,
            next_lingering: [next; 3],
            next_asked: next,
            free: Bits::of(ports, |_| true),
            lingering: Bits::none(ports),
            here: Bits::of(ports, |index| replies(index) == Replies::Here),
            elsewhere: Bits::of(ports, |index| replies(index) == Replies::Elsewhere),
        }
    }

    /// Ports that are not free, lingering ones too.
    pub(super) fn taken(&self) -> usize {
        self.ports - self.free.len()
    }

    /// Ports that nobody uses, and that are not free yet.
    pub(super) fn lingering(&self) -> usize {
        self.lingering.len()
    }

    pub(super) fn take(&mut self, standing: impl Fn(usize) -> Standing) -> Option<Taken> {
        let order = self.order();
        let free = order.into_iter().find_map(|replies| {
            let index = self.first(replies, &self.free, self.next)?;
            Some(Taken { index, replies, is_reopened: false })
        });
        if let Some(Taken { index, .. }) = free {
            self.free.remove(index);
            self.next = self.after(index);
            return free;
        }
        order.into_iter().find_map(|replies| self.take_lingering(replies, &standing))
    }

    /// The driver lets go of a port.
    pub(super) fn let_go(&mut self, index: usize) {
        assert!(!self.free.contains(index), "a port that is let go of was taken");
        assert!(self.lingering.insert(index), "a port is let go of once");
    }

    /// Frees lingering ports whose tuple the stack knows no more.
    pub(super) fn reclaim(&mut self, standing: impl Fn(usize) -> Standing) {
        for _ in 0..self.lingering().min(ASKED_PER_ROUND) {
            let Some(index) = self.lingering.first_from(self.next_asked, |_| u64::MAX) else { return };
            self.next_asked = self.after(index);
            if standing(index) == Standing::Free {
                self.lingering.remove(index);
                self.free.insert(index);
            }
        }
    }

    /// A reply has come here, or elsewhere.
    pub(super) fn learn(&mut self, index: usize, is_here: bool) {
        let (known, other) = if is_here {
            (&mut self.here, &mut self.elsewhere)
        } else {
            (&mut self.elsewhere, &mut self.here)
        };
        known.insert(index);
        other.remove(index);
    }

    fn order(&self) -> [Replies; 3] {
        if self.here.len() < RIGHT_MIN {
            [Replies::Unknown, Replies::Here, Replies::Elsewhere]
        } else {
            [Replies::Here, Replies::Unknown, Replies::Elsewhere]
        }
    }

    fn take_lingering(&mut self, replies: Replies, standing: impl Fn(usize) -> Standing) -> Option<Taken> {
        for _ in 0..ASKED_PER_DIAL {
            let index = self.first(replies, &self.lingering, self.next_lingering[replies as usize])?;
            self.next_lingering[replies as usize] = self.after(index);
            let standing = standing(index);
            if standing != Standing::InUse {
                self.lingering.remove(index);
                return Some(Taken { index, replies, is_reopened: standing == Standing::MayReopen });
            }
        }
        None
    }

    /// The first of `these` at or after `start`, going round, whose replies are known to come there.
    fn first(&self, replies: Replies, these: &Bits, start: usize) -> Option<usize> {
        these.first_from(start, |word| match replies {
            Replies::Here => self.here.word(word),
            Replies::Unknown => !(self.here.word(word) | self.elsewhere.word(word)),
            Replies::Elsewhere => self.elsewhere.word(word),
        })
    }

    fn after(&self, index: usize) -> usize {
        (index + 1) % self.ports
    }
}
