//! Which addresses of a data centre or front to try first: those that did not fail lately.
//!
//! Without it a host whose IPv6 route is broken would make each client wait for the dial timeout before
//! IPv4 is tried.

use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Instant;

/// How long a failure counts. Long enough to spare most clients, short enough to notice a repair.
const FAILURE_COUNTS_FOR: Duration = Duration::from_secs(60);
/// More addresses than any deployment has; beyond it the oldest failure is forgotten.
const FAILURES_MAX: usize = 64;

/// The addresses that failed lately.
#[derive(Debug, Default)]
pub struct AddressMemory {
    failures: Vec<(SocketAddr, Instant)>,
}

impl AddressMemory {
    /// `addresses` in the order to try: those that failed lately last, otherwise as given.
    #[must_use]
    pub fn order(&self, addresses: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let mut ordered = addresses.to_vec();
        if !self.failures.is_empty() {
            ordered.sort_by_key(|address| self.failed_lately(address, now));
        }
        ordered
    }

    /// `address` did not answer.
    pub fn failed(&mut self, address: SocketAddr, now: Instant) {
        self.answered(address);
        if self.failures.len() == FAILURES_MAX {
            self.failures.remove(0);
        }
        self.failures.push((address, now));
    }

    /// `address` answered: its failures are forgiven.
    pub fn answered(&mut self, address: SocketAddr) {
        self.failures.retain(|(failed, _)| *failed != address);
    }

    fn failed_lately(&self, address: &SocketAddr, now: Instant) -> bool {
        self.failures.iter().any(|(failed, at)| failed == address && now.since(*at) < FAILURE_COUNTS_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn at(seconds: u64) -> Instant {
        Instant::after_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn an_address_that_failed_is_tried_last_for_a_minute_or_until_it_answers() {
        let all = [address(1), address(2), address(3)];
        let mut memory = AddressMemory::default();
        memory.failed(address(1), at(0));
        assert_eq!(memory.order(&all, at(59)), [address(2), address(3), address(1)]);
        assert_eq!(memory.order(&all, at(60)), all);
        memory.failed(address(1), at(100));
        memory.answered(address(1));
        assert_eq!(memory.order(&all, at(100)), all);
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let mut memory = AddressMemory::default();
        for port in 0..=64 {
            memory.failed(address(port), at(1));
        }
        assert_eq!(memory.failures.len(), FAILURES_MAX);
        assert_eq!(memory.order(&[address(64), address(0)], at(1)), [address(0), address(64)]);
    }
}
