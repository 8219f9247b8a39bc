//! How the proxy leaves: no new clients, the open ones get their grace, then exit code 0.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use mtproxy_core::secret::SecretKind;
use mtproxy_tests::{DcMode, FrontManner, PATIENCE};
use rustix::process::Signal;

use crate::scene::{Mode, Scene, secret};

/// An exit that nothing delays.
const PROMPTLY: Duration = Duration::from_secs(5);

#[test]
fn without_clients_both_signals_end_it_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut scene = Scene::start(DcMode::Packets);
        scene.client(Mode::Ee).ask_for_pq();
        scene.dc.wait_until("the only session's end", |s| s.iter().all(|s| s.closed));
        scene.proxy.signal(signal);
        let status = scene.proxy.wait_for_exit(PROMPTLY);
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}");
    }
}

#[test]
fn open_sessions_are_served_until_they_end_and_nobody_new_is_let_in() {
    let mut scene = Scene::start(DcMode::Packets);
    let mut client = scene.client(Mode::Ee);
    client.ask_for_pq();
    scene.proxy.signal(Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(scene.proxy.address()).is_ok() {
        assert!(Instant::now() < deadline, "awaiting that new clients are refused");
        std::thread::sleep(Duration::from_millis(10));
    }
    client.ask_for_pq();
    client.download(1 << 20);
    assert!(scene.proxy.is_running());
    drop(client);
    assert_eq!(scene.proxy.wait_for_exit(PROMPTLY).code(), Some(0));
}

#[test]
fn sessions_that_outlast_the_grace_are_cut() {
    let mut scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).config("[timeouts]\ndrain_seconds = 1\n")
    });
    let mut client = scene.client(Mode::Dd);
    client.ask_for_pq();
    let signalled = Instant::now();
    scene.proxy.signal(Signal::TERM);
    assert_eq!(scene.proxy.wait_for_exit(PROMPTLY).code(), Some(0));
    assert!(signalled.elapsed() >= Duration::from_millis(900), "the grace was {:?}", signalled.elapsed());
    assert!(client.read_to_end().0.is_empty());
}

#[test]
fn an_order_to_end_right_behind_an_order_to_reload_is_obeyed() {
    for round in 0..20 {
        let mut scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
            let reloadable = "[timeouts]\nidle_seconds = 100\n";
            command.secret(&secret(SecretKind::Plain)).config(reloadable).option("--workers", "4")
        });
        scene.proxy.signal(Signal::HUP);
        scene.proxy.signal(Signal::TERM);
        let status = scene.proxy.wait_for_exit(PROMPTLY);
        assert_eq!(status.code(), Some(0), "round {round}: {status}");
    }
}
