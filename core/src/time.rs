//! Time as a value. Core never reads a clock: every call that may depend on time takes a [`Now`].

use std::time::Duration;

/// A point on a monotonic clock whose origin the driver chooses. Never goes backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    nanoseconds: u64,
}

impl Instant {
    /// The origin of the driver's clock.
    pub const ORIGIN: Self = Self { nanoseconds: 0 };

    /// The instant `elapsed` after the origin; saturates after 584 years.
    #[must_use]
    pub fn after_origin(elapsed: Duration) -> Self {
        Self { nanoseconds: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanoseconds.saturating_sub(earlier.nanoseconds))
    }

    /// This instant moved into the future; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self { nanoseconds: self.nanoseconds.saturating_add(nanoseconds) }
    }
}

/// Seconds since the Unix epoch, as fake TLS puts them on the wire (spec: 32 bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u64);

/// One reading of both clocks, taken once per turn of the driver's loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Drives every timeout.
    pub instant: Instant,
    /// Compared with the time inside a fake-TLS hello; nothing else uses it.
    pub unix: UnixSeconds,
}
