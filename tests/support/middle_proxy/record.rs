//! What a middle proxy has seen of one link.

use super::fault::LinkFault;
use super::keys::Ends;
use super::request::ProxyRequest;
use super::wire::ProcessId;

/// Ids of each kind that are kept; later ones are counted only.
pub(super) const RECORDED_IDS_MAX: usize = 65_536;
/// Bytes of recorded packets that are kept; packets of later requests are recorded empty.
pub(super) const RECORDED_PACKET_BYTES_MAX: usize = 16 << 20;

/// How far a link has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It is connected.
    #[default]
    AwaitingNonce,
    /// The nonces are exchanged.
    AwaitingHandshake,
    /// The handshakes are exchanged.
    Ready,
}

/// What a middle proxy has counted on one link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Frames received, nonce and handshake included.
    pub frames_received: u64,
    /// Filler words received.
    pub fillers_received: u64,
    /// RPC_PROXY_REQ received.
    pub requests: u64,
    /// Bytes of their packets.
    pub request_bytes: u64,
    /// Requests that Telegram does not understand, and does not answer.
    pub requests_unknown: u64,
    /// Requests of connections that we had closed.
    pub requests_late: u64,
    /// Clients' connections that there are now.
    pub connections_open: u64,
    /// Clients' connections that there have been.
    pub connections_opened: u64,
    /// RPC_CLOSE_CONN received.
    pub close_conns: u64,
    /// Those among them for connections that there are not.
    pub close_conns_unknown: u64,
    /// RPC_PING received.
    pub pings_received: u64,
    /// RPC_PONG received.
    pub pongs_received: u64,
    /// Frames sent, nonce and handshake included.
    pub frames_sent: u64,
    /// RPC_PROXY_ANS sent.
    pub answers: u64,
    /// Bytes of their packets.
    pub answer_bytes: u64,
    /// RPC_SIMPLE_ACK sent.
    pub simple_acks: u64,
    /// RPC_CLOSE_EXT sent.
    pub close_exts: u64,
    /// RPC_PING sent.
    pub pings_sent: u64,
    /// RPC_PONG sent.
    pub pongs_sent: u64,
    /// Faults committed on a ready link.
    pub faults: u64,
    /// Orders for connections that there were not.
    pub orders_lost: u64,
}

/// What a middle proxy has seen of one link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// How far it has come.
    pub phase: Phase,
    /// Both ends, as they are here.
    pub ends: Option<Ends>,
    /// Who the proxy says it is.
    pub proxy: ProcessId,
    /// The proxy's handshake flags.
    pub handshake_flags: u32,
    /// What the proxy did wrong.
    pub fault: Option<LinkFault>,
    /// CRC-32C is in use.
    pub uses_crc32c: bool,
    /// Counters.
    pub counters: LinkCounters,
    /// The first requests, in order.
    pub requests: Vec<ProxyRequest>,
    /// Connections of the first RPC_CLOSE_CONN, in order.
    pub closed: Vec<i64>,
    /// Ids of the first pings that were answered, in order.
    pub pongs: Vec<i64>,
}

impl LinkReport {
    /// True once handshakes are exchanged.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }
}
