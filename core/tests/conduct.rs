//! What holds for every driver: late inputs, directions, and any cut of the client's bytes.

mod driver;

use std::time::Duration;

use driver::scene::{STRANGE, Scene};
use driver::{FRONT_DOMAIN, World, config, fake_tls, link_of_plain, padded, plain};
use mtproxy_core::action::Actions;
use mtproxy_core::engine::{Direction, Input};
use mtproxy_core::event::{DialError, What};
use mtproxy_core::secret::SecretKind;
use mtproxy_core::stream::StreamId;
use proptest::prelude::*;

#[test]
fn what_comes_late_for_a_stream_that_is_gone_is_ignored() {
    let mut scene = Scene::relaying(plain());
    let (client, upstream) = (scene.client, scene.upstream());
    scene.world.fin(client);
    scene.world.fin(upstream);
    // The places of the old streams are taken by new ones, which must not get the old ones' inputs.
    let newcomer = scene.world.connect();
    assert!([client.slot(), upstream.slot()].contains(&newcomer.slot()));
    let now = scene.world.now();
    let mut actions = Actions::new();
    for gone in [client, upstream] {
        let engine = &mut scene.world.engine;
        engine.handle(now, Input::Connected(gone, driver::address(driver::OUR_ADDRESS)), &mut actions);
        engine.handle(now, Input::DialFailed(gone, DialError::Refused), &mut actions);
        engine.handle(now, Input::Bytes(gone, &mut [1, 2, 3]), &mut actions);
        engine.handle(now, Input::PassedOn(gone, 5), &mut actions);
        engine.handle(now, Input::Eof(gone), &mut actions);
        engine.handle(now, Input::Reset(gone), &mut actions);
        engine.sent(now, gone, 7, &mut actions);
        assert_eq!((engine.credit(gone), engine.direction(gone)), (0, Direction::Unsettled));
    }
    assert_eq!(actions.as_slice(), []);
    assert_eq!(scene.world.engine.session_count(), 1);
}

#[test]
fn a_stream_is_found_again_by_its_64_bits() {
    let mut world = World::new(config());
    for _ in 0..3 {
        let stream = world.connect();
        assert_eq!(StreamId::from_u64(stream.to_u64()), stream);
    }
}

#[test]
fn directions_are_settled_with_the_connection_and_not_before_or_after() {
    let settled = |client, upstream| (client, upstream);
    let of = |scene: &Scene| {
        let direction = |stream| scene.world.engine.direction(stream);
        (direction(scene.client), scene.world.upstream().map_or(Direction::Unsettled, direction))
    };
    let unsettled = settled(Direction::Unsettled, Direction::Unsettled);
    assert_eq!(of(&Scene::silent(config())), unsettled);
    assert_eq!(of(&Scene::greeted().0), unsettled);
    assert_eq!(of(&Scene::dialing(plain())), unsettled);
    assert_eq!(of(&Scene::discarding()), unsettled);

    for secret in [plain(), padded()] {
        let scene = Scene::relaying(secret);
        assert_eq!(
            of(&scene),
            settled(Direction::Rekeyed { to: scene.upstream() }, Direction::Opaque { to: scene.client })
        );
    }
    let mut scene = Scene::relaying(fake_tls(FRONT_DOMAIN));
    assert_eq!(
        of(&scene),
        settled(Direction::Rekeyed { to: scene.upstream() }, Direction::Framed { to: scene.client })
    );
    scene.world.fin(scene.client);
    assert_eq!(
        of(&scene),
        settled(Direction::Rekeyed { to: scene.upstream() }, Direction::Framed { to: scene.client }),
        "half-closed"
    );
    scene.world.fin(scene.upstream());
    assert_eq!(of(&scene), unsettled);

    let scene = Scene::fronting();
    let (client, upstream) = (scene.client, scene.upstream());
    assert_eq!(of(&scene), settled(Direction::Opaque { to: upstream }, Direction::Opaque { to: client }));
}

#[test]
fn what_the_dc_says_passes_unchanged_and_the_client_understands_it() {
    for secret in [plain(), padded()] {
        let mut scene = Scene::relaying(secret);
        let wire = scene.upstream_encode(b"encrypted by the data centre for the client");
        scene.world.say(scene.upstream(), &wire);
        assert_eq!(scene.world.heard(scene.client), wire);
        assert_eq!(scene.client_heard(), b"encrypted by the data centre for the client");
    }
}

#[test]
fn bytes_that_the_driver_passed_on_itself_are_counted_and_keep_the_session_alive() {
    let mut scene = Scene::relaying(plain());
    let (client, upstream) = (scene.client, scene.upstream());
    let from_client_before = 64;
    for _ in 0..10 {
        scene.world.wait(Duration::from_secs(100));
        scene.world.pass_on(upstream, &[1; 1000]);
    }
    scene.world.stall(client);
    scene.world.pass_on(upstream, b"queued like any others");
    let window = config().relay_window_bytes;
    assert_eq!(scene.world.engine.credit(upstream), window - b"queued like any others".len());
    scene.world.unstall(client);
    assert_eq!(scene.world.engine.credit(upstream), window);
    scene.world.fin(client);
    scene.world.fin(upstream);
    let counted = scene.world.reported().find_map(|what| match what {
        What::Ended { from_client_bytes, from_upstream_bytes, lasted, .. } => {
            Some((from_client_bytes, from_upstream_bytes, lasted))
        }
        _ => None,
    });
    assert_eq!(counted, Some((from_client_before, 10_022, Duration::from_secs(1000))));
}

#[test]
fn each_session_is_reported_from_its_beginning_to_its_end_under_one_number() {
    let mut world = World::new(config());
    for number in 1..=3 {
        let client = world.connect();
        world.fin(client);
        let of_session: Vec<_> = world.events.iter().filter(|event| event.session.0 == number).collect();
        assert!(matches!(of_session[..], [opened, ended]
            if opened.what == What::Opened && matches!(ended.what, What::Ended { .. })));
    }
}

/// Hands `bytes` in, cut as `lengths` say in turn, and never more than the credit; dials are answered.
fn say_in_pieces(world: &mut World, client: StreamId, mut bytes: &[u8], lengths: &[usize]) {
    let mut lengths = lengths.iter().cycle();
    while !bytes.is_empty() {
        let credit = world.engine.credit(client);
        if credit == 0 {
            let upstream = world.upstream().expect("only a dial takes all credit here");
            world.answer(upstream);
            continue;
        }
        let len = *lengths.next().expect("there is at least one length");
        let (piece, rest) = bytes.split_at(len.min(credit).min(bytes.len()));
        world.say(client, piece);
        bytes = rest;
    }
}

/// All that the upstream and the client hear when an app talks in such pieces.
fn relayed(link: SecretKind, hello_len: usize, payload: &[u8], lengths: &[usize]) -> (Vec<u8>, Vec<u8>) {
    let is_fake_tls = matches!(link, SecretKind::FakeTls(_));
    let options = mtproxy_tests::ClientOptions::new(link_of_plain(link), driver::DC, driver::UNIX_SECONDS)
        .with_hello_len(hello_len);
    let mut scene = Scene::member_with(config(), options);
    let mut opening = scene.opening();
    if is_fake_tls {
        say_in_pieces(&mut scene.world, scene.client, &opening, lengths);
        opening = scene.answer_of_handshake();
    }
    opening.extend(scene.encode(payload));
    say_in_pieces(&mut scene.world, scene.client, &opening, lengths);
    if scene.upstream_told() == driver::Told::Dialled(1) {
        scene.world.answer(scene.upstream());
    }
    assert_eq!(scene.upstream_heard(), payload);
    (scene.world.heard(scene.upstream()).to_vec(), scene.world.heard(scene.client).to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_cut_of_an_apps_bytes_gives_the_same_output(
        kind in 0usize..3, hello_len in proptest::sample::select(&[517usize, 1800, 16_000][..]),
        payload in proptest::collection::vec(any::<u8>(), 0..4000),
        lengths in proptest::collection::vec(1usize..300, 1..8),
    ) {
        let link = [SecretKind::Plain, SecretKind::Padded, SecretKind::FakeTls(FRONT_DOMAIN.parse().unwrap())];
        let whole = relayed(link[kind].clone(), hello_len, &payload, &[usize::MAX]);
        let cut = relayed(link[kind].clone(), hello_len, &payload, &lengths);
        prop_assert_eq!(&cut, &whole);
    }

    #[test]
    fn any_cut_of_a_strangers_bytes_reaches_the_front_as_it_was_sent(
        first in 0usize..4, tail in proptest::collection::vec(any::<u8>(), 64..3000),
        lengths in proptest::collection::vec(1usize..3000, 1..8),
    ) {
        let beginnings: [&[u8]; 4] = [&STRANGE, b"GET / HTTP/1.1\r\n", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], b""];
        let bytes = [beginnings[first], &tail].concat();
        let mut world = World::new(config());
        let client = world.connect();
        say_in_pieces(&mut world, client, &bytes, &lengths);
        world.fin(client);
        let upstream = world.upstream().expect("a stranger is fronted at the latest when it ends");
        if matches!(world.told(upstream), driver::Told::Dialled(_)) {
            world.answer(upstream);
        }
        prop_assert_eq!(world.heard(upstream), bytes);
        prop_assert_eq!(world.told(upstream), driver::Told::Fin);
    }
}

#[test]
fn an_app_that_sends_one_byte_at_a_time_is_served_like_any_other() {
    for link in [SecretKind::Plain, SecretKind::Padded, SecretKind::FakeTls(FRONT_DOMAIN.parse().unwrap())] {
        let whole = relayed(link.clone(), 517, b"byte by byte", &[usize::MAX]);
        assert_eq!(relayed(link, 517, b"byte by byte", &[1]), whole);
    }
}
