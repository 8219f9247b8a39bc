//! A question to a neighbour that only the neighbour can answer.

use std::io;
use std::net::IpAddr;

use mtproxy_nic::netlink::Netlink;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::message::{about_neighbour, parse_neighbour};

/// True if the kernel has learnt this neighbour itself, so that asking it anew takes nothing from anybody: what was set by
/// hand, or by a routing daemon, is not to be touched.
///
/// # Errors
/// If netlink does not answer.
pub fn is_learnt(interface: u32, ip: IpAddr) -> io::Result<bool> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    let all = netlink.dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?.messages;
    let resolved =
        [NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Delay, NeighbourState::Probe];
    Ok(all.iter().any(|message| match message {
        RouteNetlinkMessage::NewNeighbour(neighbour) => {
            parse_neighbour(neighbour).is_some_and(|(place, _)| place == (interface, ip))
                && resolved.contains(&neighbour.header.state)
                && !neighbour.header.flags.contains(NeighbourFlags::ExtLearned)
        }
        _ => false,
    }))
}

/// Has the kernel ask the neighbour `ip`, whose link-layer address was `mac`, whether it is still there: a solicitation to
/// that address at once, and again each second, three in all (`neigh_timer_handler`, net/core/neighbour.c). Needs
/// CAP_NET_ADMIN.
///
/// # Errors
/// Those of the kernel: an interface that is down, for instance.
pub fn probe(interface: u32, ip: IpAddr, mac: [u8; 6]) -> io::Result<()> {
    let mut message = about_neighbour((interface, ip));
    message.header.state = NeighbourState::Probe;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    netlink.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map(drop)
}
