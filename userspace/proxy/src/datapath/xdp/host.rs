//! The host's routes and ports as a shard sees them: next hops on its interface, and where to dial from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use mtproxy_tcp::link::VlanTag;

use super::hops::{NextHop, Routes};
use super::ports::{Ask, PortCounts, PortSpace, owner};
use super::streams::{NoPortLeft, SourcePorts};
use crate::routes::{self, Resolver, Snapshot, Via};

/// Identifier in a VLAN tag; the rest is priority and drop eligibility (IEEE 802.1Q).
const VLAN_ID: u16 = 0x0fff;

type Current = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

/// The mirrored routes, on one interface and its VLANs.
pub struct HostRoutes {
    current: Current,
    generation: u64,
    interface: u32,
    resolver: Resolver,
}

impl HostRoutes {
    /// The routes that lead over the interface with this index.
    #[must_use]
    pub fn new(current: Arc<ArcSwap<Snapshot>>, resolver: Resolver, interface: u32) -> Self {
        let mut current = Cache::new(current);
        let generation = current.load().generation;
        Self { current, generation, interface, resolver }
    }

    /// The interface that packets with this tag belong to.
    fn interface(&mut self, vlan: Option<VlanTag>) -> Option<u32> {
        match vlan {
            None => Some(self.interface),
            Some(VlanTag(tag)) => self.current.load().vlan(self.interface, tag & VLAN_ID),
        }
    }
}

impl Routes for HostRoutes {
    fn has_changed(&mut self) -> bool {
        let generation = self.current.load().generation;
        std::mem::replace(&mut self.generation, generation) != generation
    }

    fn next_hop(&mut self, local: IpAddr, remote: IpAddr, vlan: Option<VlanTag>) -> Option<NextHop> {
        let interface = self.interface(vlan)?;
        match self.current.load().next_hop(local, remote, interface) {
            routes::NextHop::Via(Via { gateway, source_mac, mtu_bytes, .. }) => Some(NextHop {
                gateway,
                source: source_mac,
                mtu_bytes: u16::try_from(mtu_bytes).unwrap_or(u16::MAX),
            }),
            routes::NextHop::NoRoute | routes::NextHop::OtherInterface => None,
        }
    }

    fn neighbour(&mut self, gateway: IpAddr, vlan: Option<VlanTag>) -> Option<[u8; 6]> {
        let interface = self.interface(vlan)?;
        self.current.load().neighbour(interface, gateway)
    }

    fn ask(&mut self, gateway: IpAddr, vlan: Option<VlanTag>) {
        if let Some(interface) = self.interface(vlan) {
            // A full queue has asked for others; this one is asked for again with its next packet.
            let _ = self.resolver.need(interface, gateway);
        }
    }
}

/// Where one shard dials from.
pub struct Dialer {
    current: Current,
    interface: u32,
    ports: PortSpace,
    /// The ports that belong to shards.
    range: std::ops::RangeInclusive<u16>,
    /// Where clients are awaited. A port of these is no shard's, though it be in the range.
    listening: Arc<[SocketAddr]>,
    shards: NonZeroU16,
}

impl Dialer {
    /// Dials over the interface with this index, from `ports`, which are this shard's of `range` without the ports
    /// of `listening`.
    #[must_use]
    pub fn new(
        current: Arc<ArcSwap<Snapshot>>,
        interface: u32,
        ports: PortSpace,
        range: std::ops::RangeInclusive<u16>,
        listening: Arc<[SocketAddr]>,
        shards: NonZeroU16,
    ) -> Self {
        Self { current: Cache::new(current), interface, ports, range, listening, shards }
    }
}

/// False for an IPv4-mapped address, which stands for another family's packets, and for a link-local one, which
/// means nothing without its interface. The kernel knows what to make of them.
fn has_form_of_a_packet(remote: IpAddr) -> bool {
    match remote {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_none() && !v6.is_unicast_link_local(),
    }
}

impl SourcePorts for Dialer {
    fn take(&mut self, remote: SocketAddr, ask: Ask<'_>) -> Option<Result<SocketAddr, NoPortLeft>> {
        if !has_form_of_a_packet(remote.ip()) {
            return None;
        }
        let unspecified: IpAddr =
            if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let next = self.current.load().next_hop(unspecified, remote.ip(), self.interface);
        // Without an address to come from, the kernel may know better.
        let routes::NextHop::Via(Via { prefsrc: Some(source), .. }) = next else { return None };
        let port = self.ports.take(source, remote, ask).map_err(|_| NoPortLeft);
        Some(port.map(|port| SocketAddr::new(source, port)))
    }

    fn let_go(&mut self, local: SocketAddr, remote: SocketAddr) {
        self.ports.let_go(local.ip(), remote, local.port());
    }

    fn reclaim(&mut self, ask: Ask<'_>) {
        self.ports.reclaim(ask);
    }

    fn learn(&mut self, local: SocketAddr, remote: SocketAddr, is_here: bool) {
        self.ports.learn(local.ip(), remote, local.port(), is_here);
    }

    fn counts(&self) -> PortCounts {
        self.ports.counts()
    }

    fn owner(&self, local: SocketAddr) -> Option<usize> {
        let port = local.port();
        let is_a_listeners = self.listening.iter().any(|at| at.port() == port);
        (self.range.contains(&port) && !is_a_listeners).then(|| owner(port, self.shards))
    }
}

#[cfg(test)]
mod tests {
    use mtproxy_nic::rss::QueueOf;

    use super::super::ports::ShardPlace;
    use super::*;

    #[test]
    fn mapped_and_link_local_addresses_are_the_kernels_to_dial() {
        for (address, is_ours) in [
            ("149.154.167.51", true),
            ("2001:67c:4e8:f002::a", true),
            ("::ffff:149.154.167.51", false),
            ("fe80::1", false),
            ("febf::1", false),
            ("fec0::1", true),
        ] {
            assert_eq!(has_form_of_a_packet(address.parse().unwrap()), is_ours, "{address}");
        }
    }

    #[test]
    fn a_listeners_port_is_no_shards_though_it_be_in_the_range() {
        let shards = NonZeroU16::new(2).unwrap();
        let place = ShardPlace { shard: 0, shards, queue: 0 };
        let space = PortSpace::new(&[], place, QueueOf::Unknown, [0; 16]);
        let listening = Arc::new(["[::]:64738".parse().unwrap()]);
        let dialer = Dialer::new(Arc::default(), 1, space, 61000..=65535, listening, shards);
        let owner = |port| dialer.owner(SocketAddr::new([192, 0, 2, 1].into(), port));
        assert_eq!((owner(64738), owner(64739), owner(60999)), (None, Some(1), None));
    }
}
