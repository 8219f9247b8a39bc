//! The thread that follows the kernel and publishes snapshots.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam::channel::{self, Receiver, Sender};
use mtproxy_nic::link::RawLink;
use mtproxy_nic::netlink::{Netlink, messages};
use netlink_packet_core::{NLM_F_CREATE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use tracing::{debug, error};

use super::fib;
use super::message::{Place, about_neighbour, parse_address, parse_neighbour};
use super::resolver::{Active, Need, Resolver};
use super::snapshot::{Address, Routing, Snapshot, State};

/// Needs that wait for the thread.
const NEEDS_MAX: usize = 1024;

/// Neighbours mirrored at most: the kernel's own bound, `gc_thresh3`, is 1024 a family by default.
const NEIGHBOURS_MAX: usize = 65_536;

/// Routes mirrored at most: a host with more is a router with a full table.
const ROUTES_MAX: usize = 65_536;

/// Between two readings of everything, so that a flapping route costs no more than this.
const READ_EVERY: Duration = Duration::from_millis(50);

/// The kernel tells that a link is going down before it removes the link's routes, and then is silent
/// (`__dev_notify_flags`, net/core/dev.c): after so long everything is read once more.
const SETTLES_AFTER: Duration = Duration::from_millis(250);

/// After a failure of the thread's sockets.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Room for notifications, in bytes of the kernel's memory.
const NOTIFICATIONS_BYTES: usize = 1 << 20;

/// Multicast groups (`enum rtnetlink_groups`, linux/rtnetlink.h): link, neighbours, IPv4 addresses, IPv4
/// routes, IPv6 addresses, IPv6 routes, next-hop objects.
const GROUPS: [u32; 7] = [1, 3, 5, 7, 9, 11, 32];

/// What happened so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Readings of everything.
    pub readings: AtomicU64,
    /// Times that notifications were lost.
    pub overruns: AtomicU64,
    /// Needs that found no room.
    pub needs_dropped: AtomicU64,
    /// Needs that the kernel refused.
    pub needs_refused: AtomicU64,
    /// Messages that could not be decoded, and routes and neighbours beyond their bounds.
    pub not_mirrored: AtomicU64,
}

impl Counters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

type OnChange = Box<dyn Fn() + Send>;

struct Shared {
    current: Arc<ArcSwap<Snapshot>>,
    on_change: Mutex<Vec<OnChange>>,
    is_stopping: AtomicBool,
}

/// The mirror: a thread until this is dropped.
pub struct Routes {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    needs: Sender<Need>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Routes {
    /// Starts to mirror this thread's network namespace. The first snapshot is there when this returns.
    ///
    /// # Errors
    /// If the system has no netlink, or no thread left.
    pub fn start() -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (needs, needed) = channel::bounded(NEEDS_MAX);
        let counters = Arc::new(Counters::default());
        let shared = Arc::new(Shared {
            current: Arc::default(),
            on_change: Mutex::default(),
            is_stopping: AtomicBool::new(false),
        });
        let mut mirror = Mirror {
            notifications: listen()?,
            asking: Netlink::open(NETLINK_ROUTE)?,
            wake: wake.clone(),
            needed,
            shared: shared.clone(),
            counters: counters.clone(),
            state: State::default(),
            active: Active::default(),
            read_at: None,
            settled_at: None,
            was_read: Instant::now(),
        };
        mirror.read_everything()?;
        mirror.publish();
        let thread = thread::Builder::new().name("routes".to_owned()).spawn(move || mirror.follow())?;
        Ok(Self { shared, counters, needs, wake, thread: Some(thread) })
    }

    /// The current snapshot, always: each shard keeps a clone, best behind an [`arc_swap::Cache`].
    #[must_use]
    pub fn current(&self) -> Arc<ArcSwap<Snapshot>> {
        self.shared.current.clone()
    }

    /// A way to ask for neighbours.
    #[must_use]
    pub fn resolver(&self) -> Resolver {
        Resolver { needs: self.needs.clone(), wake: self.wake.clone(), counters: self.counters.clone() }
    }

    /// Has `wake_up` called after each new snapshot, on the mirror's thread: it must not block.
    pub fn on_change(&self, wake_up: impl Fn() + Send + 'static) {
        self.shared.on_change.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(wake_up));
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// A socket that hears of every change.
fn listen() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    // Beyond `net.core.rmem_max` the kernel gives less; what does not fit is an overrun, which is handled.
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, NOTIFICATIONS_BYTES)?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

/// What the thread owns.
struct Mirror {
    notifications: Socket,
    asking: Netlink,
    wake: Arc<OwnedFd>,
    needed: Receiver<Need>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    state: State,
    active: Active,
    /// When everything is to be read again, if it is.
    read_at: Option<Instant>,
    /// When it is to be read once more, since the kernel may not have been done.
    settled_at: Option<Instant>,
    was_read: Instant,
}

impl Mirror {
    fn follow(mut self) {
        while !self.shared.is_stopping.load(Ordering::Acquire) {
            if let Err(error) = self.turn() {
                error!(%error, "routes and neighbours are not followed for a while");
                self.something_changed();
                thread::sleep(RETRY_AFTER);
            }
        }
    }

    /// Waits for something, does what it asks for, publishes what came of it.
    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        self.hear()?;
        self.serve_needs();
        let now = Instant::now();
        for need in self.active.due(now) {
            self.use_neighbour(need);
        }
        if self.next_reading().is_some_and(|due| due <= now) {
            self.read_at = None;
            self.settled_at = self.settled_at.filter(|due| *due > now);
            self.read_everything()?;
        }
        self.publish();
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        let due = self.next_reading().into_iter().chain(self.active.next()).min();
        let timeout = due.map(|due| {
            let left = due.saturating_duration_since(Instant::now());
            left.try_into().expect("a timeout of seconds fits")
        });
        let mut sources =
            [PollFd::new(&self.notifications, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes all notifications there are.
    fn hear(&mut self) -> io::Result<()> {
        loop {
            match self.notifications.recv_from_full() {
                // Only the kernel, whose port is zero, knows of changes.
                Ok((datagram, from)) if from.port_number() == 0 => {
                    for message in messages(&datagram) {
                        self.note(message);
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    Counters::count(&self.counters.overruns);
                    self.something_changed();
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn note(&mut self, message: &[u8]) {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message);
        match message.map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbour))) => {
                self.note_neighbour(&neighbour, true);
            }
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(neighbour))) => {
                self.note_neighbour(&neighbour, false);
            }
            // Whatever else it says: something changed, perhaps in a way not known here.
            Ok(_) | Err(_) => self.something_changed(),
        }
    }

    fn note_neighbour(&mut self, message: &NeighbourMessage, is_there: bool) {
        let Some((key, mac)) = parse_neighbour(message) else { return };
        let mac = mac.filter(|_| is_there);
        if self.state.neighbours.get(&key).copied() == mac {
            return;
        }
        let neighbours = Arc::make_mut(&mut self.state.neighbours);
        match mac {
            Some(_) if neighbours.len() >= NEIGHBOURS_MAX => Counters::count(&self.counters.not_mirrored),
            Some(mac) => drop(neighbours.insert(key, mac)),
            None => drop(neighbours.remove(&key)),
        }
    }

    fn something_changed(&mut self) {
        let now = Instant::now();
        self.read_at.get_or_insert(now.max(self.was_read + READ_EVERY));
        self.settled_at = Some(now + SETTLES_AFTER);
    }

    /// When everything is to be read next, if it is.
    fn next_reading(&self) -> Option<Instant> {
        self.read_at.into_iter().chain(self.settled_at).min()
    }

    fn read_everything(&mut self) -> io::Result<()> {
        Counters::count(&self.counters.readings);
        self.was_read = Instant::now();
        let links = RawLink::list(&mut self.asking)?.into_iter().map(|link| (link.index, link)).collect();
        replace(&mut self.state.links, links);
        let addresses = self.read_addresses()?;
        replace(&mut self.state.addresses, addresses);
        let routes = self.read_routes()?;
        replace(&mut self.state.routes, routes);
        let neighbours = self.read_neighbours()?;
        replace(&mut self.state.neighbours, neighbours);
        Ok(())
    }

    fn list(&mut self, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let answer = self.asking.dump(question)?;
        self.counters.not_mirrored.fetch_add(answer.undecodable as u64, Ordering::Relaxed);
        Ok(answer.messages)
    }

    fn read_addresses(&mut self) -> io::Result<Vec<Address>> {
        let all = self.list(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let addresses = all.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address) => parse_address(address),
            _ => None,
        });
        Ok(addresses.collect())
    }

    fn read_routes(&mut self) -> io::Result<Routing> {
        let mut routing = Routing::default();
        for message in self.list(RouteNetlinkMessage::GetRoute(RouteMessage::default()))? {
            let RouteNetlinkMessage::NewRoute(message) = message else { continue };
            let Some((table, route)) = fib::parse(&message) else { continue };
            if routing.len() >= ROUTES_MAX {
                Counters::count(&self.counters.not_mirrored);
                break;
            }
            routing.add(table, message.header.address_family == AddressFamily::Inet6, route);
        }
        Ok(routing)
    }

    fn read_neighbours(&mut self) -> io::Result<HashMap<Place, [u8; 6]>> {
        let all = self.list(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?;
        let neighbours = all.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => {
                let (key, mac) = parse_neighbour(neighbour)?;
                Some((key, mac?))
            }
            _ => None,
        });
        Ok(neighbours.take(NEIGHBOURS_MAX).collect())
    }

    /// Publishes the state if it is new, and wakes those who wait.
    fn publish(&self) {
        let current = self.shared.current.load();
        if current.generation > 0 && current.state.is_shared_with(&self.state) {
            return;
        }
        let generation = current.generation + 1;
        self.shared.current.store(Arc::new(Snapshot { generation, state: self.state.clone() }));
        debug!(generation, routes = self.state.routes.len(), "routes or neighbours changed");
        for wake_up in self.shared.on_change.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            wake_up();
        }
    }

    fn serve_needs(&mut self) {
        // First the wakes, then the needs: what comes between is there at the next wake.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        let now = Instant::now();
        for _ in 0..NEEDS_MAX {
            let Ok(need) = self.needed.try_recv() else { return };
            let is_kept = self.active.note(need, now);
            // One that is kept and resolved is used again in its turn.
            if !is_kept || !self.state.neighbours.contains_key(&(need.interface, need.gateway)) {
                self.use_neighbour(need);
            }
        }
    }

    /// Has the kernel do what it does when it sends to a neighbour: resolve it, or confirm it if it is stale
    /// (`neigh_event_send` by `neigh_add`, net/core/neighbour.c).
    fn use_neighbour(&mut self, need: Need) {
        let mut message = about_neighbour((need.interface, need.gateway));
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        if let Err(error) = self.asking.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE) {
            // Not which one: that of a client on this network is the client's address.
            debug!(%error, interface = need.interface, "the kernel does not resolve a neighbour");
            Counters::count(&self.counters.needs_refused);
        }
    }
}

/// Puts `new` in place of what differs from it, and leaves shared what does not.
fn replace<T: PartialEq>(part: &mut Arc<T>, new: T) {
    if **part != new {
        *part = Arc::new(new);
    }
}
