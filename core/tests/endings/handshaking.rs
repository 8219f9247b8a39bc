//! Before authentication, and between an answered hello and its init frame.

use std::time::Duration;

use mtproxy_core::config::Timeouts;
use mtproxy_core::error::DropReason;
use mtproxy_core::transport::Transport;
use mtproxy_tests::ClientOptions;

use super::driver::scene::{STRANGE, Scene};
use super::driver::{
    DC, FRONT_ADDRESSES, FRONT_DOMAIN, Told, UNIX_SECONDS, address, config, fake_tls, frontless,
};

/// The start of a handshake that is still undecided: ten bytes that could become an init frame.
const UNDECIDED: &[u8] = b"0123456789";

#[test]
fn a_client_that_comes_and_leaves_without_a_byte_is_closed_quietly() {
    let mut scene = Scene::silent(config());
    scene.world.fin(scene.client);
    scene.is_as_documented("a_client_that_comes_and_leaves_without_a_byte_is_closed_quietly");
    assert_eq!(scene.world.upstream(), None, "the front is left in peace");
}

#[test]
fn a_stranger_that_ends_its_side_reaches_the_front_with_every_byte_and_its_fin() {
    let mut scene = Scene::stranger(config(), UNDECIDED);
    scene.world.fin(scene.client);
    scene.world.answer(scene.upstream());
    assert_eq!(scene.upstream_heard(), UNDECIDED);
    scene.upstream_says(b"400 Bad Request");
    assert_eq!(scene.client_heard(), b"400 Bad Request");
    scene.is_as_documented("a_stranger_that_ends_its_side_reaches_the_front_with_every_byte_and_its_fin");
}

#[test]
fn a_stranger_that_ends_its_side_is_closed_where_there_is_no_front() {
    let mut scene = Scene::stranger(frontless(), UNDECIDED);
    scene.world.fin(scene.client);
    scene.is_as_documented("a_stranger_that_ends_its_side_is_closed_where_there_is_no_front");
}

#[test]
fn a_client_that_resets_during_its_handshake_is_forgotten() {
    let mut scene = Scene::stranger(config(), UNDECIDED);
    scene.world.reset(scene.client);
    scene.is_as_documented("a_client_that_resets_during_its_handshake_is_forgotten");
}

#[test]
fn a_stranger_is_fronted_with_every_byte_it_has_sent() {
    let mut scene = Scene::stranger(config(), &STRANGE[..40]);
    assert_eq!(scene.world.upstream(), None, "40 bytes may still become an init frame");
    scene.world.say(scene.client, &STRANGE[40..]);
    assert_eq!(scene.world.dialled(scene.upstream()), [address(FRONT_ADDRESSES[0])]);
    scene.world.answer(scene.upstream());
    scene.client_says(b"and more");
    assert_eq!(scene.upstream_heard(), [&STRANGE[..], b"and more"].concat());
    scene.is_as_documented("a_stranger_is_fronted_with_every_byte_it_has_sent");
}

#[test]
fn a_stranger_is_met_with_silence_where_there_is_no_front() {
    let mut scene = Scene::stranger(frontless(), &STRANGE);
    scene.client_says(&[7; 1000]);
    assert_eq!(scene.client_heard(), b"");
    scene.is_as_documented("a_stranger_is_met_with_silence_where_there_is_no_front");
}

#[test]
fn a_client_that_says_nothing_is_fronted_in_time() {
    let mut scene = Scene::silent(config());
    scene.times_out_after(Timeouts::default().first_byte);
    scene.world.answer(scene.upstream());
    scene.upstream_says(b"408 Request Timeout");
    assert_eq!(scene.client_heard(), b"408 Request Timeout");
    assert_eq!(scene.upstream_heard(), b"");
    scene.is_as_documented("a_client_that_says_nothing_is_fronted_in_time");
}

#[test]
fn a_client_that_says_nothing_is_closed_in_time_where_there_is_no_front() {
    let mut scene = Scene::silent(frontless());
    scene.times_out_after(Timeouts::default().first_byte);
    scene.is_as_documented("a_client_that_says_nothing_is_closed_in_time_where_there_is_no_front");
}

#[test]
fn a_slow_handshake_is_fronted_with_its_bytes() {
    let mut scene = Scene::stranger(config(), &UNDECIDED[..1]);
    for byte in &UNDECIDED[1..] {
        scene.world.wait(Duration::from_millis(900));
        scene.world.say(scene.client, &[*byte]);
    }
    assert_eq!(scene.world.upstream(), None);
    scene.times_out_after(Timeouts::default().handshake - 9 * Duration::from_millis(900));
    scene.world.answer(scene.upstream());
    assert_eq!(scene.upstream_heard(), UNDECIDED);
    scene.is_as_documented("a_slow_handshake_is_fronted_with_its_bytes");
}

#[test]
fn a_slow_handshake_is_closed_where_there_is_no_front() {
    let mut scene = Scene::stranger(frontless(), UNDECIDED);
    scene.times_out_after(Timeouts::default().handshake);
    scene.is_as_documented("a_slow_handshake_is_closed_where_there_is_no_front");
}

#[test]
fn a_greeted_client_that_ends_its_side_is_closed() {
    let (mut scene, answer) = Scene::greeted();
    scene.world.say(scene.client, &answer[..30]);
    scene.world.fin(scene.client);
    scene.is_as_documented("a_greeted_client_that_ends_its_side_is_closed");
}

#[test]
fn a_greeted_client_that_resets_is_forgotten() {
    let (mut scene, _) = Scene::greeted();
    scene.world.reset(scene.client);
    scene.is_as_documented("a_greeted_client_that_resets_is_forgotten");
}

#[test]
fn a_greeted_client_that_is_slow_is_closed() {
    let (mut scene, answer) = Scene::greeted();
    scene.world.wait(Duration::from_secs(4));
    scene.world.say(scene.client, &answer[..30]);
    scene.times_out_after(Timeouts::default().handshake - Duration::from_secs(4));
    scene.is_as_documented("a_greeted_client_that_is_slow_is_closed");
}

#[test]
fn a_greeted_client_without_a_change_cipher_spec_is_closed() {
    let (mut scene, mut answer) = Scene::greeted();
    answer[5] ^= 1;
    scene.world.say(scene.client, &answer[..5]);
    scene.goes_on();
    scene.world.say(scene.client, &answer[5..6]);
    scene.is_as_documented("a_greeted_client_without_a_change_cipher_spec_is_closed");
}

#[test]
fn a_greeted_client_with_another_record_than_application_data_is_closed() {
    let (mut scene, mut answer) = Scene::greeted();
    answer[6] = 0x16;
    scene.world.say(scene.client, &answer[..7]);
    scene.is_as_documented("a_greeted_client_with_another_record_than_application_data_is_closed");
}

#[test]
fn a_greeted_client_whose_init_frame_its_secret_does_not_open_is_closed() {
    let (mut scene, mut answer) = Scene::greeted();
    answer[6 + 5 + 8] ^= 1;
    scene.world.say(scene.client, &answer);
    scene.is_as_documented("a_greeted_client_whose_init_frame_its_secret_does_not_open_is_closed");
}

#[test]
fn a_greeted_client_whose_inner_transport_is_not_padded_is_closed() {
    for transport in [Transport::Abridged, Transport::Intermediate] {
        let options = ClientOptions::new(fake_tls(FRONT_DOMAIN), DC, UNIX_SECONDS).with_transport(transport);
        let (mut scene, answer) = Scene::greeted_with(options);
        scene.world.say(scene.client, &answer);
        scene.is_as_documented("a_greeted_client_whose_inner_transport_is_not_padded_is_closed");
    }
}

#[test]
fn a_greeted_client_that_spoils_its_first_record_after_the_init_frame_is_closed_before_the_dial_ends() {
    let (mut scene, answer) = Scene::greeted();
    scene.world.say(scene.client, &[&answer[..], &[0x15, 3, 3]].concat());
    scene.is_as_documented(
        "a_greeted_client_that_spoils_its_first_record_after_the_init_frame_is_closed_before_the_dial_ends",
    );
}

#[test]
fn a_greeted_client_that_misbehaves_still_gets_the_flight_that_is_queued() {
    let mut scene = Scene::member(config(), fake_tls(FRONT_DOMAIN));
    let hello = scene.opening();
    scene.world.stall(scene.client);
    scene.world.say(scene.client, &hello);
    scene.world.say(scene.client, b"?");
    assert_eq!((scene.world.outcome(), scene.client_told()), (None, Told::Nothing));
    scene.world.unstall(scene.client);
    assert!(scene.world.heard(scene.client).len() > 2000);
    scene.ended(Err(DropReason::Misbehaved));
    scene.is_as_documented("a_greeted_client_that_misbehaves_still_gets_the_flight_that_is_queued");
}
