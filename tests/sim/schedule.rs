//! Virtual time: what happens next, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use mtproxy_core::event::DialError;
use mtproxy_core::stream::StreamId;
use mtproxy_core::time::{Instant, Now, UnixSeconds};

use crate::plan::UNIX_SECONDS;

/// Something that happens at one moment. Peers and connections are named by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A client connects.
    Connect { peer: usize },
    /// A peer has something to say, or to end.
    Speak { peer: usize },
    /// A peer takes what has come.
    Listen { peer: usize },
    /// A peer resets its connection.
    Reset { peer: usize },
    /// The parcel in front of a pipe arrives.
    Arrive { connection: usize, at: End },
    /// The driver looks after a stream.
    Poll { stream: StreamId },
    /// A dial has ended well, or not.
    Answer { stream: StreamId, attempt: u32, refused: Option<DialError> },
    /// The operator reloads the configuration.
    Reload,
    /// The operator stops the proxy.
    Stop,
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Proxy,
    Peer,
}

struct Entry {
    at: Duration,
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
    pub(crate) elapsed: Duration,
    numbered: u64,
}

impl Schedule {
    pub(crate) fn now(&self) -> Now {
        Now {
            instant: Instant::after_origin(self.elapsed),
            unix: UnixSeconds(u64::from(UNIX_SECONDS) + self.elapsed.as_secs()),
        }
    }

    pub(crate) fn at(&mut self, at: Duration, moment: Moment) {
        self.numbered += 1;
        self.heap.push(Reverse(Entry { at, number: self.numbered, moment }));
    }

    pub(crate) fn after(&mut self, delay: Duration, moment: Moment) {
        self.at(self.elapsed + delay, moment);
    }

    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|entry| entry.0.at)
    }

    /// Moves on to the next moment. One that was overtaken happens now.
    pub(crate) fn pop(&mut self) -> Option<Moment> {
        let entry = self.heap.pop()?.0;
        self.move_to(entry.at);
        Some(entry.moment)
    }

    /// Time never goes backwards.
    pub(crate) fn move_to(&mut self, at: Duration) {
        self.elapsed = self.elapsed.max(at);
    }

    pub(crate) fn moments_passed(&self) -> u64 {
        self.numbered - self.heap.len() as u64
    }
}
