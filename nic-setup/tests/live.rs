//! Facts about interfaces of this machine: a pair of virtual Ethernet devices made for the test, and loopback.
//!
//! Needs root, to make the pair.

use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use mtproxy_nic::rss::QueueOf;
use mtproxy_nic::sysctl::PortRange;
use mtproxy_nic::{Facts, Glance};

/// Two virtual Ethernet devices, each the other end of the other; removed when dropped.
struct Pair {
    name: String,
    peer: String,
}

impl Pair {
    fn new(queues: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let pair = Self { name: format!("nic{id}"), peer: format!("nip{id}") };
        let Self { name, peer } = &pair;
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        ip(&format!("link add {name} {queues} type veth peer name {peer} {queues}"));
        pair
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.name]).status();
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}: {status}");
}

#[test]
fn a_virtual_pair_has_one_queue_native_xdp_and_no_rss() {
    let pair = Pair::new(1);
    let name = &pair.name;
    ip(&format!("link set {name} mtu 1400 address 02:00:00:00:00:17 up"));
    ip(&format!("link set {} up", pair.peer));
    ip(&format!("address add 198.51.100.17/24 dev {name}"));
    ip(&format!("address add 2001:db8::17/64 dev {name} nodad"));
    let facts = Facts::read(name).unwrap();
    assert_eq!(facts.link.name, *name);
    assert_eq!(facts.link.kind.as_deref(), Some("veth"));
    assert_eq!(facts.link.mac, Some([2, 0, 0, 0, 0, 0x17]));
    assert_eq!(facts.link.mtu_bytes, 1400);
    assert!(facts.link.is_up && facts.link.has_carrier);
    assert_eq!(facts.link.controller, None);
    assert_eq!(facts.driver.as_deref(), Ok("veth"));
    assert_eq!(facts.receive_queues, Ok(1));
    assert_eq!(facts.has_only_default_route, Ok(false));
    assert_eq!(facts.rss, Ok(None));
    let addresses = facts.addresses.clone().unwrap();
    for expected in [("198.51.100.17", 24), ("2001:db8::17", 64)] {
        let expected: (IpAddr, u8) = (expected.0.parse().unwrap(), expected.1);
        assert!(addresses.contains(&expected), "{expected:?} in {addresses:?}");
    }
    let xdp = facts.xdp.clone().unwrap();
    assert!(xdp.is_native && !xdp.has_zero_copy, "{xdp:?}");
    assert_eq!(QueueOf::new(&facts), QueueOf::Single);
}

#[test]
fn several_queues_without_rss_are_unknown() {
    let pair = Pair::new(2);
    let facts = Facts::read(&pair.name).unwrap();
    assert_eq!(facts.receive_queues, Ok(2));
    assert!(!facts.link.is_up && !facts.link.has_carrier);
    assert_eq!(QueueOf::new(&facts), QueueOf::Unknown);
}

#[test]
fn a_port_of_a_bridge_names_it_and_the_bridge_its_port() {
    let pair = Pair::new(1);
    let bridge = pair.name.replace("nic", "nib");
    ip(&format!("link add {bridge} type bridge"));
    ip(&format!("link set {} master {bridge}", pair.name));
    let port = Facts::read(&pair.name);
    let controller = Facts::read(&bridge);
    ip(&format!("link del {bridge}"));
    let named = port.unwrap().link.controller.unwrap();
    assert_eq!((named.name.as_str(), named.kind.as_deref()), (bridge.as_str(), Some("bridge")));
    assert_eq!(controller.unwrap().link.ports, [pair.name.as_str()]);
}

#[test]
fn loopback_has_no_driver_but_addresses() {
    let facts = Facts::read("lo").unwrap();
    assert!(facts.link.is_up);
    assert_eq!(facts.link.kind, None);
    assert!(facts.driver.is_err(), "{:?}", facts.driver);
    assert_eq!(facts.receive_queues, Ok(1));
    assert_eq!(facts.rss, Ok(None));
    assert!(facts.addresses.unwrap().contains(&("127.0.0.1".parse().unwrap(), 8)));
    let PortRange { first, last } = facts.ephemeral_ports.unwrap();
    assert!(first <= last);
    facts.reserved_ports.unwrap();
    facts.forwards_ipv4.unwrap();
    assert!(facts.kernel.unwrap().contains('.'));
}

#[test]
fn a_glance_tells_an_interface_from_its_successor_and_sees_its_queues_change() {
    let pair = Pair::new(2);
    let name = &pair.name;
    let first = Glance::at(name).unwrap().expect("it was made");
    assert_eq!((first.receive_queues, first.xdp_program), (2, None));
    let status =
        Command::new("ethtool").args(["-L", name, "rx", "1"]).status().expect("ethtool is installed");
    assert!(status.success());
    assert_eq!(Glance::at(name).unwrap(), Some(Glance { receive_queues: 1, ..first }));
    ip(&format!("link del {name}"));
    assert_eq!(Glance::at(name).unwrap(), None);
    ip(&format!("link add {name} type veth peer name {}", pair.peer));
    assert_ne!(Glance::at(name).unwrap().expect("it was made again").index, first.index);
}

#[test]
fn a_missing_interface_is_named() {
    let error = Facts::read("no-such-link").unwrap_err();
    assert_eq!(error.to_string(), "found no interface no-such-link");
}
