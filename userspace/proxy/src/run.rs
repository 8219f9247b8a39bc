//! `mtproxy run`: brings the parts up in order, and is the control thread until the end.
//!
//! The order matters: what needs root comes before the change of user, ports are open before a link is
//! printed, and fronts and middle proxies are looked up before the first client.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crossbeam::channel::{self, Receiver};
use crossbeam::select;
use mtproxy_core::config::Fronts;
use tracing::{error, info, warn};

use crate::cli::RunArgs;
use crate::compat::stats::StatsSnapshot;
use crate::compat::{Compat, stats_port};
use crate::complaint::{Complaint, Complaints};
use crate::control::fronts::{FrontPlan, FrontWatch};
use crate::control::middle_proxies::{self, LoadedMiddleProxies, MiddleProxyPlan, MiddleProxyWatch};
use crate::control::{ControlEvent, signals};
use crate::datapath::choice::{Choice, choose};
use crate::datapath::epoll::ConnectionLimit;
use crate::fleet::{Failure, Fleet, Ports, Shared, WorkerEnd};
use crate::settings::values::Datapath;
use crate::settings::{Host, NamedSecret, Settings};
use crate::shards::{self, Shards, WATCH_EVERY, Watch};
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
    let log_sink = log::Sink::new(args.compat.as_ref().and_then(|compat| compat.log_file.as_deref()));
    log::start(&settings.log_filter, settings.log_format, &log_sink, args.compat.is_some())?;
    put_in_kept_secret(&mut settings)?;
    let read_middle_proxies = middle_proxies::read(MiddleProxyPlan::of(&settings))?;
    let descriptors = privileges::raise_descriptor_limit();
    let ports = Ports::open(&settings.listen, settings.workers)
        .map_err(|(address, error)| port_refused(address, &error))?;
    let listening = ports.addresses.clone();
    let metrics_port = settings.metrics.map(http::bind).transpose()?;
    let stats_port = args.compat.as_ref().filter(|compat| !compat.stats_ports.is_empty());
    let stats_port = stats_port.map(|compat| stats_port::bind(&compat.stats_ports)).transpose()?;
    let shards = bring_up(&settings, &listening)?;
    if let Some(user) = &settings.user {
        privileges::become_user(user)?;
    }

    if let Some(compat) = &args.compat {
        become_official(compat, &log_sink)?;
    }

    let connections_limit = most_connections(&settings, descriptors);
    let shard_count = shards.as_ref().map_or(0, |shards| usize::from(shards.count().get()));
    let metrics =
        Arc::new(Metrics::new(settings.workers.get(), shards::metrics(shard_count), connections_limit));
    if let Some(listener) = metrics_port {
        http::serve(listener, metrics.clone()).map_err(|error| out_of_threads(&error))?;
    }
    let (sender, events) = channel::unbounded();
    let hold = shards.is_some().then(Hold::from_environment).flatten();
    signals::listen(sender.clone(), hold.is_some())?;
    let (fronts, front_watch) = FrontWatch::start(FrontPlan::new(&settings, &listening), sender.clone())?;
    let (middle_proxies, middle_proxy_watch) = MiddleProxyWatch::start(read_middle_proxies, sender)?;
    let known = Arc::new(ArcSwapOption::new(middle_proxies.clone()));
    if let (Some(listener), Some(compat)) = (stats_port, &args.compat) {
        serve_stats(listener, compat.clone(), settings.clone(), &metrics, &known)
            .map_err(|error| out_of_threads(&error))?;
    }
    let shared = Shared {
        config: Arc::new(settings.engine_config(fronts.clone(), middle_proxies.as_deref())),
        metrics: metrics.clone(),
        limit: ConnectionLimit::new(connections_limit),
        replay_entries: settings.limits.replay_entries,
    };
    let (worker_sender, worker_ends) = channel::unbounded();
    let split = shards.map(|shards| shards.split(&settings, &listening)).transpose();
    let (shards, watch) = match split.map_err(|error| out_of_threads(&error))? {
        Some((shards, common, watch)) => (Some((shards, common)), Some(watch)),
        None => (None, None),
    };
    let fleet =
        Fleet::start(ports, shards, &shared, &worker_sender).map_err(|error| out_of_threads(&error))?;
    if let Some(watch) = &watch {
        watch.wake_on_new_routes(fleet.shard_wakes().map_err(|error| out_of_threads(&error))?);
    }
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
        fronts,
        front_watch,
        middle_proxies,
        known,
        log_sink,
        middle_proxy_watch,
        watch,
        hold,
        exit_code: ExitCode::SUCCESS,
    };
    Ok(control.obey(&events, &worker_ends))
}

/// A hang of one shard, made on SIGUSR2 where the environment asks for it: tests show by it that clients go on.
#[derive(Clone, Copy, Debug)]
struct Hold {
    shard: usize,
    time: Duration,
}

impl Hold {
    /// `MTPROXY_TEST_HOLD=SHARD:SECONDS`.
    fn from_environment() -> Option<Self> {
        let text = std::env::var("MTPROXY_TEST_HOLD").ok()?;
        let (shard, seconds) = text.split_once(':')?;
        Some(Self { shard: shard.parse().ok()?, time: Duration::from_secs(seconds.parse().ok()?) })
    }
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
    /// Where the fronts are.
    fronts: Fronts,
    front_watch: FrontWatch,
    /// What is known about middle proxies, if the settings want them.
    middle_proxies: Option<Arc<LoadedMiddleProxies>>,
    /// The same, for the page of statistics.
    known: Arc<ArcSwapOption<LoadedMiddleProxies>>,
    log_sink: log::Sink,
    middle_proxy_watch: MiddleProxyWatch,
    /// The hold on the steering program, if there are shards.
    watch: Option<Watch>,
    hold: Option<Hold>,
    exit_code: ExitCode,
}

impl Control<'_> {
    /// Does what the events say until all workers have ended.
    fn obey(mut self, events: &Receiver<ControlEvent>, worker_ends: &Receiver<WorkerEnd>) -> ExitCode {
        const SIGNALS_END_LAST: &str = "the signal thread lives as long as the process";
        const EVERY_END_IS_TOLD: &str = "a worker that runs still has its end to tell";
        let ticks = if self.watch.is_some() { channel::tick(WATCH_EVERY) } else { channel::never() };
        while self.running > 0 {
            select! {
                recv(ticks) -> _ => self.look_after_shards(),
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
        if let Some(watch) = &mut self.watch {
            watch.tick(&self.metrics);
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
        self.running -= 1;
        match outcome {
            Ok(()) => {}
            Err(Failure::Host(error)) if self.fleet.is_shard(worker) => {
                error!(
                    worker,
                    error,
                    "a shard ended; new clients are served over epoll until a restart, and the other shards \
                    finish what they have"
                );
                self.leave_new_clients_to_kernel();
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
        self.leave_new_clients_to_kernel();
        self.fleet.command(|| Command::Drain(self.settings.drain));
    }

    /// The epoll workers accept them, if anybody still does. A queue without its socket would be worse for other
    /// shards' connections: the kernel answers what comes in by it with a reset. So they get no more of them.
    fn leave_new_clients_to_kernel(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.drain();
        }
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
                if let Some(watch) = &mut self.watch {
                    watch.reload(&newer);
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
        let config =
            Arc::new(self.settings.engine_config(self.fronts.clone(), self.middle_proxies.as_deref()));
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
    settings.secrets.push(NamedSecret { name: "generated".to_owned(), secret: kept.secret, direct: false });
    Ok(())
}

/// What the official proxy does once its ports are open.
fn become_official(compat: &Compat, log_sink: &log::Sink) -> Result<(), Complaint> {
    for note in &compat.notes {
        info!("{note}");
    }
    if compat.nice != 0
        && let Err(error) = rustix::process::nice(compat.nice)
    {
        warn!(%error, nice = compat.nice, "the priority cannot be taken");
    }
    if !compat.is_daemon {
        return Ok(());
    }
    log_sink.reopen().map_err(|error| {
        Complaint::about_host(format!(
            "found no way to open the log file ({error}); expected a path that this user can write to; give another with --log"
        ))
    })?;
    // Fails only for a process that leads its session already, as one of a service manager does.
    let _ = rustix::process::setsid();
    let no_terminal = std::fs::File::options().read(true).write(true).open("/dev/null");
    let detached = no_terminal.and_then(|null| {
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        Ok(())
    });
    detached.map_err(|error| {
        Complaint::about_host(format!(
            "found no way to leave the terminal ({error}); expected /dev/null; leave -d out"
        ))
    })
}

fn serve_stats(
    listener: std::net::TcpListener,
    compat: Compat,
    settings: Settings,
    metrics: &Arc<Metrics>,
    known: &Arc<ArcSwapOption<LoadedMiddleProxies>>,
) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let (metrics, known) = (Arc::clone(metrics), Arc::clone(known));
    stats_port::serve(listener, move || {
        let stats = StatsSnapshot { port, ..StatsSnapshot::read(&metrics) };
        stats.describe(&settings, &compat, known.load().as_deref()).page()
    })
}

/// Which datapath this host gets, said in one line; the shards, if it is AF_XDP.
fn bring_up(settings: &Settings, listening: &[SocketAddr]) -> Result<Option<Shards>, Complaint> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    if settings.datapath == Datapath::Epoll {
        info!("datapath epoll: as configured");
        return Ok(None);
    }
    let facts = shards::facts::read(settings.interface.as_deref(), settings.xdp.ports, listening, cores);
    match choose(settings.datapath, settings.xdp.mode, &facts)? {
        Choice::Epoll { reason } => {
            info!("datapath epoll: {reason}");
            Ok(None)
        }
        Choice::Xdp { interface, attach, reason, warnings } => {
            for warning in warnings {
                warn!("{warning}");
            }
            if settings.user.is_some() {
                return Err(user_with_shards());
            }
            match Shards::prepare(settings, &interface, attach, listening) {
                Ok(shards) => {
                    info!("datapath xdp: {reason}");
                    Ok(Some(shards))
                }
                Err(complaint) if settings.datapath == Datapath::Auto => {
                    warn!("{complaint}");
                    info!("datapath epoll: interface={interface} xdp_refused=yes");
                    Ok(None)
                }
                Err(complaint) => Err(complaint),
            }
        }
    }
}

fn user_with_shards() -> Complaint {
    Complaint::about_host(
        "found --user together with the datapath xdp; expected the rights to look after the interface to stay; start as \
        that user with the capabilities that docs/mtproxy.service gives, and leave --user out",
    )
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
