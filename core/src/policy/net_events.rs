//! Readiness and waiting: what the C proxy's net-events decides (policies.md section 3).
//!
//! Used by the epoll datapath, which registers and reads flags by it, and by the worker's loop, which sleeps by it.

use std::time::Duration;

/// epoll's flags, as `uapi/linux/eventpoll.h` has them.
pub mod flags {
    /// There is something to read.
    pub const IN: u32 = 0x001;
    /// There is urgent data.
    pub const PRI: u32 = 0x002;
    /// There is room to write.
    pub const OUT: u32 = 0x004;
    /// The connection has failed.
    pub const ERR: u32 = 0x008;
    /// Both directions are over.
    pub const HUP: u32 = 0x010;
    /// The peer has sent FIN.
    pub const RDHUP: u32 = 0x2000;
    /// Only changes are reported.
    pub const ET: u32 = 1 << 31;
}

/// What somebody wants to hear of a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// That there is something to read.
    pub read: bool,
    /// That there is room to write.
    pub write: bool,
    /// That the peer has ended its side, or sent urgent data.
    pub special: bool,
    /// Again and again while it is so, instead of once.
    pub level: bool,
}

impl Interest {
    /// Everything about a connection, each change once: registered once and for all.
    pub const CONNECTION: Self = Self { read: true, write: true, special: true, level: false };
    /// That somebody waits to be accepted, while it is so.
    pub const LISTENER: Self = Self { read: true, write: false, special: false, level: true };
}

/// The flags to register (section 3.1). No interest at all is no registration.
#[must_use]
pub const fn to_epoll(interest: Interest) -> u32 {
    if !interest.read && !interest.write && !interest.special {
        return 0;
    }
    let mut bits = flags::ERR;
    if interest.read {
        bits |= flags::IN;
    }
    if interest.write {
        bits |= flags::OUT;
    }
    if interest.special {
        bits |= flags::RDHUP | flags::PRI;
    }
    if !interest.level {
        bits |= flags::ET;
    }
    bits
}

/// What reported flags mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Reading is worth a try: bytes, an end or an error are there.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// A short read does not mean that nothing is left: the end, or urgent data, is behind it.
    pub more_behind: bool,
    /// The connection has failed; what it brought before is still to be read.
    pub failed: bool,
    /// Nothing more will come or go.
    pub hung_up: bool,
}

/// Sections 3.1 and 1.8. The C proxy aborts a connection as soon as its peer has ended or sent urgent data, before it
/// has read what came before; here these are only reasons to read on.
#[must_use]
pub const fn from_epoll(bits: u32) -> Reported {
    let ends = bits & (flags::RDHUP | flags::HUP | flags::PRI) != 0;
    let failed = bits & flags::ERR != 0;
    Reported {
        readable: bits & flags::IN != 0 || ends || failed,
        writable: bits & flags::OUT != 0,
        more_behind: ends || failed,
        failed,
        hung_up: bits & flags::HUP != 0,
    }
}

/// What is to be done about a descriptor's registration (section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// It is as it should be: no system call.
    Keep,
    /// EPOLL_CTL_ADD.
    Add,
    /// EPOLL_CTL_MOD.
    Modify,
    /// EPOLL_CTL_DEL.
    Remove,
}

/// Section 3.2. `registered`: with which flags, if at all.
#[must_use]
pub fn registration(registered: Option<u32>, wanted: u32) -> Registration {
    match (registered, wanted) {
        (None, 0) => Registration::Keep,
        (Some(_), 0) => Registration::Remove,
        (None, _) => Registration::Add,
        (Some(bits), _) if bits == wanted => Registration::Keep,
        (Some(_), _) => Registration::Modify,
    }
}

/// How long a loop sleeps (section 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: something is due or left over.
    Poll,
    /// Until something happens, so long at most.
    UpTo(Duration),
    /// Until something happens.
    Forever,
}

impl Wait {
    /// As a timeout: `None` is forever.
    #[must_use]
    pub fn timeout(self) -> Option<Duration> {
        match self {
            Self::Poll => Some(Duration::ZERO),
            Self::UpTo(time) => Some(time),
            Self::Forever => None,
        }
    }
}

/// Section 3.4, with what it should have been: until the next timer, instead of a millisecond. An idle C proxy wakes a
/// thousand times a second, an idle one of ours never.
#[must_use]
pub fn wait_for(next_due: Option<Duration>) -> Wait {
    match next_due {
        None => Wait::Forever,
        Some(Duration::ZERO) => Wait::Poll,
        Some(time) => Wait::UpTo(time),
    }
}

/// How much of its time a loop has slept: over its whole life, and lately (section 3.5).
///
/// Lately is an average whose weight falls by 100/101 each second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IdleDecay {
    total_idle_seconds: f64,
    recent_idle_seconds: f64,
    recent_seconds: f64,
    /// Of the second that has not passed yet.
    since_step: Duration,
}

/// Weight of what was before, each second.
const DECAY: f64 = 100.0 / 101.0;
/// After so long without a look the average begins anew: the host was suspended, say.
const RESYNC: Duration = Duration::from_secs(60);

impl IdleDecay {
    /// A turn of the loop has taken `turn`, and slept for `idle` of it.
    pub fn turned(&mut self, turn: Duration, idle: Duration) {
        self.total_idle_seconds += idle.as_secs_f64();
        self.recent_idle_seconds += idle.as_secs_f64();
        self.since_step += turn;
        if self.since_step >= RESYNC {
            // Whoever sleeps for a minute was idle for all of it.
            *self = Self { total_idle_seconds: self.total_idle_seconds, ..Self::default() };
            self.recent_idle_seconds = idle.as_secs_f64() / turn.as_secs_f64().max(f64::MIN_POSITIVE);
            self.recent_seconds = 1.0;
            return;
        }
        while self.since_step >= Duration::from_secs(1) {
            self.since_step -= Duration::from_secs(1);
            self.recent_idle_seconds *= DECAY;
            self.recent_seconds = self.recent_seconds * DECAY + 1.0;
        }
    }

    /// Seconds slept so far.
    #[must_use]
    pub fn total_idle_seconds(&self) -> f64 {
        self.total_idle_seconds
    }

    /// How much of the last minutes was slept, in percent.
    #[must_use]
    pub fn recent_idle_percent(&self) -> f64 {
        if self.recent_seconds <= 0.0 {
            return 0.0;
        }
        (self.recent_idle_seconds / self.recent_seconds * 100.0).clamp(0.0, 100.0)
    }

    /// How much of `uptime` was slept, in percent.
    #[must_use]
    pub fn average_idle_percent(&self, uptime: Duration) -> f64 {
        if uptime.is_zero() {
            return 0.0;
        }
        (self.total_idle_seconds / uptime.as_secs_f64() * 100.0).clamp(0.0, 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interests_become_flags_one_by_one() {
        let nothing = Interest::default();
        let level = Interest { level: true, ..nothing };
        for (interest, bits) in [
            (nothing, 0),
            (level, 0),
            (Interest { read: true, ..level }, flags::ERR | flags::IN),
            (Interest { write: true, ..level }, flags::ERR | flags::OUT),
            (Interest { special: true, ..level }, flags::ERR | flags::RDHUP | flags::PRI),
            (Interest { read: true, ..nothing }, flags::ERR | flags::IN | flags::ET),
            (Interest::LISTENER, flags::ERR | flags::IN),
        ] {
            assert_eq!(to_epoll(interest), bits, "{interest:?}");
        }
        let all = flags::ERR | flags::IN | flags::OUT | flags::RDHUP | flags::PRI | flags::ET;
        assert_eq!(to_epoll(Interest::CONNECTION), all);
    }

    #[test]
    fn an_end_or_urgent_data_is_a_reason_to_read_and_not_to_abort() {
        for bits in [flags::RDHUP, flags::PRI, flags::HUP, flags::IN | flags::RDHUP] {
            let reported = from_epoll(bits);
            assert!(reported.readable && reported.more_behind && !reported.failed, "{bits:#x}");
        }
        let plain = from_epoll(flags::IN);
        assert!(plain.readable && !plain.more_behind);
    }

    #[test]
    fn a_failure_is_reported_and_what_came_before_is_still_read() {
        let reported = from_epoll(flags::ERR | flags::HUP);
        assert!(reported.failed && reported.readable && reported.hung_up && !reported.writable);
        assert_eq!(from_epoll(0), Reported::default());
        assert!(from_epoll(flags::OUT).writable);
    }

    #[test]
    fn a_registration_that_is_right_costs_no_system_call() {
        for (registered, wanted, expected) in [
            (None, 0, Registration::Keep),
            (None, 5, Registration::Add),
            (Some(5), 5, Registration::Keep),
            (Some(5), 4, Registration::Modify),
            (Some(5), 0, Registration::Remove),
        ] {
            assert_eq!(registration(registered, wanted), expected, "{registered:?} {wanted}");
        }
    }

    #[test]
    fn a_loop_sleeps_until_the_next_timer_and_without_one_for_ever() {
        let time = Duration::from_nanos(1);
        assert_eq!(wait_for(None).timeout(), None);
        assert_eq!(wait_for(Some(Duration::ZERO)), Wait::Poll);
        assert_eq!(wait_for(Some(time)).timeout(), Some(time));
        let hour = Duration::from_secs(3600);
        assert_eq!(wait_for(Some(hour)), Wait::UpTo(hour), "not a millisecond");
    }

    #[test]
    fn a_loop_that_sleeps_half_its_time_is_half_idle_in_both_averages() {
        let mut decay = IdleDecay::default();
        for _ in 0..20_000 {
            decay.turned(Duration::from_millis(10), Duration::from_millis(5));
        }
        assert!((decay.recent_idle_percent() - 50.0).abs() < 1.0, "{}", decay.recent_idle_percent());
        assert!((decay.average_idle_percent(Duration::from_secs(200)) - 50.0).abs() < 0.1);
        assert!((decay.total_idle_seconds() - 100.0).abs() < 1e-6);
    }

    #[test]
    fn the_recent_average_forgets_and_the_other_does_not() {
        let mut decay = IdleDecay::default();
        for second in 0..1000 {
            let idle = if second < 500 { Duration::ZERO } else { Duration::from_secs(1) };
            decay.turned(Duration::from_secs(1), idle);
        }
        assert!(decay.recent_idle_percent() > 98.0);
        assert!((decay.average_idle_percent(Duration::from_secs(1000)) - 50.0).abs() < 0.1);
    }

    #[test]
    fn a_jump_of_a_minute_begins_the_recent_average_anew() {
        let mut busy = IdleDecay::default();
        for _ in 0..100 {
            busy.turned(Duration::from_secs(1), Duration::ZERO);
        }
        let mut short = busy;
        short.turned(Duration::from_secs(59), Duration::from_secs(59));
        busy.turned(Duration::from_secs(60), Duration::from_secs(60));
        assert!(short.recent_idle_percent() < 80.0 && busy.recent_idle_percent() > 99.0);
        assert!((busy.total_idle_seconds() - 60.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_slept_is_no_percent_and_no_division_by_zero() {
        let decay = IdleDecay::default();
        assert!(decay.recent_idle_percent().abs() < f64::EPSILON);
        assert!(decay.average_idle_percent(Duration::ZERO).abs() < f64::EPSILON);
    }
}
