//! The network itself: what the other tests here take for granted.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mtproxy_tests::lab3::PROXY_INTERFACE;
use mtproxy_tests::{Lab3, Lab3Options, NetNs, PATIENCE};

fn namespace() -> Option<NetNs> {
    NetNs::permitted_or_skipped().then(|| NetNs::new().expect("root can make a namespace"))
}

fn exists(name: &str) -> bool {
    fs::exists(format!("/run/netns/{name}")).expect("root can look")
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "awaiting {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_namespace_goes_when_it_is_dropped_and_when_its_test_panics() {
    let Some(dropped) = namespace() else { return };
    let name = dropped.name().to_owned();
    assert!(exists(&name));
    drop(dropped);
    assert!(!exists(&name));
    let mut name = String::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let panicking = NetNs::new().expect("root can make a namespace");
        name = panicking.name().to_owned();
        std::panic::resume_unwind(Box::new("a test that fails"));
    }));
    assert!(outcome.is_err() && !name.is_empty() && !exists(&name));
}

#[test]
fn a_thread_inside_sees_only_what_is_inside() {
    let Some(inside) = namespace() else { return };
    let listener = inside.enter(|| TcpListener::bind("127.0.0.1:0").expect("loopback is up"));
    let address = listener.local_addr().expect("a bound socket has an address");
    assert!(TcpStream::connect(address).is_err(), "the same address outside is another one");
    let client = inside.spawn(move || TcpStream::connect(address)).join().expect("no panic");
    assert!(client.is_ok());
    assert!(inside.link_counters("lo").expect("there is a loopback").tx_packets >= 3);
    assert!(inside.link_counters("eth0").is_err());
}

#[test]
fn a_process_inside_dies_with_its_namespace() {
    let Some(inside) = namespace() else { return };
    let prefix = inside.command_prefix();
    let mut command = Command::new(&prefix[0]);
    command.args(&prefix[1..]).args(["cat", "/proc/self/net/dev", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat");
    let mut heading = [0; 6];
    let mut output = child.stdout.take().expect("piped");
    output.read_exact(&mut heading).expect("cat runs inside");
    assert!(child.try_wait().expect("a child of ours").is_none());
    drop(inside);
    wait_until("the end of a process whose namespace is gone", || {
        child.try_wait().is_ok_and(|s| s.is_some())
    });
}

/// A process that makes a namespace of that name and is killed leaves it to us.
#[test]
fn what_a_killed_process_left_behind_is_swept_by_the_next() {
    let Some(ours) = namespace() else { return };
    let mut child = Command::new("true").spawn().expect("true");
    let left_behind = format!("mtproxy-{}-0", child.id());
    child.wait().expect("a child of ours");
    let made = Command::new("ip").args(["netns", "add", &left_behind]).status().expect("ip");
    assert!(made.success() && exists(&left_behind));
    // Sweeping is what a process does first: another run of this program, with a test that makes one.
    let program = std::env::current_exe().expect("this program");
    let status = Command::new(program)
        .args(["--exact", "network::a_thread_inside_sees_only_what_is_inside"])
        .stdout(Stdio::null())
        .status()
        .expect("this program runs");
    assert!(status.success());
    assert!(!exists(&left_behind));
    assert!(exists(ours.name()), "a living process keeps its own");
}

#[test]
fn packets_between_hosts_are_forwarded_in_both_families_and_no_longer_than_a_wire_takes() {
    const LEN: usize = 1 << 20;
    let Some(lab) = Lab3::or_skip(Lab3Options { queues: 2, ..Lab3Options::default() }) else { return };
    for v6 in [false, true] {
        let listener = lab.proxy.enter(|| TcpListener::bind((Lab3::proxy_ip(v6), 0)).expect("an address"));
        let address: SocketAddr = listener.local_addr().expect("a bound socket has an address");
        let before = lab.proxy.link_counters(PROXY_INTERFACE).expect("px0");
        let mut client =
            lab.client.enter(|| TcpStream::connect(address)).expect("the client reaches the proxy");
        let (mut served, peer) = listener.accept().expect("a connection");
        assert_eq!(peer.is_ipv6(), v6);
        let sender = std::thread::spawn(move || client.write_all(&[7; LEN]));
        let mut received = Vec::new();
        served.read_to_end(&mut received).expect("everything arrives");
        sender.join().expect("no panic").expect("everything is taken");
        assert_eq!(received.len(), LEN);
        let after = lab.proxy.link_counters(PROXY_INTERFACE).expect("px0");
        let packets = after.rx_packets - before.rx_packets;
        assert!(packets as usize >= LEN / 1460, "{packets} packets for {LEN} bytes: some were merged");
        let dc = lab.dc.enter(|| TcpListener::bind((Lab3::dc_ip(v6), 0)).expect("an address"));
        let address = dc.local_addr().expect("a bound socket has an address");
        assert!(lab.proxy.enter(|| TcpStream::connect(address)).is_ok(), "the proxy reaches the data centre");
    }
}
