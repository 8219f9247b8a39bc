//! Which authentic hellos are admitted: the clock rule and the replay cache (protocol.md 6.4 and 6.5).
//!
//! A hello proves knowledge of the secret, but a censor can record it and send it again. So each hello is
//! admitted once: its random is remembered, *after* its HMAC verified, so that strangers cannot fill the
//! cache. What is too old to be in the cache is refused by its clock:
//!
//! ```text
//!                     oldest remembered + 3 s
//!   refused              │ admitted: a replay of it would be remembered     │ refused: future
//!  ──────────┬───────────┴───────────────────────────────────────┬──────────┼──────────────►
//!        now − 600 s: admitted from here on in any case         now       now + 3 s
//! ```
//! The cache is bounded twice, by age and by number, and forgets the oldest first. Who is forgotten by age
//! has a clock far behind. Who is forgotten by number need not: under more than some 200 hellos a second
//! the default cache turns over within the 600 s. Then what is no newer than the forgotten is refused too.

use std::collections::{HashSet, VecDeque};

use crate::error::PeerMisbehaved;
use crate::keyed_hash::KeyedHash;
use crate::time::UnixSeconds;

/// How long a hello is remembered (spec 6.4).
pub const REMEMBERED_SECONDS: u64 = 2 * 86_400;
/// How far a client's clock may be ahead (spec 6.5).
pub const AHEAD_SECONDS_MAX: u64 = 3;
/// How far it may be behind without the cache's help (spec 6.5).
pub const BEHIND_SECONDS_MAX: u64 = 600;
/// Default bound of the cache: a day of one hello a second, 10 MiB when full.
pub const ENTRIES_DEFAULT: usize = 1 << 17;

/// The start of a hello's random by which it is recognised (spec 6.4).
pub type HelloId = [u8; 16];

/// Decides on each authentic hello. One implementation is [`ReplayCache`] itself; a driver with several
/// workers shares one cache behind a lock, which core does not have.
pub trait HelloAdmission {
    /// Admits the hello `id` sent at `client_clock`, and remembers it; or says why not.
    ///
    /// # Errors
    /// [`PeerMisbehaved::ReplayedHello`], [`ClockAhead`](PeerMisbehaved::ClockAhead) or
    /// [`ClockBehind`](PeerMisbehaved::ClockBehind).
    fn admit(&mut self, id: HelloId, client_clock: u32, now: UnixSeconds) -> Result<(), PeerMisbehaved>;
}

/// The hellos that were admitted, oldest first.
#[derive(Debug)]
pub struct ReplayCache {
    entries_max: usize,
    known: HashSet<HelloId, KeyedHash>,
    by_age: VecDeque<(UnixSeconds, HelloId)>,
    /// When the last hello came that was forgotten for want of room.
    forgotten_until: Option<UnixSeconds>,
}

impl ReplayCache {
    /// An empty cache that remembers at most `entries_max` hellos.
    ///
    /// # Panics
    /// If `entries_max` is zero: such a cache would admit every replay.
    #[must_use]
    pub fn new(entries_max: usize, hash: KeyedHash) -> Self {
        assert!(entries_max > 0, "a replay cache needs room for at least one hello");
        let known = HashSet::with_hasher(hash);
        Self { entries_max, known, by_age: VecDeque::new(), forgotten_until: None }
    }

    /// How many hellos are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// True if no hello is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    fn clock_rule(&self, client_clock: u64, now: u64) -> Result<(), PeerMisbehaved> {
        if client_clock > now + AHEAD_SECONDS_MAX {
            return Err(PeerMisbehaved::ClockAhead);
        }
        if self.forgotten_until.is_some_and(|until| client_clock <= until.0 + AHEAD_SECONDS_MAX) {
            return Err(PeerMisbehaved::ClockBehind);
        }
        let replay_would_be_known =
            self.by_age.front().is_some_and(|(oldest, _)| client_clock > oldest.0 + AHEAD_SECONDS_MAX);
        if replay_would_be_known || client_clock + BEHIND_SECONDS_MAX > now {
            Ok(())
        } else {
            Err(PeerMisbehaved::ClockBehind)
        }
    }

    fn forget_old(&mut self, now: u64) {
        while let Some(&(received, id)) = self.by_age.front() {
            let expired = received.0 + REMEMBERED_SECONDS < now;
            if !expired && self.by_age.len() < self.entries_max {
                return;
            }
            if !expired {
                self.forgotten_until = Some(received);
            }
            self.by_age.pop_front();
            self.known.remove(&id);
        }
    }
}

impl HelloAdmission for ReplayCache {
    fn admit(&mut self, id: HelloId, client_clock: u32, now: UnixSeconds) -> Result<(), PeerMisbehaved> {
        if self.known.contains(&id) {
            return Err(PeerMisbehaved::ReplayedHello);
        }
        self.clock_rule(u64::from(client_clock), now.0)?;
        self.forget_old(now.0);
        self.known.insert(id);
        self.by_age.push_back((now, id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const NOW: u32 = 1_700_000_000;

    fn cache(entries_max: usize) -> ReplayCache {
        ReplayCache::new(entries_max, KeyedHash::new(&mut Random::from_seed([0; 32])))
    }

    fn admit(cache: &mut ReplayCache, id: u8, clock: u32, now: u32) -> Result<(), PeerMisbehaved> {
        cache.admit([id; 16], clock, UnixSeconds(u64::from(now)))
    }

    #[test]
    fn the_second_use_of_a_hello_is_refused() {
        let mut cache = cache(8);
        assert_eq!(admit(&mut cache, 1, NOW, NOW), Ok(()));
        assert_eq!(admit(&mut cache, 1, NOW, NOW), Err(PeerMisbehaved::ReplayedHello));
        assert_eq!(admit(&mut cache, 2, NOW, NOW), Ok(()));
    }

    #[test]
    fn a_refused_hello_is_not_remembered() {
        let mut cache = cache(8);
        assert_eq!(admit(&mut cache, 1, NOW + 4, NOW), Err(PeerMisbehaved::ClockAhead));
        assert!(cache.is_empty());
        assert_eq!(admit(&mut cache, 1, NOW + 4, NOW + 1), Ok(()));
    }

    #[test]
    fn the_clock_may_be_three_seconds_ahead_and_not_four() {
        assert_eq!(admit(&mut cache(8), 1, NOW + 3, NOW), Ok(()));
        assert_eq!(admit(&mut cache(8), 1, NOW + 4, NOW), Err(PeerMisbehaved::ClockAhead));
    }

    #[test]
    fn an_empty_cache_admits_599_seconds_behind_and_not_600() {
        assert_eq!(admit(&mut cache(8), 1, NOW - 599, NOW), Ok(()));
        assert_eq!(admit(&mut cache(8), 1, NOW - 600, NOW), Err(PeerMisbehaved::ClockBehind));
    }

    #[test]
    fn an_old_clock_is_admitted_once_its_replay_would_be_remembered() {
        let mut cache = cache(8);
        admit(&mut cache, 1, NOW, NOW).unwrap();
        let later = NOW + 5000;
        assert_eq!(admit(&mut cache, 2, NOW + 3, later), Err(PeerMisbehaved::ClockBehind));
        assert_eq!(admit(&mut cache, 3, NOW + 4, later), Ok(()));
    }

    #[test]
    fn the_bound_forgets_the_oldest_and_its_replay_then_fails_by_its_clock() {
        let mut cache = cache(2);
        for (id, at) in [(1, NOW), (2, NOW + 1000), (3, NOW + 2000)] {
            admit(&mut cache, id, at, at).unwrap();
        }
        assert_eq!(cache.len(), 2);
        assert_eq!(admit(&mut cache, 1, NOW, NOW + 2000), Err(PeerMisbehaved::ClockBehind));
        assert_eq!(admit(&mut cache, 3, NOW + 2000, NOW + 2000), Err(PeerMisbehaved::ReplayedHello));
    }

    #[test]
    fn a_replay_is_refused_even_if_its_hello_was_forgotten_a_moment_later() {
        let mut cache = cache(2);
        for (id, at) in [(1, NOW), (2, NOW + 5), (3, NOW + 10)] {
            // The first clock is as far ahead as it may be.
            admit(&mut cache, id, at + 3, at).unwrap();
        }
        assert_eq!(admit(&mut cache, 1, NOW + 3, NOW + 11), Err(PeerMisbehaved::ClockBehind));
        assert_eq!(admit(&mut cache, 4, NOW + 4, NOW + 11), Ok(()), "newer than what was forgotten");
    }

    #[test]
    fn hellos_are_remembered_for_two_days_and_no_longer() {
        let two_days = u32::try_from(REMEMBERED_SECONDS).unwrap();
        let mut cache = cache(8);
        admit(&mut cache, 1, NOW, NOW).unwrap();
        admit(&mut cache, 2, NOW + two_days, NOW + two_days).unwrap();
        assert_eq!(cache.len(), 2);
        admit(&mut cache, 3, NOW + two_days + 1, NOW + two_days + 1).unwrap();
        assert_eq!(cache.len(), 2, "the first is gone");
    }
}
