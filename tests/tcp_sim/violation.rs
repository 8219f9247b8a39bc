//! What can be wrong with a run.

/// Who found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checker {
    /// Every byte is read as it was written, in order, once, by the right driver.
    Delivery,
    /// FIN is told once, behind all bytes, and nothing follows it.
    End,
    /// Events belong to a connection that lives, come in an order that makes sense, and count truly.
    Events,
    /// A connection ends as both drivers wished, unless somebody tore it down or the network did.
    Outcome,
    /// Each frame is where exactly one owner has it.
    Frames,
    /// Lengths, checksums, options and addresses of what is sent.
    WellFormed,
    /// What is sent is the stream's text at that place, FIN at its end, and no sequence number is skipped.
    Sequence,
    /// What the peer acknowledged is not sent again.
    Acknowledged,
    /// Only what has come is acknowledged, selectively too, and no acknowledgement goes back.
    Acknowledgement,
    /// Nothing beyond the window of the peer but a probe of one byte.
    PeerWindow,
    /// The right edge of an advertised window does not go back.
    WindowEdge,
    /// No segment is larger than MSS and MTU allow.
    SegmentSize,
    /// Something unacknowledged has a timer that is not far, and nothing has none.
    Timers,
    /// No more is done than there is to do.
    Spinning,
    /// Nothing is left in the end.
    Leftovers,
    /// What can come to an end does so in time.
    Progress,
    /// The same seed gives the same run.
    Determinism,
}

impl Checker {
    pub(crate) const ALL: [Self; 17] = [
        Self::Delivery,
        Self::End,
        Self::Events,
        Self::Outcome,
        Self::Frames,
        Self::WellFormed,
        Self::Sequence,
        Self::Acknowledged,
        Self::Acknowledgement,
        Self::PeerWindow,
        Self::WindowEdge,
        Self::SegmentSize,
        Self::Timers,
        Self::Spinning,
        Self::Leftovers,
        Self::Progress,
        Self::Determinism,
    ];
}

/// Something that must not happen.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) checker: Checker,
    pub(crate) what: String,
}

/// Hears every objection, and lets through those of the armed checker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Judge {
    /// The only checker that objects; `None`: all do.
    pub(crate) armed: Option<Checker>,
}

impl Judge {
    /// `Ok` if `holds`, or if `checker` is not armed.
    #[inline]
    pub(crate) fn require(
        self,
        holds: bool,
        checker: Checker,
        what: impl FnOnce() -> String,
    ) -> Result<(), Violation> {
        if holds || self.armed.is_some_and(|armed| armed != checker) {
            Ok(())
        } else {
            Err(Violation { checker, what: what() })
        }
    }
}
