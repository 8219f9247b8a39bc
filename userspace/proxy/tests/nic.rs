//! `mtproxy nic` on a virtual interface in a network namespace: what it changes, and that it takes everything back, also
//! after it was killed.
//!
//! Needs root, iproute2 and ethtool. An interface of software has few knobs; real drivers are met in tests/vm.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const INTERFACE: &str = "v0";

/// A namespace with one end of a pair in it, badly set up; gone when dropped.
struct Host {
    namespace: String,
    journals: PathBuf,
}

impl Host {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let namespace = format!("mtproxy-nic-{id}");
        let host = Self { journals: std::env::temp_dir().join(&namespace), namespace };
        succeed(Command::new("ip").args(["netns", "add", &host.namespace]));
        for words in [
            "ip link add v0 numrxqueues 2 numtxqueues 2 type veth peer name v1 numrxqueues 2 numtxqueues 2",
            "ip link set v0 up",
            "ip link set v1 up",
            "ethtool -K v0 rx-gro-list on",
            "ethtool -K v0 rx-udp-gro-forwarding on",
            "sysctl -qw net.ipv4.ip_local_reserved_ports=8080",
        ] {
            succeed(&mut host.command(&words.split(' ').collect::<Vec<_>>()));
        }
        succeed(&mut host.command(&["sysctl", "-qw", "net.ipv4.ip_local_port_range=20000 65000"]));
        host
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).args(words);
        command
    }

    fn nic(&self, words: &[&str]) -> Command {
        let mut command = self.command(&[env!("CARGO_BIN_EXE_mtproxy"), "nic"]);
        command.args(words);
        if words[0] != "list" {
            command.arg(INTERFACE);
        }
        if matches!(words[0], "apply" | "undo") {
            command.arg("--journals").arg(&self.journals);
        }
        command
    }

    /// Everything that anybody could have changed, as other tools show it.
    fn snapshot(&self) -> String {
        let script = "for option in k c g l x a; do ethtool -$option v0 2>&1; done; \
            grep -r . /sys/class/net/v0/napi_defer_hard_irqs /sys/class/net/v0/gro_flush_timeout /sys/class/net/v0/threaded; \
            sysctl -a 2>/dev/null | grep -E '^(net|vm.nr_hugepages)' | grep -vE 'nf_conntrack_count|random|seed'";
        let output = self.command(&["sh", "-c", script]).output().expect("a shell");
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
        let _ = std::fs::remove_dir_all(&self.journals);
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: network namespaces take root");
    }
    is_root
}

#[test]
fn what_check_finds_plan_shows_apply_changes_and_undo_takes_back() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let before = host.snapshot();
    let run = |words: &[&str]| {
        let output = host.nic(words).output().expect("it can be started");
        (output.status.code(), text(&output))
    };
    let (code, found) = run(&["check", "--busy-poll"]);
    assert_eq!(code, Some(1), "{found}");
    assert!(found.contains("do: ethtool -K v0 rx-gro-list off"), "{found}");
    assert!(found.contains("3 to change with `mtproxy nic apply v0`"), "{found}");
    let (_, planned) = run(&["plan", "--busy-poll"]);
    assert!(planned.contains("sysctl -w net.ipv4.ip_local_reserved_ports='8080,61000-65000'"), "{planned}");
    assert_eq!(host.snapshot(), before, "to look changes nothing");

    let (code, applied) = run(&["apply", "--busy-poll"]);
    assert_eq!(code, Some(0), "{applied}");
    assert!(applied.contains("5 made, 0 refused"), "{applied}");
    let (code, found) = run(&["check", "--busy-poll"]);
    assert_eq!(code, Some(0), "{found}");
    let after = host.snapshot();
    assert!(after.contains("rx-gro-list: off") && after.contains("defer_hard_irqs:2"), "{after}");
    assert!(after.contains("ip_local_reserved_ports = 8080,61000-65000"), "{after}");
    assert_eq!(run(&["apply", "--busy-poll"]), (Some(0), "v0: nothing to change\n".to_owned()));

    let (code, undone) = run(&["undo"]);
    assert_eq!(code, Some(0), "{undone}");
    assert_eq!(host.snapshot(), before);
    let (code, again) = run(&["undo"]);
    assert!(code == Some(0) && again.contains("nothing to take back"), "{again}");
}

#[test]
fn whenever_apply_is_killed_undo_restores_every_byte() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let before = host.snapshot();
    for turn in 0..24_u64 {
        let mut apply = host.nic(&["apply", "--busy-poll"]);
        let mut apply = apply.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be started");
        std::thread::sleep(Duration::from_millis(turn * 2));
        apply.kill().expect("it is ours");
        apply.wait().expect("it is ours");
        let undo = host.nic(&["undo"]).output().expect("it can be started");
        assert_eq!(undo.status.code(), Some(0), "{}", text(&undo));
        assert_eq!(host.snapshot(), before, "killed after {} ms", turn * 2);
    }
}

#[test]
fn what_somebody_else_has_changed_since_is_theirs() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let before = host.snapshot();
    succeed(&mut host.nic(&["apply", "--busy-poll"]));
    succeed(&mut host.command(&["sysctl", "-qw", "net.ipv4.ip_local_reserved_ports=1-9"]));
    let undo = host.nic(&["undo"]).output().expect("it can be started");
    assert_eq!(undo.status.code(), Some(1), "{}", text(&undo));
    assert!(text(&undo).contains("somebody else made it 1-9; it was 8080"), "{}", text(&undo));
    succeed(&mut host.nic(&["undo", "--force"]));
    assert_eq!(host.snapshot(), before);
}

#[test]
fn interfaces_are_listed_and_one_that_is_not_there_is_said_to_be_missing() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let list = text(&host.nic(&["list"]).output().expect("it can be started"));
    assert!(list.lines().any(|line| line.starts_with("v0 ") && line.contains("veth")), "{list}");
    let missing =
        host.command(&[env!("CARGO_BIN_EXE_mtproxy"), "nic", "check", "v9"]).output().expect("started");
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing).contains("found no interface v9"), "{}", text(&missing));
}
