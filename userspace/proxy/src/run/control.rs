//! The control thread, once everything runs: signals, changes of the configuration, and ends of workers.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crossbeam::channel::{self, Receiver};
use crossbeam::select;
use mtproxy_core::config::Fronts;
use tracing::{error, info, warn};

use super::fast_path::{Attempt, FastPath};
use crate::control::ControlEvent;
use crate::control::fronts::{FrontPlan, FrontWatch};
use crate::control::middle_proxies::{LoadedMiddleProxies, MiddleProxyPlan, MiddleProxyWatch};
use crate::fleet::{Failure, Fleet, WorkerEnd};
use crate::settings::{Host, RunArgs, Settings};
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::worker::Command;

/// A hang of one shard, made on SIGUSR2 where the environment asks for it: tests show by it that clients go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    shard: usize,
    time: Duration,
}

impl Hold {
    /// `MTPROXY_TEST_HOLD=SHARD:SECONDS`.
    pub(super) fn from_environment() -> Option<Self> {
        let text = std::env::var("MTPROXY_TEST_HOLD").ok()?;
        let (shard, seconds) = text.split_once(':')?;
        Some(Self { shard: shard.parse().ok()?, time: Duration::from_secs(seconds.parse().ok()?) })
    }
}

/// The control thread, once everything runs.
pub(super) struct Control<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) settings: Settings,
    pub(super) listening: Vec<SocketAddr>,
    pub(super) fleet: Fleet,
    pub(super) metrics: Arc<Metrics>,
    /// Where the fronts are.
    pub(super) fronts: Fronts,
    pub(super) front_watch: FrontWatch,
    /// What is known about middle proxies, if the settings want them.
    pub(super) middle_proxies: Option<Arc<LoadedMiddleProxies>>,
    /// The same, for the page of statistics.
    pub(super) known: Arc<ArcSwapOption<LoadedMiddleProxies>>,
    pub(super) log_sink: log::Sink,
    pub(super) middle_proxy_watch: MiddleProxyWatch,
    /// The hold on the interface, if there are shards, or have been.
    pub(super) fast_path: Option<FastPath>,
    pub(super) hold: Option<Hold>,
    pub(super) exit_code: ExitCode,
}

impl Control<'_> {
    /// Does what the events say until all workers have ended.
    pub(super) fn obey(
        mut self,
        events: &Receiver<ControlEvent>,
        worker_ends: &Receiver<WorkerEnd>,
    ) -> ExitCode {
        const SIGNALS_END_LAST: &str = "the signal thread lives as long as the process";
        const ATTEMPTS_ARE_HELD: &str = "the fast path holds its own sender";
        const EVERY_END_IS_TOLD: &str = "a worker that runs still has its end to tell";
        let ticks = self.fast_path.as_ref().map_or_else(channel::never, |_| FastPath::ticks());
        let attempts = self.fast_path.as_ref().map_or_else(channel::never, FastPath::attempts);
        while self.fleet.running() > 0 {
            select! {
                recv(ticks) -> _ => self.look_after_shards(),
                recv(attempts) -> attempt => self.attempted(attempt.expect(ATTEMPTS_ARE_HELD)),
                recv(events) -> event => match event.expect(SIGNALS_END_LAST) {
                    ControlEvent::Drain => self.drain(),
                    ControlEvent::Reload => self.reload(),
                    ControlEvent::Fronts(fronts) => {
                        self.fronts = fronts;
                        self.reconfigure();
                    }
                    ControlEvent::MiddleProxies(loaded) => {
                        self.middle_proxies = Some(loaded);
                        self.reconfigure();
                    }
                    ControlEvent::ReopenLog => self.reopen_log(),
                    ControlEvent::Hold => self.hold_shard(),
                },
                recv(worker_ends) -> end => self.worker_ended(end.expect(EVERY_END_IS_TOLD)),
            }
        }
        info!("stopped");
        self.exit_code
    }

    fn look_after_shards(&mut self) {
        if let Some(fast_path) = &mut self.fast_path {
            fast_path.look_after(&self.metrics, &self.fleet);
        }
    }

    fn attempted(&mut self, attempt: Attempt) {
        if let Some(fast_path) = &mut self.fast_path {
            fast_path.attempted(attempt, &self.metrics, &mut self.fleet);
        }
    }

    fn reopen_log(&self) {
        match self.log_sink.reopen() {
            Ok(()) => info!("log opened"),
            Err(error) => warn!(%error, "the log file cannot be opened; lines go where they went"),
        }
    }

    fn hold_shard(&self) {
        if let Some(Hold { shard, time }) = self.hold {
            warn!(shard, ?time, "a shard is held, as the environment asks");
            self.fleet.command_shard(shard, Command::Hold(time));
        }
    }

    fn worker_ended(&mut self, (worker, outcome): WorkerEnd) {
        self.fleet.ended(worker);
        let is_shard = self.fleet.is_shard(worker);
        match outcome {
            Ok(()) if is_shard => self.shard_ended(),
            Ok(()) => {}
            Err(Failure::Host(error)) if is_shard => {
                error!(worker, error, "a shard ended");
                self.shard_ended();
            }
            Err(failure) => {
                let error = match failure {
                    Failure::Host(error) => error,
                    Failure::Panic => "panicked; the lines above say where".to_owned(),
                };
                // Going on with fewer workers would hide the defect; a supervisor starts all of them again.
                error!(
                    worker,
                    error, "a worker failed: the others finish what they have, then the proxy ends"
                );
                self.exit_code = ExitCode::FAILURE;
                self.drain();
            }
        }
    }

    fn shard_ended(&mut self) {
        if let Some(fast_path) = &mut self.fast_path {
            fast_path.shard_ended(&self.metrics, &self.fleet);
        }
    }

    fn drain(&mut self) {
        if self.metrics.is_draining() {
            return;
        }
        self.metrics.start_draining();
        if self.args.compat.is_some() {
            info!("SIGTERM handled.");
        }
        let grace_seconds = self.settings.drain.as_secs();
        info!(
            grace_seconds,
            sessions = self.metrics.sessions_open(),
            "draining: no new clients, open sessions may finish"
        );
        if let Some(fast_path) = &mut self.fast_path {
            fast_path.stop();
        }
        self.fleet.command(|| Command::Drain(self.settings.drain));
    }

    /// Reads the configuration again. What was read takes effect when its fronts have been looked up.
    fn reload(&mut self) {
        match Settings::load(self.args, &Host::here()) {
            Err(complaints) => {
                for line in complaints.to_string().lines() {
                    error!("reload: {line}");
                }
                error!("reload refused; the proxy goes on with the settings it has");
            }
            Ok(mut newer) => {
                let at_restart = self.settings.needing_restart(&newer);
                if !at_restart.is_empty() {
                    warn!(
                        settings = at_restart.join(", "),
                        "reload: these settings differ and take effect at the next restart"
                    );
                }
                if newer.secrets.is_empty() {
                    // The generated one is still the one; the file may be out of reach by now.
                    newer.secrets.clone_from(&self.settings.secrets);
                }
                self.front_watch.follow(FrontPlan::new(&newer, &self.listening));
                self.middle_proxy_watch.follow(MiddleProxyPlan::of(&newer));
                if let Some(fast_path) = &mut self.fast_path {
                    fast_path.reload(&newer);
                }
                info!(secrets = newer.secrets.len(), domains = newer.domains.len(), "reloaded");
                self.settings = newer;
            }
        }
    }

    fn reconfigure(&mut self) {
        if self.settings.middle_proxies.is_none() {
            self.middle_proxies = None;
        } else if self.middle_proxies.is_none() {
            // Going direct meanwhile is not what was asked for. What is known so far remains in force.
            warn!("the new settings take effect when something is known about middle proxies");
            return;
        }
        self.known.store(self.middle_proxies.clone());
        let config = self.settings.engine_config(self.fronts.clone(), self.middle_proxies.as_deref());
        self.fleet.configure(Arc::new(config));
    }
}
