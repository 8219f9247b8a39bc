//! What a relay costs the heap once it stands: nothing.
//!
//! Counted for this thread alone, from the first input to the last action, `sent` and timeouts included.

mod driver;

use std::time::Duration;

use driver::scene::Scene;
use driver::{FRONT_DOMAIN, fake_tls, padded, plain};
use mtproxy_core::action::{Action, Actions};
use mtproxy_core::engine::Input;
use mtproxy_core::stream::StreamId;
use mtproxy_core::time::{Instant, Now, UnixSeconds};

const MESSAGES: usize = 10_000;
/// How many are encoded at a time, so that the test itself needs little memory.
const BATCH: usize = 500;

/// As a driver does it: one input, its actions in order, and word of what was sent.
fn relay(scene: &mut Scene, now: Now, from: StreamId, bytes: &mut [u8], actions: &mut Actions) -> usize {
    let engine = &mut scene.world.engine;
    engine.handle(now, Input::Bytes(from, bytes), actions);
    let mut queued = None;
    let mut len = 0;
    for action in actions.as_slice() {
        if let Action::Write { to, range } | Action::Relay { to, range } = action {
            queued = Some(*to);
            len += range.len();
        }
    }
    actions.clear();
    if let Some(to) = queued {
        engine.sent(now, to, len, actions);
        actions.clear();
    }
    engine.time_out(now, actions);
    actions.clear();
    len
}

/// Messages of every size up to 16 KiB, both ways, all encoded beforehand.
fn messages(scene: &mut Scene, count: usize) -> Vec<(StreamId, Vec<u8>)> {
    let (client, upstream) = (scene.client, scene.upstream());
    let mut messages = Vec::with_capacity(2 * count);
    for index in 0..count {
        let payload = vec![7; 1 + index * 37 % 16_384];
        messages.push((client, scene.encode(&payload)));
        messages.push((upstream, scene.upstream_encode(&payload)));
    }
    messages
}

fn allocations_of_a_relay(mut scene: Scene) -> u64 {
    let mut actions = Actions::new();
    let mut elapsed = Duration::from_secs(1);
    let mut counted = 0;
    for batch in 0..=MESSAGES / BATCH {
        let mut messages = messages(&mut scene, BATCH);
        let allocated = allocation_counter::measure(|| {
            for (from, bytes) in &mut messages {
                elapsed += Duration::from_millis(50);
                let instant = Instant::after_origin(elapsed);
                let relayed =
                    relay(&mut scene, Now { instant, unix: UnixSeconds(0) }, *from, bytes, &mut actions);
                assert!(relayed > 0);
            }
        });
        // The first batch may still make room for the longest list of actions there is.
        if batch > 0 {
            counted += allocated.count_total;
        }
    }
    counted
}

#[test]
fn ten_thousand_messages_each_way_through_a_relay_allocate_nothing() {
    for secret in [plain(), padded(), fake_tls(FRONT_DOMAIN)] {
        let kind = format!("{:?}", secret.kind());
        assert_eq!(allocations_of_a_relay(Scene::relaying(secret)), 0, "{kind}");
    }
}

#[test]
fn what_the_driver_passes_on_itself_allocates_nothing_either() {
    let mut scene = Scene::relaying(plain());
    let (client, upstream, now) = (scene.client, scene.upstream(), scene.world.now());
    let mut actions = Actions::new();
    let counted = allocation_counter::measure(|| {
        for _ in 0..MESSAGES {
            scene.world.engine.handle(now, Input::PassedOn(upstream, 1000), &mut actions);
            scene.world.engine.sent(now, client, 1000, &mut actions);
            actions.clear();
        }
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(vec![1, 2, 3]))).count_total, 1);
}
