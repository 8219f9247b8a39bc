//! A link as AF_XDP is one, without the device: frames in one block of memory, and a ring of what was
//! transmitted.
//!
//! Unlike `mtproxy_tcp::memory_link`, which copies what is sent, a packet stays in its frame until whoever
//! reads it has completed it. So what is measured over this link is the relay's work alone.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;

use mtproxy_tcp::link::{Full, Hop, Link, VlanTag};
use mtproxy_tcp::memory_link::ETHERNET;

/// Room of one frame: an Ethernet frame and what AF_XDP keeps free before it.
const FRAME_BYTES: usize = 2048;

/// Token of one frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    index: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Ours,
    InFlight,
    /// Released while it was in flight.
    Leaving,
}

/// The frames, and the ring.
pub struct Umem {
    memory: Box<[u8]>,
    places: Vec<Place>,
    free: Vec<u32>,
    /// Frame and length of what was transmitted and not yet completed, oldest first.
    ring: VecDeque<(u32, usize)>,
}

impl Umem {
    /// So many free frames.
    ///
    /// # Panics
    /// If a `u32` does not count them.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        let count = u32::try_from(frames).expect("a link has far fewer frames");
        Self {
            // Written, so that all of it is resident from the beginning.
            memory: vec![0x5a; frames * FRAME_BYTES].into_boxed_slice(),
            places: vec![Place::Free; frames],
            free: (0..count).rev().collect(),
            ring: VecDeque::with_capacity(frames),
        }
    }

    /// Shows `read` the oldest transmitted packet, which is completed thereby. False if there is none.
    pub fn complete_one(&mut self, read: impl FnOnce(&[u8])) -> bool {
        let Some((index, len)) = self.ring.pop_front() else { return false };
        read(&self.memory[range(index)][..len]);
        let place = &mut self.places[index as usize];
        if *place == Place::Leaving {
            *place = Place::Free;
            self.free.push(index);
        } else {
            *place = Place::Ours;
        }
        true
    }

    fn assert_ours(&self, frame: &Frame) {
        assert_eq!(self.places[frame.index as usize], Place::Ours, "frame {} is not ours", frame.index);
    }
}

fn range(index: u32) -> Range<usize> {
    let start = index as usize * FRAME_BYTES;
    start..start + FRAME_BYTES
}

impl Link for Umem {
    type Frame = Frame;

    fn allocate(&mut self) -> Option<Frame> {
        let index = self.free.pop()?;
        self.places[index as usize] = Place::Ours;
        Some(Frame { index })
    }

    fn release(&mut self, frame: Frame) {
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

    fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        &self.memory[range(frame.index)]
    }

    fn bytes_mut<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.assert_ours(frame);
        &mut self.memory[range(frame.index)]
    }

    fn copy(&mut self, from: &Frame, part: Range<usize>, to: &mut Frame, at: usize) {
        self.assert_ours(to);
        let Ok([from, to]) = self.memory.get_disjoint_mut([range(from.index), range(to.index)]) else {
            panic!("frame {} is copied into itself", from.index)
        };
        to[at..at + part.len()].copy_from_slice(&from[part]);
    }

    fn is_in_flight(&self, frame: &Frame) -> bool {
        self.places[frame.index as usize] == Place::InFlight
    }

    fn transmit(&mut self, frame: &mut Frame, len: usize, hop: Hop) -> Result<(), Full> {
        self.assert_ours(frame);
        let header = &mut self.memory[range(frame.index)][..usize::from(hop.header_len)];
        header.copy_from_slice(&LINK_HEADER);
        self.places[frame.index as usize] = Place::InFlight;
        self.ring.push_back((frame.index, len));
        Ok(())
    }

    fn hop(&mut self, _: IpAddr, _: IpAddr, _: Option<VlanTag>) -> Option<Hop> {
        Some(ETHERNET)
    }

    fn frames_free(&self) -> usize {
        self.free.len()
    }

    fn frames_total(&self) -> usize {
        self.places.len()
    }
}

/// Between locally administered addresses, IPv4.
pub(super) const LINK_HEADER: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
