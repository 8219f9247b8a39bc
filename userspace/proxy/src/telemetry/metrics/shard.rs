//! What one shard counts besides what every worker does: packets, segments, frames.

use super::{Counter, Gauge};

/// The shards there are, and the names of what others number for them.
#[derive(Clone, Copy, Debug)]
pub struct Shards {
    /// How many: one for each queue.
    pub count: usize,
    /// Names of the reasons for which packets are dropped, by the number of the reason.
    pub drop_reasons: &'static [&'static str],
    /// Names of the exits of the steering program, by the number of the exit.
    pub steering_exits: &'static [&'static str],
}

impl Shards {
    /// Epoll alone.
    pub const NONE: Self = Self { count: 0, drop_reasons: &[], steering_exits: &[] };
}

/// How the kernel bound a shard's socket; the values of the label `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundMode {
    /// The device uses the frames.
    ZeroCopy,
    /// The driver runs the program, the kernel copies.
    Copy,
    /// The kernel runs the program, and copies.
    Generic,
}

/// Why AF_XDP was given up for a while; the values of the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The interface is not there any more, or not the same one.
    InterfaceGone,
    /// Somebody has taken the steering program off.
    ProgramGone,
    /// The interface has another number of receive queues.
    QueuesChanged,
    /// A shard has ended.
    ShardEnded,
}

impl LossReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] =
        [Self::InterfaceGone, Self::ProgramGone, Self::QueuesChanged, Self::ShardEnded];

    /// Its name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InterfaceGone => "interface_gone",
            Self::ProgramGone => "program_gone",
            Self::QueuesChanged => "queues_changed",
            Self::ShardEnded => "shard_ended",
        }
    }
}

/// As many counters as two cache lines hold, and aligned to them, as [`ShardCounters`] is.
#[derive(Clone, Debug, Default)]
#[repr(align(128))]
struct Lines([Counter; Lines::COUNTERS]);

impl Lines {
    const COUNTERS: usize = 128 / size_of::<Counter>();
}

/// What one shard counts. As for [`super::WorkerCounters`], blocks lie apart in memory and have one writer.
#[derive(Clone, Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Packets that came out of the RX ring.
    pub received_packets: Counter,
    /// Packets that went into the TX ring.
    pub sent_packets: Counter,
    /// Bytes of the packets received, link headers included.
    pub received_bytes: Counter,
    /// Bytes of the packets sent, link headers included.
    pub sent_bytes: Counter,
    /// By reason; see [`ShardCounters::dropped`].
    dropped: Box<[Lines]>,
    /// Segments sent again.
    pub retransmitted_segments: Counter,
    /// Retransmission timers that ran out.
    pub retransmission_timeouts: Counter,
    /// Connections given up since the peer was silent for too long.
    pub given_up: Counter,
    /// Times that a connection could not send for want of a frame.
    pub held_up_no_frame: Counter,
    /// Times that it could not for want of a route.
    pub held_up_no_route: Counter,
    /// Times that it met a full TX ring.
    pub held_up_ring_full: Counter,
    /// SYN-ACKs that carried a cookie.
    pub syn_cookies_sent: Counter,
    /// Cookies that came back authentic.
    pub syn_cookies_accepted: Counter,
    /// Connections in ESTABLISHED or behind it, but for TIME-WAIT.
    pub connections_open: Gauge,
    /// Connections in SYN-SENT or SYN-RECEIVED.
    pub connections_half_open: Gauge,
    /// Connections in TIME-WAIT.
    pub connections_time_wait: Gauge,
    /// Frames that nobody has.
    pub frames_free: Gauge,
    /// Frames in the fill ring.
    pub frames_fill: Gauge,
    /// Frames that the stack has and the device does not.
    pub frames_ours: Gauge,
    /// Frames that the device sends from.
    pub frames_in_flight: Gauge,
    /// Packets that had to wait for room in the TX ring.
    pub transmit_ring_full: Counter,
    /// Packets of another shard's connections that were handed to it.
    pub wrong_queue_forwarded: Counter,
    /// Packets of another shard's connections that could not be handed to it.
    pub wrong_queue_lost: Counter,
    /// Packets of this shard's connections that another shard has handed to it.
    pub wrong_queue_taken_over: Counter,
    /// Dials for which there was no port.
    pub ports_exhausted: Counter,
    /// Ports given though their replies come to another queue.
    pub ports_off_queue: Counter,
    /// Ports given whose TIME-WAIT was cut short.
    pub ports_reopened: Counter,
    /// Ports that a connection is dialled from.
    pub ports_used: Gauge,
    /// Ports of connections that are over, and not forgotten yet.
    pub ports_lingering: Gauge,
    /// Packets that waited for the neighbour's link-layer address.
    pub parked_packets: Counter,
    /// Packets given up since the neighbour's link-layer address did not become known.
    pub unresolved_hop_drops: Counter,
    /// `rx_dropped` of `XDP_STATISTICS`.
    pub kernel_rx_dropped: Counter,
    /// `rx_ring_full`.
    pub kernel_rx_ring_full: Counter,
    /// `rx_fill_ring_empty_descs`.
    pub kernel_fill_ring_empty: Counter,
    /// `rx_invalid_descs`.
    pub kernel_rx_invalid_descs: Counter,
    /// `tx_invalid_descs`.
    pub kernel_tx_invalid_descs: Counter,
    /// Descriptors of received packets that lay in no frame of ours.
    pub bad_rx_addresses: Counter,
    /// Descriptors of received packets that reached beyond their frame.
    pub bad_rx_lengths: Counter,
    /// Completions of frames that were not under way.
    pub bad_completions: Counter,
    /// Parts of packets that were larger than a frame.
    pub rx_fragments: Counter,
    /// System calls that found the link down.
    pub kicks_link_down: Counter,
    /// System calls that made the kernel look into a ring.
    pub wake_ups: Counter,
    /// Turns of the worker's loop that found something to do.
    pub busy_turns: Counter,
    /// Turns that found nothing.
    pub idle_turns: Counter,
    /// 1 for the mode the socket is bound in, by [`BoundMode`].
    pub(super) mode: [Gauge; 3],
}

impl ShardCounters {
    /// A block at zero, for so many reasons to drop a packet.
    #[must_use]
    pub(super) fn new(drop_reasons: usize) -> Self {
        let lines = drop_reasons.div_ceil(Lines::COUNTERS);
        Self { dropped: (0..lines).map(|_| Lines::default()).collect(), ..Self::default() }
    }

    /// Packets dropped for a reason, by its place in [`Shards::drop_reasons`].
    ///
    /// # Panics
    /// If there is no such reason.
    #[must_use]
    pub fn dropped(&self, reason: usize) -> &Counter {
        &self.dropped[reason / Lines::COUNTERS].0[reason % Lines::COUNTERS]
    }

    /// Shows how the socket is bound.
    pub fn show_mode(&self, bound: BoundMode) {
        for (mode, gauge) in self.mode.iter().enumerate() {
            gauge.set(u64::from(mode == bound as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        for reasons in [1, 15, 16, 17, 32, 33] {
            let counters = ShardCounters::new(reasons);
            for reason in 0..reasons {
                counters.dropped(reason).add(reason as u64 + 1);
            }
            assert!((0..reasons).all(|reason| counters.dropped(reason).get() == reason as u64 + 1));
        }
    }

    #[test]
    fn blocks_lie_apart() {
        assert_eq!((size_of::<Lines>(), align_of::<Lines>()), (128, 128));
        assert_eq!(align_of::<ShardCounters>(), 128);
    }
}
