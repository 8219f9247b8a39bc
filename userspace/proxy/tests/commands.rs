//! The program from outside: what it prints, where, and how it ends. Without root or network.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mtproxy_core::secret::{Secret, SecretKind};

/// Runs the program with an environment that says nothing.
fn mtproxy(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtproxy"));
    command.args(words).env_clear();
    command
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr_of_failure(output: &Output, exit_code: i32) -> String {
    assert_eq!(output.status.code(), Some(exit_code), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory of one test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mtproxy-commands-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
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

fn example() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mtproxy.example.toml").to_str().unwrap().to_owned()
}

#[test]
fn a_new_secret_is_plain_and_another_one_each_time() {
    let one = stdout(&mtproxy(&["secret"]));
    let other = stdout(&mtproxy(&["secret"]));
    assert_eq!(one.trim_end().len(), 32);
    assert_eq!(one.parse::<Secret>().unwrap().kind(), &SecretKind::Plain);
    assert_ne!(one, other);
}

#[test]
fn a_new_secret_for_a_domain_is_fake_tls_in_hex() {
    let text = stdout(&mtproxy(&["secret", "--domain", "example.com"]));
    assert!(text.starts_with("ee") && text.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    assert_eq!(text.parse::<Secret>().unwrap().kind(), &SecretKind::FakeTls("example.com".parse().unwrap()));
}

#[test]
fn links_carry_the_secret_and_a_qr_code_follows() {
    let scratch = Scratch::new("link");
    let secret = "ee00112233445566778899aabbccddeeff6578616d706c652e636f6d";
    let file = format!("@{}", scratch.file("secret", &format!("{secret}\n")));
    let given = stdout(&mtproxy(&["link", "--server", "192.0.2.1", "--port", "443", "--secret", secret]));
    let from_file = stdout(&mtproxy(&["link", "--server", "192.0.2.1", "--port", "443", "--secret", &file]));
    assert_eq!(given, from_file);
    let query = format!("proxy?server=192.0.2.1&port=443&secret={secret}");
    let mut lines = given.lines();
    assert_eq!(lines.next().unwrap(), format!("tg://{query}"));
    assert_eq!(lines.next().unwrap(), format!("https://t.me/{query}"));
    let code: Vec<&str> = lines.skip_while(|line| line.is_empty()).collect();
    assert!(code.len() > 20 && code.iter().all(|line| line.chars().all(|c| " ▀▄█".contains(c))));
}

#[test]
fn a_wrong_server_or_secret_is_named_by_its_option() {
    let link = |server, secret| mtproxy(&["link", "--server", server, "--port", "1", "--secret", secret]);
    let plain = "00112233445566778899aabbccddeeff";
    assert!(
        stderr_of_failure(&link("http://a", plain), 1)
            .starts_with("error: --server: found \"http://a\"; expected")
    );
    let message = stderr_of_failure(&link("a.example", "001122334455667788"), 1);
    assert!(
        message.starts_with("error: --secret: found 9 bytes; expected 16") && !message.contains("3344"),
        "{message}"
    );
}

#[test]
fn the_example_passes_the_check_and_each_setting_is_explained() {
    let text = stdout(&command(&["check", "--config", &example()]).env("HOME", "/home/x").output().unwrap());
    assert!(text.contains("docs/mtproxy.example.toml is valid"));
    for key in [
        "listen",
        "secrets",
        "domains",
        "datapath",
        "timeouts.drain_seconds",
        "limits.replay_entries",
        "xdp.deny",
    ] {
        assert!(text.lines().any(|line| line.starts_with(key)), "{key} not in\n{text}");
    }
}

#[test]
fn a_file_with_mistakes_fails_the_check_with_line_and_nearest_key() {
    let scratch = Scratch::new("check");
    let file = scratch.file("f.toml", "workers = 2\n[timeouts]\nidle_second = 1\n");
    let message = stderr_of_failure(&mtproxy(&["check", "--config", &file]), 1);
    assert_eq!(
        message,
        format!(
            "error: {file}:3: found the unknown key \"timeouts.idle_second\"; did you mean \
            \"idle_seconds\"?\n"
        )
    );
    let missing = stderr_of_failure(&mtproxy(&["check", "--config", "/nonexistent.toml"]), 1);
    assert!(missing.contains("/nonexistent.toml") && missing.contains("check the path"), "{missing}");
}

#[test]
fn checking_makes_no_secret() {
    let scratch = Scratch::new("check-state");
    let state = scratch.0.join("state");
    let file = scratch.file("f.toml", &format!("state_dir = {state:?}\n"));
    assert!(stdout(&mtproxy(&["check", "--config", &file])).contains("that the first start generates"));
    assert!(!state.exists());
}

#[test]
fn words_that_are_no_command_line_end_with_2_and_the_usage() {
    for words in [&["run", "--lisen", "x"][..], &["run", "--workers", "0"], &["serve"], &[]] {
        let message = stderr_of_failure(&mtproxy(words), 2);
        assert!(message.contains("--help") || message.contains("Usage"), "{message}");
    }
}

#[test]
fn settings_that_cannot_be_are_all_said_before_anything_starts() {
    let output = mtproxy(&[
        "run",
        "--secret",
        "0011",
        "--datapath",
        "xdp",
        "--listen",
        "127.0.0.1:1",
        "--listen",
        "127.0.0.1:1",
    ]);
    let message = stderr_of_failure(&output, 1);
    for part in [
        "--secret: secret 1: found 2 bytes",
        "--datapath: found the datapath xdp without the interface that it is for; expected --interface NAME",
        "--listen: found the address 127.0.0.1:1 for the second time",
    ] {
        assert!(message.contains(part), "{part} not in\n{message}");
    }
}

#[test]
fn a_generated_secret_is_kept_private_and_used_again() {
    let scratch = Scratch::new("state");
    let state = scratch.0.join("state");
    // A taken metrics port ends the start right after the secret was looked for.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let start = || {
        let mut run = command(&["run", "--listen", "127.0.0.1:0", "--metrics", &port]);
        let message = stderr_of_failure(&run.env("STATE_DIRECTORY", &state).output().unwrap(), 1);
        assert!(message.contains(&port) && message.contains("--metrics"), "{message}");
        (message, std::fs::read_to_string(state.join("secret")).unwrap())
    };
    let (first_message, first) = start();
    let (second_message, second) = start();
    assert_eq!(first, second);
    assert!(first_message.contains("made a new one") && second_message.contains("made earlier"));
    assert!(!first_message.contains(first.trim_end()), "the secret is not in the log");
    let mode = std::fs::metadata(state.join("secret")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn a_user_that_does_not_exist_ends_the_start() {
    let secret = "00112233445566778899aabbccddeeff";
    let message = stderr_of_failure(
        &mtproxy(&["run", "--listen", "127.0.0.1:0", "--secret", secret, "--user", "no-such-user-here"]),
        1,
    );
    assert!(message.contains("found no user \"no-such-user-here\""), "{message}");
}

#[test]
fn a_capture_where_nobody_serves_says_what_was_expected_and_writes_no_packets_to_a_terminal_or_file() {
    let scratch = Scratch::new("capture");
    let file = scratch.0.join("packets").to_str().unwrap().to_owned();
    let output = mtproxy(&["capture", "no-such-interface", "--write", &file]);
    let said = stderr_of_failure(&output, 1);
    assert!(said.contains("found no proxy that serves \"no-such-interface\" over AF_XDP"), "{said}");
    assert!(said.contains("tcpdump"), "{said}");
    assert!(!Path::new(&file).exists());
    for words in [["--one-in", "0"], ["--payload", "1601"], ["--address", "192.0.2.1"]] {
        let output = mtproxy(&[&["capture", "eth0"][..], &words].concat());
        let said = stderr_of_failure(&output, 2);
        assert!(said.contains(words[1]), "{said}");
    }
}

#[test]
fn top_without_a_proxy_to_look_at_says_so() {
    let nobody = u32::MAX.to_string();
    for (words, expected) in
        [(["--pid", nobody.as_str()], "at process 4294967295"), (["--at", "127.0.0.1:1"], "at 127.0.0.1:1")]
    {
        let said = stderr_of_failure(&mtproxy(&[&["top", "--once"][..], &words].concat()), 1);
        assert!(said.contains("found no metrics") && said.contains(expected), "{said}");
    }
}
