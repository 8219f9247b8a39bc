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
mod kernel_sockets;
mod own_addresses;
pub mod reattach;
mod shard;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mtproxy_nic::link::RawLink;
use mtproxy_nic::netlink::Netlink;
use mtproxy_nic::quirks::advice;
use mtproxy_nic::rss::QueueOf;
use mtproxy_nic::{Facts as NicFacts, Glance};
use mtproxy_xdp::{AttachMode, Error as SteeringError, Steering, SynLimit};
use mtproxy_xsk::{BindMode, BusyPoll, ChunkSize, ModeLadder, Socket};
use netlink_sys::protocols::NETLINK_ROUTE;
use tracing::{info, warn};

use crate::complaint::Complaint;
use crate::datapath::choice::Attach;
use crate::datapath::xdp::port_range::KernelPorts;
use crate::routes::Routes;
use crate::settings::Settings;
use crate::settings::xdp::XdpMode;
use crate::telemetry::metrics::{BoundMode, Shards as ShardMetrics};
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
        let (sockets, attached) = bind_and_attach(settings, &nic, queues, attach, &mut steering)?;
        let bound = sockets.first().map_or(BindMode::Copy, |socket| socket.bound().mode);
        info!(interface, queues, attached = attached.name(), bound = %bound, "AF_XDP sockets are bound");
        let mode = match (attached, bound) {
            (AttachMode::Generic, _) => BoundMode::Generic,
            (AttachMode::Native, BindMode::ZeroCopy) => BoundMode::ZeroCopy,
            (AttachMode::Native, BindMode::Copy) => BoundMode::Copy,
        };
        if nic.link.has_carrier {
            await_carrier(interface);
        }
        let (queue_of, interface) = (QueueOf::new(&nic), nic.link.index);
        Ok(Self { steering, routes, sockets, queue_of, interface, mode, ports, ours })
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

    /// The shards, and the watch over what they have in common.
    ///
    /// # Errors
    /// When the host has no descriptor for us.
    pub fn split(
        self,
        settings: &Settings,
        listening: &[SocketAddr],
    ) -> io::Result<(Vec<Shard>, Common, Watch)> {
        let common = Common::new(&self, settings, listening)?;
        let Self { steering, routes, sockets, ours, .. } = self;
        let mut shards = Vec::new();
        for (queue, socket) in (0..).zip(sockets) {
            let beat = steering.beat(queue).map_err(|error| io::Error::other(error.to_string()))?;
            shards.push(Shard { queue, socket, beat });
        }
        Ok((shards, common, Watch::new(steering, routes, ours, settings)))
    }
}

fn steering_settings(settings: &Settings) -> mtproxy_xdp::Settings {
    let syn_limit = settings.xdp.syn_limit.map(|limit| SynLimit::per_second(limit.per_second, limit.burst));
    mtproxy_xdp::Settings { syn_limit, ..mtproxy_xdp::Settings::default() }
}

/// Binds a socket for each queue, then attaches the program: a driver that takes packets into the sockets' memory from the
/// moment on at which there is a program must find buffers there, and igb never looks again. If the driver refuses the
/// program, the sockets are bound anew for one that the kernel runs: with that, zero-copy is a word without a meaning.
fn bind_and_attach(
    settings: &Settings,
    nic: &NicFacts,
    queues: u32,
    attach: Attach,
    steering: &mut Steering,
) -> Result<(Vec<Socket>, AttachMode), Complaint> {
    let interface = nic.link.name.as_str();
    let modes: &[AttachMode] = match attach {
        Attach::Native => &[AttachMode::Native],
        Attach::NativeElseGeneric => &[AttachMode::Native, AttachMode::Generic],
        Attach::Generic => &[AttachMode::Generic],
    };
    let mut last = None;
    for &mode in modes {
        let sockets = bind_all(settings, nic, queues, mode, steering)?;
        match steering.attach(interface, mode) {
            Ok(attachment) => return Ok((sockets, attachment.mode)),
            // Not a question of the mode.
            Err(error @ SteeringError::ForeignProgram { .. }) => return Err(refused(error)),
            Err(error) => {
                warn!(interface, mode = mode.name(), %error, "the steering program was not taken");
                last = Some(error);
            }
        }
    }
    Err(refused(last.expect("there is at least one mode")))
}

fn bind_all(
    settings: &Settings,
    nic: &NicFacts,
    queues: u32,
    attach: AttachMode,
    steering: &mut Steering,
) -> Result<Vec<Socket>, Complaint> {
    let (xdp, interface) = (&settings.xdp, nic.link.name.as_str());
    let chunk = chunk(nic);
    let modes = match (xdp.mode, attach) {
        (XdpMode::ZeroCopy, _) => ModeLadder::ZeroCopy,
        (XdpMode::Auto, AttachMode::Native) => ModeLadder::ZeroCopyThenCopy,
        (XdpMode::Auto | XdpMode::Copy | XdpMode::Generic, _) => ModeLadder::Copy,
    };
    let mut sockets = Vec::new();
    for queue in 0..queues {
        let socket = Socket::bind(&mtproxy_xsk::Settings {
            frames: xdp.frames,
            chunk,
            // Half of what `mtproxy_tcp` leaves to acknowledgements, so that the fill ring comes before text.
            transmit_reserve: xdp.frames / 32,
            huge_pages: xdp.huge_pages,
            modes,
            busy_poll: xdp.busy_poll.then(BusyPoll::default),
            ..mtproxy_xsk::Settings::new(interface, queue)
        })
        .map_err(|error| Complaint::about_host(error.to_string()))?;
        if let Some(Err(error)) = &socket.bound().busy_poll {
            warn!(interface, queue, %error, "preferred busy polling was refused; interrupts drive the queue");
        }
        steering.set_socket(queue, &socket).map_err(refused)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// A page where the driver needs it, else half of one.
fn chunk(nic: &NicFacts) -> ChunkSize {
    let (driver, kernel) =
        (nic.driver.as_deref().unwrap_or_default(), nic.kernel.as_deref().unwrap_or_default());
    if !advice(driver, kernel).page_chunks {
        return ChunkSize::Bytes2048;
    }
    info!(
        driver,
        "packet buffers are 4 KiB each: this driver cuts packets that lie in smaller ones (docs/nic-setup.md)"
    );
    ChunkSize::Bytes4096
}

/// Some cards are reset when a program is attached or a socket bound, and without a link for a while. Until it is back,
/// nobody is told that we are ready.
fn await_carrier(interface: &str) {
    let deadline = Instant::now() + CARRIER_PATIENCE;
    let has_carrier = || {
        let links = Netlink::open(NETLINK_ROUTE).and_then(|mut netlink| RawLink::list(&mut netlink));
        links.is_ok_and(|links| links.iter().any(|link| link.name == interface && link.has_carrier))
    };
    while !has_carrier() {
        if Instant::now() >= deadline {
            warn!(
                interface,
                "found no carrier, which was there before the program was attached; going on without"
            );
            return;
        }
        std::thread::sleep(CARRIER_LOOK_EVERY);
    }
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

/// Several times as long as the slowest card that was met.
const CARRIER_PATIENCE: Duration = Duration::from_secs(10);
const CARRIER_LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often [`Watch::tick`] wants to be called.
pub const WATCH_EVERY: Duration = Duration::from_secs(1);
