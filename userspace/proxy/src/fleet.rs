//! All workers: their ports, their threads, and word of their end.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use crossbeam::channel::Sender;
use mtproxy_core::config::Config;
use mtproxy_core::engine::Engine;
use mtproxy_core::keyed_hash::KeyedHash;
use mtproxy_core::policy::replay::ReplayCache;
use mtproxy_core::random::Random;

use crate::clock::Clock;
use crate::datapath::epoll::{ConnectionLimit, Epoll, bind};
use crate::datapath::xdp::crossing::Crossing;
use crate::replay::SharedReplayCache;
use crate::shards::{Common, Shard};
use crate::telemetry::events::Recorder;
use crate::telemetry::metrics::Metrics;
use crate::worker::{Command, Worker, WorkerHandle, mailbox};

/// The listening sockets of every worker, open before privileges are given up.
#[derive(Debug)]
pub struct Ports {
    /// One set for each worker; in each, one socket for each address.
    sockets: Vec<Vec<OwnedFd>>,
    /// Where clients are accepted; a port 0 has become the one the kernel chose.
    pub addresses: Vec<SocketAddr>,
}

impl Ports {
    /// Opens every address once for each worker.
    ///
    /// # Errors
    /// The address that could not be opened, and why.
    pub fn open(addresses: &[SocketAddr], workers: NonZeroUsize) -> Result<Self, (SocketAddr, io::Error)> {
        let mut ports = Self { sockets: Vec::new(), addresses: Vec::new() };
        ports.sockets.resize_with(workers.get(), Vec::new);
        for &wanted in addresses {
            let mut address = wanted;
            for sockets in &mut ports.sockets {
                let socket = bind(address).map_err(|error| (wanted, error))?;
                address = local_address(&socket).map_err(|error| (wanted, error))?;
                sockets.push(socket);
            }
            ports.addresses.push(address);
        }
        Ok(ports)
    }
}

fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket)?).map_err(io::Error::from)
}

/// What the workers have in common.
#[derive(Debug)]
pub struct Shared {
    /// Everything the engines need to know.
    pub config: Arc<Config>,
    /// Counters, a block for each worker.
    pub metrics: Arc<Metrics>,
    /// How many clients there may be.
    pub limit: ConnectionLimit,
    /// How many hellos are remembered.
    pub replay_entries: usize,
}

/// How a worker ended: its number, and what was wrong if it did not end by being drained. Shards are numbered
/// behind the epoll workers.
pub type WorkerEnd = (usize, Result<(), Failure>);

/// What made a worker end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The host: an interface that is gone, for instance.
    Host(String),
    /// A defect of ours.
    Panic,
}

/// The workers: those of epoll first, then the shards.
#[derive(Debug)]
pub struct Fleet {
    shared: Shared,
    replay_cache: SharedReplayCache,
    ends: Sender<WorkerEnd>,
    workers: Vec<WorkerHandle>,
    shards: Vec<WorkerHandle>,
    /// Workers and shards that were started and have not ended.
    running: usize,
    shards_running: usize,
}

impl Fleet {
    /// Starts one worker thread for each set of sockets. Each sends its end to `ends`, for [`ended`](Self::ended).
    ///
    /// # Errors
    /// When the host has no thread, epoll instance or randomness for us.
    pub fn start(ports: Ports, shared: Shared, ends: Sender<WorkerEnd>) -> io::Result<Self> {
        let hash = KeyedHash::new(&mut Random::from_seed(seed()?));
        let replay_cache = SharedReplayCache::new(ReplayCache::new(shared.replay_entries, hash));
        let (workers, shards) = (Vec::new(), Vec::new());
        let mut fleet = Self { shared, replay_cache, ends, workers, shards, running: 0, shards_running: 0 };
        for (index, sockets) in ports.sockets.into_iter().enumerate() {
            let (handle, mailbox, wake) = mailbox()?;
            let (engine, recorder) = fleet.parts_of(index)?;
            let limit = fleet.shared.limit.clone();
            // The datapath is made on its own thread: epoll's events may not move between threads.
            let serve = move || {
                let datapath = Epoll::new(sockets, limit, wake)?;
                Worker::new(Clock::start(), engine, datapath, mailbox, recorder).run()
            };
            spawn(format!("worker-{index}"), index, serve, fleet.ends.clone())?;
            fleet.workers.push(handle);
            fleet.running += 1;
        }
        Ok(fleet)
    }

    /// Starts one thread for each shard. Those of before have ended.
    ///
    /// # Errors
    /// As for [`start`](Self::start). Some may run nevertheless.
    pub fn start_shards(&mut self, shards: Vec<Shard>, common: &Common) -> io::Result<()> {
        self.shards.clear();
        let mailboxes = shards.iter().map(|_| mailbox()).collect::<io::Result<Vec<_>>>()?;
        let wakes = mailboxes.iter().map(|(_, _, wake)| wake.try_clone()).collect::<io::Result<Vec<_>>>()?;
        let doors = Crossing::between(wakes);
        for ((shard, (handle, mailbox, wake)), crossing) in shards.into_iter().zip(mailboxes).zip(doors) {
            let index = self.workers.len() + crossing.shard();
            let (engine, recorder) = self.parts_of(index)?;
            let common = common.clone();
            let name = format!("shard-{}", crossing.shard());
            let serve = move || shard.run(&common, crossing, wake, engine, mailbox, recorder);
            spawn(name, index, serve, self.ends.clone())?;
            self.shards.push(handle);
            self.running += 1;
            self.shards_running += 1;
        }
        Ok(())
    }

    fn parts_of(&self, index: usize) -> io::Result<(Engine, Recorder)> {
        let Shared { config, metrics, .. } = &self.shared;
        let engine = Engine::new(Arc::clone(config), seed()?, Box::new(self.replay_cache.clone()));
        Ok((engine, Recorder::new(index, Arc::clone(metrics), &config.credentials)))
    }

    /// A worker's end was told.
    pub fn ended(&mut self, worker: usize) {
        self.running -= 1;
        if self.is_shard(worker) {
            self.shards_running -= 1;
        }
    }

    /// Workers and shards that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Shards that have not ended.
    #[must_use]
    pub fn shards_running(&self) -> usize {
        self.shards_running
    }

    /// True if worker `index` is a shard.
    #[must_use]
    pub fn is_shard(&self, index: usize) -> bool {
        index >= self.workers.len()
    }

    /// Eventfds that wake the shards.
    ///
    /// # Errors
    /// When the host has no descriptor for us.
    pub fn shard_wakes(&self) -> io::Result<Vec<OwnedFd>> {
        self.shards.iter().map(WorkerHandle::try_clone_wake).collect()
    }

    /// Hands a command to one shard, counted from zero.
    pub fn command_shard(&self, shard: usize, command: Command) {
        if let Some(shard) = self.shards.get(shard) {
            shard.send(command);
        }
    }

    /// Hands a command to every shard.
    pub fn command_shards(&self, command: impl Fn() -> Command) {
        self.shards.iter().for_each(|shard| shard.send(command()));
    }

    /// Hands a command to every worker.
    pub fn command(&self, command: impl Fn() -> Command) {
        self.workers.iter().for_each(|worker| worker.send(command()));
        self.command_shards(command);
    }

    /// Has every worker use this configuration, and those that are started later.
    pub fn configure(&mut self, config: Arc<Config>) {
        self.command(|| Command::Configure(Arc::clone(&config)));
        self.shared.config = config;
    }
}

fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(seed)
}

fn spawn(
    name: String,
    index: usize,
    serve: impl FnOnce() -> io::Result<()> + Send + 'static,
    ends: Sender<WorkerEnd>,
) -> io::Result<()> {
    let body = move || {
        // A panic is a defect of ours. It ends this worker's clients; whoever supervises decides about
        // the others, so the end must be told, not swallowed.
        let end = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(serve)) {
            Ok(result) => result.map_err(|error| Failure::Host(error.to_string())),
            Err(_) => Err(Failure::Panic),
        };
        // Fails only if nobody waits any more: then the process is ending anyway.
        let _ = ends.send((index, end));
    };
    thread::Builder::new().name(name).spawn(body).map(drop)
}
