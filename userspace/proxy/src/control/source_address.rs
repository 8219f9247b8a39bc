//! From which of its addresses this host would send. Asks the routing table and sends nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The source address of packets to `ip`; `None` without a route.
pub(crate) fn towards(ip: IpAddr) -> Option<IpAddr> {
    const ANY_PORT: u16 = 9;
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // For UDP, connecting is choosing a route.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((ip, ANY_PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// True if packets to `ip` stay on this host: for an address of the host, the kernel chooses that same address as
/// the source. (Whether `ip` can be bound would be a simpler question, but a fail-over pair may bind each other's
/// addresses.)
pub(crate) fn is_of_this_host(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || towards(ip) == Some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_from_loopback_and_the_worlds_addresses_are_not_ours() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(towards(loopback), Some(loopback));
        assert!(is_of_this_host(loopback));
        assert!(!is_of_this_host("192.0.2.77".parse().unwrap()));
    }
}
