//! Numbers that nobody outside can foretell: initial sequence numbers and timestamp offsets. All of them
//! come from one seed, which all shards of a process share: a SYN and its ACK may meet two of them.
//!
//! SYN cookies, from the same seed, are in [`cookie`](crate::cookie).

use std::fmt;
use std::hash::Hasher;
use std::net::SocketAddr;

use siphasher::sip::SipHasher24;

use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::tuple_bytes::TupleBytes;

/// What a hash is for, so that no number of one kind tells anything of another.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Purpose {
    SequenceNumber,
    TimestampOffset,
    Cookie,
    TableKey,
}

/// Keys of a process. Never printed.
#[derive(Clone)]
pub struct Secrets {
    numbers: SipHasher24,
    cookies: SipHasher24,
}

impl Secrets {
    /// Keys from 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let (numbers, cookies) = seed.split_at(16);
        let key = |half: &[u8]| SipHasher24::new_with_key(half.first_chunk().expect("half of 32 bytes"));
        Self { numbers: key(numbers), cookies: key(cookies) }
    }

    /// The initial send sequence number of RFC 6528: a clock of 4 microseconds (MUST-8) plus a keyed hash
    /// of the tuple (MUST-9), so that an old incarnation's segments lie behind a new one's.
    #[must_use]
    pub fn isn(&self, now: Instant, local: SocketAddr, remote: SocketAddr) -> SeqNumber {
        // The clock wraps every 4.77 hours, as the RFC wants it.
        let clock = (now.as_micros() / 4) as u32;
        SeqNumber(clock).plus(self.number(Purpose::SequenceNumber, local, remote))
    }

    /// What a connection adds to the [timestamp clock](timestamp_clock), so that timestamps tell strangers
    /// nothing of it, and yet grow from one incarnation to the next (RFC 7323 section 5.4).
    #[must_use]
    pub fn timestamp_offset(&self, local: SocketAddr, remote: SocketAddr) -> u32 {
        self.number(Purpose::TimestampOffset, local, remote)
    }

    /// The key of table number `table`, for [`FlowTable`](crate::flow_table::FlowTable).
    #[must_use]
    pub fn table_key(&self, table: u32) -> [u8; 16] {
        let half = |half: u8| {
            let mut hasher = self.numbers;
            hasher.write_u8(Purpose::TableKey as u8);
            hasher.write_u32(table);
            hasher.write_u8(half);
            hasher.finish().to_le_bytes()
        };
        let mut key = [0; 16];
        key[..8].copy_from_slice(&half(0));
        key[8..].copy_from_slice(&half(1));
        key
    }

    fn number(&self, purpose: Purpose, local: SocketAddr, remote: SocketAddr) -> u32 {
        self.numbers.hash(TupleBytes::new(purpose as u8, local, remote).as_slice()) as u32
    }

    /// The keyed hash behind a cookie.
    pub(crate) fn cookie_hash(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        irs: SeqNumber,
        tick: u64,
    ) -> u32 {
        let mut hasher = self.cookies;
        hasher.write(TupleBytes::new(Purpose::Cookie as u8, local, remote).as_slice());
        hasher.write_u32(irs.0);
        hasher.write_u64(tick);
        hasher.finish() as u32
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// The clock of TSval: milliseconds, as Linux counts (TCP_TS_HZ), and within RFC 7323 section 5.4.
#[must_use]
pub fn timestamp_clock(now: Instant) -> u32 {
    // Wraps every 49 days: PAWS expects that (RFC 7323 section 5.2).
    (now.as_micros() / 1000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn secrets() -> Secrets {
        Secrets::from_seed(std::array::from_fn(|i| u8::try_from(i).unwrap()))
    }

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn sequence_numbers_advance_by_one_in_four_microseconds() {
        let (local, remote) = (at("192.0.2.1:443"), at("198.51.100.2:40000"));
        let first = secrets().isn(Instant::from_micros(1_000_000), local, remote);
        for (later, advance) in [(3, 0), (4, 1), (1_000_000, 250_000)] {
            let second = secrets().isn(Instant::from_micros(1_000_000 + later), local, remote);
            assert_eq!(second - first, advance);
        }
    }

    #[test]
    fn every_part_of_the_tuple_and_of_the_seed_moves_the_numbers() {
        let now = Instant::from_micros(0);
        let tuples = [
            ("192.0.2.1:443", "198.51.100.2:40000"),
            ("192.0.2.2:443", "198.51.100.2:40000"),
            ("192.0.2.1:444", "198.51.100.2:40000"),
            ("192.0.2.1:443", "198.51.100.3:40000"),
            ("192.0.2.1:443", "198.51.100.2:40001"),
            ("198.51.100.2:40000", "192.0.2.1:443"),
            ("[2001:db8::1]:443", "[2001:db8::2]:40000"),
            ("[2001:db8::2]:443", "[2001:db8::1]:40000"),
        ];
        let mut numbers = HashSet::new();
        for seed in [[0; 32], [1; 32]] {
            let secrets = Secrets::from_seed(seed);
            for (local, remote) in tuples {
                assert!(numbers.insert(secrets.isn(now, at(local), at(remote)).0));
                assert!(numbers.insert(secrets.timestamp_offset(at(local), at(remote))));
            }
        }
    }

    #[test]
    fn tables_have_keys_of_their_own() {
        let secrets = secrets();
        assert_ne!(secrets.table_key(0), secrets.table_key(1));
        assert_eq!(secrets.table_key(7), secrets.clone().table_key(7));
        let key = secrets.table_key(0);
        assert_ne!(key[..8], key[8..]);
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", secrets()), "Secrets(..)");
    }
}
