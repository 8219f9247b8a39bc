//! SipHash-1-3 under a key drawn at start, for tables whose keys a stranger chooses.
//!
//! With a public hash a stranger could fill one bucket and make every look-up walk it.

use std::hash::{BuildHasher, Hash};

use siphasher::sip::SipHasher13;

use crate::random::Random;

/// A keyed hash function; also the `BuildHasher` of hash tables.
#[derive(Clone, Copy)]
pub struct KeyedHash {
    key: (u64, u64),
}

impl KeyedHash {
    /// A hash function nobody outside this process can predict.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        Self { key: (u64::from_le_bytes(random.bytes()), u64::from_le_bytes(random.bytes())) }
    }

    pub(crate) fn of(&self, value: &impl Hash) -> u64 {
        self.hash_one(value)
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.key.0, self.key.1)
    }
}

impl std::fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedHash(..)")
    }
}
