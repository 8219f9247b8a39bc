//! What each kind of secret admits, and that everything else is a stranger.

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_core::transport::Transport;
use mtproxy_tests::test_client::unix_seconds;
use mtproxy_tests::{
    ClientOptions, DcMode, FrontManner, FrontSite, Pace, ProxyCommand, ReadEnd, Socket, TestClient,
};

use crate::scene::{DOMAIN, KEY, Mode, Scene, assert_fronted, fake_tls, opening, secret};

fn scene_with(kind: SecretKind) -> Scene {
    Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| command.secret(&secret(kind)))
}

#[test]
fn a_dd_secret_admits_dd_and_nothing_else() {
    let scene = scene_with(SecretKind::Padded);
    scene.client(Mode::Dd).ask_for_pq();
    for mode in [Mode::Abridged, Mode::Intermediate, Mode::Ee] {
        scene.assert_fronted(&opening(mode.options()), Pace::WHOLE);
    }
    assert_eq!(scene.dc.accepted(), 1);
}

#[test]
fn an_ee_secret_admits_its_own_domain_and_nothing_else() {
    let scene = scene_with(fake_tls(DOMAIN));
    scene.client(Mode::Ee).ask_for_pq();
    for mode in [Mode::Abridged, Mode::Intermediate, Mode::Dd] {
        scene.assert_fronted(&opening(mode.options()), Pace::WHOLE);
    }
    assert_eq!(scene.dc.accepted(), 1);
}

#[test]
fn a_bare_secret_admits_ee_for_every_domain_and_a_domains_own_secret_only_for_that() {
    let fronts = [FrontManner::AnswersAtOnce; 2].map(FrontSite::start);
    let dc = mtproxy_tests::FakeDc::start(DcMode::Packets);
    let bare = Secret::new([1; 16], SecretKind::Plain);
    let proxy = ProxyCommand::new()
        .domain("first.example", fronts[0].address())
        .domain("second.example", fronts[1].address())
        .secret(&bare)
        .secret(&secret(fake_tls("second.example")))
        .dc(2, dc.address())
        .start();
    let options =
        |key, domain| ClientOptions::new(Secret::new(key, fake_tls(domain)), DcId(2), unix_seconds());
    for domain in ["first.example", "second.example"] {
        TestClient::connect(proxy.address(), options([1; 16], domain)).ask_for_pq();
    }
    TestClient::connect(proxy.address(), options(KEY, "second.example")).ask_for_pq();
    // Each stranger meets the front it greeted, and the first one if it greeted nobody's.
    for (key, domain, front) in
        [(KEY, "first.example", 0), ([9; 16], "second.example", 1), ([1; 16], "third.example", 0)]
    {
        let hello = opening(options(key, domain));
        assert_fronted(Socket::connect(proxy.address()), &hello, Pace::WHOLE, &fronts[front]);
    }
    assert_eq!(dc.accepted(), 3);
}

#[test]
fn hundreds_of_secrets_admit_each_of_their_clients() {
    let key = |n: u16| -> [u8; 16] { std::array::from_fn(|i| n.to_le_bytes()[i % 2]) };
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        (0..300).fold(command, |command, n| command.secret(&Secret::new(key(n), SecretKind::Plain)))
    });
    for n in [0, 1, 150, 299] {
        for kind in [SecretKind::Plain, SecretKind::Padded, fake_tls(DOMAIN)] {
            let options = ClientOptions::new(Secret::new(key(n), kind), DcId(2), unix_seconds());
            TestClient::connect(scene.proxy.address(), options).ask_for_pq();
        }
    }
    let stranger = ClientOptions::new(Secret::new(key(300), SecretKind::Padded), DcId(2), 0);
    scene.assert_fronted(&opening(stranger), Pace::WHOLE);
}

#[test]
fn inside_fake_tls_only_padded_intermediate_reaches_a_data_centre() {
    let scene = Scene::start(DcMode::Packets);
    let options = Mode::Ee.options().with_transport(Transport::Intermediate);
    let mut client = TestClient::connect(scene.proxy.address(), options);
    let (payload, _) = client.read_to_end();
    assert!(payload.is_empty());
    assert_eq!(scene.dc.accepted(), 0);
}

#[test]
fn what_follows_an_accepted_hello_must_be_ccs() {
    let scene = Scene::start(DcMode::Packets);
    let mut stranger = scene.stranger();
    stranger.send(&opening(Mode::Ee.options()), Pace::WHOLE);
    let flight_headers = stranger.receive(138);
    assert_eq!(flight_headers[..3], [0x16, 3, 3]);
    let application_len = usize::from(u16::from_be_bytes([flight_headers[136], flight_headers[137]]));
    let _ = stranger.receive(application_len);
    stranger.send(&[0x14, 3, 3, 0, 1, 2], Pace::WHOLE);
    let (answer, end) = stranger.read_to_end();
    assert!(answer.is_empty() && matches!(end, ReadEnd::Eof | ReadEnd::Reset));
    assert_eq!((scene.dc.accepted(), scene.front.accepted()), (0, 0));
}
