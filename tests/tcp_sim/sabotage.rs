//! Ways to break a run on purpose, each of which one checker must notice.

use crate::violation::Checker;
use crate::wire::{ACK, RST, SYN, View};

/// Something that a broken stack or driver might do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    SpoilsOneByte,
    LosesTheEnd,
    ReportsTooMuchSent,
    ResetsQuietly,
    LeaksOneFrame,
    SpoilsChecksums,
    SkipsSequenceNumbers,
    SendsWhatIsAcknowledged,
    AcknowledgesTheFuture,
    HearsNoWindow,
    RetractsTheWindow,
    HearsSmallMss,
    SleepsThroughTimeouts,
    SpinsOnTimeouts,
    ForgetsToClose,
    LosesWakeUps,
}

impl Sabotage {
    pub(crate) const ALL: [(Self, Checker); 16] = [
        (Self::SpoilsOneByte, Checker::Delivery),
        (Self::LosesTheEnd, Checker::End),
        (Self::ReportsTooMuchSent, Checker::Events),
        (Self::ResetsQuietly, Checker::Outcome),
        (Self::LeaksOneFrame, Checker::Frames),
        (Self::SpoilsChecksums, Checker::WellFormed),
        (Self::SkipsSequenceNumbers, Checker::Sequence),
        (Self::SendsWhatIsAcknowledged, Checker::Acknowledged),
        (Self::AcknowledgesTheFuture, Checker::Acknowledgement),
        (Self::HearsNoWindow, Checker::PeerWindow),
        (Self::RetractsTheWindow, Checker::WindowEdge),
        (Self::HearsSmallMss, Checker::SegmentSize),
        (Self::SleepsThroughTimeouts, Checker::Timers),
        (Self::SpinsOnTimeouts, Checker::Spinning),
        (Self::ForgetsToClose, Checker::Leftovers),
        (Self::LosesWakeUps, Checker::Progress),
    ];

    /// Changes a segment as the checkers see it leave.
    pub(crate) fn tamper_with_departure(self, view: &mut View) {
        if view.has(SYN) || view.has(RST) {
            return;
        }
        match self {
            Self::SkipsSequenceNumbers => view.seq = view.seq.wrapping_add(1_000_000),
            // Back to where the stream begins, but for the first segments.
            Self::SendsWhatIsAcknowledged => view.seq = view.seq.wrapping_sub(view.payload_len as u32),
            Self::AcknowledgesTheFuture if view.has(ACK) => view.ack = view.ack.wrapping_add(100_000),
            Self::RetractsTheWindow => view.window /= 2,
            _ => {}
        }
    }

    /// Changes a segment as the checkers see it arrive.
    pub(crate) fn tamper_with_arrival(self, view: &mut View) {
        match self {
            Self::HearsNoWindow => view.window = 0,
            Self::HearsSmallMss => view.options.mss = Some(100),
            _ => {}
        }
    }
}
