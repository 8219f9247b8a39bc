//! What a socket has counted, and what the kernel has.

use xsk_rs::socket::XdpStatistics;

/// Counts of a socket since it was bound. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were handed to the caller.
    pub received: u64,
    /// Packets that were put into the TX ring.
    pub transmitted: u64,
    /// Frames that came back from the completion ring.
    pub completed: u64,
    /// Frames that were put into the fill ring.
    pub filled: u64,
    /// Received descriptors where the kernel had no frame. They were ignored.
    pub bad_rx_addresses: u64,
    /// Received packets that do not lie within their frame from its first byte on. They were dropped.
    pub bad_rx_lengths: u64,
    /// Completions of frames that were not in flight. They were ignored.
    pub bad_completions: u64,
    /// Parts of packets that span several frames. They were dropped.
    pub rx_fragments: u64,
    /// Packets that found the TX ring full.
    pub tx_full: u64,
    /// System calls that asked the kernel to send.
    pub kicks: u64,
    /// Kicks after which packets stayed in the TX ring: no memory for them, or the device busy, or the
    /// completion ring full. The next flush tries again.
    pub kicks_unfinished: u64,
    /// Kicks that found the interface down.
    pub kicks_link_down: u64,
    /// System calls that told the kernel of frames in the fill ring.
    pub fill_wakeups: u64,
}

/// The kernel's own counts of a socket (`XDP_STATISTICS`, include/uapi/linux/if_xdp.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelStatistics {
    /// Packets dropped for other reasons than those below, such as being larger than a frame.
    pub rx_dropped: u64,
    /// Descriptors in the fill ring that were none.
    pub rx_invalid_descriptors: u64,
    /// Descriptors in the TX ring that were none. Their frames never complete.
    pub tx_invalid_descriptors: u64,
    /// Packets dropped because the RX ring was full: we are too slow.
    pub rx_ring_full: u64,
    /// Times the fill ring was found empty: the fill target is too small, or the pool ran dry.
    pub rx_fill_ring_empty: u64,
    /// Times the TX ring was found empty. Not an error.
    pub tx_ring_empty: u64,
}

impl From<XdpStatistics> for KernelStatistics {
    fn from(kernel: XdpStatistics) -> Self {
        Self {
            rx_dropped: kernel.rx_dropped(),
            rx_invalid_descriptors: kernel.rx_invalid_descs(),
            tx_invalid_descriptors: kernel.tx_invalid_descs(),
            rx_ring_full: kernel.rx_ring_full(),
            rx_fill_ring_empty: kernel.rx_fill_ring_empty_descs(),
            tx_ring_empty: kernel.tx_ring_empty_descs(),
        }
    }
}
