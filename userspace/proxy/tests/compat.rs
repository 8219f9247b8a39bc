//! The program by the official proxy's name, with a command line of its users: exit codes, statistics, signals and log.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const KEY: &str = "00112233445566778899aabbccddeeff";
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with everything that an installation has.
struct Installation {
    path: PathBuf,
}

impl Installation {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mtproxy-compat-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        symlink(env!("CARGO_BIN_EXE_mtproxy"), path.join("mtproto-proxy")).unwrap();
        std::fs::write(path.join("proxy-secret"), [7; 128]).unwrap();
        // Nobody answers there, which a proxy must bear.
        std::fs::write(
            path.join("proxy-multi.conf"),
            "default 2; proxy_for 2 127.0.0.1:1; proxy_for -2 127.0.0.1:1;\n",
        )
        .unwrap();
        Self { path }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(self.path.join("mtproto-proxy"));
        command.args(words.split_whitespace()).current_dir(&self.path).stdin(Stdio::null());
        command
    }

    fn output(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A running proxy, killed with the test.
struct Running {
    child: Child,
    lines: Vec<String>,
}

impl Running {
    fn start(installation: &Installation, words: &str) -> Self {
        let mut child = installation.command(words).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = Vec::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        loop {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended: {lines:?}");
            lines.push(line);
            if lines.last().unwrap().contains("ready: accepting clients") {
                break;
            }
        }
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self { child, lines }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, uri: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {uri} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn value<'a>(page: &'a str, name: &str) -> &'a str {
    let line = page.lines().find(|line| line.split('\t').next() == Some(name));
    line.and_then(|line| line.split_once('\t')).unwrap_or_else(|| panic!("{name} is not there:\n{page}")).1
}

fn official(http: u16, local: u16) -> String {
    format!(
        "-u nobody -p {local} -H {http} -S {KEY} -P {KEY} --aes-pwd proxy-secret proxy-multi.conf -M 1 --http-stats \
         --allow-skip-dh --nat-info 10.0.0.5:198.51.100.1"
    )
}

#[test]
fn a_command_line_that_is_not_understood_ends_with_2_and_the_usage() {
    let installation = Installation::new("usage");
    for words in ["", "--help", "-x", "a b", "proxy-multi.conf", "-H 443 -S 12 proxy-multi.conf"] {
        let output = installation.output(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("usage: ") && said.contains("--mtproto-secret"), "{said}");
    }
}

#[test]
fn what_the_host_lacks_ends_with_1() {
    let installation = Installation::new("fatal");
    let (http, local) = (free_port(), free_port());
    let line = official(http, local);
    for (from, to, found) in [
        ("--aes-pwd proxy-secret", "--aes-pwd nowhere", "nowhere"),
        ("proxy-multi.conf", "mtproto-proxy", "mtproto-proxy"),
        ("-u nobody", "-u no-such-user-here", "no-such-user-here"),
    ] {
        if from == "-u nobody" && !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root becomes another user");
            continue;
        }
        let output = installation.output(&line.replace(from, to));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(found), "{said}");
    }
}

#[test]
fn the_documented_command_line_serves_statistics_and_ends_with_0() {
    let installation = Installation::new("official");
    let (http, local) = (free_port(), free_port());
    let mut proxy = Running::start(&installation, &official(http, local));
    assert!(
        proxy.lines.iter().any(|line| line.starts_with(&format!("[{}][20", proxy.child.id()))),
        "{:?}",
        proxy.lines
    );
    assert!(proxy.lines.iter().any(|line| line.contains("--allow-skip-dh has no effect")));
    let client = TcpStream::connect(("127.0.0.1", http)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let page = loop {
        let page = get(local, "/stats");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\nServer: MTProxy/1.0\r\n"), "{page}");
        if value(&page, "total_special_connections") == "1" {
            break page;
        }
        assert!(Instant::now() < deadline, "{page}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(value(&page, "pid"), proxy.child.id().to_string());
    assert_eq!(value(&page, "workers"), "1");
    assert_eq!(value(&page, "proxy_tag_set"), "1");
    assert_eq!(value(&page, "config_auth_clusters"), "2");
    assert_eq!(value(&page, "total_declared_targets"), "1", "both clusters name one");
    assert_eq!(value(&page, "aes_pwd_hash").len(), 32);
    assert!(value(&page, "config_filename").ends_with("proxy-multi.conf"));
    assert!(get(local, "/metrics").starts_with("HTTP/1.1 404"));
    drop(client);
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(), Some(0));
}

#[test]
fn a_log_file_is_written_and_opened_anew_after_a_rotation() {
    let installation = Installation::new("log");
    let log = installation.path.join("proxy.log");
    let line = official(free_port(), free_port()).replace("-u nobody", "-u root");
    let mut child = installation.command(&format!("{line} -d -l proxy.log")).spawn().unwrap();
    wait_for(&log, "ready: accepting clients");
    let rotated = log.with_extension("old");
    std::fs::rename(&log, &rotated).unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::USR1).unwrap();
    wait_for(&log, "log opened");
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(std::fs::read_to_string(&log).unwrap().contains("SIGTERM handled."));
}

fn wait_for(file: &Path, words: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(file).unwrap_or_default().contains(words) {
        assert!(Instant::now() < deadline, "awaiting {words:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_word_compat_does_the_same() {
    let output = Command::new(env!("CARGO_BIN_EXE_mtproxy")).args(["compat", "--help"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("usage: mtproxy compat [options] FILE"));
}
