//! Fake-TLS hellos of every size, however they are cut on their way.

use mtproxy_tests::{DcMode, Pace, TestClient};

use crate::scene::{Mode, Scene};

const HELLO_SIZES: [usize; 4] = [517, 1800, 4096, 16_000];

#[test]
fn a_hello_of_any_size_is_answered_however_it_is_cut() {
    let scene = Scene::start(DcMode::Packets);
    for size in HELLO_SIZES {
        for pace in [Pace::pieces(1), Pace::pieces(300), Pace::WHOLE] {
            let options = Mode::Ee.options().with_hello_len(size);
            let mut client = TestClient::connect_paced(scene.proxy.address(), options, pace);
            client.ask_for_pq();
        }
    }
    assert_eq!(scene.front.accepted(), 0);
}

#[test]
fn a_hello_cut_into_several_tls_records_is_answered() {
    let scene = Scene::start(DcMode::Packets);
    for size in HELLO_SIZES {
        for (records, pace) in [(2, Pace::WHOLE), (5, Pace::pieces(100)), (40, Pace::WHOLE)] {
            let mut options = Mode::Ee.options().with_hello_len(size);
            options.hello.records = records;
            let mut client = TestClient::connect_paced(scene.proxy.address(), options, pace);
            client.ask_for_pq();
        }
    }
    assert_eq!(scene.front.accepted(), 0);
}

#[test]
fn both_sides_of_the_size_limits_go_where_they_belong() {
    let scene = Scene::start(DcMode::Packets);
    // Record bodies of 512 and 16384 bytes are the shortest and longest that are ours.
    for size in [5 + 512, 5 + 16_384] {
        let options = Mode::Ee.options().with_hello_len(size);
        TestClient::connect(scene.proxy.address(), options).ask_for_pq();
    }
    for size in [400, 5 + 511, 5 + 16_385] {
        let hello = crate::scene::opening(Mode::Ee.options().with_hello_len(size));
        scene.assert_fronted(&hello, Pace::WHOLE);
    }
}

#[test]
fn the_servers_flight_varies_by_no_more_than_a_real_sites() {
    let scene = Scene::start(DcMode::Packets);
    let size = || scene.client(Mode::Ee).codec().flight_application_len().expect("a server's flight");
    let sizes: Vec<usize> = (0..12).map(|_| size()).collect();
    // protocol.md section 6.10: one size, with a jitter of one byte either way.
    let (least, most) = (sizes.iter().min().expect("sizes"), sizes.iter().max().expect("sizes"));
    assert!(*least > 500 && most - least <= 2, "{sizes:?}");
}

#[test]
fn records_toward_the_client_are_no_longer_than_tls_allows() {
    let scene = Scene::start(DcMode::Packets);
    let mut client = scene.client(Mode::Ee);
    client.download(4 << 20);
    let records = client.codec().records().expect("a fake-TLS client counts records");
    assert!(records.body_len_max() <= (1 << 14) + 256, "{}", records.body_len_max());
}
