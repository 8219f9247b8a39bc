//! A long transfer over a link that loses one packet in a hundred, each way, on both legs.

use std::time::{Duration, Instant};

use mtproxy_tests::cast::Mode;

use crate::afxdp_scene::{Bound, Setting};
use crate::router_program::lose_one_percent;

/// Four lossy crossings, at the pace of a debug build on a shared machine.
const LEN_DEFAULT: u64 = 1 << 30;
const BOUND: Duration = Duration::from_secs(300);

/// `MTPROXY_LOSS_BYTES` makes it shorter or longer.
fn len() -> u64 {
    std::env::var("MTPROXY_LOSS_BYTES").map_or(LEN_DEFAULT, |bytes| bytes.parse().expect("a number of bytes"))
}

#[test]
fn a_long_transfer_through_one_percent_loss_each_way_is_intact() {
    let Some(scene) = Setting::bound(Bound::Copy).start() else { return };
    lose_one_percent(&scene.lab.router, "px1");
    let mut client = scene.client(Mode::Dd, false);
    client.ask_for_pq();
    let began = Instant::now();
    client.download(len());
    let took = began.elapsed();
    let retransmitted = scene.sample("mtproxy_tcp_retransmitted_segments_total");
    let timeouts = scene.sample("mtproxy_tcp_retransmission_timeouts_total");
    eprintln!("{} bytes in {took:?}: {retransmitted} segments sent again, {timeouts} timeouts", len());
    assert!(took < BOUND, "{} bytes took {took:?}", len());
    scene.wait_for_sample("mtproxy_tcp_retransmitted_segments_total", len() / 1448 / 200);
    drop(client);
    scene.dc.wait_until("the end of the session", |s| s[0].closed);
    scene.finish();
}
