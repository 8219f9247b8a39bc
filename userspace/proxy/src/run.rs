//! `mtproxy run`: brings the parts up in order, and is the control thread until the end.
//!
//! The order matters: what needs root comes before the change of user, ports are open before a link is
//! printed, and fronts are looked up before the first client can be a stranger.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use mtproxy_core::config::{Config, Fronts};
use tracing::{error, info, warn};

use crate::cli::RunArgs;
use crate::complaint::{Complaint, Complaints};
use crate::control::fronts::{FrontPlan, FrontWatch};
use crate::control::{ControlEvent, signals};
use crate::settings::values::Datapath;
use crate::settings::{Host, Settings};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{http, log};
use crate::{links, privileges, state};

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// What kept it from starting, or stopped it.
pub fn serve(args: &RunArgs) -> Result<ExitCode, Complaints> {
    let mut settings = Settings::load(args, &Host::here())?;
    log::start(&settings.log_filter, settings.log_format)?;
    put_in_kept_secret(&mut settings)?;
    report_datapath(settings.datapath);
    let descriptors = privileges::raise_descriptor_limit();
    let connections_max =
        settings.limits.connections.unwrap_or_else(|| privileges::connections_for(descriptors));
    let listening = settings.listen.clone();
    let metrics_port = settings.metrics.map(http::bind).transpose()?;
    if let Some(user) = &settings.user {
        privileges::become_user(user)?;
    }

    let metrics = Arc::new(Metrics::new(settings.workers.get()));
    if let Some(listener) = metrics_port {
        http::serve(listener, metrics.clone()).map_err(|error| no_thread(&error))?;
    }
    let (sender, events) = channel::unbounded();
    signals::listen(sender.clone())?;
    let (fronts, front_watch) = FrontWatch::start(FrontPlan::new(&settings, &listening), sender.clone())?;
    let config = Arc::new(settings.engine_config(fronts));
    let workers = start_workers(&settings, config, connections_max, &metrics, sender)?;
    if args.secret.is_empty() {
        links::announce(&settings, &listening);
    }
    Ok(Control { settings, listening, args, workers, metrics, front_watch }.obey(&events))
}

/// The threads that serve clients, as the control thread sees them.
pub trait Workers {
    /// How many were started.
    fn count(&self) -> usize;
    /// Gives all of them a new configuration.
    fn reconfigure(&self, config: &Arc<Config>);
    /// Tells all of them to take no new clients, and to end when the open sessions have, or have been cut
    /// after `grace`. Each says `WorkerEnded` as its last word.
    fn drain(&self, grace: Duration);
}

fn start_workers(
    _settings: &Settings,
    _config: Arc<Config>,
    _connections_max: usize,
    _metrics: &Arc<Metrics>,
    _events: Sender<ControlEvent>,
) -> Result<Box<dyn Workers>, Complaint> {
    Err(Complaint::about_host(
        "found no workers in this build; expected them to serve clients; build a later version",
    ))
}

/// The control thread, once everything runs.
struct Control<'a> {
    settings: Settings,
    listening: Vec<SocketAddr>,
    args: &'a RunArgs,
    workers: Box<dyn Workers>,
    metrics: Arc<Metrics>,
    front_watch: FrontWatch,
}

impl Control<'_> {
    /// Does what the events say until all workers have ended.
    fn obey(mut self, events: &Receiver<ControlEvent>) -> ExitCode {
        let mut running = self.workers.count();
        let mut exit_code = ExitCode::SUCCESS;
        for event in events {
            match event {
                ControlEvent::Drain => self.drain(),
                ControlEvent::Reload => self.reload(),
                ControlEvent::Fronts(fronts) => self.reconfigure(fronts),
                ControlEvent::WorkerEnded { worker, outcome } => {
                    running -= 1;
                    if let Err(error) = outcome {
                        error!(worker, %error, "a worker failed; the others finish what they have, then the proxy ends");
                        exit_code = ExitCode::FAILURE;
                        self.drain();
                    }
                    if running == 0 {
                        info!("stopped");
                        break;
                    }
                }
            }
        }
        exit_code
    }

    fn drain(&mut self) {
        if self.metrics.is_draining() {
            return;
        }
        self.metrics.start_draining();
        let grace_seconds = self.settings.drain.as_secs();
        info!(
            grace_seconds,
            sessions = self.metrics.sessions_open(),
            "draining: no new clients, open sessions may finish"
        );
        self.workers.drain(self.settings.drain);
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
                info!(secrets = newer.secrets.len(), domains = newer.domains.len(), "reloaded");
                self.settings = newer;
            }
        }
    }

    fn reconfigure(&mut self, fronts: Fronts) {
        self.workers.reconfigure(&Arc::new(self.settings.engine_config(fronts)));
    }
}

fn put_in_kept_secret(settings: &mut Settings) -> Result<(), Complaint> {
    let Some(state_dir) = settings.state_dir.as_deref().filter(|_| settings.secrets.is_empty()) else {
        return Ok(());
    };
    let kept = state::kept_secret(state_dir)?;
    let origin = if kept.is_new {
        "no secret was configured: made a new one"
    } else {
        "no secret is configured: using the one made earlier"
    };
    info!(path = %kept.path.display(), "{origin}");
    settings.secrets.push(("generated".to_owned(), kept.secret));
    Ok(())
}

fn report_datapath(datapath: Datapath) {
    match datapath {
        Datapath::Auto => info!("datapath auto: using epoll, since xdp is not built yet"),
        Datapath::Xdp | Datapath::Epoll => info!(?datapath, "datapath as configured"),
    }
}

fn no_thread(error: &io::Error) -> Complaint {
    Complaint::about_host(format!(
        "found no thread to be had ({error}); expected a few; raise the limit of processes of this service"
    ))
}
