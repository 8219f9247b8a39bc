//! Keys and values of the maps, and how they lie in memory.
//!
//! ```text
//! addr      0 ┌ 16 bytes ─────────────┐          IPv4 is written ::ffff:a.b.c.d, so one map serves both families
//! listener  0 │ addr               16 │ port, network order, as it stands in the packet   18 │ zero │ 20
//! local     0 │ port_lo   2 │ port_hi   4 │ flags │ 8                          host order; lo > hi: no ports
//! prefix    0 │ bits     4 │ addr │ 20                                        the trie's own layout; bits in host order
//! ```

use core::net::{IpAddr, Ipv6Addr};
use core::ops::RangeInclusive;

/// An address of either family, as it stands in every key.
///
/// A packet that carries a mapped address on the wire cannot be confused with IPv4: the program leaves such
/// packets to the kernel, which discards them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Addr([u8; 16]);

impl Addr {
    /// Bytes in a map.
    pub const SIZE: usize = 16;

    /// The key for `ip`.
    #[must_use]
    pub const fn new(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        })
    }

    /// As it lies in a map.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::SIZE] {
        self.0
    }

    /// The reverse of [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Self(bytes)
    }

    /// The address, in its own family.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        Ipv6Addr::from_octets(self.0).to_canonical()
    }
}

/// An address and port that clients connect to. Exact: wildcards are expanded before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listener {
    /// The address.
    pub addr: Addr,
    /// The port.
    pub port: u16,
}

impl Listener {
    /// Bytes in a map.
    pub const SIZE: usize = 20;

    /// As it lies in a map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..16].copy_from_slice(&self.addr.to_bytes());
        bytes[16..18].copy_from_slice(&self.port.to_be_bytes());
        bytes
    }

    /// The reverse of [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let mut addr = [0; 16];
        addr.copy_from_slice(&bytes[..16]);
        Self { addr: Addr::from_bytes(addr), port: u16::from_be_bytes([bytes[16], bytes[17]]) }
    }
}

/// What we do at one of the host's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The ports from which we connect to Telegram, if this is a source address of ours.
    pub upstream: Option<RangeInclusive<u16>>,
    /// Nobody but us speaks TCP here, so a TCP fragment whose ports are unknown is none but ours.
    pub dedicated: bool,
}

impl Local {
    /// Bytes in a map.
    pub const SIZE: usize = 8;
    /// The flag for [`dedicated`](Self::dedicated).
    pub const DEDICATED: u32 = 1;

    /// As it lies in a map. No ports are written as a range that holds none.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let (lo, hi) = self.upstream.as_ref().map_or((1, 0), |range| (*range.start(), *range.end()));
        let flags = if self.dedicated { Self::DEDICATED } else { 0 };
        let mut bytes = [0; Self::SIZE];
        bytes[..2].copy_from_slice(&lo.to_ne_bytes());
        bytes[2..4].copy_from_slice(&hi.to_ne_bytes());
        bytes[4..].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }

    /// The reverse of [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [lo0, lo1, hi0, hi1, flags @ ..] = bytes;
        let range = u16::from_ne_bytes([lo0, lo1])..=u16::from_ne_bytes([hi0, hi1]);
        Self {
            upstream: (!range.is_empty()).then_some(range),
            dedicated: u32::from_ne_bytes(flags) & Self::DEDICATED != 0,
        }
    }
}

/// A prefix of addresses, of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    addr: Addr,
    bits: u32,
}

/// A prefix has more bits than its family's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixTooLong {
    /// What was asked for.
    pub bits: u8,
    /// What the family has.
    pub most: u8,
}

impl core::fmt::Display for PrefixTooLong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a prefix of {} bits, where addresses have {}", self.bits, self.most)
    }
}

impl core::error::Error for PrefixTooLong {}

impl Prefix {
    /// Bytes in a map.
    pub const SIZE: usize = 4 + Addr::SIZE;

    /// The prefix `ip/bits`; host bits may be set and are ignored, by the trie too.
    ///
    /// # Errors
    /// When `bits` is more than the family has.
    pub const fn new(ip: IpAddr, bits: u8) -> Result<Self, PrefixTooLong> {
        let (most, above) = match ip {
            IpAddr::V4(_) => (32, 96),
            IpAddr::V6(_) => (128, 0),
        };
        if bits > most {
            return Err(PrefixTooLong { bits, most });
        }
        Ok(Self { addr: Addr::new(ip), bits: above + bits as u32 })
    }

    /// The address with its host bits, in the 128-bit space.
    #[must_use]
    pub const fn addr(self) -> Addr {
        self.addr
    }

    /// Bits that count, in the 128-bit space: 96 more than IPv4's own.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_in_its_own_family() {
        for ip in ["192.0.2.1", "2001:db8::1", "::1", "0.0.0.0"] {
            let ip: IpAddr = ip.parse().expect("an address");
            assert_eq!(Addr::from_bytes(Addr::new(ip).to_bytes()).ip(), ip);
        }
    }

    #[test]
    fn what_is_written_into_a_map_is_read_back() {
        let listener = Listener { addr: Addr::new([192, 0, 2, 1].into()), port: 443 };
        assert_eq!(Listener::from_bytes(listener.to_bytes()), listener);
        assert_eq!(listener.to_bytes()[16..], [0x01, 0xbb, 0, 0]);
        for upstream in [None, Some(1..=1), Some(61_000..=65_535)] {
            for dedicated in [false, true] {
                let local = Local { upstream: upstream.clone(), dedicated };
                assert_eq!(Local::from_bytes(local.to_bytes()), local);
            }
        }
    }

    #[test]
    fn a_prefix_has_at_most_the_bits_of_its_family() {
        let v4: IpAddr = [10, 0, 0, 0].into();
        let v6: IpAddr = Ipv6Addr::UNSPECIFIED.into();
        assert_eq!(Prefix::new(v4, 32).map(Prefix::bits), Ok(128));
        assert_eq!(Prefix::new(v4, 0).map(Prefix::bits), Ok(96));
        assert_eq!(Prefix::new(v4, 33), Err(PrefixTooLong { bits: 33, most: 32 }));
        assert_eq!(Prefix::new(v6, 128).map(Prefix::bits), Ok(128));
        assert_eq!(Prefix::new(v6, 129), Err(PrefixTooLong { bits: 129, most: 128 }));
    }
}
