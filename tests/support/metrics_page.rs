//! What a running proxy shows of itself over HTTP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::socket::{Pace, Socket};

/// Status line and body of the answer to a GET.
///
/// # Panics
/// If nobody answers, or it is not HTTP.
#[must_use]
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut socket = Socket::connect(address);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.send(request.as_bytes(), Pace::WHOLE);
    let (answer, _) = socket.read_to_end();
    let answer = String::from_utf8(answer).expect("metrics are text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP head ends with an empty line");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// A sample of now, named with its labels; `None` if there is none of that name.
#[must_use]
#[track_caller]
pub fn sample(address: SocketAddr, name: &str) -> Option<u64> {
    let (_, page) = get(address, "/metrics");
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Waits until a sample, named with its labels, is at least `least`.
///
/// # Panics
/// If it is not within `patience`.
#[track_caller]
pub fn wait_for_sample(address: SocketAddr, name: &str, least: u64, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let value = sample(address, name);
        if value.is_some_and(|value| value >= least) {
            return;
        }
        assert!(Instant::now() < deadline, "awaiting {name} {least} for {patience:?}: found {value:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
