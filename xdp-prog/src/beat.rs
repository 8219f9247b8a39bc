//! The heartbeat by which a shard says that it polls its queue.

use aya::maps::{Array, MapData};
use mtproxy_xdp_abi::map;
use rustix::time::{ClockId, clock_gettime};

use crate::Error;

/// One queue's heartbeat. Each shard owns its own; a beat is one system call, so not one for each packet.
pub struct Beat {
    beats: Array<MapData, u64>,
    queue: u32,
}

impl Beat {
    pub(crate) fn new(beats: Array<MapData, u64>, queue: u32) -> Self {
        Self { beats, queue }
    }

    /// Says that the shard was alive at `now_ns`, of the clock that [`monotonic_ns`] reads.
    ///
    /// # Errors
    /// When the kernel refuses, for which no reason is known while the map exists.
    pub fn beat(&mut self, now_ns: u64) -> Result<(), Error> {
        self.beats.set(self.queue, now_ns, 0).map_err(Error::map(map::BEATS))
    }

    /// Says that the shard is going: from here on, new connections of its queue go to the kernel.
    ///
    /// # Errors
    /// As [`beat`](Self::beat).
    pub fn stop(&mut self) -> Result<(), Error> {
        self.beat(0)
    }
}

/// Now, in ns of CLOCK_MONOTONIC: the clock that the program compares beats with.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
