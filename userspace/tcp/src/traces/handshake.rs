//! Opening (RFC 9293 §3.5), both roles, both at once, and cookies.

use super::*;
use crate::event::{ConnectError, ConnectFailure};

#[test]
fn a_syn_is_answered_and_the_third_segment_opens() {
    let mut t = Trace::new(Settings::default());
    t.recv("S 0:0 win 65535 mss 1460 sackok ws 7 ts");
    t.sent("SA 0:0 ack 1 win 65160 mss 1460 sackok ws 7 ts");
    assert_eq!((t.stack.half_open_count(), t.stack.connection_count()), (1, 1));
    t.pass_ms(30);
    t.recv("A 1:1 ack 1 win 500");
    t.quiet();
    assert!(matches!(t.events[..], [Event::Accepted(_, remote)] if remote == t.remote));
    let info = t.stack.info(t.id()).unwrap();
    assert_eq!((info.state, info.smss, info.send_window), (State::Established, 1448, 500 << 7));
    assert_eq!(info.srtt, Some(Duration::from_millis(30)));
    assert_eq!(info.cwnd, 14_480);
    assert_eq!(t.stack.half_open_count(), 0);
}

#[test]
fn options_that_the_peer_lacks_are_not_answered() {
    let mut t = Trace::accepted_with(Settings::default(), "mss 1460");
    assert_eq!(t.stack.info(t.id()).unwrap().smss, 1460);
    let syn_ack = t.last.take().unwrap();
    assert_eq!((syn_ack.options.window_scale, syn_ack.options.timestamps), (None, None));
    assert!(!syn_ack.options.sack_permitted);
}

#[test]
fn without_an_mss_option_the_default_holds_and_a_tiny_one_is_clamped() {
    let t = Trace::accepted_with(Settings::default(), "ts");
    assert_eq!(t.stack.info(t.id()).unwrap().smss, 536 - 12);
    let t = Trace::accepted_with(Settings::default(), "mss 1 ts");
    assert_eq!(t.stack.info(t.id()).unwrap().smss, 88 - 12);
}

#[test]
fn ipv6_has_larger_headers_and_a_larger_default() {
    let mut t = Trace::new(Settings::default());
    t.local = "[2001:db8::1]:443".parse().unwrap();
    t.remote = "[2001:db8::7]:50000".parse().unwrap();
    t.stack.listen("[::]:443".parse().unwrap());
    t.recv("S 0:0 win 65535 ts");
    t.sent("SA 0:0 ack 1 mss 1440 ts");
    t.recv("A 1:1 ack 1 win 5000");
    assert_eq!(t.stack.info(t.id()).unwrap().smss, 1220 - 12);
    t.send(1..3000);
    t.sent("A 1:1209 ack 1");
}

#[test]
fn a_lost_syn_ack_goes_out_again_and_a_peer_that_never_answers_is_forgotten() {
    let mut t = Trace::syn_received();
    for wait in [1000, 2000, 4000, 8000, 16_000] {
        t.pass_ms(wait - 1);
        t.quiet();
        t.pass_ms(1);
        t.sent("SA 0:0 ack 1 mss 1460 sackok ws 7 ts");
    }
    t.pass_ms(32_000);
    t.quiet();
    assert_eq!(t.events, []);
    t.gone();
}

#[test]
fn a_syn_that_comes_again_is_answered_again() {
    let mut t = Trace::syn_received();
    t.pass_ms(600);
    t.recv("S 0:0 win 65535 mss 1460 sackok ws 7 ts");
    t.sent("SA 0:0 ack 1 mss 1460 sackok ws 7 ts");
    assert_eq!(t.dropped(DropReason::DuplicateSyn), 1);
}

#[test]
fn the_third_segment_may_bring_text_and_fin() {
    let mut t = Trace::syn_received();
    t.recv("FPA 1:101 ack 1 win 500");
    t.sent("A 1:1 ack 102");
    assert_eq!(t.state(), State::CloseWait);
    assert_eq!(t.read(), (100, true));
    let id = t.id();
    assert_eq!(t.events[1], Event::Readable(id));
}

#[test]
fn text_on_a_syn_is_left_to_be_sent_again() {
    let mut t = Trace::new(Settings::default());
    t.recv("S 0:100 win 65535 mss 1460 ts");
    t.sent("SA 0:0 ack 1 mss 1460 ts");
}

#[test]
fn a_wrong_acknowledgement_of_our_syn_is_reset() {
    for wrong in [0, 2] {
        let mut t = Trace::syn_received();
        t.recv(&format!("A 1:1 ack {wrong} win 500"));
        assert!(t.sent_any().starts_with("R "));
        assert_eq!(t.stack.half_open_count(), 1);
    }
}

#[test]
fn a_reset_returns_a_half_open_connection_to_listen() {
    let mut t = Trace::syn_received();
    t.recv("R 1:1");
    t.quiet();
    assert_eq!(t.events, []);
    t.gone();
}

#[test]
fn we_dial_and_the_peer_answers() {
    let mut t = Trace::dialling();
    assert_eq!(t.last.as_ref().unwrap().window, 64_240);
    t.pass_ms(20);
    t.recv("SA 0:0 ack 1 win 65535 mss 1400 sackok ws 9 ts");
    t.sent("A 1:1 ack 1");
    assert_eq!(t.events, [Event::Connected(t.id())]);
    let info = t.stack.info(t.id()).unwrap();
    assert_eq!((info.smss, info.srtt), (1388, Some(Duration::from_millis(20))));
}

#[test]
fn text_that_was_queued_before_there_was_a_connection_follows_the_handshake() {
    let mut t = Trace::dialling();
    t.queue(1..101);
    t.transmit();
    t.quiet();
    t.recv("SA 0:0 ack 1 win 65535 mss 1460 sackok ws 7 ts");
    t.sent("PA 1:101 ack 1");
    t.quiet();
}

#[test]
fn text_laid_out_for_timestamps_moves_if_the_peer_has_none() {
    let mut t = Trace::dialling();
    t.queue(1..1450);
    t.timestamps = false;
    t.recv("SA 0:0 ack 1 win 65535 mss 1460");
    t.sent("A 1:1449 ack 1");
    t.sent("PA 1449:1450 ack 1");
    assert_eq!(t.stack.counters().copies, 2);
}

#[test]
fn a_refused_dial_is_told() {
    let mut t = Trace::dialling();
    t.recv("RA 0:0 ack 1");
    assert_eq!(t.events, [Event::ConnectFailed(t.id(), ConnectFailure::Refused)]);
    t.gone();
}

#[test]
fn a_reset_that_acknowledges_nothing_of_ours_does_not_end_a_dial() {
    for line in ["RA 0:0 ack 2", "RA 0:0 ack 0", "R 0:0"] {
        let mut t = Trace::dialling();
        t.recv(line);
        t.quiet();
        assert_eq!(t.events, []);
        assert_eq!(t.state(), State::SynSent);
    }
}

#[test]
fn an_old_acknowledgement_in_syn_sent_is_reset() {
    let mut t = Trace::dialling();
    t.recv("A 0:0 ack 77 win 500");
    assert_eq!(t.sent_any(), "R 77:77");
    assert_eq!(t.state(), State::SynSent);
}

#[test]
fn a_dial_that_nobody_answers_times_out() {
    let mut t = Trace::dialling();
    for wait in [1000, 2000, 4000, 8000] {
        t.pass_ms(wait);
        t.sent("S 0:0 mss 1460 sackok ws 7 ts");
    }
    t.pass_ms(15_000);
    t.quiet();
    assert_eq!(t.events, [Event::ConnectFailed(t.id(), ConnectFailure::TimedOut)]);
    t.gone();
}

#[test]
fn both_may_open_at_once() {
    let mut t = Trace::dialling();
    t.recv("S 0:0 win 65535 mss 1460 sackok ws 7 ts");
    t.sent("SA 0:0 ack 1 mss 1460 sackok ws 7 ts");
    assert_eq!(t.state(), State::SynReceived);
    t.recv("SA 0:0 ack 1 win 65535 mss 1460 sackok ws 7 ts");
    assert_eq!(t.state(), State::Established);
    assert_eq!(t.events, [Event::Connected(t.id())]);
}

#[test]
fn a_tuple_in_use_is_not_dialled_again_and_a_host_without_route_not_at_all() {
    let mut t = Trace::dialling();
    let again = t.stack.connect(t.now, t.local, t.remote, &mut t.link);
    assert_eq!(again, Err(ConnectError::InUse));
    let oneself = t.stack.connect(t.now, t.local, t.local, &mut t.link);
    assert_eq!(oneself, Err(ConnectError::NoRoute));
    t.link.set_hop(None);
    let other = "203.0.113.5:443".parse().unwrap();
    assert_eq!(t.stack.connect(t.now, t.local, other, &mut t.link), Err(ConnectError::NoRoute));
}

fn without_memory_for_half_open() -> Settings {
    Settings { half_open_max: 0, ..Settings::default() }
}

#[test]
fn above_the_threshold_a_cookie_is_sent_and_its_return_opens() {
    let mut t = Trace::new(without_memory_for_half_open());
    t.recv("S 0:0 win 65535 mss 1460 sackok ws 9 ts");
    t.sent("SA 0:0 ack 1 win 65160 mss 1460 sackok ws 7 ts");
    t.gone();
    t.pass_ms(50);
    t.recv("PA 1:101 ack 1 win 500");
    t.sent("A 1:1 ack 101");
    assert_eq!(t.state(), State::Established);
    let info = t.stack.info(t.id()).unwrap();
    assert_eq!((info.smss, info.send_window), (1448, 500 << 9));
    assert_eq!(t.read(), (100, false));
    assert_eq!(t.stack.counters().cookies_accepted, 1);
    // Our timestamps do not run backwards after the cookie's.
    t.send(1..101);
    t.sent("PA 1:101 ack 101");
}

#[test]
fn a_cookie_without_timestamps_promises_no_more_than_it_can_remember() {
    let mut t = Trace::new(without_memory_for_half_open());
    t.timestamps = false;
    t.recv("S 0:0 win 65535 mss 1300 sackok ws 9");
    t.sent("SA 0:0 ack 1 win 64240 mss 1460");
    t.recv("A 1:1 ack 1 win 500");
    let info = t.stack.info(t.id()).unwrap();
    assert_eq!((info.smss, info.send_window), (1300, 500));
}

#[test]
fn a_guessed_cookie_is_nobodys_segment() {
    let mut t = Trace::new(without_memory_for_half_open());
    t.recv("S 0:0 win 65535 mss 1460 ts");
    t.sent_any();
    let unknown = t.recv_quietly("A 1:1 ack 2 win 500").expect("it is unknown");
    t.stack.refuse(t.now, unknown, &mut t.link);
    assert_eq!(t.sent_any(), "R 2:2");
    t.gone();
}

#[test]
fn an_old_cookie_is_worth_nothing() {
    let mut t = Trace::new(without_memory_for_half_open());
    t.recv("S 0:0 win 65535 mss 1460 ts");
    t.sent_any();
    t.pass_ms(128_000);
    let unknown = t.recv_quietly("A 1:1 ack 1 win 500").expect("it is unknown");
    t.link.release(unknown.frame);
    t.gone();
}

#[test]
fn a_segment_of_nobody_comes_back_and_is_refused_as_the_rfc_says() {
    let mut t = Trace::new(Settings::default());
    t.stack.stop_listening();
    t.timestamps = false;
    let unknown = t.recv_quietly("S 0:0 win 500").expect("it is unknown");
    assert_eq!((unknown.local, unknown.remote), (t.local, t.remote));
    t.stack.refuse(t.now, unknown, &mut t.link);
    assert_eq!(t.sent_any(), "RA 0:0 ack 1");
    let unknown = t.recv_quietly("R 1:1").expect("it is unknown");
    t.stack.refuse(t.now, unknown, &mut t.link);
    t.quiet();
    t.gone();
}

#[test]
fn what_nobody_knows_says_whether_it_asks_for_a_connection() {
    let mut t = Trace::new(Settings::default());
    t.local = "192.0.2.1:444".parse().unwrap();
    for (segment, is_syn) in
        [("S 0:0 win 65535", true), ("SA 0:0 ack 1 win 65535", false), ("A 1:1 ack 1 win 1000", false)]
    {
        let unknown = t.recv_quietly(segment).expect("nobody listens");
        assert_eq!(unknown.is_syn, is_syn, "{segment}");
        t.link.release(unknown.frame);
    }
}
