//! Everything that is left to chance in a run, drawn from one number.

use std::time::Duration;

use mtproxy_core::random::Random;

/// SplitMix64 (Steele, Lea, Flood 2014): small, quick, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.word()) * bound as u128) >> 64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A size from 1 to `max`: each order of magnitude is as likely as any other.
    pub(crate) fn size(&mut self, max: usize) -> usize {
        let bits = max.ilog2() as usize + 1;
        let magnitude = self.below(bits);
        (1 << magnitude | self.below(1 << magnitude)).min(max)
    }

    /// A time from nothing to `max`, by order of magnitude above a microsecond.
    pub(crate) fn time(&mut self, max: Duration) -> Duration {
        let micros = usize::try_from(max.as_micros()).expect("no run lasts that long").max(1);
        Duration::from_micros(self.size(micros) as u64 - 1)
    }

    pub(crate) fn random(&mut self) -> Random {
        Random::from_seed(self.seed())
    }

    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for word in seed.chunks_exact_mut(8) {
            word.copy_from_slice(&self.word().to_le_bytes());
        }
        seed
    }

    /// Dice of its own for a part of the run.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.word())
    }
}
