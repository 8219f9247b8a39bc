//! The clients of one route with one work: one thread, one epoll, closed loop.
//!
//! Closed loop: a client asks again when it has its answer. So a slow relay is asked less often, and the
//! latency that is measured is that of a machine as busy as it can be, not of one at rest.

mod client;
mod sources;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use mtproxy_tests::tls_record::{CLIENT_BODY_LEN_MAX, RECORD_HEADER_LEN, write_records};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use self::client::{Client, Did};
pub use self::sources::Sources;
use crate::data_centre::NOISE_LEN;
use crate::work::{Route, Target, Work};

/// Clients that get ready at the same time: below any backlog, and the order of a busy proxy's arrivals.
const GETTING_READY_MAX: usize = 64;
/// How long all clients may take to get ready.
const PATIENCE: Duration = Duration::from_secs(60);
const EVENTS_PER_WAIT: usize = 256;
const BUFFER_LEN: usize = 256 * 1024;
/// Latencies are recorded from one microsecond to one minute, three digits of each.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What a crowd has done since it was last asked.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Answers.
    pub operations: u64,
    /// Bytes of bulk.
    pub bytes: u64,
    /// Of each operation, nanoseconds.
    pub latency_ns: Histogram<u64>,
}

impl Figures {
    /// Nothing yet.
    pub fn new() -> Result<Self> {
        let latency_ns = Histogram::new_with_bounds(1000, LATENCY_NS_MAX, 3).context("a histogram")?;
        Ok(Self { operations: 0, bytes: 0, latency_ns })
    }
}

/// Clients that are ready.
#[derive(Debug)]
pub struct Crowd<'a> {
    target: &'a Target,
    work: Work,
    count: usize,
    /// Socket buffers of bulk; zero leaves them to the kernel.
    bulk_buffer: u32,
    /// `None`: the kernel chooses the clients' own ends.
    sources: Option<&'a Sources>,
    epoll: OwnedFd,
    /// User data in epoll is the place in here.
    clients: Vec<Client>,
    ready: usize,
    buffer: Box<[u8]>,
    noise: Vec<u8>,
    figures: Figures,
}

impl<'a> Crowd<'a> {
    /// Connects `count` clients and waits until each has had its first answer. For [`Work::Connect`],
    /// whose clients are never ready, there is nothing to wait for.
    pub fn gather(
        target: &'a Target,
        work: Work,
        count: usize,
        bulk_buffer: u32,
        sources: Option<&'a Sources>,
    ) -> Result<Self> {
        let mut crowd = Self {
            target,
            work,
            count,
            bulk_buffer,
            sources,
            epoll: epoll::create(CreateFlags::CLOEXEC).context("epoll")?,
            clients: Vec::with_capacity(count),
            ready: 0,
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            noise: noise(target.route),
            figures: Figures::new()?,
        };
        let deadline = Instant::now() + PATIENCE;
        while work != Work::Connect && crowd.ready < count {
            while crowd.clients.len() < count && crowd.clients.len() - crowd.ready < GETTING_READY_MAX {
                crowd.add_client()?;
            }
            crowd.turn(Duration::from_millis(100))?;
            if Instant::now() > deadline {
                bail!("only {} of {count} clients are ready after {PATIENCE:?}", crowd.ready);
            }
        }
        Ok(crowd)
    }

    /// Lets them work.
    pub fn release(&mut self) -> Result<()> {
        match self.work {
            Work::Connect => (0..self.count).try_for_each(|_| self.add_client()),
            Work::RequestAnswer | Work::RequestAnswerAlone => {
                self.clients.iter_mut().try_for_each(Client::ask)
            }
            Work::Download | Work::Upload => Ok(()),
        }
    }

    /// Works for at least `duration` and until `bytes_min` bytes have been moved.
    pub fn work_for(&mut self, duration: Duration, bytes_min: u64) -> Result<()> {
        let deadline = Instant::now() + duration;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && (self.figures.bytes >= bytes_min || !self.work.is_bulk()) {
                return Ok(());
            }
            self.turn(left.max(Duration::from_millis(1)))?;
        }
    }

    /// What they have done since the last call.
    pub fn take_figures(&mut self) -> Result<Figures> {
        Ok(std::mem::replace(&mut self.figures, Figures::new()?))
    }

    /// Waits for events, at most so long, and lets the clients handle them.
    fn turn(&mut self, wait: Duration) -> Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_PER_WAIT);
        let timeout = Timespec::try_from(wait).context("a timeout")?;
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for events"),
        }
        for event in &events {
            let index = usize::try_from(event.data.u64())?;
            let flags = event.flags;
            self.attend(index, flags).with_context(|| {
                format!("{} over the route {:?}", self.work.title(), self.target.route.title())
            })?;
        }
        Ok(())
    }

    fn attend(&mut self, index: usize, flags: EventFlags) -> Result<()> {
        let client = &mut self.clients[index];
        let interest = client.interest();
        match client.proceed(flags, &mut self.buffer, &self.noise)? {
            Did::Nothing => {}
            Did::GotReady => self.ready += 1,
            Did::Finished { begun } => {
                self.figures.operations += 1;
                let latency_ns = u64::try_from(begun.elapsed().as_nanos())?;
                self.figures.latency_ns.saturating_record(latency_ns);
                if self.work == Work::Connect {
                    return self.replace_client(index);
                }
                client.ask()?;
            }
            Did::Moved { wire_bytes } => self.figures.bytes += wire_bytes as u64,
        }
        let client = &self.clients[index];
        if client.interest() != interest {
            epoll::modify(&self.epoll, client.socket(), EventData::new_u64(index as u64), client.interest())
                .context("watching a connection")?;
        }
        Ok(())
    }

    fn add_client(&mut self) -> Result<()> {
        let client = self.dial(self.clients.len())?;
        self.clients.push(client);
        Ok(())
    }

    /// Closes a connection as apps do, with FIN, and opens another.
    fn replace_client(&mut self, index: usize) -> Result<()> {
        self.clients[index] = self.dial(index)?;
        Ok(())
    }

    fn dial(&self, index: usize) -> Result<Client> {
        let (address, options) = (self.target.address(self.work), self.target.client(self.work));
        let client = Client::dial(address, options, self.work, self.bulk_buffer, self.sources)?;
        epoll::add(&self.epoll, client.socket(), EventData::new_u64(index as u64), client.interest())
            .context("watching a connection")?;
        Ok(client)
    }
}

/// What an upload consists of, over and over: on the way to an ee proxy, whole records.
fn noise(route: Route) -> Vec<u8> {
    let noise = mtproxy_tests::pattern::bytes(1 << 40, NOISE_LEN);
    if route != Route::Ee {
        return noise;
    }
    let mut wire =
        Vec::with_capacity(NOISE_LEN + NOISE_LEN.div_ceil(CLIENT_BODY_LEN_MAX) * RECORD_HEADER_LEN);
    write_records(&noise, CLIENT_BODY_LEN_MAX, &mut wire);
    wire
}
