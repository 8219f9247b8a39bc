//! Which packets are captured, and how much of each: a decision over a packet's bytes.
//!
//! By default everything but payload: who, when, how long, and all that TCP says. One connection in so many is chosen by its
//! addresses and ports, the same in both directions, so that of a chosen one nothing is missing.

use std::net::IpAddr;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use siphasher::sip::SipHasher13;

use crate::settings::cidr::Cidr;

/// Of a packet that is neither TCP nor an error about it, no more than its link and network headers and this much.
const OTHER_BYTES: usize = 8;
/// Most bytes that are kept of a packet: with all of its payload, what fits an Ethernet frame with two tags.
pub(super) const KEPT_BYTES_MAX: usize = 1600;
/// Most bytes of all headers: Ethernet with two tags, an IP header with options, TCP with options.
const HEADER_BYTES_MAX: usize = 22 + 60 + 60;
/// Of another packet that an ICMP error quotes: its IP header and eight bytes of TCP. More may come (RFC 1812 section
/// 4.3.2.3, RFC 4443 section 2.4), and may be payload.
const QUOTED_BYTES: [usize; 2] = [20 + 8, 40 + 8];

/// Which packets, and how much of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Bytes of payload that are kept.
    pub payload_bytes: u16,
    /// One connection in so many.
    pub one_in: u32,
    /// Only packets from or to here.
    pub address: Option<Cidr>,
    /// Only packets from or to this port.
    pub port: Option<u16>,
}

impl Default for Selection {
    fn default() -> Self {
        Self { payload_bytes: 0, one_in: 1, address: None, port: None }
    }
}

impl Selection {
    /// Most bytes that [`kept`](Self::kept) answers.
    #[must_use]
    pub fn kept_bytes_max(&self) -> usize {
        (HEADER_BYTES_MAX.max(14 + 40 + OTHER_BYTES + QUOTED_BYTES[1]) + usize::from(self.payload_bytes))
            .min(KEPT_BYTES_MAX)
    }

    /// How many of the first bytes of this frame are kept; `None` if the packet is not selected. `key` makes the choice of
    /// connections one that peers cannot foresee.
    #[must_use]
    pub fn kept(&self, frame: &[u8], key: u64) -> Option<usize> {
        let packet = LaxSlicedPacket::from_ethernet(frame).ok();
        let ends = packet.as_ref().and_then(ends);
        if !self.selects(ends, key) {
            return None;
        }
        let headers = packet.map_or(0, |packet| header_bytes(frame, &packet));
        Some((headers + usize::from(self.payload_bytes)).min(frame.len()).min(self.kept_bytes_max()))
    }

    fn selects(&self, ends: Option<[(IpAddr, u16); 2]>, key: u64) -> bool {
        let Some(ends) = ends else {
            // Not a packet of any connection: as long as nothing in particular is asked for.
            return self.address.is_none() && self.port.is_none() && self.one_in == 1;
        };
        let any = |is_it: &dyn Fn(&(IpAddr, u16)) -> bool| ends.iter().any(is_it);
        self.address.is_none_or(|network| any(&|(ip, _)| network.contains(*ip)))
            && self.port.is_none_or(|wanted| any(&|(_, port)| *port == wanted))
            && (self.one_in == 1 || connection_hash(ends, key).is_multiple_of(u64::from(self.one_in)))
    }
}

/// The same for both directions.
fn connection_hash(ends: [(IpAddr, u16); 2], key: u64) -> u64 {
    let (one, other) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
    let bytes = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut text = [0; 36];
    for (place, (ip, port)) in text.chunks_exact_mut(18).zip([one, other]) {
        place[..16].copy_from_slice(&bytes(ip));
        place[16..].copy_from_slice(&port.to_be_bytes());
    }
    SipHasher13::new_with_keys(key, 0).hash(&text)
}

fn ends(packet: &LaxSlicedPacket<'_>) -> Option<[(IpAddr, u16); 2]> {
    let addresses = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            [IpAddr::from(header.source_addr()), IpAddr::from(header.destination_addr())]
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            [IpAddr::from(header.source_addr()), IpAddr::from(header.destination_addr())]
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let ports = match packet.transport.as_ref() {
        Some(TransportSlice::Tcp(tcp)) => [tcp.source_port(), tcp.destination_port()],
        _ => [0, 0],
    };
    Some([(addresses[0], ports[0]), (addresses[1], ports[1])])
}

/// Up to the payload of TCP, or about as far for what is not TCP.
fn header_bytes(frame: &[u8], packet: &LaxSlicedPacket<'_>) -> usize {
    // What is left behind the headers is the end of the frame, but for padding, which is nobody's payload.
    let offset = |part: &[u8]| part.as_ptr().addr().saturating_sub(frame.as_ptr().addr());
    let after = |header: &[u8]| offset(header) + header.len();
    match (&packet.transport, packet.net.as_ref().and_then(LaxNetSlice::ip_payload_ref)) {
        (Some(TransportSlice::Tcp(tcp)), _) => after(tcp.header_slice()),
        (Some(TransportSlice::Icmpv4(_)), Some(payload)) => {
            offset(payload.payload) + OTHER_BYTES + QUOTED_BYTES[0]
        }
        (Some(TransportSlice::Icmpv6(_)), Some(payload)) => {
            offset(payload.payload) + OTHER_BYTES + QUOTED_BYTES[1]
        }
        (_, Some(payload)) => offset(payload.payload) + OTHER_BYTES,
        (_, None) => HEADER_BYTES_MAX.min(frame.len()),
    }
}
