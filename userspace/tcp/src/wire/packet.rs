//! The way in: what one frame holds.

use std::net::{IpAddr, SocketAddr};

use super::checksum::Sum;
use super::ethernet::{self, IpVersion};
use super::icmp::{self, IcmpError};
use super::ip::{self, Datagram};
use super::tcp::{self, Segment};
use super::{ipv4, ipv6};
use crate::drop_reason::DropReason;
use crate::link::VlanTag;

/// What one frame holds, with offsets into the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where IP begins.
    pub link_header_len: usize,
    /// The innermost VLAN tag, if the frame has one or two.
    pub vlan: Option<VlanTag>,
    /// Who sent the frame on this link.
    pub source_mac: [u8; 6],
    /// Destination of the packet.
    pub local: IpAddr,
    /// Source of the packet; of an ICMP error the router's.
    pub remote: IpAddr,
    /// The two ECN bits (RFC 3168 section 5).
    pub ecn: u8,
    /// What it carries.
    pub body: Body,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A TCP segment.
    Segment(Segment),
    /// An ICMP error that quotes a TCP segment of ours.
    Icmp(IcmpError),
}

/// Which TCP checksums pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksums {
    /// Right ones.
    #[default]
    Verify,
    /// Also a field that holds the pseudo-header's sum only, as a virtual peer leaves it for hardware
    /// that is not there. Such text is not protected: for peers within one machine only.
    TrustPartial,
}

/// Reads a whole frame, from its link header to its last byte, padding included.
///
/// # Errors
/// Why the frame is to be dropped, if it is not a sound TCP segment or ICMP error about one.
pub fn parse(frame: &[u8], checksums: Checksums) -> Result<Packet, DropReason> {
    let link = ethernet::parse(frame)?;
    let packet = &frame[link.len..];
    let datagram = match link.version {
        IpVersion::V4 => ipv4::parse(packet)?,
        IpVersion::V6 => ipv6::parse(packet)?,
    };
    datagram.refuse_martians()?;
    let range = link.len + datagram.payload.start..link.len + datagram.payload.end;
    let body = match (datagram.protocol, datagram.destination) {
        (ip::TCP, _) => {
            let segment = tcp::parse(frame, range, pseudo_header(&datagram), checksums)?;
            refuse_land(&datagram, &segment)?;
            Body::Segment(segment)
        }
        (ip::ICMP, local @ IpAddr::V4(_)) => Body::Icmp(icmp::parse_v4(&frame[range], local)?),
        (ip::ICMPV6, local @ IpAddr::V6(_)) => {
            Body::Icmp(icmp::parse_v6(&frame[range], pseudo_header(&datagram), local)?)
        }
        _ => return Err(DropReason::NotTcp),
    };
    Ok(Packet {
        link_header_len: link.len,
        vlan: link.vlan,
        source_mac: link.source_mac,
        local: datagram.destination,
        remote: datagram.source,
        ecn: datagram.ecn,
        body,
    })
}

fn pseudo_header(datagram: &Datagram) -> Sum {
    let len = u16::try_from(datagram.payload.len()).expect("IP carries at most 65535 bytes");
    match (datagram.source, datagram.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Sum::pseudo_v4(source, destination, datagram.protocol, len)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Sum::pseudo_v6(source, destination, datagram.protocol, len)
        }
        _ => unreachable!("one header has addresses of one family"),
    }
}

/// A segment from a socket to itself comes from a forger: such of our own never leave the host.
fn refuse_land(datagram: &Datagram, segment: &Segment) -> Result<(), DropReason> {
    let source = SocketAddr::new(datagram.source, segment.remote_port);
    let destination = SocketAddr::new(datagram.destination, segment.local_port);
    if source == destination { Err(DropReason::Land) } else { Ok(()) }
}
