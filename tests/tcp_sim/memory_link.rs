//! A `Link` of memory: frames, a fill ring, a transmit ring, and a device that completes when it likes.
//!
//! ```text
//!   free ──► filled ──► held (by the stack or its driver) ──► free       receiving
//!   free ──► held ──► in flight ──► held ──► free                        transmitting, then released
//!                        └─ released ──► free once completed
//! ```
//! Every token is counted when it is given out and when it comes back.

use std::net::IpAddr;
use std::ops::Range;

use mtproxy_tcp::link::{Full, Hop, Link, VlanTag};

/// Bytes of a frame: a chunk of 2048 without XDP's headroom.
pub(crate) const FRAME_LEN: usize = 2048 - 256;

/// Destination and source, which nobody here looks at.
const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// Token of a frame.
#[derive(Debug)]
pub(crate) struct Frame(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Free,
    Filled,
    Held,
    InFlight,
    /// In flight, and nobody wants it back.
    Released,
}

/// What stands before the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Ethernet,
    /// With this tag.
    Vlan(u16),
}

impl Header {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Ethernet => 14,
            Self::Vlan(_) => 18,
        }
    }

    pub(crate) fn write(self, frame: &mut [u8]) {
        let ether_type: [u8; 2] = if frame[self.len()] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        match self {
            Self::Ethernet => {
                frame[..12].copy_from_slice(&ADDRESSES);
                frame[12..14].copy_from_slice(&ether_type);
            }
            Self::Vlan(tag) => {
                frame[..12].copy_from_slice(&ADDRESSES);
                frame[12..14].copy_from_slice(&[0x81, 0x00]);
                frame[14..16].copy_from_slice(&tag.to_be_bytes());
                frame[16..18].copy_from_slice(&ether_type);
            }
        }
    }
}

/// How a link is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) frames: usize,
    /// Frames that wait for packets, if there are as many.
    pub(crate) fill: usize,
    pub(crate) transmit_ring: usize,
    pub(crate) mtu_bytes: u16,
    pub(crate) header: Header,
}

pub(crate) struct MemoryLink {
    memory: Vec<u8>,
    status: Vec<Status>,
    free: Vec<u32>,
    filled: Vec<u32>,
    shape: Shape,
    in_flight: usize,
    held: usize,
    /// Given to the device since [`take_departures`](Self::take_departures).
    departures: Vec<(u32, usize)>,
    /// The route is known.
    pub(crate) is_routed: bool,
    pub(crate) mtu_bytes: u16,
    pub(crate) full_count: u64,
    pub(crate) exhausted_count: u64,
}

impl MemoryLink {
    pub(crate) fn new(shape: Shape) -> Self {
        let count = u32::try_from(shape.frames).expect("a few thousand frames");
        Self {
            memory: vec![0; shape.frames * FRAME_LEN],
            status: vec![Status::Free; shape.frames],
            free: (0..count).rev().collect(),
            filled: Vec::new(),
            shape,
            in_flight: 0,
            held: 0,
            departures: Vec::new(),
            is_routed: true,
            mtu_bytes: shape.mtu_bytes,
            full_count: 0,
            exhausted_count: 0,
        }
    }

    fn range(index: u32) -> Range<usize> {
        let at = index as usize * FRAME_LEN;
        at..at + FRAME_LEN
    }

    fn status(&mut self, frame: u32) -> &mut Status {
        &mut self.status[frame as usize]
    }

    /// Tokens that are out: with the stack or its driver.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Gives frames to the device for packets to come, but not the last ones: acknowledgements need some.
    pub(crate) fn refill(&mut self) {
        while self.filled.len() < self.shape.fill && self.free.len() > self.shape.frames / 32 {
            let Some(frame) = self.free.pop() else { return };
            *self.status(frame) = Status::Filled;
            self.filled.push(frame);
        }
    }

    /// A packet has come; `None` if no frame waits for it.
    pub(crate) fn place(&mut self, packet: &[u8], headroom: usize) -> Option<(Frame, Range<usize>)> {
        let frame = self.filled.pop()?;
        *self.status(frame) = Status::Held;
        self.held += 1;
        let bytes = &mut self.memory[Self::range(frame)];
        let range = headroom..headroom + packet.len();
        bytes[range.clone()].copy_from_slice(packet);
        Some((Frame(frame), range))
    }

    /// What was transmitted since the last call: frame and length, in order.
    pub(crate) fn take_departures(&mut self) -> Vec<(u32, usize)> {
        std::mem::take(&mut self.departures)
    }

    /// Bytes of a frame that is in flight.
    pub(crate) fn departing(&self, frame: u32, len: usize) -> &[u8] {
        &self.memory[Self::range(frame)][..len]
    }

    /// The device has sent the frame.
    pub(crate) fn complete(&mut self, frame: u32) {
        self.in_flight -= 1;
        match *self.status(frame) {
            Status::InFlight => *self.status(frame) = Status::Held,
            Status::Released => {
                *self.status(frame) = Status::Free;
                self.free.push(frame);
            }
            other => panic!("frame {frame} was completed while {other:?}"),
        }
    }

    /// The sums of all places where frames can be. In the end nothing is in flight or held.
    pub(crate) fn check_sums(&self) -> Result<(), String> {
        let count = |status| self.status.iter().filter(|found| **found == status).count();
        let (in_flight, released) = (count(Status::InFlight), count(Status::Released));
        let sums = [
            ("free", count(Status::Free), self.free.len()),
            ("filled", count(Status::Filled), self.filled.len()),
            ("held", count(Status::Held) + in_flight, self.held),
            ("in flight", in_flight + released, self.in_flight),
        ];
        match sums.iter().find(|(_, found, expected)| found != expected) {
            Some((name, found, expected)) => Err(format!("{found} frames {name}, expected {expected}")),
            None => Ok(()),
        }
    }
}

impl Link for MemoryLink {
    type Frame = Frame;

    fn allocate(&mut self) -> Option<Frame> {
        let Some(frame) = self.free.pop() else {
            self.exhausted_count += 1;
            return None;
        };
        *self.status(frame) = Status::Held;
        self.held += 1;
        Some(Frame(frame))
    }

    fn release(&mut self, frame: Frame) {
        let Frame(frame) = frame;
        self.held -= 1;
        match *self.status(frame) {
            Status::Held => {
                *self.status(frame) = Status::Free;
                // What nobody owns must not be relied upon.
                self.memory[Self::range(frame)][..64].fill(0xdb);
                self.free.push(frame);
            }
            Status::InFlight => *self.status(frame) = Status::Released,
            other => panic!("frame {frame} was released while {other:?}"),
        }
    }

    fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        &self.memory[Self::range(frame.0)]
    }

    fn bytes_mut<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        assert_eq!(*self.status(frame.0), Status::Held, "only what is not in flight may be written");
        &mut self.memory[Self::range(frame.0)]
    }

    fn copy(&mut self, from: &Frame, range: Range<usize>, to: &mut Frame, at: usize) {
        assert_eq!(*self.status(to.0), Status::Held, "only what is not in flight may be written");
        assert!(range.end <= FRAME_LEN && at + range.len() <= FRAME_LEN, "a copy stays within its frames");
        let source = Self::range(from.0).start;
        let target = Self::range(to.0).start + at;
        self.memory.copy_within(source + range.start..source + range.end, target);
    }

    fn is_in_flight(&self, frame: &Frame) -> bool {
        self.status[frame.0 as usize] == Status::InFlight
    }

    fn transmit(&mut self, frame: &mut Frame, len: usize, hop: Hop) -> Result<(), Full> {
        assert_eq!(*self.status(frame.0), Status::Held, "a frame is transmitted once at a time");
        assert!(
            len <= usize::from(hop.mtu_bytes) + usize::from(hop.header_len),
            "{len} bytes exceed {hop:?}"
        );
        if self.in_flight == self.shape.transmit_ring {
            self.full_count += 1;
            return Err(Full);
        }
        self.shape.header.write(&mut self.memory[Self::range(frame.0)]);
        *self.status(frame.0) = Status::InFlight;
        self.in_flight += 1;
        self.departures.push((frame.0, len));
        Ok(())
    }

    fn hop(&mut self, _local: IpAddr, _remote: IpAddr, _vlan: Option<VlanTag>) -> Option<Hop> {
        let header_len = u8::try_from(self.shape.header.len()).expect("a few bytes");
        self.is_routed.then_some(Hop { id: 1, header_len, mtu_bytes: self.mtu_bytes })
    }

    fn frames_free(&self) -> usize {
        self.free.len().saturating_sub(self.shape.fill - self.filled.len())
    }

    fn frames_total(&self) -> usize {
        self.shape.frames
    }
}
