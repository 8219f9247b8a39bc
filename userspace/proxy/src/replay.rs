//! One replay cache for all workers: a hello that one of them admitted is a replay for every other.
//!
//! The lock is taken once for each authentic hello and held for two table operations.

use std::sync::{Arc, Mutex, PoisonError};

use mtproxy_core::error::PeerMisbehaved;
use mtproxy_core::policy::replay::{HelloAdmission, HelloId, ReplayCache};
use mtproxy_core::time::UnixSeconds;

/// A handle to the cache that all workers share.
#[derive(Clone, Debug)]
pub struct SharedReplayCache(Arc<Mutex<ReplayCache>>);

impl SharedReplayCache {
    /// Shares `cache`.
    #[must_use]
    pub fn new(cache: ReplayCache) -> Self {
        Self(Arc::new(Mutex::new(cache)))
    }
}

impl HelloAdmission for SharedReplayCache {
    fn admit(&mut self, id: HelloId, client_clock: u32, now: UnixSeconds) -> Result<(), PeerMisbehaved> {
        // A worker that panicked inside left at worst one hello counted but not listed: still a cache.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(id, client_clock, now)
    }
}
