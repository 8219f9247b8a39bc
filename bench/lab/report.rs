//! What is shown and kept of a run: a table and a JSON file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use mtproxy_bench::spread::Spread;
use mtproxy_bench::table::{begin, dash, finish, spread};

use crate::drops::describe;
use crate::phase::{Datapath, Phase};
use crate::results::{Results, system_cpu_us_per_unit};
use crate::turn::Turn;

/// Prints the table and writes the file.
pub(crate) fn publish(results: &Results, directory: &Path) -> Result<()> {
    println!("{}", render(results));
    std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let file = directory.join("lab.json");
    let json = serde_json::to_string_pretty(results).context("writing JSON")? + "\n";
    std::fs::write(&file, json).with_context(|| format!("writing {}", file.display()))?;
    println!("All turns: {}", file.display());
    Ok(())
}

fn render(results: &Results) -> String {
    let plan = &results.plan;
    let header = [
        "phase",
        "datapath",
        "per second",
        "system CPU µs each",
        "of epoll's",
        "packets each",
        "p50 µs",
        "p99 µs",
        "drops",
    ];
    let mut table = begin(header.map(str::to_owned).to_vec());
    for phase in Phase::ALL {
        for &datapath in &plan.datapaths {
            table.add_row(row(results, datapath, phase));
        }
    }
    let mut text = format!("\n{}\n\n{}\n\n", results.machine.line(), finish(table));
    let _ = writeln!(text, "{}", foot(results));
    for (datapath, said) in &results.refused {
        let _ = writeln!(
            text,
            "\nThe proxy did not start with the datapath {}. It said:\n{said}",
            datapath.name()
        );
    }
    for finding in &results.findings {
        if let Some(failure) = &finding.failure {
            let (round, datapath) = (finding.round + 1, finding.datapath.name());
            let _ = writeln!(text, "\nround {round}, {datapath}, {}: {failure}", finding.phase.title());
        }
    }
    text
}

fn row(results: &Results, datapath: Datapath, phase: Phase) -> Vec<String> {
    let mut cells = vec![phase.title().to_owned(), datapath.name().to_owned()];
    let turns: Vec<&Turn> = results.turns(datapath, phase).into_iter().map(|(_, turn)| turn).collect();
    let of = |figure: fn(&Turn) -> f64| Spread::of(turns.iter().map(|turn| figure(turn)));
    let Some(rate) = of(|turn| turn.units / turn.seconds) else {
        cells.push(results.absence(datapath, phase).to_owned());
        return cells;
    };
    let latency = |quantile: fn(&mtproxy_bench::spread::Latency) -> f64| {
        let values = turns.iter().filter_map(|turn| turn.latency_us.as_ref().map(quantile));
        Spread::of(values).map_or_else(dash, |s| format!("{:.0}", s.median))
    };
    let ratio = match datapath {
        Datapath::Epoll => Some("1".to_owned()),
        Datapath::Xdp => results.xdp_to_epoll(phase).map(|ratio| spread(ratio, 2)),
    };
    cells.extend([
        format!("{:.0} {}", rate.median, phase.work.unit()),
        of(system_cpu_us_per_unit).map_or_else(dash, |s| spread(s, 1)),
        ratio.unwrap_or_else(dash),
        of(|turn| packets(turn) / turn.units).map_or_else(dash, |s| format!("{:.1}", s.median)),
        latency(|latency| latency.p50),
        latency(|latency| latency.p99),
        describe(&all_drops(&turns)),
    ]);
    cells
}

#[expect(clippy::cast_precision_loss, reason = "a turn has fewer than 2^53 packets")]
fn packets(turn: &Turn) -> f64 {
    turn.packets as f64
}

fn all_drops(turns: &[&Turn]) -> BTreeMap<String, u64> {
    turns.iter().flat_map(|turn| &turn.drops).fold(BTreeMap::new(), |mut sums, (name, count)| {
        *sums.entry(name.clone()).or_default() += count;
        sums
    })
}

fn foot(results: &Results) -> String {
    let plan = &results.plan;
    let offloads = if plan.offloads {
        "The proxy's interface has checksum and segmentation offloads, as epoll would on a network card."
    } else {
        "No interface has offloads: every packet is what a wire would carry."
    };
    let rounds = results.findings.iter().map(|finding| finding.round + 1).max().unwrap_or_default();
    let time = if results.cut_short { "; time was up before all of them were played" } else { "" };
    format!(
        "{rounds} of {} rounds of {} ms{time}; median (lowest–highest). op: connect, handshake, one request, \
         close; or one request of 128 bytes and its answer.\n\
         System CPU: the proxy's threads, plus interrupts and softirqs on the generator's CPUs (of which \
         clients and data centre have their own, apart from the proxy's), plus ksoftirqd and napi threads. \
         Forwarding by the router and what the kernel does to deliver to the generator are in it, for both \
         datapaths alike. Other processes are not. \"of epoll's\" compares turns of the same round.\n\
         Packets are those of the proxy's interface in both directions. {offloads}",
        plan.rounds,
        plan.window.as_millis(),
    )
}
