//! Silence has an end: dials, idle sessions and last bytes that nobody takes.

use std::time::{Duration, Instant};

use mtproxy_core::secret::SecretKind;
use mtproxy_tests::metrics_page::wait_for_sample;
use mtproxy_tests::socket::{PATIENCE, refusing_address};
use mtproxy_tests::{Command, DcMode, FakeDc, FrontManner, ProxyCommand, ReadEnd, SilentAddress, TestClient};

use crate::scene::{Mode, Scene, loopback_v4, secret};

#[test]
fn the_second_address_is_used_when_the_first_is_silent() {
    let silent = SilentAddress::new();
    let dc = FakeDc::start(DcMode::Packets);
    let proxy = ProxyCommand::new()
        .secret(&secret(SecretKind::Plain))
        .dc(2, silent.address())
        .dc(2, dc.address())
        // Each worker remembers for itself which addresses have failed.
        .option("--workers", "1")
        .config("[timeouts]\ndial_seconds = 1\n")
        .start();
    let begun = Instant::now();
    TestClient::connect(proxy.address(), Mode::Dd.options()).ask_for_pq();
    assert!(begun.elapsed() > Duration::from_millis(900), "the first address was given its time");
    let begun = Instant::now();
    TestClient::connect(proxy.address(), Mode::Dd.options()).ask_for_pq();
    assert!(begun.elapsed() < Duration::from_millis(900), "an address that failed lately is tried last");
}

#[test]
fn a_clients_reset_ends_its_session_before_the_dial_does() {
    let silent = SilentAddress::new();
    let metrics = refusing_address(loopback_v4());
    let proxy = ProxyCommand::new()
        .secret(&secret(SecretKind::Plain))
        .dc(2, silent.address())
        .option("--metrics", &metrics.to_string())
        .config("[timeouts]\ndial_seconds = 30\n")
        .start();
    let client = TestClient::connect(proxy.address(), Mode::Dd.options());
    wait_for_sample(metrics, "mtproxy_authenticated_total{mode=\"padded\"}", 1, PATIENCE);
    client.reset();
    let dropped = "mtproxy_sessions_dropped_total{reason=\"client_reset\"}";
    wait_for_sample(metrics, dropped, 1, Duration::from_secs(2));
}

#[test]
fn an_idle_session_is_closed_on_both_sides_and_a_busy_one_is_not() {
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).config("[timeouts]\nidle_seconds = 1\n")
    });
    let mut idle = scene.client(Mode::Ee);
    idle.ask_for_pq();
    let mut busy = scene.client(Mode::Ee);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        busy.ask_for_pq();
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(idle.hears_within(Duration::ZERO), "the idle session has ended by now");
    assert_eq!(idle.read_to_end(), (vec![], ReadEnd::Eof));
    let sessions = scene.dc.wait_until("the end of the idle session", |s| s.iter().any(|s| s.closed));
    assert_eq!(sessions.iter().filter(|session| !session.closed).count(), 1);
    busy.ask_for_pq();
}

#[test]
fn last_bytes_that_a_client_does_not_take_are_given_up_in_time() {
    const LEN: u64 = 64 << 20;
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command
            .secret(&secret(SecretKind::Plain))
            .config("[timeouts]\nlinger_seconds = 1\nidle_seconds = 1\n")
    });
    let mut clients = [Mode::Abridged, Mode::Ee].map(|mode| scene.client(mode));
    for client in &mut clients {
        client.send_command(&Command::Bulk { len: LEN });
    }
    // Nothing is read, so the sessions go idle, and then linger.
    scene.dc.wait_until("the end of both sessions", |s| s.len() == 2 && s.iter().all(|s| s.closed));
    std::thread::sleep(Duration::from_millis(2000));
    for client in &mut clients {
        // Were they still lingering, reading would let them finish with a FIN.
        let (taken, end) = client.read_to_end();
        assert_eq!(end, ReadEnd::Reset, "{} bytes", taken.len());
        assert!((taken.len() as u64) < LEN);
    }
}
