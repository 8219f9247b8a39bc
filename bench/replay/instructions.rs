//! Instructions, as callgrind counts them: the same on every run and every machine that has the same instruction
//! set, whatever else it does. It says nothing of caches. Valgrind shows a program a plain AES-NI and no wider
//! vectors, so that ciphers take more instructions here than on the machine itself.

use std::collections::HashMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use mtproxy_bench::scene::Scene;
use mtproxy_bench::spread::Spread;

use crate::Client;
use crate::exchange::{BURST, Replay, Step, Timings};
use crate::results::{Cost, StageCost, Unit};
use crate::stages::Stage;

/// Few, since callgrind is fifty times slower.
const RELAYS: u32 = 1000;
const EXCHANGES: u32 = 20;

/// Stages that have an exchange of their own. Relay and transmit come with receive.
const COUNTED: [Stage; 5] = [Stage::Whole, Stage::Parse, Stage::LookUp, Stage::Receive, Stage::Engine];

/// What is to be counted; for a process under callgrind.
pub(crate) fn execute(client: Client, payload: usize) -> Result<()> {
    let mut scene = Scene::new(client.mode(), RELAYS as usize)?;
    scene.establish(RELAYS);
    let mut replay = Replay::new(scene, payload);
    for _ in 0..EXCHANGES {
        for stage in COUNTED {
            replay.exchange(stage, &mut Timings::new());
        }
    }
    println!("{}", replay.sent_per_message());
    Ok(())
}

/// Counts for messages of these lengths.
pub(crate) fn count(client: Client, payloads: &[usize]) -> Result<Vec<Cost>> {
    payloads.iter().map(|&payload| count_one(client, payload)).collect()
}

fn count_one(client: Client, payload_bytes: usize) -> Result<Cost> {
    eprintln!("{}, {payload_bytes} bytes, under callgrind", client.name());
    let profile = std::env::temp_dir().join(format!("mtproxy-replay.{}", std::process::id()));
    let program = std::env::current_exe().context("finding this program")?;
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args(["count", "--client", client.name(), "--payload", &payload_bytes.to_string()])
        .output()
        .context("starting valgrind")?;
    ensure!(output.status.success(), "valgrind: {}", String::from_utf8_lossy(&output.stderr));
    let counts = std::fs::read_to_string(&profile).context("reading the profile")?;
    std::fs::remove_file(&profile).context("removing the profile")?;
    let sent = String::from_utf8_lossy(&output.stdout);
    Ok(Cost {
        client,
        relays: RELAYS,
        payload_bytes,
        unit: Unit::Instructions,
        sent_per_message: sent.trim().parse().context("reading what the counted process says")?,
        stages: evaluate(&counts)?,
    })
}

/// Finds the functions of `stages.rs` in a profile.
fn evaluate(profile: &str) -> Result<Vec<StageCost>> {
    let called = calls(profile);
    let mut costs = Vec::new();
    for step in Step::ALL {
        for stage in Stage::ALL {
            if (step, stage) == (Step::Acknowledgement, Stage::Engine) {
                continue;
            }
            let name = format!("::stages::{}::{}", step.module(), stage.function());
            let found = called.iter().filter(|(called, _)| called.ends_with(&name));
            let instructions: f64 = found.map(|(_, cost)| cost).sum();
            ensure!(instructions > 0.0, "no call of {name} in the profile");
            let per_packet = instructions / f64::from(BURST * EXCHANGES);
            let spread = Spread { median: per_packet, min: per_packet, max: per_packet };
            costs.push(StageCost { step, stage, per_packet: spread });
        }
    }
    Ok(costs)
}

/// Functions that are called, and what each call costs with all that it calls (Callgrind Format Specification):
/// `cfn=(number) name`, the name the first time only, then `calls=…`, then a line that ends with the cost.
fn calls(profile: &str) -> Vec<(&str, f64)> {
    let mut names = HashMap::new();
    let mut calls = Vec::new();
    let mut callee = "";
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some((kind, rest)) = line.split_once("fn=(")
            && let Some((number, name)) = rest.split_once(')')
        {
            let name = name.trim_start();
            let known = names.entry(number).or_insert(name);
            if kind == "c" {
                callee = known;
            }
        } else if line.starts_with("calls=") {
            let cost = lines.next().and_then(|line| line.rsplit(' ').next()?.parse().ok());
            calls.extend(cost.map(|cost| (callee, cost)));
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_costs_what_stands_behind_it_and_names_are_told_once() {
        let profile = "fn=(1) main\n3 10\ncfn=(2) a::b\ncalls=1 50\n4 700\nfn=(2)\n9 5\n\
                       fn=(1)\ncfn=(2)\ncalls=1 50\n+1 30\n";
        assert_eq!(calls(profile), [("a::b", 700.0), ("a::b", 30.0)]);
    }
}
