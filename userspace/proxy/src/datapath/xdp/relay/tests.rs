//! The relay in memory: strangers who are connected to a front, in virtual time. Clients and front are a stack too.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use mtproxy_core::config::{Config, Front, Fronts, RELAY_WINDOW_BYTES_DEFAULT, Timeouts};
use mtproxy_core::credentials::Credentials;
use mtproxy_core::dc::{DcTable, PreferIp};
use mtproxy_core::keyed_hash::KeyedHash;
use mtproxy_core::policy::replay::ReplayCache;
use mtproxy_core::random::Random;
use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_core::time::UnixSeconds;
use mtproxy_nic::rss::QueueOf;
use mtproxy_tcp::memory_link::MemoryLink;
use mtproxy_tcp::{Read, Secrets, Settings, Stack};
use rustix::event::{EventfdFlags, eventfd};

use super::super::ports::{Ask, PortCounts, PortSpace, ShardPlace};
use super::super::streams::NoPortLeft;
use super::*;

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: front.example\r\nUser-Agent: nobody in particular, but long\r\n\r\n";

fn proxy() -> SocketAddr {
    "192.0.2.1:443".parse().unwrap()
}

fn front() -> SocketAddr {
    "198.51.100.1:443".parse().unwrap()
}

/// The ports of the one shard that there is, and what it was taught of them.
struct Ports {
    space: PortSpace,
    learned: Vec<bool>,
}

impl SourcePorts for Ports {
    fn take(&mut self, remote: SocketAddr, ask: Ask<'_>) -> Option<Result<SocketAddr, NoPortLeft>> {
        let port = self.space.take(proxy().ip(), remote, ask);
        Some(port.map(|port| SocketAddr::new(proxy().ip(), port)).map_err(|_| NoPortLeft))
    }

    fn let_go(&mut self, local: SocketAddr, remote: SocketAddr) {
        self.space.let_go(local.ip(), remote, local.port());
    }

    fn reclaim(&mut self, ask: Ask<'_>) {
        self.space.reclaim(ask);
    }

    fn learn(&mut self, local: SocketAddr, remote: SocketAddr, is_here: bool) {
        self.learned.push(is_here);
        self.space.learn(local.ip(), remote, local.port(), is_here);
    }

    fn counts(&self) -> PortCounts {
        self.space.counts()
    }

    fn owner(&self, _: SocketAddr) -> Option<usize> {
        None
    }
}

struct World {
    relay: Relay<MemoryLink, Ports>,
    engine: Engine,
    /// Clients and front.
    outside: Stack<MemoryLink>,
    outside_link: MemoryLink,
    now: Now,
    arrived_on: ArrivedOn,
    clients: u16,
    /// Connections that have reached the front.
    fronted: usize,
}

fn engine() -> Engine {
    let front =
        Front { domain: "front.example".parse().unwrap(), addresses: vec![front()], flight_len: 2000 };
    let config = Config {
        credentials: Credentials::new([("user".to_owned(), Secret::new([1; 16], SecretKind::Plain))]),
        fronts: Fronts::new([front]),
        dc_table: DcTable::builtin(PreferIp::V4),
        middle_proxies: None,
        timeouts: Timeouts::default(),
        relay_window_bytes: RELAY_WINDOW_BYTES_DEFAULT,
    };
    let cache = ReplayCache::new(1024, KeyedHash::new(&mut Random::from_seed([2; 32])));
    Engine::new(Arc::new(config), [3; 32], Box::new(cache))
}

impl World {
    /// With so many ports to dial from.
    fn new(ports: u16) -> Self {
        let instant = mtproxy_core::time::Instant::after_origin(Duration::from_secs(5));
        let now = Now { instant, unix: UnixSeconds(1_700_000_000) };
        let stack = |seed, at| {
            let mut stack = Stack::new(Settings::default(), Secrets::from_seed([seed; 32]), tcp_instant(now));
            stack.listen(at);
            stack
        };
        let ports: Vec<u16> = (61000..61000 + ports).collect();
        let place = ShardPlace { shard: 0, shards: NonZeroU16::MIN, queue: 0 };
        let space = PortSpace::new(&ports, place, QueueOf::Unknown, [4; 16]);
        let ports = Ports { space, learned: Vec::new() };
        let limit = ConnectionLimit::new(1000);
        let link = || MemoryLink::new(4096, 2048);
        let streams = Streams::new(stack(5, proxy()), link(), ports, limit.clone(), tcp_instant(now));
        let wake = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        Self {
            relay: Relay::new(streams, limit, wake).unwrap(),
            engine: engine(),
            outside: stack(6, front()),
            outside_link: link(),
            now,
            arrived_on: ArrivedOn::OurQueue,
            clients: 0,
            fronted: 0,
        }
    }

    /// A client that nobody has seen before begins to connect.
    fn client(&mut self) {
        self.clients += 1;
        let ip = IpAddr::from([203, 0, 113, 1]);
        let local = SocketAddr::new(ip, 1024 + self.clients);
        self.outside.connect(tcp_instant(self.now), local, proxy(), &mut self.outside_link).unwrap();
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant.plus(time);
        while self.turn_of_outside() + self.turn_of_proxy() > 0 {}
    }

    /// Answers how many packets have come.
    fn turn_of_proxy(&mut self) -> usize {
        let Self { relay, engine, outside_link, now, .. } = self;
        relay.begin(*now);
        let mut packets = 0;
        while let Some(packet) = outside_link.take_sent() {
            packets += 1;
            let (frame, range) = relay.streams().link.received(&packet).expect("frames are plenty");
            if let Some(unknown) = relay.arrive(*now, frame, range, self.arrived_on, engine) {
                let streams = relay.streams();
                streams.stack.refuse(streams.now, unknown, &mut streams.link);
            }
        }
        relay.read_ready(*now, engine);
        relay.time_out(*now, engine);
        relay.transmit(*now, engine);
        packets
    }

    fn turn_of_outside(&mut self) -> usize {
        let now = tcp_instant(self.now);
        let mut packets = 0;
        while let Some(packet) = self.relay.streams().link.take_sent() {
            packets += 1;
            let (frame, range) = self.outside_link.received(&packet).expect("frames are plenty");
            if let Some(unknown) = self.outside.receive(now, frame, range, &mut self.outside_link) {
                self.outside.refuse(now, unknown, &mut self.outside_link);
            }
        }
        self.outside.time_out(now, &mut self.outside_link);
        while let Some(event) = self.outside.next_event() {
            self.heard_outside(event);
        }
        self.outside.transmit(now, &mut self.outside_link);
        packets
    }

    /// A client asks and closes at once; whoever has read the other's end closes too.
    fn heard_outside(&mut self, event: Event) {
        let (stack, link, id) = (&mut self.outside, &mut self.outside_link, event.connection());
        match event {
            Event::Connected(_) => {
                stack.send(id, REQUEST, link);
                stack.shut_down(id);
            }
            Event::Accepted(..) => self.fronted += 1,
            Event::Readable(_) => loop {
                match stack.read(id) {
                    Read::Text { frame, .. } => link.release(frame),
                    Read::End => return stack.close(tcp_instant(self.now), id, link),
                    Read::Nothing => return,
                }
            },
            Event::Sent(..) => {}
            Event::ConnectFailed(..) | Event::Reset(..) => panic!("{event:?}"),
        }
    }

    fn ports(&mut self) -> PortCounts {
        self.relay.streams().ports.counts()
    }
}

#[test]
fn clients_that_close_first_do_not_use_up_the_ports_however_fast_they_come() {
    let mut world = World::new(64);
    // Each close leaves a tuple in TIME-WAIT for a minute. 40 a second take all ports within two seconds; those in
    // their first second are no more than 64.
    for client in 1..=600 {
        world.client();
        world.pass(Duration::from_millis(25));
        assert!(world.fronted + 4 >= client, "client {client} was not dialled for: {:?}", world.ports());
    }
    world.pass(Duration::from_millis(500));
    assert_eq!((world.fronted, world.ports().exhausted), (600, 0));
    assert!(world.ports().reopened > 400, "{:?}", world.ports());
    // In the end everything is forgotten, and every port free.
    for _ in 0..130 {
        world.pass(Duration::from_secs(1));
    }
    assert_eq!((world.ports().taken, world.engine.session_count()), (0, 0));
    assert_eq!(world.relay.streams().stack.connection_count(), 0);
}

#[test]
fn without_a_port_that_could_be_reopened_a_dial_fails_and_the_next_second_brings_one() {
    let mut world = World::new(1);
    world.client();
    world.pass(Duration::from_millis(25));
    world.client();
    world.pass(Duration::from_millis(25));
    assert_eq!((world.fronted, world.ports().exhausted), (1, 1));
    world.pass(Duration::from_secs(1));
    world.client();
    world.pass(Duration::from_millis(25));
    assert_eq!((world.fronted, world.ports().reopened), (2, 1));
}

#[test]
fn the_first_reply_teaches_the_port_space_which_queue_it_came_on() {
    let mut world = World::new(4);
    for arrived_on in [ArrivedOn::AnotherQueue, ArrivedOn::OurQueue] {
        world.arrived_on = arrived_on;
        world.client();
        world.pass(Duration::from_millis(25));
    }
    assert_eq!(world.relay.streams().ports.learned, [false, true]);
}

#[test]
fn an_event_of_a_connection_that_is_gone_is_not_the_next_ones_in_its_slot() {
    let mut world = World::new(1);
    let now = world.now;
    let accept = |world: &mut World, port| {
        let source = SocketAddr::new(front().ip(), port);
        let stream = world.engine.accept(
            now,
            Endpoints { local: proxy(), remote: source },
            &mut world.relay.sockets.actions,
        );
        let streams = world.relay.streams();
        assert!(streams.admit());
        let connection = streams.stack.connect(streams.now, proxy(), source, &mut streams.link).unwrap();
        streams.insert_client(stream, connection);
        (stream, connection)
    };
    let (old_stream, old) = accept(&mut world, 1);
    assert_eq!(world.relay.streams().stream_of(old), Some(old_stream));
    world.relay.streams().lose(old_stream);
    let (new_stream, new) = accept(&mut world, 2);
    assert_eq!(old.slot(), new.slot(), "the slot is taken again");
    assert_eq!(world.relay.streams().stream_of(old), None);
    assert_eq!(world.relay.streams().stream_of(new), Some(new_stream));
}
