//! The blocks of the shards, and of those that come after them.

use std::sync::Arc;

use super::{Counter, ShardCounters, Shards, WorkerCounters};

/// The blocks of all shards that there have been. Fewer may run.
#[derive(Debug, Default)]
pub(super) struct Sharded {
    pub(super) running: usize,
    pub(super) workers: Vec<Arc<WorkerCounters>>,
    pub(super) shards: Vec<Arc<ShardCounters>>,
    /// By exit of the steering program, which all shards of an interface share.
    pub(super) steering: Arc<[Counter]>,
}

impl Sharded {
    /// For the shards that come after these, so many of them.
    pub(super) fn successor(&self, running: usize, labels: &Shards) -> Self {
        let blocks = running.max(self.shards.len());
        let worker = |index: usize| {
            self.workers.get(index).map_or_else(WorkerCounters::default, |it| it.as_ref().clone())
        };
        let new_shard = || ShardCounters::new(labels.drop_reasons.len());
        let shard = |index: usize| self.shards.get(index).map_or_else(new_shard, |it| it.as_ref().clone());
        let exit = |exit| self.steering.get(exit).cloned().unwrap_or_default();
        Self {
            running,
            workers: (0..blocks).map(|index| Arc::new(worker(index))).collect(),
            shards: (0..blocks).map(|index| Arc::new(shard(index))).collect(),
            steering: (0..labels.steering_exits.len()).map(exit).collect(),
        }
    }
}
