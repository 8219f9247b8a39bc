//! What the kernel's messages say of neighbours and addresses.

use std::net::IpAddr;

use mtproxy_nic::facts::local_address;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};

use super::snapshot::Address;

/// Interface and address of a neighbour.
pub(super) type Place = (u32, IpAddr);

/// `NUD_VALID` (include/net/neighbour.h): reachable, stale, delay, probe, no ARP, permanent.
const STATES_WITH_ADDRESS: u16 = 0xde;

/// A message to the kernel about the neighbour at this place.
pub(super) fn about_neighbour((interface, ip): Place) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if ip.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.ifindex = interface;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(ip)));
    message
}

/// A neighbour's place, and its address if it has one that may be used. `None` for what is no neighbour:
/// addresses answered for others, and a bridge's table.
pub(super) fn parse_neighbour(message: &NeighbourMessage) -> Option<(Place, Option<[u8; 6]>)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let has_address = u16::from(message.header.state) & STATES_WITH_ADDRESS != 0;
    Some(((message.header.ifindex, ip?), mac.filter(|_| has_address)))
}

/// An address of this host.
pub(super) fn parse_address(message: &AddressMessage) -> Option<Address> {
    let unwanted = AddressFlags::Deprecated | AddressFlags::Tentative | AddressFlags::Dadfailed;
    let is_unwanted = message.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::Flags(flags) => flags.intersects(unwanted),
        _ => false,
    });
    let is_preferred = message.header.scope == AddressScope::Universe && !is_unwanted;
    Some(Address { interface: message.header.index, ip: local_address(message)?, is_preferred })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::neighbour::NeighbourState;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn neighbour(state: NeighbourState, flags: NeighbourFlags, mac: &[u8]) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 2;
        message.header.state = state;
        message.header.flags = flags;
        let address = NeighbourAddress::Inet([192, 0, 2, 1].into());
        message.attributes = vec![
            NeighbourAttribute::Destination(address),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        message
    }

    #[test]
    fn an_address_counts_from_its_first_confirmation_until_it_failed() {
        let place = (2, IpAddr::from([192, 0, 2, 1]));
        let parse = |state, mac: &[u8]| parse_neighbour(&neighbour(state, NeighbourFlags::empty(), mac));
        for state in [
            NeighbourState::Reachable,
            NeighbourState::Stale,
            NeighbourState::Delay,
            NeighbourState::Probe,
            NeighbourState::Permanent,
            NeighbourState::Noarp,
        ] {
            assert_eq!(parse(state, &MAC), Some((place, Some(MAC))), "{state}");
        }
        for state in [NeighbourState::Incomplete, NeighbourState::Failed, NeighbourState::None] {
            assert_eq!(parse(state, &MAC), Some((place, None)), "{state}");
        }
        assert_eq!(parse(NeighbourState::Reachable, &MAC[..4]), Some((place, None)), "no Ethernet address");
    }

    #[test]
    fn an_address_answered_for_others_is_no_neighbour() {
        assert_eq!(parse_neighbour(&neighbour(NeighbourState::Permanent, NeighbourFlags::Proxy, &MAC)), None);
        assert_eq!(parse_neighbour(&NeighbourMessage::default()), None);
    }

    #[test]
    fn connections_come_from_global_addresses_that_stay() {
        let address = |scope, flags| {
            let mut message = AddressMessage::default();
            message.header.scope = scope;
            let local = IpAddr::from([192, 0, 2, 1]);
            message.attributes = vec![AddressAttribute::Local(local), AddressAttribute::Flags(flags)];
            parse_address(&message).unwrap().is_preferred
        };
        assert!(address(AddressScope::Universe, AddressFlags::Permanent));
        assert!(!address(AddressScope::Link, AddressFlags::Permanent));
        assert!(!address(AddressScope::Universe, AddressFlags::Tentative));
        assert!(!address(AddressScope::Universe, AddressFlags::Deprecated | AddressFlags::Permanent));
    }
}
