//! The link header: Ethernet II with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use super::array_at;
use crate::drop_reason::DropReason;
use crate::link::VlanTag;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

/// Tags of a frame: one service tag and one customer tag.
const TAGS_MAX: usize = 2;

/// A frame's link header.
pub(super) struct LinkHeader {
    pub(super) len: usize,
    pub(super) vlan: Option<VlanTag>,
    pub(super) source_mac: [u8; 6],
    pub(super) version: IpVersion,
}

pub(super) enum IpVersion {
    V4,
    V6,
}

/// Reads the header at the start of `frame`.
///
/// The innermost tag is the flow's VLAN: it is the one that tells our networks apart. An outer service
/// tag belongs to the provider, whose equipment adds it again on the way back.
pub(super) fn parse(frame: &[u8]) -> Result<LinkHeader, DropReason> {
    let destination: [u8; 6] = array_at(frame, 0).ok_or(DropReason::Runt)?;
    let source_mac = array_at(frame, 6).ok_or(DropReason::Runt)?;
    // What was sent to a group at the link layer is none of TCP's (RFC 1122 section 3.3.6).
    if destination[0] & 1 == 1 {
        return Err(DropReason::Martian);
    }
    let mut len = 14;
    let mut vlan = None;
    for _ in 0..=TAGS_MAX {
        let ethertype = u16::from_be_bytes(array_at(frame, len - 2).ok_or(DropReason::Runt)?);
        match ethertype {
            IPV4 => return Ok(LinkHeader { len, vlan, source_mac, version: IpVersion::V4 }),
            IPV6 => return Ok(LinkHeader { len, vlan, source_mac, version: IpVersion::V6 }),
            CUSTOMER_TAG | SERVICE_TAG => {
                let tag = array_at(frame, len).ok_or(DropReason::Runt)?;
                vlan = Some(VlanTag(u16::from_be_bytes(tag)));
                len += 4;
            }
            _ => return Err(DropReason::NotIp),
        }
    }
    Err(DropReason::NotIp)
}
