//! What the stack needs from below: memory of packets, and a wire on which they leave.
//!
//! ```text
//!   frame as the stack sees it, always from byte 0:
//!
//!     0            hop.header_len          + IP            + TCP
//!     ├─ link header ─┼──── IP header ────┼── TCP header ──┼──── payload ────┤······ room ······┤
//!       the link's       the stack's        the stack's       the driver's
//! ```
//! Two implementations drive the stack: AF_XDP frames (`userspace/proxy`), and memory (tests, replay).
//!
//! # A frame's life
//!
//! ```text
//!            allocate            transmit                completed by the device
//!   free ──────────────► ours ──────────────► ours, in flight ───────────────► ours
//!    ▲                    │                        │
//!    │      release       │        release         ▼
//!    └────────────────────┘◄──────────────── free once completed
//! ```
//! Completion and acknowledgement are different events. A frame that was released while the device still
//! reads it becomes free only when the device is done; a frame that is in flight must not be written. So a
//! transmitted frame is the retransmission buffer, and nobody frees one by its offset.

use std::net::IpAddr;
use std::ops::Range;

/// Memory of packets and the wire.
pub trait Link {
    /// Token of one frame, move-only: whoever has it owns the bytes. It is given back with
    /// [`release`](Self::release); dropping it instead would leak the frame.
    type Frame;

    /// A frame to write into. `None` if none is free: the caller must cope and try again later.
    fn allocate(&mut self) -> Option<Self::Frame>;

    /// Gives a frame back. If the device still reads it, it is free once that is done.
    fn release(&mut self, frame: Self::Frame);

    /// All bytes of a frame.
    fn bytes<'a>(&'a self, frame: &'a Self::Frame) -> &'a [u8];

    /// All bytes of a frame, to be written.
    ///
    /// # Panics
    /// If the frame is in flight.
    fn bytes_mut<'a>(&'a mut self, frame: &'a mut Self::Frame) -> &'a mut [u8];

    /// Copies `range` of one frame's bytes to offset `at` of another, which is not in flight.
    fn copy(&mut self, from: &Self::Frame, range: Range<usize>, to: &mut Self::Frame, at: usize);

    /// True from [`transmit`](Self::transmit) until the device has completed the frame.
    fn is_in_flight(&self, frame: &Self::Frame) -> bool;

    /// Sends the first `len` bytes of a frame over `hop`, whose header this writes into the frame's first
    /// [`Hop::header_len`] bytes. The caller keeps the token, and the frame is in flight. While the
    /// neighbour is not resolved, the link may park a copy instead.
    ///
    /// # Errors
    /// [`Full`] if the transmit ring has no room; nothing happened then.
    ///
    /// # Panics
    /// If the frame is in flight already.
    fn transmit(&mut self, frame: &mut Self::Frame, len: usize, hop: Hop) -> Result<(), Full>;

    /// Where packets from `local` to `remote` go next, on the VLAN `vlan` if the flow came with a tag.
    /// `None`: no route.
    fn hop(&mut self, local: IpAddr, remote: IpAddr, vlan: Option<VlanTag>) -> Option<Hop>;

    /// Frames free now, but for those that the link itself needs to receive into: what its fill ring lacks does not
    /// count. The stack shares memory out by this.
    fn frames_free(&self) -> usize;

    /// All frames of this link.
    fn frames_total(&self) -> usize;
}

/// The transmit ring has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Next hop of a flow, named by the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The link's own name for it.
    pub id: u32,
    /// Bytes of its link header: 14 for Ethernet, 4 more for each VLAN tag, 0 for a bare IP link.
    pub header_len: u8,
    /// Largest IP packet it takes.
    pub mtu_bytes: u16,
}

/// Innermost VLAN tag of a frame: priority, DEI and identifier as on the wire (IEEE 802.1Q).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VlanTag(pub u16);
