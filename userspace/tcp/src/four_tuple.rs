//! The name of a connection: two addresses and two ports, small.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What an IPv4-mapped address begins with (RFC 4291 §2.5.5.2). Compared as a whole: every packet asks several times,
/// and `Ipv6Addr::to_ipv4_mapped` looks at one byte after the other.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Local and remote socket of a connection, in 36 bytes instead of the 64 of two `SocketAddr`.
///
/// IPv4 addresses are kept as IPv4-mapped ones. That is unambiguous: such addresses must not appear on a
/// wire, and the parser drops a packet that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FourTuple {
    local: [u8; 16],
    remote: [u8; 16],
    local_port: u16,
    remote_port: u16,
}

impl FourTuple {
    /// The connection between two sockets.
    #[must_use]
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local: octets(local.ip()),
            remote: octets(remote.ip()),
            local_port: local.port(),
            remote_port: remote.port(),
        }
    }

    /// Our side.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(address(self.local), self.local_port)
    }

    /// The peer's side.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(address(self.remote), self.remote_port)
    }

    /// True if the packets of this connection are IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.local.starts_with(&MAPPED)
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut octets = [0; 16];
            octets[..12].copy_from_slice(&MAPPED);
            octets[12..].copy_from_slice(&ip.octets());
            octets
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn address(octets: [u8; 16]) -> IpAddr {
    match octets {
        [prefix @ .., a, b, c, d] if prefix == MAPPED => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(octets).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_gives_back_what_it_was_made_of() {
        for (local, remote) in
            [("192.0.2.1:443", "198.51.100.7:50000"), ("[2001:db8::1]:443", "[2001:db8::2]:1")]
        {
            let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
            let tuple = FourTuple::new(local, remote);
            assert_eq!((tuple.local(), tuple.remote()), (local, remote));
            assert_eq!(tuple.is_ipv4(), local.is_ipv4());
        }
        assert_eq!(size_of::<FourTuple>(), 36);
    }
}
