//! A proxy's life from outside: ready, link, page, reload, drain, end. Loopback only.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const SECRET: &str = "00112233445566778899aabbccddeeff";
/// For anything that should happen at once; generous, since machines that test are busy.
const SOON: Duration = Duration::from_secs(30);

/// A running proxy with its standard error, line by line. Killed when dropped.
struct Proxy {
    child: Child,
    lines: Receiver<String>,
    seen: String,
}

impl Proxy {
    fn start(words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mtproxy"));
        command.arg("run").args(words).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, seen: String::new() }
    }

    /// Waits for a line that contains `words`.
    fn expect_line(&mut self, words: &str) -> String {
        let deadline = Instant::now() + SOON;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push_str(&line);
            self.seen.push('\n');
            if line.contains(words) {
                return line;
            }
        }
        panic!("no line with {words:?} in\n{}", self.seen);
    }

    /// Waits until clients are accepted, and says where.
    fn ready(&mut self) -> SocketAddr {
        let line = self.expect_line("ready");
        let last_word = line.trim_end_matches(['"', '}']).rsplit(' ').next().unwrap();
        last_word.parse().unwrap_or_else(|_| panic!("an address should end the line {line:?}"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("still running after {SOON:?}\n{}", self.seen);
    }

    fn stdout(&mut self) -> String {
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory of one test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mtproxy-life-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A port that was free a moment ago.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const HERE: &[&str] = &["--listen", "127.0.0.1:0", "--workers", "1", "--secret", SECRET];

#[test]
fn without_clients_the_first_signal_ends_it_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut proxy = Proxy::start(HERE);
        proxy.ready();
        proxy.signal(signal);
        assert_eq!(proxy.exit_code(), Some(0));
    }
}

#[test]
fn while_draining_health_turns_nobody_is_accepted_and_a_second_signal_ends_it_with_1() {
    let metrics = free_port();
    let mut proxy = Proxy::start(&[HERE, &["--metrics", &metrics]].concat());
    let address = proxy.ready();
    assert!(get(&metrics, "/healthz").ends_with("\r\n\r\nok\n"));
    let client = TcpStream::connect(address).unwrap();
    let deadline = Instant::now() + SOON;
    while !get(&metrics, "/metrics").contains("mtproxy_sessions_open 1\n") {
        assert!(Instant::now() < deadline, "the client is never counted");
    }
    proxy.signal(Signal::TERM);
    proxy.expect_line("draining");
    assert!(get(&metrics, "/healthz").starts_with("HTTP/1.1 503 "));
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(), Some(1));
    drop(client);
}

#[test]
fn the_page_has_the_limit_and_every_named_secret_also_one_that_a_reload_brings() {
    let scratch = Scratch::new("names");
    let metrics = free_port();
    let content = format!(
        "listen = [\"127.0.0.1:0\"]\nworkers = 2\nmetrics = \"{metrics}\"\n\
        [limits]\nconnections = 77\n[[secrets]]\nname = \"family\"\nsecret = \"{SECRET}\"\n"
    );
    let file = scratch.write("f.toml", &content);
    let mut proxy = Proxy::start(&["--config", &file]);
    proxy.ready();
    let count_of = |name| format!("mtproxy_authenticated_by_secret_total{{secret=\"{name}\"}} 0\n");
    let page = get(&metrics, "/metrics");
    assert!(page.contains(&count_of("family")) && !page.contains("guests"), "{page}");
    assert!(page.contains("mtproxy_connections_limit 77\n"), "{page}");
    scratch.write("f.toml", &format!("{content}[[secrets]]\nname = \"guests\"\nsecret = \"dd{SECRET}\"\n"));
    proxy.signal(Signal::HUP);
    proxy.expect_line("reloaded");
    let deadline = Instant::now() + SOON;
    while !get(&metrics, "/metrics").contains(&count_of("guests")) {
        assert!(Instant::now() < deadline, "the new secret is never listed");
    }
}

#[test]
fn the_grace_period_is_the_configured_one() {
    let scratch = Scratch::new("grace");
    let file = scratch.write("f.toml", "[timeouts]\ndrain_seconds = 0\n");
    let mut proxy = Proxy::start(&[HERE, &["--config", &file]].concat());
    let client = TcpStream::connect(proxy.ready()).unwrap();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(), Some(0));
    drop(client);
}

#[test]
fn the_ready_line_comes_whatever_the_filter_and_in_the_chosen_format() {
    let mut quiet = Proxy::start(&[HERE, &["--log", "off"]].concat());
    quiet.ready();
    assert_eq!(quiet.seen.lines().count(), 1, "{}", quiet.seen);
    let mut json = Proxy::start(&[HERE, &["--log-format", "json"]].concat());
    json.expect_line("ready");
    assert!(json.seen.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{}", json.seen);
}

#[test]
fn the_link_is_printed_unless_the_secret_was_on_the_command_line_or_a_journal_would_keep_it() {
    let scratch = Scratch::new("link");
    let file = scratch.write(
        "f.toml",
        &format!(
            "listen = [\"127.0.0.1:0\"]\nworkers = 1\n[[secrets]]\nname = \"a\"\nsecret = \"{SECRET}\"\n"
        ),
    );
    let stdout_of = |mut proxy: Proxy| {
        let address = proxy.ready();
        proxy.signal(Signal::TERM);
        assert_eq!(proxy.exit_code(), Some(0));
        assert!(!proxy.seen.contains(SECRET), "{}", proxy.seen);
        (address, proxy.stdout())
    };
    let (address, printed) = stdout_of(Proxy::start(&["--config", &file]));
    assert_eq!(
        printed,
        format!("tg://proxy?server=127.0.0.1&port={}&secret={SECRET}  # a\n", address.port())
    );
    let (_, printed) = stdout_of(Proxy::start(HERE));
    assert_eq!(printed, "");
}

#[test]
fn a_hangup_reads_the_file_again_and_mistakes_in_it_change_nothing() {
    let scratch = Scratch::new("reload");
    let content = format!("listen = [\"127.0.0.1:0\"]\nworkers = 1\n[[secrets]]\nsecret = \"{SECRET}\"\n");
    let file = scratch.write("f.toml", &content);
    let mut proxy = Proxy::start(&["--config", &file]);
    proxy.ready();
    scratch.write("f.toml", &format!("{content}[[domain]]\nname = \"a.example\"\n"));
    proxy.signal(Signal::HUP);
    proxy.expect_line("f.toml:5: found the unknown key \"domain\"; did you mean \"domains\"?");
    proxy.expect_line("reload refused");
    scratch.write(
        "f.toml",
        &content
            .replace("workers = 1", "workers = 2")
            .replace("[[", "[[domains]]\nname = \"a.example\"\naddress = \"127.0.0.1:9\"\n[["),
    );
    proxy.signal(Signal::HUP);
    assert!(proxy.expect_line("take effect at the next restart").contains("workers"));
    assert!(proxy.expect_line("reloaded").contains("domains=1"));
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exit_code(), Some(0));
}

#[test]
fn an_address_that_is_not_this_hosts_is_named_with_what_to_do() {
    let mut proxy = Proxy::start(&["--listen", "192.0.2.1:8443", "--secret", SECRET]);
    let line = proxy.expect_line("192.0.2.1:8443");
    assert!(line.contains("not one of this host's") && line.contains("--listen"), "{line}");
    assert_eq!(proxy.exit_code(), Some(1));
}

#[test]
fn a_front_that_is_the_proxy_itself_is_refused_and_said() {
    let port = free_port();
    let domain = format!("loop.example={port}");
    let mut proxy =
        Proxy::start(&["--listen", &port, "--workers", "1", "--secret", SECRET, "--domain", &domain]);
    proxy.expect_line("found a front that is this proxy itself");
    proxy.ready();
}

/// Wake-ups of all threads so far, by their voluntary context switches.
fn wake_ups(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::io::Result<std::fs::DirEntry>| -> u64 {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse().unwrap()
    };
    tasks.map(of_task).sum()
}

#[test]
fn an_idle_proxy_sleeps() {
    let mut proxy = Proxy::start(&[HERE, &["--metrics", &free_port()]].concat());
    proxy.ready();
    std::thread::sleep(Duration::from_millis(500));
    let before = wake_ups(proxy.child.id());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(wake_ups(proxy.child.id()), before);
}

#[test]
fn top_shows_a_running_proxy_by_its_number_and_by_its_metrics() {
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut proxy = Proxy::start(&[
        "--listen",
        "127.0.0.1:0",
        "--secret",
        SECRET,
        "--workers",
        "2",
        "--metrics",
        &metrics,
    ]);
    let address = proxy.ready();
    let _stranger = TcpStream::connect(address).unwrap();
    let pid = proxy.child.id().to_string();
    for words in [["--pid", pid.as_str()], ["--at", metrics.as_str()]] {
        let mut top = Command::new(env!("CARGO_BIN_EXE_mtproxy"));
        let output = top.args(["top", "--once"]).args(words).env_clear().output().unwrap();
        let screen = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{screen}{}", String::from_utf8_lossy(&output.stderr));
        assert!(screen.contains(", 1 clients of "), "{screen}");
        let workers: Vec<&str> = screen.lines().filter(|line| line.starts_with("worker-")).collect();
        assert_eq!(workers.len(), 2, "{screen}");
        assert!(workers.iter().all(|line| line.ends_with(" 0 %")), "they sleep: {screen}");
        assert!(!screen.contains("queue"), "{screen}");
    }
}
