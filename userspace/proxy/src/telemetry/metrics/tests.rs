//! The page as a scraper reads it, and the list as the manual has it.

use super::*;
use mtproxy_core::secret::{Secret, SecretKind};
use std::collections::HashSet;
use std::fmt::Write as _;

fn credentials<const N: usize>(names: [&str; N]) -> Credentials {
    Credentials::new(names.map(|name| (name.to_owned(), Secret::new([1; 16], SecretKind::Plain))))
}

const SHARDS: Shards =
    Shards { count: 2, drop_reasons: &["runt", "martian"], steering_exits: &["not_ip", "redirected"] };

/// The table of docs/operations.md, as it should be.
fn documented() -> String {
    let mut table = String::from("| metric | type | label | says |\n|---|---|---|---|\n");
    for metric in all_metrics() {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help).unwrap();
    }
    table
}

#[test]
fn the_operations_manual_has_the_table_of_all_metrics() {
    let manual = include_str!("../../../../../docs/operations.md");
    assert!(manual.contains(&documented()), "docs/operations.md needs this table:\n{}", documented());
}

#[test]
fn a_page_names_each_metric_once_with_help_and_type_before_its_values() {
    let metrics = Metrics::new(2, SHARDS, 10);
    let _ = metrics.secrets(&credentials(["a"]));
    let page = metrics.exposition();
    let mut lines = page.lines().peekable();
    for metric in all_metrics() {
        assert_eq!(lines.next().unwrap(), format!("# HELP {} {}", metric.name, metric.help));
        assert!(lines.next().unwrap().starts_with(&format!("# TYPE {} ", metric.name)));
        let mut values = 0;
        while lines.peek().is_some_and(|line| !line.starts_with('#')) {
            let (series, value) = lines.next().unwrap().rsplit_once(' ').unwrap();
            assert!(series.starts_with(metric.name) && value.parse::<f64>().is_ok(), "{series} {value}");
            values += 1;
        }
        assert!(values > 0, "{}", metric.name);
    }
    assert!(page.ends_with('\n'));
    let names: HashSet<_> = all_metrics().map(|metric| metric.name).collect();
    assert_eq!(names.len(), all_metrics().count());
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    for Metric { name, kind, labels, help, .. } in all_metrics() {
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert!(
            labels.concat().chars().all(|c| c.is_ascii_lowercase()) && !help.contains(['\n', '\\', '|']),
            "{name}"
        );
    }
}

#[test]
fn a_scrape_sums_the_workers() {
    let metrics = Metrics::new(2, Shards::NONE, 10);
    metrics.worker(0).sessions_opened.add(2);
    metrics.worker(1).sessions_opened.add(3);
    metrics.worker(0).sessions_finished.add(1);
    metrics.worker(1).sessions_dropped[DropReason::Idle as usize].add(1);
    metrics.worker(1).authenticated[Mode::Padded as usize].add(4);
    metrics.worker(0).accept_pauses.publish(1);
    metrics.worker(1).accept_pauses.publish(6);
    metrics.worker(1).accept_pauses.publish(7);
    let page = metrics.exposition();
    for line in [
        "mtproxy_sessions_opened_total 5\n",
        "mtproxy_sessions_open 3\n",
        "mtproxy_sessions_dropped_total{reason=\"idle\"} 1\n",
        "mtproxy_authenticated_total{mode=\"padded\"} 4\n",
        "mtproxy_workers 2\n",
        "mtproxy_connections_limit 10\n",
        "mtproxy_accept_pauses_total 8\n",
    ] {
        assert!(page.contains(line), "{line} not in\n{page}");
    }
}

#[test]
fn a_scrape_sums_the_shards_which_are_workers_behind_those_of_epoll() {
    let metrics = Metrics::new(1, SHARDS, 10);
    let [first, second] = [metrics.shard(0), metrics.shard(1)];
    metrics.worker(2).sessions_opened.add(1);
    first.received_packets.publish(4);
    second.received_packets.publish(5);
    second.dropped(1).add(3);
    first.dropped(1).add(4);
    first.frames_free.set(9);
    first.frames_free.set(7);
    second.frames_free.set(2);
    first.show_mode(BoundMode::ZeroCopy);
    second.show_mode(BoundMode::ZeroCopy);
    second.show_mode(BoundMode::Copy);
    metrics.steering()[1].publish(6);
    let page = metrics.exposition();
    for line in [
        "mtproxy_workers 3\n",
        "mtproxy_sessions_opened_total 1\n",
        "mtproxy_xdp_packets_total{direction=\"received\"} 9\n",
        "mtproxy_tcp_dropped_total{reason=\"runt\"} 0\n",
        "mtproxy_tcp_dropped_total{reason=\"martian\"} 7\n",
        "mtproxy_xdp_frames{state=\"free\"} 9\n",
        "mtproxy_xdp_mode{mode=\"zero_copy\"} 1\n",
        "mtproxy_xdp_mode{mode=\"copy\"} 1\n",
        "mtproxy_xdp_mode{mode=\"generic\"} 0\n",
        "mtproxy_steering_total{exit=\"redirected\"} 6\n",
    ] {
        assert!(page.contains(line), "{line} not in\n{page}");
    }
}

#[test]
fn counters_go_on_and_gauges_end_when_shards_are_followed_by_others() {
    let metrics = Metrics::new(1, SHARDS, 10);
    metrics.shard(1).received_packets.publish(5);
    metrics.shard(0).dropped(1).publish(4);
    metrics.shard(1).frames_free.set(2);
    metrics.shard(1).show_mode(BoundMode::Copy);
    metrics.steering()[0].publish(6);
    metrics.worker(2).sessions_opened.add(3);
    metrics.worker(2).sessions_finished.add(3);
    metrics.count_xdp_loss(LossReason::InterfaceGone);
    metrics.renew_shards(0);
    let gone = metrics.exposition();
    metrics.renew_shards(1);
    metrics.shard(0).dropped(1).publish(1);
    metrics.steering()[0].publish(2);
    metrics.worker(1).sessions_opened.add(1);
    metrics.renew_shards(3);
    metrics.shard(1).received_packets.publish(7);
    let back = metrics.exposition();
    for (page, lines) in [
        (
            gone,
            [
                "mtproxy_workers 1\n",
                "mtproxy_xdp_queues 0\n",
                "mtproxy_xdp_lost_total{reason=\"interface_gone\"} 1\n",
                "mtproxy_xdp_packets_total{direction=\"received\"} 5\n",
                "mtproxy_tcp_dropped_total{reason=\"martian\"} 4\n",
                "mtproxy_xdp_frames{state=\"free\"} 0\n",
                "mtproxy_xdp_mode{mode=\"copy\"} 0\n",
                "mtproxy_steering_total{exit=\"not_ip\"} 6\n",
                "mtproxy_sessions_open 0\n",
            ],
        ),
        (
            back,
            [
                "mtproxy_workers 4\n",
                "mtproxy_xdp_queues 3\n",
                "mtproxy_xdp_lost_total{reason=\"interface_gone\"} 1\n",
                "mtproxy_xdp_packets_total{direction=\"received\"} 12\n",
                "mtproxy_tcp_dropped_total{reason=\"martian\"} 5\n",
                "mtproxy_xdp_frames{state=\"free\"} 0\n",
                "mtproxy_sessions_opened_total 4\n",
                "mtproxy_steering_total{exit=\"not_ip\"} 8\n",
                "mtproxy_sessions_open 1\n",
            ],
        ),
    ] {
        for line in lines {
            assert!(page.contains(line), "{line} not in\n{page}");
        }
    }
}

#[test]
fn without_shards_the_page_does_not_mention_their_metrics() {
    let unlabelled = Shards { count: 0, ..SHARDS };
    for shards in [Shards::NONE, unlabelled] {
        let page = Metrics::new(1, shards, 10).exposition();
        for part in ["_xdp_", "_tcp_", "_steering_", "_queue_"] {
            assert!(!page.contains(part), "{part} in\n{page}");
        }
    }
}

#[test]
fn a_secret_counts_on_under_its_name_whatever_its_place_after_a_reload() {
    let metrics = Metrics::new(1, Shards::NONE, 10);
    let before = metrics.secrets(&credentials(["family", "work"]));
    assert_eq!([before[0].name(), before[1].name()], ["family", "work"]);
    before[1].count_authenticated();
    let after = metrics.secrets(&credentials(["work", "guests"]));
    after[0].count_authenticated();
    let page = metrics.exposition();
    for line in ["secret=\"family\"} 0\n", "secret=\"work\"} 2\n", "secret=\"guests\"} 0\n"] {
        let line = format!("mtproxy_authenticated_by_secret_total{{{line}");
        assert!(page.contains(&line), "{line} not in\n{page}");
    }
    assert_eq!(page.matches("by_secret_total{").count(), 3);
}

#[test]
fn a_label_cannot_leave_its_quotation_marks() {
    let metrics = Metrics::new(1, Shards::NONE, 10);
    let _ = metrics.secrets(&credentials(["a\"} 1\n\\b"]));
    let line = "mtproxy_authenticated_by_secret_total{secret=\"a\\\"} 1\\n\\\\b\"} 0\n";
    assert!(metrics.exposition().contains(line), "{}", metrics.exposition());
}

#[test]
fn draining_shows_on_the_page() {
    let metrics = Metrics::new(1, Shards::NONE, 10);
    assert!(metrics.exposition().contains("mtproxy_draining 0\n"));
    metrics.start_draining();
    assert!(metrics.exposition().contains("mtproxy_draining 1\n"));
}
