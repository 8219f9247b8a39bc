//! How the program behaves, as user space thinks of it, and how that is written into cells.

use std::num::NonZeroU32;
use std::time::Duration;

use mtproxy_xdp_abi::Setting;

/// A shard beats at least every 50 ms. Three missed beats are a hang, not a busy moment, and are over before a
/// client's second SYN, which Linux sends after 1 s.
pub const DEFAULT_STALE_AFTER: Duration = Duration::from_millis(150);

/// How the program treats new connections. Takes effect with the next packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How old the last beat of a queue may be before its new connections go to the kernel.
    pub stale_after: Duration,
    /// How many SYNs a source may send; `None` is as many as it likes.
    pub syn_limit: Option<SynLimit>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { stale_after: DEFAULT_STALE_AFTER, syn_limit: None }
    }
}

/// A token bucket for each IPv4 address and each IPv6 /64: a burst at once, then one at each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynLimit {
    /// How long a token takes to come back.
    pub interval: Duration,
    /// How many there are.
    pub burst: NonZeroU32,
}

impl SynLimit {
    /// So many a second in the long run, and `burst` at once.
    #[must_use]
    pub fn per_second(rate: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { interval: Duration::from_secs(1) / rate.get(), burst }
    }
}

impl Settings {
    pub(crate) fn cells(self) -> [(Setting, u64); 3] {
        let (interval, tolerance) = self.syn_limit.map_or((0, 0), |limit| {
            // An interval of 0 would mean no limit. A tolerance of a century is as good as one that does not fit.
            let interval = nanoseconds(limit.interval).max(1);
            (interval, interval.saturating_mul(u64::from(limit.burst.get() - 1)).min(CENTURY_NS))
        });
        [
            (Setting::StaleAfterNs, nanoseconds(self.stale_after)),
            (Setting::SynIntervalNs, interval),
            (Setting::SynToleranceNs, tolerance),
        ]
    }
}

/// The program adds these to a clock of 64 bits; below a century, no sum overflows, signed or not.
const CENTURY_NS: u64 = 100 * 365 * 86_400 * 1_000_000_000;

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).map_or(CENTURY_NS, |ns| ns.min(CENTURY_NS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(settings: Settings, which: Setting) -> u64 {
        settings.cells().into_iter().find(|(setting, _)| *setting == which).expect("it is written").1
    }

    #[test]
    fn a_burst_of_one_has_no_tolerance_and_no_limit_has_no_interval() {
        let one = SynLimit::per_second(NonZeroU32::MIN, NonZeroU32::MIN);
        let limited = Settings { syn_limit: Some(one), ..Settings::default() };
        assert_eq!(cell(limited, Setting::SynIntervalNs), 1_000_000_000);
        assert_eq!(cell(limited, Setting::SynToleranceNs), 0);
        assert_eq!(cell(Settings::default(), Setting::SynIntervalNs), 0);
    }

    #[test]
    fn no_limit_is_so_large_that_the_programs_clock_overflows() {
        let huge = SynLimit { interval: Duration::MAX, burst: NonZeroU32::MAX };
        let settings = Settings { stale_after: Duration::MAX, syn_limit: Some(huge) };
        for (_, value) in settings.cells() {
            assert!(value <= CENTURY_NS);
        }
    }
}
