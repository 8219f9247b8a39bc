//! What a shard shows of itself, now and then.

use std::sync::Arc;

use mtproxy_tcp::{Stack, drop_reason::DropReason};

use super::ports::PortCounts;
use super::{Routes, ShardTotals, XskLink};
use crate::telemetry::metrics::{BoundMode, ShardCounters};

/// A shard's block of metrics.
pub struct Gauges {
    block: Arc<ShardCounters>,
}

impl Gauges {
    /// For one shard, whose socket is bound in `mode`.
    #[must_use]
    pub fn new(block: Arc<ShardCounters>, mode: BoundMode) -> Self {
        block.show_mode(mode);
        Self { block }
    }

    /// Shows everything.
    pub(super) fn publish<R: Routes>(
        &self,
        stack: &Stack<XskLink<R>>,
        link: &XskLink<R>,
        ports: PortCounts,
        totals: &ShardTotals,
    ) {
        let block = &self.block;
        block.received_packets.publish(totals.received);
        block.received_bytes.publish(totals.received_bytes);
        block.sent_packets.publish(link.counters.sent);
        block.sent_bytes.publish(link.counters.sent_bytes);
        block.unresolved_hop_drops.publish(link.counters.unresolved);
        block.wrong_queue_forwarded.publish(totals.handed_over);
        block.wrong_queue_lost.publish(totals.lost_between);
        block.wrong_queue_taken_over.publish(totals.taken_over);
        block.parked_packets.publish(link.counters.parked);
        block.busy_turns.publish(totals.busy_turns);
        block.idle_turns.publish(totals.idle_turns);
        block.ports_exhausted.publish(ports.exhausted);
        block.ports_off_queue.publish(ports.off_queue);
        block.ports_reopened.publish(ports.reopened);
        block.ports_used.set((ports.taken - ports.lingering) as u64);
        block.ports_lingering.set(ports.lingering as u64);

        let counters = stack.counters();
        for reason in DropReason::ALL {
            block.dropped(reason.index()).publish(counters.dropped(reason));
        }
        block.retransmitted_segments.publish(counters.retransmissions);
        block.retransmission_timeouts.publish(counters.timeouts);
        block.given_up.publish(counters.given_up);
        block.held_up_no_frame.publish(counters.no_frame);
        block.held_up_no_route.publish(counters.no_route);
        block.held_up_ring_full.publish(counters.ring_full);
        block.syn_cookies_sent.publish(counters.cookies_sent);
        block.syn_cookies_accepted.publish(counters.cookies_accepted);
        let (all, half_open) = (stack.connection_count() as u64, stack.half_open_count() as u64);
        block.connections_open.set(all.saturating_sub(half_open));
        block.connections_half_open.set(half_open);
        block.connections_time_wait.set(stack.time_wait_count() as u64);

        let socket = &link.socket;
        let counts = socket.counts();
        block.frames_free.set(u64::from(counts.free));
        block.frames_fill.set(u64::from(counts.fill));
        block.frames_ours.set(u64::from(counts.ours));
        block.frames_in_flight.set(u64::from(counts.in_flight + counts.in_flight_released));
        let of_socket = socket.counters();
        block.transmit_ring_full.publish(of_socket.tx_full);
        block.wake_ups.publish(of_socket.kicks + of_socket.fill_wakeups + totals.polls);
        block.bad_rx_addresses.publish(of_socket.bad_rx_addresses);
        block.bad_rx_lengths.publish(of_socket.bad_rx_lengths);
        block.bad_completions.publish(of_socket.bad_completions);
        block.rx_fragments.publish(of_socket.rx_fragments);
        block.kicks_link_down.publish(of_socket.kicks_link_down);
        // An old kernel has fewer of them; what it does not have stays at zero.
        if let Ok(kernel) = socket.kernel_statistics() {
            block.kernel_rx_dropped.publish(kernel.rx_dropped);
            block.kernel_rx_ring_full.publish(kernel.rx_ring_full);
            block.kernel_fill_ring_empty.publish(kernel.rx_fill_ring_empty);
            block.kernel_rx_invalid_descs.publish(kernel.rx_invalid_descriptors);
            block.kernel_tx_invalid_descs.publish(kernel.tx_invalid_descriptors);
        }
    }
}
