//! `mtproxy doctor`: what keeps this proxy from working well on this host, in sentences, the worst first.
//!
//! ```text
//!   network.rs ─┐
//!   this file ──┴─► Facts ─► diagnose ─► Findings ─► text
//! ```
//! Looks, and changes nothing: ports are opened and closed again, data centres and fronts greeted once. Read first:
//! `diagnose.rs`, which has everything that can be found.

mod diagnose;
mod facts;
mod network;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use mtproxy_core::middle_proxy::nat::NatRules;
use mtproxy_core::secret::SecretKind;
use mtproxy_nic::apply::examine;
use mtproxy_nic::finding::State;
use mtproxy_nic::host::Host as _;
use mtproxy_nic::live::LiveHost;
use rustix::process::{Resource, getrlimit};

use crate::datapath::choice::{Choice, choose};
use crate::datapath::epoll::bind_alone;
use crate::nic::default_goals;
use crate::settings::RunArgs;
use crate::settings::{Host, Settings};
use crate::{privileges, shards};
use diagnose::{Finding, Severity, diagnose};
use facts::{Card, Facts, Port};

/// Options of `mtproxy doctor`: those of `mtproxy run`, as they will be given to it.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Ask nothing of the network
    #[arg(long)]
    pub offline: bool,

    /// What `mtproxy run` will be told
    #[command(flatten)]
    pub run: RunArgs,
}

/// Says what there is to say. Exits with 1 if something is broken.
#[must_use]
pub fn run(args: &DoctorArgs) -> ExitCode {
    let findings = diagnose(&look(args));
    // A reader that has seen enough is no error.
    let _ = io::stdout().write_all(text(&findings).as_bytes());
    match findings.first() {
        Some(worst) if worst.severity == Severity::Broken => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn look(args: &DoctorArgs) -> Facts {
    let host = Host::here();
    match Settings::load(&args.run, &host) {
        Ok(settings) => look_at(args, &settings, &host),
        Err(complaints) => Facts {
            settings: Err(complaints),
            datapath: Err("its configuration is wrong".to_owned()),
            card: None,
            listening: Vec::new(),
            descriptors: 0,
            network: None,
        },
    }
}

fn look_at(args: &DoctorArgs, settings: &Settings, host: &Host) -> Facts {
    let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let seen =
        shards::facts::read(settings.interface.as_deref(), settings.xdp.ports, &settings.listen, host.cores);
    let datapath = choose(settings.datapath, settings.xdp.mode, &seen);
    let interface = match (&datapath, &seen.interface) {
        (Ok(Choice::Xdp { interface, .. }), _) => Some(interface.as_str()),
        (_, Ok(interface)) => Some(interface.name.as_str()),
        _ => None,
    };
    Facts {
        settings: Ok(of_settings(args, settings, descriptors)),
        card: interface.and_then(card),
        datapath: datapath.map_err(|complaint| complaint.message().to_owned()),
        listening: settings.listen.iter().map(|address| (*address, port(*address))).collect(),
        descriptors,
        network: (!args.offline).then(|| network::ask(settings)),
    }
}

fn of_settings(args: &DoctorArgs, settings: &Settings, descriptors: u64) -> facts::Settings {
    let fitting = privileges::connections_for(descriptors, settings.workers.get(), settings.listen.len());
    let connections = settings.limits.connections.unwrap_or(fitting) as u64;
    // A client and its data centre, and some for the process itself.
    let spare = descriptors.saturating_sub(2 * fitting as u64);
    let is_recognisable = |kind: &SecretKind| !matches!(kind, SecretKind::FakeTls(_));
    let named =
        settings.secrets.iter().filter(|it| is_recognisable(it.secret.kind())).map(|it| it.name.clone());
    facts::Settings {
        connections,
        descriptors_wanted: 2 * connections + spare,
        recognisable_secrets: named.collect(),
        has_secret_on_command_line: args.run.secret.iter().any(|secret| !secret.reveal().starts_with('@')),
        has_domains: !settings.domains.is_empty(),
        has_middle_proxies: settings.middle_proxies.is_some(),
        has_nat_rules: !args.run.nat_info.is_empty()
            || settings.middle_proxies.as_ref().is_some_and(|it| it.nat != NatRules::default()),
    }
}

fn card(interface: &str) -> Option<Card> {
    let survey = LiveHost::new(interface).ok()?.survey().ok()?;
    let findings = examine(&survey, &default_goals());
    let blocked = findings.iter().filter_map(|finding| match &finding.state {
        State::Blocked(how) => Some(format!("{}: {how}", finding.found)),
        _ => None,
    });
    Some(Card {
        interface: interface.to_owned(),
        changes: findings.iter().filter(|finding| !finding.changes().is_empty()).count(),
        blocked: blocked.collect(),
    })
}

fn port(address: SocketAddr) -> Port {
    match bind_alone(address).map_err(|error| error.kind()) {
        Ok(_) => Port::Free,
        Err(io::ErrorKind::PermissionDenied) => Port::Forbidden,
        Err(io::ErrorKind::AddrNotAvailable) => Port::NotOurs,
        Err(_) => Port::Taken,
    }
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { severity, sentence, fix } in findings {
        text += &format!("{:7} {sentence}\n", severity.name());
        if !fix.is_empty() {
            text += &format!("        → {fix}\n");
        }
    }
    let counts = Severity::ALL.map(|severity| {
        let count = findings.iter().filter(|finding| finding.severity == severity).count();
        format!("{count} {}", severity.name().to_lowercase())
    });
    text + &format!("\n{}\n", counts.join(", "))
}
