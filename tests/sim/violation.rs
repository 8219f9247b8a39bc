//! What can be wrong with a run.

/// Who found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checker {
    /// Every byte arrives as it was said, in order, once, at the right peer.
    Content,
    /// Nothing is missing where a stream ends by FIN.
    Completeness,
    /// No more is handed in than the engine's credit.
    Credit,
    /// No queue is longer than the relay window and one input.
    QueueBound,
    /// The engine's idea of a queue is the queue.
    Backlog,
    /// Who was stopped for a full queue is resumed when it is empty.
    Liveness,
    /// Each stream is closed once, and nothing happens to it afterwards.
    Streams,
    /// One `Opened`, one `Ended`, true numbers.
    Events,
    /// Who is admitted, and why not.
    Admission,
    /// Only addresses of the right data centre or front are dialled, each once.
    Dials,
    /// FIN and RST are passed on as docs/session.md says.
    Endings,
    /// Nothing ends for want of time early, or late.
    Timeouts,
    /// No session, stream or deadline is left in the end.
    Leftovers,
    /// The run comes to an end.
    Progress,
    /// The same seed gives the same run.
    Determinism,
}

impl Checker {
    pub(crate) const ALL: [Self; 15] = [
        Self::Content,
        Self::Completeness,
        Self::Credit,
        Self::QueueBound,
        Self::Backlog,
        Self::Liveness,
        Self::Streams,
        Self::Events,
        Self::Admission,
        Self::Dials,
        Self::Endings,
        Self::Timeouts,
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

pub(crate) fn violation<T>(checker: Checker, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { checker, what: what.into() })
}

/// `Ok` if `holds`.
pub(crate) fn require(holds: bool, checker: Checker, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { violation(checker, what()) }
}
