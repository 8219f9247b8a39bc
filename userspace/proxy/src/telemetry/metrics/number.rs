//! Numbers that one thread writes and any thread reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that one thread increases and any thread reads.
#[derive(Debug, Default)]
pub struct Counter {
    /// Where its owner has begun.
    before: u64,
    value: AtomicU64,
}

/// For the thread that comes after the owner: its own totals begin at zero, what is read goes on.
impl Clone for Counter {
    fn clone(&self) -> Self {
        let before = self.get();
        Self { before, value: AtomicU64::new(before) }
    }
}

impl Counter {
    /// Adds `amount`. Only the thread that owns the counter may call this: with a single writer, a load
    /// and a store are enough, and cost what an ordinary addition costs.
    pub fn add(&self, amount: u64) {
        self.value.store(self.get().wrapping_add(amount), Relaxed);
    }

    /// Shows `total`, which its owner counts elsewhere, from zero on.
    pub fn publish(&self, total: u64) {
        self.value.store(self.before.wrapping_add(total), Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.value.load(Relaxed)
    }
}

/// A number that one thread sets and any thread reads.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// For the thread that comes after the owner, which has nothing to show yet.
impl Clone for Gauge {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Gauge {
    /// Shows `value` from now on.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
