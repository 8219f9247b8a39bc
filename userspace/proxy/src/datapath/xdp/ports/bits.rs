//! Sets of small numbers, a bit each, that are searched going round.

/// A set of numbers below a bound.
#[derive(Debug)]
pub(super) struct Bits {
    words: Box<[u64]>,
    len: usize,
}

impl Bits {
    /// The empty set of numbers below `bound`.
    pub(super) fn none(bound: usize) -> Self {
        Self { words: vec![0; bound.div_ceil(64)].into(), len: 0 }
    }

    /// All numbers below `bound` for which `is_in` is true.
    pub(super) fn of(bound: usize, is_in: impl Fn(usize) -> bool) -> Self {
        let mut bits = Self::none(bound);
        for number in (0..bound).filter(|&number| is_in(number)) {
            bits.insert(number);
        }
        bits
    }

    /// How many numbers are in.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Numbers of one word.
    pub(super) fn word(&self, word: usize) -> u64 {
        self.words[word]
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        self.words[number / 64] & bit(number) != 0
    }

    /// True if the number was not in.
    pub(super) fn insert(&mut self, number: usize) -> bool {
        let is_new = !self.contains(number);
        self.words[number / 64] |= bit(number);
        self.len += usize::from(is_new);
        is_new
    }

    /// True if the number was in.
    pub(super) fn remove(&mut self, number: usize) -> bool {
        let was_in = self.contains(number);
        self.words[number / 64] &= !bit(number);
        self.len -= usize::from(was_in);
        was_in
    }

    /// The first number at or after `start`, going round once, that is in here and where `also`, a word at a time,
    /// has it too.
    pub(super) fn first_from(&self, start: usize, also: impl Fn(usize) -> u64) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let words = self.words.len();
        let not_before_start = u64::MAX << (start % 64);
        // The first word is looked at twice: from the start, and at last the bits before it.
        (0..=words).find_map(|step| {
            let at = (start / 64 + step) % words;
            let mask = match step {
                0 => not_before_start,
                step if step == words => !not_before_start,
                _ => u64::MAX,
            };
            let found = self.words[at] & also(at) & mask;
            (found != 0).then(|| at * 64 + found.trailing_zeros() as usize)
        })
    }
}

fn bit(number: usize) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_search_finds_the_first_number_of_both_sets_going_round(
            here in proptest::collection::vec(any::<bool>(), 1..200), seed: u64, start: usize,
        ) {
            let start = start % here.len();
            let there: Vec<bool> = (0..here.len()).map(|at| seed >> (at % 61) & 1 == 1).collect();
            let bits = Bits::of(here.len(), |at| here[at]);
            let also = Bits::of(here.len(), |at| there[at]);
            let expected = (0..here.len()).map(|step| (start + step) % here.len()).find(|&at| here[at] && there[at]);
            prop_assert_eq!(bits.first_from(start, |word| also.word(word)), expected);
        }

        #[test]
        fn what_was_put_in_and_not_taken_out_is_in(steps in proptest::collection::vec(any::<(bool, u8)>(), 0..300)) {
            let mut bits = Bits::none(256);
            let mut model = BTreeSet::new();
            for (inserts, number) in steps {
                let number = usize::from(number);
                if inserts {
                    prop_assert_eq!(bits.insert(number), model.insert(number));
                } else {
                    prop_assert_eq!(bits.remove(number), model.remove(&number));
                }
                prop_assert_eq!((bits.len(), bits.contains(number)), (model.len(), inserts));
            }
        }
    }
}
