//! The interface's queues: a socket for each, the program in front of them, and the proof that packets come.
//!
//! ```text
//!   bind all, fill all ─► attach ─► carrier back ─► zero-copy: does a packet come in? ─ no ─► all of it again, copying
//!                            └ refused: bind anew for a program that the kernel runs
//! ```

use std::time::{Duration, Instant};

use mtproxy_nic::Facts as NicFacts;
use mtproxy_nic::facts::Fact;
use mtproxy_nic::link::RawLink;
use mtproxy_nic::netlink::Netlink;
use mtproxy_nic::quirks::advice;
use mtproxy_xdp::{AttachMode, Error as SteeringError, Steering};
use mtproxy_xsk::{BindMode, BusyPoll, ChunkSize, ModeLadder, Socket};
use netlink_sys::protocols::NETLINK_ROUTE;
use tracing::{info, warn};

use super::proof::{Gateways, Proof};
use super::refused;
use crate::complaint::Complaint;
use crate::datapath::choice::Attach;
use crate::settings::Settings;
use crate::settings::xdp::{XdpMode, XdpSettings};
use crate::telemetry::metrics::BoundMode;

/// Several times as long as the slowest card that was met.
const CARRIER_PATIENCE: Duration = Duration::from_secs(10);
const CARRIER_LOOK_EVERY: Duration = Duration::from_millis(50);

/// Sockets that are bound, behind a program that is attached.
pub(super) struct Queues {
    /// One for each queue, in their order.
    pub(super) sockets: Vec<Socket>,
    /// How all of them are bound.
    pub(super) mode: BoundMode,
}

impl Queues {
    /// Takes all queues of the interface in the best mode that works. For zero-copy, a packet must come in if one of
    /// `gateways` answers: drivers have been met that bind, and then never receive.
    pub(super) fn take(
        settings: &Settings,
        nic: &NicFacts,
        queues: u32,
        attach: Attach,
        steering: &mut Steering,
        gateways: &Gateways,
    ) -> Result<Self, Complaint> {
        let interface = nic.link.name.as_str();
        let taken = Self::take_in(&settings.xdp, nic, queues, attach, steering)?;
        if taken.mode != BoundMode::ZeroCopy || !nic.link.has_carrier {
            return Ok(taken);
        }
        let proof = gateways.prove(|| steering.counters().map_or(0, |counts| counts.total()));
        match (proof, settings.xdp.mode) {
            (Proof::Received { after }, _) => {
                info!(interface, ?after, "zero-copy receives: a packet has come in");
            }
            (Proof::NobodyToAsk, _) => {
                info!(interface, "no gateway is known there that could show that zero-copy receives");
            }
            (Proof::Silence, XdpMode::ZeroCopy) => {
                warn!(
                    interface,
                    "found no packet coming in with zero-copy; expected an answer of the gateway; if clients \
                    do not get through either, use --xdp-mode copy"
                );
            }
            (Proof::Silence, _) => {
                warn!(
                    interface,
                    "found no packet coming in with zero-copy; expected an answer of the gateway; packets are \
                    copied instead"
                );
                steering.detach();
                drop(taken);
                let copying = XdpSettings { mode: XdpMode::Copy, ..settings.xdp.clone() };
                return Self::take_in(&copying, nic, queues, attach, steering);
            }
        }
        Ok(taken)
    }

    fn take_in(
        xdp: &XdpSettings,
        nic: &NicFacts,
        queues: u32,
        attach: Attach,
        steering: &mut Steering,
    ) -> Result<Self, Complaint> {
        let interface = nic.link.name.as_str();
        let (sockets, attached) = bind_and_attach(xdp, nic, queues, attach, steering)?;
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
        Ok(Self { sockets, mode })
    }
}

/// Binds a socket for each queue, then attaches the program: a driver that takes packets into the sockets' memory from the
/// moment on at which there is a program must find buffers there, and igb never looks again. If the driver refuses the
/// program, the sockets are bound anew for one that the kernel runs: with that, zero-copy is a word without a meaning.
fn bind_and_attach(
    xdp: &XdpSettings,
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
        let sockets = bind_all(xdp, nic, queues, mode, steering)?;
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

/// How sockets are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rungs {
    pub(super) modes: ModeLadder,
    pub(super) chunk: ChunkSize,
}

impl Rungs {
    /// Zero-copy is tried whatever the driver says of it: that is a hint, and both kinds of lie have been met. With a
    /// program that the kernel runs it is a word without a meaning. A packet buffer is a page where the driver needs that.
    pub(super) fn of(mode: XdpMode, attach: AttachMode, nic: &NicFacts) -> Self {
        let modes = match (mode, attach) {
            (XdpMode::ZeroCopy, _) => ModeLadder::ZeroCopy,
            (XdpMode::Auto, AttachMode::Native) => ModeLadder::ZeroCopyThenCopy,
            (XdpMode::Auto | XdpMode::Copy | XdpMode::Generic, _) => ModeLadder::Copy,
        };
        let known = |fact: &Fact<String>| fact.as_deref().unwrap_or_default().to_owned();
        let needs_pages = advice(&known(&nic.driver), &known(&nic.kernel)).page_chunks;
        Self { modes, chunk: if needs_pages { ChunkSize::Bytes4096 } else { ChunkSize::Bytes2048 } }
    }
}

fn bind_all(
    xdp: &XdpSettings,
    nic: &NicFacts,
    queues: u32,
    attach: AttachMode,
    steering: &mut Steering,
) -> Result<Vec<Socket>, Complaint> {
    let interface = nic.link.name.as_str();
    let Rungs { modes, chunk } = Rungs::of(xdp.mode, attach, nic);
    if chunk == ChunkSize::Bytes4096 {
        info!(
            driver = nic.driver.as_deref().unwrap_or_default(),
            "packet buffers are 4 KiB each: this driver cuts packets that lie in smaller ones (docs/nic-setup.md)"
        );
    }
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
