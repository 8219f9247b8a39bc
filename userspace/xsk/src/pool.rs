//! Who has which frame: a table of states, a list of free frames, and no memory behind them.
//!
//! ```text
//!               fill                   received
//!       ┌────────────────► fill ──────────────────┐
//!       │                    │ bad length         ▼
//!     free ◄─────────────────┘                   ours ◄──────────┐
//!      ▲ ▲ │            allocate                  │ │            │ completed
//!      │ │ └──────────────────────────────────────┘ │ transmitted│
//!      │ │      release         (from ours)         ▼            │
//!      │ └──────────────────────────────────────── in flight ────┘
//!      │                                            │ release
//!      └──────────────── in flight, released ◄──────┘
//!            completed
//! ```
//! The kernel's side of each ring arrives here as an address. It is turned into a frame only if a frame in
//! the state that the ring implies lies there; nothing is indexed by a value that was not checked.

use std::ops::Range;

use crate::frame::{Census, Frame, FrameState};
use crate::settings::{ChunkSize, HEADROOM};

/// A descriptor that the kernel handed over and that cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadDescriptor {
    /// No frame lies there, or one that the kernel did not have. No state changed.
    Address,
    /// The packet does not lie within its frame, from its start on. The frame is free again.
    Length,
}

/// The states of all frames of one memory.
pub(crate) struct FramePool {
    chunk: ChunkSize,
    states: Box<[FrameState]>,
    /// Last in, first out: the frame that was used last is the one most likely in cache.
    free: Vec<u32>,
    counts: [u32; FrameState::COUNT],
}

impl FramePool {
    /// `frames` frames, all free.
    pub(crate) fn new(frames: u32, chunk: ChunkSize) -> Self {
        let mut counts = [0; FrameState::COUNT];
        counts[FrameState::Free as usize] = frames;
        Self {
            chunk,
            states: vec![FrameState::Free; frames as usize].into_boxed_slice(),
            free: (0..frames).rev().collect(),
            counts,
        }
    }

    /// How many frames are in `state`.
    pub(crate) fn count(&self, state: FrameState) -> u32 {
        self.counts[state as usize]
    }

    /// All frames.
    pub(crate) fn total(&self) -> u32 {
        u32::try_from(self.states.len()).expect("built from a u32")
    }

    /// State of a frame.
    ///
    /// # Panics
    /// If the frame belongs to a larger pool.
    pub(crate) fn state(&self, frame: &Frame) -> FrameState {
        self.states[frame.index as usize]
    }

    fn set(&mut self, index: u32, to: FrameState) {
        let state = &mut self.states[index as usize];
        self.counts[*state as usize] -= 1;
        self.counts[to as usize] += 1;
        *state = to;
    }

    fn set_free(&mut self, index: u32) {
        self.set(index, FrameState::Free);
        self.free.push(index);
    }

    /// A free frame becomes ours.
    pub(crate) fn allocate(&mut self) -> Option<Frame> {
        let index = self.free.pop()?;
        self.set(index, FrameState::Ours);
        Some(Frame { index })
    }

    /// A free frame goes to the fill ring; its index.
    pub(crate) fn fill(&mut self) -> Option<u32> {
        let index = self.free.pop()?;
        self.set(index, FrameState::Fill);
        Some(index)
    }

    /// The frame is free, or will be once the kernel has read it.
    ///
    /// # Panics
    /// If it is not out: the token is of another pool.
    pub(crate) fn release(&mut self, frame: Frame) {
        match self.state(&frame) {
            FrameState::Ours => self.set_free(frame.index),
            FrameState::InFlight => self.set(frame.index, FrameState::InFlightReleased),
            state => panic!("{frame:?} is given back while {state:?}: a token of another pool"),
        }
    }

    /// Our frame was put into the transmit ring.
    ///
    /// # Panics
    /// If it is not ours, or in flight already.
    pub(crate) fn transmitted(&mut self, frame: &Frame) {
        let state = self.state(frame);
        assert_eq!(state, FrameState::Ours, "{frame:?} cannot be transmitted");
        self.set(frame.index, FrameState::InFlight);
    }

    /// The RX ring says that a packet of `len` bytes lies at `address`.
    pub(crate) fn received(
        &mut self,
        address: usize,
        len: usize,
    ) -> Result<(Frame, Range<usize>), BadDescriptor> {
        let (index, offset) = self.locate(address, FrameState::Fill)?;
        // A packet that was moved in front of its start would have no place in bytes(): also that is bad.
        let range = offset.checked_sub(HEADROOM).and_then(|start| {
            let end = start.checked_add(len)?;
            (end <= self.chunk.capacity()).then_some(start..end)
        });
        let Some(range) = range else {
            self.set_free(index);
            return Err(BadDescriptor::Length);
        };
        self.set(index, FrameState::Ours);
        Ok((Frame { index }, range))
    }

    /// The completion ring says that the frame at `address` was read.
    pub(crate) fn completed(&mut self, address: usize) -> Result<(), BadDescriptor> {
        if let Ok((index, _)) = self.locate(address, FrameState::InFlightReleased) {
            self.set_free(index);
            return Ok(());
        }
        let (index, _) = self.locate(address, FrameState::InFlight)?;
        self.set(index, FrameState::Ours);
        Ok(())
    }

    /// The frame around `address` and the offset in its chunk, if it is in `state`.
    fn locate(&self, address: usize, state: FrameState) -> Result<(u32, usize), BadDescriptor> {
        let chunk = self.chunk.bytes();
        let (index, offset) = (address / chunk, address % chunk);
        if self.states.get(index) != Some(&state) {
            return Err(BadDescriptor::Address);
        }
        Ok((u32::try_from(index).expect("below the number of frames"), offset))
    }

    /// The running counts, unchecked.
    pub(crate) fn counts(&self) -> Census {
        Census {
            total: self.total(),
            free: self.count(FrameState::Free),
            fill: self.count(FrameState::Fill),
            ours: self.count(FrameState::Ours),
            in_flight: self.count(FrameState::InFlight),
            in_flight_released: self.count(FrameState::InFlightReleased),
            consistent: true,
        }
    }

    /// Counts anew. Costs a pass over all states: for exit, tests and rare checks.
    pub(crate) fn census(&self) -> Census {
        let mut recount = [0; FrameState::COUNT];
        for &state in &self.states {
            recount[state as usize] += 1;
        }
        let listed_are_free = self.free.iter().all(|&index| self.states[index as usize] == FrameState::Free);
        let all_free_are_listed = self.free.len() == self.count(FrameState::Free) as usize;
        Census {
            consistent: recount == self.counts && listed_are_free && all_free_are_listed,
            ..self.counts()
        }
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
