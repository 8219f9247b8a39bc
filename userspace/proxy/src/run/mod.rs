//! `mtproxy run`: brings the parts up in order, and is the control thread until the end.
//!
//! The order matters: what needs root comes before the change of user, ports are open before a link is
//! printed, and fronts and middle proxies are looked up before the first client.
//!
//! `bring_up` has the way to shards, `fast_path` their loss and return, `control` the control thread's loop.

mod bring_up;
mod control;
mod fast_path;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use crossbeam::channel;
use tracing::{info, warn};

use crate::compat::stats::StatsSnapshot;
use crate::compat::stats_port;
use crate::complaint::{Complaint, Complaints};
use crate::control::fronts::{FrontPlan, FrontWatch};
use crate::control::middle_proxies::{self, LoadedMiddleProxies, MiddleProxyPlan, MiddleProxyWatch};
use crate::control::signals;
use crate::datapath::epoll::ConnectionLimit;
use crate::fleet::{Fleet, Ports, Shared};
use crate::settings::Compat;
use crate::settings::RunArgs;
use crate::settings::{Host, NamedSecret, Settings};
use crate::shards;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{http, log};
use crate::{links, privileges, state};
use bring_up::bring_up_first;
use control::{Control, Hold};
use fast_path::FastPath;

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
    let shards = bring_up_first(&settings, &listening)?;
    if let Some(user) = &settings.user {
        privileges::become_user(user)?;
    }

    if let Some(compat) = &args.compat {
        become_official(compat, &log_sink)?;
    }

    let connections_limit = most_connections(&settings, descriptors);
    let shard_count = shards.as_ref().map_or(0, |(_, shards)| usize::from(shards.count().get()));
    let metrics =
        Arc::new(Metrics::new(settings.workers.get(), shards::metrics(shard_count), connections_limit));
    if let Some(listener) = metrics_port {
        http::serve(listener, metrics.clone()).map_err(|error| out_of_threads(&error))?;
    }
    if let Err(error) = http::serve_locally(metrics.clone()) {
        warn!(%error, "`mtproxy top` will not find this proxy");
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
    let mut fleet = Fleet::start(ports, shared, worker_sender).map_err(|error| out_of_threads(&error))?;
    let start = |(interface, shards)| FastPath::start(interface, shards, &settings, &listening, &mut fleet);
    let fast_path = shards.map(start).transpose().map_err(|error| out_of_threads(&error))?;
    if args.secret.is_empty() {
        links::announce(&settings, &listening);
    }
    report_ready(&listening);
    let control = Control {
        args,
        settings,
        listening,
        fleet,
        metrics,
        fronts,
        front_watch,
        middle_proxies,
        known,
        log_sink,
        middle_proxy_watch,
        fast_path,
        hold,
        exit_code: ExitCode::SUCCESS,
    };
    Ok(control.obey(&events, &worker_ends))
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
