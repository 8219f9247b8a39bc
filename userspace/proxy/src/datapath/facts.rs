//! What the choice of a datapath depends on: plain values about one interface and its host.
//!
//! Whoever reads them reads once and decides nothing; see [`super::choice`].

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;

/// What the choice of a datapath depends on. `None` stands for what could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The interface asked for, else the only one with a default route.
    pub interface: Result<Interface, NoInterface>,
    /// The running kernel.
    pub kernel: Option<KernelVersion>,
    /// True with CAP_NET_ADMIN, CAP_NET_RAW, and CAP_BPF or CAP_SYS_ADMIN.
    pub may_use_xdp: bool,
    /// True if the kernel gives none of our source ports to its own connections.
    pub source_ports_are_ours: Option<bool>,
    /// Sockets of other programs with one of these ports, but for those that only this host reaches.
    pub sockets_at_source_ports: Option<Vec<SocketAddr>>,
    /// True if it forwards IPv4 packets between interfaces.
    pub forwards_ipv4: Option<bool>,
    /// Cores that this process may use.
    pub cores: NonZeroUsize,
}

/// Why there is no interface to speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoInterface {
    /// None has the name that was asked for.
    Unknown(String),
    /// None was asked for, and none has a default route.
    NoDefaultRoute,
    /// None was asked for, and several have a default route.
    SeveralDefaultRoutes,
    /// None was asked for, and the routes could not be read.
    Unreadable,
}

/// Facts about one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: InterfaceKind,
    /// True if it was set up.
    pub is_up: bool,
    /// True if it has an address that connections can come from.
    pub has_source_address: Option<bool>,
    /// True if its driver runs XDP programs itself and can redirect.
    pub has_native_xdp: Option<bool>,
    /// True if an XDP program that is not ours is attached.
    pub has_foreign_program: Option<bool>,
    /// Largest IP packet, in bytes.
    pub mtu_bytes: u32,
    /// Receive queues in use.
    pub receive_queues: Option<u32>,
    /// True if it has a default route and no other interface has one.
    pub has_only_default_route: Option<bool>,
}

/// What an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceKind {
    /// A device, also one of a virtual machine.
    Physical,
    /// One end of a pair.
    Veth,
    /// The host to itself.
    Loopback,
    /// Several devices as one.
    Bond,
    /// A VLAN of a device.
    Vlan,
    /// A bridge.
    Bridge,
    /// A port of a bond or bridge: addresses and packets are those of the bond or bridge.
    Port,
    /// Whatever else the kernel makes out of software: tunnels, macvlan and so on.
    OtherVirtual,
}

impl InterfaceKind {
    /// Its name in the log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Veth => "veth",
            Self::Loopback => "loopback",
            Self::Bond => "bond",
            Self::Vlan => "vlan",
            Self::Bridge => "bridge",
            Self::Port => "port",
            Self::OtherVirtual => "other_virtual",
        }
    }

    /// True where packets are seen as they were on the wire, once, and nowhere else.
    pub(super) const fn is_an_end_of_the_wire(self) -> bool {
        matches!(self, Self::Physical | Self::Veth)
    }
}

/// A kernel's version, major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32);

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}
