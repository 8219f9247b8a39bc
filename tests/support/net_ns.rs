//! A network namespace of a test's own: made when asked for, gone when dropped, whatever happens between.
//!
//! Takes root and iproute2. Names are `mtproxy-PID-N`, PID being the process that made it. What a
//! killed process has left behind, the next one removes before it makes its first: nothing here has to be
//! cleaned up by hand.
//!
//! A thread can [`enter`](NetNs::enter) a namespace. Sockets made there belong to it wherever they go
//! later, and so do threads started there: the peers of this library need not know of any of this.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space};

const PERMISSION: &str = "root, with CAP_SYS_ADMIN and CAP_NET_ADMIN";
const PREFIX: &str = "mtproxy-";
/// Where iproute2 keeps the names of namespaces.
const DIRECTORY: &str = "/run/netns";

/// What could not be configured, and what was said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationError(String);

impl std::fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigurationError {}

/// A network namespace, until dropped. Then every process in it is killed.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    file: File,
}

impl NetNs {
    /// A namespace with nothing but loopback in it, which is up.
    ///
    /// # Errors
    /// Without root, without `ip`, or where the kernel refuses.
    pub fn new() -> Result<Self, ConfigurationError> {
        static SWEPT: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !Self::is_permitted() {
            return Err(ConfigurationError(format!("network namespaces take {PERMISSION}")));
        }
        SWEPT.call_once(sweep);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        configure("ip", ["netns", "add", &name])?;
        let path = format!("{DIRECTORY}/{name}");
        let file = File::open(&path).map_err(|error| ConfigurationError(format!("{path}: {error}")))?;
        let namespace = Self { name, file };
        // Duplicate addresses are for networks that somebody else may configure.
        namespace.set("net.ipv6.conf.all.accept_dad", "0")?;
        namespace.set("net.ipv6.conf.default.accept_dad", "0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// True if this process may make one.
    #[must_use]
    pub fn is_permitted() -> bool {
        let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
    }

    /// As [`is_permitted`](Self::is_permitted), for a test that otherwise returns: then it says why.
    #[must_use]
    pub fn permitted_or_skipped() -> bool {
        if !Self::is_permitted() {
            eprintln!("skipped: network namespaces take {PERMISSION}");
        }
        Self::is_permitted()
    }

    /// The name under which `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` with `words`, separated by spaces, for this namespace.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip(&self, words: &str) -> Result<(), ConfigurationError> {
        configure("ip", ["-n", &self.name].into_iter().chain(words.split_whitespace()))
    }

    /// Runs a command line in this namespace to its end.
    ///
    /// # Errors
    /// What it says, if it fails.
    pub fn run(&self, words: &str) -> Result<(), ConfigurationError> {
        configure("ip", ["netns", "exec", &self.name].into_iter().chain(words.split_whitespace()))
    }

    /// Sets a sysctl, named as `sysctl` names it.
    ///
    /// # Errors
    /// If there is none of that name here, or it does not take the value.
    pub fn set(&self, sysctl: &str, value: &str) -> Result<(), ConfigurationError> {
        let path = format!("/proc/sys/{}", sysctl.replace('.', "/"));
        // The kernel shows everybody the sysctls of their own namespace.
        self.enter(|| fs::write(&path, value))
            .map_err(|error| ConfigurationError(format!("{sysctl} = {value}: {error}")))
    }

    /// Words to put in front of a command line that is to run here. The process is the one that the words
    /// start, and it dies with the thread that started it: not with a thread that merely entered.
    #[must_use]
    pub fn command_prefix(&self) -> Vec<String> {
        ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }

    /// Does `act` on a thread in this namespace, and waits for it.
    ///
    /// # Panics
    /// As `act` does, or if the kernel refuses.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let visit = || {
            move_in(&self.file);
            act()
        };
        std::thread::scope(|scope| scope.spawn(visit).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// A thread in this namespace.
    ///
    /// # Panics
    /// If this process may have no more descriptors.
    pub fn spawn<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = self.file.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            move_in(&file);
            act()
        })
    }

    /// What has crossed an interface of this namespace.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn link_counters(&self, interface: &str) -> io::Result<LinkCounters> {
        let text = self.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        let counters = LinkCounters::find(&text, interface);
        counters.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {interface}")))
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// What has crossed an interface so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl LinkCounters {
    /// Reads /proc/net/dev: name, then eight numbers of receiving and eight of sending, each beginning
    /// with bytes and packets.
    fn find(text: &str, interface: &str) -> Option<Self> {
        let rest =
            text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
        let numbers: Vec<u64> = rest.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let &[rx_bytes, rx_packets, _, _, _, _, _, _, tx_bytes, tx_packets, ..] = &numbers[..] else {
            return None;
        };
        Some(Self { rx_packets, rx_bytes, tx_packets, tx_bytes })
    }
}

fn move_in(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("root may enter a namespace that it has made");
}

/// Runs a program to its end. It is not disturbed by a Ctrl-C that is meant for this process: what is half
/// configured could not be removed.
fn configure<'a>(program: &str, words: impl IntoIterator<Item = &'a str>) -> Result<(), ConfigurationError> {
    let mut command = Command::new(program);
    command.args(words).process_group(0).stdin(Stdio::null());
    let output =
        command.output().map_err(|error| ConfigurationError(format!("running {program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(ConfigurationError(format!("{command:?}: {}", said.trim())))
}

/// Removes the namespaces of processes that are no more.
fn sweep() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return };
    for entry in entries.map_while(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if owner(&name).is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            remove(&name);
        }
    }
}

/// The process that made a namespace of this name; `None` if it is not one of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// Kills what runs in a namespace, and removes it. Failing at either means that somebody else has done it.
fn remove(name: &str) {
    let output = Command::new("ip").args(["netns", "pids", name]).process_group(0).output();
    let pids = output.map(|output| output.stdout).unwrap_or_default();
    for pid in String::from_utf8_lossy(&pids).split_whitespace() {
        if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let _ = configure("ip", ["netns", "del", name]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner_and_others_are_left_alone() {
        assert_eq!(owner("mtproxy-123-4"), Some(123));
        for other in ["mtproxy-", "mtproxy-x-1", "mtproxy-12", "lab-12-3"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn counters_are_found_by_the_whole_name() {
        let text = "Inter-| Receive | Transmit\n face |bytes packets\n  xpx0: 9 9 9 9 9 9 9 9 9 9\n  \
                    px0:     196       2    0    0    0     0          0         0     300       4    0 0\n";
        let expected = LinkCounters { rx_packets: 2, rx_bytes: 196, tx_packets: 4, tx_bytes: 300 };
        assert_eq!(LinkCounters::find(text, "px0"), Some(expected));
        assert_eq!(LinkCounters::find(text, "px"), None);
    }
}
