//! The proxy under test: the built binary, started as an operator starts it.
//!
//! The binary is the one named by the environment variable `MTPROXY_BIN`; without it, the one of the
//! target directory in which the test itself was built, brought up to date first.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use mtproxy_core::secret::Secret;
use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::net_ns::NetNs;
use crate::process_cost::ProcessCost;
use crate::socket::PATIENCE;

/// Lines of standard error kept; a proxy that writes more than this in a test is broken anyway.
const STDERR_LINES_MAX: usize = 20_000;

/// The command line of a proxy. Listens on a free port of 127.0.0.1 unless told otherwise.
#[derive(Clone, Debug, Default)]
pub struct ProxyCommand {
    listen: Vec<SocketAddr>,
    arguments: Vec<String>,
    config: Option<String>,
    descriptor_limit: Option<u64>,
    environment: Vec<(String, String)>,
    /// Words in front of the program.
    prefix: Vec<String>,
}

impl ProxyCommand {
    /// `mtproxy run` without options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `--listen`: this address instead of the default one; repeated calls add addresses.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen.push(address);
        self
    }

    /// `--secret`.
    #[must_use]
    pub fn secret(self, secret: &Secret) -> Self {
        self.option("--secret", &secret.reveal())
    }

    /// `--domain`, with the address of its front.
    #[must_use]
    pub fn domain(self, name: &str, front: SocketAddr) -> Self {
        self.option("--domain", &format!("{name}={front}"))
    }

    /// `--dc`.
    #[must_use]
    pub fn dc(self, id: i16, address: SocketAddr) -> Self {
        self.option("--dc", &format!("{id}={address}"))
    }

    /// Any option with its value.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Any option without a value.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.arguments.push(name.to_owned());
        self
    }

    /// `--config`, with a file that contains `toml`.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    /// Starts it with this variable in its environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it again, 100 ms after it has ended, as a service manager does. The process is the supervisor's then;
    /// the proxy is its child.
    #[must_use]
    pub fn supervised(mut self) -> Self {
        let script = "while :; do \"$0\" \"$@\"; sleep 0.1; done";
        self.prefix.extend(["sh", "-c", script].map(str::to_owned));
        self
    }

    /// Starts it with this limit of open descriptors.
    #[must_use]
    pub fn descriptor_limit(mut self, count: u64) -> Self {
        self.descriptor_limit = Some(count);
        self
    }

    /// Starts it in this network namespace.
    #[must_use]
    pub fn within(mut self, namespace: &NetNs) -> Self {
        self.prefix.extend(namespace.command_prefix());
        self
    }

    /// Starts it on these CPUs, as taskset(1) lists them.
    #[must_use]
    pub fn on_cpus(mut self, list: &str) -> Self {
        self.prefix.extend(["taskset", "--cpu-list", list].map(str::to_owned));
        self
    }

    /// Starts the proxy and waits until it is ready.
    ///
    /// # Panics
    /// If it does not say so within [`PATIENCE`], with what it said instead.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> ProxyProcess {
        self.try_start().unwrap_or_else(|said| panic!("awaiting that the proxy is ready: it said:\n{said}"))
    }

    /// Starts the proxy and waits until it is ready.
    ///
    /// # Errors
    /// What it said instead, if it exits or has not said so within [`PATIENCE`].
    ///
    /// # Panics
    /// If there is no binary, or the machine has no room for it.
    #[track_caller]
    pub fn try_start(mut self) -> Result<ProxyProcess, String> {
        let scratch = ScratchDirectory::new();
        if let Some(count) = self.descriptor_limit {
            // Only the process itself can set its limit before it looks at it.
            let script = format!("ulimit -n {count} && exec \"$0\" \"$@\"");
            self.prefix.extend(["sh".to_owned(), "-c".to_owned(), script]);
        }
        let mut command = match self.prefix.split_first() {
            None => Command::new(binary()),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary());
                command
            }
        };
        command.arg("run");
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listen = if self.listen.is_empty() { vec![default] } else { self.listen };
        for address in &listen {
            command.args(["--listen", &address.to_string()]);
        }
        if let Some(toml) = self.config {
            let file = scratch.path.join("mtproxy.toml");
            std::fs::write(&file, toml).expect("a scratch directory can be written to");
            command.arg("--config").arg(file);
        }
        command.args(&self.arguments);
        // Whatever it keeps, it must not find what an earlier test kept.
        command.envs(self.environment);
        command.env("STATE_DIRECTORY", &scratch.path).env("XDG_STATE_HOME", &scratch.path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        ProxyProcess::await_ready(child, listen.len(), scratch)
    }
}

/// A running proxy, killed when dropped.
#[derive(Debug)]
pub struct ProxyProcess {
    child: Child,
    addresses: Vec<SocketAddr>,
    stderr: Arc<Stderr>,
    _scratch: ScratchDirectory,
}

#[derive(Debug, Default)]
struct Stderr {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    closed: bool,
}

impl ProxyProcess {
    #[track_caller]
    fn await_ready(mut child: Child, listeners: usize, scratch: ScratchDirectory) -> Result<Self, String> {
        let pipe = child.stderr.take().expect("standard error is piped");
        let stderr = Arc::new(Stderr::default());
        let collected = Arc::clone(&stderr);
        std::thread::spawn(move || collected.collect(BufReader::new(pipe)));
        let mut proxy = Self { child, addresses: Vec::new(), stderr, _scratch: scratch };
        let ready = proxy.find_line(|line| line.contains("ready: "))?;
        proxy.addresses = addresses_in(&ready);
        let found = proxy.addresses.len();
        assert!(found >= listeners, "awaiting {listeners} addresses: found {found} in {ready:?}");
        Ok(proxy)
    }

    /// Where it listens, in the order of the `--listen` options.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where it listens first.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it costs now.
    #[must_use]
    pub fn cost(&self) -> ProcessCost {
        ProcessCost::of(self.pid())
    }

    /// What it wrote to standard error so far, line by line.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lines.lock().expect("the collector did not panic").lines.clone()
    }

    /// Waits for a line on standard error, past or to come.
    ///
    /// # Panics
    /// If there is none within [`PATIENCE`], or the proxy exits without it.
    #[must_use]
    #[track_caller]
    pub fn wait_for_line(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        self.find_line(is_it).unwrap_or_else(|said| panic!("awaiting {what}: the proxy said:\n{said}"))
    }

    /// Waits for a line on standard error; answers everything that was said if there is none within
    /// [`PATIENCE`], or the proxy exits without it.
    fn find_line(&self, is_it: impl Fn(&str) -> bool) -> Result<String, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.stderr.lines.lock().expect("the collector did not panic");
        loop {
            if let Some(line) = lines.lines.iter().find(|line| is_it(line)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.closed || left.is_zero() {
                return Err(lines.lines.join("\n"));
            }
            lines = self.stderr.changed.wait_timeout(lines, left).expect("the collector did not panic").0;
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process has been waited for already.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the proxy is a child of ours");
    }

    /// Does `meanwhile` while no thread of it runs: whatever arrives in that time it finds all at once.
    ///
    /// # Panics
    /// If it does not stop within [`PATIENCE`].
    #[track_caller]
    pub fn while_stopped(&self, meanwhile: impl FnOnce()) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/status", self.pid());
        let deadline = Instant::now() + PATIENCE;
        while !std::fs::read_to_string(&status).is_ok_and(|text| text.contains("State:\tT")) {
            assert!(Instant::now() < deadline, "awaiting that the proxy stands still");
            std::thread::sleep(Duration::from_millis(1));
        }
        meanwhile();
        self.signal(Signal::CONT);
    }

    /// Sets how many descriptors it may have open.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn limit_descriptors(&self, count: u64) {
        let limit = Rlimit { current: Some(count), maximum: Some(count) };
        let pid = Pid::from_child(&self.child);
        rustix::process::prlimit(Some(pid), Resource::Nofile, limit).expect("prlimit of a child");
    }

    /// True while it has not exited.
    ///
    /// # Panics
    /// If the kernel does not know the process.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the proxy is a child of ours").is_none()
    }

    /// Waits until it exits.
    ///
    /// # Panics
    /// If it does not within `patience`.
    #[track_caller]
    pub fn wait_for_exit(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("the proxy is a child of ours") {
                return status;
            }
            assert!(Instant::now() < deadline, "awaiting the proxy's exit for {patience:?} in vain");
            // The standard library can wait for a child or have a bound, not both.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        // Both fail only if it has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = self.stderr();
            let tail = said[said.len().saturating_sub(60)..].join("\n");
            eprintln!("the proxy's standard error ended with:\n{tail}");
        }
    }
}

impl Stderr {
    fn collect(&self, reader: impl BufRead) {
        for line in reader.lines().map_while(Result::ok) {
            let mut lines = self.lines.lock().expect("the test did not panic with the lock");
            if lines.lines.len() < STDERR_LINES_MAX {
                lines.lines.push(line);
            }
            self.changed.notify_all();
        }
        self.lines.lock().expect("the test did not panic with the lock").closed = true;
        self.changed.notify_all();
    }
}

/// Every `ADDR:PORT` and `[ADDR]:PORT` in `line`.
fn addresses_in(line: &str) -> Vec<SocketAddr> {
    let is_address_byte = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '[' | ']');
    let parse = |word: &str| {
        // A list in brackets lends its own to the first and the last address.
        let unbracketed = word.trim_end_matches([']', '.', ':']);
        [unbracketed, unbracketed.strip_prefix('[').unwrap_or_default()].iter().find_map(|w| w.parse().ok())
    };
    line.split(|c| !is_address_byte(c)).filter_map(parse).collect()
}

/// A directory that goes with the process that uses it.
#[derive(Debug)]
pub(crate) struct ScratchDirectory {
    pub(crate) path: PathBuf,
}

impl ScratchDirectory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mtproxy-tests-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory can be written to");
        Self { path }
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's cleaning of its temporary directory.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The binary under test, built once per test process.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("MTPROXY_BIN").map_or_else(build_binary, PathBuf::from))
}

/// `target/<profile>/mtproxy`, for a test that runs as `target/<profile>/deps/<test>`.
fn build_binary() -> PathBuf {
    let test = std::env::current_exe().expect("this process has an executable");
    let profile_directory = test
        .ancestors()
        .skip(1)
        .find(|directory| !directory.ends_with("deps"))
        .expect("a test lies in a target directory");
    let is_release = profile_directory.ends_with("release");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    if is_release {
        build.args(["build", "--quiet", "--package", "mtproxy-bin", "--bin", "mtproxy", "--release"]);
    } else {
        // The binary comes with these of its tests. `cargo build` would have the dependencies without what tests
        // add to their features, and so build most of them once more.
        build.args(["test", "--quiet", "--workspace", "--no-run", "--test", "commands"]);
    }
    build.arg("--target-dir").arg(profile_directory.parent().expect("a profile lies in a target directory"));
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = build.status().unwrap_or_else(|error| panic!("running {build:?}: {error}"));
    assert!(status.success(), "{build:?} failed; MTPROXY_BIN=… names a binary built elsewhere");
    profile_directory.join("mtproxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_any_kind_of_log_line() {
        let expected: Vec<SocketAddr> =
            ["127.0.0.1:8443", "[::1]:443"].iter().map(|text| text.parse().unwrap()).collect();
        for line in [
            "2026-01-02T03:04:05Z INFO mtproxy: ready listen=127.0.0.1:8443, [::1]:443",
            "ready: listening on 127.0.0.1:8443 and [::1]:443.",
            r#"{"level":"info","message":"ready","listen":["127.0.0.1:8443","[::1]:443"]}"#,
            "ready addresses=[127.0.0.1:8443, [::1]:443]",
            "ready addresses=[127.0.0.1:8443,[::1]:443]",
        ] {
            assert_eq!(addresses_in(line), expected, "{line}");
        }
        assert!(addresses_in("ready in 10:20:30").is_empty());
    }
}
