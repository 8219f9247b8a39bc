//! Clients through middle proxies, on real sockets: what crosses the wire, and what becomes of clients when links end.

use std::net::SocketAddr;
use std::time::Duration;

use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_tests::cast::Mode;
use mtproxy_tests::command::parse_digest;
use mtproxy_tests::dc_codec::quick_ack_token;
use mtproxy_tests::middle_proxy::{DataFault, NonceFault, Telegram, request::flag};
use mtproxy_tests::middle_proxy_files::{PROXY_SECRET, PROXY_TAG};
use mtproxy_tests::{
    Command, DcMode, FakeDc, FakeMiddleProxy, FrontManner, FrontSite, LinkOrder, MiddleProxyFiles,
    MiddleProxyOptions, Misbehaviour, PATIENCE, ProxyCommand, ProxyProcess, TestClient, metrics_page,
    pattern,
};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use crate::scene::{DOMAIN, secret};

const MIB: u64 = 1 << 20;

/// One worker, its links, and a middle proxy.
struct Scene {
    proxy: ProxyProcess,
    middle_proxy: FakeMiddleProxy,
    files: MiddleProxyFiles,
    _front: FrontSite,
}

fn options() -> MiddleProxyOptions {
    MiddleProxyOptions::new(&PROXY_SECRET)
}

impl Scene {
    fn start(middle_proxy: FakeMiddleProxy) -> Self {
        Self::with(middle_proxy, 2, |command| command)
    }

    fn with(
        middle_proxy: FakeMiddleProxy,
        links: u16,
        complete: impl FnOnce(ProxyCommand) -> ProxyCommand,
    ) -> Self {
        let front = FrontSite::start(FrontManner::AnswersAtOnce);
        let files = MiddleProxyFiles::new(&[middle_proxy.address()], links);
        let command = ProxyCommand::new()
            .secret(&secret(SecretKind::Plain))
            .domain(DOMAIN, front.address())
            .option("--workers", "1");
        let proxy = complete(files.told_to(command)).start();
        Self { proxy, middle_proxy, files, _front: front }
    }

    #[track_caller]
    fn client(&self, mode: Mode) -> TestClient {
        TestClient::connect(self.proxy.address(), mode.options())
    }

    /// Nobody has done anything that the other side should not see.
    #[track_caller]
    fn is_in_order(&self) {
        for link in self.middle_proxy.sessions() {
            assert_eq!(link.report.fault, None, "what the middle proxy holds against us");
        }
    }
}

/// Has the data centre count and hash what it is sent.
fn upload(client: &mut TestClient, len: u64) {
    let mut uploaded = Sha256::new();
    for part in 0..len >> 19 {
        let payload = pattern::bytes(part << 19, 1 << 19);
        uploaded.update(&payload);
        client.send_command(&Command::Sink(payload));
    }
    client.send_command(&Command::Digest);
    assert_eq!(parse_digest(&client.receive_body()), Some((len, uploaded.finalize().into())));
}

#[test]
fn every_mode_is_carried_both_ways_over_both_families_with_either_checksum() {
    for (v6, crc32c) in [(false, true), (true, false)] {
        let options = if crc32c { options() } else { options().without_crc32c() };
        let middle_proxy =
            if v6 { FakeMiddleProxy::start_v6(options) } else { FakeMiddleProxy::start(options) };
        let scene = Scene::start(middle_proxy);
        for mode in Mode::ALL {
            let mut client = scene.client(mode);
            client.ask_for_pq();
            client.exchange_confirmed_echo(b"and it has arrived");
            client.download(4 * MIB + 1);
            upload(&mut client, 4 * MIB);
        }
        let links = scene.middle_proxy.sessions();
        assert!(links.iter().all(|link| link.report.uses_crc32c == crc32c));
        scene.is_in_order();
    }
}

#[test]
fn the_longest_packet_passes_in_every_mode() {
    let scene = Scene::start(FakeMiddleProxy::start(options()));
    for mode in Mode::ALL {
        let mut client = scene.client(mode);
        let longest = pattern::bytes(0, 1_044_480 - 20 - 16);
        client.send_command(&Command::Echo(longest.clone()));
        assert_eq!(Command::parse(&client.receive_body()), Some(Command::Echo(longest)), "{mode:?}");
    }
    scene.is_in_order();
}

#[test]
fn the_middle_proxy_hears_who_asks_and_whose_channel_to_show() {
    for tag in [None, Some(PROXY_TAG)] {
        let scene = Scene::with(FakeMiddleProxy::start(options()), 1, |command| {
            tag.map_or(command.clone(), |tag| command.option("--proxy-tag", tag))
        });
        for (mode, transport) in [(Mode::Abridged, flag::ABRIDGED), (Mode::Ee, flag::INTERMEDIATE)] {
            let mut client = scene.client(mode);
            client.ask_for_pq();
            let ours = client.local_address();
            let (_, request) =
                scene.middle_proxy.wait_for_request("the client's", |request| request.client == ours);
            assert_eq!(request.ours, scene.proxy.address());
            assert_eq!(request.flags & transport, transport);
            assert_eq!(request.flags & flag::UNENCRYPTED, flag::UNENCRYPTED);
            let sent_tag = request.proxy_tag.map(|tag| data_encoding::HEXLOWER.encode(&tag));
            assert_eq!(sent_tag.as_deref(), tag);
        }
        scene.is_in_order();
    }
}

#[test]
fn a_secret_that_is_direct_goes_to_its_data_centre_and_the_others_do_not() {
    let dc = FakeDc::start(DcMode::Packets);
    let middle_proxy = FakeMiddleProxy::start(options());
    let files = MiddleProxyFiles::new(&[middle_proxy.address()], 1);
    let promoted = Secret::new([7; 16], SecretKind::Plain);
    let config = format!(
        "[[secrets]]\nname = \"direct\"\nsecret = \"{}\"\ndirect = true\n[[secrets]]\nname = \"promoted\"\n\
         secret = \"{}\"\n",
        secret(SecretKind::Plain).reveal(),
        promoted.reveal()
    );
    let proxy = files.told_to(ProxyCommand::new().config(&config).dc(2, dc.address())).start();
    let mut direct = TestClient::connect(proxy.address(), Mode::Intermediate.options());
    direct.ask_for_pq();
    assert_eq!((dc.accepted(), middle_proxy.requests().len()), (1, 0));
    let mut options = Mode::Intermediate.options();
    options.secret = Some(promoted);
    let mut other = TestClient::connect(proxy.address(), options);
    other.ask_for_pq();
    assert_eq!((dc.accepted(), middle_proxy.requests().len()), (1, 1));
}

#[test]
fn ends_on_either_side_are_told_to_the_other() {
    let scene = Scene::with(FakeMiddleProxy::start(options()), 1, |command| command);
    let mut first = scene.client(Mode::Dd);
    first.ask_for_pq();
    let (link, request) = scene.middle_proxy.wait_for_request("its request", |_| true);
    scene.middle_proxy.order(link, LinkOrder::CloseClient(request.connection));
    let _ = first.read_to_end();
    let mut second = scene.client(Mode::Dd);
    second.ask_for_pq();
    let at = second.local_address();
    let (_, request) = scene.middle_proxy.wait_for_request("the second's", |request| request.client == at);
    drop(second);
    let id = request.connection;
    scene.middle_proxy.wait_until("RPC_CLOSE_CONN", |links| links[link].report.closed.contains(&id));
    scene.middle_proxy.order(link, LinkOrder::Commit(DataFault::AnswerTo(12_345)));
    scene
        .middle_proxy
        .wait_until("RPC_CLOSE_CONN for nobody", |links| links[link].report.closed.contains(&12_345));
    scene.is_in_order();
}

#[test]
fn a_middle_proxy_that_comes_to_its_senses_serves_those_who_waited() {
    let options = options().misbehaving(Misbehaviour::Nonce(NonceFault::Selector));
    let scene = Scene::with(FakeMiddleProxy::start(options), 1, |command| command);
    let line = scene
        .proxy
        .wait_for_line("why the link was lost", |line| line.contains("link to a middle proxy lost"));
    assert!(line.contains("nonce_refused"), "{line}");
    let mut client = scene.client(Mode::Intermediate);
    client.send_command(&Command::Echo(b"patience".to_vec()));
    scene.middle_proxy.set_misbehaviour(None);
    assert_eq!(Command::parse(&client.receive_body()), Some(Command::Echo(b"patience".to_vec())));
}

#[test]
fn a_killed_link_closes_those_who_waited_for_an_answer_and_is_replaced() {
    let scene =
        Scene::with(FakeMiddleProxy::start(options().with_telegram(Telegram::Silent)), 1, |command| command);
    let mut client = scene.client(Mode::Intermediate);
    client.send_command(&Command::Echo(b"never answered".to_vec()));
    let (link, _) = scene.middle_proxy.wait_for_request("the request", |_| true);
    scene.middle_proxy.set_options(options());
    scene.middle_proxy.kill_link(link);
    let _ = client.read_to_end();
    let mut other = scene.client(Mode::Intermediate);
    other.ask_for_pq();
}

#[test]
fn a_stalled_link_is_found_and_replaced() {
    let files_and = |command: ProxyCommand| command.config("[middle_proxies]\nping_seconds = 1\n");
    let scene = Scene::with(FakeMiddleProxy::start(options()), 1, files_and);
    let links = scene.middle_proxy.wait_for_links(1);
    // One pong, so that it is known to answer.
    scene.middle_proxy.wait_until_counted("a pong", |links| links.iter().any(|link| link.pongs_sent > 0));
    scene.middle_proxy.stall_link(links[0]);
    let _ = scene.proxy.wait_for_line("the verdict", |line| line.contains("stalled"));
    scene.client(Mode::Intermediate).ask_for_pq();
}

#[test]
fn a_new_file_changes_the_targets_and_a_bad_one_nothing() {
    let second = FakeMiddleProxy::start(options());
    let scene = Scene::with(FakeMiddleProxy::start(options()), 1, |command| command);
    let mut client = scene.client(Mode::Dd);
    client.ask_for_pq();
    scene.files.rewrite_with("proxy_for 2 nonsense");
    scene.proxy.signal(Signal::HUP);
    let line = scene.proxy.wait_for_line("what is wrong", |line| line.contains("proxy-multi.conf:1:"));
    assert!(line.contains("expected"), "{line}");
    client.ask_for_pq();
    scene.files.rewrite(&[scene.middle_proxy.address(), second.address()], 1);
    scene.proxy.signal(Signal::HUP);
    second.wait_for_links(1);
    client.ask_for_pq();
    assert_eq!(scene.middle_proxy.accepted(), 1, "its link was left alone");
}

#[test]
fn what_is_forwarded_is_counted_as_the_other_side_counts_it() {
    const METRICS: &str = "127.0.0.1:0";
    let metrics: SocketAddr = std::net::TcpListener::bind(METRICS)
        .and_then(|listener| listener.local_addr())
        .expect("a port is free");
    let scene = Scene::with(FakeMiddleProxy::start(options()), 2, |command| {
        command.option("--metrics", &metrics.to_string())
    });
    let mut clients: Vec<TestClient> = (0..8).map(|index| scene.client(Mode::ALL[index % 4])).collect();
    for client in &mut clients {
        client.exchange_confirmed_echo(b"counted");
        client.download(100_000);
    }
    let total = |value: fn(&mtproxy_tests::middle_proxy::LinkCounters) -> u64| {
        scene.middle_proxy.counters().iter().map(value).sum::<u64>()
    };
    let wait = |name: &str, value| {
        metrics_page::wait_for_sample(metrics, &format!("mtproxy_middle_proxy_{name}"), value, PATIENCE);
        assert_eq!(
            metrics_page::sample(metrics, &format!("mtproxy_middle_proxy_{name}")),
            Some(value),
            "{name}"
        );
    };
    wait("requests_total", total(|link| link.requests));
    wait("answers_total{outcome=\"delivered\"}", total(|link| link.answers));
    wait("acks_total{outcome=\"delivered\"}", total(|link| link.simple_acks));
    wait("links{state=\"ready\"}", 2);
    wait("targets{state=\"ready\"}", 1);
    assert_eq!(total(|link| link.simple_acks), 8);
}

#[test]
fn quick_acknowledgements_carry_the_packets_own_token() {
    let scene = Scene::start(FakeMiddleProxy::start(options()));
    for mode in Mode::ALL {
        let mut client = scene.client(mode);
        let body = Command::Echo(vec![1, 2, 3]).body();
        let options = mtproxy_tests::framing::PacketOptions { wants_quick_ack: true, padding: &[] };
        client.send_packet(&body, options);
        assert_eq!(client.receive_quick_ack(), quick_ack_token(&body), "{mode:?}");
        assert_eq!(Command::parse(&client.receive_body()), Some(Command::Echo(vec![1, 2, 3])));
    }
}

#[test]
fn a_proxy_with_idle_links_ends_at_once_when_it_is_told_to() {
    let mut scene = Scene::start(FakeMiddleProxy::start(options()));
    scene.middle_proxy.wait_for_links(2);
    scene.proxy.signal(Signal::TERM);
    assert!(scene.proxy.wait_for_exit(Duration::from_secs(5)).success());
}
