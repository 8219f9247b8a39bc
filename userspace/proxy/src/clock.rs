//! The only place that reads a clock for the engine.

use std::time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH};

use mtproxy_core::time::{Instant, Now, UnixSeconds};

/// Reads both clocks, counting the monotonic one from its own start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: StdInstant,
}

impl Clock {
    /// A clock whose origin is now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: StdInstant::now() }
    }

    /// One reading.
    #[must_use]
    pub fn now(&self) -> Now {
        // Before 1970 the host's clock is so wrong that zero is as good as anything.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Now { instant: Instant::after_origin(self.origin.elapsed()), unix: UnixSeconds(unix) }
    }

    /// How long until `instant`; zero if it has passed.
    #[must_use]
    pub fn until(&self, instant: Instant) -> Duration {
        instant.since(Instant::after_origin(self.origin.elapsed()))
    }
}
