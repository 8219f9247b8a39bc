//! What a socket is asked to be.

use std::fmt;

/// Bytes of a chunk in front of a packet, kept by the kernel for XDP programs (`XDP_PACKET_HEADROOM`,
/// include/uapi/linux/bpf.h). A frame's first byte, for us, is the one behind them.
pub(crate) const HEADROOM: usize = 256;

/// What to bind, and with how much memory.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the interface.
    pub interface: String,
    /// Its queue, from 0.
    pub queue: u32,
    /// Frames of packet memory. Huge pages round them up.
    pub frames: u32,
    /// Bytes of a chunk.
    pub chunk: ChunkSize,
    /// Try huge pages first; without any, ordinary ones serve.
    pub huge_pages: bool,
    /// Descriptors of the RX ring: how many packets may wait for us. A power of two, as all four.
    pub rx_ring: u32,
    /// Descriptors of the TX ring.
    pub tx_ring: u32,
    /// Descriptors of the fill ring.
    pub fill_ring: u32,
    /// Descriptors of the completion ring. With fewer than may be in flight, sending waits for
    /// [`Socket::complete`](crate::Socket::complete).
    pub completion_ring: u32,
    /// How many frames [`Socket::refill`](crate::Socket::refill) keeps with the kernel to receive into. At
    /// least what the device's own ring holds, or it starves; no more than the fill ring holds.
    pub fill_target: u32,
    /// Frames that refill leaves in the pool, so that a flood of packets cannot take the means to answer.
    pub transmit_reserve: u32,
    /// Which modes to try.
    pub modes: ModeLadder,
    /// Ask for preferred busy polling.
    pub busy_poll: Option<BusyPoll>,
}

impl Settings {
    /// A socket of ordinary size: 8192 frames of 2 KiB (16 MiB), rings of 2048 descriptors.
    #[must_use]
    pub fn new(interface: &str, queue: u32) -> Self {
        Self {
            interface: interface.to_owned(),
            queue,
            frames: 8192,
            chunk: ChunkSize::Bytes2048,
            huge_pages: false,
            rx_ring: 2048,
            tx_ring: 2048,
            fill_ring: 2048,
            completion_ring: 2048,
            fill_target: 2048,
            transmit_reserve: 1024,
            modes: ModeLadder::ZeroCopyThenCopy,
            busy_poll: None,
        }
    }

    /// The first thing in here that cannot work.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let rings = [self.rx_ring, self.tx_ring, self.fill_ring, self.completion_ring];
        if !rings.iter().all(|size| size.is_power_of_two()) {
            return Err("the sizes of the rings must be powers of two");
        }
        if self.fill_target == 0 || self.fill_target > self.fill_ring {
            return Err("the fill target must be at least 1 and no more than the fill ring holds");
        }
        if self.frames.checked_sub(self.transmit_reserve).is_none_or(|rest| rest < self.fill_target) {
            return Err("there must be frames for the fill target and the transmit reserve together");
        }
        Ok(())
    }
}

/// Bytes of a chunk: a frame and the kernel's headroom in front of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChunkSize {
    /// Two in a page: 1792 bytes of packet, enough for an MTU of 1500.
    #[default]
    Bytes2048,
    /// A page: 3840 bytes of packet. For drivers that take nothing smaller.
    Bytes4096,
}

impl ChunkSize {
    /// Size of the chunk.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Bytes2048 => 2048,
            Self::Bytes4096 => 4096,
        }
    }

    /// Size of a frame: what is left for a packet.
    #[must_use]
    pub fn capacity(self) -> usize {
        self.bytes() - HEADROOM
    }
}

/// How packets get between the device and the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindMode {
    /// The device reads and writes the frames.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

impl fmt::Display for BindMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        })
    }
}

/// Which modes may be tried, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeLadder {
    /// The best that the driver has.
    #[default]
    ZeroCopyThenCopy,
    /// Nothing else will do.
    ZeroCopy,
    /// For drivers whose zero-copy is known to be broken.
    Copy,
}

impl ModeLadder {
    pub(crate) fn rungs(self) -> &'static [BindMode] {
        match self {
            Self::ZeroCopyThenCopy => &[BindMode::ZeroCopy, BindMode::Copy],
            Self::ZeroCopy => &[BindMode::ZeroCopy],
            Self::Copy => &[BindMode::Copy],
        }
    }
}

/// Preferred busy polling: system calls of the socket run the device's queue, instead of its interrupts
/// (Documentation/networking/napi.rst). It does nothing unless the interface's `napi_defer_hard_irqs` and
/// `gro_flush_timeout` are set, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long a call may poll, in microseconds. 64 is Firedancer's.
    pub busy_us: u32,
    /// How many packets a call may take. 64 is the budget of an interrupt.
    pub budget_packets: u32,
}

impl Default for BusyPoll {
    fn default() -> Self {
        Self { busy_us: 64, budget_packets: 64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_that_is_no_power_of_two_is_refused() {
        for ring in [0, 3, 511] {
            assert!(Settings { tx_ring: ring, ..Settings::new("eth0", 0) }.check().is_err());
        }
        assert!(Settings { tx_ring: 512, ..Settings::new("eth0", 0) }.check().is_ok());
    }

    #[test]
    fn the_fill_target_is_between_one_and_the_fill_ring() {
        for (target, fits) in [(0, false), (1, true), (2048, true), (2049, false)] {
            let settings = Settings { fill_target: target, ..Settings::new("eth0", 0) };
            assert_eq!(settings.check().is_ok(), fits, "{target}");
        }
    }

    #[test]
    fn fill_target_and_reserve_fit_into_the_memory_together() {
        for (frames, fits) in [(3071, false), (3072, true), (1000, false)] {
            let settings = Settings { frames, ..Settings::new("eth0", 0) };
            assert_eq!(settings.check().is_ok(), fits, "{frames}");
        }
    }
}
