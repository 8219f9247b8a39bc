//! Which ports the kernel gives to its own connections, and which it keeps off; whether it forwards.
//!
//! Reference: `Documentation/networking/ip-sysctl.rst`. IPv6 follows the settings below `ipv4` too.

use std::{fs, io};

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// True if `port` is one of these.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// `net.ipv4.ip_local_port_range` of this thread's network namespace.
pub(crate) fn ephemeral_ports() -> io::Result<PortRange> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    parse_range(&text).ok_or_else(|| unexpected(&text))
}

/// `net.ipv4.ip_local_reserved_ports` of this thread's network namespace.
pub(crate) fn reserved_ports() -> io::Result<Vec<PortRange>> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports")?;
    parse_list(&text).ok_or_else(|| unexpected(&text))
}

/// `net.ipv4.ip_forward` of this thread's network namespace.
pub(crate) fn forwards_ipv4() -> io::Result<bool> {
    Ok(fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?.trim() != "0")
}

fn unexpected(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("found {:?} where ports are expected", text.trim()))
}

fn range(first: &str, last: &str) -> Option<PortRange> {
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(PortRange { first, last })
}

/// Two numbers with white space between.
fn parse_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    range(first, last)
}

/// Ports and ranges with commas between; may be empty.
fn parse_list(text: &str) -> Option<Vec<PortRange>> {
    let items = text.trim().split(',').filter(|item| !item.is_empty());
    items
        .map(|item| {
            item.split_once('-').map_or_else(|| range(item, item), |(first, last)| range(first, last))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_numbers_in_order() {
        assert_eq!(parse_range("32768\t60999\n"), Some(PortRange { first: 32768, last: 60999 }));
        for text in ["", "1", "2 1", "1 65536", "a b"] {
            assert_eq!(parse_range(text), None, "{text}");
        }
    }

    #[test]
    fn a_list_has_ports_and_ranges() {
        assert_eq!(parse_list("\n"), Some(vec![]));
        let expected = vec![PortRange { first: 80, last: 80 }, PortRange { first: 61000, last: 62000 }];
        assert_eq!(parse_list("80,61000-62000\n"), Some(expected));
        assert_eq!(parse_list("80,x"), None);
    }

    #[test]
    fn both_ends_belong_to_a_range() {
        let range = PortRange { first: 10, last: 12 };
        assert_eq!([9, 10, 12, 13].map(|port| range.contains(port)), [false, true, true, false]);
        assert_eq!(range.to_string(), "10-12");
    }
}
