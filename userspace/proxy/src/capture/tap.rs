//! A shard's side: packets are copied into a ring while somebody captures, and nothing happens while nobody does.
//!
//! Memory is taken and given back by the server's thread; a shard only fills what there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use crossbeam::queue::ArrayQueue;

use super::Selection;

/// Packets that wait in a shard's ring: those of some milliseconds at a million a second.
const RING_PACKETS: usize = 4096;

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the network.
    Received,
    /// To the network.
    Sent,
}

/// A packet, or its first bytes.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the turn began in which it came or went, since 1970.
    pub at: Duration,
    /// Which way it went.
    pub direction: Direction,
    /// How long it was, the link header included.
    pub len: usize,
    bytes: Box<[u8]>,
    kept: usize,
}

impl Record {
    /// What is kept of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.kept]
    }
}

/// One shard's packets on their way to the server.
#[derive(Debug)]
struct Ring {
    full: ArrayQueue<Box<Record>>,
    spare: ArrayQueue<Box<Record>>,
    selected: AtomicU64,
    lost: AtomicU64,
}

impl Ring {
    fn new(record_bytes: usize) -> Self {
        let ring = Self {
            full: ArrayQueue::new(RING_PACKETS),
            spare: ArrayQueue::new(RING_PACKETS),
            selected: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        };
        for _ in 0..RING_PACKETS {
            let record = Record {
                at: Duration::ZERO,
                direction: Direction::Received,
                len: 0,
                bytes: vec![0; record_bytes].into(),
                kept: 0,
            };
            // As many as there is room for.
            let _ = ring.spare.push(Box::new(record));
        }
        ring
    }
}

/// One capture, from its request to its end.
#[derive(Debug)]
pub struct Run {
    selection: Selection,
    key: u64,
    /// By shard.
    rings: Box<[Ring]>,
}

impl Run {
    /// Takes up to `most` packets of all shards, in the order of their times, and hands each to `take`, with the number of
    /// its shard. Answers how many.
    pub fn drain(&self, most: usize, mut take: impl FnMut(usize, &Record)) -> usize {
        let mut batch: Vec<(usize, Box<Record>)> = Vec::new();
        // A ring that is never empty leaves the others their share.
        let share = (most / self.rings.len().max(1)).max(1);
        for (shard, ring) in self.rings.iter().enumerate() {
            let left = most.saturating_sub(batch.len()).min(share);
            batch.extend(std::iter::from_fn(|| ring.full.pop()).take(left).map(|record| (shard, record)));
        }
        batch.sort_by_key(|(_, record)| record.at);
        let count = batch.len();
        for (shard, record) in batch {
            take(shard, &record);
            // It came from there, so that there is room.
            let _ = self.rings[shard].spare.push(record);
        }
        count
    }

    /// By shard: packets that were selected, and those of them that found the ring full.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.rings.iter().map(|ring| (ring.selected.load(Relaxed), ring.lost.load(Relaxed)))
    }
}

/// What the shards of one interface and the server have in common.
#[derive(Debug, Default)]
pub struct Capture {
    is_wanted: AtomicBool,
    run: ArcSwapOption<Run>,
    shards: AtomicUsize,
}

impl Capture {
    /// So many shards run from now on. A capture of those before is over.
    pub fn renew_shards(&self, shards: usize) {
        self.end();
        self.shards.store(shards, Relaxed);
    }

    /// False while AF_XDP is lost.
    #[must_use]
    pub fn has_shards(&self) -> bool {
        self.shards.load(Relaxed) > 0
    }

    /// The tap of one shard, counted from zero.
    #[must_use]
    pub fn tap(self: &Arc<Self>, shard: usize) -> Tap {
        Tap { capture: Arc::clone(self), shard, run: None, at: Duration::ZERO }
    }

    /// Begins a capture.
    #[must_use]
    pub fn begin(&self, selection: Selection, key: u64) -> Arc<Run> {
        let rings = (0..self.shards.load(Relaxed)).map(|_| Ring::new(selection.kept_bytes_max())).collect();
        let run = Arc::new(Run { selection, key, rings });
        self.run.store(Some(Arc::clone(&run)));
        self.is_wanted.store(true, Relaxed);
        if self.shards.load(Relaxed) != run.rings.len() {
            // Others have been started meanwhile.
            self.end();
        }
        run
    }

    /// Ends it, if there is one. Shards see that with their next turn.
    pub fn end(&self) {
        self.is_wanted.store(false, Relaxed);
        self.run.store(None);
    }

    /// True if this is the capture under way.
    #[must_use]
    pub fn is_under_way(&self, run: &Arc<Run>) -> bool {
        self.run.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, run))
    }
}

/// One shard's end.
#[derive(Debug)]
pub struct Tap {
    capture: Arc<Capture>,
    shard: usize,
    run: Option<Arc<Run>>,
    at: Duration,
}

impl Tap {
    /// A turn begins.
    pub fn begin_turn(&mut self) {
        if self.capture.is_wanted.load(Relaxed) {
            self.run = self.capture.run.load_full();
            // A clock before 1970 is zero as well as anything.
            self.at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        } else if self.run.is_some() {
            self.run = None;
        }
    }

    /// A packet came or goes.
    pub fn note(&self, direction: Direction, frame: &[u8]) {
        if let Some(run) = &self.run {
            self.copy(run, direction, frame);
        }
    }

    #[cold]
    fn copy(&self, run: &Run, direction: Direction, frame: &[u8]) {
        // A shard that was started since the capture began has no ring.
        let Some(ring) = run.rings.get(self.shard) else { return };
        let Some(kept) = run.selection.kept(frame, run.key) else { return };
        // One writer: a load and a store are enough.
        ring.selected.store(ring.selected.load(Relaxed) + 1, Relaxed);
        let Some(mut record) = ring.spare.pop() else {
            ring.lost.store(ring.lost.load(Relaxed) + 1, Relaxed);
            return;
        };
        record.bytes[..kept].copy_from_slice(&frame[..kept]);
        record.kept = kept;
        record.len = frame.len();
        (record.at, record.direction) = (self.at, direction);
        // As many records exist as fit.
        let _ = ring.full.push(record);
    }
}
