//! Pseudo-random bytes that are a function of their position alone.
//!
//! A receiver can check any stretch without having seen what came before, and a sender can make any
//! stretch without keeping it. A byte lost, doubled or exchanged shifts everything behind it.

/// Fills `bytes` with the pattern from `position` on.
pub fn fill(position: u64, bytes: &mut [u8]) {
    let mut word_index = position / 8;
    let lead = (position % 8) as usize;
    let mut rest = bytes;
    if lead != 0 {
        let take = rest.len().min(8 - lead);
        let (head, tail) = rest.split_at_mut(take);
        head.copy_from_slice(&word(word_index)[lead..lead + take]);
        rest = tail;
        word_index += 1;
    }
    for chunk in rest.chunks_mut(8) {
        chunk.copy_from_slice(&word(word_index)[..chunk.len()]);
        word_index += 1;
    }
}

/// `len` bytes of the pattern from `position` on.
#[must_use]
pub fn bytes(position: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(position, &mut bytes);
    bytes
}

/// The first position at which `found`, which begins at `position`, is not the pattern.
#[must_use]
pub fn first_difference(position: u64, found: &[u8]) -> Option<u64> {
    let expected = bytes(position, found.len());
    if expected == found {
        return None;
    }
    let index = expected.iter().zip(found).position(|(a, b)| a != b)?;
    Some(position + index as u64)
}

/// The SplitMix64 sequence (Steele, Lea, Flood 2014) at `index`: a bijection without short cycles.
fn word(index: u64) -> [u8; 8] {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_stretch_is_the_same_whoever_makes_it(position in 0u64..100, len in 0usize..50) {
            let whole = bytes(0, 150);
            let start = usize::try_from(position).unwrap();
            prop_assert_eq!(&bytes(position, len)[..], &whole[start..start + len]);
            prop_assert_eq!(first_difference(position, &whole[start..start + len]), None);
        }
    }

    #[test]
    fn a_changed_byte_is_found_where_it_is() {
        let mut found = bytes(1000, 64);
        found[40] ^= 1;
        assert_eq!(first_difference(1000, &found), Some(1040));
    }
}
