//! Everything that is left to chance in a run, drawn from one number.

use std::time::Duration;

use mtproxy_core::random::Random;

/// SplitMix64 (Steele, Lea, Flood 2014): small, quick, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Dice that always fall alike for one `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.word()) * bound as u128) >> 64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True with `chance` in a hundred.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of `choices`, of which there is at least one.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A size from 1 to `max`: each order of magnitude is as likely as any other.
    pub fn size(&mut self, max: usize) -> usize {
        let bits = max.ilog2() as usize + 1;
        let magnitude = self.below(bits);
        (1 << magnitude | self.below(1 << magnitude)).min(max)
    }

    /// A time from nothing to `max`, by order of magnitude above a microsecond.
    ///
    /// # Panics
    /// If `max` is longer than 2^63 microseconds.
    pub fn time(&mut self, max: Duration) -> Duration {
        let micros = usize::try_from(max.as_micros()).expect("no run lasts that long").max(1);
        Duration::from_micros(self.size(micros) as u64 - 1)
    }

    /// Randomness in core's sense, seeded from here.
    pub fn random(&mut self) -> Random {
        Random::from_seed(self.seed())
    }

    /// 32 random bytes.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for word in seed.chunks_exact_mut(8) {
            word.copy_from_slice(&self.word().to_le_bytes());
        }
        seed
    }

    /// Dice of its own for a part of the run.
    pub fn fork(&mut self) -> Self {
        Self::new(self.word())
    }
}
