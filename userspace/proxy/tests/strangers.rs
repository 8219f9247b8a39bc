//! A relay over memory, strangers that take every frame they can get, and an honest client among them.
//!
//! ```text
//!   world: one stack that plays clients and front          proxy: Relay, Engine, 4096 frames
//!     strangers: never read, their windows shut    ◄────►    ┐
//!     one honest client                            ◄────►    ├─ each fronted by a connection of its own
//!     front: sends as much as it can               ◄────►    ┘
//! ```
//! Time is virtual; a step is a millisecond.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mtproxy_bin::datapath::epoll::ConnectionLimit;
use mtproxy_bin::datapath::xdp::ports::Ask;
use mtproxy_bin::datapath::xdp::{ArrivedOn, NoPortLeft, Relay, SourcePorts, Streams, tcp_instant};
use mtproxy_core::config::{Config, Front, Fronts, RELAY_WINDOW_BYTES_DEFAULT, Timeouts};
use mtproxy_core::credentials::Credentials;
use mtproxy_core::dc::{DcTable, PreferIp};
use mtproxy_core::engine::Engine;
use mtproxy_core::keyed_hash::KeyedHash;
use mtproxy_core::policy::replay::ReplayCache;
use mtproxy_core::random::Random;
use mtproxy_core::time::{Instant, Now, UnixSeconds};
use mtproxy_tcp::drop_reason::DropReason;
use mtproxy_tcp::link::Link;
use mtproxy_tcp::memory_link::MemoryLink;
use mtproxy_tcp::{ConnectionId, Event, Read, Secrets, Settings, Stack};
use rustix::event::{EventfdFlags, eventfd};

const STEP: Duration = Duration::from_millis(1);
/// The fewest that the settings allow for a queue.
const PROXY_FRAMES: usize = 4096;
/// Frames of the world: they never run out.
const WORLD_FRAMES: usize = 40_000;
/// Each can hold 64 KiB of what the front sends, and as much again that the front's side has sent.
const STRANGERS: usize = 150;
/// What the front has for each that it is connected to.
const ANSWER_BYTES: usize = 300_000;
const CHUNK: [u8; 8192] = [7; 8192];

fn proxy() -> SocketAddr {
    "192.0.2.1:443".parse().expect("an address")
}

fn front() -> SocketAddr {
    "203.0.113.1:443".parse().expect("an address")
}

struct Ports {
    next: u16,
}

impl SourcePorts for Ports {
    fn take(&mut self, _remote: SocketAddr, _: Ask<'_>) -> Option<Result<SocketAddr, NoPortLeft>> {
        self.next += 1;
        Some(Ok(SocketAddr::new(proxy().ip(), self.next)))
    }
}

fn engine() -> Engine {
    let domain = "front.example".parse().expect("a domain");
    let front = Front { domain, addresses: vec![front()], flight_len: 2500 };
    let config = Config {
        credentials: Credentials::new(Vec::new()),
        fronts: Fronts::new([front]),
        dc_table: DcTable::builtin(PreferIp::V4),
        middle_proxies: None,
        timeouts: Timeouts::default(),
        relay_window_bytes: RELAY_WINDOW_BYTES_DEFAULT,
    };
    let cache = ReplayCache::new(16, KeyedHash::new(&mut Random::from_seed([1; 32])));
    Engine::new(Arc::new(config), [4; 32], Box::new(cache))
}

struct Scene {
    now: Now,
    engine: Engine,
    relay: Relay<MemoryLink, Ports>,
    world: Stack<MemoryLink>,
    wire: MemoryLink,
    /// What the front has left to send to each.
    answers: HashMap<ConnectionId, usize>,
    /// Who reads, and how much it has read.
    readers: HashMap<ConnectionId, usize>,
    /// Packets to the proxy that found no frame.
    lost: usize,
    has_waited_for_frames: bool,
}

impl Scene {
    fn new() -> Self {
        let now =
            Now { instant: Instant::after_origin(Duration::from_secs(1)), unix: UnixSeconds(1_700_000_000) };
        let at = tcp_instant(now);
        let stack = |seed| Stack::new(Settings::default(), Secrets::from_seed([seed; 32]), at);
        let (mut of_proxy, mut world) = (stack(1), stack(2));
        of_proxy.listen(proxy());
        world.listen(front());
        let limit = ConnectionLimit::new(10_000);
        let streams = Streams::new(
            of_proxy,
            MemoryLink::new(PROXY_FRAMES, 2048),
            Ports { next: 20_000 },
            limit.clone(),
            at,
        );
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
        Self {
            now,
            engine: engine(),
            relay: Relay::new(streams, limit, wake).expect("an epoll instance"),
            world,
            wire: MemoryLink::new(WORLD_FRAMES, 2048),
            answers: HashMap::new(),
            readers: HashMap::new(),
            lost: 0,
            has_waited_for_frames: false,
        }
    }

    /// A client that greets like nobody who knows a secret.
    fn connect(&mut self, index: usize) -> ConnectionId {
        let port = u16::try_from(10_000 + index).expect("a few hundred clients");
        let from = SocketAddr::new(IpAddr::from([198, 51, 100, 1]), port);
        let at = tcp_instant(self.now);
        let id = self.world.connect(at, from, proxy(), &mut self.wire).expect("there is a route");
        self.world.send(id, &[b'x'; 700], &mut self.wire);
        id
    }

    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now.instant = self.now.instant.plus(STEP);
        let Self { now, engine, relay, world, wire, .. } = self;
        let at = tcp_instant(*now);
        relay.begin(*now);
        while let Some(packet) = wire.take_sent() {
            match relay.streams().link.received(&packet) {
                Some((frame, range)) => {
                    if let Some(stranger) = relay.arrive(*now, frame, range, ArrivedOn::OurQueue, engine) {
                        relay.streams().link.release(stranger.frame);
                    }
                }
                None => self.lost += 1,
            }
            wire.recycle(packet);
        }
        relay.read_ready(*now, engine);
        relay.time_out(*now, engine);
        relay.transmit(*now, engine);
        if relay.retry_at().is_some() {
            self.has_waited_for_frames = true;
            assert!(!relay.is_busy(), "it spins while it waits for frames");
        }
        while let Some(packet) = relay.streams().link.take_sent() {
            let (frame, range) = wire.received(&packet).expect("the world has frames");
            if let Some(stranger) = world.receive(at, frame, range, wire) {
                world.refuse(at, stranger, wire);
            }
        }
        self.live();
    }

    /// Front and clients do what they do.
    fn live(&mut self) {
        let at = tcp_instant(self.now);
        let Self { world, wire, answers, readers, .. } = self;
        while let Some(event) = world.next_event() {
            match event {
                Event::Accepted(id, _) => drop(answers.insert(id, ANSWER_BYTES)),
                Event::Readable(id) if answers.contains_key(&id) || readers.contains_key(&id) => {
                    while let Read::Text { frame, range } = world.read(id) {
                        *readers.entry(id).or_default() += range.len();
                        wire.release(frame);
                    }
                }
                Event::Reset(id, _) | Event::ConnectFailed(id, _) => {
                    answers.remove(&id);
                    world.close(at, id, wire);
                }
                _ => {}
            }
        }
        for (id, left) in answers.iter_mut() {
            let is_hungry = world.info(*id).is_some_and(|info| info.queued < 64 << 10);
            if is_hungry && *left > 0 {
                let len = CHUNK.len().min(*left);
                world.send(*id, &CHUNK[..len], wire);
                *left -= len;
            }
        }
        world.time_out(at, wire);
        world.transmit(at, wire);
    }

    fn frames_free(&mut self) -> usize {
        self.relay.streams().link.frames_free()
    }

    /// Seconds until `id` has read all that the front has for it.
    fn seconds_until_served(&mut self, id: ConnectionId) -> u32 {
        self.readers.insert(id, 0);
        for seconds in 0..60 {
            if self.readers[&id] == ANSWER_BYTES {
                return seconds;
            }
            self.run(Duration::from_secs(1));
        }
        let counters = self.relay.streams().stack.counters().clone();
        panic!("{} of {ANSWER_BYTES} bytes after a minute; {counters:?}", self.readers[&id]);
    }
}

#[test]
fn an_honest_client_is_served_among_strangers_that_shut_their_windows_and_all_frames_come_back() {
    let mut scene = Scene::new();
    let honest_before = scene.connect(900);
    scene.seconds_until_served(honest_before);
    let strangers: Vec<ConnectionId> = (0..STRANGERS).map(|index| scene.connect(index)).collect();
    scene.run(Duration::from_secs(4));
    let free = scene.frames_free();
    assert!(free < PROXY_FRAMES / 8, "{STRANGERS} strangers take all that is shared, not only up to {free}");
    assert_eq!(scene.lost, 0, "what arrives finds a frame all the same");

    let honest = scene.connect(901);
    let seconds = scene.seconds_until_served(honest);
    assert!(seconds <= 30, "served after {seconds} s");
    let counters = scene.relay.streams().stack.counters().clone();
    assert!(counters.shed > 0, "somebody had to go");
    assert!(counters.dropped(DropReason::OverBudget) > 0);
    assert_eq!((counters.no_frame, scene.lost), (0, 0));
    assert!(scene.has_waited_for_frames);

    // Whoever has not been shed is served as soon as it reads.
    let at = tcp_instant(scene.now);
    for id in strangers.iter().copied().chain([honest_before, honest]) {
        scene.world.abort(at, id, &mut scene.wire);
    }
    scene.run(Duration::from_secs(30));
    assert_eq!(scene.engine.session_count(), 0);
    scene.run(Duration::from_secs(60));
    let streams = scene.relay.streams();
    assert_eq!((streams.stack.frames_held(), streams.link.frames_taken()), (0, 0));
    let honest_after = scene.connect(902);
    assert!(scene.seconds_until_served(honest_after) <= 2);
}
