//! Screens of made-up proxies, whose pages are written by the same code as a real one's.

use mtproxy_core::error::DropReason;

use super::*;
use crate::telemetry::metrics::{BoundMode, LossReason, Metrics, Shards};

const SHARDS: Shards = Shards {
    count: 2,
    drop_reasons: &["runt", "out_of_window", "no_connection"],
    steering_exits: &["not_ip", "redirected", "kernel_stale"],
};

fn page(metrics: &Metrics) -> Page {
    Page::parse(&metrics.exposition())
}

fn start(metrics: &Metrics) -> u64 {
    metrics.started().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Two seconds in the life of a busy proxy with one epoll worker and two queues.
fn busy() -> (Page, Page, u64) {
    let metrics = Metrics::new(1, SHARDS, 9900);
    let [zero, one] = [metrics.shard(0), metrics.shard(1)];
    zero.show_mode(BoundMode::ZeroCopy);
    one.show_mode(BoundMode::ZeroCopy);
    metrics.count_xdp_loss(LossReason::InterfaceGone);
    one.dropped(1).publish(40);
    zero.dropped(0).publish(1_234_567);
    let before = page(&metrics);
    for (worker, sessions) in [(0, 2), (1, 600), (2, 30)] {
        let block = metrics.worker(worker);
        block.sessions_opened.add(sessions);
        block.authenticated[0].add(sessions / 2);
        block.received_bytes[0].publish(10_000 * sessions);
        block.received_bytes[1].publish(1_000_000 * sessions);
        block.awake_microseconds.publish(3000 * sessions);
    }
    metrics.worker(1).sessions_dropped[DropReason::Idle as usize].add(7);
    zero.received_packets.publish(2_000_000);
    zero.sent_packets.publish(3_000_001);
    zero.received_bytes.publish(128_000_000);
    zero.sent_bytes.publish(4_500_000_000);
    zero.connections_open.set(1200);
    zero.connections_half_open.set(3);
    zero.connections_time_wait.set(44);
    zero.retransmitted_segments.publish(9);
    zero.busy_turns.publish(750);
    zero.idle_turns.publish(250);
    zero.wake_ups.publish(500);
    one.dropped(1).publish(46);
    for (block, free) in [(&zero, 9000), (&one, 14_336)] {
        block.frames_free.set(free);
        block.frames_fill.set(2048);
        block.frames_ours.set(16_384 - 2048 - free);
    }
    one.kernel_fill_ring_empty.publish(1);
    metrics.steering()[1].publish(2_000_400);
    metrics.steering()[0].publish(60);
    let now = page(&metrics);
    (before, now, start(&metrics) + 90_061)
}

#[test]
fn a_busy_proxy_looks_like_the_golden_screen() {
    let (before, now, at) = busy();
    let screen = view(&before, &now, Duration::from_secs(2), at, Size::UNBOUNDED);
    let golden = include_str!("golden.txt").replace("VERSION", env!("CARGO_PKG_VERSION"));
    assert_eq!(screen, golden, "the screen is now:\n{screen}");
}

#[test]
fn without_shards_there_are_workers_and_nothing_of_queues() {
    let metrics = Metrics::new(2, Shards::NONE, 10);
    let before = page(&metrics);
    metrics.start_draining();
    let screen = view(&before, &page(&metrics), Duration::from_secs(1), start(&metrics), Size::UNBOUNDED);
    assert!(
        screen.starts_with("mtproxy ") && screen.contains(" 0 clients of 10 at most, draining\n"),
        "{screen}"
    );
    assert!(screen.contains("\nworker-0 ") && screen.contains("\nworker-1 "), "{screen}");
    assert!(
        !screen.contains("queue") && !screen.contains("AF_XDP") && !screen.contains("dropped for"),
        "{screen}"
    );
}

#[test]
fn an_interface_that_is_lost_is_said_and_its_queues_are_away() {
    let metrics = Metrics::new(1, SHARDS, 10);
    metrics.count_xdp_loss(LossReason::QueuesChanged);
    metrics.renew_shards(0);
    let now = page(&metrics);
    let screen = view(&now, &now, Duration::from_secs(1), start(&metrics), Size::UNBOUNDED);
    assert!(
        screen.contains("\nAF_XDP is away, clients are served over epoll; lost: queues_changed 1\n"),
        "{screen}"
    );
    assert!(screen.lines().any(|line| line.starts_with("0 ") && line.contains("away")), "{screen}");
}

#[test]
fn counters_of_a_proxy_that_was_started_again_are_no_negative_rates() {
    let (old, _, at) = busy();
    let fresh = page(&Metrics::new(1, SHARDS, 9900));
    let screen = view(&old, &fresh, Duration::from_secs(1), at, Size::UNBOUNDED);
    let rates = screen.lines().filter(|line| line.starts_with("0 ") || line.starts_with("shard-0 "));
    for line in rates.clone() {
        assert!(
            line.split_whitespace().skip(1).all(|cell| ["0", "-", "%", "away"].contains(&cell)),
            "{screen}"
        );
    }
    assert_eq!(rates.count(), 3);
}

#[test]
fn a_small_terminal_shows_what_fits_and_says_how_much_does_not() {
    let (before, now, at) = busy();
    let whole = view(&before, &now, Duration::from_secs(2), at, Size::UNBOUNDED);
    let all = whole.lines().count();
    let lines_at = |lines| view(&before, &now, Duration::from_secs(2), at, Size { lines, columns: 40 });
    assert_eq!(lines_at(all + 1).lines().count(), all, "a line is left for the cursor");
    let cut = lines_at(10);
    assert_eq!(cut.lines().count(), 9);
    assert!(cut.lines().all(|line| line.chars().count() <= 40), "{cut}");
    let last = cut.lines().last().unwrap();
    assert!(last.starts_with(&format!("... {} lines more", all - 8)), "{last}");
}
