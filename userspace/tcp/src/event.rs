//! What a stack tells its driver.

use std::net::SocketAddr;

use crate::connections::ConnectionId;

/// Something that happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer has connected to a listening address.
    Accepted(ConnectionId, SocketAddr),
    /// A dialled connection is established.
    Connected(ConnectionId),
    /// A dialled connection will not come about. To be closed by the driver, as after a reset.
    ConnectFailed(ConnectionId, ConnectFailure),
    /// There is text, or the peer's FIN, to be read until `Read::Nothing`.
    Readable(ConnectionId),
    /// So many bytes more fell within the send buffer.
    Sent(ConnectionId, usize),
    /// The connection broke. What came before stays to be read; the driver lets go of it with
    /// [`Stack::close`](crate::Stack::close), and its name is good until then.
    Reset(ConnectionId, ResetReason),
}

impl Event {
    /// The connection that it happened to.
    #[must_use]
    pub fn connection(&self) -> ConnectionId {
        match *self {
            Self::Accepted(id, _)
            | Self::Connected(id)
            | Self::ConnectFailed(id, _)
            | Self::Readable(id)
            | Self::Sent(id, _)
            | Self::Reset(id, _) => id,
        }
    }
}

/// Why a connection did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The peer answered with a reset.
    Refused,
    /// A router answered that there is no way.
    Unreachable,
    /// Nobody answered.
    TimedOut,
}

/// Why a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// The peer reset it.
    ByPeer,
    /// The peer acknowledged nothing for too long.
    TimedOut,
    /// Text was handed in that no frame was left for: the driver did not ask `can_take`.
    OutOfFrames,
    /// Frames had run out, and it held many while its peer took next to nothing.
    Shed,
}

/// What a four-tuple is to a stack, for whoever wants to dial from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Unknown.
    Free,
    /// In TIME-WAIT, and may be dialled nevertheless: timestamps tell the old incarnation's segments from the
    /// new one's (RFC 6191).
    MayReopen,
    /// A connection has it, its goodbye perhaps, or a TIME-WAIT that is not to be cut short.
    InUse,
}

/// Why a connection cannot be dialled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The four-tuple is [in use](Standing::InUse).
    InUse,
    /// The link knows no next hop, or the addresses make no sense.
    NoRoute,
    /// There are as many connections as there may be.
    TooMany,
}

/// What there is to read.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<F> {
    /// Text, in order. The frame is the driver's, to be released by it.
    Text {
        /// Where the text is.
        frame: F,
        /// Which bytes of the frame.
        range: std::ops::Range<usize>,
    },
    /// The peer will send no more. Told once.
    End,
    /// Nothing now; an event tells when that changes.
    Nothing,
}
