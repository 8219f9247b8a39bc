//! What an operator sees from outside: the metrics and the health of a running proxy.

use std::time::Instant;

use mtproxy_core::secret::SecretKind;
use mtproxy_tests::metrics_page::get;
use mtproxy_tests::socket::{PATIENCE, refusing_address};
use mtproxy_tests::{DcMode, FrontManner, Pace};

use crate::scene::{Mode, Scene, loopback_v4, secret};

/// Prometheus' own names for what every process has begin with `process_`.
fn is_ours_or_standard(name: &str) -> bool {
    name.starts_with("mtproxy_") || name.starts_with("process_")
}

/// The sum of all samples of a metric.
fn sum(body: &str, name: &str) -> f64 {
    let samples = body.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn metrics_are_prometheus_text_that_moves_and_health_is_ok() {
    let metrics = refusing_address(loopback_v4());
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).option("--metrics", &metrics.to_string())
    });
    let (status, _) = get(metrics, "/healthz");
    assert!(status.contains(" 200 "), "{status}");
    let (status, before) = get(metrics, "/metrics");
    assert!(status.contains(" 200 "), "{status}");
    let names: Vec<&str> =
        before.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(!names.is_empty() && names.iter().all(|name| is_ours_or_standard(name)), "{names:?}");

    let mut client = scene.client(Mode::Ee);
    client.download(1 << 20);
    scene.assert_fronted(b"GET / HTTP/1.1\r\n\r\n", Pace::WHOLE);
    let (_, after) = get(metrics, "/metrics");
    let moved: Vec<&str> = names.into_iter().filter(|name| sum(&after, name) > sum(&before, name)).collect();
    assert!(moved.len() >= 3, "only {moved:?} moved:\n{after}");
    let (status, _) = get(metrics, "/nothing");
    assert!(status.contains(" 404 "), "{status}");
}

#[test]
fn what_an_open_session_has_received_and_whose_secret_it_showed_is_on_the_page() {
    let metrics = refusing_address(loopback_v4());
    let key_hex = secret(SecretKind::Plain).reveal();
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        let secrets = format!("[[secrets]]\nname = \"family\"\nsecret = \"{key_hex}\"\n");
        command.config(&secrets).option("--metrics", &metrics.to_string()).option("--log", "debug")
    });
    let mut client = scene.client(Mode::Ee);
    client.download(1 << 20);
    let shown = "mtproxy_authenticated_by_secret_total{secret=\"family\"} 1\n";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, page) = get(metrics, "/metrics");
        let received = page.lines().find(|line| line.contains("received_bytes_total{from=\"upstream\"}"));
        let received = received.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        if page.contains(shown) && received.is_some_and(|bytes| bytes > 1 << 20) {
            break;
        }
        assert!(Instant::now() < deadline, "{shown} and a megabyte not in\n{page}");
    }
    assert!(
        scene.proxy.stderr().iter().any(|line| line.contains("authenticated") && line.contains("family"))
    );
    drop(client);
}

#[test]
fn no_secret_and_no_address_of_a_client_is_in_the_metrics_or_the_log() {
    let metrics = refusing_address(loopback_v4());
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        let command = command.secret(&secret(SecretKind::Plain)).option("--metrics", &metrics.to_string());
        command.option("--log", "trace")
    });
    let mut client = scene.client(Mode::Ee);
    client.ask_for_pq();
    let client_address = client.socket().local_address().to_string();
    scene.assert_fronted(b"GET /private HTTP/1.1\r\n\r\n", Pace::WHOLE);
    drop(client);
    scene.dc.wait_until("the end of the session", |s| s[0].closed);
    let (_, metrics) = get(metrics, "/metrics");
    let said = scene.proxy.stderr().join("\n") + &metrics;
    let key_hex = secret(SecretKind::Plain).reveal();
    for private in [key_hex.as_str(), &client_address, "private"] {
        assert!(!said.contains(private), "{private} appears in:\n{said}");
    }
}
