//! One end of a conversation: what its driver did, and what it was told.

use mtproxy_tcp::ConnectionId;

use crate::memory_link::Frame;

/// How an end was lost or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It closed when its script was over.
    Closed,
    /// It closed or reset while something was left to do.
    Left,
    /// The stack said that the connection is no more.
    Reset,
    /// It never came about.
    Failed,
}

#[derive(Default)]
pub(crate) struct App {
    pub(crate) id: Option<ConnectionId>,
    pub(crate) is_established: bool,
    pub(crate) gone: Option<Gone>,
    pub(crate) written: u64,
    /// Written, and not yet taken into the send buffer.
    pub(crate) beyond: usize,
    pub(crate) read: u64,
    /// The peer's end was told.
    pub(crate) has_end: bool,
    /// Nothing will be written any more: FIN follows.
    pub(crate) is_finished: bool,
    /// An act is on the schedule.
    pub(crate) is_scheduled: bool,
    pub(crate) closes_at: Option<u64>,
    pub(crate) held: Option<Frame>,
}

impl App {
    /// Its connection, while it has one.
    pub(crate) fn live(&self) -> Option<ConnectionId> {
        if self.gone.is_none() { self.id } else { None }
    }
}
