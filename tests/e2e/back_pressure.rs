//! A slow side stops the other's reading: nothing is lost, and nothing piles up in the proxy.

use std::time::{Duration, Instant};

use mtproxy_tests::command::parse_digest;
use mtproxy_tests::{Command, DcMode, PATIENCE, pattern};
use sha2::{Digest, Sha256};

use crate::scene::{Mode, Scene};

const PENDING: u64 = 64 << 20;
/// What one stalled relay may cost the proxy: its windows and buffers, many times smaller than
/// [`PENDING`]. Socket buffers are the kernel's and do not count.
const GROWTH_MAX: u64 = 3 << 20;

/// Waits until `figure` stays the same for half a second.
#[track_caller]
pub(crate) fn wait_for_standstill(what: &str, mut figure: impl FnMut() -> u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut since) = (figure(), Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        assert!(Instant::now() < deadline, "awaiting a standstill of {what}: still at {last}");
        std::thread::sleep(Duration::from_millis(20));
        let now = figure();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

#[test]
fn a_client_that_reads_late_gets_everything_and_costs_no_memory() {
    let scene = Scene::start(DcMode::Packets);
    for mode in [Mode::Abridged, Mode::Dd, Mode::Ee] {
        let mut client = scene.client(mode);
        client.ask_for_pq();
        let before = scene.proxy.cost().rss_bytes;
        client.send_command(&Command::Bulk { len: PENDING });
        let sent = wait_for_standstill("what the data centre has sent", || {
            scene.dc.sessions().last().map_or(0, |session| session.sent)
        });
        assert!(sent < PENDING, "the data centre is stopped: it has sent {sent}");
        let grown = scene.proxy.cost().rss_bytes.saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{mode:?}: the proxy grew by {grown} bytes");
        client.receive_bulk(PENDING);
    }
}

#[test]
fn a_data_centre_that_reads_late_gets_everything_and_costs_no_memory() {
    let scene = Scene::start(DcMode::Packets);
    for mode in [Mode::Abridged, Mode::Ee] {
        let mut client = scene.client(mode);
        client.ask_for_pq();
        let before = scene.proxy.cost().rss_bytes;
        scene.dc.pause_reading();
        let sender = std::thread::spawn(move || {
            let mut sent = Sha256::new();
            for part in 0..PENDING >> 19 {
                let payload = pattern::bytes(part << 19, 1 << 19);
                sent.update(&payload);
                client.send_command(&Command::Sink(payload));
            }
            client.send_command(&Command::Digest);
            assert_eq!(parse_digest(&client.receive_body()), Some((PENDING, sent.finalize().into())));
        });
        // The proxy is the only one that could take more: it is at a standstill when its CPU is.
        wait_for_standstill("the proxy", || scene.proxy.cost().cpu_ns / 1_000_000);
        let grown = scene.proxy.cost().rss_bytes.saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{mode:?}: the proxy grew by {grown} bytes");
        assert!(!sender.is_finished(), "64 MiB do not fit into the buffers between client and data centre");
        scene.dc.resume_reading();
        sender.join().expect("the client got the digest of what it sent");
    }
}

#[test]
fn a_slow_client_does_not_slow_the_others() {
    let scene = Scene::start(DcMode::Packets);
    let mut slow: Vec<_> = (0..8).map(|i| scene.client(Mode::ALL[i % 4])).collect();
    for client in &mut slow {
        client.send_command(&Command::Bulk { len: 16 << 20 });
    }
    for mode in Mode::ALL {
        let mut quick = scene.client(mode);
        quick.ask_for_pq();
        quick.download(1 << 20);
    }
    for client in &mut slow {
        client.receive_bulk(16 << 20);
    }
}

#[test]
fn a_slow_reader_with_a_small_window_gets_everything() {
    let scene = Scene::start(DcMode::Packets);
    for mode in Mode::ALL {
        let mut client = scene.client(mode);
        // Smaller than loopback's segments: every window is filled by half and waited for (RFC 1122
        // section 4.2.3.4), so a few windows are enough.
        client.socket().shrink_receive_buffer(4096);
        client.download(10_000);
    }
}
