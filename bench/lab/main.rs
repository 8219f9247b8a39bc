//! `mtproxy-lab`: the datapaths beside each other, on hosts of their own, while you watch.
//!
//! ```text
//!  client namespace              router namespace           proxy namespace
//!  clients (a process) ───────── forwards ══════════════ px0  mtproxy --datapath epoll, then xdp, …
//!  dc namespace                      │
//!  data centre (a process) ──────────┘
//! ```
//! Read first: `phase.rs` (what is done), `turn.rs` (how it is measured), docs/lab.md (how to read it).

#![forbid(unsafe_code)]

mod clients_process;
mod drops;
mod interruption;
mod live;
mod phase;
mod report;
mod results;
mod stage;
mod turn;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, Subcommand};
use mtproxy_bench::machine::Machine;

use crate::interruption::Interruption;
use crate::live::Live;
use crate::phase::{Datapath, Phase, Plan};
use crate::results::{Finding, Results};
use crate::stage::Stage;

/// Shows what the proxy's datapaths cost beside each other, on hosts of their own made of network
/// namespaces. Needs root, iproute2 and ethtool. The proxy is the one built beside this program, or the one
/// that the environment variable MTPROXY_BIN names.
#[derive(Debug, Parser)]
struct CommandLine {
    #[command(subcommand)]
    part: Option<Part>,
    /// Half a minute that shows that everything works; its numbers mean little
    #[arg(long)]
    quick: bool,
    /// Turns of each datapath at each phase
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Length of a turn
    #[arg(long, value_name = "MILLISECONDS")]
    window: Option<u64>,
    /// Threads of the proxy, queues of its interface, and CPUs that it has to itself
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
    /// Only this datapath; repeatable
    #[arg(long = "datapath", value_name = "DATAPATH")]
    datapaths: Vec<Datapath>,
    /// Leave checksums, segmentation and merging to the proxy's interface, as to a network card
    #[arg(long)]
    offloads: bool,
    /// Where to put lab.json
    #[arg(long, value_name = "DIRECTORY", default_value = "target/lab")]
    results: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The data centre, until standard input ends
    #[command(hide = true)]
    DataCentre {
        #[arg(long)]
        bulk_buffer: u32,
    },
    /// Clients that do what standard input says
    #[command(hide = true)]
    Clients,
}

fn main() -> ExitCode {
    let options = CommandLine::parse();
    let outcome = mtproxy_bench::raise_descriptor_limit().and_then(|()| match options.part {
        Some(Part::DataCentre { bulk_buffer }) => {
            mtproxy_bench::data_centre::serve(bulk_buffer).map(|()| ExitCode::SUCCESS)
        }
        Some(Part::Clients) => clients_process::serve().map(|()| ExitCode::SUCCESS),
        None => run(&options),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("mtproxy-lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(options: &CommandLine) -> Result<ExitCode> {
    let interruption = Interruption::listen()?;
    let plan = plan(options);
    let mut results = Results::new(Machine::this("mtproxy-lab"), plan);
    let mut live = Live::new(results.plan.rounds);
    let outcome = play(&mut results, &mut live, &interruption);
    live.finish();
    outcome?;
    report::publish(&results, &options.results)?;
    Ok(if results.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plan(options: &CommandLine) -> Plan {
    let mut plan = if options.quick { Plan::quick() } else { Plan::full() };
    plan.workers = options.workers.max(1);
    plan.offloads = options.offloads;
    plan.rounds = options.rounds.unwrap_or(plan.rounds).max(1);
    plan.window = options.window.map_or(plan.window, Duration::from_millis);
    if !options.datapaths.is_empty() {
        plan.datapaths.clone_from(&options.datapaths);
    }
    plan
}

/// All rounds, or as many as there is time for. The stage and everybody on it are gone afterwards.
fn play(results: &mut Results, live: &mut Live, interruption: &Interruption) -> Result<()> {
    let plan = results.plan.clone();
    let deadline = Instant::now() + plan.time_max;
    let mut stage = Stage::set(&plan)?;
    for round in 0..plan.rounds {
        let mut order = plan.datapaths.clone();
        // There and back again: a machine that slowly gets busier favours nobody.
        if round % 2 == 1 {
            order.reverse();
        }
        for datapath in order {
            if results.is_refused(datapath) {
                continue;
            }
            let proxy = match stage.start_proxy(datapath, &plan) {
                Ok(proxy) => proxy,
                Err(said) => {
                    results.refuse(datapath, said);
                    continue;
                }
            };
            for phase in Phase::ALL {
                interruption.check()?;
                if Instant::now() > deadline {
                    results.cut_short = true;
                    return Ok(());
                }
                live.begin(round, datapath, phase);
                let finding = turn::measure(&mut stage, &proxy, phase, &plan, live, interruption);
                interruption.check()?;
                if finding.is_err() {
                    stage.replace_clients()?;
                }
                results.add(Finding::new(round, datapath, phase, finding));
            }
            stage::stop(proxy);
        }
    }
    Ok(())
}
