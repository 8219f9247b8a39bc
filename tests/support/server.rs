//! The servers of the tests: one thread, one epoll, any number of conversations.
//!
//! What is said is a [`Conversation`]'s business, a pure value; here bytes move, ends are noticed and
//! everything is recorded. A connection whose answer is not taken is not read either, so a slow proxy
//! costs no memory here.

mod connection;

use std::fmt::Debug;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use crate::dc_codec::Ending;
use crate::error::PeerError;
use crate::socket::PATIENCE;
use connection::{Connection, Step};

/// One side of one connection.
pub trait Conversation: Send + 'static {
    /// What the conversation adds to the record of its session.
    type Report: Clone + Debug + Default + Send;

    /// Takes received bytes.
    ///
    /// # Errors
    /// What the peer did wrong; the connection is then closed.
    fn receive(&mut self, bytes: &[u8], report: &mut Self::Report) -> Result<(), PeerError>;

    /// The peer has sent FIN.
    fn end_of_input(&mut self);

    /// True while [`fill`](Self::fill) has something to give.
    fn has_output(&self) -> bool;

    /// Appends output until `wire` holds `len_min` bytes or there is no more.
    fn fill(&mut self, wire: &mut Vec<u8>, len_min: usize);

    /// How to end the connection, once there is no more output. Given once.
    fn take_ending(&mut self) -> Option<Ending>;

    /// How to end the connection now, whatever has not been written. Given once.
    fn take_abrupt_ending(&mut self) -> Option<Ending> {
        None
    }

    /// True if it hears while its answers wait to be written. Its answers are then bounded by itself.
    fn is_duplex(&self) -> bool {
        false
    }

    /// False while received bytes are to stay where they are.
    fn is_reading(&self) -> bool {
        true
    }

    /// [`Server::call`] was called: there may be something new to do.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    fn attend(&mut self) -> Result<(), PeerError> {
        Ok(())
    }

    /// Brings the record up to date, after output was made.
    fn report(&mut self, _report: &mut Self::Report) {}
}

/// Both ends of a connection that a server has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The other end.
    pub peer: SocketAddr,
    /// The address that it found.
    pub local: SocketAddr,
}

/// How a session's incoming direction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputEnd {
    /// FIN.
    Eof,
    /// RST.
    Reset,
    /// Bytes that no peer may send; we closed.
    Misbehaved(PeerError),
}

/// What is known of one connection.
#[derive(Clone, Debug)]
pub struct Session<R> {
    /// The other end.
    pub peer: SocketAddr,
    /// Bytes received.
    pub received: u64,
    /// Bytes the kernel has taken from us.
    pub sent: u64,
    /// How the incoming direction ended; `None` while it is open, or if we closed first.
    pub input_end: Option<InputEnd>,
    /// The connection is gone.
    pub closed: bool,
    /// What the conversation itself reports.
    pub report: R,
}

/// Sessions recorded; later ones are served and counted only. Enough for any test, and a bound for
/// benchmarks that connect for minutes.
const RECORDED_SESSIONS_MAX: usize = 65_536;
/// Bytes per read, and made at once for writing.
const BUFFER_LEN: usize = 64 * 1024;
/// Reads and writes for one connection before the next one has its turn.
const TURN_BUDGET: usize = 32;
const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

/// A server on a loopback address, until dropped.
#[derive(Debug)]
pub struct Server<R> {
    address: SocketAddr,
    shared: Arc<Shared<R>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<R> {
    ledger: Mutex<Ledger<R>>,
    changed: Condvar,
    wake: OwnedFd,
    stopping: AtomicBool,
    reading: AtomicBool,
}

#[derive(Debug)]
struct Ledger<R> {
    accepted: u64,
    open: u64,
    sessions: Vec<Session<R>>,
}

impl<R: Clone + Debug + Default + Send + 'static> Server<R> {
    /// Listens on `address`, port 0 for a free one, and gives each connection a conversation of its own.
    ///
    /// # Panics
    /// If the address cannot be had or the kernel refuses epoll.
    #[must_use]
    pub fn start<C: Conversation<Report = R>>(
        address: SocketAddr,
        converse: impl FnMut(Accepted) -> C + Send + 'static,
    ) -> Self {
        let listener =
            TcpListener::bind(address).unwrap_or_else(|error| panic!("listening on {address}: {error}"));
        listener.set_nonblocking(true).expect("O_NONBLOCK");
        let address = listener.local_addr().expect("a bound socket has an address");
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("eventfd");
        let shared = Arc::new(Shared {
            ledger: Mutex::new(Ledger { accepted: 0, open: 0, sessions: Vec::new() }),
            changed: Condvar::new(),
            wake,
            stopping: AtomicBool::new(false),
            reading: AtomicBool::new(true),
        });
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).expect("epoll_ctl");
        epoll::add(&epoll, &shared.wake, EventData::new_u64(WAKE), EventFlags::IN).expect("epoll_ctl");
        let server_loop = Loop {
            epoll,
            listener,
            listener_address: address,
            shared: Arc::clone(&shared),
            converse,
            connections: Vec::new(),
            free: Vec::new(),
            unfinished: Vec::new(),
            buffer: vec![0; BUFFER_LEN],
        };
        let thread = std::thread::Builder::new()
            .name(format!("server {address}"))
            .spawn(move || server_loop.run())
            .expect("a thread");
        Self { address, shared, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.shared.lock().open
    }

    /// The records, in order of acceptance.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session<R>> {
        self.shared.lock().sessions.clone()
    }

    /// Something of each record, without copying the records.
    #[must_use]
    pub fn map_sessions<T>(&self, select: impl Fn(&Session<R>) -> T) -> Vec<T> {
        self.shared.lock().sessions.iter().map(select).collect()
    }

    /// Waits until the records are as they should be, and returns them.
    ///
    /// # Panics
    /// If they are not within [`PATIENCE`]: with `what` was awaited and what was found.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn(&[Session<R>]) -> bool) -> Vec<Session<R>> {
        let deadline = Instant::now() + PATIENCE;
        let mut ledger = self.shared.lock();
        while !condition(&ledger.sessions) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "awaiting {what}: found {}", summary(&ledger.sessions));
            ledger = self.shared.changed.wait_timeout(ledger, left).expect("the server did not panic").0;
        }
        ledger.sessions.clone()
    }

    /// Stops reading on every connection: the proxy must stop reading its clients.
    pub fn pause_reading(&self) {
        self.shared.reading.store(false, Ordering::SeqCst);
    }

    /// Reads on.
    pub fn resume_reading(&self) {
        self.shared.reading.store(true, Ordering::SeqCst);
        self.shared.wake();
    }

    /// Has every conversation [`attend`](Conversation::attend).
    pub fn call(&self) {
        self.shared.wake();
    }
}

impl<R> Drop for Server<R> {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !std::thread::panicking() {
                result.expect("the server's thread ends without panic");
            }
        }
    }
}

impl<R> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, Ledger<R>> {
        self.ledger.lock().expect("the server did not panic")
    }

    fn wake(&self) {
        // Fails only when the counter is full: then the thread is awake anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

fn summary<R: Debug>(sessions: &[Session<R>]) -> String {
    const SHOWN: usize = 20;
    let mut text = format!("{} sessions {:?}", sessions.len(), &sessions[..sessions.len().min(SHOWN)]);
    text.truncate(text.floor_char_boundary(4000));
    text
}

struct Loop<C: Conversation, F> {
    epoll: OwnedFd,
    listener: TcpListener,
    listener_address: SocketAddr,
    shared: Arc<Shared<C::Report>>,
    converse: F,
    connections: Vec<Option<Connection<C>>>,
    free: Vec<usize>,
    /// Connections whose turn ended before their work did.
    unfinished: Vec<usize>,
    buffer: Vec<u8>,
}

impl<C: Conversation, F: FnMut(Accepted) -> C> Loop<C, F> {
    fn run(mut self) {
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; 256];
        while !self.shared.stopping.load(Ordering::SeqCst) {
            let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let timeout = if self.unfinished.is_empty() { None } else { Some(&zero) };
            let ready = match epoll::wait(&self.epoll, &mut events, timeout) {
                Ok((ready, _)) => ready,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => panic!("epoll_wait: {error}"),
            };
            let mut turn = std::mem::take(&mut self.unfinished);
            for event in ready {
                match event.data.u64() {
                    LISTENER => turn.extend(self.accept()),
                    WAKE => turn.extend(self.awake()),
                    index => turn.push(usize::try_from(index).expect("an index of ours")),
                }
            }
            for index in turn {
                self.take_turn(index);
            }
            self.shared.changed.notify_all();
        }
    }

    /// Drains the eventfd; whatever was changed, every connection may go on.
    fn awake(&mut self) -> Vec<usize> {
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        self.connections.iter_mut().flatten().for_each(|connection| connection.is_called = true);
        (0..self.connections.len()).collect()
    }

    fn accept(&mut self) -> Vec<usize> {
        let mut accepted = Vec::new();
        loop {
            let (stream, peer) = match self.listener.accept() {
                Ok(connection) => connection,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return accepted,
                // The peer gave up, or this process has too many descriptors: the peer will tell.
                Err(_) => return accepted,
            };
            let is_ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_ok();
            if is_ready {
                accepted.push(self.admit(stream, peer));
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> usize {
        // A connection that is gone again has no address of its own any more; nobody will miss it.
        let local = stream.local_addr().unwrap_or(self.listener_address);
        // Before it is recorded: whoever finds it in the records may give it orders.
        let conversation = (self.converse)(Accepted { peer, local });
        let mut ledger = self.shared.lock();
        ledger.accepted += 1;
        ledger.open += 1;
        let record = (ledger.sessions.len() < RECORDED_SESSIONS_MAX).then(|| {
            let report = C::Report::default();
            ledger.sessions.push(Session {
                peer,
                received: 0,
                sent: 0,
                input_end: None,
                closed: false,
                report,
            });
            ledger.sessions.len() - 1
        });
        drop(ledger);
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), flags).expect("epoll_ctl");
        self.connections[index] = Some(Connection {
            stream,
            conversation,
            pending: Vec::new(),
            written: 0,
            input_open: true,
            output_open: true,
            is_called: false,
            record,
        });
        index
    }

    fn take_turn(&mut self, index: usize) {
        let Some(connection) = self.connections[index].as_mut() else { return };
        for _ in 0..TURN_BUDGET {
            match connection.step(&self.shared, &mut self.buffer) {
                Step::Progress => {}
                Step::Blocked => return,
                Step::Finished => {
                    let connection = self.connections[index].take();
                    self.free.push(index);
                    let mut ledger = self.shared.lock();
                    ledger.open -= 1;
                    // Closed before it is recorded as closed.
                    let record = connection.and_then(|connection| connection.record);
                    if let Some(session) = record.and_then(|record| ledger.sessions.get_mut(record)) {
                        session.closed = true;
                    }
                    return;
                }
            }
        }
        self.unfinished.push(index);
    }
}
