//! Tokens: a frame, a received packet, and the count of all frames.

use std::fmt;
use std::ops::Range;

/// One frame of packet memory. Whoever has the token owns the bytes; it is given back with
/// [`Socket::release`](crate::Socket::release). Dropping it leaks the frame, which [`Census`] shows.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped frame is lost: release it"]
pub struct Frame {
    pub(crate) index: u32,
}

/// A packet that was received: `bytes(&frame)[range]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    /// The frame that holds it.
    pub frame: Frame,
    /// Where it lies, counted from the frame's first byte. It starts at 0 unless the driver or the XDP
    /// program moved it back.
    pub range: Range<usize>,
}

/// The transmit ring has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the transmit ring has no room")
    }
}

impl std::error::Error for Full {}

/// Who has a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameState {
    /// Nobody; it waits in the pool.
    Free,
    /// The kernel, to write a received packet into.
    Fill,
    /// Whoever holds the token.
    Ours,
    /// The holder of the token and the kernel, which reads it to send it.
    InFlight,
    /// The kernel, which still reads it; its token was given back.
    InFlightReleased,
}

impl FrameState {
    /// Number of states.
    pub(crate) const COUNT: usize = 5;
}

/// How many frames are in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// All frames of the memory.
    pub total: u32,
    /// In the pool.
    pub free: u32,
    /// In the fill ring, or taken from it by the kernel and not yet received.
    pub fill: u32,
    /// Tokens out, not in flight. More than the caller knows of is a leak.
    pub ours: u32,
    /// Tokens out, in flight.
    pub in_flight: u32,
    /// Tokens back, but still in flight.
    pub in_flight_released: u32,
    /// The running counts, a recount of all states and the free list agree.
    pub consistent: bool,
}

impl Census {
    /// Tokens that somebody must be holding.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.ours + self.in_flight
    }

    /// True if every frame is in exactly one state and the books agree.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let sum = self.free + self.fill + self.ours + self.in_flight + self.in_flight_released;
        self.consistent && sum == self.total
    }
}
