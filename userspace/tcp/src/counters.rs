//! What happened, counted: the only trace that a packet leaves.

use crate::drop_reason::DropReason;

/// Counters of one stack. They only grow, and wrap in no lifetime.
#[derive(Clone, Debug)]
pub struct Counters {
    dropped: [u64; DropReason::ALL.len()],
    /// Good TCP segments that arrived.
    pub segments_received: u64,
    /// Segments that were given to the link.
    pub segments_sent: u64,
    /// Bytes of text that were put in order.
    pub text_received: u64,
    /// Bytes of text that were sent for the first time.
    pub text_sent: u64,
    /// Segments that were sent again.
    pub retransmissions: u64,
    /// Of those, the ones that had to be copied since the device still read the frame, or since the header's
    /// length had changed.
    pub copies: u64,
    /// Expiries of a retransmission timer.
    pub timeouts: u64,
    /// Tails of a flight that were probed.
    pub tail_probes: u64,
    /// Fast recoveries begun.
    pub fast_recoveries: u64,
    /// Zero-window and keepalive probes sent.
    pub probes: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that were dialled and came about.
    pub connected: u64,
    /// Connections that ended with a reset from the peer.
    pub resets_received: u64,
    /// Resets sent.
    pub resets_sent: u64,
    /// Connections given up: a user, handshake, orphan or keepalive time was over.
    pub given_up: u64,
    /// Challenge acknowledgements sent (RFC 5961).
    pub challenges: u64,
    /// SYN cookies sent.
    pub cookies_sent: u64,
    /// Connections made from a cookie.
    pub cookies_accepted: u64,
    /// Packet Too Big messages that were believed.
    pub path_mtu_lowered: u64,
    /// ICMP errors that were noted and not acted upon (MUST-56).
    pub soft_errors: u64,
    /// Connections given up because frames had run out, and they held many and hardly moved.
    pub shed: u64,
    /// Times that nothing could be sent for want of a frame.
    pub no_frame: u64,
    /// Times that nothing could be sent for want of a route.
    pub no_route: u64,
    /// Connections that met a full transmit ring and waited.
    pub ring_full: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            dropped: [0; DropReason::ALL.len()],
            segments_received: 0,
            segments_sent: 0,
            text_received: 0,
            text_sent: 0,
            retransmissions: 0,
            copies: 0,
            timeouts: 0,
            tail_probes: 0,
            fast_recoveries: 0,
            probes: 0,
            accepted: 0,
            connected: 0,
            resets_received: 0,
            resets_sent: 0,
            given_up: 0,
            challenges: 0,
            cookies_sent: 0,
            cookies_accepted: 0,
            path_mtu_lowered: 0,
            soft_errors: 0,
            shed: 0,
            no_frame: 0,
            no_route: 0,
            ring_full: 0,
        }
    }
}

impl Counters {
    /// Packets dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason.index()]
    }

    /// All reasons for which a packet was dropped, and how many each.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.dropped).filter(|(_, count)| *count > 0)
    }

    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.dropped[reason.index()] += 1;
    }
}
