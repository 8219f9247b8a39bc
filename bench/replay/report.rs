//! Results as tables and as a file.

use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::Table;
use mtproxy_bench::table;

use crate::exchange::Step;
use crate::results::{Cost, Idle, Results, Unit};
use crate::stages::Stage;

/// Prints everything, and writes it to `directory`.
pub(crate) fn publish(results: &Results, directory: &Path, name: &str) -> Result<()> {
    println!("{}\n", results.machine.line());
    let mut payloads: Vec<usize> = results.costs.iter().map(|cost| cost.payload_bytes).collect();
    payloads.sort_unstable();
    payloads.dedup();
    for payload in payloads {
        let costs: Vec<&Cost> = results.costs.iter().filter(|cost| cost.payload_bytes == payload).collect();
        let unit = match costs[0].unit {
            Unit::Nanoseconds => "nanoseconds",
            Unit::Instructions => "instructions",
        };
        println!("**messages of {payload} bytes**: {unit} for each, acknowledgements included\n");
        println!("{}\n", by_message(&costs));
        println!("{unit} for each packet that comes, by what it is\n");
        println!("{}\n", by_step(&costs));
    }
    if !results.idle.is_empty() {
        println!("**idle relays**\n\n{}\n", idle(&results.idle));
    }
    std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let path = directory.join(name);
    let json = serde_json::to_string_pretty(results)?;
    std::fs::write(&path, json).with_context(|| format!("writing {}", path.display()))
}

fn by_message(costs: &[&Cost]) -> Table {
    let header = [
        "clients",
        "relays",
        "parse",
        "look-up",
        "TCP",
        "engine",
        "driver, copy",
        "output",
        "sum",
        "whole",
        "packets sent",
    ];
    let mut table = table::begin(header.map(str::to_owned).to_vec());
    for cost in costs {
        let of = |stage| cost.per_message(stage);
        let mut row = vec![cost.client.name().to_owned(), cost.relays.to_string()];
        row.extend(columns(of));
        row.push(format!("{:.2}", cost.sent_per_message));
        table.add_row(row);
    }
    table::finish(table)
}

fn by_step(costs: &[&Cost]) -> Table {
    let header = [
        "clients",
        "relays",
        "packet",
        "parse",
        "look-up",
        "TCP",
        "engine",
        "driver, copy",
        "output",
        "sum",
        "whole",
    ];
    let mut table = table::begin(header.map(str::to_owned).to_vec());
    for cost in costs {
        for step in Step::ALL {
            let name = match step {
                Step::ToDataCentre => "to the data centre",
                Step::ToClient => "to the client",
                Step::Acknowledgement => "acknowledgement",
            };
            let mut row = vec![cost.client.name().to_owned(), cost.relays.to_string(), name.to_owned()];
            row.extend(columns(|stage| cost.per_packet(step, stage)));
            table.add_row(row);
        }
    }
    table::finish(table)
}

/// TCP and driver are what is left of receive and relay without what was measured alone.
fn columns(of: impl Fn(Stage) -> f64) -> Vec<String> {
    let (receive, relay, transmit) = (of(Stage::Receive), of(Stage::Relay), of(Stage::Transmit));
    let numbers = [
        of(Stage::Parse),
        of(Stage::LookUp),
        receive - of(Stage::Parse) - of(Stage::LookUp),
        of(Stage::Engine),
        relay - of(Stage::Engine),
        transmit,
        receive + relay + transmit,
        of(Stage::Whole),
    ];
    numbers.iter().map(|number| format!("{number:.0}")).collect()
}

fn idle(idle: &[Idle]) -> Table {
    let header = ["clients", "from relays", "to relays", "resident MiB", "bytes each"];
    let mut table = table::begin(header.map(str::to_owned).to_vec());
    for Idle { client, resident } in idle {
        for pair in resident.windows(2) {
            let [(few, before), (many, after)] = pair else { continue };
            let each = after.saturating_sub(*before) / u64::from(many - few);
            table.add_row(vec![
                client.name().to_owned(),
                few.to_string(),
                many.to_string(),
                (after >> 20).to_string(),
                each.to_string(),
            ]);
        }
    }
    table::finish(table)
}
