//! How the AF_XDP datapath begins and ends: what it takes from the kernel, and how it gives it back.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use mtproxy_core::secret::SecretKind;
use mtproxy_tests::cast::{self, Mode};
use mtproxy_tests::lab3::PROXY_INTERFACE;
use mtproxy_tests::{DcMode, Lab3, Lab3Options, NamespaceScene, PATIENCE, ProxyCommand, TestClient};
use rustix::process::Signal;

/// One of those that data centres are reached from.
const SOURCE_PORT: u16 = 62000;

fn two_queues() -> Option<Lab3> {
    Lab3::or_skip(Lab3Options { queues: 2, ..Lab3Options::default() })
}

fn over_xdp(command: ProxyCommand) -> ProxyCommand {
    command.option("--datapath", "xdp").option("--interface", PROXY_INTERFACE)
}

/// Both shards end only when both have nothing left: the one that is done first still takes the packets that come by
/// its queue and are the other's. Which queue a flow gets is chance; with three rounds of six it hardly fails to show.
#[test]
fn a_drained_shard_goes_on_receiving_for_the_others_until_all_sessions_are_over() {
    const PIECE: u64 = 1 << 17;
    for _ in 0..3 {
        let Some(lab) = two_queues() else { return };
        let mut scene = NamespaceScene::start(lab, DcMode::EchoBytes, false, over_xdp);
        let mut clients: Vec<TestClient> =
            (0..6).map(|index| scene.client(Mode::ALL[index % Mode::ALL.len()], false)).collect();
        for client in &mut clients {
            client.exchange_echo(0, PIECE, 1 << 14);
        }
        scene.proxy.signal(Signal::TERM);
        let _ = scene.proxy.wait_for_line("that it drains", |line| line.contains("draining"));
        let mut position = PIECE;
        while clients.pop().is_some() {
            let open = clients.len();
            scene.dc.wait_until("the end of a client's session", |sessions| {
                sessions.iter().filter(|session| !session.closed).count() == open
            });
            for client in &mut clients {
                client.exchange_echo(position, PIECE, 1 << 14);
            }
            position += PIECE;
        }
        assert_eq!(scene.proxy.wait_for_exit(PATIENCE).code(), Some(0));
        let said = scene.proxy.stderr();
        let ends: Vec<&String> = said.iter().filter(|line| line.contains("frames at the end")).collect();
        assert!(ends.len() == 2 && ends.iter().all(|line| line.contains("accounted=true")), "{said:?}");
    }
}

#[test]
fn an_address_that_is_added_at_run_time_is_served_by_the_shards() {
    let Some(lab) = two_queues() else { return };
    let everywhere = "0.0.0.0:444".parse().expect("an address");
    let scene =
        NamespaceScene::start(lab, DcMode::EchoBytes, false, |command| over_xdp(command.listen(everywhere)));
    scene.lab.proxy.ip("address add 10.77.0.9/24 dev px0").expect("an address");
    let added: SocketAddr = "10.77.0.9:444".parse().expect("an address");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = scene.lab.client.enter(|| TestClient::connect(added, Mode::Dd.options()));
        client.exchange_echo(0, 4096, 100);
        if !is_connected_in_kernel(&scene.lab, added) {
            return;
        }
        assert!(Instant::now() < deadline, "awaiting that the address is steered");
        // It is looked for once a second.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// True if the proxy's kernel has a connection at this address.
fn is_connected_in_kernel(lab: &Lab3, at: SocketAddr) -> bool {
    const ESTABLISHED: &str = "01";
    let table = lab.proxy.enter(|| fs::read_to_string("/proc/thread-self/net/tcp")).expect("procfs");
    let SocketAddr::V4(at) = at else { panic!("{at} is in another table") };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port());
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(local.as_str()) && words.nth(1) == Some(ESTABLISHED)
    })
}

#[test]
fn a_port_of_the_range_that_another_program_has_is_refused_unless_it_is_reserved() {
    let Some(lab) = two_queues() else { return };
    let foreign = SocketAddr::new(Lab3::proxy_ip(false), SOURCE_PORT);
    let listener = lab.proxy.enter(|| TcpListener::bind(foreign)).expect("nobody has it");
    let command = || {
        ProxyCommand::new()
            .within(&lab.proxy)
            .listen(SocketAddr::new(Lab3::proxy_ip(false), 443))
            .secret(&cast::secret(SecretKind::Plain))
            .option("--interface", PROXY_INTERFACE)
    };

    let said = command().option("--datapath", "xdp").try_start().expect_err("the port is taken");
    assert!(said.contains("another program's socket at 10.77.0.2:62000"), "{said}");
    assert!(said.contains("net.ipv4.ip_local_reserved_ports=62000"), "{said}");

    let cautious = command().option("--datapath", "auto").start();
    let choice = cautious.wait_for_line("the choice", |line| line.contains("datapath epoll:"));
    assert!(choice.contains("source_port_taken=62000"), "{choice}");
    drop(cautious);

    lab.proxy.set("net.ipv4.ip_local_reserved_ports", "62000").expect("a port");
    let proxy = command().option("--datapath", "xdp").start();
    let _ = proxy.wait_for_line("what is left", |line| line.contains("ports=62001-65535"));
    let mut visitor = lab.client.enter(|| TcpStream::connect(foreign)).expect("its packets reach the kernel");
    let mut served = listener.accept().expect("a connection").0;
    visitor.write_all(b"x").expect("it is connected");
    served.read_exact(&mut [0]).expect("it is connected");
}

#[test]
fn shards_whose_interface_is_gone_end_with_every_frame_found_and_the_proxy_goes_on() {
    let Some(lab) = two_queues() else { return };
    let mut scene = NamespaceScene::start(lab, DcMode::EchoBytes, false, over_xdp);
    let mut client = scene.client(Mode::Dd, false);
    client.exchange_echo(0, 4096, 100);
    scene.lab.unplug_proxy().expect("there is one");
    for shard in 0..2 {
        let _ = scene.proxy.wait_for_line("the end of a shard", |line| {
            line.contains("frames at the end") && line.contains(&format!("shard={shard}"))
        });
    }
    let is_end = |line: &&String| line.contains("a shard ended");
    let deadline = Instant::now() + PATIENCE;
    while scene.proxy.stderr().iter().filter(is_end).count() < 2 {
        assert!(Instant::now() < deadline, "awaiting that both ends are told: {:?}", scene.proxy.stderr());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(scene.proxy.is_running());
}
