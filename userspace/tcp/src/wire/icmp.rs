//! ICMP errors about our segments (RFC 792, 1191, 4443, 8201).
//!
//! They may come from anybody on the way, or from someone who claims to be: what is read here is only
//! what was said. The stack believes it if the quoted sequence number is in flight (RFC 5927).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::checksum::Sum;
use super::{array_at, ip, ipv4, ipv6};
use crate::drop_reason::DropReason;
use crate::seq::SeqNumber;

/// Smallest MTU that we believe of an IPv4 path: 512 bytes of text, and Linux's `min_pmtu`. Less would
/// let a forger have us send by crumbs.
pub const MTU_MIN_V4: u32 = 552;
/// Smallest MTU of an IPv6 path (RFC 8200 section 5).
pub const MTU_MIN_V6: u32 = 1280;

/// MTUs that links have: what to try next if a router does not say (RFC 1191 section 7.1).
const PLATEAUS: [u32; 8] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, MTU_MIN_V4];

/// An ICMP error that quotes a segment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// What went wrong.
    pub kind: IcmpKind,
    /// Source of the quoted segment: an address of ours.
    pub embedded_local: SocketAddr,
    /// Destination of the quoted segment.
    pub embedded_remote: SocketAddr,
    /// Its sequence number.
    pub embedded_seq: SeqNumber,
}

/// What an ICMP error reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// A link on the way takes no packet so large.
    PacketTooBig {
        /// Largest IP packet that it takes: at least [`MTU_MIN_V4`] or [`MTU_MIN_V6`].
        mtu: u32,
    },
    /// Type 3 (ICMPv4) or 1 (ICMPv6): a hint, never a reason to abort an established connection.
    Unreachable {
        /// Code, as the version of IP numbers them.
        code: u8,
    },
    /// Time exceeded, parameter problem, redirect, source quench: nothing that TCP acts on (MUST-55).
    Other,
}

/// Reads the ICMPv4 message `bytes`, sent to `local`.
pub(super) fn parse_v4(bytes: &[u8], local: IpAddr) -> Result<IcmpError, DropReason> {
    const UNREACHABLE: u8 = 3;
    const FRAGMENTATION_NEEDED: u8 = 4;

    let header: [u8; 8] = array_at(bytes, 0).ok_or(DropReason::Runt)?;
    if !Sum::default().bytes(bytes).is_good() {
        return Err(DropReason::BadIcmpChecksum);
    }
    let quote = &bytes[8..];
    let kind = match (header[0], header[1]) {
        (UNREACHABLE, FRAGMENTATION_NEEDED) => {
            let mtu = u16::from_be_bytes([header[6], header[7]]);
            let quoted_len = u16::from_be_bytes(array_at(quote, 2).ok_or(DropReason::BadIcmp)?);
            IcmpKind::PacketTooBig { mtu: believable_mtu(u32::from(mtu), u32::from(quoted_len)) }
        }
        (UNREACHABLE, code) => IcmpKind::Unreachable { code },
        // Source quench, redirect, time exceeded, parameter problem.
        (4 | 5 | 11 | 12, _) => IcmpKind::Other,
        _ => return Err(DropReason::NotTcp),
    };
    let fixed: [u8; ipv4::HEADER_LEN] = array_at(quote, 0).ok_or(DropReason::BadIcmp)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    // We send no fragments, so that one cannot be ours.
    let is_first = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff == 0;
    if fixed[0] >> 4 != 4 || header_len < ipv4::HEADER_LEN || !is_first {
        return Err(DropReason::BadIcmp);
    }
    if fixed[9] != ip::TCP {
        return Err(DropReason::NotTcp);
    }
    let source = Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]);
    let destination = Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]);
    quoted(kind, source.into(), destination.into(), quote, header_len, local)
}

/// Reads the ICMPv6 message `bytes`, sent to `local`. `pseudo` is the sum of its pseudo-header.
pub(super) fn parse_v6(bytes: &[u8], pseudo: Sum, local: IpAddr) -> Result<IcmpError, DropReason> {
    const UNREACHABLE: u8 = 1;
    const PACKET_TOO_BIG: u8 = 2;

    let header: [u8; 8] = array_at(bytes, 0).ok_or(DropReason::Runt)?;
    if !pseudo.bytes(bytes).is_good() {
        return Err(DropReason::BadIcmpChecksum);
    }
    let kind = match header[0] {
        PACKET_TOO_BIG => {
            let mtu = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            // To be discarded (RFC 8201 section 4).
            if mtu < MTU_MIN_V6 {
                return Err(DropReason::BadIcmp);
            }
            IcmpKind::PacketTooBig { mtu }
        }
        UNREACHABLE => IcmpKind::Unreachable { code: header[1] },
        // Time exceeded, parameter problem.
        3 | 4 => IcmpKind::Other,
        _ => return Err(DropReason::NotTcp),
    };
    let quote = &bytes[8..];
    let fixed: [u8; ipv6::HEADER_LEN] = array_at(quote, 0).ok_or(DropReason::BadIcmp)?;
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::BadIcmp);
    }
    // We send no extension headers.
    if fixed[6] != ip::TCP {
        return Err(DropReason::NotTcp);
    }
    let (source, destination) = (ipv6::source(&fixed), ipv6::destination(&fixed));
    quoted(kind, source.into(), destination.into(), quote, ipv6::HEADER_LEN, local)
}

/// A router older than RFC 1191 says 0: then the next plateau below what it refused.
fn believable_mtu(stated: u32, refused_len: u32) -> u32 {
    let mtu = match stated {
        0 => PLATEAUS.into_iter().find(|plateau| *plateau < refused_len).unwrap_or(MTU_MIN_V4),
        _ => stated,
    };
    mtu.max(MTU_MIN_V4)
}

/// Ports and sequence number: the 8 bytes of TCP that every quotation has (RFC 792).
fn quoted(
    kind: IcmpKind,
    source: IpAddr,
    destination: IpAddr,
    quote: &[u8],
    header_len: usize,
    local: IpAddr,
) -> Result<IcmpError, DropReason> {
    let [s0, s1, d0, d1, q0, q1, q2, q3] = array_at(quote, header_len).ok_or(DropReason::BadIcmp)?;
    // The error comes back to whom the segment was from.
    if source != local {
        return Err(DropReason::BadIcmp);
    }
    Ok(IcmpError {
        kind,
        embedded_local: SocketAddr::new(source, u16::from_be_bytes([s0, s1])),
        embedded_remote: SocketAddr::new(destination, u16::from_be_bytes([d0, d1])),
        embedded_seq: SeqNumber(u32::from_be_bytes([q0, q1, q2, q3])),
    })
}
