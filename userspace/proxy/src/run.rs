//! `mtproxy run`: brings the parts up in order and keeps them until the end.

use std::process::ExitCode;
use std::sync::Arc;

use mtproxy_core::config::{Config, Front, Fronts, Timeouts};
use mtproxy_core::credentials::Credentials;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::complaint::{Complaint, Complaints};
use crate::datapath::epoll::ConnectionLimit;
use crate::fleet::{Fleet, Ports, Shared};
use crate::settings::Settings;
use crate::state;
use crate::telemetry::metrics::Metrics;
use crate::worker::Command;

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// What kept it from starting, or stopped it.
pub fn serve(mut settings: Settings) -> Result<ExitCode, Complaints> {
    if settings.secrets.is_empty()
        && let Some(state_dir) = &settings.state_dir
    {
        let kept = state::kept_secret(state_dir)?;
        settings.secrets.push(("generated".to_owned(), kept.secret));
    }
    let ports = Ports::open(&settings.listen, settings.workers)
        .map_err(|(a, e)| Complaints::from(Complaint::about_host(format!("{a}: {e}"))))?;
    let fronts = Fronts::new(settings.domains.iter().map(|d| Front {
        domain: d.name.clone(),
        addresses: d.address.into_iter().collect(),
        flight_len: d.flight_bytes.unwrap_or(3000),
    }));
    let t = settings.timeouts;
    let config = Arc::new(Config {
        credentials: Credentials::new(settings.secrets.clone()),
        fronts,
        dc_table: settings.dc.table(),
        timeouts: Timeouts {
            first_byte: t.first_byte,
            handshake: t.handshake,
            dial: t.dial,
            idle: t.idle,
            linger: t.linger,
        },
        relay_window_bytes: settings.limits.relay_window_bytes,
    });
    let metrics = Arc::new(Metrics::new(settings.workers.get()));
    let shared = Shared {
        config,
        metrics,
        limit: ConnectionLimit::new(settings.limits.connections.unwrap_or(9000)),
        replay_entries: settings.limits.replay_entries,
    };
    let addresses: Vec<String> = ports.addresses.iter().map(ToString::to_string).collect();
    let (ends, ended) = crossbeam::channel::unbounded();
    let fleet = Fleet::start(ports, &shared, &ends).unwrap();
    eprintln!("mtproxy is ready on {}", addresses.join(", "));
    let mut signals = Signals::new([SIGTERM, SIGINT]).unwrap();
    for _ in signals.forever() {
        fleet.command(|| Command::Drain(t.drain));
        break;
    }
    for _ in 0..fleet.len() {
        let _ = ended.recv();
    }
    Ok(ExitCode::SUCCESS)
}
