//! What clients see when something of the proxy stands still or dies: a kernel that answers, never a silence.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use mtproxy_tests::cast::Mode;
use mtproxy_tests::{Command, PATIENCE, Pace, ProxyCommand, TestClient};
use rustix::process::{Pid, Signal, kill_process};

use crate::afxdp_scene::{AfxdpScene, Bound, STALE_AFTER, Setting, client_on};
use crate::router_program::{choose_queue_by_port, is_on_second_queue};

/// What a new client may wait for its first answer from then on.
const SERVED_WITHIN: Duration = Duration::from_millis(200);

fn alone(setting: Setting) -> Setting {
    Setting { is_alone: true, ..setting }
}

/// The router spreads packets as a network card does whose hash the proxy knows: replies come to the queue whose
/// shard has dialled. Where the hash is unknown, as veth's own, a reply may come to the queue that stands still.
#[test]
fn a_held_shards_new_clients_are_served_by_the_kernel_and_the_others_never_notice() {
    const HOLD: Duration = Duration::from_secs(2);
    let held = |command: ProxyCommand| command.environment("MTPROXY_TEST_HOLD", "0:2");
    let Some(scene) = alone(Setting::queues(2)).start_with(held) else { return };
    choose_queue_by_port(&scene.lab.router, "px1");
    let mut standing: Vec<TestClient> = (0..24).map(|i| scene.client(Mode::ALL[i % 4], false)).collect();
    standing.iter_mut().for_each(TestClient::ask_for_pq);
    let (mut held, mut others): (Vec<TestClient>, Vec<TestClient>) =
        standing.into_iter().partition(|client| !is_on_second_queue(client));
    assert!(held.len() >= 4 && others.len() >= 4, "clients of both queues");

    scene.proxy.signal(Signal::USR2);
    let _ = scene.proxy.wait_for_line("the hold", |line| line.contains("a shard is held"));
    let begun = Instant::now();
    // The others go on from the first moment.
    for client in &mut others {
        let asked = Instant::now();
        client.ask_for_pq();
        let took = asked.elapsed();
        assert!(took < SERVED_WITHIN, "a client of the other queue waited for {took:?}");
    }
    for client in &mut held {
        client.send_command(&Command::Echo(vec![1, 2, 3]));
    }
    std::thread::sleep(STALE_AFTER.saturating_sub(begun.elapsed()));
    let mut new: Vec<TestClient> = Vec::new();
    while new.iter().filter(|client| !is_on_second_queue(client)).count() < 8 {
        let came = Instant::now();
        let mut client = scene.client(Mode::ALL[new.len() % 4], false);
        client.ask_for_pq();
        let took = came.elapsed();
        let queue = u8::from(is_on_second_queue(&client));
        assert!(took < SERVED_WITHIN, "new client {} of queue {queue} was served after {took:?}", new.len());
        new.push(client);
    }
    // Those of the held shard wait, and are not answered by anybody else.
    assert!(!held.iter_mut().any(|client| client.hears_within(Duration::ZERO)));
    assert!(begun.elapsed() < HOLD, "measured during the hold");

    for client in &mut held {
        assert_eq!(Command::parse(&client.receive_body()), Some(Command::Echo(vec![1, 2, 3])));
        client.ask_for_pq();
    }
    for client in &mut new {
        client.ask_for_pq();
        client.download(100_000);
    }
    scene.wait_for_sample("mtproxy_steering_total{exit=\"kernel_stale\"}", 8);
    // And once it is over, clients come to the shards again.
    let before = scene.steered("redirected_syn");
    let mut later: Vec<TestClient> = (0..16).map(|i| scene.client(Mode::ALL[i % 4], false)).collect();
    later.iter_mut().for_each(TestClient::ask_for_pq);
    scene.wait_for_sample("mtproxy_steering_total{exit=\"redirected_syn\"}", before + 12);
    drop((held, others, new, later));
    scene.finish();
}

#[test]
fn a_process_that_stands_still_has_its_new_clients_answered_by_the_kernel_and_serves_them_later() {
    for bound in Bound::ALL {
        let Some(scene) = alone(Setting::bound(bound)).start() else { return };
        let mut standing = scene.client(Mode::Ee, false);
        standing.ask_for_pq();
        let address = scene.address(false);
        let mut streams = Vec::new();
        scene.proxy.while_stopped(|| {
            std::thread::sleep(STALE_AFTER);
            for _ in 0..20 {
                let began = Instant::now();
                let stream = scene.lab.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE));
                streams.push(stream.expect("the kernel completes the handshake"));
                let took = began.elapsed();
                assert!(took < SERVED_WITHIN, "a handshake took {took:?}");
            }
        });
        let mut clients: Vec<TestClient> = streams.into_iter().map(client_on).collect();
        clients.iter_mut().for_each(TestClient::ask_for_pq);
        standing.ask_for_pq();
        drop((clients, standing));
        scene.finish();
    }
}

fn pids(scene: &AfxdpScene) -> Vec<u32> {
    let output = std::process::Command::new("ip")
        .args(["netns", "pids", scene.lab.proxy.name()])
        .output()
        .expect("ip runs");
    String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The proxy below a supervisor.
fn supervised(scene: &AfxdpScene) -> u32 {
    let supervisor = scene.proxy.pid();
    let is_proxy = |pid: &u32| {
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != supervisor && words.contains("--listen")
    };
    pids(scene).into_iter().find(is_proxy).expect("a proxy runs")
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("not zero");
    kill_process(pid, Signal::KILL).expect("a process of ours");
}

#[test]
fn a_killed_proxy_leaves_a_host_that_refuses_at_once_and_an_interface_without_a_program() {
    for bound in Bound::ALL {
        let Some(mut scene) = alone(Setting::bound(bound)).start() else { return };
        let mut client = scene.client(Mode::Dd, false);
        client.ask_for_pq();
        scene.proxy.signal(Signal::KILL);
        scene.proxy.wait_for_exit(PATIENCE);
        let address = scene.address(false);
        let began = Instant::now();
        let refused = scene.lab.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE));
        let error = refused.expect_err("nobody listens");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(began.elapsed() < SERVED_WITHIN, "refused after {:?}", began.elapsed());
        assert!(!scene.has_program());
        // The kernel, which never knew this connection, resets it as soon as it hears of it. Whether a write or
        // the read is told depends on who comes first.
        let _ = client.try_send(&[0; 100], Pace::WHOLE);
        let _ = client.read_to_end();
        assert!(pids(&scene).is_empty());
    }
}

#[test]
fn a_killed_proxy_that_is_started_again_serves_within_a_second() {
    for bound in Bound::ALL {
        let setting = alone(Setting::bound(bound));
        let Some(scene) = setting.start_with(ProxyCommand::supervised) else { return };
        let mut quickest = Duration::MAX;
        for _ in 0..3 {
            scene.client(Mode::Ee, false).ask_for_pq();
            let proxy = supervised(&scene);
            kill(proxy);
            let killed = Instant::now();
            // Its listeners go with it, not at once.
            while std::fs::exists(format!("/proc/{proxy}")).unwrap_or(false) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let address = scene.address(false);
            let stream = loop {
                match scene.lab.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE)) {
                    Ok(stream) => break stream,
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
                assert!(killed.elapsed() < PATIENCE, "it does not come back");
            };
            client_on(stream).ask_for_pq();
            quickest = quickest.min(killed.elapsed());
            // And over frames again, not only by the kernel.
            let deadline = Instant::now() + PATIENCE;
            while !scene.has_program() {
                assert!(Instant::now() < deadline, "awaiting the program");
                std::thread::sleep(Duration::from_millis(10));
            }
            scene.wait_for_beats();
            scene.client(Mode::Dd, false).ask_for_pq();
            scene.wait_for_sample("mtproxy_steering_total{exit=\"redirected_syn\"}", 1);
        }
        // Of three, since other tests' processes make a start take several times as long.
        assert!(quickest < Duration::from_secs(1), "served again after {quickest:?} at best");
    }
}

/// Routes go with an interface that goes down, and whoever configures the host puts them back, as here.
#[test]
fn clients_survive_an_interface_that_goes_down_and_comes_back() {
    for bound in Bound::ALL {
        let Some(scene) = alone(Setting::bound(bound)).start() else { return };
        let mut over_frames = scene.client(Mode::Ee, false);
        over_frames.ask_for_pq();
        let mut over_sockets = scene.client_over_sockets();

        over_frames.send_command(&Command::Bulk { len: 4 << 20 });
        scene.lab.proxy.ip("link set px0 down").expect("root may");
        scene.lab.proxy.ip("link set px0 up").expect("root may");
        scene.lab.proxy.ip("route replace default via 10.77.0.1").expect("root may");
        over_frames.receive_bulk(4 << 20);
        over_sockets.download(1 << 20);
        over_frames.ask_for_pq();
        scene.client(Mode::Ee, false).ask_for_pq();
        drop((over_frames, over_sockets));
        scene.finish();
    }
}
