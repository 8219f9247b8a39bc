//! How conversations end over AF_XDP: half-closes, data together with FIN, resets, a drain.

use std::time::Duration;

use mtproxy_tests::cast::Mode;
use mtproxy_tests::server::InputEnd;
use mtproxy_tests::{Command, DcMode, NetNs, PATIENCE, Pace, ReadEnd, pattern};
use rustix::process::Signal;

use crate::afxdp_scene::{Bound, Setting};

#[test]
fn half_closes_pass_in_both_directions_and_nothing_behind_them_is_lost() {
    for bound in Bound::ALL {
        let Some(scene) = Setting::bound(bound).start() else { return };
        for (index, mode) in Mode::ALL.into_iter().enumerate() {
            let mut client = scene.client(mode, index % 2 == 1);
            client.send_command(&Command::HalfClose);
            assert_eq!(client.read_to_end(), (vec![], ReadEnd::Eof), "{mode:?}");
            client.send_command(&Command::Sink(pattern::bytes(0, 300_000)));
            client.half_close();
            let sessions = scene.dc.wait_until("the client's end", |s| s.len() > index && s[index].closed);
            assert!(sessions[index].report.payload_len > 300_000, "{mode:?}: {sessions:?}");
            assert_eq!(sessions[index].input_end, Some(InputEnd::Eof));
        }
        scene.finish();
    }
}

#[test]
fn a_client_that_half_closes_gets_everything_it_asked_for() {
    let Some(scene) = (Setting { dc: DcMode::EchoBytes, ..Setting::default() }).start() else { return };
    for mode in Mode::ALL {
        let mut client = scene.client(mode, false);
        let payload = pattern::bytes(0, 400_000);
        client.send(&payload, Pace::WHOLE);
        client.half_close();
        let (echoed, end) = client.read_to_end();
        assert_eq!((echoed == payload, end), (true, ReadEnd::Eof), "{mode:?}: {} bytes", echoed.len());
    }
    scene.finish();
}

#[test]
fn nothing_is_lost_when_a_data_centres_last_bytes_and_its_fin_arrive_together() {
    let Some(scene) = Setting::default().start() else { return };
    for round in 0..40 {
        let mode = Mode::ALL[round % 4];
        let mut client = scene.client(mode, false);
        let len = [1, 1400, 70_000, 400_000][round / 4 % 4];
        client.send_command(&Command::Bulk { len });
        client.send_command(&Command::Close);
        client.receive_bulk(len);
        assert_eq!(client.read_to_end(), (vec![], ReadEnd::Eof), "{mode:?}");
    }
    scene.finish();
}

#[test]
fn a_reset_of_either_side_ends_the_other() {
    for bound in Bound::ALL {
        let Some(scene) = Setting::bound(bound).start() else { return };
        for (index, mode) in Mode::ALL.into_iter().enumerate() {
            let mut client = scene.client(mode, false);
            client.ask_for_pq();
            client.reset();
            scene.dc.wait_until("the end of what was reset", |s| s.len() > 2 * index && s[2 * index].closed);
            let mut client = scene.client(mode, true);
            client.ask_for_pq();
            client.send_command(&Command::Reset);
            let (rest, _) = client.read_to_end();
            assert!(rest.is_empty(), "{mode:?}: {} bytes after the end", rest.len());
        }
        scene.finish();
    }
}

#[test]
fn a_drain_lets_sessions_finish_and_takes_no_new_clients() {
    for bound in Bound::ALL {
        const LEN: u64 = 8 << 20;
        let Some(mut scene) = Setting::bound(bound).start() else { return };
        let mut clients: Vec<_> = Mode::ALL.into_iter().map(|mode| scene.client(mode, false)).collect();
        for client in &mut clients {
            client.ask_for_pq();
            client.send_command(&Command::Bulk { len: LEN });
            client.send_command(&Command::Close);
        }
        scene.proxy.signal(Signal::TERM);
        let _ = scene.proxy.wait_for_line("that it drains", |line| line.contains("draining"));
        let address = scene.address(false);
        let deadline = std::time::Instant::now() + PATIENCE;
        while scene.lab.client.enter(|| std::net::TcpStream::connect(address)).is_ok() {
            assert!(std::time::Instant::now() < deadline, "new clients are refused while others finish");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(scene.proxy.is_running(), "sessions are open");
        for client in &mut clients {
            client.receive_bulk(LEN);
            assert_eq!(client.read_to_end(), (vec![], ReadEnd::Eof));
        }
        drop(clients);
        scene.assert_ends_well(PATIENCE);
    }
}

/// The session is over with the last acknowledgement, when its FIN has just left. A reset behind that would be the
/// last that the client hears of it.
#[test]
fn a_drain_lets_the_last_client_say_goodbye() {
    const LEN: u64 = 300_000;
    let Some(mut scene) = Setting::default().start() else { return };
    let mut client = scene.client(Mode::Dd, false);
    client.ask_for_pq();
    scene.proxy.signal(Signal::TERM);
    let _ = scene.proxy.wait_for_line("that it drains", |line| line.contains("draining"));
    client.send_command(&Command::Bulk { len: LEN });
    client.send_command(&Command::Close);
    client.receive_bulk(LEN);
    assert_eq!(client.read_to_end(), (vec![], ReadEnd::Eof));
    drop(client);
    scene.assert_ends_well(PATIENCE);
    assert_eq!(resets(&scene.lab.client), 0, "a connection of the client was reset");
}

/// How many connections of this host were reset while they were open (RFC 4022, tcpEstabResets).
fn resets(namespace: &NetNs) -> u64 {
    let text = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).expect("proc");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(str::split_whitespace);
    let (names, numbers) = (lines.next().expect("names"), lines.next().expect("numbers"));
    let found = names.zip(numbers).find(|(name, _)| *name == "EstabResets");
    found.and_then(|(_, number)| number.parse().ok()).expect("the kernel counts resets")
}
