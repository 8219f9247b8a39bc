//! Sequence numbers: the only place where their arithmetic wraps (RFC 9293 section 3.4).

use std::cmp::Ordering;
use std::ops::{Add, AddAssign, Sub};

/// A point in the sequence space of 2^32 octets.
///
/// Comparisons are of serial arithmetic, so that `seg.ack > snd.una` reads as in the RFC. They mean
/// something only for numbers less than 2^31 apart, which windows of at most 2^30 octets guarantee
/// (RFC 7323 section 2.3). At exactly 2^31 neither number comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// The number `n` octets later.
    #[must_use]
    pub const fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// The number `n` octets earlier.
    #[must_use]
    pub const fn minus(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }

    /// Octets from `earlier` to `self`. Meaningful only if `earlier <= self`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The later of the two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        if other < self { other } else { self }
    }

    /// True if `self` lies in the `len` octets that begin at `start`.
    #[must_use]
    pub const fn is_within(self, start: Self, len: u32) -> bool {
        self.since(start) < len
    }
}

impl PartialOrd for SeqNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.0.wrapping_sub(other.0) {
            0 => Some(Ordering::Equal),
            0x8000_0000 => None,
            ahead if ahead < 0x8000_0000 => Some(Ordering::Greater),
            _ => Some(Ordering::Less),
        }
    }
}

impl Add<u32> for SeqNumber {
    type Output = Self;

    fn add(self, n: u32) -> Self {
        self.plus(n)
    }
}

impl AddAssign<u32> for SeqNumber {
    fn add_assign(&mut self, n: u32) {
        *self = self.plus(n);
    }
}

impl Sub for SeqNumber {
    type Output = u32;

    fn sub(self, earlier: Self) -> u32 {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_holds_across_the_wrap() {
        let last = SeqNumber(u32::MAX);
        assert!(last < last + 1);
        assert_eq!(last + 1, SeqNumber(0));
        assert_eq!(SeqNumber(5) - SeqNumber(u32::MAX), 6);
        assert_eq!(last.max(SeqNumber(3)), SeqNumber(3));
        assert_eq!(last.min(SeqNumber(3)), last);
    }

    #[test]
    fn numbers_half_the_space_apart_have_no_order() {
        let (a, b) = (SeqNumber(7), SeqNumber(7).plus(1 << 31));
        assert_eq!(a.partial_cmp(&b), None);
        assert_eq!(b.partial_cmp(&a), None);
        assert!(a < b.minus(1) && a > b.plus(1));
    }

    #[test]
    fn a_range_holds_its_start_and_not_its_end() {
        let start = SeqNumber(u32::MAX - 1);
        assert!(start.is_within(start, 4));
        assert!(start.plus(3).is_within(start, 4));
        assert!(!start.plus(4).is_within(start, 4));
        assert!(!start.minus(1).is_within(start, 4));
        assert!(!start.is_within(start, 0));
    }

    proptest! {
        #[test]
        fn a_number_is_before_whatever_lies_less_than_half_the_space_ahead(a: u32, n in 1_u32..1 << 31) {
            let a = SeqNumber(a);
            prop_assert_eq!(a.partial_cmp(&(a + n)), Some(Ordering::Less));
            prop_assert_eq!((a + n).partial_cmp(&a), Some(Ordering::Greater));
            prop_assert_eq!((a + n) - a, n);
            prop_assert_eq!((a + n).minus(n), a);
        }
    }
}
