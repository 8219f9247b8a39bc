//! Credit: how much of a stream may be handed in, and how one slow side stops the other.

mod driver;

use driver::scene::{STRANGE, Scene};
use driver::{FRONT_DOMAIN, World, config, fake_tls, plain};
use mtproxy_core::config::Config;
use mtproxy_core::fake_tls::RECEIVED_LEN_MAX;
use mtproxy_core::stream::StreamId;
use proptest::prelude::*;

const WINDOW: usize = 10_000;

fn narrow() -> Config {
    Config { relay_window_bytes: WINDOW, ..config() }
}

fn credit(world: &World, stream: StreamId) -> usize {
    world.engine.credit(stream)
}

#[test]
fn a_handshake_may_take_32_kib_in_all() {
    let mut scene = Scene::silent(narrow());
    assert_eq!(credit(&scene.world, scene.client), RECEIVED_LEN_MAX);
    scene.world.say(scene.client, &[0x16, 3, 1]);
    assert_eq!(credit(&scene.world, scene.client), RECEIVED_LEN_MAX - 3);
}

#[test]
fn nothing_is_read_while_dialing_and_resume_comes_with_the_answer() {
    for mut scene in [Scene::dialing_with(narrow(), plain()), Scene::stranger(narrow(), &STRANGE)] {
        let upstream = scene.upstream();
        assert_eq!((credit(&scene.world, scene.client), credit(&scene.world, upstream)), (0, 0));
        scene.world.refuse(upstream);
        assert_eq!((credit(&scene.world, scene.client), credit(&scene.world, upstream)), (0, 0));
        assert_eq!(scene.world.resumed, []);
        scene.world.answer(upstream);
        assert_eq!(scene.world.resumed, [scene.client]);
        assert_eq!((credit(&scene.world, scene.client), credit(&scene.world, upstream)), (WINDOW, WINDOW));
    }
}

#[test]
fn credit_is_the_window_less_what_waits_for_the_other_side() {
    for fronting in [false, true] {
        let mut scene = if fronting {
            let mut scene = Scene::stranger(narrow(), &STRANGE);
            scene.world.answer(scene.upstream());
            scene
        } else {
            Scene::relaying_with(narrow(), plain())
        };
        let (client, upstream) = (scene.client, scene.upstream());
        scene.world.stall(client);
        scene.world.stall(upstream);
        scene.client_says(&[1; 3000]);
        scene.upstream_says(&[2; 500]);
        assert_eq!(credit(&scene.world, client), WINDOW - 3000);
        assert_eq!(credit(&scene.world, upstream), WINDOW - 500);
        scene.client_says(&[1; WINDOW - 3000]);
        assert_eq!(credit(&scene.world, client), 0, "the upstream is slow");
        assert_eq!(credit(&scene.world, upstream), WINDOW - 500, "which is not the client's fault");
        scene.world.drain(upstream, 1);
        assert_eq!(credit(&scene.world, client), 1);
    }
}

#[test]
fn resume_comes_once_when_a_backlog_sinks_through_half_of_the_window() {
    let mut scene = Scene::relaying_with(narrow(), plain());
    let (client, upstream) = (scene.client, scene.upstream());
    scene.world.stall(upstream);
    scene.client_says(&[1; WINDOW]);
    scene.world.resumed.clear();
    scene.world.drain(upstream, WINDOW / 2 - 1);
    assert_eq!(scene.world.resumed, []);
    scene.world.drain(upstream, 1);
    assert_eq!(scene.world.resumed, [client]);
    scene.world.drain(upstream, WINDOW / 2);
    assert_eq!(scene.world.resumed, [client]);
}

#[test]
fn record_headers_count_as_what_waits_for_the_client() {
    let mut scene = Scene::relaying_with(narrow(), fake_tls(FRONT_DOMAIN));
    scene.world.stall(scene.client);
    scene.upstream_says(&[2; 1426]);
    assert_eq!(scene.world.queued_len(scene.client), 1426 + 2 * 5);
    assert_eq!(credit(&scene.world, scene.upstream()), WINDOW - 1426 - 2 * 5);
}

#[test]
fn a_client_that_was_answered_and_a_stranger_in_silence_have_the_window() {
    let (greeted, _) = Scene::greeted();
    assert_eq!(credit(&greeted.world, greeted.client), config().relay_window_bytes);
    let discarding = Scene::discarding();
    assert_eq!(credit(&discarding.world, discarding.client), config().relay_window_bytes);
    assert_eq!(discarding.world.resumed, [discarding.client]);
}

#[test]
fn a_stream_that_is_gone_has_no_credit_and_one_whose_session_is_over_a_last_one() {
    let mut scene = Scene::relaying_with(narrow(), plain());
    scene.world.reset(scene.upstream());
    assert_eq!(credit(&scene.world, scene.upstream()), 0);
    assert_eq!(credit(&scene.world, scene.client), 256 * 1024, "what is still read, in vain");
    scene.world.say(scene.client, &[1; 1000]);
    assert_eq!(credit(&scene.world, scene.client), 256 * 1024 - 1000);
}

#[test]
fn who_was_stopped_is_resumed_when_the_session_is_over() {
    let mut scene = Scene::relaying_with(narrow(), plain());
    let (client, upstream) = (scene.client, scene.upstream());
    scene.world.stall(upstream);
    scene.client_says(&[1; WINDOW]);
    assert_eq!(credit(&scene.world, client), 0);
    scene.world.resumed.clear();
    scene.world.reset(upstream);
    assert_eq!(scene.world.resumed, [client], "to be heard until its FIN");
    assert!(credit(&scene.world, client) > 0);
}

#[test]
fn a_stranger_that_was_stopped_is_resumed_while_the_fronts_reset_waits_behind_what_is_queued_for_it() {
    let mut scene = Scene::stranger(narrow(), &STRANGE);
    let (client, front) = (scene.client, scene.upstream());
    scene.world.answer(front);
    scene.world.stall(client);
    scene.world.stall(front);
    scene.upstream_says(&[2; 500]);
    scene.client_says(&[1; WINDOW]);
    assert_eq!(credit(&scene.world, client), 0);
    scene.world.resumed.clear();
    scene.world.reset(front);
    assert!(credit(&scene.world, client) > 0);
    assert_eq!(scene.world.resumed, [client]);
}

#[test]
fn nobody_who_was_stopped_waits_in_vain_when_a_reload_changes_the_window() {
    for window_after in [WINDOW / 10, WINDOW * 10] {
        let mut scene = Scene::relaying_with(narrow(), plain());
        let (client, upstream) = (scene.client, scene.upstream());
        scene.world.stall(upstream);
        scene.client_says(&[1; WINDOW]);
        scene.world.resumed.clear();
        scene.world.set_config(Config { relay_window_bytes: window_after, ..config() });
        scene.world.drain(upstream, WINDOW);
        assert_eq!(scene.world.resumed, [client], "window {window_after}");
        assert_eq!(credit(&scene.world, client), window_after);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_queue_is_never_longer_than_the_window_and_what_one_input_becomes(
        is_fake_tls: bool, window in 1usize..40_000,
        steps in proptest::collection::vec((0usize..50_000, 0usize..50_000), 1..40),
    ) {
        let secret = if is_fake_tls { fake_tls(FRONT_DOMAIN) } else { plain() };
        let config = Config { relay_window_bytes: window, ..config() };
        let mut scene = Scene::relaying_with(config, secret);
        let (client, upstream) = (scene.client, scene.upstream());
        scene.world.stall(client);
        for (wanted, drained) in steps {
            let len = wanted.min(credit(&scene.world, upstream));
            if len > 0 {
                scene.upstream_says(&vec![3; len]);
                let queued = scene.world.queued_len(client);
                prop_assert!(queued <= window + 5 * len.div_ceil(1425), "{queued} bytes");
            }
            let queued = scene.world.queued_len(client);
            prop_assert_eq!(credit(&scene.world, upstream), window.saturating_sub(queued));
            scene.world.drain(client, drained.min(queued));
        }
    }
}
