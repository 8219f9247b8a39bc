//! `mtproxy-load`: what the proxy costs, from outside, beside nginx and beside no relay at all.
//!
//! ```text
//!   this process          relay, one of                  process of its own
//!   clients  ───────────────────────────────────────────▶ data centre   direct
//!            ─────────▶   nginx (stream module)  ────────▶              nginx stream
//!            ─────────▶   mtproxy                ────────▶              mtproxy plain, dd, ee
//! ```
//! Read first: `parts/work.rs` (what is measured), `comparison.rs` (how), docs/benchmarks.md (what it means).

#![forbid(unsafe_code)]

mod comparison;
mod idle;
mod nginx;
mod plan;
mod report;
mod results;
mod stage;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use mtproxy_bench::machine::Machine;
use mtproxy_bench::progress::Progress;
use mtproxy_bench::work::{Route, Work};

use crate::plan::Plan;
use crate::results::Results;
use crate::stage::Stage;

/// Measures the proxy beside nginx and beside no relay. The proxy is the one built beside this program,
/// or the one that the environment variable MTPROXY_BIN names.
#[derive(Debug, Parser)]
struct CommandLine {
    #[command(subcommand)]
    part: Option<Part>,
    /// A run of half a minute that shows that everything works; its numbers mean little
    #[arg(long)]
    quick: bool,
    /// Threads of the proxy and worker processes of nginx [default: one a core]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Only this work, and no idle clients; repeatable
    #[arg(long = "work", value_name = "WORK")]
    works: Vec<Work>,
    /// Only this route; repeatable. Without nginx there are no ratios
    #[arg(long = "route", value_name = "ROUTE")]
    routes: Vec<Route>,
    /// Turns of each route at each work
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Length of a turn, for instance to attach a profiler
    #[arg(long, value_name = "SECONDS")]
    window: Option<u64>,
    /// Socket buffers at both ends of a bulk transfer; 0 leaves them to the kernel
    #[arg(long, value_name = "BYTES")]
    bulk_buffer: Option<u32>,
    /// proxy_buffer_size of nginx
    #[arg(long, value_name = "SIZE")]
    nginx_buffer: Option<String>,
    /// Where to put latest.json, latest.md, cpu.svg and latency.svg
    #[arg(long, value_name = "DIRECTORY", default_value = "bench/results")]
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
}

fn main() -> Result<()> {
    let options = CommandLine::parse();
    mtproxy_bench::raise_descriptor_limit()?;
    match options.part {
        Some(Part::DataCentre { bulk_buffer }) => mtproxy_bench::data_centre::serve(bulk_buffer),
        None => run(&options),
    }
}

fn run(options: &CommandLine) -> Result<()> {
    let machine = Machine { nginx: Some(nginx::version()), ..Machine::this("mtproxy-load") };
    let plan = plan(options, machine.cores);
    let mut progress = Progress::new(comparison::steps(&plan) + idle::steps(&plan));
    let works = {
        let stage = Stage::set(&plan)?;
        comparison::compare(&stage, &plan, &mut progress)?
    };
    let idle = idle::measure_idle(&plan, &mut progress)?;
    progress.finish();
    let results = Results { machine, plan, works, idle };
    report::publish(&results, &options.results)?;
    check_plausible(&results)
}

fn plan(options: &CommandLine, cores: usize) -> Plan {
    let workers = options.workers.unwrap_or(cores);
    let mut plan = if options.quick { Plan::quick(workers) } else { Plan::full(workers) };
    if !options.works.is_empty() {
        plan.works.clone_from(&options.works);
        plan.idle_clients = 0;
    }
    if !options.routes.is_empty() {
        plan.routes.clone_from(&options.routes);
    }
    plan.rounds = options.rounds.unwrap_or(plan.rounds).max(1);
    plan.window = options.window.map_or(plan.window, Duration::from_secs);
    plan.bulk_buffer = options.bulk_buffer.unwrap_or(plan.bulk_buffer);
    if let Some(size) = &options.nginx_buffer {
        plan.nginx_buffer.clone_from(size);
    }
    plan
}

/// Every number is there and above nothing. Whether it is good is for readers to say: a test of timings
/// on a shared machine fails when somebody else compiles.
fn check_plausible(results: &Results) -> Result<()> {
    for work in &results.works {
        for route in &work.routes {
            let rates = route.rounds.iter().map(|round| round.units);
            let name = format!("{}, {}", work.work.title(), route.route.title());
            ensure!(rates.into_iter().all(|units| units > 0.0), "{name}: nothing was done");
            ensure!(route.latency_us.is_some() != work.work.is_bulk(), "{name}: no latency");
            let cpu = route.relay_cpu_us_per_unit.is_none_or(|cpu| cpu.min > 0.0);
            ensure!(cpu, "{name}: the relay used no CPU");
        }
    }
    ensure!(results.idle.iter().all(|idle| idle.pss_bytes_before > 0), "a relay without memory");
    Ok(())
}
