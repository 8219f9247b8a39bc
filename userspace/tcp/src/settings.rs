//! How a stack behaves, as the driver wishes. Every default has its reason.

use std::time::Duration;

use crate::congestion::Algorithm;
use crate::wire::Checksums;

/// Settings of a stack, fixed for its life.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Congestion control of all connections.
    pub congestion: Algorithm,
    /// Which checksums pass.
    pub checksums: Checksums,
    /// Most connections at a time; a SYN beyond is dropped.
    pub connections_max: usize,
    /// Most connections in SYN-RECEIVED; a SYN beyond is answered with a cookie and not remembered.
    pub half_open_max: usize,
    /// Most records of TIME-WAIT; beyond, the oldest goes.
    pub time_wait_max: usize,
    /// Largest receive window.
    pub receive_buffer_max_bytes: u32,
    /// Most text that counts as sent while it is not acknowledged.
    pub send_buffer_max_bytes: u32,
    /// Probes of idle connections; off by default (MUST-25): how long a relay keeps an idle session is the
    /// session's policy, not TCP's.
    pub keepalive: Option<Keepalive>,
    /// How long `connect` tries. RFC 9293 wants at least three minutes (MUST-23), which no client of a relay
    /// waits for.
    pub connect_timeout: Duration,
    /// How long a connection in SYN-RECEIVED waits: five retransmissions from one second on, as Linux does.
    pub accept_timeout: Duration,
    /// R2: how long text stays unacknowledged before the connection is given up. RFC 9293 §3.8.3 wants at
    /// least 100 s; its user timeout is five minutes.
    pub user_timeout: Duration,
    /// How long a connection that the driver has closed may still deliver and wait for FIN: Linux's
    /// `tcp_fin_timeout`.
    pub orphan_timeout: Duration,
    /// Challenge acknowledgements, and as many resets, that one stack sends in a second. More would make it a
    /// reflector (RFC 5961 §7); Linux's `tcp_challenge_ack_limit` was 1000.
    pub answers_per_second: u32,
}

/// Keepalive (RFC 9293 §3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is given up.
    pub probes: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            congestion: Algorithm::default(),
            checksums: Checksums::Verify,
            connections_max: 1 << 20,
            half_open_max: 4096,
            time_wait_max: 1 << 16,
            receive_buffer_max_bytes: 4 << 20,
            send_buffer_max_bytes: 4 << 20,
            keepalive: None,
            connect_timeout: Duration::from_secs(30),
            accept_timeout: Duration::from_secs(63),
            user_timeout: Duration::from_secs(300),
            orphan_timeout: Duration::from_secs(60),
            answers_per_second: 1000,
        }
    }
}
