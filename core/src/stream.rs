//! Streams: the only thing that engine and datapath have in common.
//!
//! A stream is one TCP connection as an ordered pair of byte sequences. The engine names it; the datapath
//! knows the socket, or the TCB, behind the name.

use std::net::SocketAddr;

use slotmap::{DefaultKey, Key, KeyData, SlotMap};

use crate::middle_proxy::link::LinkKey;
use crate::session_key::SessionKey;

/// Name of a stream. Never reused while the engine lives: an event that comes late for a stream that is
/// gone is recognised and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(DefaultKey);

impl StreamId {
    /// The place of this stream among those open now: small, dense, reused. For a driver's own table.
    #[must_use]
    pub fn slot(self) -> usize {
        (self.to_u64() & 0xffff_ffff) as usize
    }

    /// The whole name in 64 bits, for instance for epoll's user data: the slot in the low half, which
    /// is never all ones, and how often it was reused in the high half, whose highest bit is never set.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0.data().as_ffi()
    }

    /// The inverse of [`to_u64`](Self::to_u64).
    #[must_use]
    pub fn from_u64(value: u64) -> Self {
        Self(KeyData::from_ffi(value).into())
    }
}

/// Both ends of a connection, as this host sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

impl Endpoints {
    /// The same, with an IPv4 address where an IPv6 one only stands for it (a listener for both families).
    #[must_use]
    pub fn to_canonical(self) -> Self {
        let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
        Self { local: canonical(self.local), remote: canonical(self.remote) }
    }
}

/// A side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leg {
    /// Toward the Telegram app, or toward whoever pretends to be one.
    Client,
    /// Toward the data centre or the front.
    Upstream,
}

impl Leg {
    /// The opposite side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

/// Whose stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A side of a session.
    Session(SessionKey, Leg),
    /// A link to a middle proxy, which many sessions share.
    Link(LinkKey),
}

/// What the engine keeps of a stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) owner: Owner,
    /// The peer has sent FIN, and everything before it has been handled.
    pub(crate) ended: bool,
    /// We have asked for FIN.
    pub(crate) shut_down: bool,
    /// Bytes handed to the driver that it has not sent yet.
    pub(crate) backlog_bytes: usize,
    /// They count in [`Streams::metered_bytes`].
    is_metered: bool,
}

impl Stream {
    /// The session's side, if it is a session's.
    pub(crate) fn leg(&self) -> Option<Leg> {
        match self.owner {
            Owner::Session(_, leg) => Some(leg),
            Owner::Link(_) => None,
        }
    }
}

/// The streams of one engine.
#[derive(Default)]
pub(crate) struct Streams {
    table: SlotMap<DefaultKey, Stream>,
    /// Places that are used up and stay taken.
    retired: usize,
    metered_bytes: usize,
}

/// Names end here: slotmap counts the uses of a place in 32 bits, two for each, and begins anew behind
/// them. At 1000 streams a second the topmost place is used up in 12 days; then it is given up.
const NAMES_END: u64 = 1 << 63;

impl Streams {
    pub(crate) fn open(&mut self, owner: Owner) -> StreamId {
        self.open_below(NAMES_END, owner)
    }

    fn open_below(&mut self, names_end: u64, owner: Owner) -> StreamId {
        loop {
            let stream =
                Stream { owner, ended: false, shut_down: false, backlog_bytes: 0, is_metered: false };
            let id = StreamId(self.table.insert(stream));
            if id.to_u64() < names_end {
                return id;
            }
            self.retired += 1;
        }
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.table.get(id.0)
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.table.get_mut(id.0)
    }

    pub(crate) fn remove(&mut self, id: StreamId) {
        if let Some(stream) = self.table.remove(id.0).filter(|stream| stream.is_metered) {
            self.metered_bytes -= stream.backlog_bytes;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len() - self.retired
    }

    /// So many more bytes wait for `id`.
    pub(crate) fn add_backlog(&mut self, id: StreamId, len: usize) {
        let Some(stream) = self.table.get_mut(id.0) else { return };
        stream.backlog_bytes += len;
        if stream.is_metered {
            self.metered_bytes += len;
        }
    }

    /// `len` bytes of what waits for `id` are sent.
    pub(crate) fn sent(&mut self, id: StreamId, len: usize) {
        let Some(stream) = self.table.get_mut(id.0) else { return };
        let len = len.min(stream.backlog_bytes);
        stream.backlog_bytes -= len;
        if stream.is_metered {
            self.metered_bytes -= len;
        }
    }

    /// Counts what waits for `id` from now on among [`metered_bytes`](Self::metered_bytes).
    pub(crate) fn meter(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(id.0) else { return };
        if !std::mem::replace(&mut stream.is_metered, true) {
            self.metered_bytes += stream.backlog_bytes;
        }
    }

    /// Bytes that wait for the streams that are metered: those of clients whose peer knows no flow control.
    pub(crate) fn metered_bytes(&self) -> usize {
        self.metered_bytes
    }

    pub(crate) fn backlog_bytes(&self, id: StreamId) -> usize {
        self.get(id).map_or(0, |stream| stream.backlog_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session_key::tests::session_keys;

    #[test]
    fn a_place_whose_names_are_used_up_is_given_up() {
        let key = session_keys(1)[0];
        let mut streams = Streams::default();
        let mut names = Vec::new();
        for _ in 0..10 {
            // Four names a place: versions 1, 3, 5 and 7.
            let id = streams.open_below(8 << 32, Owner::Session(key, Leg::Client));
            assert!(!names.contains(&id) && id.to_u64() < 8 << 32);
            assert_eq!(streams.len(), 1);
            streams.remove(id);
            names.push(id);
        }
        let places: Vec<usize> = names.iter().map(|id| id.slot()).collect();
        assert_eq!(places[3..5], [places[0], places[0] + 1]);
        assert_eq!((streams.len(), streams.retired), (0, 2));
    }
}
