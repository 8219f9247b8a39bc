//! What is shown and kept of a run: tables and a JSON file.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::Table;
use mtproxy_bench::machine::Machine;
use mtproxy_bench::table::{begin, finish, spread};
use serde::Serialize;

use crate::Plan;
use crate::idle::IdleResult;
use crate::work::WorkResult;

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) workers: u16,
    pub(crate) links_per_worker: u16,
    pub(crate) rounds: usize,
    pub(crate) window_seconds: f64,
    pub(crate) works: Vec<WorkResult>,
    pub(crate) idle: Vec<IdleResult>,
}

impl Results {
    pub(crate) fn new(machine: Machine, plan: &Plan, works: Vec<WorkResult>, idle: Vec<IdleResult>) -> Self {
        let Plan { workers, links, rounds, window, .. } = *plan;
        let window_seconds = window.as_secs_f64();
        Self { machine, workers, links_per_worker: links, rounds, window_seconds, works, idle }
    }
}

/// Prints the tables and writes both files into `directory`.
pub(crate) fn publish(results: &Results, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let json = serde_json::to_string_pretty(results).context("writing JSON")? + "\n";
    std::fs::write(directory.join("middle.json"), json).context("writing the JSON file")?;
    let text = render(results);
    std::fs::write(directory.join("middle.md"), &text).context("writing the tables")?;
    println!("{text}\nin {}: middle.md, middle.json", directory.display());
    Ok(())
}

fn render(results: &Results) -> String {
    let Results { machine, workers, links_per_worker, rounds, window_seconds, works, idle } = results;
    let mut text = format!("{}\n\n", machine.line());
    let _ = writeln!(
        text,
        "{rounds} rounds of {window_seconds} s each; proxies with {workers} workers, {links_per_worker} links each; \
        median (lowest–highest) of the rounds.\n"
    );
    for work in works {
        let _ =
            writeln!(text, "**{}**, {} clients\n\n{}\n", work.work.title(), work.work.clients(), table(work));
    }
    let _ = writeln!(text, "**idle clients**, each after one answer\n\n{}", idle_table(idle));
    text
}

fn table(result: &WorkResult) -> Table {
    let unit = result.work.unit();
    let header =
        ["route".to_owned(), format!("{unit}/s"), format!("proxy CPU µs/{unit}"), "of direct's".to_owned()];
    let mut table = begin(header.into());
    for route in &result.routes {
        table.add_row([
            route.route.title().to_owned(),
            format!("{:.0}", route.units_per_second.median),
            spread(route.cpu_us_per_unit, 1),
            spread(route.cpu_to_direct, 2),
        ]);
    }
    finish(table)
}

fn idle_table(results: &[IdleResult]) -> Table {
    let header =
        ["route", "clients", "PSS before, KiB", "PSS with them, KiB", "bytes/client", "descriptors/client"];
    let mut table = begin(header.map(str::to_owned).into());
    for idle in results {
        table.add_row([
            idle.route.title().to_owned(),
            idle.clients.to_string(),
            (idle.pss_bytes_before / 1024).to_string(),
            (idle.pss_bytes_with_clients / 1024).to_string(),
            format!("{:.0}", idle.pss_bytes_per_client),
            format!("{:.2}", idle.descriptors_per_client),
        ]);
    }
    finish(table)
}
