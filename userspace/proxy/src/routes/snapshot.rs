//! Links, addresses, routes and neighbours at one moment, and the question they answer.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;

use mtproxy_nic::link::RawLink;
use siphasher::sip::SipHasher13;

use super::fib::{Fib, Hop, Route, Table, Target};
use super::message::Place;

/// Everything about the way of packets, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with each snapshot: what was looked up in another generation may have changed.
    pub generation: u64,
    pub(super) state: State,
}

/// What a snapshot holds; parts that did not change are shared with the one before.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) links: Arc<BTreeMap<u32, RawLink>>,
    pub(super) addresses: Arc<Vec<Address>>,
    pub(super) routes: Arc<Routing>,
    pub(super) neighbours: Arc<HashMap<Place, [u8; 6]>>,
}

/// The mirrored tables of both families.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Routing {
    local: [Fib; 2],
    main: [Fib; 2],
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) interface: u32,
    pub(super) ip: IpAddr,
    /// False for addresses that new connections should not come from: link-local, deprecated, not yet
    /// checked for duplicates.
    pub(super) is_preferred: bool,
}

/// Where a packet goes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// To this neighbour.
    Via(Via),
    /// Nowhere: no route, or one that refuses, or an interface that is down or not Ethernet.
    NoRoute,
    /// By another interface, or to this host itself.
    OtherInterface,
}

/// A neighbour on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// The neighbour: a gateway, or the destination itself.
    pub gateway: IpAddr,
    /// The interface's own link-layer address.
    pub source_mac: [u8; 6],
    /// The neighbour's link-layer address. `None`: not resolved.
    pub neighbour: Option<[u8; 6]>,
    /// Largest IP packet.
    pub mtu_bytes: u32,
    /// Where connections to there come from unless they have an address: the route's choice, else the
    /// interface's first address of the family.
    pub prefsrc: Option<IpAddr>,
}

impl State {
    /// True if every part is the same one in memory; a part that changes is made anew.
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.links, &other.links)
            && Arc::ptr_eq(&self.addresses, &other.addresses)
            && Arc::ptr_eq(&self.routes, &other.routes)
            && Arc::ptr_eq(&self.neighbours, &other.neighbours)
    }
}

impl Routing {
    pub(super) fn add(&mut self, table: Table, is_ipv6: bool, route: Route) {
        let tables = match table {
            Table::Local => &mut self.local,
            Table::Main => &mut self.main,
        };
        tables[usize::from(is_ipv6)].add(route);
    }

    fn lookup(&self, address: IpAddr) -> Option<&Route> {
        let family = usize::from(address.is_ipv6());
        self.local[family].lookup(address).or_else(|| self.main[family].lookup(address))
    }

    /// The addresses that routes over this interface choose.
    fn sources(&self, interface: u32) -> impl Iterator<Item = IpAddr> {
        let leads_there = move |route: &&Route| match &route.target {
            Target::Unicast(hops) => hops.iter().any(|hop| hop.interface == interface),
            Target::Local | Target::Nowhere => false,
        };
        self.main.iter().flat_map(Fib::iter).filter(leads_there).filter_map(|route| route.prefsrc)
    }

    pub(super) fn len(&self) -> usize {
        self.local.iter().chain(&self.main).map(Fib::len).sum()
    }
}

impl Snapshot {
    /// Where packets from `local` to `remote` go, if they are to leave by the interface with this index.
    ///
    /// Of several equal hops on the interface, the pair of addresses chooses one, always the same.
    #[must_use]
    pub fn next_hop(&self, local: IpAddr, remote: IpAddr, interface: u32) -> NextHop {
        let Some(route) = self.state.routes.lookup(remote) else { return NextHop::NoRoute };
        let hops = match &route.target {
            Target::Unicast(hops) => hops,
            Target::Local => return NextHop::OtherInterface,
            Target::Nowhere => return NextHop::NoRoute,
        };
        let Some(hop) = choose(hops, local, remote, interface) else { return NextHop::OtherInterface };
        let link = self.state.links.get(&interface).filter(|link| link.is_up);
        let Some((link, source_mac)) = link.and_then(|link| Some((link, link.mac?))) else {
            return NextHop::NoRoute;
        };
        let gateway = hop.gateway.unwrap_or(remote);
        NextHop::Via(Via {
            gateway,
            source_mac,
            neighbour: self.state.neighbours.get(&(interface, gateway)).copied(),
            mtu_bytes: route.mtu_bytes.map_or(link.mtu_bytes, |bytes| bytes.min(link.mtu_bytes)),
            prefsrc: route.prefsrc.or_else(|| self.first_address(interface, remote.is_ipv6())),
        })
    }

    /// The neighbour's link-layer address, if it is known.
    #[must_use]
    pub fn neighbour(&self, interface: u32, gateway: IpAddr) -> Option<[u8; 6]> {
        self.state.neighbours.get(&(interface, gateway)).copied()
    }

    /// Addresses on the interface with this index.
    pub fn addresses_on(&self, interface: u32) -> impl Iterator<Item = IpAddr> {
        self.state.addresses.iter().filter(move |it| it.interface == interface).map(|address| address.ip)
    }

    /// All that [`Via::prefsrc`] can be on the interface with this index, some perhaps more than once.
    pub fn source_addresses(&self, interface: u32) -> impl Iterator<Item = IpAddr> {
        let of_families = [false, true].into_iter().filter_map(move |v6| self.first_address(interface, v6));
        of_families.chain(self.state.routes.sources(interface))
    }

    /// True if this host has the address.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.state.addresses.iter().any(|local| local.ip == address)
    }

    /// Index of the VLAN `id` on the interface `lower`.
    #[must_use]
    pub fn vlan(&self, lower: u32, id: u16) -> Option<u32> {
        let is_it = |link: &&RawLink| {
            link.lower == Some(lower) && !link.lower_is_elsewhere && link.vlan_id == Some(id)
        };
        self.state.links.values().find(is_it).map(|link| link.index)
    }

    fn first_address(&self, interface: u32, is_ipv6: bool) -> Option<IpAddr> {
        let suits = |address: &&Address| {
            address.interface == interface && address.is_preferred && address.ip.is_ipv6() == is_ipv6
        };
        self.state.addresses.iter().find(suits).map(|address| address.ip)
    }
}

/// The hop on `interface` that this pair of addresses gets.
fn choose(hops: &[Hop], local: IpAddr, remote: IpAddr, interface: u32) -> Option<&Hop> {
    let on_it = || hops.iter().filter(|hop| hop.interface == interface);
    let all: u64 = on_it().map(|hop| u64::from(hop.weight)).sum();
    let mut hasher = SipHasher13::new();
    (local, remote).hash(&mut hasher);
    let mut share = hasher.finish().checked_rem(all)?;
    on_it().find(|hop| {
        let weight = u64::from(hop.weight);
        let is_it = share < weight;
        share = share.saturating_sub(weight);
        is_it
    })
}

#[cfg(test)]
mod tests {
    use super::super::fib::Prefix;
    use super::*;

    const ETH0: u32 = 2;
    const ETH1: u32 = 3;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn hop(interface: u32, gateway: Option<&str>, weight: u32) -> Hop {
        Hop { interface, gateway: gateway.map(ip), weight }
    }

    fn snapshot(routes: Vec<(&str, u8, Target)>) -> Snapshot {
        let link = |index| RawLink {
            index,
            mac: Some([2, 0, 0, 0, 0, 9]),
            mtu_bytes: 1500,
            is_up: true,
            ..RawLink::default()
        };
        let mut routing = Routing::default();
        for (destination, length, target) in routes {
            let destination = ip(destination);
            let table = if target == Target::Local { Table::Local } else { Table::Main };
            let prefix = Prefix::new(destination, length);
            let route =
                Route { destination: prefix, metric: 0, target, prefsrc: None, mtu_bytes: Some(9000) };
            routing.add(table, destination.is_ipv6(), route);
        }
        let address = |text, is_preferred| Address { interface: ETH0, ip: ip(text), is_preferred };
        let addresses =
            vec![address("fe80::9", false), address("192.0.2.9", true), address("192.0.2.10", true)];
        let state = State {
            links: Arc::new([(ETH0, link(ETH0)), (ETH1, link(ETH1))].into()),
            addresses: Arc::new(addresses),
            routes: Arc::new(routing),
            neighbours: Arc::new([((ETH0, ip("192.0.2.1")), [2, 0, 0, 0, 0, 1])].into()),
        };
        Snapshot { generation: 1, state }
    }

    fn via(next: NextHop) -> Via {
        match next {
            NextHop::Via(via) => via,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_gateway_is_the_neighbour_and_without_one_the_destination_is() {
        let routes = vec![
            ("0.0.0.0", 0, Target::Unicast(vec![hop(ETH0, Some("192.0.2.1"), 1)])),
            ("192.0.2.0", 24, Target::Unicast(vec![hop(ETH0, None, 1)])),
        ];
        let snapshot = snapshot(routes);
        let far = via(snapshot.next_hop(ip("192.0.2.9"), ip("149.154.167.51"), ETH0));
        let expected = Via {
            gateway: ip("192.0.2.1"),
            source_mac: [2, 0, 0, 0, 0, 9],
            neighbour: Some([2, 0, 0, 0, 0, 1]),
            mtu_bytes: 1500,
            prefsrc: Some(ip("192.0.2.9")),
        };
        assert_eq!(far, expected);
        let near = via(snapshot.next_hop(ip("192.0.2.9"), ip("192.0.2.7"), ETH0));
        assert_eq!((near.gateway, near.neighbour), (ip("192.0.2.7"), None));
        assert_eq!(snapshot.next_hop(ip("192.0.2.9"), ip("192.0.2.7"), ETH1), NextHop::OtherInterface);
    }

    #[test]
    fn a_link_local_gateway_serves_ipv6_and_ipv4() {
        let through = Target::Unicast(vec![hop(ETH0, Some("fe80::1"), 1)]);
        let snapshot = snapshot(vec![("::", 0, through.clone()), ("0.0.0.0", 0, through)]);
        let six = via(snapshot.next_hop(ip("2001:db8::9"), ip("2001:67c::1"), ETH0));
        assert_eq!((six.gateway, six.prefsrc), (ip("fe80::1"), None));
        assert_eq!(via(snapshot.next_hop(ip("192.0.2.9"), ip("198.51.100.1"), ETH0)).gateway, ip("fe80::1"));
    }

    #[test]
    fn own_addresses_are_elsewhere_and_refused_ones_nowhere() {
        let snapshot = snapshot(vec![("192.0.2.9", 32, Target::Local), ("192.0.2.0", 24, Target::Nowhere)]);
        assert_eq!(snapshot.next_hop(ip("192.0.2.9"), ip("192.0.2.9"), ETH0), NextHop::OtherInterface);
        assert_eq!(snapshot.next_hop(ip("192.0.2.9"), ip("192.0.2.8"), ETH0), NextHop::NoRoute);
        assert_eq!(snapshot.next_hop(ip("192.0.2.9"), ip("198.51.100.1"), ETH0), NextHop::NoRoute);
    }

    #[test]
    fn equal_hops_share_flows_by_weight_and_each_flow_keeps_its_own() {
        let hops = vec![
            hop(ETH0, Some("192.0.2.1"), 3),
            hop(ETH1, Some("198.51.100.1"), 9),
            hop(ETH0, Some("192.0.2.2"), 1),
        ];
        let snapshot = snapshot(vec![("0.0.0.0", 0, Target::Unicast(hops))]);
        let gateway = |last: u32| {
            via(snapshot.next_hop(ip("192.0.2.9"), IpAddr::V4((0x0a00_0000 + last).into()), ETH0)).gateway
        };
        let of_first = (0..4000).filter(|&last| gateway(last) == ip("192.0.2.1")).count();
        assert!((2850..3150).contains(&of_first), "three of four: {of_first}");
        assert!((0..100).all(|last| gateway(last) == gateway(last)));
    }

    #[test]
    fn connections_come_from_the_first_address_or_the_one_a_route_chooses() {
        let mut snapshot = snapshot(vec![]);
        let route = |destination, interface, source| Route {
            destination: Prefix::new(ip(destination), 24),
            metric: 0,
            target: Target::Unicast(vec![hop(interface, None, 1)]),
            prefsrc: Some(ip(source)),
            mtu_bytes: None,
        };
        let routing = Arc::make_mut(&mut snapshot.state.routes);
        routing.add(Table::Main, false, route("198.51.100.0", ETH0, "192.0.2.77"));
        routing.add(Table::Main, false, route("203.0.113.0", ETH1, "192.0.2.88"));
        let sources: Vec<IpAddr> = snapshot.source_addresses(ETH0).collect();
        assert_eq!(
            sources,
            [ip("192.0.2.9"), ip("192.0.2.77")],
            "neither link-local ones nor those of others"
        );
        assert_eq!(snapshot.source_addresses(ETH1).collect::<Vec<_>>(), [ip("192.0.2.88")]);
        let all: Vec<IpAddr> = snapshot.addresses_on(ETH0).collect();
        assert_eq!(all, [ip("fe80::9"), ip("192.0.2.9"), ip("192.0.2.10")]);
    }

    #[test]
    fn a_vlan_is_found_by_what_it_is_on() {
        let mut snapshot = snapshot(vec![]);
        let vlan = RawLink { index: 7, lower: Some(ETH0), vlan_id: Some(5), ..RawLink::default() };
        Arc::make_mut(&mut snapshot.state.links).insert(7, vlan);
        assert_eq!(snapshot.vlan(ETH0, 5), Some(7));
        assert_eq!(snapshot.vlan(ETH0, 6), None);
        assert_eq!(snapshot.vlan(ETH1, 5), None);
    }
}
