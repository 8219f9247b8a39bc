//! What is shown and kept of a run: a table, a JSON file, plots.

mod plot;
mod table;

use std::path::Path;

use anyhow::{Context, Result};

use crate::results::Results;

/// Prints the tables and writes all files into `directory`.
pub(crate) fn publish(results: &Results, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let file = directory.join("latest.json");
    let json = serde_json::to_string_pretty(results).context("writing JSON")? + "\n";
    std::fs::write(&file, json).with_context(|| format!("writing {}", file.display()))?;
    plot::cpu(results, &directory.join("cpu.svg"))?;
    plot::latency(results, &directory.join("latency.svg"))?;
    let text = table::render(results);
    std::fs::write(directory.join("latest.md"), &text).context("writing the tables")?;
    println!("{text}");
    println!("in {}: latest.md, latest.json, cpu.svg, latency.svg", directory.display());
    Ok(())
}
