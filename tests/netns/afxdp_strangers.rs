//! Whoever is no client of ours, over AF_XDP: sees the front's own bytes, wherever the front is.

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_tests::cast::Mode;
use mtproxy_tests::test_client::{fresh_random, unix_seconds};
use mtproxy_tests::{ClientCodec, ClientOptions, HelloFault, Pace};

use crate::afxdp_scene::{AfxdpScene, Bound, Setting};

const HTTP_GET: &[u8] = b"GET / HTTP/1.1\r\nHost: front.example\r\n\r\n";

/// First flights of strangers, of every kind that is told by different means.
fn strangers() -> Vec<Vec<u8>> {
    let opening = |options| ClientCodec::new(options, fresh_random()).opening();
    let mut browser = Mode::Ee.options();
    browser.hello.fault = HelloFault::Browser;
    let mut wrong_hmac = Mode::Ee.options();
    wrong_hmac.hello.fault = HelloFault::WrongHmac;
    let wrong_key = Secret::new([0xbb; 16], SecretKind::Padded);
    vec![
        HTTP_GET.to_vec(),
        opening(browser),
        opening(wrong_hmac),
        opening(ClientOptions::new(wrong_key, DcId(2), unix_seconds())),
    ]
}

fn everybody_is_fronted(scene: &AfxdpScene) {
    for v6 in [false, true] {
        for first_flight in strangers() {
            for pace in [Pace::WHOLE, Pace::pieces(7)] {
                scene.assert_fronted(&first_flight, pace, v6);
            }
        }
    }
    scene.client(Mode::Ee, false).ask_for_pq();
    scene.wait_for_sample("mtproxy_steering_total{exit=\"redirected_syn\"}", 16);
}

#[test]
fn strangers_see_a_front_that_is_reached_over_frames() {
    for bound in Bound::ALL {
        let Some(scene) = Setting::bound(bound).start() else { return };
        everybody_is_fronted(&scene);
        scene.finish();
    }
}

/// The shards' own sockets carry the front's leg: frames do not lead to loopback.
#[test]
fn strangers_see_a_front_on_the_proxys_own_loopback() {
    for bound in Bound::ALL {
        let setting = Setting { has_front_at_home: true, ..Setting::bound(bound) };
        let Some(scene) = setting.start() else { return };
        everybody_is_fronted(&scene);
        scene.finish();
    }
}
