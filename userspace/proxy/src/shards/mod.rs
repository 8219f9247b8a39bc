//! The AF_XDP half of the fleet: what is brought up before rights are given up, and what watches it.
//!
//! ```text
//!   facts ─► choice ─► prepare:  load program, declare addresses, bind a socket for each queue, attach
//!                                   │ nothing is steered yet: no queue has a heartbeat
//!                          start:  a thread for each queue polls, and beats ─► clients come here
//!                          watch:  addresses, kernel-side clients, counters, advice; once a second
//!                       reattach:  all of it again, when the interface was lost and is back
//! ```
//! The epoll workers go on listening on the same addresses: what the program passes, they serve.

mod advice;
pub mod facts;
#[cfg(test)]
mod hosts_tests;
mod kernel_sockets;
mod own_addresses;
mod proof;
mod queues;
pub mod reattach;
mod shard;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use mtproxy_nic::rss::QueueOf;
use mtproxy_nic::{Facts as NicFacts, Glance};
use mtproxy_xdp::{Error as SteeringError, Steering, SynLimit};
use mtproxy_xsk::Socket;
use tracing::{info, warn};

use crate::capture::tap::Capture;
use crate::complaint::Complaint;
use crate::datapath::choice::Attach;
use crate::datapath::xdp::port_range::KernelPorts;
use crate::routes::Routes;
use crate::settings::{Cidr, Settings};
use crate::telemetry::metrics::{BoundMode, Shards as ShardMetrics};
use proof::Gateways;
use queues::Queues;
pub use shard::{Common, Shard};
use watch::Ours;
pub use watch::Watch;

/// Names of what a shard counts, for the list of metrics.
#[must_use]
pub fn metrics(shards: usize) -> ShardMetrics {
    use std::sync::LazyLock;
    static REASONS: LazyLock<Vec<&'static str>> =
        LazyLock::new(|| mtproxy_tcp::drop_reason::DropReason::ALL.iter().map(|it| it.name()).collect());
    static EXITS: LazyLock<Vec<&'static str>> =
        LazyLock::new(|| mtproxy_xdp_abi::Exit::ALL.iter().map(|exit| exit.name()).collect());
    ShardMetrics { count: shards, drop_reasons: &REASONS, steering_exits: &EXITS }
}

/// Everything that is ready to run.
pub struct Shards {
    steering: Steering,
    routes: Arc<Routes>,
    sockets: Vec<Socket>,
    queue_of: QueueOf,
    interface: u32,
    mode: BoundMode,
    ports: RangeInclusive<u16>,
    ours: Ours,
    /// What the program was told to drop.
    deny: Vec<Cidr>,
}

impl Shards {
    /// Brings up the interface's queues. Needs the rights; afterwards they may be given up.
    ///
    /// # Errors
    /// What the operator must change.
    pub fn prepare(
        settings: &Settings,
        interface: &str,
        attach: Attach,
        listening: &[SocketAddr],
    ) -> Result<Self, Complaint> {
        let nic = NicFacts::read(interface).map_err(|error| no_interface(interface, &error))?;
        let ports = facts::own_ports(settings.xdp.ports, &KernelPorts::new(&nic)?)?;
        if ports.first != settings.xdp.ports.first() || ports.last != settings.xdp.ports.last() {
            info!(%ports, "net.ipv4.ip_local_reserved_ports leaves these of [xdp] ports");
        }
        let ports = ports.first..=ports.last;
        let queues = nic.receive_queues.clone().map_err(|why| no_queues(interface, &why.to_string()))?;
        let routes = Arc::new(Routes::start().map_err(|error| no_routes(&error))?);

        let mut steering = Steering::load(&steering_settings(settings), queues).map_err(refused)?;
        let mut ours = Ours::new(nic.link.index, listening, ports.clone());
        ours.declare(&mut steering, &routes.current().load()).map_err(refused)?;
        for address in ours.left_to_kernel() {
            warn!(%address, interface, "not an address of the interface: its clients are served over epoll");
        }
        watch::deny(&mut steering, settings).map_err(refused)?;
        let snapshot = routes.current().load_full();
        let Queues { sockets, mode } = Queues::take(
            settings,
            &nic,
            queues,
            attach,
            &mut steering,
            &Gateways::known(&snapshot, nic.link.index),
        )?;
        let (queue_of, interface) = (QueueOf::new(&nic), nic.link.index);
        let deny = settings.xdp.deny.clone();
        Ok(Self { steering, routes, sockets, queue_of, interface, mode, ports, ours, deny })
    }

    /// How many queues, and so shards, there are.
    #[must_use]
    pub fn count(&self) -> NonZeroU16 {
        let count = u16::try_from(self.sockets.len()).ok().and_then(NonZeroU16::new);
        count.expect("between one and 256 queues were bound")
    }

    /// What the interface looks like as long as it is held.
    #[must_use]
    pub fn held(&self) -> Glance {
        let xdp_program = self.steering.attachment().map(|attachment| attachment.program);
        Glance { index: self.interface, receive_queues: self.count().get().into(), xdp_program }
    }

    /// The shards, whose packets `capture` may have, and the watch over what they have in common.
    ///
    /// # Errors
    /// When the host has no descriptor for us.
    pub fn split(
        self,
        settings: &Settings,
        listening: &[SocketAddr],
        capture: &Arc<Capture>,
    ) -> io::Result<(Vec<Shard>, Common, Watch)> {
        capture.renew_shards(self.sockets.len());
        let common = Common::new(&self, settings, listening, Arc::clone(capture))?;
        let Self { steering, routes, sockets, ours, deny, .. } = self;
        let mut shards = Vec::new();
        for (queue, socket) in (0..).zip(sockets) {
            let beat = steering.beat(queue).map_err(|error| io::Error::other(error.to_string()))?;
            shards.push(Shard { queue, socket, beat });
        }
        Ok((shards, common, Watch::new(steering, routes, ours, deny)))
    }
}

fn steering_settings(settings: &Settings) -> mtproxy_xdp::Settings {
    let syn_limit = settings.xdp.syn_limit.map(|limit| SynLimit::per_second(limit.per_second, limit.burst));
    mtproxy_xdp::Settings { syn_limit, ..mtproxy_xdp::Settings::default() }
}

fn refused(error: SteeringError) -> Complaint {
    Complaint::about_host(error.to_string())
}

fn no_interface(name: &str, error: &io::Error) -> Complaint {
    Complaint::about_host(format!(
        "found no interface {name:?} to read about ({error}); expected one of those that `ip link` lists; name it \
        with --interface"
    ))
}

fn no_queues(name: &str, why: &str) -> Complaint {
    Complaint::about_host(format!(
        "found no number of receive queues of {name} ({why}); expected one, since each queue needs a socket; use \
        --datapath epoll on this host"
    ))
}

fn no_routes(error: &io::Error) -> Complaint {
    Complaint::about_host(format!(
        "found no way to read this host's routes ({error}); expected netlink; use --datapath epoll on this host"
    ))
}

/// How often [`Watch::tick`] wants to be called.
pub const WATCH_EVERY: Duration = Duration::from_secs(1);
