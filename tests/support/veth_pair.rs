//! A cable between two namespaces: a veth pair with addresses.
//!
//! A veth end passes on what the kernel's stack hands it: segments of 64 KiB that no wire carries, with
//! checksums that nobody has computed. With [`Offloads::Off`] at both ends every packet is what a wire
//! would carry. AF_XDP takes nothing else: it must be off at least at the end opposite an AF_XDP socket.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::net_ns::{ConfigurationError, NetNs};

/// Bytes of an IP packet on Ethernet.
pub const ETHERNET_MTU: u32 = 1500;
/// How many addresses share a cable: the prefix lengths that go with them.
const V4_PREFIX_LEN: u8 = 24;
const V6_PREFIX_LEN: u8 = 64;

/// What an end leaves to a network card that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// Nothing: what is sent has checksums and fits the MTU, what is received is not merged.
    Off,
    /// Checksums and segmentation, which veth leaves undone for the peer to bear with.
    Kernel,
}

/// One end.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Where it is.
    pub namespace: &'a NetNs,
    /// The interface; its name need be unique only in its namespace.
    pub interface: &'a str,
    /// Its IPv4 address, of a /24.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, of a /64.
    pub v6: Ipv6Addr,
    /// Of what it sends, and whether it merges what it receives.
    pub offloads: Offloads,
}

/// A pair. It goes with the namespace of either end.
#[derive(Clone, Copy, Debug)]
pub struct VethPair<'a> {
    /// Both ends.
    pub ends: [VethEnd<'a>; 2],
    /// Receive queues and transmit queues, at each end.
    pub queues: u32,
    /// Of both ends.
    pub mtu: u32,
}

impl VethPair<'_> {
    /// Makes the pair, gives it addresses and brings it up. The addresses can be used at once.
    ///
    /// # Errors
    /// What `ip` or `ethtool` say.
    pub fn connect(self) -> Result<(), ConfigurationError> {
        let Self { ends: [one, other], queues, mtu } = self;
        let shape = format!("mtu {mtu} numtxqueues {queues} numrxqueues {queues}");
        let peer = format!("peer name {} netns {} {shape}", other.interface, other.namespace.name());
        one.namespace.ip(&format!("link add name {} {shape} type veth {peer}", one.interface))?;
        [one, other].iter().try_for_each(VethEnd::bring_up)
    }
}

impl VethEnd<'_> {
    fn bring_up(&self) -> Result<(), ConfigurationError> {
        let Self { namespace, interface, v4, v6, offloads } = self;
        if *offloads == Offloads::Off {
            namespace.run(&format!("ethtool -K {interface} tx off tso off gso off gro off"))?;
        }
        namespace.ip(&format!("address add {v4}/{V4_PREFIX_LEN} dev {interface}"))?;
        namespace.ip(&format!("address add {v6}/{V6_PREFIX_LEN} dev {interface} nodad"))?;
        namespace.ip(&format!("link set {interface} up"))
    }
}
