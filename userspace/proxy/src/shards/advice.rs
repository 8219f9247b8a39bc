//! What the counters show that only the operator can put right: each said once, with what to do.
//!
//! On a virtual interface the sender is a kernel that leaves checksums and segmentation to a device which is not
//! there. Such packets are dropped and counted; without a word, clients would merely seem not to get through.

use mtproxy_tcp::drop_reason::DropReason;
use tracing::warn;

use crate::telemetry::metrics::Metrics;

/// What has been said so far.
#[derive(Debug, Default)]
pub(super) struct Advice {
    has_told_of_checksums: bool,
    has_told_of_large_packets: bool,
    large_packets: u64,
}

impl Advice {
    /// Says what has come up since the last call.
    pub(super) fn give(&mut self, metrics: &Metrics) {
        let partial = DropReason::PartialTcpChecksum.index();
        let packets = metrics.sum_of_shards(|shard| shard.dropped(partial).get());
        if packets > 0 && !std::mem::replace(&mut self.has_told_of_checksums, true) {
            warn!(
                packets,
                "found packets whose TCP checksum their sender left to a network card that is not there, and dropped \
                them; expected whole checksums; run `ethtool -K IF tx off` on the sender's end of the virtual link, \
                or set xdp.trust_partial_checksums if that link is only memory of this host"
            );
        }
        // The kernel counts a packet for which there was no buffer under both (`__xsk_rcv`, net/xdp/xsk.c). A shard
        // shows one after the other, so that only what is still there at the next look is believed.
        let dropped = metrics.sum_of_shards(|shard| shard.kernel_rx_dropped.get());
        let without_buffer = metrics.sum_of_shards(|shard| shard.kernel_fill_ring_empty.get());
        let now = dropped.saturating_sub(without_buffer);
        let packets = now.min(std::mem::replace(&mut self.large_packets, now));
        if packets > 0 && !std::mem::replace(&mut self.has_told_of_large_packets, true) {
            warn!(
                packets,
                "found packets larger than a packet buffer, which the kernel dropped before us; expected packets no \
                larger than the MTU; run `ethtool -K IF tso off gso off` on the sender's end of the virtual link and \
                `ethtool -K IF gro off lro off` on ours, or use --datapath epoll"
            );
        }
    }
}
