//! While the data centre or the front is dialled.

use std::time::Duration;

use mtproxy_core::config::{Config, Front, Fronts, Timeouts};
use mtproxy_core::dc::{DcId, DcTable, PreferIp};
use mtproxy_core::event::{DialError, What};

use super::driver::scene::{STRANGE, Scene};
use super::driver::{DC_ADDRESSES, FRONT_DOMAIN, Told, address, config, plain};

#[test]
fn client_fin_while_dialing_waits_behind_what_is_queued() {
    let mut scene = Scene::dialing(plain());
    scene.world.fin(scene.client);
    scene.world.refuse(scene.upstream());
    scene.world.answer(scene.upstream());
    assert_eq!(scene.world.heard(scene.upstream()).len(), 64);
    scene.upstream_says(b"good-bye");
    assert_eq!(scene.client_heard(), b"good-bye");
    scene.is_as_documented("client_fin_while_dialing_waits_behind_what_is_queued");
}

#[test]
fn client_reset_while_dialing_gives_the_dial_up() {
    let mut scene = Scene::dialing(plain());
    scene.world.reset(scene.client);
    scene.is_as_documented("client_reset_while_dialing_gives_the_dial_up");
}

#[test]
fn a_refused_dial_tries_the_next_address_with_everything_that_was_queued() {
    let mut scene = Scene::member(config(), plain());
    let first = [scene.opening(), scene.encode(b"impatient")].concat();
    scene.world.say(scene.client, &first);
    let upstream = scene.upstream();
    scene.world.refuse(upstream);
    assert_eq!(scene.upstream(), upstream, "the same stream");
    assert_eq!(scene.world.dialled(upstream), DC_ADDRESSES.map(address));
    scene.is_as_documented("a_refused_dial_tries_the_next_address_with_everything_that_was_queued");
    let why = DialError::Refused;
    assert!(scene.world.has_reported(What::DialFailed { address: address(DC_ADDRESSES[0]), why }));
    scene.world.answer(upstream);
    assert_eq!(scene.upstream_heard(), b"impatient");
}

#[test]
fn a_dial_without_an_answer_tries_the_next_address_in_time() {
    let mut scene = Scene::dialing(plain());
    scene.times_out_after(Timeouts::default().dial);
    assert_eq!(scene.world.dialled(scene.upstream()), DC_ADDRESSES.map(address));
    let why = DialError::TimedOut;
    assert!(scene.world.has_reported(What::DialFailed { address: address(DC_ADDRESSES[0]), why }));
    scene.is_as_documented("a_dial_without_an_answer_tries_the_next_address_in_time");
    scene.world.answer(scene.upstream());
    scene.client_says(b"at last");
    assert_eq!(scene.upstream_heard(), b"at last");
}

#[test]
fn a_client_is_closed_when_no_address_of_its_dc_answers() {
    let mut scene = Scene::dialing(plain());
    scene.world.wait(Timeouts::default().dial / 2);
    scene.world.refuse(scene.upstream());
    scene.times_out_after(Timeouts::default().dial);
    scene.is_as_documented("a_client_is_closed_when_no_address_of_its_dc_answers");
}

#[test]
fn a_stranger_is_closed_when_no_address_of_the_front_answers() {
    let mut scene = Scene::stranger(config(), &STRANGE);
    scene.world.refuse(scene.upstream());
    scene.world.refuse(scene.upstream());
    scene.is_as_documented("a_stranger_is_closed_when_no_address_of_the_front_answers");
}

#[test]
fn a_stranger_is_closed_when_the_front_has_no_address() {
    let domain = FRONT_DOMAIN.parse().unwrap();
    let unresolved = Front { domain, addresses: Vec::new(), flight_len: 2000 };
    let config = Config { fronts: Fronts::new([unresolved]), ..config() };
    let mut scene = Scene::stranger(config, &STRANGE);
    scene.is_as_documented("a_stranger_is_closed_when_the_front_has_no_address");
}

#[test]
fn a_client_is_closed_when_its_dc_has_no_address() {
    let mut dc_table = DcTable::builtin(PreferIp::V4);
    dc_table.set_default(DcId(999));
    let config = Config { dc_table, ..config() };
    let options = mtproxy_tests::ClientOptions::new(plain(), DcId(77), 0);
    let mut scene = Scene::member_with(config, options);
    let opening = scene.opening();
    scene.world.say(scene.client, &opening);
    scene.is_as_documented("a_client_is_closed_when_its_dc_has_no_address");
}

#[test]
fn an_address_that_failed_lately_is_tried_last_by_the_next_session() {
    let mut scene = Scene::dialing(plain());
    scene.world.refuse(scene.upstream());
    scene.world.answer(scene.upstream());
    scene.is_as_documented("an_address_that_failed_lately_is_tried_last_by_the_next_session");
    let [failed, good] = DC_ADDRESSES.map(address);
    let dialled_by_another = |scene: &mut Scene| {
        let frame = mtproxy_core::obfuscated2::ComposedInitFrame::random(
            &mut mtproxy_core::random::Random::from_seed([5; 32]),
            Some(plain().key()),
            mtproxy_core::transport::Transport::Abridged,
            super::driver::DC,
        );
        let client = scene.world.connect();
        scene.world.say(client, &frame.wire);
        let upstream = scene.upstream();
        assert_eq!(scene.world.told(upstream), Told::Dialled(1));
        scene.world.dialled(upstream)[0]
    };
    assert_eq!(dialled_by_another(&mut scene), good);
    scene.world.answer(scene.upstream());
    scene.world.wait(Duration::from_secs(60));
    assert_eq!(dialled_by_another(&mut scene), failed, "a minute later it is trusted again");
}
