//! Memory for messages: sizes, limits and what is given back (policies.md sections 8 and 10.6).
//!
//! Rust's allocator takes the place of the C proxy's chunks, so that picking a chunk and a slot in it is no decision any
//! more. What remains is which sizes there are, how many empty buffers are kept, and what happens when too much waits.
//! Used by `packet_buffers.rs` and `engine/middle_proxies.rs`.

/// Sizes of buffers in bytes: the C proxy's.
pub const SIZE_CLASSES: [usize; 5] = [48, 512, 2048, 16_384, 262_144];

/// The index of the smallest size for `len` bytes; the largest for more than any has (section 8, "class choice").
#[must_use]
pub fn class_for(len: usize) -> usize {
    SIZE_CLASSES.iter().position(|&size| size >= len).unwrap_or(SIZE_CLASSES.len() - 1)
}

/// The index of the size that a buffer of this capacity has; `None` for one that is smaller than any.
#[must_use]
pub fn class_of(capacity: usize) -> Option<usize> {
    SIZE_CLASSES.iter().rposition(|&size| size <= capacity)
}

/// Bytes of empty buffers of one size that are kept at most.
const SPARE_BYTES_MAX: usize = 1 << 20;
/// … and how many at most, however small.
const SPARES_MAX: usize = 256;

/// How many empty buffers of a size are kept for the next use. The C proxy keeps all of them for ever, so that its memory
/// never sinks (section 11, item 6); here about 2 MiB of all sizes together are kept, and the rest goes back.
#[must_use]
pub fn spares_kept(class: usize) -> usize {
    SIZE_CLASSES.get(class).map_or(0, |size| (SPARE_BYTES_MAX / size).clamp(1, SPARES_MAX))
}

/// What asking for memory leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// A buffer of this size class.
    Class(usize),
    /// Nothing: whoever asked is closed, or waits. The C proxy asserts.
    Refused,
}

/// Section 8, "limit": `used_bytes` are in use already, of so many.
#[must_use]
pub fn allocate(len: usize, used_bytes: usize, limit_bytes: usize) -> Allocation {
    let class = class_for(len);
    let size = SIZE_CLASSES[class].max(len);
    match used_bytes.checked_add(size) {
        Some(needed) if needed <= limit_bytes => Allocation::Class(class),
        _ => Allocation::Refused,
    }
}

/// How much waits, of how much that may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureInput {
    /// Bytes that wait.
    pub used_bytes: usize,
    /// Bytes that may.
    pub limit_bytes: usize,
}

/// How much must go until three quarters of the limit are used (section 10.6); zero if that is so.
#[must_use]
pub fn bytes_to_free(pressure: PressureInput) -> usize {
    let allowed = pressure.limit_bytes - pressure.limit_bytes / 4;
    pressure.used_bytes.saturating_sub(allowed)
}

/// True if `used_bytes` reach `percent` of the limit (section 8, "pressure test").
#[must_use]
pub fn is_pressed(pressure: PressureInput, percent: u32) -> bool {
    let (used, limit) = (pressure.used_bytes as u128, pressure.limit_bytes as u128);
    used * 100 >= limit * u128::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_size_that_fits_is_taken_and_the_largest_for_the_rest() {
        for (len, class) in [
            (0, 0),
            (48, 0),
            (49, 1),
            (512, 1),
            (513, 2),
            (2048, 2),
            (2049, 3),
            (16_384, 3),
            (16_385, 4),
            (262_144, 4),
            (262_145, 4),
            (usize::MAX, 4),
        ] {
            assert_eq!(class_for(len), class, "{len}");
        }
    }

    #[test]
    fn a_buffer_that_has_grown_counts_as_what_it_holds() {
        for (capacity, class) in
            [(0, None), (47, None), (48, Some(0)), (511, Some(0)), (512, Some(1)), (1 << 30, Some(4))]
        {
            assert_eq!(class_of(capacity), class, "{capacity}");
        }
    }

    #[test]
    fn spares_of_all_sizes_are_kept_but_never_more_than_a_few_megabytes_of_them() {
        let kept: Vec<usize> = (0..SIZE_CLASSES.len()).map(spares_kept).collect();
        assert_eq!(kept, [256, 256, 256, 64, 4]);
        let bytes: usize = kept.iter().zip(SIZE_CLASSES).map(|(count, size)| count * size).sum();
        assert!(bytes < 3 << 20, "{bytes}");
        assert_eq!(spares_kept(SIZE_CLASSES.len()), 0);
    }

    #[test]
    fn memory_that_is_not_there_is_refused_and_nobody_dies_of_it() {
        assert_eq!(allocate(100, 0, 512), Allocation::Class(1));
        assert_eq!(allocate(100, 1, 512), Allocation::Refused);
        assert_eq!(allocate(1_000_000, 0, 1_000_000), Allocation::Class(4));
        assert_eq!(allocate(1_000_001, 0, 1_000_000), Allocation::Refused);
        assert_eq!(allocate(1, usize::MAX, usize::MAX), Allocation::Refused);
    }

    #[test]
    fn above_three_quarters_the_excess_must_go() {
        let pressure = |used_bytes| PressureInput { used_bytes, limit_bytes: 1000 };
        assert_eq!([0, 750, 751, 1000, 2000].map(|used| bytes_to_free(pressure(used))), [0, 0, 1, 250, 1250]);
    }

    #[test]
    fn pressure_begins_exactly_at_its_ratio() {
        let pressure = |used_bytes| PressureInput { used_bytes, limit_bytes: 1000 };
        assert!(!is_pressed(pressure(749), 75) && is_pressed(pressure(750), 75));
        assert!(is_pressed(PressureInput { used_bytes: usize::MAX, limit_bytes: usize::MAX }, 100));
    }
}
