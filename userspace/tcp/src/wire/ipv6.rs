//! IPv6 headers and the extension headers between them and TCP (RFC 8200).

use std::net::{IpAddr, Ipv6Addr};

use super::array_at;
use super::ip::{Datagram, HOPS_MAX};
use crate::drop_reason::DropReason;

/// Length of the fixed header.
pub(super) const HEADER_LEN: usize = 40;

/// Extension headers that we walk. RFC 8200 section 4.1 names six places for them, and ordinary
/// segments have none; the bound keeps a packet from costing more than its like.
const EXTENSION_HEADERS_MAX: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// Reads the headers at the start of `packet`, behind which a frame's padding may follow.
pub(super) fn parse(packet: &[u8]) -> Result<Datagram, DropReason> {
    let fixed: [u8; HEADER_LEN] = array_at(packet, 0).ok_or(DropReason::Runt)?;
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::BadIpHeader);
    }
    let end = HEADER_LEN + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let packet = packet.get(..end).ok_or(DropReason::BadIpLength)?;
    let (protocol, start) = walk_extension_headers(packet, fixed[6])?;
    Ok(Datagram {
        source: IpAddr::V6(source(&fixed)),
        destination: IpAddr::V6(destination(&fixed)),
        ecn: (fixed[1] >> 4) & 0b11,
        protocol,
        payload: start..end,
    })
}

/// The source address in a fixed header.
pub(super) fn source(fixed: &[u8; HEADER_LEN]) -> Ipv6Addr {
    let (_, addresses) = fixed.split_at(8);
    Ipv6Addr::from_octets(array_at(addresses, 0).expect("32 bytes of addresses"))
}

/// The destination address in a fixed header.
pub(super) fn destination(fixed: &[u8; HEADER_LEN]) -> Ipv6Addr {
    let (_, addresses) = fixed.split_at(8);
    Ipv6Addr::from_octets(array_at(addresses, 16).expect("32 bytes of addresses"))
}

/// Protocol and offset of what the extension headers carry.
fn walk_extension_headers(packet: &[u8], first: u8) -> Result<(u8, usize), DropReason> {
    let (mut kind, mut at) = (first, HEADER_LEN);
    for walked in 0..=EXTENSION_HEADERS_MAX {
        let unit = match kind {
            // Only right behind the fixed header (RFC 8200 section 4.3).
            HOP_BY_HOP if walked > 0 => return Err(DropReason::BadIpHeader),
            FRAGMENT => return Err(DropReason::Fragment),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => 8,
            // Counts in 4-byte units, minus 2 (RFC 4302 section 2.2).
            AUTHENTICATION => 4,
            _ => return Ok((kind, at)),
        };
        if walked == EXTENSION_HEADERS_MAX {
            break;
        }
        // All of them are at least 8 bytes.
        let header: [u8; 8] = array_at(packet, at).ok_or(DropReason::Runt)?;
        let segments_left = header[3];
        if kind == ROUTING && segments_left != 0 {
            return Err(DropReason::SourceRoute);
        }
        kind = header[0];
        at += 8 + usize::from(header[1]) * unit;
        if at > packet.len() {
            return Err(DropReason::Runt);
        }
    }
    Err(DropReason::TooManyExtensionHeaders)
}

/// Writes a header before `payload_len` bytes of `protocol`, with flow label 0 (unlabelled).
pub(super) fn write(
    header: &mut [u8; HEADER_LEN],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    payload_len: usize,
) {
    let payload_len = u16::try_from(payload_len).expect("a packet fits its frame");
    *header = [0; HEADER_LEN];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
    header[6] = protocol;
    header[7] = HOPS_MAX;
    header[8..24].copy_from_slice(&source.octets());
    header[24..40].copy_from_slice(&destination.octets());
}
