//! `mtproxy-replay`: what a packet costs a shard when no device and no kernel takes part, stage by stage, and what
//! an idle relay costs in memory.
//!
//! The relay, the engine and the stack are the proxy's own; what stands around them is `mtproxy_bench::scene`.
//! Read first: `exchange.rs` (what is replayed), `stages.rs` (what is timed).

#![forbid(unsafe_code)]

mod exchange;
mod idle;
mod instructions;
mod report;
mod results;
mod stages;
mod timing;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use mtproxy_bench::machine::Machine;
use mtproxy_bench::rig::Mode;
use serde::{Deserialize, Serialize};

use crate::results::Results;

/// Replays relayed packets in memory through the proxy's own TCP and engine, and shows what each stage takes.
#[derive(Debug, Parser)]
struct CommandLine {
    #[command(subcommand)]
    part: Option<Part>,
    /// Relays that there are; repeatable
    #[arg(long = "relays", value_name = "N", default_values_t = [1000, 100_000, 1_000_000])]
    relays: Vec<u32>,
    /// Bytes of each message; repeatable
    #[arg(long = "payload", value_name = "BYTES", default_values_t = [64, 1400])]
    payloads: Vec<usize>,
    /// Only this kind of client; repeatable
    #[arg(long = "client", value_name = "KIND")]
    clients: Vec<Client>,
    /// Count instructions with callgrind instead of time, which is the same on every run; with 1000 relays
    #[arg(long)]
    instructions: bool,
    /// Leave out the memory of idle relays
    #[arg(long)]
    no_idle: bool,
    /// Where to put replay.json, or instructions.json
    #[arg(long, value_name = "DIRECTORY", default_value = "target/replay")]
    results: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Every stage, to be watched by callgrind
    #[command(hide = true)]
    Count {
        #[arg(long)]
        client: Client,
        #[arg(long)]
        payload: usize,
    },
    /// Memory of so many idle relays, in steps
    #[command(hide = true)]
    Idle {
        #[arg(long)]
        client: Client,
        #[arg(long = "relays")]
        relays: Vec<u32>,
    },
}

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Client {
    Plain,
    Dd,
    Ee,
}

impl Client {
    fn mode(self) -> Mode {
        match self {
            Self::Plain => Mode::Plain,
            Self::Dd => Mode::Dd,
            Self::Ee => Mode::Ee(517),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Dd => "dd",
            Self::Ee => "ee",
        }
    }
}

fn main() -> ExitCode {
    let options = CommandLine::parse();
    let outcome = match &options.part {
        Some(Part::Count { client, payload }) => instructions::execute(*client, *payload),
        Some(Part::Idle { client, relays }) => idle::show(*client, relays),
        None => run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mtproxy-replay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &CommandLine) -> Result<()> {
    let clients = if options.clients.is_empty() { Client::value_variants() } else { &options.clients };
    let mut results = Results::new(Machine::this("mtproxy-replay"));
    if options.instructions {
        for &client in clients {
            results.costs.extend(instructions::count(client, &options.payloads)?);
        }
        return report::publish(&results, &options.results, "instructions.json");
    }
    for &relays in &options.relays {
        for &client in clients {
            eprintln!("{} relays, {}", relays, client.name());
            results.costs.extend(timing::measure(client, relays, &options.payloads)?);
        }
    }
    if !options.no_idle {
        for &client in clients {
            eprintln!("idle relays, {}", client.name());
            results.idle.push(idle::measure(client)?);
        }
    }
    report::publish(&results, &options.results, "replay.json")
}
