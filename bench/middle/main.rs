//! `mtproxy-middle`: what it costs to go through middle proxies rather than direct.
//!
//! ```text
//!   this process           proxies                        process of its own
//!   clients ─────────────▶ mtproxy, direct ──── a connection a client ──▶ data centre
//!           ─────────────▶ mtproxy, middle ──── a few links for all ────▶ middle proxy
//! ```
//! The same clients do the same works by turns. A direct relay passes bytes on, a middle proxy wants packets: each is
//! read, wrapped with both addresses, summed up and encrypted. So the comparison is one of a price, not of a race.
//! Read first: `work.rs` (what is measured), then docs/benchmarks.md (what it means).

#![forbid(unsafe_code)]

mod idle;
mod peers;
mod report;
mod stage;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use mtproxy_bench::machine::Machine;
use mtproxy_bench::progress::Progress;

use crate::report::Results;
use crate::stage::{Route, Stage};

/// Measures the way through middle proxies beside the direct one. The proxy is the one built beside this program, or
/// the one that the environment variable MTPROXY_BIN names.
#[derive(Debug, Parser)]
struct CommandLine {
    #[command(subcommand)]
    part: Option<Part>,
    /// A run of a few seconds that shows that everything works; its numbers mean little
    #[arg(long)]
    quick: bool,
    /// Threads of each proxy
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: u16,
    /// Links of each worker to the middle proxy
    #[arg(long, value_name = "N", default_value_t = 4)]
    links: u16,
    /// Where to put middle.json and middle.md
    #[arg(long, value_name = "DIRECTORY", default_value = "bench/results")]
    results: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Data centre and middle proxy, until standard input ends
    #[command(hide = true)]
    Peers,
}

/// The extent of a run.
pub(crate) struct Plan {
    pub(crate) workers: u16,
    pub(crate) links: u16,
    /// Turns that each route has at each work.
    pub(crate) rounds: usize,
    /// Length of one turn.
    pub(crate) window: Duration,
    /// Clients that do nothing, for memory.
    pub(crate) idle_clients: usize,
}

fn main() -> Result<()> {
    let options = CommandLine::parse();
    mtproxy_bench::raise_descriptor_limit()?;
    match options.part {
        Some(Part::Peers) => peers::serve(),
        None => run(&options),
    }
}

fn run(options: &CommandLine) -> Result<()> {
    let (rounds, window, idle_clients) = match options.quick {
        true => (2, Duration::from_millis(200), 200),
        false => (9, Duration::from_millis(800), 4000),
    };
    let plan = Plan { workers: options.workers, links: options.links, rounds, window, idle_clients };
    let mut progress = Progress::new(work::steps(&plan) + Route::ALL.len() as u64);
    let works = {
        let stage = Stage::set(&plan)?;
        work::compare(&stage, &plan, &mut progress)?
    };
    let idle = idle::measure(&plan, &mut progress)?;
    progress.finish();
    let results = Results::new(Machine::this("mtproxy-middle"), &plan, works, idle);
    report::publish(&results, &options.results)?;
    check_plausible(&results)
}

/// Every number is there and above nothing; how good it is is for readers to say.
fn check_plausible(results: &Results) -> Result<()> {
    for work in &results.works {
        for route in &work.routes {
            let name = format!("{}, {}", work.work.title(), route.route.title());
            ensure!(route.units_per_second.min > 0.0, "{name}: nothing was done");
            ensure!(route.cpu_us_per_unit.min > 0.0, "{name}: the proxy used no CPU");
        }
    }
    ensure!(results.idle.iter().all(|idle| idle.pss_bytes_before > 0), "a proxy without memory");
    Ok(())
}
