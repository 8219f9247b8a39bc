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

/// The running workers: those of epoll first, then the shards.
#[derive(Debug)]
pub struct Fleet {
    workers: Vec<WorkerHandle>,
    epoll_workers: usize,
}

impl Fleet {
    /// Starts one worker thread for each set of sockets, and one for each shard. Each sends its end to `ends`.
    ///
    /// # Errors
    /// When the host has no thread, epoll instance or randomness for us.
    pub fn start(
        ports: Ports,
        shards: Option<(Vec<Shard>, Common)>,
        shared: &Shared,
        ends: &Sender<WorkerEnd>,
    ) -> io::Result<Self> {
        let hash = KeyedHash::new(&mut Random::from_seed(seed()?));
        let replay_cache = SharedReplayCache::new(ReplayCache::new(shared.replay_entries, hash));
        let mut workers = Vec::new();
        for (index, sockets) in ports.sockets.into_iter().enumerate() {
            let (handle, mailbox, wake) = mailbox()?;
            let engine = Engine::new(Arc::clone(&shared.config), seed()?, Box::new(replay_cache.clone()));
            let limit = shared.limit.clone();
            let recorder = Recorder::new(index, Arc::clone(&shared.metrics), &shared.config.credentials);
            // The datapath is made on its own thread: epoll's events may not move between threads.
            let serve = move || {
                let datapath = Epoll::new(sockets, limit, wake)?;
                Worker::new(Clock::start(), engine, datapath, mailbox, recorder).run()
            };
            spawn(format!("worker-{index}"), index, serve, ends.clone())?;
            workers.push(handle);
        }
        let mut fleet = Self { epoll_workers: workers.len(), workers };
        if let Some((shards, common)) = shards {
            fleet.start_shards(shards, &common, shared, &replay_cache, ends)?;
        }
        Ok(fleet)
    }

    fn start_shards(
        &mut self,
        shards: Vec<Shard>,
        common: &Common,
        shared: &Shared,
        replay_cache: &SharedReplayCache,
        ends: &Sender<WorkerEnd>,
    ) -> io::Result<()> {
        let mailboxes = shards.iter().map(|_| mailbox()).collect::<io::Result<Vec<_>>>()?;
        let wakes = mailboxes.iter().map(|(_, _, wake)| wake.try_clone()).collect::<io::Result<Vec<_>>>()?;
        let doors = Crossing::between(wakes);
        for ((shard, (handle, mailbox, wake)), crossing) in shards.into_iter().zip(mailboxes).zip(doors) {
            let index = self.workers.len();
            let engine = Engine::new(Arc::clone(&shared.config), seed()?, Box::new(replay_cache.clone()));
            let recorder = Recorder::new(index, Arc::clone(&shared.metrics), &shared.config.credentials);
            let common = common.clone();
            let name = format!("shard-{}", crossing.shard());
            let serve = move || shard.run(&common, crossing, wake, engine, mailbox, recorder);
            spawn(name, index, serve, ends.clone())?;
            self.workers.push(handle);
        }
        Ok(())
    }

    /// True if worker `index` is a shard.
    #[must_use]
    pub fn is_shard(&self, index: usize) -> bool {
        index >= self.epoll_workers
    }

    /// Eventfds that wake the shards.
    ///
    /// # Errors
    /// When the host has no descriptor for us.
    pub fn shard_wakes(&self) -> io::Result<Vec<OwnedFd>> {
        self.workers[self.epoll_workers..].iter().map(WorkerHandle::try_clone_wake).collect()
    }

    /// Hands a command to one shard, counted from zero.
    pub fn command_shard(&self, shard: usize, command: Command) {
        if let Some(worker) = self.workers.get(self.epoll_workers + shard) {
            worker.send(command);
        }
    }

    /// Hands a command to every worker.
    pub fn command(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            worker.send(command());
        }
    }

    /// How many workers were started.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// True without workers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
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
