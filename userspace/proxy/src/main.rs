//! The program: reads the command line, does what it says, and ends with 0, or with 1 and the reason.

#![forbid(unsafe_code)]

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use mtproxy_bin::cli::{CheckArgs, Cli, Command, LinkArgs, SecretArgs};
use mtproxy_bin::complaint::{Complaint, Complaints, Place};
use mtproxy_bin::links::{self, Canvas};
use mtproxy_bin::settings::{self, Host};
use mtproxy_bin::{capture, compat, doctor, nic, run, state, top};
use mtproxy_core::secret::SecretKind;

fn main() -> ExitCode {
    let mut words = std::env::args();
    if let Some(program) = words.next().filter(|program| compat::is_its_name(program)) {
        return compat::main(&program, &words.collect::<Vec<_>>());
    }
    let outcome = match Cli::parse().command {
        Command::Compat(args) => return compat::main("mtproxy compat", &args.words),
        Command::Run(args) => run::serve(&args),
        Command::Secret(args) => new_secret(args).map(print),
        Command::Link(args) => describe_link(&args).map(print),
        Command::Check(args) => check(&args).map(print),
        Command::Doctor(args) => Ok(doctor::run(&args)),
        Command::Nic(command) => nic::run(&command),
        Command::Capture(args) => capture::run(&args),
        Command::Top(args) => top::run(&args),
    };
    outcome.unwrap_or_else(|complaints| {
        eprint!("{complaints}");
        ExitCode::FAILURE
    })
}

fn new_secret(args: SecretArgs) -> Result<String, Complaints> {
    let kind = args.domain.map_or(SecretKind::Plain, SecretKind::FakeTls);
    Ok(format!("{}\n", state::new_secret(kind)?.reveal()))
}

fn describe_link(args: &LinkArgs) -> Result<String, Complaints> {
    let complain = |option| move |message: String| Complaint::at(Place::CommandLine(option), message);
    let secret = settings::read_secret(&args.secret).map_err(complain("--secret"))?;
    let canvas = if std::io::stdout().is_terminal() { Canvas::Terminal } else { Canvas::Plain };
    Ok(links::describe(&args.server, args.port, &secret, canvas).map_err(complain("--server"))?)
}

fn check(args: &CheckArgs) -> Result<String, Complaints> {
    settings::check(&args.config, &Host::here())
}

/// Unlike `println!`, does not mind a reader that has seen enough.
fn print(text: String) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
