//! The tables, in a form that can be pasted into Markdown.

use std::fmt::Write as _;

use comfy_table::Table;
use mtproxy_bench::table::{begin, dash, finish, spread};

use crate::results::{Results, WorkResult};

/// All tables.
pub(crate) fn render(results: &Results) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}\n", results.machine.line());
    let plan = &results.plan;
    let _ = writeln!(
        text,
        "{} rounds of {} s each; relays with {} workers; median (lowest–highest) of the rounds.\n",
        plan.rounds,
        plan.window.as_secs_f64(),
        plan.workers
    );
    for work in &results.works {
        let _ = writeln!(text, "**{}**, {} clients\n", work.work.title(), work.work.clients());
        let _ = writeln!(text, "{}\n", work_table(work));
    }
    if !results.idle.is_empty() {
        let _ = writeln!(text, "**idle clients**\n\n{}\n", idle_table(results));
    }
    let _ = writeln!(text, "Others on the machine used {:.0} % of it meanwhile.", others_percent(results));
    text
}

fn work_table(result: &WorkResult) -> Table {
    let unit = result.work.unit();
    let mut header = vec![
        "route".to_owned(),
        format!("{unit}/s"),
        format!("relay CPU µs/{unit}"),
        "of nginx's".to_owned(),
        format!("sleeps/{unit}"),
        format!("all CPU µs/{unit}"),
    ];
    if !result.work.is_bulk() {
        header.extend(["p50 µs", "p99 µs", "p99.9 µs"].map(str::to_owned));
    }
    let mut table = begin(header);
    for route in &result.routes {
        let mut row = vec![
            route.route.title().to_owned(),
            format!("{:.0}", route.units_per_second.median),
            route.relay_cpu_us_per_unit.map_or_else(dash, |s| spread(s, 1)),
            route.relay_cpu_to_nginx.map_or_else(dash, |s| spread(s, 2)),
            route.relay_sleeps_per_unit.map_or_else(dash, |s| format!("{:.2}", s.median)),
            format!("{:.1}", route.all_cpu_us_per_unit.median),
        ];
        if let Some(latency) = route.latency_us {
            row.extend([latency.p50, latency.p99, latency.p99_9].map(|us| format!("{us:.0}")));
        }
        table.add_row(row);
    }
    finish(table)
}

fn idle_table(results: &Results) -> Table {
    let header = ["route", "clients", "PSS before, KiB", "PSS with them, KiB", "bytes/client", "wake-ups/s"];
    let mut table = begin(header.map(str::to_owned).to_vec());
    for idle in &results.idle {
        table.add_row(vec![
            idle.route.title().to_owned(),
            idle.clients.to_string(),
            (idle.pss_bytes_before / 1024).to_string(),
            (idle.pss_bytes_with_clients / 1024).to_string(),
            format!("{:.0}", idle.pss_bytes_per_client),
            format!("{:.1}", idle.wake_ups_per_second),
        ]);
    }
    finish(table)
}

/// Of the time that all cores had during the measured windows.
#[expect(clippy::cast_precision_loss, reason = "a number of cores")]
fn others_percent(results: &Results) -> f64 {
    let rounds = || results.works.iter().flat_map(|work| &work.routes).flat_map(|route| &route.rounds);
    let others_us: f64 = rounds().map(|round| round.others_cpu_us).sum();
    let seconds: f64 = rounds().map(|round| round.seconds).sum();
    others_us / (seconds * 1e6 * results.machine.cores as f64).max(1.0) * 100.0
}
