//! Counters, and the page that shows them.
//!
//! A worker counts in a block of its own, without contention; a scrape sums the blocks. A shard, the worker
//! whose datapath is AF_XDP, has a second block for its packets, and a successor when AF_XDP was lost and came back: then
//! counters go on from where they were ([`Counter::clone`]). To add a metric, add a field to
//! [`WorkerCounters`] or [`ShardCounters`] and a row to the list that [`all_metrics`] gives: the exposition and the table in
//! docs/operations.md, which a test compares, follow from the row.

mod by_thread;
mod exposition;
mod list;
mod middle_proxy;
mod number;
mod shard;
mod sharded;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use mtproxy_core::credentials::Credentials;
use mtproxy_core::error::{DropReason, PeerMisbehaved};

pub use exposition::{Kind, Metric};
use exposition::{Sample, one};
pub use middle_proxy::MiddleProxyCounters;
pub use number::{Counter, Gauge};
pub use shard::{BoundMode, LossReason, ShardCounters, Shards};
use sharded::Sharded;

/// How clients talk to us; the values of the label `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// obfuscated2, abridged or intermediate.
    Plain,
    /// obfuscated2, padded intermediate.
    Padded,
    /// Inside fake TLS.
    FakeTls,
}

/// The label values of [`Mode`], in its order.
pub const MODES: [&str; 3] = ["plain", "padded", "fake_tls"];

/// The label values of a dial failure, in the order of core's `DialError`.
pub const DIAL_FAILURES: [&str; 5] = ["refused", "unreachable", "timed_out", "no_resources", "other"];

/// Where bytes came from; the values of the label `from`.
pub const BYTE_ORIGINS: [&str; 2] = ["client", "upstream"];

/// What one worker counts. Blocks lie apart in memory, so that no two workers write to one cache line
/// (128 bytes, since processors fetch lines in pairs).
#[derive(Clone, Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// Clients accepted.
    pub sessions_opened: Counter,
    /// Sessions that ended with both sides finished.
    pub sessions_finished: Counter,
    /// Sessions that ended otherwise, by [`DropReason`].
    pub sessions_dropped: [Counter; DropReason::ALL.len()],
    /// Clients that showed a secret, by [`Mode`].
    pub authenticated: [Counter; MODES.len()],
    /// Strangers connected to the real site, by [`PeerMisbehaved`].
    pub fronted: [Counter; PeerMisbehaved::ALL.len()],
    /// Strangers met with silence, by [`PeerMisbehaved`].
    pub discarded: [Counter; PeerMisbehaved::ALL.len()],
    /// Authenticated clients that broke the protocol, by [`PeerMisbehaved`].
    pub misbehaved: [Counter; PeerMisbehaved::ALL.len()],
    /// Attempts to reach a data centre or front that failed, in the order of [`DIAL_FAILURES`].
    pub dial_failures: [Counter; DIAL_FAILURES.len()],
    /// Bytes received, in the order of [`BYTE_ORIGINS`].
    pub received_bytes: [Counter; BYTE_ORIGINS.len()],
    /// How often accepting was paused for want of descriptors or places.
    pub accept_pauses: Counter,
    /// Microseconds awake so far.
    pub awake_microseconds: Counter,
    /// Milliseconds slept so far.
    pub idle_milliseconds: Counter,
    /// How much of the last minutes was slept.
    pub recent_idle_permille: Gauge,
    /// What goes over middle proxies.
    pub middle_proxy: MiddleProxyCounters,
}

/// What is counted of one secret. All workers count here: once for each client, for which they share the
/// count of connections and the replay cache anyway.
#[derive(Debug)]
pub struct SecretCounters {
    name: String,
    authenticated: AtomicU64,
}

impl SecretCounters {
    /// The name of the secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another client has shown the secret.
    pub fn count_authenticated(&self) {
        self.authenticated.fetch_add(1, Relaxed);
    }
}

/// Everything that can be scraped.
#[derive(Debug)]
pub struct Metrics {
    started: SystemTime,
    is_draining: AtomicBool,
    connections_limit: usize,
    /// The workers of epoll.
    epoll: Box<[Arc<WorkerCounters>]>,
    sharded: ArcSwap<Sharded>,
    /// Times that AF_XDP was given up, by [`LossReason`].
    xdp_lost: [Counter; LossReason::ALL.len()],
    labels: Shards,
    /// By name: every secret that was configured since the start. Locked for a scrape and for a reload.
    secrets: Mutex<BTreeMap<String, Arc<SecretCounters>>>,
}

impl Metrics {
    /// Counters for so many workers of epoll and these shards, all at zero, of a proxy that admits so many
    /// clients at a time.
    #[must_use]
    pub fn new(epoll_workers: usize, shards: Shards, connections_limit: usize) -> Self {
        Self {
            started: SystemTime::now(),
            is_draining: AtomicBool::new(false),
            connections_limit,
            epoll: (0..epoll_workers).map(|_| Arc::default()).collect(),
            sharded: ArcSwap::from_pointee(Sharded::default().successor(shards.count, &shards)),
            xdp_lost: Default::default(),
            labels: shards,
            secrets: Mutex::default(),
        }
    }

    /// So many shards are about to run, and none of those before does any more: each block gets a successor.
    pub fn renew_shards(&self, running: usize) {
        self.sharded.store(Arc::new(self.sharded.load().successor(running, &self.labels)));
    }

    /// The block of one worker, numbered from zero: those of epoll first, then the shards.
    ///
    /// # Panics
    /// If there is no such worker.
    #[must_use]
    pub fn worker(&self, worker: usize) -> Arc<WorkerCounters> {
        match self.epoll.get(worker) {
            Some(block) => Arc::clone(block),
            None => Arc::clone(&self.sharded.load().workers[worker - self.epoll.len()]),
        }
    }

    /// The second block of one shard, numbered from zero among the shards.
    ///
    /// # Panics
    /// If there is no such shard.
    #[must_use]
    pub fn shard(&self, shard: usize) -> Arc<ShardCounters> {
        Arc::clone(&self.sharded.load().shards[shard])
    }

    /// The sum of a number over all shards.
    #[must_use]
    pub fn sum_of_shards(&self, number: impl Fn(&ShardCounters) -> u64) -> u64 {
        self.sharded.load().shards.iter().map(|shard| number(shard)).sum()
    }

    /// Packets by exit of the steering program, in the order of [`Shards::steering_exits`]. For the one thread
    /// that reads the program's own counts.
    #[must_use]
    pub fn steering(&self) -> Arc<[Counter]> {
        Arc::clone(&self.sharded.load().steering)
    }

    /// AF_XDP was given up for this reason, until it can be had again. For the control thread.
    pub fn count_xdp_loss(&self, reason: LossReason) {
        self.xdp_lost[reason as usize].add(1);
    }

    /// The counters of these secrets, in their order. A secret is known by its name: after a reload the
    /// same name counts on, whatever else has changed.
    #[must_use]
    pub fn secrets(&self, credentials: &Credentials) -> Vec<Arc<SecretCounters>> {
        let mut known = self.known_secrets();
        let mut counters_of = |name: &str| {
            let new = || SecretCounters { name: name.to_owned(), authenticated: AtomicU64::new(0) };
            Arc::clone(known.entry(name.to_owned()).or_insert_with(|| Arc::new(new())))
        };
        credentials.names().map(&mut counters_of).collect()
    }

    /// From now on the proxy takes no new clients.
    pub fn start_draining(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// True once the proxy takes no new clients.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }

    /// Sessions that are open now, over all workers.
    #[must_use]
    pub fn sessions_open(&self) -> u64 {
        self.epoll_sessions_open() + sessions_open(self.sharded.load().workers.iter().map(Arc::as_ref))
    }

    /// Those of them that the epoll workers have.
    #[must_use]
    pub fn epoll_sessions_open(&self) -> u64 {
        sessions_open(self.epoll.iter().map(Arc::as_ref))
    }

    /// The page: Prometheus text exposition 0.0.4.
    #[must_use]
    pub fn exposition(&self) -> String {
        let mut page = String::with_capacity(8 * 1024);
        for metric in all_metrics() {
            metric.render(self, &mut page).expect("a String takes all that is written to it");
        }
        page
    }

    /// When the proxy was started.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// How many clients there may be at a time.
    #[must_use]
    pub fn connections_limit(&self) -> usize {
        self.connections_limit
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers_count(&self) -> usize {
        self.epoll.len() + self.sharded.load().running
    }

    /// A counter over all workers.
    #[must_use]
    pub fn sum(&self, counter: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
        self.sum_of_workers(|worker| counter(worker).get())
    }

    /// A gauge over all workers.
    #[must_use]
    pub fn sum_gauge(&self, gauge: impl Fn(&WorkerCounters) -> &Gauge) -> u64 {
        self.sum_of_workers(|worker| gauge(worker).get())
    }

    fn sum_of_workers(&self, number: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.epoll.iter().chain(&self.sharded.load().workers).map(|worker| number(worker)).sum()
    }

    fn sum_each_gauge<const N: usize>(
        &self,
        labels: [&'static str; N],
        gauges: impl Fn(&WorkerCounters) -> &[Gauge; N],
    ) -> Vec<Sample> {
        let sum = |index: usize| self.sum_gauge(|worker| &gauges(worker)[index]);
        let sample = |(index, label): (usize, &'static str)| Sample::new(label, sum(index));
        labels.into_iter().enumerate().map(sample).collect()
    }

    fn sum_each<const N: usize>(
        &self,
        labels: [&'static str; N],
        counters: impl Fn(&WorkerCounters) -> &[Counter; N],
    ) -> Vec<Sample> {
        let sum = |index: usize| self.sum(|worker| &counters(worker)[index]);
        let sample = |(index, label): (usize, &'static str)| Sample::new(label, sum(index));
        labels.into_iter().enumerate().map(sample).collect()
    }

    /// The sum over all shards, or nothing if there are none.
    fn of_shards(&self, value: OfShard) -> Vec<Sample> {
        self.of_shards_by(&[("", value)])
    }

    /// For each label the sum over all shards, or nothing if there are none.
    fn of_shards_by(&self, values: &[(&'static str, OfShard)]) -> Vec<Sample> {
        if !self.has_shards() {
            return Vec::new();
        }
        let sum = |value: &OfShard| self.sum_of_shards(value);
        values.iter().map(|(label, value)| Sample::labelled(label, sum(value))).collect()
    }

    /// Packets that shards dropped, by reason.
    fn dropped_by_shards(&self) -> Vec<Sample> {
        let sum = |reason| self.sum_of_shards(|shard| shard.dropped(reason).get());
        let sample = |(reason, &label): (usize, &&'static str)| Sample::new(label, sum(reason));
        if !self.has_shards() {
            return Vec::new();
        }
        self.labels.drop_reasons.iter().enumerate().map(sample).collect()
    }

    /// Packets by exit of the steering program.
    fn steered(&self) -> Vec<Sample> {
        let sample = |(&label, counter): (&&'static str, &Counter)| Sample::new(label, counter.get());
        if !self.has_shards() {
            return Vec::new();
        }
        self.labels.steering_exits.iter().zip(self.steering().iter()).map(sample).collect()
    }

    /// Queues that are served now.
    fn shards_running(&self) -> Vec<Sample> {
        if self.has_shards() { one(self.sharded.load().running as u64) } else { Vec::new() }
    }

    /// Times that AF_XDP was given up.
    fn xdp_losses(&self) -> Vec<Sample> {
        let sample = |reason: LossReason| Sample::new(reason.name(), self.xdp_lost[reason as usize].get());
        if self.has_shards() { LossReason::ALL.map(sample).into() } else { Vec::new() }
    }

    /// For each worker, those of epoll first, by the names of their threads.
    fn by_worker(&self, read: impl Fn(&WorkerCounters) -> u64) -> Vec<Sample> {
        self.of_each_worker(|block| vec![(None, read(block))])
    }

    /// For each worker, and for each label.
    fn of_each_worker(&self, read: impl Fn(&WorkerCounters) -> Vec<LabelledValue>) -> Vec<Sample> {
        let sharded = self.sharded.load();
        let named = |kind: &'static str| {
            let read = &read;
            move |(index, block): (usize, &Arc<WorkerCounters>)| {
                Sample::below(format!("{kind}-{index}"), read(block))
            }
        };
        let epoll = self.epoll.iter().enumerate().flat_map(named("worker"));
        epoll.chain(sharded.workers.iter().enumerate().flat_map(named("shard"))).collect()
    }

    /// For each queue, and for each label.
    fn by_queue(&self, values: &[(&'static str, OfShard)]) -> Vec<Sample> {
        let label = |label: &'static str| (!label.is_empty()).then_some(label);
        self.of_each_queue(|block| values.iter().map(|(name, value)| (label(name), value(block))).collect())
    }

    /// Packets that each shard dropped, by reason.
    fn dropped_by_queue(&self) -> Vec<Sample> {
        let reasons = self.labels.drop_reasons;
        self.of_each_queue(|block| {
            let dropped =
                |(reason, &label): (usize, &&'static str)| (Some(label), block.dropped(reason).get());
            reasons.iter().enumerate().map(dropped).collect()
        })
    }

    fn of_each_queue(&self, read: impl Fn(&ShardCounters) -> Vec<LabelledValue>) -> Vec<Sample> {
        let of_queue =
            |(queue, block): (usize, &Arc<ShardCounters>)| Sample::below(queue.to_string(), read(block));
        self.sharded.load().shards.iter().enumerate().flat_map(of_queue).collect()
    }

    /// True if there are shards, or have been.
    fn has_shards(&self) -> bool {
        !self.sharded.load().shards.is_empty()
    }

    fn known_secrets(&self) -> MutexGuard<'_, BTreeMap<String, Arc<SecretCounters>>> {
        // Whoever panicked inside left a table that is whole.
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every metric there is, in the order of the page.
pub fn all_metrics() -> impl Iterator<Item = &'static Metric> {
    list::METRICS.iter().chain(&middle_proxy::METRICS).chain(&by_thread::METRICS)
}

/// A value, with the label that it has beside that of its thread or queue.
type LabelledValue = (Option<&'static str>, u64);

/// A number that one shard counts.
type OfShard = fn(&ShardCounters) -> u64;

fn sessions_open<'a>(workers: impl Iterator<Item = &'a WorkerCounters> + Clone) -> u64 {
    let ended = |worker: &WorkerCounters| {
        worker.sessions_finished.get() + worker.sessions_dropped.iter().map(Counter::get).sum::<u64>()
    };
    // The ends are read first: read the other way round, a busy worker would make it negative.
    let ended: u64 = workers.clone().map(ended).sum();
    workers.map(|worker| worker.sessions_opened.get()).sum::<u64>().saturating_sub(ended)
}

#[cfg(test)]
mod tests;
