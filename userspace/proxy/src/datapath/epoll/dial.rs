//! Outgoing connections: begun without waiting, and what their failures mean.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use mtproxy_core::event::DialError;
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect as connect_socket, ipproto, socket_with};

/// A socket whose connection is on its way.
pub(super) fn connect(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // Messages are written whole; waiting for more would only delay them.
    set_tcp_nodelay(&fd, true)?;
    match connect_socket(&fd, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(error) => Err(error),
    }
}

/// What the engine needs to know of a failed dial.
pub(super) fn classify(error: Errno) -> DialError {
    match error {
        Errno::CONNREFUSED | Errno::CONNRESET => DialError::Refused,
        Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::ACCESS | Errno::PERM => {
            DialError::Unreachable
        }
        Errno::TIMEDOUT => DialError::TimedOut,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL | Errno::NOSPC => {
            DialError::NoResources
        }
        _ => DialError::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_out_of_descriptors_or_ports_is_not_blamed_on_the_address() {
        for ours in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::ADDRNOTAVAIL] {
            assert_eq!(classify(ours), DialError::NoResources);
        }
        assert_eq!(classify(Errno::CONNREFUSED), DialError::Refused);
        assert_eq!(classify(Errno::HOSTUNREACH), DialError::Unreachable);
        assert_eq!(classify(Errno::IO), DialError::Other);
    }
}
