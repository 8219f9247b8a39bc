//! Own ends for clients' connections, used in turn.
//!
//! Left to the kernel, a client that connects thousands of times a second soon looks for a port whose
//! last connection is no longer in TIME-WAIT, and measures that search.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Above what services use. Nobody else may connect from these addresses.
const PORTS: Range<u16> = 10_000..60_000;

/// Addresses with all of their ports.
#[derive(Debug)]
pub struct Sources {
    ips: Vec<Ipv4Addr>,
    next: AtomicU32,
}

impl Sources {
    /// Those of `ips`.
    #[must_use]
    pub fn new(ips: Vec<Ipv4Addr>) -> Self {
        Self { ips, next: AtomicU32::new(0) }
    }

    /// The one that has not been used for longest; any if there are no addresses.
    #[must_use]
    pub fn next(&self) -> SocketAddr {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        let Some(ip) = self.ips.get(ticket % self.ips.len().max(1)) else {
            return (Ipv4Addr::UNSPECIFIED, 0).into();
        };
        let turn = ticket / self.ips.len() % PORTS.len();
        (*ip, PORTS.start + u16::try_from(turn).unwrap_or_default()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_end_is_used_twice_before_all_have_been() {
        let sources = Sources::new(vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]);
        let all: Vec<SocketAddr> = (0..2 * PORTS.len()).map(|_| sources.next()).collect();
        let distinct: std::collections::HashSet<&SocketAddr> = all.iter().collect();
        assert_eq!(distinct.len(), 2 * PORTS.len());
        assert_eq!(sources.next(), all[0]);
    }
}
