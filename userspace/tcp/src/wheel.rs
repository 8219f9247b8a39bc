//! A hierarchical timing wheel (Varghese and Lauck, scheme 6) for dense indices: to arm, move and disarm a
//! timer takes constant time, whatever their number.
//!
//! ```text
//!   level 0   64 slots of 1 ms       which slot: the highest group of 6 bits in which
//!   level 1   64 slots of 64 ms      the timer's tick differs from the wheel's names the
//!   level 2   64 slots of 4 s        level, and its value in the timer's tick the slot
//!     …
//!   level 9                          covers every `Instant`
//! ```
//! When the wheel reaches a slot of level 1 or higher, its timers move to lower levels. A slot is a list
//! through the entries themselves, and a level's occupied slots are the bits of a word, so that nothing is
//! scanned.

use crate::time::Instant;

const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// 60 bits of ticks: more than an [`Instant`] has milliseconds.
const LEVELS: usize = 10;
const TICK_MICROS: u64 = 1000;

/// End of a list.
const NONE: u32 = u32::MAX;
/// In `previous`: the entry is first in the slot that the other bits name.
const FIRST: u32 = 1 << 31;

/// 16 bytes for each index.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tick: u64,
    next: u32,
    /// [`NONE`]: not armed.
    previous: u32,
}

const UNARMED: Entry = Entry { tick: 0, next: NONE, previous: NONE };

/// Timers of 1 ms, one for each index. No timer fires early; all that share a millisecond fire in any order.
#[derive(Debug)]
pub struct Wheel {
    /// No timer is before this tick; advances with `pop_expired`.
    now: u64,
    occupied: [u64; LEVELS],
    first: Box<[u32; LEVELS * SLOTS]>,
    entries: Vec<Entry>,
    armed: usize,
}

impl Wheel {
    /// A wheel without timers.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            now: now.as_micros() / TICK_MICROS,
            occupied: [0; LEVELS],
            first: Box::new([NONE; LEVELS * SLOTS]),
            entries: Vec::new(),
            armed: 0,
        }
    }

    /// Sets the timer of `index` to `at`, wherever it stood before.
    ///
    /// # Panics
    /// If `index` is 2^31 or more.
    pub fn arm(&mut self, index: u32, at: Instant) {
        assert!(index < FIRST, "indices are dense");
        self.disarm(index);
        let position = index as usize;
        if position >= self.entries.len() {
            self.entries.resize(position + 1, UNARMED);
        }
        // Rounded up, because no timer fires early.
        self.entries[position].tick = at.as_micros().div_ceil(TICK_MICROS);
        self.link(index);
        self.armed += 1;
    }

    /// Stops the timer of `index`, if it is armed.
    pub fn disarm(&mut self, index: u32) {
        if self.is_armed(index) {
            self.unlink(index);
            self.armed -= 1;
        }
    }

    /// True if the timer of `index` is armed.
    #[must_use]
    pub fn is_armed(&self, index: u32) -> bool {
        self.entries.get(index as usize).is_some_and(|entry| entry.previous != NONE)
    }

    /// Takes one timer that is due. Whoever calls this until `None` must not arm timers for a time that has
    /// passed meanwhile, or it does not end.
    pub fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        let now = (now.as_micros() / TICK_MICROS).max(self.now);
        while let Some((level, slot, start)) = self.earliest_slot() {
            if start > now {
                break;
            }
            self.now = self.now.max(start);
            let index = self.first[level * SLOTS + slot];
            if level == 0 {
                self.disarm(index);
                return Some(index);
            }
            self.cascade(level, slot);
        }
        self.now = now;
        None
    }

    /// No timer is due before this. Exact for the next 64 ms; of later timers it is where their slot begins, so
    /// that a driver wakes once for each level that they descend.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let (_, _, start) = self.earliest_slot()?;
        Some(Instant::from_micros(start.max(self.now).saturating_mul(TICK_MICROS)))
    }

    /// Armed timers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.armed
    }

    /// True if no timer is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Level, slot and first tick of the slot that comes next. On a lower level everything is earlier.
    fn earliest_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|occupied| *occupied != 0)?;
        // Below the wheel's own position there is none: the slot's ticks would be in the past.
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = LEVEL_BITS * level as u32;
        let above = self.now >> shift >> LEVEL_BITS << LEVEL_BITS << shift;
        Some((level, slot, above | (slot as u64) << shift))
    }

    /// Moves the timers of a slot that the wheel has reached to lower levels.
    fn cascade(&mut self, level: usize, slot: usize) {
        let mut index = self.first[level * SLOTS + slot];
        self.first[level * SLOTS + slot] = NONE;
        self.occupied[level] &= !(1 << slot);
        while index != NONE {
            let next = self.entries[index as usize].next;
            self.link(index);
            index = next;
        }
    }

    /// Puts an entry first into the slot of its tick.
    fn link(&mut self, index: u32) {
        // What is overdue is due now.
        let tick = self.entries[index as usize].tick.max(self.now);
        let level = match tick ^ self.now {
            0 => 0,
            difference => (difference.ilog2() / LEVEL_BITS) as usize,
        };
        let slot = (tick >> (LEVEL_BITS * level as u32)) as usize % SLOTS;
        let list = level * SLOTS + slot;
        let next = self.first[list];
        self.entries[index as usize] = Entry { tick, next, previous: FIRST | list as u32 };
        if next != NONE {
            self.entries[next as usize].previous = index;
        }
        self.first[list] = index;
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { next, previous, .. } = self.entries[index as usize];
        self.entries[index as usize] = UNARMED;
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous & FIRST == 0 {
            self.entries[previous as usize].next = next;
            return;
        }
        let list = (previous & !FIRST) as usize;
        self.first[list] = next;
        if next == NONE {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn micros(n: u64) -> Instant {
        Instant::from_micros(n)
    }

    fn expired(wheel: &mut Wheel, now: u64) -> BTreeSet<u32> {
        std::iter::from_fn(|| wheel.pop_expired(micros(now))).collect()
    }

    #[test]
    fn a_timer_fires_in_the_first_whole_millisecond_and_once() {
        let mut wheel = Wheel::new(micros(0));
        wheel.arm(3, micros(1001));
        assert_eq!(wheel.next(), Some(micros(2000)));
        assert_eq!(wheel.pop_expired(micros(1999)), None);
        assert_eq!(wheel.pop_expired(micros(2000)), Some(3));
        assert_eq!(wheel.pop_expired(micros(2000)), None);
        assert!(wheel.is_empty() && wheel.next().is_none());
    }

    #[test]
    fn what_is_armed_for_the_past_fires_now() {
        let mut wheel = Wheel::new(micros(10_000_000));
        wheel.arm(0, micros(0));
        wheel.arm(1, micros(u64::MAX));
        assert_eq!(wheel.next(), Some(micros(10_000_000)));
        assert_eq!(wheel.pop_expired(micros(10_000_000)), Some(0));
        assert_eq!(wheel.pop_expired(micros(10_000_000)), None);
        assert_eq!(wheel.len(), 1);
    }

    #[test]
    fn a_timer_at_the_end_of_time_can_be_armed_and_disarmed() {
        let mut wheel = Wheel::new(micros(0));
        wheel.arm(0, micros(u64::MAX));
        assert!(wheel.is_armed(0) && wheel.next().is_some());
        assert_eq!(wheel.pop_expired(micros(u64::MAX / 2)), None);
        wheel.disarm(0);
        wheel.disarm(0);
        wheel.disarm(99);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_far_timer_costs_a_driver_one_wakeup_a_level() {
        let mut wheel = Wheel::new(micros(999));
        let at = 3_600_000_000;
        wheel.arm(0, micros(at));
        let mut wakeups = 0;
        loop {
            let now = wheel.next().expect("armed");
            wakeups += 1;
            if wheel.pop_expired(now).is_some() {
                assert_eq!(now, micros(at));
                break;
            }
        }
        assert!(wakeups <= 4, "{wakeups}");
    }

    #[test]
    fn an_entry_is_16_bytes_and_used_indices_allocate_nothing() {
        assert_eq!(size_of::<Entry>(), 16);
        let mut wheel = Wheel::new(micros(0));
        wheel.arm(999, micros(5));
        let count = allocation_counter::measure(|| {
            for index in 0..1000 {
                wheel.arm(index, micros(u64::from(index) * 77_777));
            }
            while wheel.pop_expired(micros(80_000_000)).is_some() {}
        });
        assert_eq!(count.count_total, 0);
        assert!(wheel.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u32, u64),
        Disarm(u32),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Times of every magnitude, so that all levels are met.
        let span = (0_u32..40).prop_flat_map(|bits| 0_u64..1 << bits);
        prop_oneof![
            4 => (0_u32..32, span.clone()).prop_map(|(index, ahead)| Step::Arm(index, ahead)),
            1 => (0_u32..32).prop_map(Step::Disarm),
            2 => span.prop_map(Step::Advance),
        ]
    }

    proptest! {
        #[test]
        fn the_wheel_does_what_a_sorted_map_does(
            start in 0_u64..1 << 45, steps in proptest::collection::vec(step(), 0..200),
        ) {
            let mut now = start;
            let mut wheel = Wheel::new(micros(now));
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Arm(index, ahead) => {
                        wheel.arm(index, micros(now + ahead));
                        model.insert(index, (now + ahead).div_ceil(TICK_MICROS));
                    }
                    Step::Disarm(index) => {
                        wheel.disarm(index);
                        model.remove(&index);
                    }
                    Step::Advance(by) => {
                        now += by;
                        let tick = now / TICK_MICROS;
                        let due = model.iter().filter(|(_, at)| **at <= tick).map(|(index, _)| *index);
                        let due: BTreeSet<u32> = due.collect();
                        prop_assert_eq!(expired(&mut wheel, now), due);
                        model.retain(|_, at| *at > tick);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                for index in 0..32 {
                    prop_assert_eq!(wheel.is_armed(index), model.contains_key(&index));
                }
                let first = model.values().min().map(|tick| tick.saturating_mul(TICK_MICROS));
                match (wheel.next(), first) {
                    (Some(next), Some(first)) => prop_assert!(next.as_micros() <= first.max(now)),
                    (next, first) => prop_assert_eq!(next.is_some(), first.is_some()),
                }
            }
        }
    }
}
