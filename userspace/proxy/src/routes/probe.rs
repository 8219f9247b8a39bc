//! A question to a neighbour that only the neighbour can answer.

use std::io;
use std::net::IpAddr;

use mtproxy_nic::netlink::Netlink;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

/// True if the kernel has learnt this neighbour itself, so that asking it anew takes nothing from anybody: what was set by
/// hand, or by a routing daemon, is not to be touched.
///
/// # Errors
/// If netlink does not answer.
pub fn is_learnt(interface: u32, ip: IpAddr) -> io::Result<bool> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    let all = netlink.dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?.messages;
    Ok(all.iter().any(|message| {
        let RouteNetlinkMessage::NewNeighbour(neighbour) = message else { return false };
        let is_it = |attribute: &NeighbourAttribute| {
            *attribute == NeighbourAttribute::Destination(NeighbourAddress::from(ip))
        };
        let header = &neighbour.header;
        let resolved =
            [NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Delay, NeighbourState::Probe];
        header.ifindex == interface
            && resolved.contains(&header.state)
            && !header.flags.contains(NeighbourFlags::ExtLearned)
            && neighbour.attributes.iter().any(is_it)
    }))
}

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
