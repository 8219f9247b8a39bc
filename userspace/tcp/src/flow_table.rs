//! From a four-tuple to a dense index.
//!
//! The table holds indices only, 6 bytes a flow in a full table; the tuples lie in the caller's slab, next to
//! what a found flow is wanted for. Strangers choose the tuples, so that the hash is keyed (SipHash-1-3): without
//! the key nobody can make tuples that collide.

use std::fmt;
use std::net::SocketAddr;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::tuple_bytes::TupleBytes;

/// A map from (local, remote) to `u32`.
pub struct FlowTable {
    hasher: SipHasher13,
    indices: HashTable<u32>,
}

impl FlowTable {
    /// An empty table, of a key that nobody outside knows.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self { hasher: SipHasher13::new_with_key(&key), indices: HashTable::new() }
    }

    /// The index of the flow, if there is one. `is` says whether an index is of this very tuple.
    pub fn find(&self, local: SocketAddr, remote: SocketAddr, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.indices.find(self.hash(local, remote), |index| is(*index)).copied()
    }

    /// Adds a flow that is not in the table. `tuple_of` answers (local, remote) of the indices that are in:
    /// a growing table asks for all of them.
    pub fn insert(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        index: u32,
        tuple_of: impl Fn(u32) -> (SocketAddr, SocketAddr),
    ) {
        let hash = self.hash(local, remote);
        let hasher = self.hasher;
        self.indices.insert_unique(hash, index, |index| {
            let (local, remote) = tuple_of(*index);
            hash_of(&hasher, local, remote)
        });
    }

    /// Removes the flow that has this index. False if it is not in the table.
    pub fn remove(&mut self, local: SocketAddr, remote: SocketAddr, index: u32) -> bool {
        let hash = self.hash(local, remote);
        match self.indices.find_entry(hash, |known| *known == index) {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        }
    }

    /// Makes room for so many more flows, so that none of them makes the table grow.
    pub fn reserve(&mut self, more: usize, tuple_of: impl Fn(u32) -> (SocketAddr, SocketAddr)) {
        let hasher = self.hasher;
        self.indices.reserve(more, |index| {
            let (local, remote) = tuple_of(*index);
            hash_of(&hasher, local, remote)
        });
    }

    /// Flows in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// True if there is no flow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    fn hash(&self, local: SocketAddr, remote: SocketAddr) -> u64 {
        hash_of(&self.hasher, local, remote)
    }
}

impl fmt::Debug for FlowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowTable").field("len", &self.len()).finish_non_exhaustive()
    }
}

fn hash_of(hasher: &SipHasher13, local: SocketAddr, remote: SocketAddr) -> u64 {
    hasher.hash(TupleBytes::new(0, local, remote).as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    type Tuple = (SocketAddr, SocketAddr);

    fn endpoint() -> impl Strategy<Value = SocketAddr> {
        (0_u32..4, 0_u16..4, any::<bool>()).prop_map(|(ip, port, v4)| {
            let v4_ip = IpAddr::V4(Ipv4Addr::from_bits(ip));
            let v6_ip = IpAddr::V6(Ipv6Addr::from_bits(ip.into()));
            SocketAddr::new(if v4 { v4_ip } else { v6_ip }, port)
        })
    }

    #[test]
    fn a_reserved_table_does_not_rehash() {
        let mut table = FlowTable::new([1; 16]);
        table.reserve(1000, |_| unreachable!("empty"));
        let local = "192.0.2.1:443".parse().unwrap();
        for index in 0..1000 {
            let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(index)), 1);
            table.insert(local, remote, index, |_| unreachable!("room was reserved"));
        }
        assert_eq!(table.len(), 1000);
    }

    proptest! {
        #[test]
        fn the_table_is_a_map(steps in proptest::collection::vec((endpoint(), endpoint(), any::<bool>()), 0..200)) {
            let mut table = FlowTable::new([7; 16]);
            let mut slab: Vec<Tuple> = Vec::new();
            let mut model: HashMap<Tuple, u32> = HashMap::new();
            for (local, remote, insert) in steps {
                let tuple = (local, remote);
                let found = table.find(local, remote, |index| slab[index as usize] == tuple);
                prop_assert_eq!(found, model.get(&tuple).copied());
                match (insert, found) {
                    (true, None) => {
                        let index = u32::try_from(slab.len()).unwrap();
                        slab.push(tuple);
                        table.insert(local, remote, index, |index| slab[index as usize]);
                        model.insert(tuple, index);
                    }
                    (false, Some(index)) => {
                        prop_assert!(table.remove(local, remote, index));
                        prop_assert!(!table.remove(local, remote, index));
                        model.remove(&tuple);
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.is_empty(), model.is_empty());
            }
        }
    }
}
