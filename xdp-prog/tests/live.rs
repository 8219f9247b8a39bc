//! The program on a real interface, and beside the kernel's own connections.
//!
//! These tests need root. The veth pair lives in a namespace of its own, which goes with the test.
#![forbid(unsafe_code)]

mod common;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use common::packet::{ACK, SYN, TCP, icmp, packet, tcp};
use common::{World, settings};
use mtproxy_xdp::{AttachMode, Error, Exit, Local, Steering, monotonic_ns};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace with a veth pair, into which this thread has moved. Threads end with their test.
struct Namespace {
    name: String,
}

impl Namespace {
    fn enter(test: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test attaches BPF programs: run it as root");
        let namespace = Self { name: format!("w-xdp-{test}-{}", std::process::id()) };
        run(&["ip", "netns", "add", &namespace.name]);
        let file = std::fs::File::open(format!("/run/netns/{}", namespace.name)).expect("ip made it");
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
            .expect("root may enter it");
        run(&["ip", "link", "add", "left", "type", "veth", "peer", "name", "right"]);
        run(&["ip", "link", "set", "lo", "up"]);
        run(&["ip", "link", "set", "left", "up"]);
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(&["ip", "netns", "delete", &self.name]);
    }
}

fn run(command: &[&str]) -> String {
    let done = Command::new(command[0]).args(&command[1..]).output().expect("iproute2 is installed");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

fn link() -> String {
    run(&["ip", "-details", "link", "show", "left"])
}

#[test]
fn it_attaches_as_asked_and_is_gone_when_dropped() {
    let _namespace = Namespace::enter("attach");
    for (mode, word) in [(AttachMode::Native, " xdp "), (AttachMode::Generic, " xdpgeneric ")] {
        let mut steering = Steering::load(&settings(), 1).expect("the program loads");
        let attachment = steering.attach("left", mode).expect("veth has both modes").clone();
        assert_eq!(attachment.mode, mode);
        assert!(link().contains(word), "{}", link());
        assert!(link().contains(&format!("prog/xdp id {} ", attachment.program)), "{}", link());
        assert!(matches!(steering.attach("left", mode), Err(Error::Attached { .. })));
        drop(steering);
        assert!(!link().contains("xdp"), "{}", link());
    }
}

#[test]
fn a_foreign_program_is_named_and_not_replaced() {
    let _namespace = Namespace::enter("foreign");
    let mut foreign = Steering::load(&settings(), 1).expect("the program loads");
    let theirs = foreign.attach("left", AttachMode::Generic).expect("veth has it").program;
    let mut ours = Steering::load(&settings(), 1).expect("the program loads");
    for mode in [AttachMode::Native, AttachMode::Generic] {
        match ours.attach("left", mode) {
            Err(Error::ForeignProgram { program, .. }) => assert_eq!(program, theirs),
            other => panic!("{mode:?}: {other:?}"),
        }
    }
    assert!(link().contains(&format!("prog/xdp id {theirs} ")), "{}", link());
    assert!(ours.attachment().is_none());
    foreign.detach();
    ours.attach("left", AttachMode::Native).expect("the interface is free again");
}

#[test]
fn an_interface_that_is_not_there_is_said_by_name() {
    let _namespace = Namespace::enter("absent");
    let mut steering = Steering::load(&settings(), 1).expect("the program loads");
    assert!(
        matches!(steering.attach("middle", AttachMode::Native), Err(Error::Interface { name, .. }) if name == "middle")
    );
}

/// A listener of the kernel's at an address of ours, with one connection in it.
struct Kernel {
    world: World,
    at: SocketAddr,
    client: TcpStream,
    accepted: TcpStream,
    listener: TcpListener,
}

fn kernel_connection(ip: &str) -> Kernel {
    let ip: IpAddr = ip.parse().expect("an address");
    let mut world = World::new();
    let listener = TcpListener::bind((ip, 0)).expect("a port");
    let at = listener.local_addr().expect("bound");
    world.steering.set_local(ip, &Local { upstream: None, dedicated: false }).expect("an address");
    world.steering.add_listener(at).expect("a listener");
    let client = TcpStream::connect(at).expect("loopback");
    let accepted = listener.accept().expect("it is there").0;
    Kernel { world, at, client, accepted, listener }
}

impl Kernel {
    fn segment(&self, source_port: u16, flags: u8) -> Vec<u8> {
        let ip = self.at.ip().to_string();
        packet(&ip, &ip, TCP, &tcp(source_port, self.at.port(), flags)).frame()
    }

    /// A stale heartbeat, by which a SYN goes to the kernel.
    fn pass_a_syn(&mut self) {
        self.world.beat.stop().expect("a beat");
        self.world.expect("a SYN without a beat", &self.segment(1, SYN), Exit::KernelNoBeat);
        self.world.beat.beat(monotonic_ns()).expect("a beat");
    }
}

#[test]
fn connections_of_the_kernel_stay_there_once_it_may_have_some() {
    let _namespace = Namespace::enter("flows");
    for ip in ["127.0.0.1", "::1"] {
        let mut kernel = kernel_connection(ip);
        let port = kernel.client.local_addr().expect("connected").port();
        assert_eq!(kernel.world.steering.kernel_flows().expect("a map"), None);
        kernel.world.expect("nobody told of it", &kernel.segment(port, ACK), Exit::RedirectedSegment);

        kernel.pass_a_syn();
        kernel.world.expect("the kernel's connection", &kernel.segment(port, ACK), Exit::KernelFlow);
        kernel.world.expect("its SYN, again", &kernel.segment(port, SYN), Exit::KernelFlow);
        kernel.world.expect("ours", &kernel.segment(1, ACK), Exit::RedirectedSegment);
        kernel.world.expect("a new one", &kernel.segment(1, SYN), Exit::RedirectedSyn);
        let quoted = packet(ip, ip, TCP, &tcp(kernel.at.port(), port, ACK)).bytes();
        let (number, kind) =
            if ip == "::1" { (common::packet::ICMPV6, 2) } else { (common::packet::ICMP, 3) };
        kernel.world.expect(
            "an error about it",
            &packet(ip, ip, number, &icmp(kind, &quoted)).frame(),
            Exit::KernelFlow,
        );

        drop(kernel.listener);
        kernel.world.expect(
            "without a listener too",
            &{
                let ip = kernel.at.ip().to_string();
                packet(&ip, &ip, TCP, &tcp(port, kernel.at.port(), ACK)).frame()
            },
            Exit::KernelFlow,
        );
        drop(kernel.accepted);
    }
}

#[test]
fn kernel_flows_are_forgotten_only_after_the_last_handshake_and_not_newer_ones() {
    const HANDSHAKE_NS: u64 = 64_000_000_000;
    let _namespace = Namespace::enter("clear");
    let mut kernel = kernel_connection("127.0.0.1");
    let port = kernel.client.local_addr().expect("connected").port();
    kernel.pass_a_syn();
    let seen = kernel.world.steering.kernel_flows().expect("a map").expect("a SYN went there");

    let steering = &mut kernel.world.steering;
    assert!(!steering.clear_kernel_flows(seen, seen.last_syn_ns + HANDSHAKE_NS - 1).expect("a map"));
    assert_eq!(steering.kernel_flows().expect("a map"), Some(seen));
    assert!(steering.clear_kernel_flows(seen, seen.last_syn_ns + HANDSHAKE_NS).expect("a map"));
    assert_eq!(steering.kernel_flows().expect("a map"), None);
    kernel.world.expect("forgotten", &kernel.segment(port, ACK), Exit::RedirectedSegment);

    kernel.pass_a_syn();
    let steering = &mut kernel.world.steering;
    assert!(steering.clear_kernel_flows(seen, u64::MAX).expect("a map"), "what was seen is over");
    assert!(steering.kernel_flows().expect("a map").is_some(), "but there is a newer one");
}

#[test]
fn attaching_supposes_that_the_kernel_has_connections() {
    let _namespace = Namespace::enter("mark");
    let mut world = World::new();
    assert_eq!(world.steering.kernel_flows().expect("a map"), None);
    world.steering.attach("left", AttachMode::Native).expect("veth has it");
    assert!(world.steering.kernel_flows().expect("a map").is_some());
}

#[test]
fn the_verifier_has_little_work_with_it() {
    /// A twentieth of the kernel's bound: other kernels prune less, and loading must not take seconds.
    const MOST: u32 = 50_000;
    let mut world = World::new();
    let _namespace = Namespace::enter("verifier");
    let ours = world.steering.attach("left", AttachMode::Generic).expect("veth has it").program;
    let program =
        aya::programs::loaded_programs().flatten().find(|program| program.id() == ours).expect("loaded");
    let verified = program.verified_instruction_count().expect("Linux 5.16 and later say");
    assert!(verified < MOST, "{verified}");
}
