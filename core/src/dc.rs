//! Telegram's data centres: their numbers, and where to reach them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The data centre number in a client's init frame, signed as on the wire (protocol.md section 3.4).
///
/// `1..=5` production, `203` the CDN; a negative number is the media-only variant of the same data
/// centre; `10000 + n` is data centre `n` of the test environment; `0` means that the client did not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DcId(pub i16);

impl fmt::Display for DcId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which family to try first when a host has both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PreferIp {
    /// IPv4 first.
    #[default]
    V4,
    /// IPv6 first.
    V6,
}

impl PreferIp {
    /// `addresses`, those of the preferred family first, otherwise in the order given.
    #[must_use]
    pub fn order(self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut ordered = addresses.to_vec();
        ordered.sort_by_key(|address| address.is_ipv4() != (self == Self::V4));
        ordered
    }
}

/// Where each data centre is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DcTable {
    addresses: BTreeMap<DcId, Vec<SocketAddr>>,
    default: DcId,
}

impl DcTable {
    /// The public addresses (protocol.md section 8). `prefer` orders the families.
    #[must_use]
    pub fn builtin(prefer: PreferIp) -> Self {
        let mut addresses: BTreeMap<DcId, Vec<SocketAddr>> = BTreeMap::new();
        for &(id, ip) in BUILTIN {
            addresses.entry(DcId(id)).or_default().push(SocketAddr::new(ip, 443));
        }
        for list in addresses.values_mut() {
            *list = prefer.order(list);
        }
        // mtg's choice for a client that did not say, and the client library's own first data centre.
        Self { addresses, default: DcId(2) }
    }

    /// Replaces the addresses of `id`. The order given is the order tried.
    ///
    /// # Panics
    /// If `addresses` is empty: a data centre without an address is a configuration error.
    pub fn set(&mut self, id: DcId, addresses: Vec<SocketAddr>) {
        assert!(!addresses.is_empty(), "data centre {id} without an address");
        self.addresses.insert(id, addresses);
    }

    /// Names the data centre that serves unknown ids.
    pub fn set_default(&mut self, id: DcId) {
        self.default = id;
    }

    /// The addresses of `id`: its own entry, else that of its absolute value, else the default's.
    /// Empty only if the default itself has no entry.
    #[must_use]
    pub fn addresses(&self, id: DcId) -> &[SocketAddr] {
        let absolute = DcId(id.0.checked_abs().unwrap_or(i16::MAX));
        [id, absolute, self.default]
            .iter()
            .find_map(|candidate| self.addresses.get(candidate))
            .map_or(&[], Vec::as_slice)
    }

    /// Every entry in order of id.
    pub fn iter(&self) -> impl Iterator<Item = (DcId, &[SocketAddr])> {
        self.addresses.iter().map(|(&id, list)| (id, list.as_slice()))
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

#[rustfmt::skip]
#[allow(clippy::too_many_arguments, reason = "the eight groups of an IPv6 address")]
const fn v6(a: u16, b: u16, c: u16, d: u16, e: u16, f: u16, g: u16, h: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

/// protocol.md section 8: production, CDN, test environment.
const BUILTIN: &[(i16, IpAddr)] = &[
    (1, v4(149, 154, 175, 50)),
    (1, v6(0x2001, 0xb28, 0xf23d, 0xf001, 0, 0, 0, 0xa)),
    (2, v4(149, 154, 167, 51)),
    (2, v4(95, 161, 76, 100)),
    (2, v6(0x2001, 0x67c, 0x4e8, 0xf002, 0, 0, 0, 0xa)),
    (3, v4(149, 154, 175, 100)),
    (3, v6(0x2001, 0xb28, 0xf23d, 0xf003, 0, 0, 0, 0xa)),
    (4, v4(149, 154, 167, 91)),
    (4, v6(0x2001, 0x67c, 0x4e8, 0xf004, 0, 0, 0, 0xa)),
    (5, v4(149, 154, 171, 5)),
    (5, v6(0x2001, 0xb28, 0xf23f, 0xf005, 0, 0, 0, 0xa)),
    (203, v4(91, 105, 192, 100)),
    (203, v6(0x2a0a, 0xf280, 0x203, 0xa, 0x5000, 0, 0, 0x100)),
    (10001, v4(149, 154, 175, 10)),
    (10001, v6(0x2001, 0xb28, 0xf23d, 0xf001, 0, 0, 0, 0xe)),
    (10002, v4(149, 154, 167, 40)),
    (10002, v6(0x2001, 0x67c, 0x4e8, 0xf002, 0, 0, 0, 0xe)),
    (10003, v4(149, 154, 175, 117)),
    (10003, v6(0x2001, 0xb28, 0xf23d, 0xf003, 0, 0, 0, 0xe)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_id_falls_back_to_its_absolute_value_and_then_to_the_default() {
        let mut table = DcTable::builtin(PreferIp::V4);
        assert_eq!(table.addresses(DcId(-4)), table.addresses(DcId(4)));
        assert_eq!(table.addresses(DcId(-10002)), table.addresses(DcId(10002)));
        for unknown in [0, 6, -6, 999, i16::MIN, i16::MAX] {
            assert_eq!(table.addresses(DcId(unknown)), table.addresses(DcId(2)), "{unknown}");
        }
        table.set(DcId(-4), vec![address("192.0.2.4:80")]);
        assert_eq!(table.addresses(DcId(-4)), [address("192.0.2.4:80")]);
        assert_eq!(table.addresses(DcId(4))[0], address("149.154.167.91:443"));
    }

    #[test]
    fn an_override_replaces_the_whole_entry_and_keeps_its_order() {
        let mut table = DcTable::builtin(PreferIp::V4);
        let own = vec![address("[2001:db8::2]:1"), address("192.0.2.2:2")];
        table.set(DcId(2), own.clone());
        assert_eq!(table.addresses(DcId(2)), own);
        assert_eq!(table.addresses(DcId(-2)), own);
    }

    #[test]
    fn the_preferred_family_comes_first() {
        let first = |prefer| DcTable::builtin(prefer).addresses(DcId(203))[0];
        assert_eq!(first(PreferIp::V4), address("91.105.192.100:443"));
        assert_eq!(first(PreferIp::V6), address("[2a0a:f280:203:a:5000::100]:443"));
    }

    #[test]
    fn every_production_dc_has_both_families() {
        let table = DcTable::builtin(PreferIp::V4);
        for id in [1, 2, 3, 4, 5, 203] {
            let list = table.addresses(DcId(id));
            assert!(list.iter().any(SocketAddr::is_ipv4) && list.iter().any(SocketAddr::is_ipv6), "{id}");
        }
    }
}
