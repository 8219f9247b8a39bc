//! The name of a session, which streams and deadlines carry without knowing sessions.

use slotmap::{DefaultKey, Key, KeyData};

/// Name of a session within its engine. Never means another session while the engine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionKey(pub(crate) DefaultKey);

impl SessionKey {
    /// The whole name in 64 bits.
    pub(crate) fn to_u64(self) -> u64 {
        self.0.data().as_ffi()
    }

    /// The inverse of [`to_u64`](Self::to_u64). Any number is a name, but perhaps nobody's.
    pub(crate) fn from_u64(value: u64) -> Self {
        Self(KeyData::from_ffi(value).into())
    }

    /// The place of this session among those open now: small, dense, reused.
    pub(crate) fn slot(self) -> usize {
        (self.0.data().as_ffi() & 0xffff_ffff) as usize
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use slotmap::SlotMap;

    /// Distinct keys, for tests of tables that are indexed by them.
    pub(crate) fn session_keys(count: usize) -> Vec<SessionKey> {
        let mut table = SlotMap::new();
        (0..count).map(|_| SessionKey(table.insert(()))).collect()
    }
}
