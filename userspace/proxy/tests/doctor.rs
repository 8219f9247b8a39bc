//! `mtproxy doctor` as a program: what it says of a host of loopback, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;

/// Output and exit code.
fn doctor(words: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtproxy"));
    let output = command.arg("doctor").args(words).env_clear().env("HOME", "/nonexistent").output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const SECRET: &str = "00112233445566778899aabbccddeeff";

#[test]
fn a_host_without_complaint_is_told_what_is_good_and_a_secret_is_never_shown() {
    let listen = format!("127.0.0.1:{}", free_port());
    let (text, code) = doctor(&["--offline", "--datapath", "epoll", "--listen", &listen, "--secret", SECRET]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("good    {listen} is free to listen on")), "{text}");
    assert!(text.contains("risky   a secret stands on the command line"), "{text}");
    assert!(text.contains("note    the network was not asked"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
}

#[test]
fn a_port_that_somebody_has_is_risky_and_an_address_of_others_is_broken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (text, code) = doctor(&["--offline", "--listen", &address, "--secret", SECRET]);
    assert!(code == Some(0) && text.contains(&format!("somebody listens on {address}")), "{text}");
    let (text, code) = doctor(&["--offline", "--listen", "192.0.2.1:8443", "--secret", SECRET]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("BROKEN  192.0.2.1:8443 is no address of this host"), "{text}");
}

#[test]
fn a_data_centre_that_answers_is_counted_and_a_front_without_tls_is_the_first_sentence() {
    let dc = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let front_address = front.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = front.accept() {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let domain = format!("front.example={front_address}");
    let dc_option = format!("2={}", dc.local_addr().unwrap());
    let listen = format!("127.0.0.1:{}", free_port());
    let words = ["--listen", &listen, "--secret", SECRET, "--domain", &domain, "--dc", &dc_option];
    let (text, code) = doctor(&words);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("BROKEN  front.example at 127.0.0.1:"), "{text}");
    assert!(text.contains("speaks no TLS with us"), "{text}");
    assert!(text.contains("data centres answer over IPv4"), "{text}");
}

#[test]
fn a_configuration_that_is_wrong_is_the_whole_diagnosis() {
    let (text, code) = doctor(&["--config", "/nonexistent/mtproxy.toml"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("BROKEN  ") && text.contains("/nonexistent/mtproxy.toml"), "{text}");
    assert!(text.ends_with("1 broken, 0 risky, 0 note, 0 good\n"), "{text}");
}
