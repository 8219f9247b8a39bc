//! Two queues and two shards: each packet finds the shard that its connection belongs to.

use mtproxy_tests::cast::Mode;
use mtproxy_tests::{DcMode, TestClient};

use crate::afxdp_scene::{Bound, Setting};

const CLIENTS: usize = 64;

#[test]
fn flows_spread_over_both_queues_and_what_comes_to_the_wrong_one_reaches_its_owner() {
    for bound in Bound::ALL {
        let setting = Setting { dc: DcMode::EchoBytes, bound, ..Setting::queues(2) };
        let Some(scene) = setting.start() else { return };
        let mut clients: Vec<TestClient> =
            (0..CLIENTS).map(|i| scene.client(Mode::ALL[i % 4], i % 2 == 1)).collect();
        for round in 0..4 {
            for client in &mut clients {
                client.exchange_echo(round * 50_000, 50_000, 9000);
            }
        }
        clients[0].exchange_echo(200_000, 8 << 20, 1 << 20);
        // A shard dials from its own ports, which are those of one remainder (ports.rs, `owner`).
        let sessions = scene.dc.sessions();
        let odd = sessions.iter().filter(|session| session.peer.port() % 2 == 1).count();
        let forwarded = scene.sample("mtproxy_xdp_wrong_queue_total{outcome=\"forwarded\"}");
        if bound == Bound::Copy {
            assert!((CLIENTS / 8..CLIENTS - CLIENTS / 8).contains(&odd), "{odd} of {CLIENTS} are shard 1's");
            assert!(forwarded > 0, "veth's hash is unknown, and some replies come to the other queue");
        } else {
            // Without NAPI veth does not say by which queue a packet came, and a generic program takes it for 0.
            assert_eq!((odd, forwarded), (0, 0));
        }
        // An inbox is as finite as a network card's queue, and a machine with much else to do fills it.
        let lost = scene.sample("mtproxy_xdp_wrong_queue_total{outcome=\"lost\"}");
        assert!(lost <= forwarded / 10, "{lost} packets lost between shards, {forwarded} handed over");
        drop(clients);
        scene.dc.wait_until("the end of every session", |s| s.iter().all(|s| s.closed));
        scene.finish();
    }
}
