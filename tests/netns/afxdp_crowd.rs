//! Many at once over AF_XDP: crowds, storms, and some who are slow.

use mtproxy_core::random::Random;
use mtproxy_tests::cast::Mode;
use mtproxy_tests::{ClientCodec, Command, DcMode, Pace, TestClient};

use crate::afxdp_scene::{Bound, Setting};

const CLIENTS: usize = 400;

#[test]
fn hundreds_of_clients_at_once_do_not_disturb_each_other() {
    for bound in Bound::ALL {
        let Some(scene) = (Setting { dc: DcMode::EchoBytes, ..Setting::bound(bound) }).start() else {
            return;
        };
        let mut clients: Vec<TestClient> =
            (0..CLIENTS).map(|i| scene.client(Mode::ALL[i % 4], i % 3 == 0)).collect();
        for round in 0..3 {
            for client in &mut clients {
                client.exchange_echo(round * 10_000, 10_000, 3000);
            }
        }
        scene.wait_for_sample("mtproxy_tcp_connections{state=\"open\"}", 2 * CLIENTS as u64);
        drop(clients);
        scene.dc.wait_until("the end of every session", |s| s.iter().all(|s| s.closed));
        scene.finish();
    }
}

/// Every run repeats: what fails once fails again.
const SEED: [u8; 32] = [42; 32];

#[test]
fn a_storm_of_broken_connections_leaves_nothing_behind() {
    const CONNECTIONS: usize = 1000;
    let short = "[timeouts]\nfirst_byte_seconds = 1\nhandshake_seconds = 1\nlinger_seconds = 1\n";
    let Some(scene) = Setting::queues(2).start_with(|command| command.config(short)) else { return };
    let mut random = Random::from_seed(SEED);
    let mut survivor = scene.client(Mode::Dd, false);
    let mut lingering = Vec::new();
    for index in 0..CONNECTIONS {
        let options = Mode::ALL[random.below(4) as usize].options();
        let mut bytes = ClientCodec::new(options, Random::from_seed(random.bytes())).opening();
        bytes.truncate(random.below(bytes.len() as u32 + 1) as usize);
        let mut socket = scene.stranger(index % 2 == 0);
        // The proxy may have closed on it already.
        let _ = socket.try_send(&bytes, Pace::pieces(1 + random.below(600) as usize));
        match random.below(4) {
            0 => socket.reset(),
            1 => drop(socket),
            2 => {
                socket.half_close();
                lingering.push(socket);
            }
            _ => lingering.push(socket),
        }
        if index % 100 == 0 {
            survivor.ask_for_pq();
        }
    }
    for mut socket in lingering {
        socket.half_close();
        // Whatever it is told, it is told an end: at the latest when its handshake has taken too long.
        let _ = socket.read_to_end();
    }
    survivor.ask_for_pq();
    drop(survivor);
    scene.dc.wait_until("the end of every session", |s| s.iter().all(|s| s.closed));
    scene.client(Mode::Ee, true).ask_for_pq();
    scene.finish();
}

#[test]
fn a_client_that_reads_late_gets_everything_and_does_not_slow_the_others() {
    const PENDING: u64 = 24 << 20;
    for bound in Bound::ALL {
        let Some(scene) = Setting::bound(bound).start() else { return };
        let mut slow: Vec<_> = Mode::ALL.into_iter().map(|mode| scene.client(mode, false)).collect();
        for client in &mut slow {
            client.ask_for_pq();
            client.send_command(&Command::Bulk { len: PENDING });
        }
        for mode in Mode::ALL {
            let mut quick = scene.client(mode, true);
            quick.ask_for_pq();
            quick.download(1 << 20);
        }
        let sent = scene.dc.sessions().iter().map(|session| session.sent).max();
        assert!(sent.is_some_and(|sent| sent < PENDING), "the data centre is stopped: it has sent {sent:?}");
        let free = scene.sample("mtproxy_xdp_frames{state=\"free\"}");
        assert!(free > 1000, "four slow clients hold all but {free} frames");
        for client in &mut slow {
            client.receive_bulk(PENDING);
        }
        drop(slow);
        scene.finish();
    }
}

#[test]
fn a_data_centre_that_reads_late_gets_everything() {
    const LEN: usize = 512 << 10;
    let Some(scene) = Setting::default().start() else { return };
    let mut client = scene.client(Mode::Ee, false);
    client.ask_for_pq();
    scene.dc.pause_reading();
    let sender = std::thread::spawn(move || {
        let mut sent = 0;
        for _ in 0..64 {
            client.send_command(&Command::Sink(vec![7; LEN]));
            sent += LEN as u64;
        }
        client.send_command(&Command::Digest);
        let digest = mtproxy_tests::command::parse_digest(&client.receive_body());
        assert_eq!(digest.map(|(len, _)| len), Some(sent));
    });
    // A standstill shows in what the proxy receives: the same twice, 300 ms apart.
    let received = || scene.sample("mtproxy_xdp_bytes_total{direction=\"received\"}");
    let mut before = received();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = received();
        if now - before < 100_000 {
            break;
        }
        before = now;
    }
    assert!(!sender.is_finished(), "32 MiB do not fit into the buffers between client and data centre");
    scene.dc.resume_reading();
    sender.join().expect("the client got the digest of what it sent");
    scene.finish();
}
