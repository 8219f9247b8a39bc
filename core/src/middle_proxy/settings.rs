//! What an engine needs to know to speak with middle proxies.

use std::time::Duration;

use super::{Clusters, NatRules, ProcessId, ProxySecret, ProxyTag};

/// How a deployment uses middle proxies. Shared by all workers, never changed: a reload makes a new one.
#[derive(Clone, Debug)]
pub struct MiddleProxies {
    /// The key material that both sides of a link have (protocol.md section 9.1).
    pub secret: ProxySecret,
    /// Where the middle proxies are.
    pub clusters: Clusters,
    /// Whose channel clients are shown (protocol.md section 2.3).
    pub proxy_tag: Option<ProxyTag>,
    /// How our addresses look from outside (protocol.md section 11).
    pub nat: NatRules,
    /// Who we say we are. The address is that of each link.
    pub process: ProcessId,
    /// How much of each thing there may be.
    pub limits: MiddleProxyLimits,
}

/// How much of each thing there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiddleProxyLimits {
    /// Bytes of answers that may wait for one slow client. There is no flow control inside a link, so that a client who
    /// does not keep up is closed.
    pub client_buffer_bytes: usize,
    /// Bytes that may wait for and from all clients of one engine; above three quarters of it those that have been
    /// quiet longest are closed.
    pub buffer_bytes: usize,
    /// Silence on a link after which it is pinged.
    pub ping_after: Duration,
    /// From a ping that nothing answers to a link that is given up.
    pub stalled_after: Duration,
}

impl Default for MiddleProxyLimits {
    fn default() -> Self {
        Self {
            client_buffer_bytes: CLIENT_BUFFER_BYTES_DEFAULT,
            buffer_bytes: BUFFER_BYTES_DEFAULT,
            ping_after: Duration::from_secs(10),
            stalled_after: Duration::from_secs(10),
        }
    }
}

/// The official proxy allows 32 MiB, an eighth of its memory to each client. A client asks for its next part of a file
/// when one has come, and keeps about four parts of at most 1 MiB on their way: what is behind by more is not
/// listening any more.
pub const CLIENT_BUFFER_BYTES_DEFAULT: usize = 4 << 20;
/// As in the official proxy (policies.md section 8).
pub const BUFFER_BYTES_DEFAULT: usize = 256 << 20;
