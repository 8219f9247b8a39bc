//! The kernel's own TCP sockets, as /proc lists them: who has a port that we are about to take, and whether the
//! kernel still has connections of our clients.
//!
//! Format: `tcp4_seq_show` (net/ipv4/tcp_ipv4.c), `tcp6_seq_show` (net/ipv6/tcp_ipv6.c). A line is a socket; its
//! second word is the local address, each 32-bit word of it in the host's byte order, and port; its fourth the
//! state. Half-open connections and those in TIME-WAIT have lines, too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{fs, io};

/// States (`enum`, include/net/tcp_states.h).
const TCP_TIME_WAIT: u8 = 6;
const TCP_LISTEN: u8 = 10;

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelSocket {
    /// Its own end; an IPv4 address also where the socket is an IPv6 one.
    pub(super) local: SocketAddr,
    state: u8,
}

impl KernelSocket {
    #[cfg(test)]
    pub(super) fn new(local: SocketAddr, state: u8) -> Self {
        Self { local, state }
    }

    pub(super) fn is_listening(self) -> bool {
        self.state == TCP_LISTEN
    }

    /// False for what only remembers a connection.
    pub(super) fn is_in_use(self) -> bool {
        self.state != TCP_TIME_WAIT
    }
}

/// All TCP sockets of this thread's network namespace.
pub(super) fn list() -> io::Result<Vec<KernelSocket>> {
    let mut sockets = parse(&fs::read_to_string("/proc/thread-self/net/tcp")?)?;
    match fs::read_to_string("/proc/thread-self/net/tcp6") {
        Ok(text) => sockets.extend(parse(&text)?),
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(sockets)
}

fn parse(text: &str) -> io::Result<Vec<KernelSocket>> {
    let unexpected = |line| io::Error::new(io::ErrorKind::InvalidData, format!("{line:?} is no socket"));
    text.lines().skip(1).map(|line| parse_line(line).ok_or_else(|| unexpected(line))).collect()
}

fn parse_line(line: &str) -> Option<KernelSocket> {
    let mut words = line.split_ascii_whitespace();
    let (address, port) = words.nth(1)?.split_once(':')?;
    let state = u8::from_str_radix(words.nth(1)?, 16).ok()?;
    let local = SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?);
    Some(KernelSocket { local, state })
}

fn parse_address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(digits.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(8 * index)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[cfg(target_endian = "little")]
    #[test]
    fn lines_of_a_little_endian_host_are_read() {
        // From Linux 6.18, shortened behind the state.
        let text = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                    0: 0100007F:F230 00000000:0000 0A 00000000:00000000\n   \
                    1: 0200004D:01BB 0201004D:C350 06 00000000:00000000\n   \
                    2: 000077FD000000000000000002000000:01BB 00000000000000000000000000000000:0000 01 00000000\n   \
                    3: 0000000000000000FFFF00000200004D:01BB 00000000000000000000000000000000:0000 03 00000000\n";
        let sockets = parse(text).unwrap();
        let expected =
            [("127.0.0.1:62000", 10), ("77.0.0.2:443", 6), ("[fd77::2]:443", 1), ("77.0.0.2:443", 3)];
        for (socket, (local, state)) in sockets.iter().zip(expected) {
            assert_eq!((socket.local, socket.state), (local.parse().unwrap(), state));
        }
        assert_eq!(sockets.len(), expected.len());
        assert!(sockets[0].is_listening() && !sockets[2].is_listening());
        assert!(!sockets[1].is_in_use() && sockets[2].is_in_use());
    }

    #[test]
    fn what_is_no_socket_is_said() {
        assert!(parse("heading\n").unwrap().is_empty());
        for line in ["x", "0: 0100007F 0:0 0A", "0: 0100007F:1 0:0", "0: 01:1 0:0 0A", "0: +100007F:1 0:0 zz"]
        {
            assert!(parse(&format!("heading\n{line}\n")).is_err(), "{line}");
        }
    }

    #[test]
    fn sockets_of_both_families_are_found_with_their_states() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(at).unwrap();
            let local = listener.local_addr().unwrap();
            let client = TcpStream::connect(local).unwrap();
            let all = list().unwrap();
            let listening = |it: &&KernelSocket| it.local == local && it.is_listening();
            assert_eq!(all.iter().filter(listening).count(), 1);
            // Not accepted yet, and a connection all the same.
            assert!(all.iter().any(|it| it.local == local && !it.is_listening()));
            assert!(all.iter().any(|it| it.local == client.local_addr().unwrap()));
        }
    }
}
