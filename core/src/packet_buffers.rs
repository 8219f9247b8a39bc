//! Memory for what clients of middle proxies have said and nobody has taken yet: kept for the next one, so that a busy
//! proxy allocates nothing, and given back when it is no longer busy.
//!
//! Which sizes there are, and how many of each are kept, is decided by
//! [`policy::net_msg_buffers`](crate::policy::net_msg_buffers).

use crate::policy::net_msg_buffers::{SIZE_CLASSES, class_for, class_of, spares_kept};

/// Buffers that are not in use.
#[derive(Default)]
pub(crate) struct PacketBuffers {
    spare: [Vec<Vec<u8>>; SIZE_CLASSES.len()],
}

impl PacketBuffers {
    /// An empty buffer for at least `len` bytes, or, beyond the largest size, for as many as that has.
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        let class = class_for(len);
        self.spare[class].pop().unwrap_or_else(|| Vec::with_capacity(SIZE_CLASSES[class]))
    }

    /// Takes a buffer back. One that has grown counts as what it has become.
    pub(crate) fn give_back(&mut self, mut buffer: Vec<u8>) {
        let Some(class) = class_of(buffer.capacity()) else { return };
        if self.spare[class].len() < spares_kept(class) {
            buffer.clear();
            self.spare[class].push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_never_with_what_was_in_it() {
        let mut buffers = PacketBuffers::default();
        let mut first = buffers.take(600);
        let capacity = first.capacity();
        assert!(capacity >= 600);
        first.extend_from_slice(&[7; 600]);
        let address = first.as_ptr();
        buffers.give_back(first);
        let second = buffers.take(600);
        assert_eq!((second.as_ptr(), second.len(), second.capacity()), (address, 0, capacity));
    }

    #[test]
    fn what_never_held_anything_is_not_kept() {
        let mut buffers = PacketBuffers::default();
        buffers.give_back(Vec::new());
        assert!(buffers.spare.iter().all(Vec::is_empty));
    }

    #[test]
    fn no_more_spares_are_kept_than_the_policy_says() {
        let mut buffers = PacketBuffers::default();
        let class = class_for(1000);
        for _ in 0..=spares_kept(class) {
            buffers.give_back(Vec::with_capacity(SIZE_CLASSES[class]));
        }
        assert_eq!(buffers.spare[class].len(), spares_kept(class));
    }
}
