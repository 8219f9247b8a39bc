//! A loaded program in a known world, and packets written by hand.
//!
//! By hand, because half of the packets are wrong in a way that no library would write.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

pub mod packet;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use mtproxy_xdp::{Beat, Exit, Local, Settings, Steering, Verdict, monotonic_ns};
use rustix::net::sockopt::set_xdp_umem_reg;
use rustix::net::xdp::{XdpUmemReg, XdpUmemRegFlags};
use rustix::net::{AddressFamily, SocketType, socket};

/// Client, and who is denied.
pub const CLIENT: &str = "198.51.100.7";
pub const DENIED: &str = "203.0.113.9";
pub const CLIENT6: &str = "2001:db8:c::7";
pub const DENIED6: &str = "2001:db8:dead::9";
/// Ours, with a listener and, at UPSTREAM, dedicated, the ports from which we connect.
pub const LISTEN: &str = "192.0.2.1";
pub const UPSTREAM: &str = "192.0.2.2";
pub const LISTEN6: &str = "2001:db8::1";
pub const UPSTREAM6: &str = "2001:db8::2";
/// Nobody's whom we know.
pub const ELSEWHERE: &str = "192.0.2.77";
pub const ELSEWHERE6: &str = "2001:db8::77";
pub const PORT: u16 = 443;
pub const FIRST: u16 = 61_000;
pub const LAST: u16 = 61_999;

/// A test machine may stall for a minute; an hour decides nothing by chance.
pub const STALE_AFTER: Duration = Duration::from_secs(3600);

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("the address of a test")
}

pub fn settings() -> Settings {
    Settings { stale_after: STALE_AFTER, syn_limit: None }
}

/// The program, its only queue's socket and heartbeat.
pub struct World {
    pub steering: Steering,
    pub beat: Beat,
    socket: Option<XskSocket>,
}

impl World {
    /// A fresh heartbeat, a socket, both families.
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test loads BPF programs: run it as root");
        let mut steering = Steering::load(&settings(), 1).expect("the program loads");
        for local in [LISTEN, LISTEN6] {
            steering.set_local(ip(local), &Local { upstream: None, dedicated: false }).expect("an address");
            steering.add_listener(SocketAddr::new(ip(local), PORT)).expect("a listener");
        }
        for local in [UPSTREAM, UPSTREAM6] {
            let ours = Local { upstream: Some(FIRST..=LAST), dedicated: true };
            steering.set_local(ip(local), &ours).expect("an address");
        }
        steering.add_deny(ip("203.0.113.0"), 24).expect("a prefix");
        steering.add_deny(ip("2001:db8:dead::"), 48).expect("a prefix");
        let mut beat = steering.beat(0).expect("queue 0");
        beat.beat(monotonic_ns()).expect("a beat");
        let mut world = Self { steering, beat, socket: None };
        world.serve();
        world
    }

    pub fn serve(&mut self) {
        let socket = XskSocket::new();
        self.steering.set_socket(0, &socket.fd).expect("a socket with a UMEM is taken");
        self.socket = Some(socket);
    }

    /// As when the process died: the kernel empties the slot.
    pub fn close_socket(&mut self) {
        self.socket = None;
    }

    /// Shows the program a frame and returns the one exit that counted it.
    pub fn judge(&self, frame: &[u8]) -> (Verdict, Exit) {
        let before = self.steering.counters().expect("counters");
        let verdict = self.steering.judge(frame).expect("a frame");
        let after = self.steering.counters().expect("counters");
        assert_eq!(after.total(), before.total() + 1, "a packet leaves by exactly one exit");
        let exit =
            after.iter().find(|(exit, count)| *count != before.of(*exit)).expect("one of them counted").0;
        (verdict, exit)
    }

    /// Checks one row of a table. The verdict is the one that belongs to the exit, save for what has no socket.
    #[track_caller]
    pub fn expect(&self, what: &str, frame: &[u8], exit: Exit) {
        assert_eq!(self.judge(frame), (exit.verdict(), exit), "{what}");
    }

    #[track_caller]
    pub fn expect_all(&self, table: &[(&str, Vec<u8>, Exit)]) {
        for (what, frame, exit) in table {
            self.expect(what, frame, *exit);
        }
    }
}

/// The least that the kernel lets into an XSKMAP: a socket with a UMEM, bound to nothing.
struct XskSocket {
    fd: OwnedFd,
    _umem: Box<Page>,
}

#[repr(align(4096))]
struct Page([u8; 4096]);

impl XskSocket {
    fn new() -> Self {
        let fd = socket(AddressFamily::XDP, SocketType::RAW, None).expect("the kernel has AF_XDP");
        let umem = Box::new(Page([0; 4096]));
        let registration = XdpUmemReg {
            addr: umem.0.as_ptr().addr() as u64,
            len: 4096,
            chunk_size: 4096,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        set_xdp_umem_reg(&fd, registration).expect("one page is a UMEM");
        Self { fd, _umem: umem }
    }
}
