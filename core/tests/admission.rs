//! Who is admitted: each kind of secret against each kind of client.

mod driver;

use driver::scene::Scene;
use driver::{
    DC, FRONT_DOMAIN, OTHER_DOMAIN, UNIX_SECONDS, World, config, credentials, fake_tls, link_of_plain,
    padded, plain,
};
use mtproxy_core::config::Config;
use mtproxy_core::credentials::{Credentials, SecretId};
use mtproxy_core::dc::DcId;
use mtproxy_core::error::PeerMisbehaved;
use mtproxy_core::event::What;
use mtproxy_core::random::Random;
use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_core::stream::StreamId;
use mtproxy_core::transport::Transport;
use mtproxy_tests::{ClientCodec, ClientOptions};
use proptest::prelude::*;

const TRANSPORTS: [Transport; 3] =
    [Transport::Abridged, Transport::Intermediate, Transport::PaddedIntermediate];

fn serving(secrets: impl IntoIterator<Item = Secret>) -> Config {
    Config { credentials: credentials(secrets), ..config() }
}

/// The whole handshake of a client; answers the secret under which it was authenticated.
fn admit(world: &mut World, client: StreamId, options: ClientOptions, seed: u8) -> Option<SecretId> {
    let mut codec = ClientCodec::new(options, Random::from_seed([seed; 32]));
    let events_before = world.events.len();
    world.say(client, &codec.opening());
    let flight = world.heard(client).to_vec();
    if !flight.is_empty() {
        let progress = codec.receive(&flight).expect("the flight is in order");
        world.say(client, &progress.to_send);
    }
    world.events[events_before..].iter().find_map(|event| match event.what {
        What::Authenticated { secret, .. } => Some(secret),
        _ => None,
    })
}

/// True if a proxy that serves `configured` alone admits a client with `link` and `transport`.
fn is_admitted(configured: &Secret, link: SecretKind, transport: Transport) -> bool {
    let mut world = World::new(serving([configured.clone()]));
    let client = world.connect();
    let secret = Secret::new(*configured.key(), link);
    let options = ClientOptions::new(secret, DC, UNIX_SECONDS).with_transport(transport);
    let admitted = admit(&mut world, client, options, 1).is_some();
    let is_fronted = world.reported().any(|what| matches!(what, What::Fronted(_)));
    let is_closed = world.reported().any(|what| matches!(what, What::Misbehaved(_)));
    assert!(admitted ^ (is_fronted || is_closed), "either admitted, or fronted, or closed");
    admitted
}

fn tls(domain: &str) -> SecretKind {
    SecretKind::FakeTls(domain.parse().expect("a host name"))
}

#[test]
fn a_bare_secret_admits_every_transport_and_fake_tls_of_every_configured_domain() {
    let bare = plain();
    for transport in TRANSPORTS {
        assert!(is_admitted(&bare, SecretKind::Plain, transport), "{transport:?}");
    }
    assert!(is_admitted(&bare, SecretKind::Padded, Transport::PaddedIntermediate));
    assert!(is_admitted(&bare, tls(FRONT_DOMAIN), Transport::PaddedIntermediate));
    assert!(is_admitted(&bare, tls(OTHER_DOMAIN), Transport::PaddedIntermediate));
    assert!(!is_admitted(&bare, tls("unknown.example"), Transport::PaddedIntermediate));
}

#[test]
fn a_dd_secret_admits_only_padded_intermediate_outside_tls() {
    let dd = padded();
    assert!(is_admitted(&dd, SecretKind::Padded, Transport::PaddedIntermediate));
    assert!(!is_admitted(&dd, SecretKind::Plain, Transport::Abridged));
    assert!(!is_admitted(&dd, SecretKind::Plain, Transport::Intermediate));
    assert!(!is_admitted(&dd, tls(FRONT_DOMAIN), Transport::PaddedIntermediate));
}

#[test]
fn an_ee_secret_admits_only_fake_tls_of_its_own_domain() {
    let ee = fake_tls(FRONT_DOMAIN);
    assert!(is_admitted(&ee, tls(FRONT_DOMAIN), Transport::PaddedIntermediate));
    assert!(!is_admitted(&ee, tls(OTHER_DOMAIN), Transport::PaddedIntermediate));
    assert!(!is_admitted(&ee, tls("unknown.example"), Transport::PaddedIntermediate));
    for transport in TRANSPORTS {
        assert!(!is_admitted(&ee, SecretKind::Plain, transport), "{transport:?}");
    }
}

#[test]
fn only_padded_intermediate_is_admitted_inside_tls() {
    for configured in [plain(), fake_tls(FRONT_DOMAIN)] {
        assert!(!is_admitted(&configured, tls(FRONT_DOMAIN), Transport::Abridged));
        assert!(!is_admitted(&configured, tls(FRONT_DOMAIN), Transport::Intermediate));
    }
}

#[test]
fn the_second_use_of_a_hello_is_fronted_to_the_domain_it_greets() {
    let mut scene = Scene::member(serving([plain()]), link_of_plain(tls(OTHER_DOMAIN)));
    let hello = scene.opening();
    scene.world.say(scene.client, &hello);
    let replayer = scene.world.connect();
    scene.world.say(replayer, &hello);
    assert!(scene.world.has_reported(What::Fronted(PeerMisbehaved::ReplayedHello)));
    assert_eq!(scene.world.dialled(scene.upstream()), [driver::address(driver::OTHER_ADDRESS)]);
}

#[test]
fn a_hello_to_nobody_we_know_is_fronted_to_the_first_domain() {
    for name in ["unknown.example", "FRONT.example", ""] {
        let mut options = ClientOptions::new(link_of_plain(tls(OTHER_DOMAIN)), DC, UNIX_SECONDS);
        options.hello.server_name = (!name.is_empty()).then(|| name.to_owned());
        let mut scene = Scene::member_with(serving([plain()]), options);
        let hello = scene.opening();
        scene.world.say(scene.client, &hello);
        assert!(scene.world.has_reported(What::Fronted(PeerMisbehaved::UnknownServerName)), "{name}");
        assert_eq!(scene.world.dialled(scene.upstream()), [driver::address(driver::FRONT_ADDRESSES[0])]);
    }
}

#[test]
fn the_data_centre_that_is_dialled_is_the_one_asked_for() {
    let mut config = serving([plain()]);
    let (media, default) = (driver::address("192.0.2.44:80"), driver::address(driver::DC_ADDRESSES[0]));
    config.dc_table.set(DcId(-4), vec![media]);
    let fourth = config.dc_table.addresses(DcId(4))[0];
    for (asked, dialled) in [(4, fourth), (-4, media), (2, default), (-2, default), (77, default)] {
        let mut world = World::new(config.clone());
        let client = world.connect();
        let options = ClientOptions::new(plain(), DcId(asked), UNIX_SECONDS);
        assert!(admit(&mut world, client, options, 1).is_some());
        assert_eq!(world.dialled(world.upstream().unwrap()), [dialled], "{asked}");
    }
}

#[test]
fn bytes_behind_a_hello_are_fronted_to_the_domain_it_greets() {
    // A browser that resumes sends early data behind its hello.
    let mut scene = Scene::member(serving([plain()]), link_of_plain(tls(OTHER_DOMAIN)));
    let mut hello = scene.opening();
    hello.extend([0x14, 3, 3, 0, 1, 1]);
    scene.world.say(scene.client, &hello);
    assert!(scene.world.has_reported(What::Fronted(PeerMisbehaved::TrailingData)));
    assert_eq!(scene.world.dialled(scene.upstream()), [driver::address(driver::OTHER_ADDRESS)]);
    scene.world.answer(scene.upstream());
    assert_eq!(scene.world.heard(scene.upstream()), hello);
}

#[test]
fn http_is_called_so_however_it_is_cut() {
    let request = [&b"GET / HTTP/1.1\r\nHost: "[..], &[b'x'; 64]].concat();
    for first_len in [4, 30, request.len()] {
        let mut world = World::new(config());
        let client = world.connect();
        world.say(client, &request[..first_len]);
        assert!(world.has_reported(What::Fronted(PeerMisbehaved::SpokeHttp)), "{first_len} bytes");
    }
}

#[test]
fn a_hello_answered_before_a_reload_is_completed_under_the_secret_that_answered_it() {
    let (first, second) = (Secret::new([7; 16], SecretKind::Plain), Secret::new([8; 16], SecretKind::Plain));
    let link = Secret::new([8; 16], tls(FRONT_DOMAIN));
    let mut scene = Scene::member(serving([first.clone(), second.clone()]), link);
    let hello = scene.opening();
    scene.world.say(scene.client, &hello);
    let answer = scene.answer_of_handshake();
    scene.world.set_config(serving([second, first]));
    scene.world.say(scene.client, &answer);
    assert!(scene.world.reported().any(|what| matches!(what, What::Authenticated { .. })));
}

#[test]
fn a_client_admitted_across_a_reload_is_reported_under_the_number_its_secrets_name_has_now() {
    let named = |names: &[&'static str]| {
        let secret = |name: &str| Secret::new([name.as_bytes()[0]; 16], SecretKind::Plain);
        Config {
            credentials: Credentials::new(names.iter().map(|name| ((*name).into(), secret(name)))),
            ..config()
        }
    };
    for (names_after, reported) in
        [(&["a", "b"][..], SecretId(1)), (&["b", "c", "a"], SecretId(0)), (&["a", "c"], SecretId::REMOVED)]
    {
        let mut scene = Scene::member(named(&["a", "b"]), Secret::new([b'b'; 16], tls(FRONT_DOMAIN)));
        let hello = scene.opening();
        scene.world.say(scene.client, &hello);
        let answer = scene.answer_of_handshake();
        scene.world.set_config(named(names_after));
        scene.world.say(scene.client, &answer);
        let admitted = scene.world.reported().find_map(|what| match what {
            What::Authenticated { secret, .. } => Some(secret),
            _ => None,
        });
        assert_eq!(admitted, Some(reported), "{names_after:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn the_recent_secret_of_a_source_never_changes_who_is_admitted(
        visits in proptest::collection::vec((0u8..3, 0u8..8, any::<bool>()), 1..25),
    ) {
        // Six secrets, plain and ee in turn; 6 and 7 are nobody's.
        let key = |index: u8| [100 + index; 16];
        let kind = |index: u8| if index.is_multiple_of(2) { SecretKind::Plain } else { tls(FRONT_DOMAIN) };
        let mut world = World::new(serving((0..6).map(|index| Secret::new(key(index), kind(index)))));
        for (visit, (source, index, through_tls)) in (0u8..).zip(visits) {
            let link = if through_tls { tls(FRONT_DOMAIN) } else { SecretKind::Plain };
            let options = ClientOptions::new(Secret::new(key(index), link), DC, UNIX_SECONDS);
            let is_served = index < 6 && (through_tls || index.is_multiple_of(2));
            let client = world.connect_from([203, 0, 113, source].into());
            let admitted = admit(&mut world, client, options, visit);
            prop_assert_eq!(admitted, is_served.then_some(SecretId(u32::from(index))));
        }
    }
}
