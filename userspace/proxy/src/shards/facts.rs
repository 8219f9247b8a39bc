//! What the choice of a datapath depends on, read from this host.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use mtproxy_nic::Facts as NicFacts;
use mtproxy_nic::facts::interfaces_with_default_route;
use mtproxy_nic::sysctl::PortRange as NicPortRange;

use super::kernel_sockets::{self, KernelSocket};
use crate::complaint::Complaint;
use crate::datapath::facts::{Facts, Interface, InterfaceKind, KernelVersion, NoInterface};
use crate::datapath::xdp::port_range::{KernelPorts, own_range};
use crate::settings::xdp::PortRange;

/// Reads the facts about the interface `asked`, else about the only one with a default route. Our own listeners,
/// which are open already, are at `listening`.
#[must_use]
pub fn read(asked: Option<&str>, ports: PortRange, listening: &[SocketAddr], cores: NonZeroUsize) -> Facts {
    let nic = find(asked);
    let sockets = kernel_sockets::list().ok();
    gather(nic, mtproxy_nic::live::may_use_xdp(), sockets.as_deref(), cores, ports, listening)
}

/// The facts, from what was read of the interface and of the kernel's sockets.
pub(super) fn gather(
    nic: Result<NicFacts, NoInterface>,
    may_use_xdp: bool,
    sockets: Option<&[KernelSocket]>,
    cores: NonZeroUsize,
    ports: PortRange,
    listening: &[SocketAddr],
) -> Facts {
    let facts = nic.as_ref().ok();
    let kernel = facts.and_then(|nic| kernel_version(nic.kernel.as_ref().ok()?));
    let own = facts.and_then(|nic| Some(own_ports(ports, &KernelPorts::new(nic).ok()?)));
    let forwards_ipv4 = facts.and_then(|nic| nic.forwards_ipv4.as_ref().ok().copied());
    let range = own.clone().and_then(Result::ok).unwrap_or(nic_range(ports));
    Facts {
        interface: nic.map(interface),
        kernel,
        may_use_xdp,
        source_ports_are_ours: own.map(|own| own.is_ok()),
        sockets_at_source_ports: sockets.map(|all| foreign(all, range, listening)),
        forwards_ipv4,
        cores,
    }
}

/// The ports that we dial from.
///
/// # Errors
/// Why they cannot be.
pub fn own_ports(configured: PortRange, kernel: &KernelPorts) -> Result<NicPortRange, Complaint> {
    own_range(nic_range(configured), kernel)
}

fn nic_range(ports: PortRange) -> NicPortRange {
    NicPortRange { first: ports.first(), last: ports.last() }
}

/// Those of `sockets` that would lose their packets if all for these ports were ours. What only this host reaches
/// keeps them.
fn foreign(sockets: &[KernelSocket], ports: NicPortRange, listening: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_our_own = |at: SocketAddr| {
        listening.iter().any(|it| it.port() == at.port() && (it.ip() == at.ip() || it.ip().is_unspecified()))
    };
    let in_use = sockets.iter().filter(|it| it.is_in_use()).map(|it| it.local);
    in_use.filter(|at| ports.contains(at.port()) && !at.ip().is_loopback() && !is_our_own(*at)).collect()
}

fn find(asked: Option<&str>) -> Result<NicFacts, NoInterface> {
    let name = match asked {
        Some(name) => name.to_owned(),
        None => match interfaces_with_default_route().map_err(|_| NoInterface::Unreadable)?.as_slice() {
            [] => return Err(NoInterface::NoDefaultRoute),
            [only] => only.clone(),
            _ => return Err(NoInterface::SeveralDefaultRoutes),
        },
    };
    NicFacts::read(&name).map_err(|_| NoInterface::Unknown(name))
}

fn interface(nic: NicFacts) -> Interface {
    let xdp = nic.xdp.as_ref().ok();
    let addresses = nic.addresses.as_ref().ok();
    Interface {
        kind: kind(&nic),
        is_up: nic.link.is_up,
        has_source_address: addresses.map(|all| all.iter().any(|(ip, _)| !is_link_local(*ip))),
        has_native_xdp: xdp.map(|xdp| xdp.is_native && xdp.redirects),
        has_foreign_program: Some(nic.link.xdp_program.is_some()),
        mtu_bytes: nic.link.mtu_bytes,
        receive_queues: nic.receive_queues.as_ref().ok().copied(),
        has_only_default_route: nic.has_only_default_route.as_ref().ok().copied(),
        name: nic.link.name,
    }
}

fn kind(nic: &NicFacts) -> InterfaceKind {
    if nic.link.controller.is_some() {
        return InterfaceKind::Port;
    }
    match (nic.link.kind.as_deref(), nic.link.name.as_str()) {
        (None, "lo") => InterfaceKind::Loopback,
        (None, _) => InterfaceKind::Physical,
        (Some("veth"), _) => InterfaceKind::Veth,
        (Some("bond" | "team"), _) => InterfaceKind::Bond,
        (Some("vlan"), _) => InterfaceKind::Vlan,
        (Some("bridge"), _) => InterfaceKind::Bridge,
        (Some(_), _) => InterfaceKind::OtherVirtual,
    }
}

fn is_link_local(ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn kernel_version(release: &str) -> Option<KernelVersion> {
    mtproxy_nic::facts::kernel_version(release).map(|(major, minor)| KernelVersion(major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_version() {
        for (release, version) in [
            ("6.18.44-fc-v595", Some(KernelVersion(6, 18))),
            ("5.15.0-91-generic", Some(KernelVersion(5, 15))),
            ("6.1", Some(KernelVersion(6, 1))),
            ("6", None),
            ("", None),
            ("linux", None),
        ] {
            assert_eq!(kernel_version(release), version, "{release}");
        }
    }

    #[test]
    fn loopback_is_known_for_what_it_is_and_a_name_that_is_not_there_is_said() {
        let ports = "61000-65535".parse().unwrap();
        let facts = read(Some("lo"), ports, &[], NonZeroUsize::MIN);
        assert_eq!(facts.interface.unwrap().kind, InterfaceKind::Loopback);
        let facts = read(Some("no-such-interface"), ports, &[], NonZeroUsize::MIN);
        assert_eq!(facts.interface, Err(NoInterface::Unknown("no-such-interface".to_owned())));
    }

    #[test]
    fn sockets_of_others_are_those_that_the_network_reaches_at_our_ports() {
        const ESTABLISHED: u8 = 1;
        const TIME_WAIT: u8 = 6;
        let socket = |at: &str, state| KernelSocket::new(at.parse().unwrap(), state);
        let sockets = [
            socket("192.0.2.9:60999", ESTABLISHED),
            socket("192.0.2.9:61000", ESTABLISHED),
            socket("[::]:65535", ESTABLISHED),
            socket("192.0.2.9:61001", TIME_WAIT),
            socket("127.0.0.1:61002", ESTABLISHED),
            socket("[::1]:61003", ESTABLISHED),
            socket("0.0.0.0:62443", ESTABLISHED),
            socket("192.0.2.9:62443", ESTABLISHED),
            socket("192.0.2.9:62444", ESTABLISHED),
            socket("192.0.2.10:62444", ESTABLISHED),
        ];
        let listening = ["0.0.0.0:62443", "192.0.2.9:62444"].map(|at| at.parse().unwrap());
        let ports = NicPortRange { first: 61000, last: 65535 };
        let expected: Vec<SocketAddr> =
            ["192.0.2.9:61000", "[::]:65535", "192.0.2.10:62444"].map(|at| at.parse().unwrap()).to_vec();
        assert_eq!(foreign(&sockets, ports, &listening), expected);
    }
}
