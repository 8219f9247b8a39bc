//! The last phase: what is queued is sent, then FIN; what the peer still says is read and thrown away until
//! its own FIN.
//!
//! Why not simply close: a socket that is closed while its peer talks on answers with RST, and RST destroys
//! what the peer had not read yet. A client whose data centre has gone must still get all that came
//! before. The wait is bounded by the linger timeout, the reading by [`DISCARD_BYTES_MAX`].

use super::{Farewell, Outcome, Phase, Turn};
use crate::deadline::Deadline;
use crate::error::DropReason;
use crate::stream::{Leg, Stream, StreamId};

/// Bytes that a session reads in vain: what an unsuspecting peer may have had on its way. After them the
/// peer is left to its own window: to close now would be to answer with RST after all.
const DISCARD_BYTES_MAX: usize = 256 * 1024;

/// A session that is over but for its manners.
pub(crate) struct Closing {
    /// The streams that are still there, by leg.
    leaving: [Option<(StreamId, Farewell)>; 2],
    discard_bytes_left: usize,
    pub(crate) outcome: Outcome,
}

impl Closing {
    /// A session without streams: gone.
    pub(crate) fn gone(outcome: Outcome) -> Self {
        Self { leaving: [None; 2], discard_bytes_left: DISCARD_BYTES_MAX, outcome }
    }

    /// Begins to take leave of each peer.
    pub(crate) fn begin(turn: &mut Turn<'_>, farewells: &[(StreamId, Farewell)], outcome: Outcome) -> Phase {
        let mut closing = Self::gone(outcome);
        for &(stream, farewell) in farewells {
            let Some(leg) = turn.shared.streams.get(stream).and_then(Stream::leg) else { continue };
            closing.leaving[leg as usize] = Some((stream, farewell));
            if farewell == Farewell::Close {
                turn.shut_down(stream);
            }
            turn.resume(stream);
        }
        closing.proceed(turn);
        if !closing.is_gone() {
            turn.arm(Deadline::Linger);
        }
        Phase::Closing(closing)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.leaving.iter().all(Option::is_none)
    }

    pub(crate) fn stream(&self, leg: Leg) -> Option<StreamId> {
        self.leaving[leg as usize].map(|(stream, _)| stream)
    }

    /// How much more is read in vain.
    pub(crate) fn credit(&self) -> usize {
        self.discard_bytes_left
    }

    /// The peer talks on.
    pub(crate) fn receive(&mut self, len: usize) {
        self.discard_bytes_left = self.discard_bytes_left.saturating_sub(len);
    }

    /// A queue has become shorter: who is making progress gets more time.
    pub(crate) fn sent(&mut self, turn: &mut Turn<'_>) {
        self.proceed(turn);
        if !self.is_gone() {
            turn.arm(Deadline::Linger);
        }
    }

    /// Takes leave of whoever needs no more waiting for.
    pub(crate) fn proceed(&mut self, turn: &mut Turn<'_>) {
        for place in &mut self.leaving {
            let Some((stream, farewell)) = *place else { continue };
            if turn.shared.streams.backlog_bytes(stream) > 0 {
                continue;
            }
            match farewell {
                Farewell::Abort => turn.abort(stream),
                Farewell::Close if turn.has_ended(stream) => turn.close(stream),
                Farewell::Close => continue,
            }
            *place = None;
        }
    }

    /// The driver has lost a stream, with `unsent_bytes` in its queue.
    pub(crate) fn lost(&mut self, lost: StreamId, unsent_bytes: usize) {
        for place in &mut self.leaving {
            if place.is_some_and(|(stream, _)| stream == lost) {
                *place = None;
                if unsent_bytes > 0 {
                    self.outcome = self.outcome.and(Err(DropReason::Unflushed));
                }
            }
        }
    }

    /// Enough waiting: who has everything is closed, who has not is reset.
    pub(crate) fn timed_out(&mut self, turn: &mut Turn<'_>) {
        for place in &mut self.leaving {
            let Some((stream, _)) = place.take() else { continue };
            if turn.shared.streams.backlog_bytes(stream) == 0 {
                turn.close(stream);
            } else {
                turn.abort(stream);
                self.outcome = self.outcome.and(Err(DropReason::Unflushed));
            }
        }
    }
}
