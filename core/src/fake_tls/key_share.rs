//! Key shares that are x25519 public keys without costing a scalar multiplication each.
//!
//! The key share in our flight is for onlookers: nobody computes a shared secret with it. But it must be
//! what a server's would be, a point of the curve's prime-order subgroup, and unlike any other. One scalar
//! multiplication costs 11 µs, more than everything else in a handshake together. So a worker draws a
//! table of such points once, and each key share is a random signed sum of some of them (the generator
//! of Boyko, Peinado and Venkatesan, Eurocrypt 1998): 3.6 µs. Each sum also replaces one of its terms, so
//! the table wanders and no two shares have a fixed relation.
//!
//! Never use these as keys.

use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::traits::IsIdentity;

use crate::random::Random;

/// Points in the table: what seven bits choose from.
const TABLE_LEN: u32 = 128;
/// Points in a sum: with their signs, 2⁶³ different ones.
const TERMS: usize = 8;

/// A worker's source of key shares.
#[derive(Default)]
pub(crate) struct KeyShares {
    /// Empty until the first key share is asked for: a proxy without fake TLS needs none.
    table: Vec<EdwardsPoint>,
}

impl KeyShares {
    /// The u-coordinate of a fresh point, as RFC 7748 encodes it.
    pub(crate) fn next(&mut self, random: &mut Random) -> [u8; 32] {
        if self.table.is_empty() {
            let draw = |_| EdwardsPoint::mul_base_clamped(random.bytes());
            self.table = (0..TABLE_LEN).map(draw).collect();
        }
        // Terms may cancel out, once in some ten million sums. A share of zeros would be seen.
        loop {
            if let Some(share) = self.draw(random) {
                return share;
            }
        }
    }

    fn draw(&mut self, random: &mut Random) -> Option<[u8; 32]> {
        // Seven bits of each byte choose a point, the eighth its sign.
        let [first, others @ ..] = random.bytes::<TERMS>();
        let first = usize::from(first & 0x7f);
        let add = |sum: EdwardsPoint, choice: &u8| {
            let point = self.table[usize::from(choice & 0x7f)];
            if choice & 0x80 == 0 { sum + point } else { sum - point }
        };
        let sum = others.iter().fold(self.table[first], add);
        if sum.is_identity() {
            return None;
        }
        self.table[first] = sum;
        Some(sum.to_montgomery().to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::MontgomeryPoint;
    use std::collections::HashSet;

    #[test]
    fn every_share_is_a_point_of_the_prime_order_subgroup_and_new() {
        let mut random = Random::from_seed([1; 32]);
        let mut shares = KeyShares::default();
        let mut seen = HashSet::new();
        for _ in 0..500 {
            let share = shares.next(&mut random);
            let point = MontgomeryPoint(share).to_edwards(0).expect("a point of the curve, not of its twist");
            assert!(point.is_torsion_free() && !point.is_identity());
            assert!(seen.insert(share));
        }
    }

    #[test]
    fn a_random_number_would_be_found_out() {
        // The property that the test above checks is one that half of all numbers lack.
        let mut random = Random::from_seed([2; 32]);
        let off_the_curve = (0..100)
            .filter(|_| {
                MontgomeryPoint(random.bytes()).to_edwards(0).is_none_or(|point| !point.is_torsion_free())
            })
            .count();
        assert!(off_the_curve > 50, "{off_the_curve}");
    }
}
