//! Between a stranger and the front, or silence.

use mtproxy_core::config::{RELAY_WINDOW_BYTES_DEFAULT, Timeouts};

use super::driver::Told;
use super::driver::scene::Scene;

#[test]
fn client_fin_while_fronting_reaches_the_front_behind_what_is_queued() {
    let mut scene = Scene::fronting();
    scene.world.stall(scene.upstream());
    scene.client_says(b"GET");
    scene.world.fin(scene.client);
    assert_eq!(scene.upstream_told(), Told::Nothing);
    scene.world.unstall(scene.upstream());
    assert!(scene.upstream_heard().ends_with(b"GET"));
    scene.upstream_says(b"page");
    assert_eq!(scene.client_heard(), b"page");
    scene.goes_on();
    scene.is_as_documented("client_fin_while_fronting_reaches_the_front_behind_what_is_queued");
}

#[test]
fn front_fin_while_fronting_reaches_the_client_behind_what_is_queued() {
    let mut scene = Scene::fronting();
    scene.world.stall(scene.client);
    scene.upstream_says(b"page");
    scene.world.fin(scene.upstream());
    assert_eq!(scene.client_told(), Told::Nothing);
    scene.world.unstall(scene.client);
    assert_eq!(scene.client_heard(), b"page");
    scene.client_says(b"thanks");
    assert!(scene.upstream_heard().ends_with(b"thanks"));
    scene.goes_on();
    scene.is_as_documented("front_fin_while_fronting_reaches_the_client_behind_what_is_queued");
}

#[test]
fn fin_from_stranger_and_front_closes_each_behind_what_is_queued() {
    let mut scene = Scene::fronting();
    scene.world.stall(scene.client);
    scene.upstream_says(b"page");
    scene.world.fin(scene.client);
    scene.world.fin(scene.upstream());
    assert_eq!((scene.client_told(), scene.upstream_told()), (Told::Nothing, Told::Closed));
    scene.world.unstall(scene.client);
    assert_eq!(scene.client_heard(), b"page");
    scene.is_as_documented("fin_from_stranger_and_front_closes_each_behind_what_is_queued");
}

#[test]
fn a_strangers_reset_is_passed_on_to_the_front_behind_what_is_queued() {
    let mut scene = Scene::fronting();
    scene.world.stall(scene.upstream());
    scene.client_says(b"GET");
    scene.world.reset(scene.client);
    assert_eq!(scene.upstream_told(), Told::Nothing);
    scene.world.unstall(scene.upstream());
    assert!(scene.upstream_heard().ends_with(b"GET"));
    scene.is_as_documented("a_strangers_reset_is_passed_on_to_the_front_behind_what_is_queued");
}

#[test]
fn the_fronts_reset_is_passed_on_to_the_stranger_behind_what_is_queued() {
    let mut scene = Scene::fronting();
    scene.world.stall(scene.client);
    scene.upstream_says(b"half a pa");
    scene.world.reset(scene.upstream());
    assert_eq!(scene.client_told(), Told::Nothing);
    scene.world.unstall(scene.client);
    assert_eq!(scene.client_heard(), b"half a pa");
    scene.is_as_documented("the_fronts_reset_is_passed_on_to_the_stranger_behind_what_is_queued");
}

#[test]
fn fronting_without_a_byte_closes_both_sides_in_time() {
    let mut scene = Scene::fronting();
    scene.world.wait(2 * Timeouts::default().idle);
    scene.is_as_documented("fronting_without_a_byte_closes_both_sides_in_time");
}

#[test]
fn a_stranger_in_silence_that_ends_its_side_is_closed() {
    let mut scene = Scene::discarding();
    scene.world.fin(scene.client);
    scene.is_as_documented("a_stranger_in_silence_that_ends_its_side_is_closed");
}

#[test]
fn a_stranger_in_silence_that_resets_is_forgotten() {
    let mut scene = Scene::discarding();
    scene.world.reset(scene.client);
    scene.is_as_documented("a_stranger_in_silence_that_resets_is_forgotten");
}

#[test]
fn a_stranger_in_silence_that_falls_silent_is_closed_in_time() {
    let mut scene = Scene::discarding();
    scene.world.wait(2 * Timeouts::default().idle);
    scene.is_as_documented("a_stranger_in_silence_that_falls_silent_is_closed_in_time");
}

#[test]
fn a_stranger_in_silence_is_closed_behind_two_to_the_28_bytes() {
    const LIMIT: usize = 1 << 28;
    let mut scene = Scene::discarding();
    let piece = vec![0; RELAY_WINDOW_BYTES_DEFAULT];
    for _ in 0..LIMIT / piece.len() {
        scene.world.say(scene.client, &piece);
    }
    scene.goes_on();
    scene.world.say(scene.client, &[0]);
    scene.is_as_documented("a_stranger_in_silence_is_closed_behind_two_to_the_28_bytes");
}
