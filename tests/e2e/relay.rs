//! The work the proxy exists for: bytes cross it whole, both ways, in every mode and family.

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::SecretKind;
use mtproxy_core::transport::Transport;
use mtproxy_tests::command::parse_digest;
use mtproxy_tests::dc_codec::quick_ack_token;
use mtproxy_tests::framing::{Packet, PacketOptions};
use mtproxy_tests::{Command, DcMode, FakeDc, FrontManner, FrontSite, ProxyCommand, TestClient, pattern};
use sha2::{Digest, Sha256};

use crate::scene::{DOMAIN, Mode, Scene, loopback_v4, loopback_v6, secret};

const MIB: u64 = 1 << 20;

/// One byte at a time for some KiB, then megabytes in large writes, out and back.
fn relays_both_ways(mode: Mode) {
    for v6 in [false, true] {
        let (listen, dc) = if v6 {
            (loopback_v6(), FakeDc::start_v6(DcMode::EchoBytes))
        } else {
            (loopback_v4(), FakeDc::start(DcMode::EchoBytes))
        };
        let front = FrontSite::start(FrontManner::AnswersAtOnce);
        let proxy = ProxyCommand::new()
            .listen(listen)
            .secret(&secret(SecretKind::Plain))
            .domain(DOMAIN, front.address())
            .dc(2, dc.address())
            .start();
        assert_eq!(proxy.address().is_ipv6(), v6);
        let mut client = TestClient::connect(proxy.address(), mode.options());
        client.exchange_echo(0, 4096, 1);
        client.exchange_echo(4096, 8 * MIB, 1 << 20);
        client.exchange_echo(4096 + 8 * MIB, MIB, 1447);
        let sessions = dc.sessions();
        let (dc_id, transport) = sessions[0].report.init.expect("the data centre understood the init frame");
        assert_eq!((sessions.len(), dc_id), (1, DcId(2)));
        assert_eq!(transport, client.codec().transport(), "the data centre hears the client's own tag");
        assert_eq!(sessions[0].report.payload_len, 4096 + 9 * MIB);
        assert_eq!(front.accepted(), 0, "a client of ours never meets the front");
    }
}

#[test]
fn plain_abridged_is_relayed_both_ways_over_both_families() {
    relays_both_ways(Mode::Abridged);
}

#[test]
fn plain_intermediate_is_relayed_both_ways_over_both_families() {
    relays_both_ways(Mode::Intermediate);
}

#[test]
fn dd_is_relayed_both_ways_over_both_families() {
    relays_both_ways(Mode::Dd);
}

#[test]
fn ee_is_relayed_both_ways_over_both_families() {
    relays_both_ways(Mode::Ee);
}

#[test]
fn one_proxy_listens_on_both_families_at_once() {
    let dc = FakeDc::start(DcMode::Packets);
    let proxy = ProxyCommand::new()
        .listen(loopback_v4())
        .listen(loopback_v6())
        .secret(&secret(SecretKind::Plain))
        .dc(2, dc.address())
        .start();
    let families: Vec<bool> = proxy.addresses().iter().map(std::net::SocketAddr::is_ipv6).collect();
    assert_eq!(families, [false, true]);
    for &address in proxy.addresses() {
        TestClient::connect(address, Mode::Dd.options()).ask_for_pq();
    }
}

#[test]
fn the_key_exchange_begins_in_every_mode() {
    let scene = Scene::start(DcMode::Packets);
    for mode in Mode::ALL {
        scene.client(mode).ask_for_pq();
    }
}

#[test]
fn megabytes_one_way_arrive_whole_in_every_mode() {
    let scene = Scene::start(DcMode::Packets);
    for mode in Mode::ALL {
        let mut client = scene.client(mode);
        client.download(8 * MIB + 1);
        let mut uploaded = Sha256::new();
        for part in 0..16 {
            let payload = pattern::bytes(part * MIB / 2, 1 << 19);
            uploaded.update(&payload);
            client.send_command(&Command::Sink(payload));
        }
        client.send_command(&Command::Digest);
        let digest = parse_digest(&client.receive_body());
        assert_eq!(digest, Some((8 * MIB, uploaded.finalize().into())), "{mode:?}");
    }
}

#[test]
fn the_longest_packet_and_every_padding_pass_untouched() {
    let scene = Scene::start(DcMode::Packets);
    for mode in Mode::ALL {
        let mut client = scene.client(mode);
        let is_padded = client.codec().transport() == Transport::PaddedIntermediate;
        for padding_len in 0..if is_padded { 16 } else { 1 } {
            let payload = pattern::bytes(padding_len as u64, 508);
            let padding = vec![0xa5; padding_len];
            let options = PacketOptions { wants_quick_ack: false, padding: &padding };
            client.send_packet(&Command::Echo(payload.clone()).body(), options);
            assert_eq!(Command::parse(&client.receive_body()), Some(Command::Echo(payload)));
        }
        // 1 044 480 bytes with the header; the answer may carry 15 bytes of padding more.
        let longest = pattern::bytes(0, 1_044_480 - 20 - 16);
        client.send_command(&Command::Echo(longest.clone()));
        assert_eq!(Command::parse(&client.receive_body()), Some(Command::Echo(longest)), "{mode:?}");
    }
}

#[test]
fn quick_acks_pass_outside_the_framing() {
    let scene = Scene::start(DcMode::Packets);
    for mode in Mode::ALL {
        let mut client = scene.client(mode);
        let body = Command::Echo(vec![1, 2, 3]).body();
        client.send_packet(&body, PacketOptions { wants_quick_ack: true, padding: &[] });
        assert_eq!(client.receive_packet(), Packet::QuickAck(quick_ack_token(&body)), "{mode:?}");
        assert_eq!(Command::parse(&client.receive_body()), Some(Command::Echo(vec![1, 2, 3])));
    }
}

#[test]
fn many_clients_at_once_do_not_disturb_each_other() {
    let scene = Scene::start(DcMode::EchoBytes);
    let mut clients: Vec<TestClient> = (0..80).map(|i| scene.client(Mode::ALL[i % 4])).collect();
    for round in 0..5 {
        for client in &mut clients {
            client.exchange_echo(round * 10_000, 10_000, 3000);
        }
    }
}
