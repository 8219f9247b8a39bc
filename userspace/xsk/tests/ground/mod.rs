//! The ground for tests with the kernel: a pair of virtual interfaces, and a program that redirects.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, id};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use aya::Ebpf;
use aya::maps::XskMap;
use aya::programs::Xdp;
pub(crate) use aya::programs::xdp::XdpMode;
use mtproxy_xsk::{Frame, ModeLadder, Packet, Settings, Socket};
use rustix::event::{EventfdFlags, eventfd};

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A type of packet that nothing else on a machine sends (IEEE 802, local experiments).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Bytes before the filling: two addresses, type, number.
const HEADER: usize = 14 + 4;

/// False, with the reason printed, if the test cannot run.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("{test}: skipped, it makes interfaces and needs root");
    }
    root
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A pair of interfaces, up, with a number of queues each. Removed when dropped.
pub(crate) struct Veth {
    pub(crate) near: String,
    pub(crate) far: String,
}

impl Veth {
    pub(crate) fn new(queues: u32) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("wxsk{:x}n{}", id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let veth = Self { near: format!("{name}a"), far: format!("{name}b") };
        let size = format!("numrxqueues {queues} numtxqueues {queues}");
        run(&format!("ip link add {} {size} type veth peer {} {size}", veth.near, veth.far));
        for end in [&veth.near, &veth.far] {
            // Else the kernel sends packets of its own.
            fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap();
            run(&format!("ip link set {end} up"));
        }
        veth
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        // Some tests remove it themselves.
        let _ = Command::new("ip").args(["link", "del", &self.near]).output();
    }
}

/// A program that redirects all packets of an interface. Detached when dropped.
pub(crate) struct Redirect {
    program: Ebpf,
}

impl Redirect {
    pub(crate) fn attach(interface: &str, mode: XdpMode) -> Self {
        let mut program = Ebpf::load(&fs::read(object()).unwrap()).unwrap();
        let xdp: &mut Xdp = program.program_mut("redirect").unwrap().try_into().unwrap();
        xdp.load().unwrap();
        xdp.attach(interface, mode).unwrap();
        Self { program }
    }

    pub(crate) fn to(&mut self, queue: u32, socket: &Socket) {
        let mut map: XskMap<_> = self.program.map_mut("xsks").unwrap().try_into().unwrap();
        map.set(queue, socket.as_fd(), 0).unwrap();
    }
}

/// The compiled program; each test process compiles its own.
fn object() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ground/redirect.c");
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let object = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("redirect-{}-{number}.o", id()));
    run(&format!("clang -O2 -g -Wall -target bpf -c {source} -o {}", object.display()));
    object
}

/// Small rings, and room for a burst in each.
pub(crate) fn settings(interface: &str, queue: u32) -> Settings {
    Settings {
        frames: 1024,
        rx_ring: 512,
        tx_ring: 512,
        fill_ring: 512,
        completion_ring: 512,
        fill_target: 512,
        transmit_reserve: 256,
        modes: ModeLadder::Copy,
        ..Settings::new(interface, queue)
    }
}

/// Packet `number` is as long as its number says, and filled so that a byte out of place is seen.
pub(crate) fn len_of(number: u32) -> usize {
    60 + (number as usize * 37) % (1514 - 60 + 1)
}

fn filling(number: u32, at: usize) -> u8 {
    (number as usize).wrapping_mul(31).wrapping_add(at).to_le_bytes()[0]
}

/// Transmits packet `number`, and lets go of it.
pub(crate) fn send(socket: &mut Socket, number: u32) {
    let frame = written(socket, number);
    socket.transmit(&frame, len_of(number)).unwrap();
    socket.release(frame);
}

/// A frame with packet `number`.
pub(crate) fn written(socket: &mut Socket, number: u32) -> Frame {
    let mut frame = socket.allocate().expect("a frame is free");
    let bytes = socket.bytes_mut(&mut frame);
    bytes[..12].copy_from_slice(&[2; 12]);
    bytes[12..14].copy_from_slice(&ETHERTYPE);
    bytes[14..18].copy_from_slice(&number.to_be_bytes());
    for (at, byte) in bytes[..len_of(number)].iter_mut().enumerate().skip(HEADER) {
        *byte = filling(number, at);
    }
    frame
}

/// Checks that a packet is number `number`, every byte of it.
pub(crate) fn check(socket: &Socket, packet: &Packet, number: u32) {
    let bytes = &socket.bytes(&packet.frame)[packet.range.clone()];
    assert_eq!(&bytes[12..14], ETHERTYPE, "a packet from elsewhere");
    assert_eq!(u32::from_be_bytes(bytes[14..18].try_into().unwrap()), number, "out of order");
    assert_eq!(bytes.len(), len_of(number));
    assert!(bytes.iter().enumerate().skip(HEADER).all(|(at, &byte)| byte == filling(number, at)));
}

/// Receives until there are `count` packets.
pub(crate) fn receive(socket: &mut Socket, packets: &mut Vec<Packet>, count: usize) {
    let silent = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let start = Instant::now();
    while packets.len() < count {
        let limit = count - packets.len();
        if socket.receive(packets, limit) == 0 {
            socket.wait(Some(Duration::from_millis(100)), silent.as_fd()).unwrap();
        }
        assert!(start.elapsed() < PATIENCE, "{} of {count} packets came", packets.len());
    }
}

/// Waits until all that was transmitted has left and come back.
pub(crate) fn settle(socket: &mut Socket) {
    let start = Instant::now();
    loop {
        socket.flush().unwrap();
        socket.complete();
        let census = socket.census();
        if census.in_flight + census.in_flight_released == 0 {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{census:?} {:?}", socket.counters());
        std::thread::yield_now();
    }
}

/// This test program once more, for one test, below another command.
pub(crate) fn again(below: &str, test: &str, mark: &str) {
    let mut words = below.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(mark, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
