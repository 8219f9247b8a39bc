//! Virtual time: what happens next, and when. Microseconds since the run began.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::network::Packet;

/// Something that happens at one moment. Hosts, conversations and frames are named by their index.
pub(crate) enum Moment {
    /// A packet reaches a host's device.
    Arrive { host: usize, packet: Box<Packet> },
    /// A host looks at what its device received.
    Poll { host: usize },
    /// A host's device has sent a frame.
    Complete { host: usize, frame: u32 },
    /// A conversation begins.
    Connect { conversation: usize },
    /// An end of a conversation may have something to write, read or end.
    Act { conversation: usize, end: usize },
    /// The storm sends its next SYN.
    Storm,
    /// Somebody off the path sends a forged segment to an end of a conversation.
    Forge { conversation: usize },
    /// A host's driver stops its stack.
    Stop { host: usize },
    /// A conversation should be over by now.
    Judge { conversation: usize },
    /// A route goes, or comes back.
    Route { host: usize, is_there: bool },
}

struct Entry {
    at: u64,
    number: u64,
    moment: Moment,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The moments to come, and the present one.
#[derive(Default)]
pub(crate) struct Schedule {
    heap: BinaryHeap<Reverse<Entry>>,
    pub(crate) now: u64,
    numbered: u64,
}

impl Schedule {
    pub(crate) fn at(&mut self, at: u64, moment: Moment) {
        self.numbered += 1;
        self.heap.push(Reverse(Entry { at: at.max(self.now), number: self.numbered, moment }));
    }

    pub(crate) fn after(&mut self, delay: u64, moment: Moment) {
        self.at(self.now + delay, moment);
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.0.at)
    }

    /// Moves on to the next moment.
    pub(crate) fn pop(&mut self) -> Option<Moment> {
        let entry = self.heap.pop()?.0;
        self.move_to(entry.at);
        Some(entry.moment)
    }

    /// Time never goes backwards.
    pub(crate) fn move_to(&mut self, at: u64) {
        self.now = self.now.max(at);
    }
}
