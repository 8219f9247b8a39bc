//! The mirror of routes and neighbours against the kernel: two network namespaces with a pair of virtual
//! Ethernet devices between them.
//!
//! Needs root, to make the namespaces. Every wait ends after [`PATIENCE`].

use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use mtproxy_bin::routes::{NextHop, Resolver, Routes, Snapshot, Via, is_learnt, probe};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PATIENCE: Duration = Duration::from_secs(10);
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Two namespaces; removed when dropped.
struct Net {
    here: String,
    there: String,
}

impl Net {
    /// Here is 192.0.2.1 and 2001:db8::1, there is .2 and .3, and ::2.
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("w-nic-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let net = Self { here: format!("{id}a"), there: format!("{id}b") };
        let Self { here, there } = &net;
        ip(&format!("netns add {here}"));
        ip(&format!("netns add {there}"));
        ip(&format!(
            "link add eth0 netns {here} address 02:00:00:00:00:01 type veth peer name eth0 netns {there}"
        ));
        ip(&format!("-n {there} link set eth0 address 02:00:00:00:00:02 up"));
        ip(&format!("-n {there} address add 192.0.2.2/24 dev eth0"));
        ip(&format!("-n {there} address add 192.0.2.3/24 dev eth0"));
        ip(&format!("-n {there} address add 2001:db8::2/64 dev eth0 nodad"));
        net.ip("link set eth0 up");
        net.ip("address add 192.0.2.1/24 dev eth0");
        net.ip("address add 2001:db8::1/64 dev eth0 nodad");
        net.ip("route add default via 192.0.2.2");
        net
    }

    fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.here));
    }

    /// What `act` answers on a thread in the namespace here.
    fn inside<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/run/netns/{}", self.here);
        let enter = move || {
            let namespace = std::fs::File::open(path).expect("the namespace was made");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter a namespace");
            act()
        };
        thread::spawn(enter).join().expect("it does not panic")
    }

    /// The mirror of the namespace here. Only its thread lives there.
    fn mirror(&self) -> Mirror {
        let routes = self.inside(|| Routes::start().expect("the kernel has netlink"));
        let (sender, changes) = mpsc::channel();
        routes.on_change(move || {
            // The test may be over.
            let _ = sender.send(());
        });
        let interface = routes_interface(&routes);
        Mirror { routes, changes, interface }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in [&self.here, &self.there] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}: {status}");
}

struct Mirror {
    routes: Routes,
    changes: Receiver<()>,
    interface: u32,
}

impl Mirror {
    /// Waits until the snapshot is as expected.
    fn wait_for(&self, what: &str, is_there: impl Fn(&Snapshot) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_there(&self.routes.current().load()) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                self.changes.recv_timeout(left).is_ok(),
                "{what}: not seen in time: {:#?}",
                self.routes.current().load()
            );
        }
    }

    fn next_hop(&self, remote: &str) -> NextHop {
        next_hop(&self.routes.current().load(), remote, self.interface)
    }

    fn via(&self, remote: &str) -> Via {
        match self.next_hop(remote) {
            NextHop::Via(via) => via,
            other => panic!("{remote}: {other:?}"),
        }
    }

    fn resolver(&self) -> Resolver {
        self.routes.resolver()
    }

    fn wait_for_neighbour(&self, remote: &str, expected: Option<[u8; 6]>) {
        self.wait_for("neighbour", |snapshot| {
            matches!(next_hop(snapshot, remote, self.interface), NextHop::Via(via) if via.neighbour == expected)
        });
    }
}

/// The index of eth0: the route to the default gateway is on it alone.
fn routes_interface(routes: &Routes) -> u32 {
    let snapshot = routes.current().load_full();
    (1..1000)
        .find(|&index| matches!(next_hop(&snapshot, "192.0.2.2", index), NextHop::Via(_)))
        .expect("eth0 has a route")
}

fn next_hop(snapshot: &Snapshot, remote: &str, interface: u32) -> NextHop {
    let remote: IpAddr = remote.parse().expect("an address");
    let local = if remote.is_ipv6() { "2001:db8::1" } else { "192.0.2.1" };
    snapshot.next_hop(local.parse().expect("an address"), remote, interface)
}

#[test]
fn the_first_snapshot_is_complete() {
    let net = Net::new();
    let mirror = net.mirror();
    let far = mirror.via("149.154.167.51");
    let expected = Via {
        gateway: "192.0.2.2".parse().unwrap(),
        source_mac: [2, 0, 0, 0, 0, 1],
        neighbour: None,
        mtu_bytes: 1500,
        prefsrc: Some("192.0.2.1".parse().unwrap()),
    };
    assert_eq!(far, expected);
    assert_eq!(mirror.next_hop("192.0.2.1"), NextHop::OtherInterface);
    assert_eq!(mirror.next_hop("2001:67c:4e8:f002::a"), NextHop::NoRoute);
    assert!(mirror.routes.current().load().is_local("2001:db8::1".parse().unwrap()));
}

#[test]
fn a_miss_is_resolved_by_the_kernel_in_both_families() {
    let net = Net::new();
    let mirror = net.mirror();
    for neighbour in ["192.0.2.2", "2001:db8::2"] {
        assert_eq!(mirror.via(neighbour).neighbour, None);
        assert!(mirror.resolver().need(mirror.interface, neighbour.parse().unwrap()));
        mirror.wait_for_neighbour(neighbour, Some(PEER_MAC));
    }
    assert_eq!(mirror.via("149.154.167.51").neighbour, Some(PEER_MAC), "the gateway is the same neighbour");
}

#[test]
fn a_deleted_neighbour_is_missed_and_resolved_again() {
    let net = Net::new();
    let mirror = net.mirror();
    let need = || mirror.resolver().need(mirror.interface, "192.0.2.2".parse().unwrap());
    assert!(need());
    mirror.wait_for_neighbour("192.0.2.2", Some(PEER_MAC));
    net.ip("neigh del 192.0.2.2 dev eth0");
    mirror.wait_for_neighbour("192.0.2.2", None);
    assert!(need());
    mirror.wait_for_neighbour("192.0.2.2", Some(PEER_MAC));
}

#[test]
fn a_stale_neighbour_is_probed_when_it_is_in_use() {
    let net = Net::new();
    for setting in ["delay_first_probe_time=1", "retrans_time_ms=10"] {
        ip(&format!("netns exec {} sysctl -qw net.ipv4.neigh.eth0.{setting}", net.here));
    }
    // Nobody has this address, so that probing has a result to be seen.
    net.ip("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:07 dev eth0 nud stale");
    let mirror = net.mirror();
    assert_eq!(mirror.via("192.0.2.2").neighbour, Some([2, 0, 0, 0, 0, 7]));
    let need = || mirror.resolver().need(mirror.interface, "192.0.2.2".parse().unwrap());
    assert!(need());
    mirror.wait_for_neighbour("192.0.2.2", None);
    assert!(need());
    mirror.wait_for_neighbour("192.0.2.2", Some(PEER_MAC));
}

/// A probe would turn what was set by hand into what is forgotten.
#[test]
fn only_a_neighbour_that_the_kernel_has_learnt_is_one_to_be_probed() {
    let net = Net::new();
    let mirror = net.mirror();
    let interface = mirror.interface;
    let is_learnt = |ip: &'static str| {
        net.inside(move || is_learnt(interface, ip.parse().expect("an address")).expect("netlink answers"))
    };
    assert!(!is_learnt("192.0.2.2"), "nobody has asked for it");
    assert!(mirror.resolver().need(interface, "192.0.2.2".parse().expect("an address")));
    mirror.wait_for_neighbour("192.0.2.2", Some(PEER_MAC));
    assert!(is_learnt("192.0.2.2"));
    net.inside(move || probe(interface, "192.0.2.2".parse().expect("an address"), PEER_MAC))
        .expect("root may");
    assert!(is_learnt("192.0.2.2"), "it is asked, and still there");
    net.ip("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
    assert!(!is_learnt("192.0.2.2"));
    net.ip("neigh replace 192.0.2.3 lladdr 02:00:00:00:00:02 nud reachable extern_learn dev eth0");
    assert!(!is_learnt("192.0.2.3"));
}

#[test]
fn a_neighbour_that_moves_is_followed() {
    let net = Net::new();
    let mirror = net.mirror();
    net.ip("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:07 dev eth0");
    mirror.wait_for_neighbour("192.0.2.2", Some([2, 0, 0, 0, 0, 7]));
    net.ip("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:08 dev eth0");
    mirror.wait_for_neighbour("192.0.2.2", Some([2, 0, 0, 0, 0, 8]));
}

#[test]
fn a_replaced_route_leads_to_its_new_gateway() {
    let net = Net::new();
    let mirror = net.mirror();
    let generation = mirror.routes.current().load().generation;
    net.ip("route replace default via 192.0.2.3 mtu 1400");
    mirror.wait_for("gateway", |snapshot| {
        matches!(next_hop(snapshot, "149.154.167.51", mirror.interface),
            NextHop::Via(via) if via.gateway == "192.0.2.3".parse::<IpAddr>().unwrap() && via.mtu_bytes == 1400)
    });
    assert!(mirror.routes.current().load().generation > generation);
    net.ip("route replace blackhole 149.154.160.0/20");
    mirror.wait_for("blackhole", |snapshot| {
        next_hop(snapshot, "149.154.167.51", mirror.interface) == NextHop::NoRoute
    });
}

#[test]
fn equal_routes_share_the_flows() {
    let net = Net::new();
    let mirror = net.mirror();
    net.ip("route replace default nexthop via 192.0.2.2 nexthop via 192.0.2.3");
    net.ip("route add 198.51.100.0/24 via inet6 fe80::2 dev eth0");
    mirror.wait_for("gateway of the other family", |snapshot| {
        matches!(next_hop(snapshot, "198.51.100.1", mirror.interface),
            NextHop::Via(via) if via.gateway == "fe80::2".parse::<IpAddr>().unwrap())
    });
    let gateways: std::collections::BTreeSet<IpAddr> =
        (0..64).map(|last| mirror.via(&format!("149.154.167.{last}")).gateway).collect();
    assert_eq!(gateways.len(), 2, "{gateways:?}");
}

#[test]
fn an_added_address_is_ours_and_a_removed_one_takes_its_routes_along() {
    let net = Net::new();
    let mirror = net.mirror();
    let added: IpAddr = "203.0.113.1".parse().unwrap();
    net.ip("address add 203.0.113.1/24 dev eth0");
    net.ip("route add 198.51.100.0/24 via 192.0.2.2 src 203.0.113.1");
    mirror.wait_for("address", |snapshot| snapshot.is_local(added));
    mirror.wait_for("route", |snapshot| {
        matches!(next_hop(snapshot, "198.51.100.1", mirror.interface), NextHop::Via(via) if via.prefsrc == Some(added))
    });
    // The kernel drops the route with this source without a word.
    net.ip("address del 203.0.113.1/24 dev eth0");
    mirror.wait_for("route's end", |snapshot| {
        matches!(next_hop(snapshot, "198.51.100.1", mirror.interface),
            NextHop::Via(via) if via.prefsrc == Some("192.0.2.1".parse().unwrap()))
    });
    assert!(!mirror.routes.current().load().is_local(added));
}

#[test]
fn a_link_that_goes_down_has_no_routes_until_it_is_up() {
    let net = Net::new();
    let mirror = net.mirror();
    net.ip("link set eth0 down");
    mirror.wait_for("no route", |snapshot| {
        next_hop(snapshot, "192.0.2.2", mirror.interface) == NextHop::NoRoute
    });
    net.ip("link set eth0 up");
    mirror.wait_for("route", |snapshot| {
        matches!(next_hop(snapshot, "192.0.2.2", mirror.interface), NextHop::Via(_))
    });
}

#[test]
fn lost_notifications_are_made_good_by_reading_everything() {
    let net = Net::new();
    let mirror = net.mirror();
    // Holds the mirror's thread at its next change until the storm is over.
    let (open_gate, gate) = mpsc::channel::<()>();
    mirror.routes.on_change(move || {
        let _ = gate.recv_timeout(PATIENCE);
    });
    // Far more than the socket has room for.
    let commands: String = (0..20_000)
        .map(|number| {
            let verb = if number % 2 == 0 { "replace" } else { "del" };
            format!("route {verb} 198.18.0.0/15 via 192.0.2.2\n")
        })
        .chain(["route replace 198.18.0.0/15 via 192.0.2.3\n".to_owned()])
        .collect();
    let file = std::env::temp_dir().join(format!("{}.batch", net.here));
    std::fs::write(&file, commands).unwrap();
    net.ip(&format!("-batch {}", file.display()));
    std::fs::remove_file(file).unwrap();
    drop(open_gate);
    mirror.wait_for("last route", |snapshot| {
        matches!(next_hop(snapshot, "198.18.0.1", mirror.interface),
            NextHop::Via(via) if via.gateway == "192.0.2.3".parse::<IpAddr>().unwrap())
    });
    let counters = mirror.routes.counters();
    assert!(counters.overruns.load(Ordering::Relaxed) > 0);
    assert_eq!(counters.not_mirrored.load(Ordering::Relaxed), 0);
}
