//! How sessions through middle proxies end, and what both sides are told: the second table of docs/session.md.

use std::time::Duration;

use mtproxy_core::error::{DropReason, PeerMisbehaved};
use mtproxy_core::event::What;
use mtproxy_core::transport::Transport;
use mtproxy_tests::middle_proxy::Telegram;
use mtproxy_tests::{Command, MiddleProxyOptions};

use super::driver::middle_proxies::{Lab, PROXY_SECRET, config_with, middle_proxies};
use super::driver::{Told, plain};

/// A client that was answered, and the link it goes by.
fn answered() -> (Lab, usize) {
    let mut lab = Lab::new(config_with(middle_proxies(1)));
    let client = lab.client(plain(), Transport::Intermediate);
    lab.exchanges(client, b"hello");
    (lab, client)
}

/// A client whose request nobody answers.
fn unanswered() -> (Lab, usize) {
    let options = MiddleProxyOptions::new(&PROXY_SECRET).with_telegram(Telegram::Silent);
    let mut lab = Lab::with(config_with(middle_proxies(1)), options);
    let client = lab.client(plain(), Transport::Intermediate);
    lab.sends(client, &Command::Echo(b"hello".to_vec()).body(), false);
    lab.settle();
    (lab, client)
}

fn is_told_of_the_end(lab: &mut Lab, client: usize) {
    let (link, name) = lab.link_of(client);
    assert!(lab.link(link).report().closed.contains(&name), "the middle proxy is told");
}

#[test]
fn a_client_that_ends_its_side_with_nothing_outstanding_is_closed() {
    let (mut lab, client) = answered();
    lab.world.fin(lab.clients[client].stream);
    lab.settle();
    assert_eq!(lab.world.told(lab.clients[client].stream), Told::Closed);
    assert_eq!(lab.world.outcome(), Some(Ok(())));
    is_told_of_the_end(&mut lab, client);
}

#[test]
fn a_client_that_ends_its_side_still_gets_the_answer_it_waits_for() {
    let (mut lab, client) = unanswered();
    let stream = lab.clients[client].stream;
    lab.world.fin(stream);
    lab.pass(Duration::from_secs(9));
    let (link, name) = lab.link_of(client);
    lab.link(link).push(name, &Command::Echo(b"late".to_vec()).body());
    lab.settle();
    assert_eq!(lab.clients[client].received.len(), 1);
    lab.pass(Duration::from_secs(11));
    assert_eq!((lab.world.told(stream), lab.world.outcome()), (Told::Closed, Some(Ok(()))));
    is_told_of_the_end(&mut lab, client);
}

#[test]
fn a_client_that_resets_is_forgotten() {
    let (mut lab, client) = unanswered();
    lab.world.reset(lab.clients[client].stream);
    lab.settle();
    assert!(lab.world.has_ended_with(DropReason::ClientReset));
    is_told_of_the_end(&mut lab, client);
}

#[test]
fn a_client_whose_conversation_the_middle_proxy_ends_gets_what_is_queued_and_is_closed() {
    let (mut lab, client) = answered();
    let stream = lab.clients[client].stream;
    lab.world.stall(stream);
    let (link, name) = lab.link_of(client);
    lab.link(link).push(name, &Command::Echo(b"last words".to_vec()).body());
    lab.link(link).close_client(name);
    lab.settle();
    assert_eq!(lab.world.told(stream), Told::Nothing);
    lab.world.unstall(stream);
    lab.settle();
    assert_eq!(lab.clients[client].received.len(), 2);
    assert_eq!(lab.world.told(stream), Told::Fin);
    lab.world.answer_farewells();
    assert_eq!(lab.world.outcome(), Some(Ok(())));
    assert!(lab.link(link).report().closed.is_empty(), "it knows already");
}

#[test]
fn a_packet_that_cannot_be_one_closes_the_client_behind_the_good_ones() {
    let (mut lab, client) = answered();
    let stream = lab.clients[client].stream;
    let good = lab.encoded(client, &Command::Echo(b"a good one".to_vec()).body(), false);
    lab.world.say(stream, &good);
    // Whatever four bytes decrypt to, some of these lengths cannot be one: zero is tried until it is.
    for _ in 0..64 {
        if lab.world.told(stream) == Told::Nothing {
            lab.world.say(stream, &[0xff; 4]);
        }
    }
    lab.settle();
    assert!(lab.world.has_reported(What::Misbehaved(PeerMisbehaved::BadPacketLength)));
    let (link, _) = lab.link_of(client);
    assert_eq!(lab.link(link).report().counters.requests, 2);
}

#[test]
fn a_client_that_says_nothing_for_the_idle_timeout_is_closed() {
    let (mut lab, client) = answered();
    lab.pass(Duration::from_secs(300 + 300 / 8 + 1));
    lab.world.answer_farewells();
    assert!(lab.world.has_ended_with(DropReason::Idle));
    is_told_of_the_end(&mut lab, client);
}

#[test]
fn stopping_resets_clients_and_links() {
    let (mut lab, client) = unanswered();
    lab.world.stop();
    assert_eq!(lab.world.told(lab.clients[client].stream), Told::Rst);
    lab.world.assert_empty();
}
