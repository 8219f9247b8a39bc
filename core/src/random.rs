//! Randomness as a value: a ChaCha12 generator seeded by the driver.
//!
//! In production the seed comes from the operating system, once per worker; in the simulator it comes
//! from the run's seed, and every run repeats exactly. Core never asks the operating system itself.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

/// The random bytes of one engine.
pub struct Random(ChaCha12Rng);

impl Random {
    /// A generator whose whole output follows from `seed`.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// `N` random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A random number below `bound`. The bias, below `bound` / 2³², is of no consequence here:
    /// nothing secret is chosen with it.
    ///
    /// # Panics
    /// If `bound` is zero.
    #[must_use]
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "a random number below zero was asked for");
        let wide = u64::from(u32::from_le_bytes(self.bytes())) * u64::from(bound);
        (wide >> 32) as u32
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_bytes_and_others_do_not() {
        let draw = |seed| Random::from_seed([seed; 32]).bytes::<16>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn below_stays_below_and_reaches_both_ends() {
        let mut random = Random::from_seed([0; 32]);
        let drawn: Vec<u32> = (0..200).map(|_| random.below(3)).collect();
        assert!(drawn.iter().all(|&n| n < 3));
        assert!(drawn.contains(&0) && drawn.contains(&2));
        assert_eq!(random.below(1), 0);
    }
}
