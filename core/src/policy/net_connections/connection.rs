//! One connection: when it is accepted, what a read or a write leads to, and how it ends (policies.md section 1).
//!
//! The C proxy moves a connection between threads by signals to jobs; here one thread owns it, so that the signals are
//! calls. The decisions that remain are typed below and used by the epoll datapath; [`dispatch`] and
//! [`socket_dispatch`] are there for code that still has jobs.

use std::time::Duration;

use crate::time::Instant;

/// Why a connection was failed, with the C proxy's number (policies.md section 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The peer broke the protocol.
    Protocol,
    /// An outgoing connection was not ready in time.
    NotReady,
    /// An outgoing connection is in a state that it cannot be in.
    Unexpected,
    /// Whoever was to be told that it is ready refused it.
    Refused,
    /// Nobody needs its target any more.
    Unused,
    /// The other half of a spliced pair has closed.
    OtherHalf,
    /// The connection to the real site could not be opened.
    SpliceNotOpened,
    /// There was no memory for the connection to the real site.
    SpliceNotAllocated,
    /// The middle proxy ended the client's conversation, or is gone.
    MappingClosed,
    /// The client had packets dropped, and a route exists again.
    PacketsDropped,
    /// The socket was aborted.
    SocketAborted,
    /// The socket was freed first.
    SocketFreed,
    /// More waits for the client than is allowed.
    ClientBuffers,
    /// Memory is short, and this one was quiet longest.
    MemoryPressure,
}

impl CloseCode {
    /// The C proxy's number.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Protocol => -1,
            Self::NotReady => -6,
            Self::Unexpected => -7,
            Self::Refused => -8,
            Self::Unused => -17,
            Self::OtherHalf => -23,
            Self::SpliceNotOpened => -27,
            Self::SpliceNotAllocated => -37,
            Self::MappingClosed => -33,
            Self::PacketsDropped => -35,
            Self::SocketAborted => -200,
            Self::SocketFreed => -201,
            Self::ClientBuffers => -429,
            Self::MemoryPressure => -500,
        }
    }
}

/// What failing a connection does (section 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// It begins to close; this reason is the one that is remembered.
    Begin,
    /// It is closing already: the first reason stays.
    Ignore,
}

/// Section 1.2: closing is idempotent, and the first reason wins.
#[must_use]
pub fn fail(is_closing: bool) -> Fail {
    if is_closing { Fail::Ignore } else { Fail::Begin }
}

/// What the end of a connection counts as (section 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseAccount {
    /// It failed.
    pub failed: bool,
    /// It failed before it was of any use.
    pub connect_failed: bool,
    /// It was closed because nobody needed it.
    pub unused: bool,
    /// Its pool is looked at at once: another one is needed.
    pub refill: bool,
    /// Accepting begins again: there is a place.
    pub accept_again: bool,
}

/// A connection at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Nobody needed it.
    pub is_unused: bool,
    /// It was connected, and that was noticed.
    pub was_active: bool,
    /// It belongs to a pool.
    pub has_target: bool,
    /// It counted against the limit of clients, which had so many before, of so many.
    pub clients: Option<(usize, usize)>,
}

/// Section 1.3.
#[must_use]
pub fn account(closed: Closed) -> CloseAccount {
    CloseAccount {
        failed: !closed.is_unused,
        connect_failed: !closed.is_unused && !closed.was_active,
        unused: closed.is_unused,
        refill: closed.has_target,
        accept_again: closed.clients.is_some_and(|(before, limit)| before == limit),
    }
}

/// Whether somebody who waits is accepted (sections 1.4 to 1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Take it.
    Take,
    /// Let it wait in the kernel's backlog, and stop accepting for a while: the limit of clients is reached.
    LetWait,
    /// Take it and close it: too many came in this second.
    Turn,
}

/// Sections 1.4 and 1.5. The C proxy accepts one client beyond the limit and then stops; here it waits, too.
#[must_use]
pub fn accept(clients: usize, clients_max: usize, has_token: bool) -> Accept {
    if clients >= clients_max {
        Accept::LetWait
    } else if has_token {
        Accept::Take
    } else {
        Accept::Turn
    }
}

/// How many connections may be accepted a second (section 1.5): a token each, and no more than a second's worth saved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AcceptBucket {
    per_second: f64,
    tokens: f64,
    counted_at: Instant,
}

impl AcceptBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, tokens: per_second, counted_at: now }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let gained = now.since(self.counted_at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.per_second);
        self.counted_at = now;
        let has_token = self.tokens >= 1.0;
        if has_token {
            self.tokens -= 1.0;
        }
        has_token
    }

    /// What is left for this second.
    #[must_use]
    pub fn tokens(&self) -> f64 {
        self.tokens
    }
}

/// How a read or a write of a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// So many bytes were moved, of so many that there was room for.
    Moved(usize, usize),
    /// There is nothing, or no room: EAGAIN.
    Again,
    /// A signal came: EINTR.
    Interrupted,
    /// The peer has sent FIN; of a write, that nothing was written.
    End,
    /// Anything else.
    Failed,
}

/// What a read leads to (section 1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRead {
    /// Handle the bytes; the socket may have more.
    Bytes {
        /// Another read may find something without a new event.
        may_have_more: bool,
    },
    /// Wait for an event.
    Wait,
    /// Try again.
    Retry,
    /// The peer says no more, but still listens.
    End,
    /// The connection is gone.
    Broken,
}

/// What is known of a socket besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadContext {
    /// Its failure was seen, by a write or by epoll; what came before is still to be read.
    pub has_failed: bool,
    /// An end or urgent data was reported: a short read has not emptied it.
    pub more_behind: bool,
}

/// Section 1.7. In the C proxy an end closes both directions; here it is an end of one.
#[must_use]
pub fn after_read(read: Io, context: ReadContext) -> AfterRead {
    match read {
        // Who asks first consumes the error, often a write; to this end there is no other explanation.
        Io::End | Io::Again if context.has_failed => AfterRead::Broken,
        // A short read has emptied the socket (epoll(7)); what comes later is a new event.
        Io::Moved(len, room) => AfterRead::Bytes { may_have_more: len == room || context.more_behind },
        Io::Again => AfterRead::Wait,
        Io::Interrupted => AfterRead::Retry,
        Io::End => AfterRead::End,
        Io::Failed => AfterRead::Broken,
    }
}

/// What a write leads to (section 1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterWrite {
    /// Go on.
    Goes {
        /// The kernel took all of it: it may take more.
        has_room: bool,
    },
    /// Wait for room.
    Wait,
    /// Try again.
    Retry,
    /// The peer is gone; what it sent before is still read.
    Failed,
}

/// Section 1.7. The C proxy gives up a connection whose buffer was full a hundred times in a row, which a slow phone
/// reaches in good health; here only time decides ([`Timeouts`](crate::config::Timeouts)).
#[must_use]
pub fn after_write(written: Io) -> AfterWrite {
    match written {
        Io::Moved(len, total) => AfterWrite::Goes { has_room: len == total },
        Io::Again => AfterWrite::Wait,
        Io::Interrupted => AfterWrite::Retry,
        Io::End | Io::Failed => AfterWrite::Failed,
    }
}

/// What a connection that serves looks like to its pool (section 1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not connected yet.
    Connecting,
    /// Open.
    Working,
    /// Failed.
    Error,
    /// Closing behind what is queued.
    WriteClose,
}

/// Whether closing behind what is queued begins (section 1.10): only for a connection that works.
#[must_use]
pub fn begins_write_close(status: Status) -> bool {
    status == Status::Working
}

/// What arming a connection's timer does (section 1.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// It has failed: nothing.
    Ignore,
    /// It goes off then.
    Arm(Instant),
    /// It does not go off.
    Disarm,
}

/// Section 1.11.
#[must_use]
pub fn timer(status: Status, after: Duration, now: Instant) -> Timer {
    match status {
        Status::Error => Timer::Ignore,
        _ if after.is_zero() => Timer::Disarm,
        _ => Timer::Arm(now.plus(after)),
    }
}

/// Signals of the C proxy's jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// There is something to do.
    Run,
    /// There is something to do of the second kind.
    Aux,
    /// The timer went off.
    Alarm,
    /// It is to end.
    Abort,
    /// Nobody refers to it any more.
    Finish,
}

/// A connection job when a signal comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobState {
    /// It has failed.
    pub has_error: bool,
    /// Closing has run.
    pub has_closed: bool,
    /// Its connect has succeeded, and nobody was told.
    pub is_ready_pending: bool,
    /// Its timer was armed anew meanwhile.
    pub is_timer_stale: bool,
}

/// What a signal to a connection job leads to (section 1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// Nothing.
    Nothing,
    /// Tell that it is connected, then read and write.
    Connected,
    /// Read, then write.
    ReadWrite,
    /// Tell that its time is over.
    Alarm,
    /// Close, and end.
    Close,
    /// End: it was closed before.
    End,
    /// Free it.
    Free,
    /// There is no such signal for it.
    Error,
}

/// Section 1.1.
#[must_use]
pub fn dispatch(signal: Signal, job: JobState) -> Dispatch {
    match signal {
        Signal::Run if job.has_error => Dispatch::Nothing,
        Signal::Run if job.is_ready_pending => Dispatch::Connected,
        Signal::Run => Dispatch::ReadWrite,
        Signal::Alarm if job.is_timer_stale || job.has_error => Dispatch::Nothing,
        Signal::Alarm => Dispatch::Alarm,
        Signal::Abort if !job.has_error => Dispatch::Error,
        Signal::Abort if job.has_closed => Dispatch::End,
        Signal::Abort => Dispatch::Close,
        Signal::Finish => Dispatch::Free,
        Signal::Aux => Dispatch::Error,
    }
}

/// What a signal to a listener's job leads to (section 1.6).
#[must_use]
pub fn listener_dispatch(signal: Signal) -> ListenerDispatch {
    match signal {
        Signal::Run => ListenerDispatch::Accept,
        Signal::Aux => ListenerDispatch::ListenAgain,
        Signal::Alarm | Signal::Abort | Signal::Finish => ListenerDispatch::Error,
    }
}

/// See [`listener_dispatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerDispatch {
    /// Accept whoever waits.
    Accept,
    /// There are places again.
    ListenAgain,
    /// There is no such signal for it.
    Error,
}

/// What a signal to a socket's job leads to (section 1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketDispatch {
    /// Nothing.
    Nothing,
    /// Read, then write; register anew if what is wanted has changed.
    ReadWrite,
    /// Register anew.
    Register,
    /// Let go of it, and fail its connection with this code.
    Fail(CloseCode),
}

/// Section 1.7.
#[must_use]
pub fn socket_dispatch(signal: Signal, has_error: bool) -> SocketDispatch {
    match signal {
        Signal::Abort => SocketDispatch::Fail(CloseCode::SocketAborted),
        Signal::Finish => SocketDispatch::Fail(CloseCode::SocketFreed),
        Signal::Run if !has_error => SocketDispatch::ReadWrite,
        Signal::Aux if !has_error => SocketDispatch::Register,
        Signal::Run | Signal::Aux | Signal::Alarm => SocketDispatch::Nothing,
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
