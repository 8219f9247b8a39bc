//! One shard, from its parts to its loop.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mtproxy_core::engine::Engine;
use mtproxy_nic::rss::QueueOf;
use mtproxy_tcp::congestion::Algorithm;
use mtproxy_tcp::wire::Checksums;
use mtproxy_tcp::{Secrets, Stack};
use mtproxy_xdp::{Beat, monotonic_ns};
use mtproxy_xsk::Socket;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::Shards;
use crate::capture::tap::Capture;
use crate::clock::Clock;
use crate::datapath::epoll::ConnectionLimit;
use crate::datapath::xdp::crossing::Crossing;
use crate::datapath::xdp::ports::{PortSpace, ShardPlace};
use crate::datapath::xdp::{Dialer, Gauges, HostRoutes, Pulse, Relay, Streams, Xdp, XskLink, tcp_instant};
use crate::routes::{Resolver, Snapshot};
use crate::settings::Settings;
use crate::settings::xdp::Congestion;
use crate::telemetry::events::Recorder;
use crate::telemetry::metrics::BoundMode;
use crate::worker::{Mailbox, Worker};

/// One queue's own parts.
pub struct Shard {
    pub(super) queue: u32,
    pub(super) socket: Socket,
    pub(super) beat: Beat,
}

/// What all shards are made from.
#[derive(Clone)]
pub struct Common {
    shards: NonZeroU16,
    interface: u32,
    mode: BoundMode,
    current: Arc<ArcSwap<Snapshot>>,
    resolver: Resolver,
    queue_of: QueueOf,
    secrets: [u8; 32],
    ports_secret: [u8; 16],
    ports: RangeInclusive<u16>,
    listening: Arc<[SocketAddr]>,
    stack: mtproxy_tcp::Settings,
    limit: ConnectionLimit,
    capture: Arc<Capture>,
    pin: bool,
}

impl Pulse for Beat {
    fn beat(&mut self) {
        // Fails only without the right to use maps: then the beat goes stale, and clients go to the kernel.
        let _ = Self::beat(self, monotonic_ns());
    }

    fn stop(&mut self) {
        let _ = Self::stop(self);
    }
}

impl Common {
    pub(super) fn new(
        shards: &Shards,
        settings: &Settings,
        listening: &[SocketAddr],
        capture: Arc<Capture>,
    ) -> io::Result<Self> {
        let random =
            |bytes: &mut [u8]| getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()));
        let (mut secrets, mut ports_secret) = ([0; 32], [0; 16]);
        random(&mut secrets)?;
        random(&mut ports_secret)?;
        let xdp = &settings.xdp;
        let clients = xdp.connections.saturating_mul(usize::from(shards.count().get())) / 2;
        Ok(Self {
            shards: shards.count(),
            interface: shards.interface,
            mode: shards.mode,
            current: shards.routes.current(),
            resolver: shards.routes.resolver(),
            queue_of: shards.queue_of.clone(),
            secrets,
            ports_secret,
            ports: shards.ports.clone(),
            listening: listening.into(),
            stack: mtproxy_tcp::Settings {
                congestion: match xdp.congestion {
                    Congestion::Cubic => Algorithm::Cubic,
                    Congestion::NewReno => Algorithm::NewReno,
                },
                checksums: if xdp.trust_partial_checksums {
                    Checksums::TrustPartial
                } else {
                    Checksums::Verify
                },
                connections_max: xdp.connections,
                ..mtproxy_tcp::Settings::default()
            },
            limit: ConnectionLimit::new(clients.max(1)),
            capture,
            pin: xdp.pin,
        })
    }
}

impl Shard {
    /// Runs the shard on this thread until it is drained. `wakes` has the eventfd of each shard, in order; those of
    /// the mailboxes.
    ///
    /// # Errors
    /// For a broken socket or epoll instance.
    pub fn run(
        self,
        common: &Common,
        crossing: Crossing,
        wake: OwnedFd,
        engine: Engine,
        mailbox: Mailbox,
        recorder: Recorder,
    ) -> io::Result<()> {
        let Self { queue, socket, beat } = self;
        if common.pin {
            pin_to_core(crossing.shard());
        }
        let clock = Clock::start();
        let now = tcp_instant(clock.now());
        let mut stack = Stack::new(common.stack.clone(), Secrets::from_seed(common.secrets), now);
        for at in common.listening.iter() {
            stack.listen(*at);
        }
        let routes = HostRoutes::new(common.current.clone(), common.resolver.clone(), common.interface);
        let link = XskLink::new(socket, routes, common.capture.tap(crossing.shard()));
        let shard = u16::try_from(crossing.shard()).expect("at most 256 shards");
        let place = ShardPlace { shard, shards: common.shards, queue };
        let is_a_listeners = |port: &u16| common.listening.iter().any(|at| at.port() == *port);
        let all_ports: Vec<u16> = common.ports.clone().filter(|port| !is_a_listeners(port)).collect();
        let space = PortSpace::new(&all_ports, place, common.queue_of.clone(), common.ports_secret);
        let dialer = Dialer::new(
            common.current.clone(),
            common.interface,
            space,
            common.ports.clone(),
            Arc::clone(&common.listening),
            common.shards,
        );
        let streams = Streams::new(stack, link, dialer, common.limit.clone(), now);
        let relay = Relay::new(streams, common.limit.clone(), wake)?;
        let gauges = Gauges::new(recorder.metrics().shard(crossing.shard()), common.mode);
        let datapath = Xdp::new(relay, crossing, beat, gauges);
        Worker::new(clock, engine, datapath, mailbox, recorder).run()
    }
}

/// A shard that stays on its core keeps its caches. Where that is not allowed, it merely does not.
fn pin_to_core(shard: usize) {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    let Some(core) = cores.get(shard % cores.len().max(1)) else { return };
    let mut only = CpuSet::new();
    only.set(*core);
    let _ = sched_setaffinity(None, &only);
}
