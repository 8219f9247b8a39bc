//! The connections to one middle proxy: how many there shall be, when the next is dialled, and which one is taken
//! (policies.md sections 2.9 to 2.13).

use std::time::Duration;

use crate::policy::tcp_rpc_client::Readiness;
use crate::time::Instant;

/// Connections of a pool by readiness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// They carry packets.
    pub good: u16,
    /// They would, but take nothing now.
    pub stopped: u16,
    /// They failed and are still counted as open.
    pub bad: u16,
}

impl Counts {
    /// True if the pool can be used.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.good > 0
    }
}

/// Counts a pool (section 2.10). One that is not ready yet or busy is in no bucket.
#[must_use]
pub fn count(connections: impl Iterator<Item = Readiness>) -> Counts {
    connections.fold(Counts::default(), |mut counts, readiness| {
        match readiness {
            Readiness::Ok => counts.good = counts.good.saturating_add(1),
            Readiness::Stopped => counts.stopped = counts.stopped.saturating_add(1),
            Readiness::Failed(_) => counts.bad = counts.bad.saturating_add(1),
            Readiness::NotYet | Readiness::Busy => {}
        }
        counts
    })
}

/// How the number of usable targets changes when one pool is counted anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyTargets {
    /// The target has become usable.
    OneMore,
    /// The target has become useless.
    OneLess,
    /// As before.
    Same,
}

/// Section 2.10, last step.
#[must_use]
pub fn ready_targets(before: Counts, after: Counts) -> ReadyTargets {
    match (before.is_ready(), after.is_ready()) {
        (false, true) => ReadyTargets::OneMore,
        (true, false) => ReadyTargets::OneLess,
        _ => ReadyTargets::Same,
    }
}

/// How many connections there shall be (section 2.11): those that failed are replaced while they still count, and half
/// of those that are stopped.
#[must_use]
pub fn connections_needed(min: u16, max: u16, counts: &Counts) -> u16 {
    min.saturating_add(counts.bad).saturating_add(counts.stopped.div_ceil(2)).min(max)
}

/// True if the pool may dial now (section 2.11): its pause is over, or somebody answers at that address anyway.
#[must_use]
pub fn may_open(now: Instant, next_reconnect: Instant, has_active: bool) -> bool {
    has_active || now >= next_reconnect
}

/// Pauses between rounds of dialling (section 2.12): 1 to 1.1 s, half as much again each time, until above 20 s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    base_seconds: f64,
    current_seconds: f64,
}

/// Pauses that are at least so long grow no more.
const GROWS_BELOW_SECONDS: f64 = 20.0;

impl Backoff {
    /// The pauses of one pool. `random`, from 0 to 1, spreads the pools of many proxies.
    #[must_use]
    pub fn new(random: f64) -> Self {
        let base_seconds = 1.0 + 0.1 * random;
        Self { base_seconds, current_seconds: base_seconds }
    }

    /// The pause after a round in which connections were dialled.
    pub fn after_round(&mut self, has_active: bool, random: f64) -> Duration {
        if has_active || self.current_seconds < self.base_seconds {
            self.current_seconds = self.base_seconds;
        }
        let pause = Duration::from_secs_f64(self.current_seconds);
        if !has_active && self.current_seconds < GROWS_BELOW_SECONDS {
            self.current_seconds = self.current_seconds * 1.5 + 0.2 * random;
        }
        pause
    }
}

/// What becomes of a candidate while a pool is walked (section 2.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Somebody better is chosen already; look at no more.
    Skip,
    /// This one is the choice from now on.
    Select,
    /// Not this one; look on.
    Keep,
}

/// The first that is ready.
#[must_use]
pub fn pick_basic(has_chosen: bool, candidate: Readiness) -> Pick {
    match (has_chosen, candidate) {
        (true, _) => Pick::Skip,
        (false, Readiness::Ok) => Pick::Select,
        (false, _) => Pick::Keep,
    }
}

/// A choice that may be one that is stopped, with how unreliable it has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// How it stands.
    pub readiness: Readiness,
    /// Higher is worse.
    pub unreliability: u32,
}

/// The first that is ready; without one, the most reliable of those that are stopped.
#[must_use]
pub fn pick_allowing_stopped(chosen: Option<Chosen>, candidate: Chosen) -> Pick {
    let is_settled = chosen.is_some_and(|chosen| chosen.readiness == Readiness::Ok);
    match candidate.readiness {
        _ if is_settled => Pick::Skip,
        Readiness::Ok => Pick::Select,
        Readiness::Stopped if chosen.is_none_or(|it| it.unreliability > candidate.unreliability) => {
            Pick::Select
        }
        _ => Pick::Keep,
    }
}

/// One of those that are ready, each as likely as the others: the i-th replaces the choice with probability 1/i.
#[derive(Clone, Copy, Debug)]
pub struct RandomPick<T> {
    offered: u32,
    chosen: Option<T>,
}

impl<T> Default for RandomPick<T> {
    fn default() -> Self {
        Self { offered: 0, chosen: None }
    }
}

impl<T> RandomPick<T> {
    /// Offers one that is ready. `below` draws a number below its argument.
    pub fn offer(&mut self, candidate: T, mut below: impl FnMut(u32) -> u32) {
        self.offered = self.offered.saturating_add(1);
        if below(self.offered) == 0 {
            self.chosen = Some(candidate);
        }
    }

    /// The choice.
    #[must_use]
    pub fn chosen(self) -> Option<T> {
        self.chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_READY: [Readiness; 2] = [Readiness::NotYet, Readiness::Busy];

    fn counts(good: u16, stopped: u16, bad: u16) -> Counts {
        Counts { good, stopped, bad }
    }

    #[test]
    fn each_readiness_has_its_bucket_and_those_on_their_way_have_none() {
        let all = [Readiness::Ok, Readiness::Stopped, Readiness::Failed(-6), Readiness::Ok];
        assert_eq!(count(all.into_iter().chain(NOT_READY)), counts(2, 1, 1));
        assert_eq!(count(NOT_READY.into_iter()), Counts::default());
    }

    #[test]
    fn a_target_counts_as_ready_from_its_first_good_connection_to_its_last() {
        for (before, after, change) in [
            (counts(0, 0, 0), counts(1, 0, 0), ReadyTargets::OneMore),
            (counts(0, 3, 3), counts(4, 0, 0), ReadyTargets::OneMore),
            (counts(1, 0, 0), counts(0, 1, 0), ReadyTargets::OneLess),
            (counts(1, 0, 0), counts(2, 0, 0), ReadyTargets::Same),
            (counts(0, 1, 0), counts(0, 0, 1), ReadyTargets::Same),
        ] {
            assert_eq!(ready_targets(before, after), change, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_pool_has_its_minimum_and_replaces_what_is_of_no_use_up_to_its_maximum() {
        for (stopped, bad, needed) in [
            (0, 0, 4),
            (1, 0, 5),
            (2, 0, 5),
            (3, 0, 6),
            (0, 1, 5),
            (3, 2, 8),
            (9, 9, 8),
            (u16::MAX, u16::MAX, 8),
        ] {
            assert_eq!(connections_needed(4, 8, &counts(1, stopped, bad)), needed, "{stopped} {bad}");
        }
    }

    #[test]
    fn a_pool_dials_when_its_pause_is_over_or_somebody_answers() {
        let at = |seconds| Instant::after_origin(Duration::from_secs(seconds));
        assert!(may_open(at(5), at(5), false) && !may_open(at(4), at(5), false));
        assert!(may_open(at(4), at(5), true));
    }

    #[test]
    fn pauses_grow_by_half_until_above_twenty_seconds() {
        let mut backoff = Backoff::new(0.0);
        let pauses: Vec<f64> = (0..10).map(|_| backoff.after_round(false, 0.0).as_secs_f64()).collect();
        let expected =
            [1.0, 1.5, 2.25, 3.375, 5.0625, 7.59375, 11.390_625, 17.085_938, 25.628_906, 25.628_906];
        for (pause, expected) in pauses.iter().zip(expected) {
            assert!((pause - expected).abs() < 1e-5, "{pauses:?}");
        }
    }

    #[test]
    fn chance_spreads_the_pauses_and_an_answer_brings_them_back_to_the_first() {
        let mut backoff = Backoff::new(1.0);
        assert!((backoff.after_round(false, 1.0).as_secs_f64() - 1.1).abs() < 1e-9);
        assert!((backoff.after_round(false, 1.0).as_secs_f64() - 1.85).abs() < 1e-9);
        assert!((backoff.after_round(true, 1.0).as_secs_f64() - 1.1).abs() < 1e-9);
        assert!((backoff.after_round(true, 1.0).as_secs_f64() - 1.1).abs() < 1e-9);
    }

    #[test]
    fn the_basic_pick_is_the_first_that_is_ready() {
        assert_eq!(pick_basic(false, Readiness::Ok), Pick::Select);
        for other in NOT_READY.into_iter().chain([Readiness::Stopped, Readiness::Failed(-6)]) {
            assert_eq!(pick_basic(false, other), Pick::Keep);
        }
        assert_eq!(pick_basic(true, Readiness::Ok), Pick::Skip);
    }

    #[test]
    fn a_stopped_one_is_better_than_none_and_worse_than_any_that_is_ready() {
        let chosen = |readiness, unreliability| Chosen { readiness, unreliability };
        let stopped = |unreliability| chosen(Readiness::Stopped, unreliability);
        let ready = chosen(Readiness::Ok, 9);
        assert_eq!(pick_allowing_stopped(None, stopped(5)), Pick::Select);
        assert_eq!(pick_allowing_stopped(Some(stopped(5)), stopped(4)), Pick::Select);
        assert_eq!(pick_allowing_stopped(Some(stopped(5)), stopped(5)), Pick::Keep);
        assert_eq!(pick_allowing_stopped(Some(stopped(0)), ready), Pick::Select);
        assert_eq!(pick_allowing_stopped(Some(ready), chosen(Readiness::Ok, 0)), Pick::Skip);
        assert_eq!(pick_allowing_stopped(None, chosen(Readiness::NotYet, 0)), Pick::Keep);
    }

    #[test]
    fn the_ith_candidate_replaces_the_choice_once_in_i() {
        let mut bounds = Vec::new();
        let mut pick = RandomPick::default();
        for (candidate, draw) in [("a", 0), ("b", 1), ("c", 0), ("d", 3)] {
            pick.offer(candidate, |bound| {
                bounds.push(bound);
                draw
            });
        }
        assert_eq!((pick.chosen(), bounds), (Some("c"), vec![1, 2, 3, 4]));
        assert_eq!(RandomPick::<u8>::default().chosen(), None);
    }
}
