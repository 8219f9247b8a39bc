//! When AF_XDP is given up, and when it is tried again: a decision over what is seen, once a second.
//!
//! ```text
//!            seen amiss twice, or a shard broke              the last shard has ended
//!    ┌────► Up ────────────────────────────────► Ending ────────────────────────────────► Away ◄───┐
//!    │                                                                                      │      │ failed
//!    │       came up            the interface looks the same twice, and the pause is over   ▼      │
//!    └──────────────────────────────────────────────────────────────────────────────────  Trying ──┘
//! ```
//! It must never touch the host, nor read a clock. A link that goes down and comes back is not amiss: sockets and program
//! outlive it. While it is not `Up`, the kernel's sockets serve everybody, as they have served part of them all along.

use std::time::{Duration, Instant};

use mtproxy_nic::Glance;

use crate::telemetry::metrics::LossReason;

/// Before the first attempt, so that who changes the interface has done.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Between attempts: an interface that stays broken costs no more than a look at it.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// An interface that lasted for so long is not one that flaps.
const LASTED: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// End all shards.
    TearDown(LossReason),
    /// End at once those that were left their time.
    CutOff,
    /// Try to bring shards up.
    BringUp,
}

/// Where it stands.
#[derive(Clone, Debug)]
enum State {
    /// Shards run.
    Up { held: Glance, since: Instant, running: usize, doubt: Option<LossReason> },
    /// So many shards are still to end. `held` as long as they may have time for it.
    Ending { running: usize, held: Option<Glance>, doubt: Option<LossReason> },
    /// None runs.
    Away { not_before: Instant, seen: Option<Glance> },
    /// An attempt is under way.
    Trying,
    /// The proxy is about to end.
    Over,
}

/// The state of AF_XDP on the interface.
#[derive(Clone, Debug)]
pub struct Reattach {
    state: State,
    pause: Duration,
}

impl Reattach {
    /// So many shards run on the interface `held`.
    #[must_use]
    pub fn new(now: Instant, held: Glance, running: usize) -> Self {
        Self { state: State::Up { held, since: now, running, doubt: None }, pause: PAUSE_MIN }
    }

    /// True if no shard runs, so that nothing holds the interface but what is let go now.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self.state, State::Away { .. })
    }

    /// The interface looks like that.
    pub fn look(&mut self, now: Instant, seen: Option<Glance>) -> Step {
        match &mut self.state {
            State::Up { held, doubt, running, .. } => {
                let (loss, running) = (loss(held, seen.as_ref()), *running);
                // What is seen once may be a change that is half done.
                let is_certain = loss.is_some() && *doubt == loss;
                *doubt = loss;
                match loss.filter(|_| is_certain) {
                    Some(reason) => self.tear_down(now, running, reason),
                    None => Step::Stay,
                }
            }
            State::Away { not_before, seen: before } => {
                let is_settled = seen.is_some() && *before == seen;
                *before = seen;
                if is_settled && *not_before <= now {
                    self.state = State::Trying;
                    return Step::BringUp;
                }
                Step::Stay
            }
            State::Ending { held: still_held @ Some(_), doubt, .. } => {
                let loss = still_held.and_then(|held| loss(&held, seen.as_ref()));
                let is_certain = loss.is_some() && *doubt == loss;
                *doubt = loss;
                if is_certain {
                    *still_held = None;
                    return Step::CutOff;
                }
                Step::Stay
            }
            State::Ending { held: None, .. } | State::Trying | State::Over => Step::Stay,
        }
    }

    /// A shard has ended, and nobody knows what the interface looks like.
    pub fn shard_ended_unseen(&mut self, now: Instant) -> Step {
        let held = match self.state {
            State::Up { held, .. } => Some(held),
            _ => None,
        };
        self.shard_ended(now, held)
    }

    /// A shard has ended, and the interface looks like that now.
    pub fn shard_ended(&mut self, now: Instant, seen: Option<Glance>) -> Step {
        match &mut self.state {
            State::Up { held, running, .. } => {
                let reason = loss(held, seen.as_ref()).unwrap_or(LossReason::ShardEnded);
                let left = running.saturating_sub(1);
                self.tear_down(now, left, reason)
            }
            State::Ending { running, .. } => {
                *running = running.saturating_sub(1);
                if *running == 0 {
                    self.go_away(now);
                }
                Step::Stay
            }
            State::Away { .. } | State::Trying | State::Over => Step::Stay,
        }
    }

    /// The attempt has succeeded: so many shards run on the interface `held`.
    pub fn came_up(&mut self, now: Instant, held: Glance, running: usize) {
        if matches!(self.state, State::Trying) {
            self.state = State::Up { held, since: now, running, doubt: None };
        }
    }

    /// The attempt has failed, when so many shards were started that are to end again.
    pub fn failed(&mut self, now: Instant, running: usize) {
        match self.state {
            State::Trying if running > 0 => {
                self.state = State::Ending { running, held: None, doubt: None };
            }
            State::Trying => self.go_away(now),
            _ => {}
        }
    }

    /// The proxy is about to end: there will be no step any more.
    pub fn stop(&mut self) {
        self.state = State::Over;
    }

    fn tear_down(&mut self, now: Instant, running: usize, reason: LossReason) -> Step {
        if let State::Up { since, .. } = self.state
            && now.duration_since(since) >= LASTED
        {
            self.pause = PAUSE_MIN;
        }
        if running == 0 {
            self.go_away(now);
        } else {
            let held = match self.state {
                State::Up { held, .. } if reason == LossReason::ShardEnded => Some(held),
                _ => None,
            };
            self.state = State::Ending { running, held, doubt: None };
        }
        Step::TearDown(reason)
    }

    /// Each time without success the next pause is longer.
    fn go_away(&mut self, now: Instant) {
        self.state = State::Away { not_before: now + self.pause, seen: None };
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// What is amiss if the interface `held` looks like that.
fn loss(held: &Glance, seen: Option<&Glance>) -> Option<LossReason> {
    match seen {
        None => Some(LossReason::InterfaceGone),
        Some(seen) if seen.index != held.index => Some(LossReason::InterfaceGone),
        Some(seen) if seen.receive_queues != held.receive_queues => Some(LossReason::QueuesChanged),
        Some(seen) if seen.xdp_program != held.xdp_program => Some(LossReason::ProgramGone),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Glance = Glance { index: 2, receive_queues: 2, xdp_program: Some(7) };
    const SECOND: Duration = Duration::from_secs(1);

    struct Bench {
        now: Instant,
        machine: Reattach,
    }

    impl Bench {
        /// Two shards have just come up.
        fn up() -> Self {
            let now = Instant::now();
            Self { now, machine: Reattach::new(now, HELD, 2) }
        }

        /// A second later.
        fn look(&mut self, seen: impl Into<Option<Glance>>) -> Step {
            self.now += SECOND;
            self.machine.look(self.now, seen.into())
        }

        fn shard_ended(&mut self, seen: impl Into<Option<Glance>>) -> Step {
            self.machine.shard_ended(self.now, seen.into())
        }

        /// Seconds until the next attempt at an interface that is there.
        fn seconds_to_attempt(&mut self) -> u32 {
            (1..100).find(|_| self.look(HELD) == Step::BringUp).expect("it tries again")
        }
    }

    #[test]
    fn what_is_amiss_twice_in_a_row_ends_the_shards_with_its_reason() {
        for (seen, reason) in [
            (None, LossReason::InterfaceGone),
            (Some(Glance { index: 3, ..HELD }), LossReason::InterfaceGone),
            (Some(Glance { receive_queues: 1, ..HELD }), LossReason::QueuesChanged),
            (Some(Glance { xdp_program: None, ..HELD }), LossReason::ProgramGone),
            (Some(Glance { xdp_program: Some(8), ..HELD }), LossReason::ProgramGone),
        ] {
            let mut bench = Bench::up();
            assert_eq!(bench.look(HELD), Step::Stay);
            assert_eq!(bench.look(seen), Step::Stay, "{seen:?}");
            assert_eq!(bench.look(HELD), Step::Stay, "it is as it was");
            assert_eq!(bench.look(seen), Step::Stay, "{seen:?}");
            assert_eq!(bench.look(seen), Step::TearDown(reason), "{seen:?}");
            assert_eq!(bench.look(seen), Step::Stay, "it is told once");
        }
    }

    #[test]
    fn nothing_is_brought_up_before_the_last_shard_has_ended() {
        let mut bench = Bench::up();
        bench.look(None);
        assert_eq!(bench.look(None), Step::TearDown(LossReason::InterfaceGone));
        for _ in 0..10 {
            assert_eq!(bench.look(HELD), Step::Stay);
        }
        assert_eq!(bench.shard_ended(HELD), Step::Stay);
        assert!(!bench.machine.is_away());
        assert_eq!(bench.shard_ended(HELD), Step::Stay);
        assert!(bench.machine.is_away());
        assert_eq!([bench.look(HELD), bench.look(HELD)], [Step::Stay, Step::BringUp]);
    }

    #[test]
    fn a_shard_that_breaks_ends_the_others_and_the_interface_says_why_if_it_can() {
        let mut bench = Bench::up();
        assert_eq!(bench.shard_ended(HELD), Step::TearDown(LossReason::ShardEnded));
        assert!(!bench.machine.is_away());
        let mut bench = Bench::up();
        assert_eq!(bench.shard_ended(None), Step::TearDown(LossReason::InterfaceGone));
        assert_eq!(bench.shard_ended(None), Step::Stay);
        assert!(bench.machine.is_away());
        let mut single = Reattach::new(bench.now, HELD, 1);
        assert_eq!(single.shard_ended(bench.now, Some(HELD)), Step::TearDown(LossReason::ShardEnded));
        assert!(single.is_away());
    }

    #[test]
    fn shards_that_have_time_to_end_lose_it_with_their_interface() {
        let mut bench = Bench::up();
        assert_eq!(bench.machine.shard_ended_unseen(bench.now), Step::TearDown(LossReason::ShardEnded));
        assert_eq!(bench.look(HELD), Step::Stay);
        assert_eq!(bench.look(None), Step::Stay);
        assert_eq!(bench.look(None), Step::CutOff);
        assert_eq!(bench.look(None), Step::Stay, "it is told once");
        assert_eq!(bench.machine.shard_ended_unseen(bench.now), Step::Stay);
        assert!(bench.machine.is_away());
        let mut cut_off = Bench::up();
        cut_off.look(None);
        cut_off.look(None);
        assert!((0..10).all(|_| cut_off.look(None) == Step::Stay), "they have no time to lose");
    }

    #[test]
    fn an_interface_is_tried_when_it_has_looked_the_same_twice() {
        let mut bench = Bench::up();
        bench.shard_ended(None);
        bench.shard_ended(None);
        let [one, two] = [1, 2].map(|receive_queues| Glance { index: 9, receive_queues, xdp_program: None });
        for seen in [None, None, Some(one), Some(two), None, Some(two)] {
            assert_eq!(bench.look(seen), Step::Stay, "{seen:?}");
        }
        assert_eq!(bench.look(two), Step::BringUp);
        assert_eq!(bench.look(two), Step::Stay, "an attempt is under way");
        bench.machine.came_up(bench.now, two, 2);
        assert_eq!(bench.look(two), Step::Stay);
    }

    #[test]
    fn pauses_grow_from_one_second_to_thirty_and_begin_anew_when_it_has_lasted() {
        let mut bench = Bench::up();
        let fail = |bench: &mut Bench| {
            bench.shard_ended(None);
            bench.shard_ended(None);
        };
        fail(&mut bench);
        let mut pauses = vec![bench.seconds_to_attempt()];
        for _ in 0..6 {
            bench.machine.failed(bench.now, 0);
            pauses.push(bench.seconds_to_attempt());
        }
        assert_eq!(pauses, [2, 2, 4, 8, 16, 30, 30], "the first look alone says nothing");
        bench.machine.came_up(bench.now, HELD, 2);
        bench.now += LASTED - SECOND;
        fail(&mut bench);
        assert_eq!(bench.seconds_to_attempt(), 30, "it flaps");
        bench.machine.came_up(bench.now, HELD, 2);
        bench.now += LASTED;
        fail(&mut bench);
        assert_eq!(bench.seconds_to_attempt(), 2);
    }

    #[test]
    fn an_attempt_that_failed_half_way_is_followed_by_another_when_its_shards_have_ended() {
        let mut bench = Bench::up();
        bench.shard_ended(None);
        bench.shard_ended(None);
        bench.seconds_to_attempt();
        bench.machine.failed(bench.now, 1);
        assert!((0..100).all(|_| bench.look(HELD) == Step::Stay));
        assert_eq!(bench.shard_ended(HELD), Step::Stay);
        assert_eq!(bench.seconds_to_attempt(), 2);
    }

    #[test]
    fn a_proxy_that_ends_brings_nothing_up() {
        let mut bench = Bench::up();
        bench.machine.stop();
        assert_eq!(bench.shard_ended(HELD), Step::Stay);
        assert_eq!(bench.shard_ended(HELD), Step::Stay);
        assert!((0..100).all(|_| bench.look(HELD) == Step::Stay));
        let mut late = Bench::up();
        late.shard_ended(None);
        late.shard_ended(None);
        late.seconds_to_attempt();
        late.machine.stop();
        late.machine.came_up(late.now, HELD, 2);
        assert!((0..100).all(|_| late.look(None) == Step::Stay));
    }
}
