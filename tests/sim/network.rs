//! Connections as both ends see them: a pipe each way, with delay, a window, FIN and RST.

use std::collections::VecDeque;
use std::time::Duration;

use mtproxy_core::stream::StreamId;

/// What travels.
enum Parcel {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// One direction of a connection.
pub(crate) struct Pipe {
    /// Most bytes under way and not yet taken: the receiver's buffer.
    window: usize,
    delay: Duration,
    last_arrival: Duration,
    under_way: VecDeque<Parcel>,
    under_way_len: usize,
    /// Arrived, and not yet taken.
    inbox: VecDeque<u8>,
    has_fin_come: bool,
    has_reset_come: bool,
    is_ended: bool,
}

impl Pipe {
    pub(crate) fn new(window: usize, delay: Duration) -> Self {
        Self {
            window,
            delay,
            last_arrival: Duration::ZERO,
            under_way: VecDeque::new(),
            under_way_len: 0,
            inbox: VecDeque::new(),
            has_fin_come: false,
            has_reset_come: false,
            is_ended: false,
        }
    }

    /// How many bytes the sender may add.
    pub(crate) fn room(&self) -> usize {
        self.window.saturating_sub(self.under_way_len + self.inbox.len())
    }

    /// Sends bytes; answers when they arrive.
    pub(crate) fn send(&mut self, now: Duration, bytes: Vec<u8>) -> Duration {
        assert!(!self.is_ended, "nothing follows FIN or RST");
        self.under_way_len += bytes.len();
        self.push(now, Parcel::Bytes(bytes))
    }

    /// Sends FIN, once.
    pub(crate) fn finish(&mut self, now: Duration) -> Option<Duration> {
        (!std::mem::replace(&mut self.is_ended, true)).then(|| self.push(now, Parcel::Fin))
    }

    /// Sends RST, also behind FIN.
    pub(crate) fn reset(&mut self, now: Duration) -> Duration {
        self.is_ended = true;
        self.push(now, Parcel::Reset)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }

    fn push(&mut self, now: Duration, parcel: Parcel) -> Duration {
        self.last_arrival = self.last_arrival.max(now + self.delay);
        self.under_way.push_back(parcel);
        self.last_arrival
    }

    /// The parcel in front arrives.
    pub(crate) fn arrive(&mut self) {
        match self.under_way.pop_front() {
            Some(Parcel::Bytes(bytes)) => {
                self.under_way_len -= bytes.len();
                self.inbox.extend(bytes);
            }
            Some(Parcel::Fin) => self.has_fin_come = true,
            Some(Parcel::Reset) => {
                // As in a kernel: what was not read by now is lost.
                self.has_reset_come = true;
                self.inbox.clear();
            }
            None => {}
        }
    }

    /// Everything that is under way arrives.
    pub(crate) fn arrive_all(&mut self) {
        while !self.under_way.is_empty() {
            self.arrive();
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        self.inbox.drain(..len).collect()
    }

    pub(crate) fn available(&self) -> usize {
        self.inbox.len()
    }

    /// FIN has come, and everything before it is taken.
    pub(crate) fn is_at_end(&self) -> bool {
        self.has_fin_come && self.inbox.is_empty()
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.has_reset_come
    }

    /// The receiver is gone: what comes is lost.
    pub(crate) fn spill(&mut self) {
        self.inbox.clear();
    }
}

/// One connection between the proxy and a peer.
pub(crate) struct Connection {
    pub(crate) to_peer: Pipe,
    pub(crate) to_proxy: Pipe,
    pub(crate) peer: usize,
    /// `None` until the proxy has named it.
    pub(crate) stream: Option<StreamId>,
    /// The proxy has closed or reset it.
    pub(crate) is_left_by_proxy: bool,
}

impl Connection {
    pub(crate) fn new(peer: usize, window: usize, delay: Duration) -> Self {
        Self {
            to_peer: Pipe::new(window, delay),
            to_proxy: Pipe::new(window, delay),
            peer,
            stream: None,
            is_left_by_proxy: false,
        }
    }
}
