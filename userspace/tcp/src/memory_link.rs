//! A [`Link`] in memory: frames in a vector, a wire that is a queue, a device whose completions and limits
//! are the test's to decide.
//!
//! For tests, simulation and benchmarks. It checks what a real device would not forgive: a frame that is
//! written or sent again while in flight panics here.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;

use crate::link::{Full, Hop, Link, VlanTag};

/// Ethernet, an MTU of 1500 bytes.
pub const ETHERNET: Hop = Hop { id: 0, header_len: 14, mtu_bytes: 1500 };

/// Token of one frame of a [`MemoryLink`].
#[derive(Debug, PartialEq, Eq)]
pub struct MemoryFrame {
    index: u32,
}

/// When the device is done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// At once: no frame is ever in flight.
    AtOnce,
    /// When [`MemoryLink::complete`] says so.
    ByHand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Ours,
    InFlight,
    /// Released by the stack while the device still reads it.
    Leaving,
}

/// Frames, and a wire on which transmitted packets wait to be taken.
#[derive(Debug)]
pub struct MemoryLink {
    memory: Vec<Box<[u8]>>,
    places: Vec<Place>,
    free: Vec<u32>,
    in_flight: VecDeque<u32>,
    wire: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    completion: Completion,
    hop: Option<Hop>,
    ring_room: usize,
}

impl MemoryLink {
    /// `frames` frames of `frame_bytes` bytes each; completions at once, [`ETHERNET`], a ring without end.
    ///
    /// # Panics
    /// If there are more frames than a `u32` counts.
    #[must_use]
    pub fn new(frames: usize, frame_bytes: usize) -> Self {
        let count = u32::try_from(frames).expect("a test has few frames");
        Self {
            memory: (0..frames).map(|_| vec![0; frame_bytes].into_boxed_slice()).collect(),
            places: vec![Place::Free; frames],
            free: (0..count).rev().collect(),
            in_flight: VecDeque::with_capacity(frames),
            wire: VecDeque::new(),
            spare: Vec::new(),
            completion: Completion::AtOnce,
            hop: Some(ETHERNET),
            ring_room: usize::MAX,
        }
    }

    /// Decides when frames are completed.
    pub fn set_completion(&mut self, completion: Completion) {
        self.completion = completion;
    }

    /// The next hop of every flow; `None`: no route.
    pub fn set_hop(&mut self, hop: Option<Hop>) {
        self.hop = hop;
    }

    /// So many more packets are taken before the ring is full.
    pub fn set_ring_room(&mut self, packets: usize) {
        self.ring_room = packets;
    }

    /// The device is done with the oldest `frames` frames in flight.
    pub fn complete(&mut self, frames: usize) {
        for _ in 0..frames {
            let Some(index) = self.in_flight.pop_front() else { return };
            let place = &mut self.places[index as usize];
            match *place {
                Place::InFlight => *place = Place::Ours,
                Place::Leaving => {
                    *place = Place::Free;
                    self.free.push(index);
                }
                Place::Free | Place::Ours => panic!("frame {index} was in flight, but is {place:?}"),
            }
        }
    }

    /// The oldest packet on the wire, from its link header.
    pub fn take_sent(&mut self) -> Option<Vec<u8>> {
        self.wire.pop_front()
    }

    /// Packets that wait on the wire.
    #[must_use]
    pub fn sent_count(&self) -> usize {
        self.wire.len()
    }

    /// Gives a taken packet's memory back, so that a steady state needs no new.
    pub fn recycle(&mut self, packet: Vec<u8>) {
        self.spare.push(packet);
    }

    /// A frame that holds `packet`, as if it had been received. `None` if no frame is free.
    ///
    /// # Panics
    /// If the packet is longer than a frame.
    pub fn received(&mut self, packet: &[u8]) -> Option<(MemoryFrame, Range<usize>)> {
        let mut frame = self.allocate()?;
        self.bytes_mut(&mut frame)[..packet.len()].copy_from_slice(packet);
        Some((frame, 0..packet.len()))
    }

    /// Frames that are not free, for conservation checks: held by the stack, the driver, or in flight.
    #[must_use]
    pub fn frames_taken(&self) -> usize {
        self.memory.len() - self.free.len()
    }

    /// Frames that the device still reads.
    #[must_use]
    pub fn frames_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn write_link_header(packet: &mut [u8], hop: Hop) {
        let header_len = usize::from(hop.header_len);
        if header_len < 14 {
            return;
        }
        let ether_type: [u8; 2] = if packet[header_len] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        // Locally administered addresses.
        packet[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        for tag in packet[12..header_len - 2].chunks_exact_mut(4) {
            tag.copy_from_slice(&[0x81, 0x00, 0, 0]);
        }
        packet[header_len - 2..header_len].copy_from_slice(&ether_type);
    }
}

impl Link for MemoryLink {
    type Frame = MemoryFrame;

    fn allocate(&mut self) -> Option<MemoryFrame> {
        let index = self.free.pop()?;
        self.places[index as usize] = Place::Ours;
        Some(MemoryFrame { index })
    }

    fn release(&mut self, frame: MemoryFrame) {
        let place = &mut self.places[frame.index as usize];
        match *place {
            Place::Ours => {
                *place = Place::Free;
                self.free.push(frame.index);
            }
            Place::InFlight => *place = Place::Leaving,
            Place::Free | Place::Leaving => panic!("frame {} is released twice", frame.index),
        }
    }

    fn bytes<'a>(&'a self, frame: &'a MemoryFrame) -> &'a [u8] {
        &self.memory[frame.index as usize]
    }

    fn bytes_mut<'a>(&'a mut self, frame: &'a mut MemoryFrame) -> &'a mut [u8] {
        assert_eq!(
            self.places[frame.index as usize],
            Place::Ours,
            "frame {} is not ours to write",
            frame.index
        );
        &mut self.memory[frame.index as usize]
    }

    fn copy(&mut self, from: &MemoryFrame, range: Range<usize>, to: &mut MemoryFrame, at: usize) {
        assert_eq!(self.places[to.index as usize], Place::Ours, "frame {} is not ours to write", to.index);
        let Ok([from, to]) = self.memory.get_disjoint_mut([from.index as usize, to.index as usize]) else {
            panic!("frame {} is copied into itself", from.index)
        };
        to[at..at + range.len()].copy_from_slice(&from[range]);
    }

    fn is_in_flight(&self, frame: &MemoryFrame) -> bool {
        self.places[frame.index as usize] == Place::InFlight
    }

    fn transmit(&mut self, frame: &mut MemoryFrame, len: usize, hop: Hop) -> Result<(), Full> {
        let place = self.places[frame.index as usize];
        assert_eq!(place, Place::Ours, "frame {} cannot be transmitted", frame.index);
        self.ring_room = self.ring_room.checked_sub(1).ok_or(Full)?;
        Self::write_link_header(&mut self.memory[frame.index as usize], hop);
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.clear();
        packet.extend_from_slice(&self.memory[frame.index as usize][..len]);
        self.wire.push_back(packet);
        if self.completion == Completion::ByHand {
            self.places[frame.index as usize] = Place::InFlight;
            self.in_flight.push_back(frame.index);
        }
        Ok(())
    }

    fn hop(&mut self, _local: IpAddr, _remote: IpAddr, _vlan: Option<VlanTag>) -> Option<Hop> {
        self.hop
    }

    fn frames_free(&self) -> usize {
        self.free.len()
    }

    fn frames_total(&self) -> usize {
        self.memory.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_released_in_flight_is_free_once_completed() {
        let mut link = MemoryLink::new(1, 64);
        link.set_completion(Completion::ByHand);
        let mut frame = link.allocate().unwrap();
        link.transmit(&mut frame, 40, ETHERNET).unwrap();
        assert!(link.is_in_flight(&frame));
        link.release(frame);
        assert!(link.allocate().is_none());
        link.complete(1);
        assert!(link.allocate().is_some());
    }

    #[test]
    fn a_full_ring_takes_nothing() {
        let mut link = MemoryLink::new(1, 64);
        link.set_ring_room(0);
        let mut frame = link.allocate().unwrap();
        assert_eq!(link.transmit(&mut frame, 40, ETHERNET), Err(Full));
        assert_eq!(link.sent_count(), 0);
        assert!(!link.is_in_flight(&frame));
    }

    #[test]
    #[should_panic(expected = "not ours to write")]
    fn a_frame_in_flight_is_not_written() {
        let mut link = MemoryLink::new(1, 64);
        link.set_completion(Completion::ByHand);
        let mut frame = link.allocate().unwrap();
        link.transmit(&mut frame, 40, ETHERNET).unwrap();
        link.bytes_mut(&mut frame)[0] = 1;
    }
}
