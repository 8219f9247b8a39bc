//! One routing table of one family: longest prefix first.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteNextHopFlags, RouteType,
    RouteVia,
};

/// `RT_TABLE_LOCAL` (linux/rtnetlink.h): the host's own addresses.
const TABLE_LOCAL: u32 = 255;
const TABLE_MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// Which of the mirrored tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Local,
    Main,
}

/// One way on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) interface: u32,
    /// `None`: the destination itself is the neighbour.
    pub(super) gateway: Option<IpAddr>,
    /// Share of the flows, relative to the route's other hops.
    pub(super) weight: u32,
}

/// A route to a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) destination: Prefix,
    /// Lower wins.
    pub(super) metric: u32,
    pub(super) target: Target,
    pub(super) prefsrc: Option<IpAddr>,
    pub(super) mtu_bytes: Option<u32>,
}

/// What a route does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Unicast(Vec<Hop>),
    /// The host itself.
    Local,
    /// Blackhole, unreachable, broadcast and so on: no way for a connection.
    Nowhere,
}

/// Addresses that begin alike. The bits are those of the address from the left, of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Prefix {
    bits: u128,
    length: u8,
}

impl Prefix {
    pub(super) fn new(address: IpAddr, length: u8) -> Self {
        let kept = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
        Self { bits: from_the_left(address) & kept, length }
    }
}

fn from_the_left(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The routes of one table and family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fib {
    /// Lengths that occur, longest first.
    lengths: Vec<u8>,
    routes: HashMap<Prefix, Route>,
}

impl Fib {
    /// Adds a route. Of two to one prefix the lower metric stays; of equal ones the first, as the kernel
    /// lists first what it tries first.
    pub(super) fn add(&mut self, route: Route) {
        let length = route.destination.length;
        if let Err(at) = self.lengths.binary_search_by(|other| length.cmp(other)) {
            self.lengths.insert(at, length);
        }
        let other = self.routes.get(&route.destination);
        if other.is_none_or(|other| route.metric < other.metric) {
            self.routes.insert(route.destination, route);
        }
    }

    /// The route that a packet to `address` takes.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<&Route> {
        self.lengths.iter().find_map(|&length| self.routes.get(&Prefix::new(address, length)))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    pub(super) fn len(&self) -> usize {
        self.routes.len()
    }
}

/// A route as the kernel tells it, with its table. `None` if it is of no mirrored table, or not for every
/// packet to its prefix, or all its hops are dead.
pub(super) fn parse(message: &RouteMessage) -> Option<(Table, Route)> {
    let RouteMessage { header, attributes, .. } = message;
    if header.tos != 0 || header.source_prefix_length != 0 {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut destination = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let (mut metric, mut prefsrc, mut mtu_bytes) = (0, None, None);
    for attribute in attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::PrefSource(address) => prefsrc = ip(address),
            RouteAttribute::Metrics(metrics) => {
                mtu_bytes = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(bytes) => Some(*bytes),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let table = match table {
        TABLE_LOCAL => Table::Local,
        TABLE_MAIN => Table::Main,
        _ => return None,
    };
    let target = match header.kind {
        RouteType::Unicast => Target::Unicast(hops(message)),
        RouteType::Local => Target::Local,
        _ => Target::Nowhere,
    };
    if target == Target::Unicast(vec![]) {
        return None;
    }
    let destination = Prefix::new(destination, header.destination_prefix_length);
    Some((table, Route { destination, metric, target, prefsrc, mtu_bytes }))
}

/// The hops that are alive.
fn hops(message: &RouteMessage) -> Vec<Hop> {
    let several = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    let Some(several) = several else {
        // The low bits of a route's flags are those of its only hop (`RTNH_COMPARE_MASK`, linux/rtnetlink.h).
        let is_dead = message.header.flags.bits() & u32::from(RouteNextHopFlags::Dead.bits()) != 0;
        return hop(&message.attributes, None, 1).into_iter().filter(|_| !is_dead).collect();
    };
    let alive = several.iter().filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead));
    // `rtnh_hops` is the weight less one.
    alive.filter_map(|it| hop(&it.attributes, Some(it.interface_index), u32::from(it.hops) + 1)).collect()
}

fn hop(attributes: &[RouteAttribute], interface: Option<u32>, weight: u32) -> Option<Hop> {
    let (mut interface, mut gateway) = (interface, None);
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            // An IPv4 route by an IPv6 neighbour (RFC 5549).
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            _ => {}
        }
    }
    Some(Hop { interface: interface?, gateway, weight })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(prefix: (&str, u8), metric: u32, interface: u32) -> Route {
        Route {
            destination: Prefix::new(prefix.0.parse().unwrap(), prefix.1),
            metric,
            target: Target::Unicast(vec![Hop { interface, gateway: None, weight: 1 }]),
            prefsrc: None,
            mtu_bytes: None,
        }
    }

    fn interface(fib: &Fib, address: &str) -> Option<u32> {
        match &fib.lookup(address.parse().unwrap())?.target {
            Target::Unicast(hops) => Some(hops[0].interface),
            _ => None,
        }
    }

    #[test]
    fn the_longest_prefix_wins_then_the_lowest_metric() {
        let mut fib = Fib::default();
        for route in [
            route(("0.0.0.0", 0), 100, 1),
            route(("10.0.0.0", 8), 0, 2),
            route(("10.1.0.0", 16), 20, 3),
            route(("10.1.0.0", 16), 10, 4),
            route(("10.1.0.0", 16), 10, 5),
            route(("10.1.0.1", 32), 9999, 6),
        ] {
            fib.add(route);
        }
        for (address, expected) in
            [("192.0.2.1", 1), ("10.2.0.0", 2), ("10.1.0.0", 4), ("10.1.0.1", 6), ("10.1.0.2", 4)]
        {
            assert_eq!(interface(&fib, address), Some(expected), "{address}");
        }
        assert_eq!(fib.len(), 4);
    }

    #[test]
    fn ipv6_prefixes_reach_from_none_to_all_bits() {
        let mut fib = Fib::default();
        fib.add(route(("2001:db8::", 33), 0, 1));
        fib.add(route(("2001:db8::1", 128), 0, 2));
        assert_eq!(interface(&fib, "2001:db8::1"), Some(2));
        assert_eq!(interface(&fib, "2001:db8:7fff::"), Some(1));
        assert_eq!(interface(&fib, "2001:db8:8000::"), None);
        fib.add(route(("::", 0), 0, 3));
        assert_eq!(interface(&fib, "2001:db8:8000::"), Some(3));
    }

    #[test]
    fn dead_hops_are_left_out_and_weights_count_from_one() {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        let hop = |interface, flags, hops| {
            let mut hop = netlink_packet_route::route::RouteNextHop::default();
            hop.interface_index = interface;
            hop.flags = flags;
            hop.hops = hops;
            hop
        };
        let hops = vec![
            hop(2, RouteNextHopFlags::empty(), 0),
            hop(3, RouteNextHopFlags::Dead, 0),
            hop(4, RouteNextHopFlags::Onlink, 2),
        ];
        message.attributes = vec![RouteAttribute::MultiPath(hops)];
        let (table, route) = parse(&message).unwrap();
        assert_eq!(table, Table::Main);
        let expected = [(2, 1), (4, 3)].map(|(interface, weight)| Hop { interface, gateway: None, weight });
        assert_eq!(route.target, Target::Unicast(expected.to_vec()));
        message.attributes = vec![RouteAttribute::MultiPath(vec![hop(3, RouteNextHopFlags::Dead, 0)])];
        assert_eq!(parse(&message), None);
    }

    #[test]
    fn routes_of_other_tables_and_by_type_of_service_are_not_mirrored() {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.kind = RouteType::BlackHole;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        assert_eq!(parse(&message).unwrap().1.target, Target::Nowhere);
        message.header.tos = 4;
        assert_eq!(parse(&message), None);
        message.header.tos = 0;
        message.attributes = vec![RouteAttribute::Table(1000)];
        assert_eq!(parse(&message), None);
    }

    proptest! {
        #[test]
        fn the_lookup_agrees_with_a_walk_over_all_routes(
            routes in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..40), address: u32, near: bool,
        ) {
            // Half of the addresses are taken near a route, for long prefixes to match at all.
            let address = match routes.first() {
                Some((other, _)) if near => other ^ (address & 0xff),
                _ => address,
            };
            let address = IpAddr::V4(address.into());
            let mut fib = Fib::default();
            for (index, (bits, length)) in routes.iter().enumerate() {
                let destination = Prefix::new(IpAddr::V4((*bits).into()), *length);
                fib.add(Route { destination, ..route(("0.0.0.0", 0), 0, index as u32) });
            }
            let matching = routes.iter().map(|(bits, length)| Prefix::new(IpAddr::V4((*bits).into()), *length));
            let longest = matching.filter(|prefix| *prefix == Prefix::new(address, prefix.length)).max_by_key(|prefix| prefix.length);
            prop_assert_eq!(fib.lookup(address).map(|route| route.destination), longest);
        }
    }
}
