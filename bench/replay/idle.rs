//! Memory of relays that stand and say nothing: both connections, the session, and the tables of the driver.
//!
//! Each kind of client has a process of its own, whose memory grows by nothing else: frames and peers have theirs
//! from the beginning.

use anyhow::{Context, Result, ensure};
use mtproxy_bench::scene::{Scene, resident_bytes};

use crate::Client;
use crate::results::Idle;

/// Tables double; so the numbers are far apart.
const RELAYS: [u32; 3] = [10_000, 100_000, 1_000_000];

/// Gathers so many relays one after the other, and writes the resident memory at each number.
pub(crate) fn show(client: Client, relays: &[u32]) -> Result<()> {
    let most = relays.iter().max().copied().unwrap_or_default();
    let mut scene = Scene::new(client.mode(), most as usize)?;
    let mut resident = Vec::new();
    for &relays in relays {
        scene.establish(relays);
        resident.push((relays, resident_bytes()?));
    }
    println!("{}", serde_json::to_string(&Idle { client, resident })?);
    Ok(())
}

/// The same in a process of its own.
pub(crate) fn measure(client: Client) -> Result<Idle> {
    let mut command = mtproxy_bench::this_program(&[], &["idle", "--client", client.name()])?;
    for relays in RELAYS {
        command.args(["--relays", &relays.to_string()]);
    }
    let output = command.output().context("starting this program again")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("reading what it found")
}
