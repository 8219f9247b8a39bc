//! On which receive queue a packet arrives: Toeplitz' hash and the table behind it.
//!
//! ```text
//!   remote ip ┐
//!   local ip  │  hash                 low bits           table
//!   remote port├──────► 32 bits ─────────────► entry ─────────────► queue
//!   local port┘
//! ```
//! The hash is linear over XOR: that of the whole input is the XOR of what each of its bytes contributes at
//! its place. So everything but the local port is hashed once a flow, and a candidate port costs two loads
//! from a table of 2 KiB that stays in the nearest cache; one table for all 65 536 ports would save one
//! XOR and take 256 KiB.
//!
//! Direction: source and destination are those of the packet that *arrives*, so its source is the remote end.
//!
//! Origin: "Introduction to Receive Side Scaling" and "Verifying the RSS Hash Calculation", Microsoft, Windows
//! driver documentation. Linux devices compute the same.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::facts::{Facts, Rss};

/// Both addresses of IPv6 and both ports: the longest input.
const INPUT_MAX_BYTES: usize = 36;
/// Each input bit selects 32 bits of key, so the last one reaches four bytes beyond.
const KEY_MIN_BYTES: usize = INPUT_MAX_BYTES + 4;

/// What one input byte contributes to the hash, by its value.
type Contribution = [u32; 256];

/// The hash under one key, with the table that turns it into a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toeplitz {
    /// By the place of the input byte.
    contributions: Box<[Contribution]>,
    /// Its length is a power of two.
    table: Box<[u32]>,
}

/// Which queue a packet of a flow arrives on, as far as it can be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueOf {
    /// There is one queue.
    Single,
    /// The device tells how it computes it.
    Toeplitz(Arc<Toeplitz>),
    /// The device does not tell.
    Unknown,
}

/// The same for one flow whose local port is still open.
#[derive(Clone, Copy, Debug)]
pub enum QueueOfPort<'a> {
    /// There is one queue.
    Single,
    /// All but the port, hashed.
    Toeplitz {
        /// Hash with the local port zero.
        base: u32,
        /// What the port's two bytes contribute.
        high: &'a [u32; 256],
        /// The lower byte.
        low: &'a [u32; 256],
        /// The queue by the hash's low bits.
        table: &'a [u32],
    },
    /// The device does not tell.
    Unknown,
}

impl Toeplitz {
    /// The hash under `key`, and `table` by its low bits.
    ///
    /// `None` if the key is too short for IPv6, or the length of the table no power of two: then the device
    /// computes something else.
    #[must_use]
    pub fn new(key: &[u8], table: &[u32]) -> Option<Self> {
        if key.len() < KEY_MIN_BYTES || !table.len().is_power_of_two() {
            return None;
        }
        let contributions = (0..INPUT_MAX_BYTES).map(|place| contribution(key, place)).collect();
        Some(Self { contributions, table: table.into() })
    }

    /// Hash of a packet that comes from `remote` to `local`. Zero if they are not of one family.
    #[must_use]
    pub fn hash(&self, local: SocketAddr, remote: SocketAddr) -> u32 {
        let (base, port_place) = self.hash_without_port(local.ip(), remote);
        let [high, low] = local.port().to_be_bytes().map(usize::from);
        base ^ self.contributions[port_place][high] ^ self.contributions[port_place + 1][low]
    }

    /// The hash with the local port zero, and the place of the local port.
    fn hash_without_port(&self, local: IpAddr, remote: SocketAddr) -> (u32, usize) {
        let mut hash = 0;
        let mut place = 0;
        let mut put = |bytes: &[u8]| {
            for &byte in bytes {
                hash ^= self.contributions[place][usize::from(byte)];
                place += 1;
            }
        };
        match (remote.ip(), local) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                put(&from.octets());
                put(&to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                put(&from.octets());
                put(&to.octets());
            }
            // No packet has addresses of both families.
            _ => {}
        }
        put(&remote.port().to_be_bytes());
        (hash, place)
    }
}

/// What the input byte at `place` contributes: for each of its bits that is set, the 32 bits of key that
/// begin at that bit.
fn contribution(key: &[u8], place: usize) -> Contribution {
    let mut window = [0; 8];
    window[..5].copy_from_slice(&key[place..place + 5]);
    let window = u64::from_be_bytes(window);
    let of_bit = |bit: u32| (window << bit >> 32) as u32;
    std::array::from_fn(|byte| {
        (0..8).filter(|bit| byte & (0x80 >> bit) != 0).fold(0, |hash, bit| hash ^ of_bit(bit))
    })
}

impl QueueOf {
    /// What the facts about an interface say.
    #[must_use]
    pub fn new(facts: &Facts) -> Self {
        match (&facts.receive_queues, &facts.rss) {
            (Ok(1), _) => Self::Single,
            (_, Ok(Some(rss))) => Self::from_rss(rss),
            _ => Self::Unknown,
        }
    }

    fn from_rss(rss: &Rss) -> Self {
        if !rss.is_toeplitz || rss.is_symmetric || !rss.hashes_four_tuple {
            return Self::Unknown;
        }
        Toeplitz::new(&rss.key, &rss.table)
            .map_or(Self::Unknown, |toeplitz| Self::Toeplitz(Arc::new(toeplitz)))
    }

    /// The queue on which a packet from `remote` to `local` arrives.
    #[must_use]
    pub fn queue(&self, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        self.of_flow(local.ip(), remote).queue(local.port())
    }

    /// The same, for many ports of `local`.
    #[must_use]
    pub fn of_flow(&self, local: IpAddr, remote: SocketAddr) -> QueueOfPort<'_> {
        match self {
            Self::Single => QueueOfPort::Single,
            Self::Unknown => QueueOfPort::Unknown,
            Self::Toeplitz(toeplitz) => {
                let (base, place) = toeplitz.hash_without_port(local, remote);
                QueueOfPort::Toeplitz {
                    base,
                    high: &toeplitz.contributions[place],
                    low: &toeplitz.contributions[place + 1],
                    table: &toeplitz.table,
                }
            }
        }
    }
}

impl QueueOfPort<'_> {
    /// The queue on which a packet to the local port `port` arrives.
    #[must_use]
    pub fn queue(&self, port: u16) -> Option<u32> {
        match self {
            Self::Single => Some(0),
            Self::Unknown => None,
            Self::Toeplitz { base, high, low, table } => {
                let [first, second] = port.to_be_bytes().map(usize::from);
                let hash = base ^ high[first] ^ low[second];
                Some(table[hash as usize & (table.len() - 1)])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The key of Microsoft's verification suite.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    /// Destination, source, hash with ports: "Verifying the RSS Hash Calculation", tables for IPv4 and IPv6.
    const KNOWN_ANSWERS: [(&str, &str, u32); 8] = [
        ("161.142.100.80:1766", "66.9.149.187:2794", 0x51cc_c178),
        ("65.69.140.83:4739", "199.92.111.2:14230", 0xc626_b0ea),
        ("12.22.207.184:38024", "24.19.198.95:12898", 0x5c2b_394a),
        ("209.142.163.6:2217", "38.27.205.30:48228", 0xafc7_327f),
        ("202.188.127.2:1303", "153.39.163.191:44251", 0x10e8_28a2),
        ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x4020_7d3d),
        ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0xdde5_1bbf),
        ("[fe80::200:f8ff:fe21:67cf]:38024", "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", 0x02d1_feef),
    ];

    fn toeplitz(queues: u32) -> QueueOf {
        let table: Vec<u32> = (0..128).map(|entry| entry % queues).collect();
        QueueOf::Toeplitz(Arc::new(Toeplitz::new(&KEY, &table).unwrap()))
    }

    #[test]
    fn the_hash_gives_the_answers_of_the_verification_suite() {
        let toeplitz = Toeplitz::new(&KEY, &[0]).unwrap();
        for (to, from, expected) in KNOWN_ANSWERS {
            let hash = toeplitz.hash(to.parse().unwrap(), from.parse().unwrap());
            assert_eq!(hash, expected, "{from} to {to}: {hash:08x}");
        }
    }

    #[test]
    fn the_low_bits_of_the_hash_choose_the_entry() {
        // 0x51ccc178 & 127 = 0x78 = 120, and 120 % 7 = 1.
        let (to, from, _) = KNOWN_ANSWERS[0];
        assert_eq!(toeplitz(7).queue(to.parse().unwrap(), from.parse().unwrap()), Some(1));
    }

    #[test]
    fn a_short_key_or_an_odd_table_is_not_guessed_at() {
        assert!(Toeplitz::new(&KEY[..39], &[0, 1]).is_none());
        assert!(Toeplitz::new(&KEY, &[0, 1]).is_some());
        assert!(Toeplitz::new(&KEY, &[0, 1, 2]).is_none());
        assert!(Toeplitz::new(&KEY, &[]).is_none());
    }

    #[test]
    fn another_function_symmetric_input_or_other_fields_are_unknown() {
        let known = Rss {
            is_toeplitz: true,
            is_symmetric: false,
            hashes_four_tuple: true,
            key: KEY.to_vec(),
            table: vec![0, 1],
        };
        assert!(matches!(QueueOf::from_rss(&known), QueueOf::Toeplitz(_)));
        for unknown in [
            Rss { is_toeplitz: false, ..known.clone() },
            Rss { is_symmetric: true, ..known.clone() },
            Rss { hashes_four_tuple: false, ..known.clone() },
        ] {
            assert_eq!(QueueOf::from_rss(&unknown), QueueOf::Unknown);
        }
    }

    #[test]
    fn one_queue_is_zero_and_an_untold_one_is_none() {
        let (to, from, _) = KNOWN_ANSWERS[0];
        let (to, from) = (to.parse().unwrap(), from.parse().unwrap());
        assert_eq!(QueueOf::Single.queue(to, from), Some(0));
        assert_eq!(QueueOf::Unknown.queue(to, from), None);
    }

    proptest! {
        #[test]
        fn a_candidate_port_has_the_queue_of_the_whole_flow(
            local: [u8; 16], remote: [u8; 16], remote_port: u16, port: u16, v6: bool,
        ) {
            let ip = |bytes: [u8; 16]| match v6 {
                true => IpAddr::from(bytes),
                false => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
            };
            let (local, remote) = (ip(local), SocketAddr::new(ip(remote), remote_port));
            let QueueOf::Toeplitz(hash) = toeplitz(5) else { unreachable!() };
            let entry = hash.hash(SocketAddr::new(local, port), remote) & 127;
            prop_assert_eq!(toeplitz(5).of_flow(local, remote).queue(port), Some(entry % 5));
        }
    }
}
