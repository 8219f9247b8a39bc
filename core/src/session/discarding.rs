//! A stranger where no front is configured: it is never answered, and what it sends goes nowhere.
//!
//! As the official proxy does it (protocol.md 3.5), except that a stranger who falls silent is closed.

use super::{Farewell, Phase, Turn};
use crate::deadline::Deadline;
use crate::error::{DropReason, PeerMisbehaved};
use crate::event::What;
use crate::stream::StreamId;

/// Bytes after which a stranger is closed: the official proxy's own number, 2²⁸.
const LIMIT_BYTES: u64 = 1 << 28;

/// A stranger met with silence.
pub(crate) struct Discarding {
    client: StreamId,
    bytes_left: u64,
}

impl Discarding {
    pub(crate) fn begin(turn: &mut Turn<'_>, client: StreamId, why: PeerMisbehaved) -> Phase {
        turn.report(What::Discarding(why));
        turn.arm(Deadline::Idle);
        turn.resume(client);
        Phase::Discarding(Self { client, bytes_left: LIMIT_BYTES })
    }

    pub(crate) fn client(&self) -> StreamId {
        self.client
    }

    pub(crate) fn receive(mut self, len: usize, turn: &mut Turn<'_>) -> Phase {
        match self.bytes_left.checked_sub(len as u64) {
            Some(left) => {
                self.bytes_left = left;
                Phase::Discarding(self)
            }
            None => self.close(DropReason::DiscardLimit, turn),
        }
    }

    pub(crate) fn close(self, why: DropReason, turn: &mut Turn<'_>) -> Phase {
        turn.leave(&[(self.client, Farewell::Close)], Err(why))
    }
}
