//! Between an app and its data centre.

use std::time::Duration;

use mtproxy_core::config::Timeouts;

use super::driver::scene::Scene;
use super::driver::{FRONT_DOMAIN, Told, fake_tls, padded, plain};

/// One relay of each kind.
fn relays() -> [Scene; 3] {
    [plain(), padded(), fake_tls(FRONT_DOMAIN)].map(Scene::relaying)
}

#[test]
fn client_fin_while_relaying_reaches_the_dc_behind_what_is_queued() {
    for mut scene in relays() {
        scene.world.stall(scene.upstream());
        scene.client_says(b"last words");
        scene.world.fin(scene.client);
        assert_eq!(scene.upstream_told(), Told::Nothing);
        scene.world.unstall(scene.upstream());
        assert_eq!(scene.upstream_heard(), b"last words");
        scene.upstream_says(b"the other direction is open");
        assert_eq!(scene.client_heard(), b"the other direction is open");
        scene.goes_on();
        scene.is_as_documented("client_fin_while_relaying_reaches_the_dc_behind_what_is_queued");
    }
}

#[test]
fn dc_fin_while_relaying_reaches_the_client_behind_what_is_queued() {
    for mut scene in relays() {
        scene.world.stall(scene.client);
        scene.upstream_says(b"last words");
        scene.world.fin(scene.upstream());
        assert_eq!(scene.client_told(), Told::Nothing);
        scene.world.unstall(scene.client);
        assert_eq!(scene.client_heard(), b"last words");
        scene.client_says(b"the other direction is open");
        assert_eq!(scene.upstream_heard(), b"the other direction is open");
        scene.goes_on();
        scene.is_as_documented("dc_fin_while_relaying_reaches_the_client_behind_what_is_queued");
    }
}

#[test]
fn fin_from_both_sides_closes_each_behind_what_is_queued() {
    for mut scene in relays() {
        scene.world.stall(scene.client);
        scene.world.stall(scene.upstream());
        scene.client_says(b"farewell, data centre");
        scene.upstream_says(b"farewell, client");
        scene.world.fin(scene.upstream());
        scene.world.fin(scene.client);
        assert_eq!((scene.client_told(), scene.upstream_told()), (Told::Nothing, Told::Nothing));
        scene.world.unstall(scene.client);
        assert_eq!((scene.client_told(), scene.upstream_told()), (Told::Closed, Told::Nothing));
        scene.world.unstall(scene.upstream());
        assert_eq!(scene.upstream_heard(), b"farewell, data centre");
        assert_eq!(scene.client_heard(), b"farewell, client");
        scene.is_as_documented("fin_from_both_sides_closes_each_behind_what_is_queued");
    }
}

#[test]
fn client_reset_while_relaying_closes_the_dc_behind_what_is_queued() {
    for mut scene in relays() {
        scene.world.stall(scene.upstream());
        scene.client_says(b"last words");
        scene.world.reset(scene.client);
        assert_eq!(scene.upstream_told(), Told::Nothing);
        scene.world.unstall(scene.upstream());
        assert_eq!(scene.upstream_heard(), b"last words");
        scene.is_as_documented("client_reset_while_relaying_closes_the_dc_behind_what_is_queued");
    }
}

#[test]
fn dc_reset_while_relaying_closes_the_client_behind_what_is_queued() {
    for mut scene in relays() {
        scene.world.stall(scene.client);
        scene.upstream_says(b"last words");
        scene.world.reset(scene.upstream());
        assert_eq!(scene.client_told(), Told::Nothing);
        scene.world.unstall(scene.client);
        assert_eq!(scene.client_heard(), b"last words");
        scene.is_as_documented("dc_reset_while_relaying_closes_the_client_behind_what_is_queued");
    }
}

#[test]
fn a_bad_record_header_closes_both_sides_after_the_good_records_before_it() {
    let mut scene = Scene::relaying(fake_tls(FRONT_DOMAIN));
    let mut wire = scene.encode(b"good record");
    wire.extend([0x17, 0x03, 0x02]);
    scene.world.say(scene.client, &wire);
    assert_eq!(scene.upstream_heard(), b"good record");
    scene.is_as_documented("a_bad_record_header_closes_both_sides_after_the_good_records_before_it");
}

#[test]
fn a_relay_without_a_byte_closes_both_sides_in_time() {
    for mut scene in relays() {
        let idle = Timeouts::default().idle;
        scene.world.wait(idle / 2);
        scene.client_says(b"still here");
        scene.world.wait(idle - Duration::from_millis(1));
        scene.goes_on();
        scene.world.wait(idle / 8 + Duration::from_millis(1));
        scene.is_as_documented("a_relay_without_a_byte_closes_both_sides_in_time");
    }
}

#[test]
fn a_half_closed_relay_goes_idle_too() {
    for mut scene in relays() {
        scene.world.fin(scene.upstream());
        scene.client_says(b"into the void");
        scene.world.wait(2 * Timeouts::default().idle);
        scene.is_as_documented("a_half_closed_relay_goes_idle_too");
    }
}
