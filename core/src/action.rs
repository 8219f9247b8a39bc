//! What the engine asks of the world, in the order in which it must happen.

use std::net::SocketAddr;
use std::ops::Range;

use crate::event::Event;
use crate::stream::StreamId;

/// One request to the driver.
///
/// A driver keeps one output queue a stream. `Write` and `Relay` append to it, `Shutdown` takes effect behind
/// what is queued. Output to a stream that is still being dialled waits, and
/// survives a second `Dial` of the same stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a connection. Answer with `Connected` or `DialFailed`. For a stream that is already being
    /// dialled: give that attempt up and try this address instead.
    Dial {
        /// The stream that the connection will carry.
        stream: StreamId,
        /// Where to.
        address: SocketAddr,
    },
    /// Send these bytes of [`Actions::bytes`].
    Write {
        /// Receiver.
        to: StreamId,
        /// Which bytes.
        range: Range<usize>,
    },
    /// Send these bytes of the input that was just handled, as they are now.
    Relay {
        /// Receiver.
        to: StreamId,
        /// Which bytes.
        range: Range<usize>,
    },
    /// Send FIN behind what is queued. The other direction stays open.
    Shutdown(StreamId),
    /// The stream is over in both directions; nothing is queued. Forget it.
    Close(StreamId),
    /// Reset the connection at once, drop what is queued, and forget the stream.
    Abort(StreamId),
    /// [`Engine::credit`](crate::engine::Engine::credit) of this stream has risen: read again.
    Resume(StreamId),
    /// Tell telemetry.
    Report(Event),
}

/// The actions that answer one input. Reused for the next one, so that a relay allocates nothing.
#[derive(Debug, Default)]
pub struct Actions {
    list: Vec<Action>,
    bytes: Vec<u8>,
}

impl Actions {
    /// No actions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The actions, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Action] {
        &self.list
    }

    /// What `Write` ranges point into.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
    }

    pub(crate) fn push(&mut self, action: Action) {
        self.list.push(action);
    }

    /// Appends a `Write` of whatever `compose` appends; answers its length.
    pub(crate) fn write_with(&mut self, to: StreamId, compose: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.bytes.len();
        compose(&mut self.bytes);
        let range = start..self.bytes.len();
        let len = range.len();
        if len > 0 {
            self.push(Action::Write { to, range });
        }
        len
    }
}
