//! What an idle relay costs in memory, both its connections together: at most a KiB.

use mtproxy_bench::rig::Mode;
use mtproxy_bench::scene::{Scene, resident_bytes};

/// Without what tables make room for at once.
const FEW: u32 = 4_000;
const MANY: u32 = 20_000;
const BOUND_BYTES: u64 = 1024;

#[test]
fn an_idle_relay_takes_at_most_a_kibibyte() {
    // The mode with the longest handshake and the most state.
    let mut scene = Scene::new(Mode::Ee(517), MANY as usize).unwrap();
    scene.establish(FEW);
    let before = resident_bytes().unwrap();
    scene.establish(MANY);
    let grown = resident_bytes().unwrap() - before;
    let each = grown / u64::from(MANY - FEW);
    assert!(each <= BOUND_BYTES, "{each} bytes");
    assert!(each > 256, "{each} bytes are less than a connection has: what was measured?");
}
