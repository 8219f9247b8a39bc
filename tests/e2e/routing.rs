//! Which data centre a client gets: its own, that of the absolute value, or the default.

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::SecretKind;
use mtproxy_tests::socket::refusing_address;
use mtproxy_tests::{DcMode, FakeDc, ProxyCommand, TestClient};

use crate::scene::{Mode, loopback_v4, secret};

/// Has a client ask for data centre `id`, and says which of `centres` it got.
#[track_caller]
fn reached(proxy: std::net::SocketAddr, id: i16, centres: &[&FakeDc]) -> usize {
    let before: Vec<u64> = centres.iter().map(|dc| dc.accepted()).collect();
    let mut options = Mode::Intermediate.options();
    options.dc = DcId(id);
    TestClient::connect(proxy, options).ask_for_pq();
    let reached = centres.iter().zip(before).position(|(dc, before)| dc.accepted() > before);
    let index = reached.expect("whoever answered has accepted a connection");
    let (told, _) = centres[index].sessions().last().and_then(|s| s.report.init).expect("an init frame");
    assert_eq!(told, DcId(id), "the data centre is told the id that the client asked for");
    index
}

#[test]
fn an_id_without_an_entry_goes_to_its_absolute_value_and_then_to_the_default() {
    let [two, four, media] = [(); 3].map(|()| FakeDc::start(DcMode::Packets));
    let proxy = ProxyCommand::new()
        .secret(&secret(SecretKind::Plain))
        .dc(2, two.address())
        .dc(4, four.address())
        .dc(-2, media.address())
        .start();
    let centres = [&two, &four, &media];
    for (id, expected) in [(2, 0), (4, 1), (-4, 1), (-2, 2), (999, 0), (0, 0), (-999, 0)] {
        assert_eq!(reached(proxy.address(), id, &centres), expected, "data centre {id}");
    }
}

#[test]
fn the_second_address_is_used_when_the_first_refuses() {
    let dc = FakeDc::start(DcMode::Packets);
    let proxy = ProxyCommand::new()
        .secret(&secret(SecretKind::Plain))
        .dc(2, refusing_address(loopback_v4()))
        .dc(2, dc.address())
        .start();
    for mode in Mode::ALL.into_iter().filter(|mode| *mode != Mode::Ee) {
        TestClient::connect(proxy.address(), mode.options()).ask_for_pq();
    }
}

#[test]
fn the_third_address_is_used_when_two_refuse() {
    let dc = FakeDc::start(DcMode::Packets);
    let proxy = ProxyCommand::new()
        .secret(&secret(SecretKind::Plain))
        .dc(2, refusing_address(loopback_v4()))
        .dc(2, refusing_address(loopback_v4()))
        .dc(2, dc.address())
        .start();
    for mode in Mode::ALL.into_iter().filter(|mode| *mode != Mode::Ee) {
        let mut client = TestClient::connect(proxy.address(), mode.options());
        client.ask_for_pq();
        client.download(200_000);
    }
}

#[test]
fn a_data_centre_of_the_other_family_is_reached() {
    let dc = FakeDc::start_v6(DcMode::Packets);
    let proxy = ProxyCommand::new().secret(&secret(SecretKind::Plain)).dc(2, dc.address()).start();
    TestClient::connect(proxy.address(), Mode::Dd.options()).ask_for_pq();
}

#[test]
fn a_client_whose_data_centre_is_down_is_closed() {
    let nobody = refusing_address(loopback_v4());
    let proxy = ProxyCommand::new().secret(&secret(SecretKind::Plain)).dc(2, nobody).start();
    let mut client = TestClient::connect(proxy.address(), Mode::Dd.options());
    assert_eq!(client.read_to_end().0, []);
}
