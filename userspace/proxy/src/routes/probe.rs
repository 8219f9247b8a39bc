//! A question to a neighbour that only the neighbour can answer.

use std::io;
use std::net::IpAddr;

use mtproxy_nic::netlink::Netlink;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

/// Has the kernel ask the neighbour `ip`, whose link-layer address was `mac`, whether it is still there: a solicitation to
/// that address at once, and again each second, three in all (`neigh_timer_handler`, net/core/neighbour.c). Needs
/// CAP_NET_ADMIN.
///
/// # Errors
/// Those of the kernel: an interface that is down, for instance.
pub fn probe(interface: u32, ip: IpAddr, mac: [u8; 6]) -> io::Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = if ip.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.ifindex = interface;
    message.header.state = NeighbourState::Probe;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(ip)));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    netlink.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map(drop)
}
