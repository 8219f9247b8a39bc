//! Sockets by which other commands of this program reach a running proxy: `mtproxy top` and `mtproxy capture`.
//!
//! Their names are of the abstract space of Unix sockets: they belong to the network namespace, as the interfaces do that
//! they speak of; they go with the process; and they need no directory that both ends may use. Who is at the other end is
//! known by SO_PEERCRED.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

/// In front of a process's number: where its metrics are.
const METRICS: &str = "mtproxy/metrics/";
/// In front of an interface's name: where its packets can be had.
const CAPTURE: &str = "mtproxy/capture/";

/// What is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// The numbers of the proxy with this process number, over HTTP.
    Metrics(u32),
    /// The packets of the interface of this name.
    Capture(String),
}

impl Door {
    fn address(&self) -> io::Result<SocketAddr> {
        let name = match self {
            Self::Metrics(process) => format!("{METRICS}{process}"),
            Self::Capture(interface) => format!("{CAPTURE}{interface}"),
        };
        SocketAddr::from_abstract_name(name)
    }

    /// Opens it, in this thread's network namespace.
    ///
    /// # Errors
    /// If somebody has it open.
    pub fn open(&self) -> io::Result<UnixListener> {
        UnixListener::bind_addr(&self.address()?)
    }

    /// Goes to it.
    ///
    /// # Errors
    /// If it is not open.
    pub fn enter(&self) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&self.address()?)
    }
}

/// Nothing, if the other end is root or the user of this process.
///
/// # Errors
/// Who it is, and who was expected.
pub fn admit(stream: &UnixStream) -> Result<(), String> {
    let peer = socket_peercred(stream).map_err(|error| format!("found nobody at the other end ({error})"))?;
    if peer.uid.is_root() || peer.uid == geteuid() {
        return Ok(());
    }
    let (found, ours) = (peer.uid.as_raw(), geteuid().as_raw());
    Err(format!("found user {found}; expected root or user {ours}, who runs the proxy"))
}

/// The process numbers of the proxies in this thread's network namespace.
///
/// # Errors
/// If the kernel does not list its sockets.
pub fn proxies() -> io::Result<Vec<u32>> {
    Ok(parse(&fs::read_to_string("/proc/thread-self/net/unix")?))
}

/// The last word of a line is the socket's path (`unix_seq_show`, net/unix/af_unix.c), an abstract one with @ in front.
/// The line of a connection has the name of its listener, too.
fn parse(table: &str) -> Vec<u32> {
    let paths = table.lines().filter_map(|line| line.split_ascii_whitespace().nth(7));
    let mut found: Vec<u32> =
        paths.filter_map(|path| path.strip_prefix('@')?.strip_prefix(METRICS)?.parse().ok()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_the_kernel_names_each_proxy_once() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 20871 @mtproxy/metrics/7\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 20872 @mtproxy/metrics/7\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 20873 @mtproxy/metrics/12\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 20873 @mtproxy/capture/eth0\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 20874 @mtproxy/metrics/x\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 20875 /run/mtproxy/metrics/9\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 20876\n";
        assert_eq!(parse(table), [7, 12]);
    }

    #[test]
    fn a_door_that_is_open_is_found_and_entered_by_its_own_user() {
        let process = u32::MAX - std::process::id();
        let door = Door::Metrics(process);
        assert!(door.enter().is_err());
        let listener = door.open().unwrap();
        assert!(door.open().is_err(), "it is open");
        let _client = door.enter().unwrap();
        assert!(proxies().unwrap().contains(&process));
        assert_eq!(admit(&listener.accept().unwrap().0), Ok(()));
    }
}
