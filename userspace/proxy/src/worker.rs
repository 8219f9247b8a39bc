//! A worker: one thread, one engine, one datapath, one loop.
//!
//! Workers share nothing but the replay cache and the client limit; a client stays with the worker that
//! accepted it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};
use mtproxy_core::config::Config;
use mtproxy_core::engine::Engine;
use mtproxy_core::stream::Leg;
use mtproxy_core::time::{Instant, Now};
use rustix::event::{EventfdFlags, eventfd};

use crate::clock::Clock;
use crate::datapath::Datapath;
use crate::telemetry::events::Recorder;

/// What the control thread may ask of a worker.
#[derive(Debug)]
pub enum Command {
    /// Use this configuration from now on.
    Configure(Arc<Config>),
    /// Accept nobody, and end when the last client leaves or this much time has passed.
    Drain(Duration),
}

/// The control thread's end of a worker.
#[derive(Debug)]
pub struct WorkerHandle {
    commands: Sender<Command>,
    wake: OwnedFd,
}

impl WorkerHandle {
    /// Hands `command` over and wakes the worker. Commands to a worker that has ended are lost.
    pub fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // Fails only if the counter is at its maximum; then the worker is awake anyway.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// The worker's end: what reaches it from outside.
#[derive(Debug)]
pub struct Mailbox {
    commands: Receiver<Command>,
}

/// A pair of ends, and the descriptor that becomes readable when a command was sent.
///
/// # Errors
/// When the kernel has no eventfd for us.
pub fn mailbox() -> io::Result<(WorkerHandle, Mailbox, OwnedFd)> {
    let (sender, receiver) = unbounded();
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let reader = wake.try_clone()?;
    Ok((WorkerHandle { commands: sender, wake }, Mailbox { commands: receiver }, reader))
}

/// One engine and its datapath.
pub struct Worker<D> {
    clock: Clock,
    engine: Engine,
    datapath: D,
    mailbox: Mailbox,
    recorder: Recorder,
    draining_until: Option<Instant>,
}

impl<D: Datapath> Worker<D> {
    /// A worker that is ready to run.
    #[must_use]
    pub fn new(engine: Engine, datapath: D, mailbox: Mailbox, recorder: Recorder) -> Self {
        Self { clock: Clock::start(), engine, datapath, mailbox, recorder, draining_until: None }
    }

    /// Serves clients until drained.
    ///
    /// # Errors
    /// Only for a broken datapath.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            self.datapath.wait(self.time_to_sleep())?;
            let now = self.clock.now();
            self.datapath.receive(now, &mut self.engine);
            // Behind receive, which takes the wake-up: a command that comes in between wakes us again.
            self.obey(now);
            self.datapath.time_out(now, &mut self.engine);
            self.datapath.transmit(now, &mut self.engine);
            let is_over = self.is_over(now);
            if is_over {
                self.datapath.stop(now, &mut self.engine);
            }
            self.record();
            if is_over {
                return Ok(());
            }
        }
    }

    fn time_to_sleep(&self) -> Option<Duration> {
        let deadlines = [self.engine.next_timeout(), self.datapath.next_timeout(), self.draining_until];
        deadlines.into_iter().flatten().min().map(|deadline| self.clock.until(deadline))
    }

    fn obey(&mut self, now: Now) {
        while let Ok(command) = self.mailbox.commands.try_recv() {
            match command {
                Command::Configure(config) => {
                    self.recorder.configure(&config.credentials);
                    self.engine.set_config(config);
                }
                Command::Drain(grace) => {
                    self.datapath.stop_accepting();
                    self.draining_until = Some(now.instant.plus(grace));
                }
            }
        }
    }

    fn record(&mut self) {
        for event in self.datapath.drain_reports() {
            self.recorder.record(&event);
        }
        let counters = self.recorder.counters();
        counters.received_bytes[0].publish(self.engine.received_bytes(Leg::Client));
        counters.received_bytes[1].publish(self.engine.received_bytes(Leg::Upstream));
        self.datapath.publish(counters);
    }

    fn is_over(&self, now: Now) -> bool {
        self.draining_until.is_some_and(|until| self.engine.session_count() == 0 || until <= now.instant)
    }
}
