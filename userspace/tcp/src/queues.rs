//! What a connection has only while bytes are queued, in flight or unread, and the pool it comes from.

use crate::link::Link;
use crate::receive_queue::ReceiveQueue;
use crate::recovery::Recovery;
use crate::send_queue::SendQueue;
use crate::shed::Pace;

/// Entries of a queue whose memory a pooled object keeps: a few round trips of an ordinary connection. What a
/// bulk transfer needed beyond goes back to the allocator.
const ENTRIES_KEPT: usize = 64;

/// Idle objects the pool keeps: with all they may have kept, 8 MiB.
const POOL_MAX: usize = 1024;

/// Queues of one connection.
#[derive(Debug)]
pub(crate) struct Queues<F> {
    pub(crate) send: SendQueue<F>,
    pub(crate) receive: ReceiveQueue<F>,
    pub(crate) recovery: Recovery,
    /// How fast the peer takes what waits for it.
    pub(crate) pace: Pace,
}

impl<F> Default for Queues<F> {
    fn default() -> Self {
        Self {
            send: SendQueue::default(),
            receive: ReceiveQueue::default(),
            recovery: Recovery::default(),
            pace: Pace::default(),
        }
    }
}

impl<F> Queues<F> {
    /// True if nothing here needs to be remembered.
    pub(crate) fn is_idle(&self) -> bool {
        self.send.is_empty() && self.send.unreported == 0 && self.receive.is_empty()
    }

    pub(crate) fn frames(&self) -> usize {
        self.send.frames() + self.receive.frames()
    }
}

/// Recycled queues.
#[derive(Debug)]
pub(crate) struct Pool<F> {
    #[expect(clippy::vec_box, reason = "a connection holds eight bytes for them, and none are moved")]
    idle: Vec<Box<Queues<F>>>,
}

impl<F> Default for Pool<F> {
    fn default() -> Self {
        Self { idle: Vec::new() }
    }
}

impl<F> Pool<F> {
    pub(crate) fn take(&mut self) -> Box<Queues<F>> {
        self.idle.pop().unwrap_or_default()
    }

    /// Takes queues back; frames that are still in them are released.
    pub(crate) fn put<L: Link<Frame = F>>(&mut self, mut queues: Box<Queues<F>>, link: &mut L) {
        queues.send.clear(|frame| link.release(frame));
        queues.receive.clear(|frame| link.release(frame));
        self.put_idle(queues);
    }

    /// Takes queues back that hold nothing.
    pub(crate) fn put_idle(&mut self, mut queues: Box<Queues<F>>) {
        if self.idle.len() >= POOL_MAX {
            return;
        }
        queues.send.shrink_to(ENTRIES_KEPT);
        queues.receive.shrink_to(ENTRIES_KEPT);
        queues.recovery = Recovery::default();
        self.idle.push(queues);
    }
}
