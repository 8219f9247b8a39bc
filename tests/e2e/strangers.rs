//! Whoever is no client of ours: sees the front's own bytes, or, where there is none, nothing at all.

use std::time::{Duration, Instant};

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_tests::test_client::{fresh_random, unix_seconds};
use mtproxy_tests::{
    ClientCodec, ClientOptions, DcMode, FrontManner, FrontSite, HelloFault, Pace, ReadEnd, Socket,
    TestClient, pattern,
};

use crate::scene::{Mode, Scene, assert_fronted, fake_tls, opening, secret};

/// Long enough for an answer that is not to come; silence can only be proved by waiting.
const SILENCE: Duration = Duration::from_millis(300);

const SHORT_TIMEOUTS: &str = "[timeouts]\nfirst_byte_seconds = 1\nhandshake_seconds = 1\n";

/// What nothing delays; the timeouts of the tests that say so are far longer.
const PROMPTLY: Duration = Duration::from_secs(2);

const SSH_LINE: &[u8] = b"SSH-2.0-x\r\n";

const HTTP_GET: &[u8] = b"GET / HTTP/1.1\r\nHost: front.example\r\n\r\n";

fn hello_with(change: impl FnOnce(&mut ClientOptions)) -> Vec<u8> {
    let mut options = Mode::Ee.options();
    change(&mut options);
    opening(options)
}

fn wrong_key(kind: SecretKind) -> ClientOptions {
    ClientOptions::new(Secret::new([0xbb; 16], kind), DcId(2), unix_seconds())
}

fn random_bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fresh_random().fill(&mut bytes);
    bytes
}

/// Strangers who show themselves at once, each by name.
fn plain_strangers() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a wrong plain secret", opening(wrong_key(SecretKind::Plain))),
        ("a wrong dd secret", opening(wrong_key(SecretKind::Padded))),
        ("an HTTP request", HTTP_GET.to_vec()),
        ("random bytes", random_bytes(3000)),
    ]
}

/// Strangers who say hello, each by name.
fn greeting_strangers() -> Vec<(&'static str, Vec<u8>)> {
    let with_fault = |fault| hello_with(|options| options.hello.fault = fault);
    let with_clock = |offset: i64| {
        let clock = u32::try_from(i64::from(unix_seconds()) + offset).expect("a clock of this century");
        hello_with(|options| options.hello.unix_seconds = clock)
    };
    let trailing = [hello_with(|_| ()), b"more than a hello".to_vec()].concat();
    vec![
        ("a wrong ee secret", opening(wrong_key(fake_tls(crate::scene::DOMAIN)))),
        ("a wrong HMAC", with_fault(HelloFault::WrongHmac)),
        ("no TLS 1.3 suite", with_fault(HelloFault::NoTls13Suite)),
        ("a browser", with_fault(HelloFault::Browser)),
        (
            "a modern browser",
            hello_with(|options| {
                options.hello.fault = HelloFault::Browser;
                options.hello.record_len = 1800;
            }),
        ),
        (
            "another server name",
            hello_with(|options| options.hello.server_name = Some("other.example".into())),
        ),
        ("no server name", hello_with(|options| options.hello.server_name = None)),
        ("a clock 660 s behind", with_clock(-660)),
        ("a clock 10 s ahead", with_clock(10)),
        ("a hello of 400 bytes", hello_with(|options| options.hello.record_len = 400)),
        ("bytes behind the hello", trailing),
    ]
}

#[test]
fn strangers_see_the_front_and_the_front_sees_every_byte_of_theirs() {
    let scene = Scene::start(DcMode::Packets);
    for (who, bytes) in plain_strangers().into_iter().chain(greeting_strangers()) {
        eprintln!("{who}");
        scene.assert_fronted(&bytes, Pace::WHOLE);
    }
    assert_eq!(scene.dc.accepted(), 0);
}

#[test]
fn it_makes_no_difference_how_a_strangers_bytes_are_cut() {
    let scene = Scene::start(DcMode::Packets);
    for (who, bytes) in plain_strangers().into_iter().chain(greeting_strangers()) {
        // Cut, the front may be dialled before the end, and must get the rest as it comes.
        if who != "bytes behind the hello" {
            eprintln!("{who}");
            scene.assert_fronted(&bytes, Pace::pieces(7));
        }
    }
}

#[test]
fn a_front_that_answers_and_closes_in_one_breath_is_heard_to_its_last_byte() {
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAndCloses, |command| {
        command.secret(&secret(SecretKind::Plain))
    });
    for _ in 0..30 {
        let mut stranger = scene.stranger();
        stranger.send(HTTP_GET, Pace::WHOLE);
        assert_eq!(stranger.read_to_end(), (FrontSite::answer(), ReadEnd::Eof));
    }
}

#[test]
fn a_stranger_who_half_closes_still_hears_the_front() {
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtEof, |command| {
        command.secret(&secret(SecretKind::Plain))
    });
    let truncated_hello = hello_with(|_| ())[..200].to_vec();
    for bytes in [HTTP_GET.to_vec(), truncated_hello, b"\x16".to_vec(), random_bytes(63), random_bytes(64)] {
        scene.assert_fronted(&bytes, Pace::WHOLE);
    }
}

#[test]
fn a_front_that_half_closes_first_still_hears_the_stranger() {
    let scene = Scene::with(DcMode::Packets, FrontManner::OnlyListens, |command| {
        command.secret(&secret(SecretKind::Plain))
    });
    let mut stranger = scene.stranger();
    stranger.send(HTTP_GET, Pace::WHOLE);
    assert_eq!(stranger.read_to_end(), (vec![], ReadEnd::Eof));
    stranger.send(b"still talking", Pace::pieces(1));
    stranger.half_close();
    let expected = [HTTP_GET, b"still talking"].concat();
    scene.front.wait_until("every byte and the end", |s| s[0].closed && s[0].report == expected);
}

#[test]
fn a_strangers_megabytes_reach_the_front_whole() {
    let scene = Scene::start(DcMode::Packets);
    let bytes = [HTTP_GET.to_vec(), pattern::bytes(0, 4 << 20)].concat();
    scene.assert_fronted(&bytes, Pace::WHOLE);
}

#[test]
fn a_strangers_reset_reaches_the_front() {
    let scene = Scene::start(DcMode::Packets);
    let mut stranger = scene.stranger();
    stranger.send(HTTP_GET, Pace::WHOLE);
    let _ = stranger.receive(FrontSite::ANSWER_LEN);
    stranger.reset();
    scene.front.wait_until("the end of the session", |s| s[0].closed && s[0].report == HTTP_GET);
}

#[test]
fn a_replayed_hello_is_a_stranger_whichever_worker_hears_it() {
    let scene = Scene::start(DcMode::Packets);
    let mut codec = ClientCodec::new(Mode::Ee.options(), fresh_random());
    let hello = codec.opening();
    let mut socket = scene.stranger();
    socket.send(&hello, Pace::WHOLE);
    let mut client = TestClient::adopt(socket, codec);
    client.complete_handshake(Pace::WHOLE);
    client.ask_for_pq();
    for _ in 0..12 {
        scene.assert_fronted(&hello, Pace::WHOLE);
    }
    client.ask_for_pq();
}

#[test]
fn clocks_within_the_rule_are_accepted() {
    let scene = Scene::start(DcMode::Packets);
    for offset in [-300, -590, 0, 3] {
        let mut options = Mode::Ee.options();
        let clock = i64::from(options.hello.unix_seconds) + offset;
        options.hello.unix_seconds = u32::try_from(clock).expect("a clock of this century");
        TestClient::connect(scene.proxy.address(), options).ask_for_pq();
    }
    assert_eq!(scene.front.accepted(), 0);
}

#[test]
fn a_stranger_who_dawdles_meets_the_front_with_all_it_said() {
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).config(SHORT_TIMEOUTS)
    });
    let hello = hello_with(|_| ());
    let mut stranger = scene.stranger();
    // One byte per tenth of a second: the handshake would take a minute.
    for byte in hello[..20].chunks(1) {
        stranger.send(byte, Pace { piece_len: 1, pause: Duration::from_millis(100) });
    }
    assert_eq!(stranger.receive(FrontSite::ANSWER_LEN), FrontSite::answer());
    stranger.send(&hello[20..], Pace::WHOLE);
    stranger.half_close();
    assert_eq!(stranger.read_to_end(), (vec![], ReadEnd::Eof));
    scene.front.wait_until("the whole hello", |s| s[0].closed && s[0].report == hello);
}

#[test]
fn a_stranger_who_says_nothing_is_handed_to_the_front_too() {
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).config(SHORT_TIMEOUTS)
    });
    let mut stranger = scene.stranger();
    scene.front.wait_until("a connection after the first-byte timeout", |s| s.len() == 1);
    stranger.send(HTTP_GET, Pace::WHOLE);
    assert_eq!(stranger.receive(FrontSite::ANSWER_LEN), FrontSite::answer());
}

#[test]
fn a_greeted_client_who_dawdles_is_closed_and_not_fronted() {
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).config(SHORT_TIMEOUTS)
    });
    let mut client = scene.stranger();
    client.send(&hello_with(|_| ()), Pace::WHOLE);
    let (flight, end) = client.read_to_end();
    assert!(flight.starts_with(&[0x16, 3, 3, 0, 0x7a]), "{:02x?}", &flight[..flight.len().min(8)]);
    assert!(matches!(end, ReadEnd::Eof | ReadEnd::Reset));
    assert_eq!((scene.dc.accepted(), scene.front.accepted()), (0, 0));
}

#[test]
fn without_a_domain_strangers_meet_silence() {
    let scene = Scene::without_domain(DcMode::Packets, "");
    let strangers: Vec<(&str, Socket)> = plain_strangers()
        .into_iter()
        .chain(greeting_strangers())
        .map(|(who, bytes)| {
            let mut stranger = scene.stranger();
            stranger.send(&bytes, Pace::WHOLE);
            (who, stranger)
        })
        .collect();
    std::thread::sleep(SILENCE);
    for (who, mut stranger) in strangers {
        assert_eq!(stranger.listen_for(Duration::ZERO), (vec![], None), "{who}");
    }
    assert_eq!((scene.dc.accepted(), scene.front.accepted()), (0, 0));
    scene.client(Mode::Dd).ask_for_pq();
}

#[test]
fn without_a_domain_a_hello_that_is_ours_in_every_way_meets_silence() {
    let scene = Scene::without_domain(DcMode::Packets, "");
    let mut stranger = scene.stranger();
    stranger.send(&hello_with(|_| ()), Pace::WHOLE);
    assert_eq!(stranger.listen_for(SILENCE), (vec![], None));
    assert_eq!(scene.dc.accepted(), 0);
}

#[test]
fn without_a_domain_a_stranger_who_closes_or_dawdles_is_closed_unanswered() {
    let scene = Scene::without_domain(DcMode::Packets, SHORT_TIMEOUTS);
    let mut half_closed = scene.stranger();
    half_closed.send(&hello_with(|_| ())[..60], Pace::WHOLE);
    half_closed.half_close();
    assert_eq!(half_closed.read_to_end().0, []);
    let mut dawdler = scene.stranger();
    dawdler.send(&random_bytes(20), Pace::WHOLE);
    let silent = scene.stranger();
    for mut stranger in [dawdler, silent] {
        assert_eq!(stranger.read_to_end().0, []);
    }
    assert_eq!(scene.dc.accepted(), 0);
}

#[test]
fn a_front_that_is_down_makes_a_stranger_see_a_close_and_no_byte() {
    let front = FrontSite::start(FrontManner::AnswersAtOnce);
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        let nobody = mtproxy_tests::socket::refusing_address(front.address());
        command.secret(&secret(SecretKind::Plain)).domain("down.example", nobody)
    });
    let hello = hello_with(|options| {
        options.hello.server_name = Some("down.example".into());
        options.hello.fault = HelloFault::Browser;
    });
    let mut stranger = scene.stranger();
    stranger.send(&hello, Pace::WHOLE);
    assert_eq!(stranger.read_to_end().0, []);
    assert_fronted(scene.stranger(), HTTP_GET, Pace::WHOLE, &scene.front);
}

#[test]
fn a_stranger_whose_upload_the_front_cuts_short_still_hears_the_whole_answer() {
    // More than every buffer on the way holds, so that the front leaves much of it unread.
    let body = vec![b'y'; 32 << 20];
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAndCloses, |command| {
        command.secret(&secret(SecretKind::Plain))
    });
    for round in 0..5 {
        scene.front.pause_reading();
        let mut stranger = scene.stranger();
        stranger.send(b"POST / HTTP/1.1\r\nContent-Length: 33554432\r\n\r\n", Pace::WHOLE);
        let sent = stranger.send_until_stuck(&body, SILENCE).expect("nobody has closed");
        assert!(sent < body.len(), "the whole body has gone somewhere");
        // The proxy finds the answer, the end and a failing write at once.
        scene.proxy.while_stopped(|| {
            scene.front.resume_reading();
            scene.front.wait_until("the end at the front", |s| s.len() > round && s[round].closed);
        });
        // Closed with bytes unread: the front's kernel sends a reset behind the answer.
        let (heard, end) = stranger.read_to_end();
        assert!(heard == FrontSite::answer(), "round {round}: {} bytes, {end:?}", heard.len());
        assert_eq!(end, ReadEnd::Reset, "round {round}: as without a proxy");
    }
}

#[test]
fn urgent_data_does_not_hold_up_the_bytes_around_it() {
    let scene = Scene::start(DcMode::Packets);
    let mut stranger = scene.stranger();
    stranger.send(HTTP_GET, Pace::WHOLE);
    assert_eq!(stranger.receive(FrontSite::ANSWER_LEN), FrontSite::answer());
    let begun = Instant::now();
    // One event for all of it: a read ends at the mark, and no event tells of what is behind.
    scene.proxy.while_stopped(|| {
        stranger.send(b"ab", Pace::WHOLE);
        stranger.send_urgent(b'c');
        stranger.send(b"def", Pace::WHOLE);
    });
    let expected = [HTTP_GET, b"abdef"].concat();
    scene.front.wait_until("the bytes around the urgent one", |s| s[0].report == expected);
    assert!(begun.elapsed() < PROMPTLY, "they took {:?}", begun.elapsed());
}

/// The same hello without its session id, as a client sends it that knows nothing newer than TLS 1.2.
fn without_session_id(hello: &[u8]) -> Vec<u8> {
    const ID_LEN_AT: usize = 43;
    let mut hello = hello.to_vec();
    let id_len = usize::from(std::mem::take(&mut hello[ID_LEN_AT]));
    hello.drain(ID_LEN_AT + 1..=ID_LEN_AT + id_len);
    let record_len = u16::try_from(hello.len() - 5).expect("a hello is short");
    hello[3..5].copy_from_slice(&record_len.to_be_bytes());
    hello[7..9].copy_from_slice(&(record_len - 4).to_be_bytes());
    hello
}

/// A browser's hello to the second domain.
fn greeting_second(record_len: usize) -> Vec<u8> {
    hello_with(|options| {
        options.hello.server_name = Some("second.example".into());
        options.hello.fault = HelloFault::Browser;
        options.hello.record_len = record_len;
    })
}

/// Has the second of two fronts greeted with each hello, at `pace`.
#[track_caller]
fn second_front_is_reached(hellos: &[Vec<u8>], pace: Pace) {
    let second = FrontSite::start(FrontManner::AnswersAtOnce);
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).domain("second.example", second.address())
    });
    for hello in hellos {
        assert_fronted(scene.stranger(), hello, pace, &second);
    }
    assert_eq!(scene.front.accepted(), 0);
}

#[test]
fn hellos_unlike_any_client_of_ours_reach_the_site_that_they_greet() {
    let old = without_session_id(&greeting_second(580));
    second_front_is_reached(&[greeting_second(400), greeting_second(515), old], Pace::WHOLE);
}

#[test]
fn hellos_as_long_as_ours_reach_the_site_that_they_greet_in_pieces_too() {
    let old = without_session_id(&greeting_second(580));
    second_front_is_reached(&[greeting_second(517), old], Pace::pieces(7));
}

#[test]
fn short_hellos_in_pieces_reach_the_site_that_they_greet() {
    second_front_is_reached(&[greeting_second(400)], Pace::pieces(7));
}

#[test]
fn where_every_client_says_hello_a_stranger_with_a_short_line_is_fronted_at_once() {
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command
            .secret(&secret(fake_tls(crate::scene::DOMAIN)))
            .config("[timeouts]\nfirst_byte_seconds = 20\nhandshake_seconds = 20\n")
    });
    let begun = Instant::now();
    let mut stranger = scene.stranger();
    stranger.send(SSH_LINE, Pace::WHOLE);
    scene.front.wait_until("the line", |s| s.iter().any(|s| s.report == SSH_LINE));
    assert!(begun.elapsed() < PROMPTLY, "it took {:?}", begun.elapsed());
    assert_eq!(stranger.receive(FrontSite::ANSWER_LEN), FrontSite::answer());
}

#[test]
fn where_a_client_may_come_without_a_hello_a_short_line_is_fronted_after_the_handshake_timeout() {
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).config(SHORT_TIMEOUTS)
    });
    let begun = Instant::now();
    let mut stranger = scene.stranger();
    stranger.send(SSH_LINE, Pace::WHOLE);
    scene.front.wait_until("the line", |s| s.iter().any(|s| s.report == SSH_LINE));
    assert!(begun.elapsed() >= Duration::from_millis(900), "it took only {:?}", begun.elapsed());
    assert_eq!(stranger.receive(FrontSite::ANSWER_LEN), FrontSite::answer());
}
