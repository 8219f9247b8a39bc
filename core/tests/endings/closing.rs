//! Once a session is over but for what is queued, and the end of all of them.

use mtproxy_core::config::Timeouts;

use super::driver::scene::Scene;
use super::driver::{Told, config, plain};

/// A relay whose data centre has reset while the client takes nothing of what is queued for it.
fn closing() -> Scene {
    let mut scene = Scene::relaying(plain());
    scene.world.stall(scene.client);
    scene.upstream_says(b"last words");
    scene.world.reset(scene.upstream());
    assert_eq!((scene.client_told(), scene.world.outcome()), (Told::Nothing, None));
    scene
}

#[test]
fn a_peer_that_takes_what_is_queued_in_time_is_closed() {
    let mut scene = closing();
    scene.world.drain(scene.client, 9);
    assert_eq!(scene.client_told(), Told::Nothing);
    scene.world.wait(Timeouts::default().linger / 2);
    scene.world.drain(scene.client, 1);
    assert_eq!(scene.client_heard(), b"last words");
    scene.is_as_documented("a_peer_that_takes_what_is_queued_in_time_is_closed");
}

#[test]
fn a_peer_that_does_not_take_what_is_queued_in_time_is_reset() {
    let mut scene = closing();
    scene.world.drain(scene.client, 9);
    scene.times_out_after(Timeouts::default().linger);
    scene.is_as_documented("a_peer_that_does_not_take_what_is_queued_in_time_is_reset");
}

#[test]
fn a_session_that_both_sides_finished_but_one_did_not_take_in_time_is_unflushed() {
    let mut scene = Scene::relaying(plain());
    scene.world.stall(scene.client);
    scene.upstream_says(b"last words");
    scene.world.fin(scene.upstream());
    scene.world.fin(scene.client);
    scene.times_out_after(Timeouts::default().linger);
    scene.is_as_documented("a_session_that_both_sides_finished_but_one_did_not_take_in_time_is_unflushed");
}

#[test]
fn a_peer_that_resets_while_its_queue_is_flushed_does_not_keep_the_other_from_its_bytes() {
    let mut scene = Scene::relaying(plain());
    scene.world.stall(scene.client);
    scene.world.stall(scene.upstream());
    scene.upstream_says(b"never taken");
    scene.client_says(b"taken late");
    scene.world.fin(scene.upstream());
    scene.world.fin(scene.client);
    scene.world.reset(scene.client);
    scene.goes_on();
    scene.world.unstall(scene.upstream());
    assert_eq!(scene.upstream_heard(), b"taken late");
    scene.is_as_documented(
        "a_peer_that_resets_while_its_queue_is_flushed_does_not_keep_the_other_from_its_bytes",
    );
}

#[test]
fn what_a_peer_still_says_while_its_queue_is_flushed_changes_nothing() {
    let mut scene = Scene::relaying(plain());
    scene.world.stall(scene.client);
    scene.upstream_says(b"last words");
    scene.world.fin(scene.upstream());
    scene.world.reset(scene.upstream());
    scene.world.say(scene.client, b"to nobody");
    scene.world.fin(scene.client);
    scene.goes_on();
    scene.world.unstall(scene.client);
    scene.is_as_documented("what_a_peer_still_says_while_its_queue_is_flushed_changes_nothing");
}

#[test]
fn a_peer_that_has_everything_is_heard_until_it_ends_its_side() {
    let mut scene = closing();
    scene.world.unstall(scene.client);
    assert_eq!((scene.client_told(), scene.client_heard()), (Told::Fin, b"last words".to_vec()));
    scene.world.say(scene.client, b"to nobody");
    scene.goes_on();
    scene.world.fin(scene.client);
    scene.is_as_documented("a_peer_that_has_everything_is_heard_until_it_ends_its_side");
}

#[test]
fn a_peer_that_has_everything_and_never_ends_its_side_is_closed_in_time() {
    let mut scene = closing();
    scene.world.unstall(scene.client);
    scene.times_out_after(Timeouts::default().linger);
    scene.is_as_documented("a_peer_that_has_everything_and_never_ends_its_side_is_closed_in_time");
}

#[test]
fn a_peer_that_has_everything_and_talks_on_without_end_is_closed_in_time() {
    let mut scene = closing();
    scene.world.unstall(scene.client);
    let kib = vec![0; 1024];
    for _ in 0..256 {
        assert_ne!(scene.world.engine.credit(scene.client), 0);
        scene.world.say(scene.client, &kib);
    }
    assert_eq!(scene.world.engine.credit(scene.client), 0);
    scene.goes_on();
    scene.times_out_after(Timeouts::default().linger);
    scene.is_as_documented("a_peer_that_has_everything_and_talks_on_without_end_is_closed_in_time");
}

#[test]
fn stopping_resets_both_sides_of_every_session() {
    let queued = || {
        let mut scene = Scene::relaying(plain());
        scene.world.stall(scene.client);
        scene.upstream_says(b"never taken");
        scene
    };
    for mut scene in [queued(), Scene::relaying(plain()), Scene::dialing(plain())] {
        scene.world.stop();
        scene.is_as_documented("stopping_resets_both_sides_of_every_session");
    }
}

#[test]
fn stopping_resets_a_client_that_has_no_upstream_yet() {
    let (greeted, _) = Scene::greeted();
    for mut scene in [Scene::silent(config()), Scene::stranger(config(), b"undecided"), greeted] {
        scene.world.stop();
        scene.is_as_documented("stopping_resets_a_client_that_has_no_upstream_yet");
    }
}

#[test]
fn stopping_does_not_wait_for_a_session_that_is_being_flushed() {
    let mut scene = closing();
    scene.world.stop();
    scene.is_as_documented("stopping_does_not_wait_for_a_session_that_is_being_flushed");
}
