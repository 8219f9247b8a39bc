//! Letting go of the worst: who holds the most frames and hardly takes its text, when frames are dire.
//!
//! A peer may shut its window for as long as it wishes (MUST-37), and what waits for it holds frames. As long as there
//! are frames for others, it may. When new clients are turned away for it, it has to go: the largest first, one
//! at a time, until there is room again.

// A method's path fits one lifetime of a connection only; the closures fit all.
#![expect(clippy::redundant_closure_for_method_calls)]

use std::time::Duration;

use crate::connection::Connection;
use crate::event::{ConnectFailure, ResetReason};
use crate::link::Link;
use crate::pressure::{Holdings, Pressure};
use crate::queues::Queues;
use crate::stack::Stack;
use crate::tcb::millis;

/// Between two looks at all connections. A look costs a millisecond with a hundred thousand of them.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// How long a peer's pace is measured before it is judged: outages of mobile networks are mostly shorter.
const PACE_MILLIS: u32 = 5_000;

/// What a peer takes in a second at least, on average: as of an orphan, 64 kbit/s.
pub(crate) const LEAST_BYTES_PER_SECOND: u32 = 8 << 10;

/// How fast a peer acknowledges what waits for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    since_ms: u32,
    bytes: u32,
}

impl Pace {
    /// Measured from now on.
    pub(crate) fn from(now_ms: u32) -> Self {
        Self { since_ms: now_ms, bytes: 0 }
    }

    /// The peer has acknowledged so much.
    pub(crate) fn add(&mut self, bytes: u32) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// True if it was too slow for long enough. Who was fast enough is measured anew.
    fn is_too_slow(&mut self, now_ms: u32) -> bool {
        let elapsed_ms = now_ms.wrapping_sub(self.since_ms);
        if elapsed_ms < PACE_MILLIS {
            return false;
        }
        let least = u64::from(elapsed_ms) * u64::from(LEAST_BYTES_PER_SECOND) / 1000;
        let is_too_slow = u64::from(self.bytes) < least;
        if !is_too_slow {
            *self = Self::from(now_ms);
        }
        is_too_slow
    }
}

impl<F> Queues<F> {
    /// What of all frames is held here.
    pub(crate) fn holdings(&self) -> Holdings {
        Holdings { received: self.receive.frames(), queued: self.send.frames() }
    }
}

impl<L: Link> Stack<L> {
    /// Resets the connection that holds the most frames and takes too little, if frames are dire.
    pub(crate) fn shed(&mut self, link: &mut L) {
        if self.now < self.shared.next_shed || Pressure::of(link) != Pressure::Dire {
            return;
        }
        self.shared.next_shed = self.now.plus(BETWEEN_LOOKS);
        let now_ms = millis(self.now);
        let mut worst: Option<(usize, u32)> = None;
        for (index, tcb) in self.connections.iter_mut() {
            let Some(queues) = &mut tcb.queues else { continue };
            if queues.send.frames() > 0 && queues.pace.is_too_slow(now_ms) {
                worst = worst.max(Some((queues.frames(), index)));
            }
        }
        if let Some((_, index)) = worst {
            self.shared.counters.shed += 1;
            self.visit(index, link, |connection| connection.shed());
        }
    }
}

impl<L: Link> Connection<'_, L> {
    /// Gives up this connection for the others' sake, with all that it holds.
    fn shed(&mut self) {
        if self.tcb.state.is_synchronized() {
            self.send_reset(self.tcb.snd.nxt);
        }
        self.drop_queues();
        self.break_off(ResetReason::Shed, ConnectFailure::TimedOut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_judged_after_five_seconds_by_its_average() {
        let mut pace = Pace::from(1_000);
        assert!(!pace.is_too_slow(5_999));
        assert!(pace.is_too_slow(6_000));
        pace.add(5 * LEAST_BYTES_PER_SECOND - 1);
        assert!(pace.is_too_slow(6_000));
        pace.add(1);
        assert!(!pace.is_too_slow(6_000));
        // Measured anew.
        assert!(!pace.is_too_slow(10_999));
        assert!(pace.is_too_slow(11_000));
    }

    #[test]
    fn a_pace_survives_the_wrap_of_its_clock() {
        let mut pace = Pace::from(u32::MAX - 999);
        assert!(!pace.is_too_slow(3_999));
        assert!(pace.is_too_slow(4_000));
    }
}
