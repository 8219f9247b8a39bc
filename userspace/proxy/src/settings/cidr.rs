//! Networks in CIDR notation (RFC 4632): addresses that share their first bits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that begin as `address` does. The bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix_bits: u8,
}

impl Cidr {
    /// The lowest address of the network.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// How many of the first bits are given: at most 32 for IPv4, 128 for IPv6.
    #[must_use]
    pub const fn prefix_bits(self) -> u8 {
        self.prefix_bits
    }

    /// True if `address` is one of the network's.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && cut(address, self.prefix_bits) == self.address
    }
}

/// `address` with zeros behind its first `prefix_bits`.
fn cut(address: IpAddr, prefix_bits: u8) -> IpAddr {
    let behind = bits_of(address) - u32::from(prefix_bits);
    match address {
        // A shift by all bits has no result; then no bit is given.
        IpAddr::V4(v4) => {
            Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(behind).unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(behind).unwrap_or(0)).into()
        }
    }
}

const fn bits_of(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BITS,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl FromStr for Cidr {
    type Err = String;

    /// Reads `ADDRESS/BITS`. A network of one address is written out as such, so that a forgotten length
    /// is not taken for one.
    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a network, such as 192.0.2.0/24 or 2001:db8::/32";
        let Some((address, prefix_bits)) = text.split_once('/') else {
            let hint = text.parse().map_or(String::new(), |address: IpAddr| {
                format!("; for this one address, write {address}/{}", bits_of(address))
            });
            return Err(format!("found {text:?} without a length; {EXPECTED}{hint}"));
        };
        let address: IpAddr = address.parse().map_err(|_| format!("found {text:?}; {EXPECTED}"))?;
        let most = bits_of(address);
        let prefix_bits = prefix_bits
            .parse()
            .ok()
            .filter(|&bits: &u8| u32::from(bits) <= most)
            .ok_or_else(|| format!("found the length {prefix_bits:?}; expected 0 to {most} bits"))?;
        let network = Self { address: cut(address, prefix_bits), prefix_bits };
        if network.address != address {
            return Err(format!(
                "found {text:?}, an address inside of a network; expected the network; write {network}, \
                or {address}/{most} for this one address"
            ));
        }
        Ok(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_its_addresses_and_not_those_beside_it() {
        for (text, inside, outside) in [
            ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255"], ["192.0.1.255", "192.0.3.0"]),
            ("192.0.2.6/31", ["192.0.2.6", "192.0.2.7"], ["192.0.2.5", "192.0.2.8"]),
            ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff::1"], ["2001:db7::", "2001:db9::"]),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::", "2001:db8::1"]),
            ("::/0", ["::", "ffff::"], ["0.0.0.0", "192.0.2.1"]),
            ("192.0.2.1/32", ["192.0.2.1", "192.0.2.1"], ["192.0.2.0", "::ffff:192.0.2.1"]),
        ] {
            for address in inside {
                assert!(network(text).contains(address.parse().unwrap()), "{address} in {text}");
            }
            for address in outside {
                assert!(!network(text).contains(address.parse().unwrap()), "{address} in {text}");
            }
        }
    }

    #[test]
    fn a_network_is_shown_as_it_is_written() {
        for text in ["0.0.0.0/0", "192.0.2.0/24", "::1/128", "2001:db8::/32"] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(
            (network("10.0.0.0/8").address(), network("10.0.0.0/8").prefix_bits()),
            ([10, 0, 0, 0].into(), 8)
        );
    }

    #[test]
    fn what_is_no_network_is_answered_with_what_to_write() {
        for (text, answer) in [
            ("192.0.2.1", "without a length"),
            ("192.0.2.1", "for this one address, write 192.0.2.1/32"),
            ("::1", "write ::1/128"),
            ("example.com", "found \"example.com\" without a length; expected a network"),
            ("192.0.2/24", "found \"192.0.2/24\"; expected a network"),
            ("192.0.2.0/33", "found the length \"33\"; expected 0 to 32 bits"),
            ("::/129", "expected 0 to 128 bits"),
            ("::/-1", "found the length \"-1\""),
            ("::/", "found the length \"\""),
            ("192.0.2.1/24", "write 192.0.2.0/24, or 192.0.2.1/32"),
            ("2001:db8::1/127", "write 2001:db8::/127, or 2001:db8::1/128"),
        ] {
            let message = text.parse::<Cidr>().unwrap_err();
            assert!(message.contains(answer), "{text}: {message}");
        }
    }
}
