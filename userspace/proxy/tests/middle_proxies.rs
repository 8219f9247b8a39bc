//! Middle proxies from outside: what the program says of their options and files before anything starts, and what it
//! does when the files change. Without root or network.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;

const SECRET: &str = "00112233445566778899aabbccddeeff";
const CONFIG: &[u8] = b"default 2;\nproxy_for 2 127.0.0.1:9;\n";

/// A directory of one test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mtproxy-me-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtproxy"));
    command.args([
        "run",
        "--datapath",
        "epoll",
        "--workers",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--secret",
        SECRET,
    ]);
    command.args(words).env_clear();
    command
}

/// What a start that fails says.
fn refusal(words: &[&str]) -> String {
    let output = run(words).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A proxy that runs, and what it says.
struct Running {
    process: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let mut running = Self { process, log };
        running.wait_for("ready:");
        running
    }

    /// The next line of the log with `part` in it. A line that never comes is the test runner's to end.
    fn wait_for(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the proxy ended before it said {part:?}");
            if line.contains(part) {
                return line;
            }
        }
    }

    fn hang_up(&self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn one_file_without_the_other_ends_the_start_with_what_to_do() {
    let scratch = Scratch::new("one");
    let config = scratch.file("proxy-multi.conf", CONFIG);
    let message = refusal(&["--middle-proxy-config", &config]);
    assert!(message.starts_with("error: --middle-proxy-config: found"), "{message}");
    assert!(message.contains("expected both") && message.contains("--middle-proxy-secret FILE"), "{message}");
    let message = refusal(&["--middle-proxy-secret", &config]);
    assert!(message.contains("--middle-proxy-config FILE"), "{message}");
}

#[test]
fn a_tag_without_middle_proxies_ends_the_start() {
    let message = refusal(&["--proxy-tag", SECRET]);
    assert!(
        message.starts_with("error: --proxy-tag: found a proxy tag without middle proxies; expected"),
        "{message}"
    );
}

#[test]
fn mistakes_in_both_files_are_said_at_once_with_line_and_column() {
    let scratch = Scratch::new("mistakes");
    let config = scratch.file("proxy-multi.conf", b"default 2;\nproxy_for 2 127.0.0.1;\n");
    let secret = scratch.file("proxy-secret", &[7; 31]);
    let message = refusal(&["--middle-proxy-config", &config, "--middle-proxy-secret", &secret]);
    assert!(message.contains(&format!("error: {config}:2:")), "{message}");
    assert!(message.contains(&format!("error: {secret}: found 31")), "{message}");
    assert!(message.matches("expected").count() >= 2, "{message}");
    let none = scratch.path("none");
    let message = refusal(&["--middle-proxy-config", &none, "--middle-proxy-secret", &none]);
    assert!(message.contains(&none) && message.contains("check the path"), "{message}");
}

#[test]
fn a_hang_up_reads_the_files_again_and_a_bad_one_changes_nothing() {
    let scratch = Scratch::new("reload");
    let config = scratch.file("proxy-multi.conf", CONFIG);
    let secret = scratch.file("proxy-secret", &[7; 32]);
    let mut proxy =
        Running::start(run(&["--middle-proxy-config", &config, "--middle-proxy-secret", &secret]));
    scratch.file("proxy-multi.conf", b"default 2;\nproxy_for 2 127.0.0.1:8;\nproxy_for 3 127.0.0.1:8;\n");
    proxy.hang_up();
    let line = proxy.wait_for("middle proxies are known");
    assert!(line.contains("clusters=2"), "{line}");
    scratch.file("proxy-multi.conf", b"default 2;\nproxy_for x 127.0.0.1:8;\n");
    proxy.hang_up();
    let line = proxy.wait_for("reload: error:");
    assert!(line.contains(&format!("{config}:2:")), "{line}");
    proxy.wait_for("what was known about middle proxies stays in use");
}

#[test]
fn a_file_that_changes_is_read_without_being_told() {
    let scratch = Scratch::new("watch");
    let config = scratch.file("proxy-multi.conf", CONFIG);
    let secret = scratch.file("proxy-secret", &[7; 32]);
    let mut proxy =
        Running::start(run(&["--middle-proxy-config", &config, "--middle-proxy-secret", &secret]));
    let next = scratch.file("next", b"default 3;\nproxy_for 2 127.0.0.1:8;\nproxy_for 3 127.0.0.1:8;\n");
    std::fs::rename(next, &config).unwrap();
    let line = proxy.wait_for("middle proxies are known");
    assert!(line.contains("clusters=2"), "{line}");
}

/// A server that answers every path with what fits it, for as long as the test runs.
fn download_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let len = stream.read(&mut request).unwrap_or(0);
            let body = if request[..len].starts_with(b"GET /secret ") { &[7; 32] } else { CONFIG };
            // Long ago, so that the proxy's clock is ahead of the server's.
            let head = format!(
                "HTTP/1.1 200 OK\r\nDate: Sat, 01 Jan 2000 00:00:00 GMT\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(body);
        }
    });
    address
}

#[test]
fn downloads_alone_are_enough_are_kept_and_tell_of_a_wrong_clock() {
    let scratch = Scratch::new("download");
    let server = download_server();
    let state = scratch.path("state");
    let file = scratch.file(
        "f.toml",
        format!(
            "state_dir = {state:?}\n[middle_proxies]\nconfig_url = \"http://{server}/config\"\n\
            secret_url = \"http://{server}/secret\"\n"
        )
        .as_bytes(),
    );
    let mut command = run(&["--config", &file]);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut running = Running { log: BufReader::new(process.stderr.take().unwrap()), process };
    let line = running.wait_for("this host's clock");
    assert!(line.contains(&format!("ahead of that of {server}")), "{line}");
    running.wait_for("ready:");
    assert_eq!(std::fs::read(scratch.path("state/proxy-multi.conf")).unwrap(), CONFIG);
    assert_eq!(std::fs::read(scratch.path("state/proxy-secret")).unwrap(), [7; 32]);
}
