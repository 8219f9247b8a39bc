//! Links: how many, when they are dialled, how their loss is noticed and what becomes of their clients.

use std::time::Duration;

use mtproxy_core::dc::DcId;
use mtproxy_core::error::DropReason;
use mtproxy_core::middle_proxy::settings::MiddleProxies;
use mtproxy_core::middle_proxy::{Clusters, LinkEventKind, LinkLoss, TargetConfig};
use mtproxy_core::transport::Transport;
use mtproxy_tests::dc_codec::Ending;
use mtproxy_tests::middle_proxy::{DataFault, HandshakeFault, NonceFault, Telegram};
use mtproxy_tests::{Command, MiddleProxyOptions, Misbehaviour};

use super::driver::middle_proxies::{Lab, MIDDLE_PROXY, PROXY_SECRET, config_with, middle_proxies};
use super::driver::{DC, Told, address, plain};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn losses(lab: &Lab) -> Vec<LinkLoss> {
    let loss = |event: &mtproxy_core::middle_proxy::LinkEvent| match event.kind {
        LinkEventKind::Lost { why, .. } => Some(why),
        LinkEventKind::Ready { .. } => None,
    };
    lab.events.iter().filter_map(loss).collect()
}

#[test]
fn a_pool_is_filled_before_anybody_comes() {
    let mut lab = Lab::new(config_with(middle_proxies(4)));
    lab.settle();
    assert_eq!(lab.ready_links().len(), 4);
    assert_eq!((lab.world.engine.link_counts(), lab.world.engine.target_counts()), ((4, 4), (1, 1)));
}

#[test]
fn clients_are_spread_over_all_links() {
    let mut lab = Lab::new(config_with(middle_proxies(4)));
    for number in 0..64 {
        let client = lab.client(plain(), Transport::Intermediate);
        lab.exchanges(client, &[number]);
    }
    for link in lab.ready_links() {
        let clients = lab.link(link).report().counters.connections_open;
        assert!((6..=30).contains(&clients), "{clients} of 64 on one of four links");
    }
}

#[test]
fn every_wrong_word_of_a_middle_proxy_ends_its_link_with_a_reason() {
    let faults = [
        Misbehaviour::EndsAtOnce(Ending::Close),
        Misbehaviour::EndsAtOnce(Ending::Reset),
        Misbehaviour::Nonce(NonceFault::Selector),
        Misbehaviour::Nonce(NonceFault::Schema(2)),
        Misbehaviour::Nonce(NonceFault::ClockSkew(31)),
        Misbehaviour::Nonce(NonceFault::ClockSkew(-31)),
        Misbehaviour::Nonce(NonceFault::BytesBehind),
        Misbehaviour::Nonce(NonceFault::Checksum),
        Misbehaviour::Nonce(NonceFault::Sequence(-1)),
        Misbehaviour::Nonce(NonceFault::Op),
        Misbehaviour::Nonce(NonceFault::Length),
        Misbehaviour::Handshake(HandshakeFault::Refusal(-4)),
        Misbehaviour::Handshake(HandshakeFault::Peer),
        Misbehaviour::Handshake(HandshakeFault::Flags(1)),
        Misbehaviour::Handshake(HandshakeFault::Checksum),
        Misbehaviour::Handshake(HandshakeFault::Sequence(1)),
        Misbehaviour::Handshake(HandshakeFault::Length),
        Misbehaviour::Handshake(HandshakeFault::InClear),
    ];
    for fault in faults {
        let options = MiddleProxyOptions::new(&PROXY_SECRET).misbehaving(fault.clone());
        let mut lab = Lab::with(config_with(middle_proxies(1)), options);
        lab.settle();
        assert_eq!((lab.ready_links().len(), losses(&lab).len()), (0, 1), "{fault:?}");
        // A client that comes meanwhile waits, and is served when the middle proxy has come to its senses.
        let client = lab.client(plain(), Transport::Intermediate);
        lab.set_options(MiddleProxyOptions::new(&PROXY_SECRET));
        lab.pass(Duration::from_millis(1200));
        lab.exchanges(client, b"at last");
    }
}

#[test]
fn a_clock_that_differs_by_thirty_seconds_will_do() {
    for skew in [30, -30] {
        let fault = Misbehaviour::Nonce(NonceFault::ClockSkew(skew));
        let options = MiddleProxyOptions::new(&PROXY_SECRET).misbehaving(fault);
        let mut lab = Lab::with(config_with(middle_proxies(1)), options);
        lab.settle();
        let ready = LinkEventKind::Ready { clock_skew_seconds: skew.into() };
        assert_eq!(lab.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [ready]);
    }
}

#[test]
fn a_link_that_is_not_ready_in_three_seconds_is_dialled_again() {
    for fault in [Misbehaviour::Nonce(NonceFault::Never), Misbehaviour::Handshake(HandshakeFault::Never)] {
        let options = MiddleProxyOptions::new(&PROXY_SECRET).misbehaving(fault);
        let mut lab = Lab::with(config_with(middle_proxies(1)), options);
        lab.pass(Duration::from_millis(2990));
        assert_eq!(losses(&lab), []);
        lab.set_options(MiddleProxyOptions::new(&PROXY_SECRET));
        lab.pass(Duration::from_millis(20));
        assert_eq!(losses(&lab), [LinkLoss::NotReady]);
        lab.pass(seconds(2));
        assert_eq!(lab.ready_links().len(), 1);
    }
}

#[test]
fn pauses_between_dials_grow_while_nobody_answers() {
    let mut lab = Lab::new(config_with(middle_proxies(1)));
    lab.is_up = false;
    lab.pass(seconds(60));
    let dials = losses(&lab).len();
    assert!((6..=9).contains(&dials), "{dials} dials in a minute");
    assert!(losses(&lab).iter().all(|why| matches!(why, LinkLoss::Dial(_))));
}

#[test]
fn a_client_for_whom_there_is_no_link_is_closed_when_a_dial_would_have_failed() {
    let mut lab = Lab::new(config_with(middle_proxies(1)));
    lab.is_up = false;
    let client = lab.client(plain(), Transport::Intermediate);
    lab.sends(client, &Command::Echo(b"hello".to_vec()).body(), false);
    lab.pass(Duration::from_millis(4900));
    assert_eq!(lab.world.told(lab.clients[client].stream), Told::Nothing);
    lab.pass(Duration::from_millis(200));
    assert!(lab.world.has_ended_with_after_farewell(DropReason::UpstreamUnreachable));
}

#[test]
fn a_data_centre_without_a_cluster_and_a_default_is_refused_at_once() {
    let target = TargetConfig { address: address(MIDDLE_PROXY), min_connections: 1, max_connections: 1 };
    let clusters = Clusters::new(DcId(9), [(DcId(4), vec![target])]);
    let mut lab = Lab::new(config_with(MiddleProxies { clusters, ..middle_proxies(1) }));
    let _ = lab.client_of(plain(), Transport::Intermediate, DcId(5));
    assert!(lab.world.has_ended_with_after_farewell(DropReason::UpstreamUnreachable));
    let served = lab.client_of(plain(), Transport::Intermediate, DcId(4));
    lab.exchanges(served, b"by its own cluster");
}

#[test]
fn the_default_cluster_serves_whoever_has_none() {
    let mut lab = Lab::new(config_with(middle_proxies(1)));
    for dc in [DcId(5), DcId(-2), DcId(10_002), DcId(0)] {
        let client = lab.client_of(plain(), Transport::Intermediate, dc);
        lab.exchanges(client, b"by the default");
    }
}

#[test]
fn a_link_that_breaks_closes_only_clients_that_wait_for_an_answer() {
    let mut lab = Lab::new(config_with(middle_proxies(2)));
    let quiet = lab.client(plain(), Transport::Intermediate);
    lab.exchanges(quiet, b"answered");
    let (broken, old_name) = lab.link_of(quiet);
    lab.pass(seconds(15));
    // Clients until one has chosen the same link, and one the other.
    let mut busy = Vec::new();
    let mut elsewhere = Vec::new();
    while busy.is_empty() || elsewhere.is_empty() {
        let client = lab.client(plain(), Transport::Intermediate);
        lab.exchanges(client, b"answered just now");
        if lab.link_of(client).0 == broken { busy.push(client) } else { elsewhere.push(client) }
    }
    lab.link(broken).end_abruptly(Ending::Reset);
    lab.settle();
    assert_eq!(losses(&lab), [LinkLoss::Reset]);
    for client in busy {
        assert_ne!(lab.world.told(lab.clients[client].stream), Told::Nothing, "it may have lost something");
    }
    for client in elsewhere {
        lab.exchanges(client, b"I have noticed nothing");
    }
    lab.exchanges(quiet, b"neither have I");
    let (link, name) = lab.link_of(quiet);
    assert!(link != broken && name == old_name);
}

#[test]
fn a_client_with_an_unanswered_request_is_closed_however_long_ago_it_was() {
    let options = MiddleProxyOptions::new(&PROXY_SECRET).with_telegram(Telegram::Silent);
    let mut lab = Lab::with(config_with(middle_proxies(1)), options);
    let client = lab.client(plain(), Transport::Intermediate);
    lab.sends(client, &Command::Echo(b"hello".to_vec()).body(), false);
    lab.pass(seconds(40));
    let link = lab.ready_links()[0];
    lab.link(link).end_abruptly(Ending::Close);
    lab.settle();
    assert!(lab.world.has_ended_with_after_farewell(DropReason::MiddleProxyLost));
}

#[test]
fn a_silent_link_is_pinged_and_one_that_stalls_is_replaced() {
    let mut lab = Lab::new(config_with(middle_proxies(1)));
    lab.pass(seconds(35));
    let link = lab.ready_links()[0];
    assert!((2..=4).contains(&lab.link(link).report().counters.pings_received), "every ten seconds");
    lab.link(link).stall();
    lab.pass(seconds(21));
    assert_eq!(losses(&lab), [LinkLoss::Stalled]);
    assert_eq!(lab.ready_links().len(), 1, "and another one is there");
}

#[test]
fn a_peer_that_knows_no_pings_is_given_up_only_when_a_client_waits() {
    let fault = Misbehaviour::After { requests: 0, fault: DataFault::NoPongs };
    let options = MiddleProxyOptions::new(&PROXY_SECRET).misbehaving(fault).with_telegram(Telegram::Silent);
    let mut lab = Lab::with(config_with(middle_proxies(1)), options);
    lab.pass(seconds(200));
    assert_eq!(losses(&lab), []);
    let client = lab.client(plain(), Transport::Intermediate);
    lab.sends(client, &Command::Echo(b"hello".to_vec()).body(), false);
    lab.pass(seconds(40));
    assert_eq!(losses(&lab), [LinkLoss::Stalled]);
}

#[test]
fn pings_are_answered_and_answers_for_nobody_are_refused() {
    let mut lab = Lab::new(config_with(middle_proxies(1)));
    lab.settle();
    let link = lab.ready_links()[0];
    lab.link(link).ping(42);
    lab.link(link).commit(&DataFault::AnswerTo(12_345));
    lab.link(link).commit(&DataFault::CloseExtOf(777));
    lab.settle();
    assert_eq!(lab.link(link).report().counters.pongs_received, 1);
    assert_eq!(lab.link(link).report().closed, [12_345], "nothing is said of a close");
    assert_eq!(lab.world.engine.forwarded().answers_dropped, 1);
}

#[test]
fn a_reload_keeps_targets_that_are_still_named_and_lets_go_of_the_others() {
    let mut lab = Lab::new(config_with(middle_proxies(1)));
    let client = lab.client(plain(), Transport::Intermediate);
    lab.exchanges(client, b"before");
    let old = lab.link_of(client).0;
    let other = |port| TargetConfig {
        address: ([192, 0, 2, 88], port).into(),
        min_connections: 1,
        max_connections: 1,
    };
    let both = Clusters::new(DC, [(DC, vec![other(8888), other(8889)])]);
    lab.world.set_config(config_with(MiddleProxies { clusters: both, ..middle_proxies(1) }));
    lab.settle();
    assert_eq!(lab.ready_links().len(), 2);
    lab.exchanges(client, b"after");
    assert_eq!(lab.link_of(client).0, old);
    let second_only = Clusters::new(DC, [(DC, vec![other(8889)])]);
    lab.world.set_config(config_with(MiddleProxies { clusters: second_only, ..middle_proxies(1) }));
    lab.pass(seconds(20));
    lab.exchanges(client, b"it has a client, so it may stay for a while");
    lab.pass(seconds(301));
    assert_eq!(lab.ready_links().len(), 1);
    assert!(losses(&lab).contains(&LinkLoss::Retired));
    lab.exchanges(client, b"by the other one now");
}

#[test]
fn a_bad_frame_ends_a_link_that_was_ready() {
    for fault in [
        DataFault::Checksum,
        DataFault::Sequence(5),
        DataFault::SequenceGap(1),
        DataFault::FrameLength(8),
        DataFault::FrameLength(12),
        DataFault::FrameLength(17),
        DataFault::FrameLength(0),
        DataFault::FrameLength(1 << 25),
    ] {
        let mut lab = Lab::new(config_with(middle_proxies(1)));
        lab.settle();
        let link = lab.ready_links()[0];
        lab.link(link).commit(&fault);
        lab.settle();
        assert!(matches!(losses(&lab)[..], [LinkLoss::Frame(_)]), "{fault:?}: {:?}", losses(&lab));
    }
}

#[test]
fn a_drained_proxy_keeps_its_links_until_the_last_client_has_left() {
    let mut lab = Lab::new(config_with(middle_proxies(2)));
    let client = lab.client(plain(), Transport::Intermediate);
    lab.exchanges(client, b"before");
    lab.world.engine.drain();
    lab.pass(seconds(5));
    lab.exchanges(client, b"still served");
    lab.world.fin(lab.clients[client].stream);
    lab.pass(seconds(1));
    lab.world.assert_empty();
    assert_eq!(lab.world.engine.link_counts(), (0, 0));
}
