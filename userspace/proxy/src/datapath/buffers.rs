//! What a slow peer has not taken yet, and spare memory for it.

/// Bytes waiting for a socket to become writable, first in first out.
#[derive(Debug, Default)]
pub struct OutputQueue {
    bytes: Vec<u8>,
    sent: usize,
}

impl OutputQueue {
    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == self.sent
    }

    /// What waits, in order.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Puts `bytes` behind what waits.
    pub fn append(&mut self, bytes: &[u8], spare: &mut BufferPool) {
        if self.bytes.capacity() == 0 && !bytes.is_empty() {
            self.bytes = spare.take();
        }
        if self.sent > self.bytes.len() / 2 {
            // Else a peer that is never quite served would make the queue grow by all it ever got.
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The first `len` pending bytes are sent. Memory goes back once nothing is pending.
    pub fn advance(&mut self, len: usize, spare: &mut BufferPool) {
        self.sent += len;
        if self.is_empty() {
            spare.give_back(std::mem::take(self));
        }
    }
}

/// Memory of queues that are empty now. An idle socket owns none, and one that is slow again and again
/// costs no allocation each time.
#[derive(Debug, Default)]
pub struct BufferPool {
    spare: Vec<Vec<u8>>,
}

/// Buffers kept. Sockets that are slow at the same moment and exceed this number pay an allocation.
const SPARE_MAX: usize = 32;
/// Largest buffer kept: a window and what one handshake may add to it.
const SPARE_BYTES_MAX: usize = 256 * 1024;

impl BufferPool {
    fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps the memory of a queue that is no longer needed.
    pub fn give_back(&mut self, queue: OutputQueue) {
        let mut bytes = queue.bytes;
        if self.spare.len() < SPARE_MAX && (1..=SPARE_BYTES_MAX).contains(&bytes.capacity()) {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_and_memory_is_given_back_when_all_have_left() {
        let mut spare = BufferPool::default();
        let mut queue = OutputQueue::default();
        queue.append(b"hello ", &mut spare);
        queue.append(b"world", &mut spare);
        queue.advance(4, &mut spare);
        assert_eq!(queue.pending(), b"o world");
        queue.advance(7, &mut spare);
        assert!(queue.is_empty() && queue.bytes.capacity() == 0 && spare.spare.len() == 1);
        queue.append(b"x", &mut spare);
        assert!(spare.spare.is_empty(), "the same memory is used again");
        assert_eq!(queue.pending(), b"x");
    }

    #[test]
    fn a_queue_that_never_drains_does_not_remember_all_it_has_sent() {
        let mut spare = BufferPool::default();
        let mut queue = OutputQueue::default();
        queue.append(&[0; 1000], &mut spare);
        for _ in 0..1000 {
            queue.append(&[1; 100], &mut spare);
            queue.advance(100, &mut spare);
        }
        assert_eq!(queue.pending().len(), 1000);
        assert!(queue.bytes.len() <= 2200, "{}", queue.bytes.len());
    }

    #[test]
    fn the_pool_keeps_neither_too_many_buffers_nor_too_large_ones() {
        let mut spare = BufferPool::default();
        let queue = |capacity| OutputQueue { bytes: Vec::with_capacity(capacity), sent: 0 };
        for _ in 0..SPARE_MAX + 5 {
            spare.give_back(queue(1024));
        }
        assert_eq!(spare.spare.len(), SPARE_MAX);
        spare.spare.clear();
        spare.give_back(queue(SPARE_BYTES_MAX * 2));
        spare.give_back(queue(0));
        assert!(spare.spare.is_empty());
    }
}
