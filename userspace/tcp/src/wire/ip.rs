//! What both versions of IP say of a packet, and which addresses cannot speak TCP with us.

use std::net::IpAddr;
use std::ops::Range;

use crate::drop_reason::DropReason;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const ICMPV6: u8 = 58;

/// Time to live and hop limit of what we send: the recommended default (RFC 1700), and Linux's.
pub(super) const HOPS_MAX: u8 = 64;

/// An IP header that passed.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) ecn: u8,
    /// Of the payload, behind any extension headers.
    pub(super) protocol: u8,
    /// In the bytes that were parsed: ends where IP says, not where the frame does.
    pub(super) payload: Range<usize>,
}

impl Datagram {
    /// Refuses addresses that must not appear on a wire, or that TCP does not serve: broadcast and
    /// multicast on either side (RFC 1122 section 4.2.3.10, MUST-57), unspecified and loopback
    /// (RFC 1122 section 3.2.1.3), reserved (RFC 1112 section 4), and IPv4 dressed as IPv6.
    pub(super) fn refuse_martians(&self) -> Result<(), DropReason> {
        if is_martian(self.source) || is_martian(self.destination) {
            return Err(DropReason::Martian);
        }
        Ok(())
    }
}

fn is_martian(address: IpAddr) -> bool {
    match address {
        // From 224.0.0.0 on: multicast, reserved, limited broadcast.
        IpAddr::V4(v4) => matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => {
            v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_beside_the_martian_ranges_are_served() {
        for (address, martian) in [
            ("0.255.255.255", true),
            ("1.0.0.0", false),
            ("126.255.255.255", false),
            ("127.0.0.1", true),
            ("128.0.0.0", false),
            ("223.255.255.255", false),
            ("224.0.0.0", true),
            ("255.255.255.255", true),
            ("::", true),
            ("::1", true),
            ("::2", false),
            ("::ffff:1.2.3.4", true),
            ("64:ff9b::1.2.3.4", false),
            ("fe80::1", false),
            ("ff02::1", true),
        ] {
            assert_eq!(is_martian(address.parse().unwrap()), martian, "{address}");
        }
    }
}
