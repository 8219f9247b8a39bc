//! IPv4 headers (RFC 791).

use std::net::{IpAddr, Ipv4Addr};

use super::array_at;
use super::checksum::Sum;
use super::ip::{Datagram, HOPS_MAX};
use crate::drop_reason::DropReason;

/// Length of a header without options, which is what we send.
pub(super) const HEADER_LEN: usize = 20;

const DONT_FRAGMENT: u16 = 0x4000;
/// More-fragments and the offset: any of it set makes a fragment.
const FRAGMENT_MASK: u16 = 0x3fff;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

/// Reads the header at the start of `packet`, behind which a frame's padding may follow.
pub(super) fn parse(packet: &[u8]) -> Result<Datagram, DropReason> {
    let fixed: [u8; HEADER_LEN] = array_at(packet, 0).ok_or(DropReason::Runt)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    if fixed[0] >> 4 != 4 || header_len < HEADER_LEN {
        return Err(DropReason::BadIpHeader);
    }
    let header = packet.get(..header_len).ok_or(DropReason::Runt)?;
    if !Sum::default().bytes(header).is_good() {
        return Err(DropReason::BadIpHeaderChecksum);
    }
    let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if total_len < header_len || total_len > packet.len() {
        return Err(DropReason::BadIpLength);
    }
    if u16::from_be_bytes([fixed[6], fixed[7]]) & FRAGMENT_MASK != 0 {
        return Err(DropReason::Fragment);
    }
    refuse_source_routes(&header[HEADER_LEN..])?;
    Ok(Datagram {
        source: IpAddr::V4(address_at(&fixed, 12)),
        destination: IpAddr::V4(address_at(&fixed, 16)),
        ecn: fixed[1] & 0b11,
        protocol: fixed[9],
        payload: header_len..total_len,
    })
}

fn address_at(header: &[u8; HEADER_LEN], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3])
}

/// A source route asks that answers take it back (RFC 1122 section 3.2.1.8). We answer nobody along a
/// way that the sender chose; other options are ignored (MUST-50).
fn refuse_source_routes(options: &[u8]) -> Result<(), DropReason> {
    let mut rest = options;
    while let [kind, tail @ ..] = rest {
        rest = match *kind {
            OPTION_END => break,
            OPTION_NOP => tail,
            OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE => return Err(DropReason::SourceRoute),
            _ => {
                let len = usize::from(*tail.first().ok_or(DropReason::BadIpHeader)?);
                if len < 2 {
                    return Err(DropReason::BadIpHeader);
                }
                rest.get(len..).ok_or(DropReason::BadIpHeader)?
            }
        };
    }
    Ok(())
}

/// Writes a header before `payload_len` bytes of `protocol`: DF set, and identification 0, which may be
/// any value in a packet that is never fragmented (RFC 6864 section 4.1).
pub(super) fn write(
    header: &mut [u8; HEADER_LEN],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload_len: usize,
) {
    let total_len = u16::try_from(HEADER_LEN + payload_len).expect("a packet fits its frame");
    *header = [0; HEADER_LEN];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    header[8] = HOPS_MAX;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let checksum = Sum::default().bytes(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}
