//! The last phase: nothing more is read; what is queued is sent, bounded by the linger timeout.

use super::{Farewell, Outcome, Phase, Turn};
use crate::deadline::Deadline;
use crate::error::DropReason;
use crate::stream::{Leg, StreamId};

/// A session that is over but for what is queued.
pub(crate) struct Closing {
    /// Streams that still have something queued: at most one a leg.
    flushing: [Option<(StreamId, Farewell)>; 2],
    pub(crate) outcome: Outcome,
}

impl Closing {
    /// A session without streams: gone.
    pub(crate) fn gone(outcome: Outcome) -> Self {
        Self { flushing: [None; 2], outcome }
    }

    /// Takes leave of each peer at once if nothing is queued for it, else when it is sent.
    pub(crate) fn begin(turn: &mut Turn<'_>, farewells: &[(StreamId, Farewell)], outcome: Outcome) -> Phase {
        let mut closing = Self::gone(outcome);
        for (place, &(stream, farewell)) in closing.flushing.iter_mut().zip(farewells) {
            if turn.shared.streams.backlog_bytes(stream) == 0 {
                take_leave(stream, farewell, turn);
            } else {
                if farewell == Farewell::Close {
                    turn.shut_down(stream);
                }
                *place = Some((stream, farewell));
            }
        }
        if !closing.is_gone() {
            turn.arm(Deadline::Linger);
        }
        Phase::Closing(closing)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.flushing.iter().all(Option::is_none)
    }

    /// The streams still there, in no particular order: after the end, legs no longer matter.
    pub(crate) fn stream(&self, leg: Leg) -> Option<StreamId> {
        self.flushing[leg as usize].map(|(stream, _)| stream)
    }

    /// The queue of some stream has become shorter.
    pub(crate) fn sent(&mut self, turn: &mut Turn<'_>) {
        for place in &mut self.flushing {
            if let Some((stream, farewell)) = *place
                && turn.shared.streams.backlog_bytes(stream) == 0
            {
                take_leave(stream, farewell, turn);
                *place = None;
            }
        }
    }

    /// The driver has lost a stream.
    pub(crate) fn lost(&mut self, lost: StreamId) {
        for place in &mut self.flushing {
            if place.is_some_and(|(stream, _)| stream == lost) {
                *place = None;
                self.outcome = self.outcome.and(Err(DropReason::Unflushed));
            }
        }
    }

    pub(crate) fn timed_out(&mut self, turn: &mut Turn<'_>) {
        for place in &mut self.flushing {
            if let Some((stream, _)) = place.take() {
                turn.abort(stream);
                self.outcome = self.outcome.and(Err(DropReason::Unflushed));
            }
        }
    }
}

fn take_leave(stream: StreamId, farewell: Farewell, turn: &mut Turn<'_>) {
    match farewell {
        Farewell::Close => turn.close(stream),
        Farewell::Abort => turn.abort(stream),
    }
}
