//! The Transmission Control Block: what is remembered of one connection (RFC 9293 §3.3.1).
//!
//! An idle connection is this record and nothing else. What exists only while bytes are queued, in flight or
//! unread is in [`Queues`], borrowed from a pool.

use crate::congestion::Controller;
use crate::four_tuple::FourTuple;
use crate::link::{Hop, VlanTag};
use crate::queues::Queues;
use crate::rto::RttEstimator;
use crate::seq::SeqNumber;
use crate::time::Instant;

/// States of a connection (RFC 9293 §3.3.2). LISTEN is a property of the stack, not of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No connection any more; the record waits for the user to let go of it.
    Closed,
    /// We have sent SYN.
    SynSent,
    /// We have sent and received SYN, and wait for the peer's ACK.
    SynReceived,
    /// Open both ways.
    Established,
    /// The user has closed; our FIN is not yet acknowledged.
    FinWait1,
    /// Our FIN is acknowledged; the peer may still send.
    FinWait2,
    /// The peer has sent FIN; the user may still send.
    CloseWait,
    /// Both have sent FIN, and ours is not yet acknowledged.
    Closing,
    /// Like [`Closing`](Self::Closing), but the peer was first.
    LastAck,
    /// Both FINs are acknowledged; old segments may still come.
    TimeWait,
}

impl State {
    /// True once both SYNs are acknowledged.
    #[must_use]
    pub fn is_synchronized(self) -> bool {
        !matches!(self, Self::Closed | Self::SynSent | Self::SynReceived)
    }

    /// True while the peer may send text.
    #[must_use]
    pub fn may_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }

    /// True while the user may send text.
    #[must_use]
    pub fn may_send(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived | Self::Established | Self::CloseWait)
    }
}

/// Send Sequence Space (RFC 9293 §3.3.1, figure 3). ISS is not kept: it is `una` until the handshake is over, and
/// nobody asks later.
///
/// ```text
///            1         2          3          4
///       ----------|----------|----------|----------
///                una        nxt      una+wnd
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SendSequence {
    /// Oldest unacknowledged.
    pub una: SeqNumber,
    /// Next to be sent.
    pub nxt: SeqNumber,
    /// Send window, scaled.
    pub wnd: u32,
    /// Largest window seen: what sender SWS avoidance and RFC 5961 §5 compare with.
    pub max_wnd: u32,
    /// Sequence number of the segment that last moved the window.
    pub wl1: SeqNumber,
    /// Its acknowledgement number.
    pub wl2: SeqNumber,
}

/// Receive Sequence Space (RFC 9293 §3.3.1, figure 4). IRS is not kept: it is `nxt - 1` until the handshake is over.
///
/// ```text
///                1          2          3
///            ----------|----------|----------
///                     nxt      nxt+wnd
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiveSequence {
    /// Next expected.
    pub nxt: SeqNumber,
    /// What was promised and not yet used: `nxt + wnd` never moves left (SHLD-14).
    pub wnd: u32,
}

/// Never.
pub(crate) const NEVER: Instant = Instant::from_micros(u64::MAX);

/// When what must happen to a connection; the wheel has one entry for the earliest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// Retransmission, or with nothing in flight: the persist timer.
    pub(crate) retransmit: Instant,
    /// Delayed acknowledgement, or another try where no frame was free.
    pub(crate) output: Instant,
    /// End of a wait: handshake, keepalive, FIN-WAIT-2, orphan, TIME-WAIT.
    pub(crate) life: Instant,
    /// Where the wheel has this connection; at or before the earliest of the others.
    pub(crate) armed: Instant,
}

impl Deadlines {
    pub(crate) const NONE: Self = Self { retransmit: NEVER, output: NEVER, life: NEVER, armed: NEVER };

    pub(crate) fn earliest(&self) -> Instant {
        self.retransmit.min(self.output).min(self.life)
    }
}

/// What the next turn of output owes, and what the user has done. One byte each, for the reader's sake.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    /// Opened by the peer's SYN (MUST-11): a reset in SYN-RECEIVED returns to LISTEN without a word.
    pub(crate) passive: bool,
    /// The user has closed; nobody reads any more.
    pub(crate) orphan: bool,
    /// SYN or SYN-ACK is due.
    pub(crate) syn_due: bool,
    /// An acknowledgement is due now.
    pub(crate) ack_due: bool,
    /// A zero-window or keepalive probe is due.
    pub(crate) probe_due: bool,
    /// A retransmission goes out whatever the congestion window says (RFC 6675 §5 step 4.3).
    pub(crate) retransmit_due: bool,
    /// The window override of sender SWS avoidance has expired (RFC 9293 §3.8.6.2.1).
    pub(crate) window_override: bool,
    /// The retransmission deadline is one to probe the tail of a flight at (RFC 8985 §7).
    pub(crate) tail_probe: bool,
    /// The tail was probed since something was last acknowledged.
    pub(crate) tail_probed: bool,
    /// FIN is in the send queue, or was.
    pub(crate) fin_queued: bool,
    /// The peer's FIN has been received in order.
    pub(crate) fin_received: bool,
    /// The user has read the peer's FIN.
    pub(crate) end_read: bool,
    /// A `Readable` event is under way.
    pub(crate) readable_told: bool,
    /// The user has read, so that the window may have become wider.
    pub(crate) window_moved: bool,
    /// In the queue of connections that have something to transmit.
    pub(crate) is_ready: bool,
    /// Its window was held down for want of frames.
    pub(crate) is_pinched: bool,
    /// The flow table knows it.
    pub(crate) in_table: bool,
    /// The stack removes it at the end of this turn.
    pub(crate) forget: bool,
}

/// One connection.
pub(crate) struct Tcb<F> {
    pub(crate) tuple: FourTuple,
    pub(crate) state: State,
    /// Shift of the peer's window (RFC 7323 §2).
    pub(crate) snd_wnd_shift: u8,
    /// Shift of ours; zero unless both sent the option.
    pub(crate) rcv_wnd_shift: u8,
    pub(crate) timestamps: bool,
    pub(crate) sack: bool,
    pub(crate) flags: Flags,
    pub(crate) snd: SendSequence,
    pub(crate) rcv: ReceiveSequence,
    /// Largest payload the peer's MSS option allows (without our options).
    pub(crate) peer_mss: u16,
    /// Largest IP packet the path takes, from the hop or from a Packet Too Big.
    pub(crate) path_mtu: u16,
    pub(crate) hop: Option<Hop>,
    /// Routes of which time `hop` is.
    pub(crate) hop_epoch: u16,
    pub(crate) vlan: Option<VlanTag>,
    /// TS.Recent (RFC 7323 §4.3), and when it was set, in milliseconds.
    pub(crate) ts_recent: u32,
    pub(crate) ts_recent_at_ms: u32,
    pub(crate) ts_offset: u32,
    /// Last.ACK.sent (RFC 7323 §4.3).
    pub(crate) last_ack_sent: SeqNumber,
    pub(crate) rtt: RttEstimator,
    pub(crate) congestion: Controller,
    pub(crate) deadlines: Deadlines,
    /// Bytes the peer may have under way or unread; grows with what is read (`pressure.rs`).
    pub(crate) receive_allotment: u32,
    /// Bytes read by the user since `drained_since_ms`.
    pub(crate) drained: u32,
    pub(crate) drained_since_ms: u32,
    /// Segments acknowledged at once before acknowledgements are delayed.
    pub(crate) quick_acks: u8,
    /// Segments with text since the last acknowledgement.
    pub(crate) unacked_segments: u8,
    /// Expiries of the retransmission, persist or keepalive timer in a row.
    pub(crate) retries: u8,
    pub(crate) last_sent_ms: u32,
    /// When the last rate-limited acknowledgement went out.
    pub(crate) challenged_at_ms: u32,
    pub(crate) queues: Option<Box<Queues<F>>>,
}

/// The clock of fields that would waste eight bytes: milliseconds, wrapping after 49 days.
pub(crate) use crate::secrets::timestamp_clock as millis;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_link::MemoryFrame;

    /// With its slot's generation 256, so that two flows and the session's 500 bytes stay under 1 KiB a relay.
    #[test]
    fn an_idle_connection_is_at_most_248_bytes() {
        assert!(size_of::<Option<Tcb<MemoryFrame>>>() <= 248, "{}", size_of::<Tcb<MemoryFrame>>());
    }
}
