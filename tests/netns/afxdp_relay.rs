//! The work the proxy exists for, over AF_XDP: bytes cross it whole, both ways, in every mode and family.

use mtproxy_tests::cast::Mode;
use mtproxy_tests::command::parse_digest;
use mtproxy_tests::{Command, DcMode, TestClient, pattern};
use sha2::{Digest as _, Sha256};

use crate::afxdp_scene::{Bound, Setting};

const MIB: u64 = 1 << 20;

/// One byte at a time for some KiB, then megabytes in large writes, then pieces a byte short of a segment.
fn relays_both_ways(bound: Bound) {
    for v6 in [false, true] {
        let setting = Setting { dc: DcMode::EchoBytes, dc_v6: v6, ..Setting::bound(bound) };
        let Some(scene) = setting.start() else { return };
        for (index, mode) in Mode::ALL.into_iter().enumerate() {
            let mut client = scene.client(mode, v6);
            client.exchange_echo(0, 2048, 1);
            client.exchange_echo(2048, 4 * MIB, 1 << 20);
            client.exchange_echo(2048 + 4 * MIB, MIB, 1447);
            let sessions = scene.dc.sessions();
            assert_eq!(sessions[index].report.payload_len, 2048 + 5 * MIB, "{mode:?}");
            assert!(scene.lab.proxy.enter(|| sessions[index].peer.is_ipv6()) == v6);
        }
        assert_eq!(scene.front.accepted(), 0, "a client of ours never meets the front");
        assert_eq!(scene.sample("mtproxy_xdp_mode{mode=\"copy\"}"), u64::from(bound == Bound::Copy));
        // A shard shows its counts with its beats: those of the last moments come a little later. What took another way
        // would never be among them.
        scene.wait_for_sample("mtproxy_xdp_bytes_total{direction=\"received\"}", 4 * 2 * 5 * MIB);
        scene.dc.wait_until("the end of every session", |s| s.len() == 4 && s.iter().all(|s| s.closed));
        scene.finish();
    }
}

#[test]
fn every_mode_is_relayed_both_ways_over_both_families_in_copy_mode() {
    relays_both_ways(Bound::Copy);
}

#[test]
fn every_mode_is_relayed_both_ways_over_both_families_in_generic_mode() {
    relays_both_ways(Bound::Generic);
}

#[test]
fn megabytes_one_way_arrive_whole_in_every_mode() {
    for bound in Bound::ALL {
        let Some(scene) = Setting::bound(bound).start() else { return };
        for mode in Mode::ALL {
            let mut client = scene.client(mode, false);
            client.ask_for_pq();
            client.download(8 * MIB + 1);
            upload(&mut client, 8 * MIB);
        }
        scene.finish();
    }
}

/// Has the data centre count and hash what it is sent.
fn upload(client: &mut TestClient, len: u64) {
    let mut uploaded = Sha256::new();
    for part in 0..len >> 19 {
        let payload = pattern::bytes(part << 19, 1 << 19);
        uploaded.update(&payload);
        client.send_command(&Command::Sink(payload));
    }
    client.send_command(&Command::Digest);
    assert_eq!(parse_digest(&client.receive_body()), Some((len, uploaded.finalize().into())));
}
