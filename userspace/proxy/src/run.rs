//! `mtproxy run`: brings the parts up in order, and is the control thread until the end.
//!
//! The order matters: what needs root comes before the change of user, ports are open before a link is
//! printed, and fronts are looked up before the first client can be a stranger.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use crossbeam::channel::{self, Receiver};
use crossbeam::select;
use mtproxy_core::config::Fronts;
use tracing::{error, info, warn};

use crate::cli::RunArgs;
use crate::complaint::{Complaint, Complaints};
use crate::control::fronts::{FrontPlan, FrontWatch};
use crate::control::{ControlEvent, signals};
use crate::datapath::epoll::ConnectionLimit;
use crate::fleet::{Fleet, Ports, Shared, WorkerEnd};
use crate::settings::values::Datapath;
use crate::settings::{Host, Settings};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{http, log};
use crate::worker::Command;
use crate::{links, privileges, state};

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// What kept it from starting.
pub fn serve(args: &RunArgs) -> Result<ExitCode, Complaints> {
    let mut settings = Settings::load(args, &Host::here())?;
    log::start(&settings.log_filter, settings.log_format)?;
    put_in_kept_secret(&mut settings)?;
    report_datapath(settings.datapath);
    let descriptors = privileges::raise_descriptor_limit();
    let ports = Ports::open(&settings.listen, settings.workers)
        .map_err(|(address, error)| port_refused(address, &error))?;
    let listening = ports.addresses.clone();
    let metrics_port = settings.metrics.map(http::bind).transpose()?;
    if let Some(user) = &settings.user {
        privileges::become_user(user)?;
    }

    let connections_limit = most_connections(&settings, descriptors);
    let metrics = Arc::new(Metrics::new(settings.workers.get(), connections_limit));
    if let Some(listener) = metrics_port {
        http::serve(listener, metrics.clone()).map_err(|error| out_of_threads(&error))?;
    }
    let (sender, events) = channel::unbounded();
    signals::listen(sender.clone())?;
    let (fronts, front_watch) = FrontWatch::start(FrontPlan::new(&settings, &listening), sender)?;
    let shared = Shared {
        config: Arc::new(settings.engine_config(fronts)),
        metrics: metrics.clone(),
        limit: ConnectionLimit::new(connections_limit),
        replay_entries: settings.limits.replay_entries,
    };
    let (worker_sender, worker_ends) = channel::unbounded();
    let fleet = Fleet::start(ports, &shared, &worker_sender).map_err(|error| out_of_threads(&error))?;
    if args.secret.is_empty() {
        links::announce(&settings, &listening);
    }
    report_ready(&listening);
    let running = fleet.len();
    let control = Control {
        args,
        settings,
        listening,
        fleet,
        running,
        metrics,
        front_watch,
        exit_code: ExitCode::SUCCESS,
    };
    Ok(control.obey(&events, &worker_ends))
}

/// The control thread, once everything runs.
struct Control<'a> {
    args: &'a RunArgs,
    settings: Settings,
    listening: Vec<SocketAddr>,
    fleet: Fleet,
    /// Workers that have not ended yet.
    running: usize,
    metrics: Arc<Metrics>,
    front_watch: FrontWatch,
    exit_code: ExitCode,
}

impl Control<'_> {
    /// Does what the events say until all workers have ended.
    fn obey(mut self, events: &Receiver<ControlEvent>, worker_ends: &Receiver<WorkerEnd>) -> ExitCode {
        const SIGNALS_END_LAST: &str = "the signal thread lives as long as the process";
        const EVERY_END_IS_TOLD: &str = "a worker that runs still has its end to tell";
        while self.running > 0 {
            select! {
                recv(events) -> event => match event.expect(SIGNALS_END_LAST) {
                    ControlEvent::Drain => self.drain(),
                    ControlEvent::Reload => self.reload(),
                    ControlEvent::Fronts(fronts) => self.reconfigure(fronts),
                },
                recv(worker_ends) -> end => self.worker_ended(end.expect(EVERY_END_IS_TOLD)),
            }
        }
        info!("stopped");
        self.exit_code
    }

    fn worker_ended(&mut self, (worker, outcome): WorkerEnd) {
        self.running -= 1;
        if let Err(error) = outcome {
            // Going on with fewer workers would hide the defect; a supervisor starts all of them again.
            error!(worker, error, "a worker failed: the others finish what they have, then the proxy ends");
            self.exit_code = ExitCode::FAILURE;
            self.drain();
        }
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
                info!(secrets = newer.secrets.len(), domains = newer.domains.len(), "reloaded");
                self.settings = newer;
            }
        }
    }

    fn reconfigure(&mut self, fronts: Fronts) {
        let config = Arc::new(self.settings.engine_config(fronts));
        self.fleet.command(|| Command::Configure(config.clone()));
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

/// The line for which scripts wait.
fn report_ready(listening: &[SocketAddr]) {
    let addresses: Vec<String> = listening.iter().map(SocketAddr::to_string).collect();
    info!(target: log::ALWAYS, "ready: accepting clients on {}", addresses.join(", "));
}

fn most_connections(settings: &Settings, descriptors: u64) -> usize {
    let fitting = privileges::connections_for(descriptors, settings.workers.get(), settings.listen.len());
    let wanted = settings.limits.connections.unwrap_or(fitting);
    if wanted > fitting {
        warn!(
            wanted,
            fitting,
            descriptors,
            "limits.connections is more than the limit of open files allows; raise LimitNOFILE, \
            or clients will wait"
        );
    }
    wanted
}

fn port_refused(address: SocketAddr, error: &io::Error) -> Complaint {
    let what_to_do = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has it: `ss -ltnp 'sport = :{}'` \
            shows which; stop it, or choose another port with --listen",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => "ports below 1024 need root or the capability \
            CAP_NET_BIND_SERVICE, which docs/mtproxy.service gives; or choose a port above 1023 with --listen"
            .to_owned(),
        io::ErrorKind::AddrNotAvailable => "the address is not one of this host's, which `ip \
            address` lists; give one of them with --listen"
            .to_owned(),
        _ => "give another address with --listen".to_owned(),
    };
    Complaint::about_host(format!(
        "found no way to accept clients on {address} ({error}); expected a free port; {what_to_do}"
    ))
}

fn out_of_threads(error: &io::Error) -> Complaint {
    Complaint::about_host(format!(
        "found no thread or descriptor to be had ({error}); expected a few for each worker; raise \
        the limits of this service, or ask for fewer --workers"
    ))
}
