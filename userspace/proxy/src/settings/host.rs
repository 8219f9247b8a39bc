//! What this host and this process bring along: the facts that defaults depend on.
//!
//! Read once, then passed as a value, so that every default can be tested on any machine.

use std::net::{Ipv6Addr, UdpSocket};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use rustix::thread::CapabilitySet;

/// The facts that defaults depend on.
#[derive(Clone, Debug)]
pub struct Host {
    /// True if the process has user id 0.
    pub is_root: bool,
    /// True if the process may listen on port 443.
    pub may_use_port_443: bool,
    /// True if the kernel has IPv6 addresses to offer.
    pub has_ipv6: bool,
    /// Cores that this process may use.
    pub cores: NonZeroUsize,
    /// `STATE_DIRECTORY`, as systemd sets it for a unit with `StateDirectory=`.
    pub state_directory: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
}

impl Host {
    /// This host, as this process sees it.
    #[must_use]
    pub fn here() -> Self {
        let directory = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            is_root: rustix::process::geteuid().is_root(),
            may_use_port_443: may_use_port(443),
            has_ipv6: UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok(),
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            state_directory: std::env::var("STATE_DIRECTORY").ok().and_then(|list| first_directory(&list)),
            xdg_state_home: directory("XDG_STATE_HOME"),
            home: directory("HOME"),
        }
    }
}

/// systemd separates several directories with colons; the first one is ours.
fn first_directory(list: &str) -> Option<PathBuf> {
    list.split(':').map(PathBuf::from).find(|path| path.is_absolute())
}

fn may_use_port(port: u16) -> bool {
    // A container may hold the capability without being root, or have the threshold lowered to 0.
    let capable = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_BIND_SERVICE));
    let threshold = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    capable || threshold.is_ok_and(|text| text.trim().parse().is_ok_and(|first_free: u16| port >= first_free))
}

#[cfg(test)]
impl Host {
    /// A host for tests: four cores, nothing privileged, a home.
    pub(crate) fn for_tests() -> Self {
        Self {
            is_root: false,
            may_use_port_443: false,
            has_ipv6: true,
            cores: NonZeroUsize::new(4).unwrap(),
            state_directory: None,
            xdg_state_home: None,
            home: Some("/home/operator".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_absolute_state_directory_is_ours() {
        assert_eq!(first_directory("/var/lib/a:/var/lib/b"), Some("/var/lib/a".into()));
        assert_eq!(first_directory(""), None);
        assert_eq!(first_directory("relative"), None);
    }

    #[test]
    fn high_ports_are_for_everyone() {
        assert!(may_use_port(65535));
    }
}
