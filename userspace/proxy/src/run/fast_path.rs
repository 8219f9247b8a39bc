//! AF_XDP from the control thread's side: the hold on the interface, its loss, and its return.
//!
//! [`Reattach`] decides, this does. Attempts are made on a thread of their own, because a card may take seconds; the
//! control thread goes on obeying signals meanwhile. Failures are told when they differ from the last.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender};
use mtproxy_nic::Glance;
use tracing::{info, warn};

use super::bring_up::{BroughtUp, bring_up};
use crate::capture;
use crate::capture::tap::Capture;
use crate::fleet::Fleet;
use crate::settings::Settings;
use crate::shards::reattach::{Reattach, Step};
use crate::shards::{Shards, WATCH_EVERY, Watch};
use crate::telemetry::metrics::{LossReason, Metrics};
use crate::worker::Command;

/// What came of an attempt.
pub(super) type Attempt = Result<Box<Shards>, String>;

/// The hold on one interface.
pub(super) struct FastPath {
    interface: String,
    /// Those of the start, but for what a reload may change.
    settings: Settings,
    listening: Vec<SocketAddr>,
    /// The steering program and what it needs, while any shard runs.
    watch: Option<Watch>,
    reattach: Reattach,
    /// What others may see of the shards' packets.
    capture: Arc<Capture>,
    attempts: (Sender<Attempt>, Receiver<Attempt>),
    last_failure: String,
    last_blindness: String,
}

impl FastPath {
    /// Starts `shards`, which are on the interface of this name.
    pub(super) fn start(
        interface: String,
        shards: Shards,
        settings: &Settings,
        listening: &[SocketAddr],
        fleet: &mut Fleet,
    ) -> std::io::Result<Self> {
        let (held, capture) = (shards.held(), Arc::default());
        if let Err(error) = capture::server::start(&interface, Arc::clone(&capture)) {
            warn!(interface, %error, "`mtproxy capture` will not work: another proxy here may serve the interface");
        }
        let watch = start_shards(shards, settings, listening, &capture, fleet)?;
        Ok(Self {
            // Which interface it is has been settled.
            settings: Settings { interface: Some(interface.clone()), ..settings.clone() },
            listening: listening.to_vec(),
            interface,
            capture,
            watch: Some(watch),
            reattach: Reattach::new(Instant::now(), held, fleet.shards_running()),
            attempts: channel::bounded(1),
            last_failure: String::new(),
            last_blindness: String::new(),
        })
    }

    /// When [`look_after`](Self::look_after) wants to be called.
    pub(super) fn ticks() -> Receiver<Instant> {
        channel::tick(WATCH_EVERY)
    }

    /// What comes of attempts; for [`attempted`](Self::attempted).
    pub(super) fn attempts(&self) -> Receiver<Attempt> {
        self.attempts.1.clone()
    }

    /// Looks after what runs, and at what may have become of the interface.
    pub(super) fn look_after(&mut self, metrics: &Metrics, fleet: &Fleet) {
        if let Some(watch) = &mut self.watch {
            watch.tick(metrics);
        }
        // Where netlink does not answer nothing is known, and nothing done.
        let Some(seen) = self.glance() else { return };
        match self.reattach.look(Instant::now(), seen) {
            Step::Stay => {}
            Step::TearDown(reason) => self.tear_down(reason, Duration::ZERO, metrics, fleet),
            Step::CutOff => fleet.command_shards(|| Command::Drain(Duration::ZERO)),
            Step::BringUp => self.try_again(),
        }
    }

    /// What the interface looks like, if that is to be seen.
    fn glance(&mut self) -> Option<Option<Glance>> {
        match Glance::at(&self.interface) {
            Ok(seen) => {
                self.last_blindness.clear();
                Some(seen)
            }
            Err(error) => {
                let why = error.to_string();
                if self.last_blindness != why {
                    warn!(interface = self.interface, why, "the interface cannot be looked at");
                    self.last_blindness = why;
                }
                None
            }
        }
    }

    /// A shard has ended because of its host.
    pub(super) fn shard_ended(&mut self, metrics: &Metrics, fleet: &Fleet) {
        let step = match self.glance() {
            Some(seen) => self.reattach.shard_ended(Instant::now(), seen),
            None => self.reattach.shard_ended_unseen(Instant::now()),
        };
        if let Step::TearDown(reason) = step {
            // The other shards' clients lack nothing as long as the interface is there.
            let grace = if reason == LossReason::ShardEnded { self.settings.drain } else { Duration::ZERO };
            self.tear_down(reason, grace, metrics, fleet);
        }
        if self.reattach.is_away() {
            self.let_go(metrics);
        }
    }

    /// Takes the program off. As long as a shard ran its own packets were to reach it.
    fn let_go(&mut self, metrics: &Metrics) {
        if let Some(watch) = self.watch.take() {
            // Its counts go with it.
            let _ = watch.publish(metrics);
        }
        metrics.renew_shards(0);
        self.capture.renew_shards(0);
    }

    fn tear_down(&mut self, reason: LossReason, grace: Duration, metrics: &Metrics, fleet: &Fleet) {
        warn!(
            interface = self.interface,
            reason = reason.name(),
            "AF_XDP is lost: clients are served over epoll until the interface can be had again"
        );
        metrics.count_xdp_loss(reason);
        self.capture.renew_shards(0);
        self.leave_new_clients_to_kernel();
        fleet.command_shards(|| Command::Drain(grace));
    }

    fn try_again(&mut self) {
        let (settings, listening) = (self.settings.clone(), self.listening.clone());
        let outcome = self.attempts.0.clone();
        let attempt = move || {
            // A panic is a defect of ours, and no reason to wait for this attempt for ever.
            let brought_up = std::panic::catch_unwind(AssertUnwindSafe(|| bring_up(&settings, &listening)));
            let attempt = match brought_up {
                Ok(Ok(BroughtUp::Xdp { shards, .. })) => Ok(shards),
                Ok(Ok(BroughtUp::Epoll(reason))) => Err(reason),
                Ok(Err(refused)) => Err(refused.complaint.to_string()),
                Err(_) => Err("panicked; the lines above say where".to_owned()),
            };
            // Fails only if the proxy is ending: then the shards go as they came.
            let _ = outcome.try_send(attempt);
        };
        if let Err(error) = thread::Builder::new().name("reattach".to_owned()).spawn(attempt) {
            self.tell_failure(error.to_string(), 0);
        }
    }

    /// An attempt is over.
    pub(super) fn attempted(&mut self, attempt: Attempt, metrics: &Metrics, fleet: &mut Fleet) {
        // The last shards have ended, and nothing comes of these.
        if metrics.is_draining() {
            return;
        }
        let shards = match attempt {
            Ok(shards) => *shards,
            Err(why) => return self.tell_failure(why, 0),
        };
        let (held, queues) = (shards.held(), shards.count());
        metrics.renew_shards(usize::from(queues.get()));
        match start_shards(shards, &self.settings, &self.listening, &self.capture, fleet) {
            Ok(mut watch) => {
                self.reattach.came_up(Instant::now(), held, fleet.shards_running());
                // They may have changed since the attempt began.
                watch.reload(&self.settings);
                self.watch = Some(watch);
                self.last_failure.clear();
                info!(interface = self.interface, queues, "AF_XDP is back: new clients are served over it");
            }
            Err(error) => {
                self.tell_failure(error.to_string(), fleet.shards_running());
                fleet.command_shards(|| Command::Drain(Duration::ZERO));
                if self.reattach.is_away() {
                    self.let_go(metrics);
                }
            }
        }
    }

    /// Some shards may have been started all the same.
    fn tell_failure(&mut self, why: String, running: usize) {
        self.reattach.failed(Instant::now(), running);
        if self.last_failure != why {
            warn!(interface = self.interface, why, "AF_XDP cannot be had yet; it is tried again");
            self.last_failure = why;
        }
    }

    /// The epoll workers accept them, if anybody still does. A queue without its socket would be worse for other
    /// shards' connections: the kernel answers what comes in by it with a reset. So they get no more of them.
    pub(super) fn leave_new_clients_to_kernel(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.drain();
        }
    }

    /// The proxy is about to end.
    pub(super) fn stop(&mut self) {
        self.leave_new_clients_to_kernel();
        self.reattach.stop();
    }

    /// Follows the settings that may change while it runs.
    pub(super) fn reload(&mut self, settings: &Settings) {
        self.settings.xdp.deny.clone_from(&settings.xdp.deny);
        self.settings.drain = settings.drain;
        if let Some(watch) = &mut self.watch {
            watch.reload(settings);
        }
    }
}

fn start_shards(
    shards: Shards,
    settings: &Settings,
    listening: &[SocketAddr],
    capture: &Arc<Capture>,
    fleet: &mut Fleet,
) -> std::io::Result<Watch> {
    let (shards, common, watch) = shards.split(settings, listening, capture)?;
    fleet.start_shards(shards, &common)?;
    let wakes: Vec<OwnedFd> = fleet.shard_wakes()?;
    watch.wake_on_new_routes(wakes);
    Ok(watch)
}
