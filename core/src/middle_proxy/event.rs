//! What happens to links, as values; telemetry turns them into lines and counters.

use std::net::SocketAddr;

use super::frame::FrameError;
use super::handshake::HandshakeParseError;
use super::nonce::NonceError;
use crate::event::DialError;
use crate::policy::tcp_rpc_client::{HandshakeRefusal, NonceRefusal};

/// Something worth a line about one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkEvent {
    /// The middle proxy.
    pub address: SocketAddr,
    /// What happened.
    pub kind: LinkEventKind,
}

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEventKind {
    /// Hands were shaken: it carries packets now.
    Ready {
        /// How much later the middle proxy's clock is than ours, in seconds.
        clock_skew_seconds: i64,
    },
    /// It is over.
    Lost {
        /// Why.
        why: LinkLoss,
        /// Clients whose packets went this way.
        clients: usize,
    },
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLoss {
    /// It could not be dialled.
    Dial(DialError),
    /// It was not ready in time.
    NotReady,
    /// The peer closed it.
    Ended,
    /// The peer reset it.
    Reset,
    /// Nothing came although a ping was sent.
    Stalled,
    /// No configuration names it any more, or the proxy is stopping.
    Retired,
    /// Bytes behind the peer's nonce, before our handshake: they could only be somebody else's.
    BytesBehindNonce,
    /// The peer's nonce is none.
    Nonce(NonceError),
    /// The peer's nonce is not acceptable.
    NonceRefused(NonceRefusal),
    /// The peer's handshake is none.
    Handshake(HandshakeParseError),
    /// The peer refuses our handshake, with this code (protocol.md section 7.4).
    HandshakeError(i32),
    /// The peer's handshake is not acceptable.
    HandshakeRefused(HandshakeRefusal),
    /// A frame that cannot be one.
    Frame(FrameError),
}

impl LinkLoss {
    /// Names of all kinds, for tables that count them.
    pub const NAMES: [&'static str; 13] = [
        "dial",
        "not_ready",
        "ended",
        "reset",
        "stalled",
        "retired",
        "bytes_behind_nonce",
        "nonce",
        "nonce_refused",
        "handshake",
        "handshake_error",
        "handshake_refused",
        "frame",
    ];

    /// The place of this kind in [`NAMES`](Self::NAMES).
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Dial(_) => 0,
            Self::NotReady => 1,
            Self::Ended => 2,
            Self::Reset => 3,
            Self::Stalled => 4,
            Self::Retired => 5,
            Self::BytesBehindNonce => 6,
            Self::Nonce(_) => 7,
            Self::NonceRefused(_) => 8,
            Self::Handshake(_) => 9,
            Self::HandshakeError(_) => 10,
            Self::HandshakeRefused(_) => 11,
            Self::Frame(_) => 12,
        }
    }

    /// The name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

/// What was forwarded over all links so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Packets of clients sent to middle proxies.
    pub requests: u64,
    /// Packets of clients that are no MTProto message, and were passed over.
    pub ignored: u64,
    /// Answers given to clients.
    pub answers: u64,
    /// Answers for clients who are gone.
    pub answers_dropped: u64,
    /// Quick acknowledgements given to clients.
    pub acks: u64,
    /// Quick acknowledgements for clients who are gone.
    pub acks_dropped: u64,
    /// Clients whose packets began to go by a link, each time.
    pub mappings: u64,
    /// Messages of middle proxies that we do not know, or that are malformed.
    pub unknown: u64,
}
