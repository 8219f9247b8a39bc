//! A middle proxy's address as the owner of a pool: found or made, kept, and forgotten (policies.md sections 2.1 to 2.8).
//!
//! The C proxy keeps targets in one hash table for all threads, with lists that are read without locks. An engine here
//! has its own few, in a table with names that are never reused. What is left to decide is typed below; of what fell
//! away docs/wave_a_status.md says why.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// By which family a target is kept (section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetFamily {
    /// An IPv4 address, also one that is written as an IPv6 one: it is the same middle proxy.
    V4,
    /// Any other IPv6 address.
    V6,
}

/// What a target is known by: two that are spelled differently and mean the same address are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetId(SocketAddr);

impl TargetId {
    /// The identity of the target at `address`.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        Self(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Its family. In the C proxy a zero IPv4 address stands for "look at the IPv6 one".
    #[must_use]
    pub fn family(self) -> TargetFamily {
        match self.0.ip() {
            IpAddr::V4(_) => TargetFamily::V4,
            IpAddr::V6(_) => TargetFamily::V6,
        }
    }

    /// The address that is dialled.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

/// Slots of the C proxy's table of targets; a prime number.
pub const C_TABLE_SLOTS: u64 = 99_961;

/// The slot of a target in the C proxy's table (section 2.1), for code that still has one. `kind` is the number of the
/// connection type; there it is an address in memory.
#[must_use]
pub fn c_table_slot(kind: u64, id: TargetId) -> u64 {
    let mix = |hash: u64, factor: u64, part: u64| hash.wrapping_mul(factor).wrapping_add(part);
    let hash = match id.address().ip() {
        IpAddr::V4(ip) => mix(kind, 0x0aba_caba, ip.to_bits().into()) % C_TABLE_SLOTS,
        IpAddr::V6(ip) => ip
            .octets()
            .chunks_exact(4)
            .map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])))
            .fold(kind, |hash, word| mix(hash, 17_239, word)),
    };
    mix(hash, 239, id.address().port().into()) % C_TABLE_SLOTS
}

/// Why a target is looked for (sections 2.1 and 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Creating: the first look.
    Find,
    /// Creating: nothing was found.
    Insert,
    /// Freeing.
    Delete,
}

/// What a look leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// Use the one that is there.
    Found,
    /// There is none.
    Missing,
    /// Put it into the table.
    Link,
    /// Take it out of the table.
    Unlink,
    /// The table is not what it must be: it has the one that is inserted, or lacks the one that is deleted.
    Broken,
}

/// Section 2.2.
#[must_use]
pub fn looked(lookup: Lookup, is_there: bool) -> Looked {
    match (lookup, is_there) {
        (Lookup::Find, true) => Looked::Found,
        (Lookup::Find, false) => Looked::Missing,
        (Lookup::Insert, false) => Looked::Link,
        (Lookup::Delete, true) => Looked::Unlink,
        (Lookup::Insert, true) | (Lookup::Delete, false) => Looked::Broken,
    }
}

/// What naming a target in a configuration leads to (section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// It is there and in use: its limits are overwritten. The C proxy reports 0.
    Reuse,
    /// It is there and had been given up: used again. The C proxy reports 2.
    Revive,
    /// A new one. The C proxy reports 1.
    Allocate,
}

impl Create {
    /// What the C proxy reports.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Reuse => 0,
            Self::Allocate => 1,
            Self::Revive => 2,
        }
    }
}

/// Section 2.3. `named_by` is by how many configurations the target is named before; `None`: there is none.
#[must_use]
pub fn create(named_by: Option<usize>) -> Create {
    match named_by {
        None => Create::Allocate,
        Some(0) => Create::Revive,
        Some(_) => Create::Reuse,
    }
}

/// What giving up a name of a target leads to (section 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroy {
    /// Others still name it.
    Keep,
    /// It is looked after until its pool is empty.
    Retire,
}

/// Section 2.4; `named_by` counts the names that are left.
#[must_use]
pub fn destroy(named_by: usize) -> Destroy {
    if named_by == 0 { Destroy::Retire } else { Destroy::Keep }
}

/// What a look at a target does (section 2.5). The C proxy looks ten times a second; here it is looked at when
/// something has happened or is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// Dial what the pool lacks.
    Fill,
    /// Close connections that nobody needs.
    CleanUp,
    /// Forget the target.
    Free,
}

/// Sections 2.5 and 2.7: `connections` counts those that are open or being dialled.
#[must_use]
pub fn tick(is_named: bool, connections: usize) -> Tick {
    match (is_named, connections) {
        (true, _) => Tick::Fill,
        (false, 0) => Tick::Free,
        (false, _) => Tick::CleanUp,
    }
}

/// Whether a target may be forgotten, and out of which table (section 2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Free {
    /// It is named, or has connections.
    Reject,
    /// As an IPv4 one.
    DeleteV4,
    /// As an IPv6 one.
    DeleteV6,
}

/// Section 2.7.
#[must_use]
pub fn free(named_by: usize, connections: usize, family: TargetFamily) -> Free {
    match family {
        _ if named_by > 0 || connections > 0 => Free::Reject,
        TargetFamily::V4 => Free::DeleteV4,
        TargetFamily::V6 => Free::DeleteV6,
    }
}

/// What becomes of a connection to a target that no configuration names any more (section 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetiredLink {
    /// It is closed (-17 in the C proxy).
    Close,
    /// It may serve the clients it has for so much longer; new ones go elsewhere.
    KeepFor(Duration),
}

/// How long clients may stay on a middle proxy that Telegram no longer names. The C proxy closes them at once, so that a
/// daily refresh would cost many of them a reconnection at the same moment; most leave by themselves within minutes.
pub const RETIRED_GRACE: Duration = Duration::from_secs(300);

/// Section 2.6, kinder: one without clients is closed at once, one with clients after [`RETIRED_GRACE`].
#[must_use]
pub fn retired_link(since_retired: Duration, clients: usize) -> RetiredLink {
    match RETIRED_GRACE.checked_sub(since_retired) {
        Some(left) if clients > 0 && !left.is_zero() => RetiredLink::KeepFor(left),
        _ => RetiredLink::Close,
    }
}

/// What the end of an edit of a pool that others read without a lock leads to (section 2.8). An engine's pool has one
/// reader, which is its writer; code with several needs this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// Nothing has changed: let go of the snapshot that was taken.
    Release,
    /// Show the new pool, and free the old one when nobody reads it any more.
    Replace,
}

/// Section 2.8.
#[must_use]
pub fn publish(has_changed: bool) -> Publish {
    if has_changed { Publish::Replace } else { Publish::Release }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(address: &str) -> TargetId {
        TargetId::of(address.parse().unwrap())
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_the_same_target() {
        assert_eq!(id("[::ffff:192.0.2.1]:8888"), id("192.0.2.1:8888"));
        assert_eq!(id("192.0.2.1:8888").family(), TargetFamily::V4);
        assert_eq!(id("[2001:db8::1]:8888").family(), TargetFamily::V6);
        assert_ne!(id("192.0.2.1:8888"), id("192.0.2.1:8889"));
    }

    #[test]
    fn slots_of_the_c_table_follow_its_two_formulas() {
        // (7 · 0xabacaba + 0xc0000201) mod 99961 = 98612 by hand, then · 239 + 8888.
        let v4 = ((7 * 0x0aba_caba + 0xc000_0201_u64) % C_TABLE_SLOTS * 239 + 8888) % C_TABLE_SLOTS;
        assert_eq!(c_table_slot(7, id("192.0.2.1:8888")), v4);
        let words = [0xb80d_0120_u64, 0, 0, 0x0100_0000];
        let folded = words.into_iter().fold(7_u64, |hash, word| hash.wrapping_mul(17_239).wrapping_add(word));
        let v6 = folded.wrapping_mul(239).wrapping_add(8888) % C_TABLE_SLOTS;
        assert_eq!(c_table_slot(7, id("[2001:db8::1]:8888")), v6);
    }

    #[test]
    fn a_table_that_has_what_is_inserted_or_lacks_what_is_deleted_is_broken() {
        for (lookup, is_there, expected) in [
            (Lookup::Find, true, Looked::Found),
            (Lookup::Find, false, Looked::Missing),
            (Lookup::Insert, true, Looked::Broken),
            (Lookup::Insert, false, Looked::Link),
            (Lookup::Delete, true, Looked::Unlink),
            (Lookup::Delete, false, Looked::Broken),
        ] {
            assert_eq!(looked(lookup, is_there), expected, "{lookup:?} {is_there}");
        }
    }

    #[test]
    fn a_target_is_made_used_again_or_revived() {
        let cases = [(None, Create::Allocate, 1), (Some(0), Create::Revive, 2), (Some(1), Create::Reuse, 0)];
        for (named_by, expected, code) in cases {
            assert_eq!((create(named_by), create(named_by).code()), (expected, code));
        }
    }

    #[test]
    fn the_last_name_retires_a_target() {
        assert_eq!((destroy(1), destroy(0)), (Destroy::Keep, Destroy::Retire));
    }

    #[test]
    fn a_look_fills_a_pool_that_is_wanted_and_empties_one_that_is_not() {
        for (is_named, connections, expected) in
            [(true, 0, Tick::Fill), (true, 4, Tick::Fill), (false, 1, Tick::CleanUp), (false, 0, Tick::Free)]
        {
            assert_eq!(tick(is_named, connections), expected);
        }
    }

    #[test]
    fn only_a_target_without_names_and_connections_is_freed() {
        for family in [TargetFamily::V4, TargetFamily::V6] {
            assert_eq!(free(1, 0, family), Free::Reject);
            assert_eq!(free(0, 1, family), Free::Reject);
        }
        assert_eq!(free(0, 0, TargetFamily::V4), Free::DeleteV4);
        assert_eq!(free(0, 0, TargetFamily::V6), Free::DeleteV6);
    }

    #[test]
    fn clients_of_a_retired_target_have_a_grace_and_nobody_else() {
        let second = Duration::from_secs(1);
        assert_eq!(retired_link(Duration::ZERO, 0), RetiredLink::Close);
        assert_eq!(retired_link(Duration::ZERO, 1), RetiredLink::KeepFor(RETIRED_GRACE));
        assert_eq!(retired_link(RETIRED_GRACE - second, 1), RetiredLink::KeepFor(second));
        assert_eq!(retired_link(RETIRED_GRACE, 1), RetiredLink::Close);
        assert_eq!(retired_link(RETIRED_GRACE + second, 1), RetiredLink::Close);
    }

    #[test]
    fn a_pool_is_shown_anew_only_if_it_has_changed() {
        assert_eq!((publish(true), publish(false)), (Publish::Replace, Publish::Release));
    }
}
