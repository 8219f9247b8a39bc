//! Everything that the stages look at, read at one moment: plain values, so that a host can also be made up.

use crate::facts::{Fact, Facts};
use crate::sysctl::PortRange;

/// A host and one of its interfaces.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The interface, and what else the datapath needs to know.
    pub facts: Facts,
    /// Its channels. `None`: the driver has no such notion.
    pub channels: Fact<Option<ChannelCounts>>,
    /// Its rings. `None`: the driver has no such notion.
    pub rings: Fact<Option<Rings>>,
    /// Its offloads.
    pub features: Fact<Vec<Feature>>,
    /// How it holds back interrupts. `None`: the driver has no such notion.
    pub coalescing: Fact<Option<Coalescing>>,
    /// Settings of its NAPI instances.
    pub napi: Fact<Napi>,
    /// The interrupts of its receive queues.
    pub interrupts: Fact<Vec<Interrupt>>,
    /// The NUMA node that it is at. `None`: the host has no nodes, or the device none.
    pub numa_node: Option<u32>,
    /// NUMA nodes of the host.
    pub numa_nodes: usize,
    /// Cores of the host.
    pub cores: usize,
    /// True if irqbalance runs.
    pub has_irqbalance: bool,
    /// Huge pages of 2 MiB that are set aside.
    pub huge_pages: Fact<u64>,
    /// True with CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF.
    pub may_use_xdp: bool,
    /// Memory that this user may pin, bytes. `None`: any amount.
    pub memlock_bytes: Option<u64>,
}

/// Channels that receive and transmit: in use, and most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelCounts {
    /// In use.
    pub combined: u32,
    /// Most that there may be.
    pub combined_max: u32,
}

/// Descriptors of each receive ring: now, and most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// Now.
    pub receive: u32,
    /// Most that there may be.
    pub receive_max: u32,
}

/// An offload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's name for it.
    pub name: String,
    /// True if it is in use.
    pub is_on: bool,
    /// True if nobody can change that.
    pub is_fixed: bool,
}

/// How interrupts are held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalescing {
    /// Longest wait before a receive interrupt, microseconds. `None`: the driver does not say.
    pub receive_us: Option<u32>,
    /// True if the driver chooses by itself.
    pub is_adaptive: bool,
}

/// Settings of NAPI, the same for all queues of the interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Napi {
    /// How often interrupts stay off although a poll found nothing.
    pub defer_hard_irqs: u32,
    /// How long then, nanoseconds.
    pub gro_flush_timeout_ns: u64,
    /// True if polls are done by threads of the kernel. `None`: this kernel has none.
    pub is_threaded: Option<bool>,
}

/// The interrupt of a receive queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The queue.
    pub queue: usize,
    /// The kernel's number for it.
    pub number: u32,
    /// The cores that may serve it, as the kernel lists them.
    pub cores: String,
}

/// What the operator means to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goals {
    /// How many receive queues, and so shards; `None`: what suits the host.
    pub queues: Option<u32>,
    /// True with `xdp.busy_poll`.
    pub busy_poll: bool,
    /// True with `xdp.huge_pages`.
    pub huge_pages: bool,
    /// `xdp.ports`.
    pub ports: PortRange,
    /// Packet memory of each queue, bytes.
    pub umem_bytes: u64,
}
