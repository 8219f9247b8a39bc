//! Every kind of client and a stranger, through the epoll datapath, packet by packet.

use mtproxy_tests::cast::Mode;
use mtproxy_tests::lab3::PROXY_INTERFACE;
use mtproxy_tests::{DcMode, Lab3, Lab3Options, NamespaceScene, Pace};

#[test]
fn every_mode_is_relayed_between_hosts_over_both_families() {
    const LEN: u64 = 1 << 20;
    for v6 in [false, true] {
        let Some(lab) = Lab3::or_skip(Lab3Options::default()) else { return };
        let scene = NamespaceScene::start(lab, DcMode::EchoBytes, v6, |command| {
            command.option("--datapath", "epoll")
        });
        for mode in Mode::ALL {
            let mut client = scene.client(mode, v6);
            client.exchange_echo(0, 4096, 100);
            client.exchange_echo(4096, LEN, 1 << 16);
        }
        scene.assert_fronted(b"GET / HTTP/1.1\r\n\r\n", Pace::pieces(3), v6);
        scene.dc.wait_until("the end of every session", |s| s.len() == 4 && s.iter().all(|s| s.closed));
        let wire = scene.lab.proxy.link_counters(PROXY_INTERFACE).expect("px0");
        // Each byte comes in and goes out on both legs.
        assert!(wire.rx_bytes > 8 * LEN && wire.tx_bytes > 8 * LEN, "{wire:?}: some bytes took another way");
    }
}
