//! The engine over TCP-lite in memory: `Relay<MemoryLink, _>`, and a second stack as the kernel of all peers.
//!
//! ```text
//!   peers ─ Stack ─ MemoryLink ═══ two queues of packets ═══ MemoryLink ─ Relay(Stack, Engine)
//! ```
//! Packets are neither lost nor late; what loss does to TCP-lite is tested beside it. Time is virtual.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use mtproxy_bin::datapath::epoll::ConnectionLimit;
use mtproxy_bin::datapath::xdp::ports::Ask;
use mtproxy_bin::datapath::xdp::{ArrivedOn, NoPortLeft, Relay, SourcePorts, Streams, tcp_instant};
use mtproxy_core::engine::Engine;
use mtproxy_core::time::Now;
use mtproxy_tcp::link::Link as _;
use mtproxy_tcp::memory_link::MemoryLink;
use mtproxy_tcp::{ConnectionId, Event, Read, Secrets, Settings, Stack};
use rustix::event::{EventfdFlags, eventfd};

use crate::deployment;
use crate::script::Scene;
use crate::stage::{Received, Sent, Stage, Upstream};

/// Frames of either side: more than every window together.
const FRAMES: usize = 8192;
const FRAME_BYTES: usize = 2048;
/// Peers' windows, and what they queue: small, so that back pressure comes soon.
const WINDOW_BYTES: u32 = 128 * 1024;
/// Virtual time that passes at once while nothing has a deadline.
const MOMENT: Duration = Duration::from_millis(50);

pub(crate) struct FramesStage {
    engine: Engine,
    relay: Relay<MemoryLink, Ports>,
    stack: Stack<MemoryLink>,
    link: MemoryLink,
    elapsed: Duration,
    unix_seconds: u32,
    connections: Vec<Connection>,
    /// By the connection's name.
    indices: BTreeMap<u64, usize>,
    accepted: VecDeque<(Upstream, usize)>,
    clients: u16,
}

/// A peer's connection.
struct Connection {
    id: ConnectionId,
    has_reset: bool,
    is_reset_told: bool,
    is_gone: bool,
}

/// Ports of the proxy, each used once.
struct Ports {
    used: u16,
}

impl SourcePorts for Ports {
    fn take(&mut self, remote: SocketAddr, _: Ask<'_>) -> Option<Result<SocketAddr, NoPortLeft>> {
        self.used += 1;
        Some(Ok(SocketAddr::new(deployment::proxy_address(remote.is_ipv6()).ip(), 20_000 + self.used)))
    }
}

impl Stage for FramesStage {
    fn set(scene: Scene, unix_seconds: u32) -> Self {
        let start = tcp_instant(deployment::now(Duration::ZERO, unix_seconds));
        let stack = |seed, window| {
            let settings = Settings { receive_buffer_max_bytes: window, ..Settings::default() };
            Stack::new(settings, Secrets::from_seed([seed; 32]), start)
        };
        let limit = ConnectionLimit::new(1024);
        let mut proxys = stack(1, Settings::default().receive_buffer_max_bytes);
        proxys.listen(deployment::proxy_address(false));
        proxys.listen(deployment::proxy_address(true));
        let link = || MemoryLink::new(FRAMES, FRAME_BYTES);
        let streams = Streams::new(proxys, link(), Ports { used: 0 }, limit.clone(), start);
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("eventfd");
        let mut peers = stack(2, WINDOW_BYTES);
        for (_, address) in deployment::servers() {
            peers.listen(address);
        }
        Self {
            engine: deployment::engine(scene),
            relay: Relay::new(streams, limit, wake).expect("epoll"),
            stack: peers,
            link: link(),
            elapsed: Duration::ZERO,
            unix_seconds,
            connections: Vec::new(),
            indices: BTreeMap::new(),
            accepted: VecDeque::new(),
            clients: 0,
        }
    }

    fn connect(&mut self, is_v6: bool) -> usize {
        self.clients += 1;
        let local = deployment::client_address(is_v6, 30_000 + self.clients);
        let remote = deployment::proxy_address(is_v6);
        let now = tcp_instant(self.now());
        let id = self.stack.connect(now, local, remote, &mut self.link).expect("a port never used before");
        self.insert(id)
    }

    fn accept(&mut self) -> Option<(Upstream, usize)> {
        self.accepted.pop_front()
    }

    fn send(&mut self, connection: usize, bytes: &[u8]) -> Sent {
        let Connection { id, has_reset, .. } = self.connections[connection];
        if has_reset {
            return Sent::Broken;
        }
        let queued = self.stack.info(id).map_or(0, |info| info.queued);
        if queued as usize >= WINDOW_BYTES as usize || !self.stack.can_take(bytes.len(), &self.link) {
            return Sent::Took(0);
        }
        self.stack.send(id, bytes, &mut self.link);
        Sent::Took(bytes.len())
    }

    fn receive(&mut self, connection: usize) -> Received {
        let Connection { id, has_reset, is_reset_told, .. } = &mut self.connections[connection];
        match self.stack.read(*id) {
            Read::Text { frame, range } => {
                let bytes = self.link.bytes(&frame)[range].to_vec();
                self.link.release(frame);
                Received::Bytes(bytes)
            }
            Read::End => Received::Fin,
            Read::Nothing if *has_reset && !std::mem::replace(is_reset_told, true) => Received::Rst,
            Read::Nothing => Received::Nothing,
        }
    }

    fn finish(&mut self, connection: usize) {
        self.stack.shut_down(self.connections[connection].id);
    }

    fn reset(&mut self, connection: usize) {
        self.connections[connection].is_gone = true;
        let now = tcp_instant(self.now());
        self.stack.abort(now, self.connections[connection].id, &mut self.link);
    }

    fn let_go(&mut self, connection: usize) {
        if !std::mem::replace(&mut self.connections[connection].is_gone, true) {
            let now = tcp_instant(self.now());
            self.stack.close(now, self.connections[connection].id, &mut self.link);
        }
    }

    fn pass(&mut self, is_waiting: bool) {
        let has_moved = self.exchange();
        if is_waiting && !has_moved {
            let origin = mtproxy_tcp::time::Instant::default();
            let of_stacks = [self.stack.next_timeout(), self.relay.streams().stack.next_timeout()];
            let of_stacks = of_stacks.into_iter().flatten().map(|at| at.since(origin));
            let of_engine =
                self.engine.next_timeout().map(|at| at.since(mtproxy_core::time::Instant::ORIGIN));
            let later = self.elapsed + MOMENT;
            let due = of_stacks.chain(of_engine).min().unwrap_or(later);
            // A deadline that is now is looked at by `exchange`; time has to move in any case.
            self.elapsed = due.clamp(self.elapsed + Duration::from_millis(1), later);
        }
    }

    fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl FramesStage {
    fn now(&self) -> Now {
        deployment::now(self.elapsed, self.unix_seconds)
    }

    fn insert(&mut self, id: ConnectionId) -> usize {
        self.connections.push(Connection { id, has_reset: false, is_reset_told: false, is_gone: false });
        let index = self.connections.len() - 1;
        self.indices.insert(id.to_u64(), index);
        index
    }

    /// One turn of the proxy, and one of the peers' kernel. True if packets crossed.
    fn exchange(&mut self) -> bool {
        let now = self.now();
        let instant = tcp_instant(now);
        self.stack.time_out(instant, &mut self.link);
        self.stack.transmit(instant, &mut self.link);
        self.relay.begin(now);
        let mut has_moved = false;
        while let Some(packet) = self.link.take_sent() {
            has_moved = true;
            let link = &mut self.relay.streams().link;
            let (frame, range) = link.received(&packet).expect("the proxy leaves frames free");
            if let Some(unknown) = self.relay.arrive(now, frame, range, ArrivedOn::OurQueue, &mut self.engine)
            {
                let streams = self.relay.streams();
                streams.stack.refuse(instant, unknown, &mut streams.link);
            }
        }
        self.relay.read_ready(now, &mut self.engine);
        self.relay.time_out(now, &mut self.engine);
        self.relay.transmit(now, &mut self.engine);
        while let Some(packet) = self.relay.streams().link.take_sent() {
            has_moved = true;
            let (frame, range) = self.link.received(&packet).expect("peers leave frames free");
            if let Some(unknown) = self.stack.receive(instant, frame, range, &mut self.link) {
                self.stack.refuse(instant, unknown, &mut self.link);
            }
        }
        self.note_events();
        has_moved || self.relay.is_busy()
    }

    fn note_events(&mut self) {
        while let Some(event) = self.stack.next_event() {
            match event {
                Event::Accepted(id, _) => {
                    let connection = self.insert(id);
                    let local = self.stack.endpoints(id).map(|(local, _)| local);
                    let servers = deployment::servers();
                    let who = servers.iter().find(|(_, address)| Some(*address) == local);
                    self.accepted.push_back((who.expect("one of the listeners").0, connection));
                }
                Event::Reset(id, _) | Event::ConnectFailed(id, _) => {
                    if let Some(&index) = self.indices.get(&id.to_u64()) {
                        self.connections[index].has_reset = true;
                    }
                }
                Event::Connected(_) | Event::Readable(_) | Event::Sent(..) => {}
            }
        }
    }
}
