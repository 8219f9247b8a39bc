//! An interface that goes away, or changes its queues, under a proxy that serves it: AF_XDP comes back by itself, and
//! clients of the kernel's sockets never notice.

use mtproxy_tests::cast::Mode;
use mtproxy_tests::{Command, Lab3Options, Pace, TestClient};

use crate::afxdp_scene::{AfxdpScene, Bound, Setting};

/// What a client of the kernel's sockets downloads meanwhile.
const LOAD_BYTES: u64 = 4 << 20;

/// New clients come over AF_XDP: all of these, but for those that come before the first beat is seen.
#[track_caller]
fn assert_serves_over_frames(scene: &AfxdpScene) {
    const CLIENTS: usize = 8;
    let before = scene.steered("redirected_syn");
    let mut clients: Vec<TestClient> =
        (0..CLIENTS).map(|index| scene.client(Mode::ALL[index % Mode::ALL.len()], index % 2 == 1)).collect();
    for client in &mut clients {
        client.ask_for_pq();
        client.download(100_000);
    }
    scene.wait_for_sample("mtproxy_steering_total{exit=\"redirected_syn\"}", before + CLIENTS as u64);
}

#[test]
fn an_interface_that_is_unplugged_and_plugged_in_is_taken_again() {
    for bound in Bound::ALL {
        let Some(mut scene) = Setting { is_alone: true, ..Setting::bound(bound) }.start() else { return };
        let mut over_sockets = scene.client_over_sockets();
        let mut over_frames = scene.client(Mode::Ee, false);
        over_frames.ask_for_pq();
        // The second time shows that the first has left nothing behind; to see that once is enough.
        let rounds = if bound == Bound::Copy { 2 } else { 1 };
        for round in 1..=rounds {
            over_sockets.send_command(&Command::Bulk { len: LOAD_BYTES });
            scene.lab.unplug_proxy().expect("it is plugged in");
            let _ = scene.proxy.wait_for_line("the loss", |line| line.contains("reason=\"interface_gone\""));
            scene.wait_for_sample("mtproxy_xdp_lost_total{reason=\"interface_gone\"}", round);
            scene.lab.plug_in_proxy().expect("it is not");
            over_sockets.receive_bulk(LOAD_BYTES);
            // As long as AF_XDP is away everybody is the kernel's.
            scene.client(Mode::Dd, true).ask_for_pq();
            scene.wait_for_return(1);
            assert_serves_over_frames(&scene);
            over_sockets.download(100_000);
        }
        // Its connection was the shard's, and went with it.
        let _ = over_frames.try_send(&[0; 100], Pace::WHOLE);
        let _ = over_frames.read_to_end();
        drop((over_frames, over_sockets));
        scene.finish();
    }
}

#[test]
fn a_queue_that_is_added_gets_a_shard_of_its_own_and_none_can_be_taken_away() {
    let lab = Lab3Options { queues: 2, channels: Some(1), ..Lab3Options::default() };
    let setting = Setting { is_alone: true, lab, ..Setting::default() };
    let Some(mut scene) = setting.start() else { return };
    let mut over_sockets = scene.client_over_sockets();
    over_sockets.send_command(&Command::Bulk { len: LOAD_BYTES });
    scene.lab.set_channels(2).expect("it was made with two");
    over_sockets.receive_bulk(LOAD_BYTES);
    let _ = scene.proxy.wait_for_line("the loss", |line| line.contains("reason=\"queues_changed\""));
    scene.wait_for_return(2);
    assert_serves_over_frames(&scene);
    // docs/operations.md says so.
    let refused = scene.lab.set_channels(1).expect_err("sockets hold both queues");
    assert!(refused.to_string().contains("too low for existing zerocopy AF_XDP sockets"), "{refused}");
    over_sockets.download(100_000);
    drop(over_sockets);
    scene.finish();
}
