//! Out of descriptors: new clients wait, nobody is dropped for it, and the proxy does not exit.

use std::time::{Duration, Instant};

use mtproxy_core::secret::SecretKind;
use mtproxy_tests::framing::PacketOptions;
use mtproxy_tests::{DcMode, FrontManner, PATIENCE, TestClient, mtproto};

use crate::scene::{Mode, Scene, secret};

const CLIENTS: usize = 24;
/// Enough for a few of them at a time, besides the eighty or so that the proxy keeps for itself.
const DESCRIPTORS: u64 = 98;
/// How long all clients who still wait are listened to, one after the other.
const ROUND: Duration = Duration::from_millis(300);

/// Has so many clients come at once to a proxy that cannot serve them all. Those who are served leave,
/// round by round, until all have been, which takes `patience` at most. Whoever is closed instead fails it.
#[track_caller]
fn serves_everybody_in_turn(mut scene: Scene, clients: usize, patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut waiting: Vec<TestClient> = (0..clients)
        .map(|_| {
            let mut client = scene.client(Mode::Intermediate);
            client.send_packet(&mtproto::req_pq_multi(4, &[1; 16]), PacketOptions::default());
            client
        })
        .collect();
    for round in 0.. {
        let glance = ROUND / u32::try_from(waiting.len()).expect("few clients");
        let heard = waiting.into_iter().map(|mut client| (client.hears_within(glance), client));
        let (served, unserved): (Vec<_>, Vec<_>) = heard.partition(|(hears, _)| *hears);
        assert!(scene.proxy.is_running(), "the proxy has exited in round {round}");
        if round == 0 {
            let (served, unserved) = (served.len(), unserved.len());
            assert!(served > 0 && unserved > 0, "{served} served and {unserved} waiting: no shortage");
        }
        for (_, mut client) in served {
            let _ = client.receive_body();
        }
        waiting = unserved.into_iter().map(|(_, client)| client).collect();
        if waiting.is_empty() {
            scene.client(Mode::Dd).ask_for_pq();
            return;
        }
        let left = waiting.len();
        assert!(Instant::now() < deadline, "{left} clients are not served after {patience:?}");
    }
}

#[test]
fn a_limit_known_at_the_start_makes_clients_wait() {
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).option("--workers", "1").descriptor_limit(DESCRIPTORS)
    });
    serves_everybody_in_turn(scene, CLIENTS, PATIENCE);
}

/// Each worker has descriptors of its own, which leave few for clients.
#[test]
fn a_limit_that_many_workers_share_makes_clients_wait_and_closes_none() {
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).option("--workers", "16").descriptor_limit(400)
    });
    serves_everybody_in_turn(scene, 60, Duration::from_secs(10));
}

/// Without a way to know, a client may be accepted for whose data centre there is no descriptor left. It
/// is turned away then, and must be served when it comes again.
#[test]
fn a_limit_that_comes_as_a_surprise_turns_clients_away_but_nobody_for_good() {
    let mut scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).option("--workers", "1")
    });
    let mut old = scene.client(Mode::Ee);
    old.ask_for_pq();
    scene.proxy.limit_descriptors(scene.proxy.cost().open_descriptors + 11);
    let crowd: Vec<TestClient> = (0..CLIENTS).map(|_| scene.client(Mode::Dd)).collect();
    old.ask_for_pq();
    old.download(1 << 20);
    assert!(scene.proxy.is_running());
    drop(crowd);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = scene.client(Mode::Intermediate);
        client.send_packet(&mtproto::req_pq_multi(4, &[1; 16]), PacketOptions::default());
        if client.hears_within(PATIENCE) && client.has_not_ended() {
            let _ = client.receive_body();
            break;
        }
        assert!(Instant::now() < deadline, "awaiting service after the crowd has left");
    }
    old.ask_for_pq();
}
