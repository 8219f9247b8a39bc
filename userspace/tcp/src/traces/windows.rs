//! Windows: the peer's and ours (RFC 9293 §3.8.6).

use super::*;

#[test]
fn a_shut_window_is_probed_for_ever_and_ever_more_slowly() {
    let mut t = Trace::accepted();
    t.recv("A 1:1 ack 1 win 0");
    t.send(1..101);
    t.quiet();
    let mut wait = u64::try_from(t.stack.info(t.id()).unwrap().rto.as_millis()).unwrap();
    for _ in 0..20 {
        t.pass_ms(wait - 1);
        t.quiet();
        t.pass_ms(1);
        // A number that the peer must find old.
        t.sent("A 0:0 ack 1");
        t.recv("A 1:1 ack 1 win 0");
        t.quiet();
        wait = (wait * 2).min(120_000);
    }
    assert_eq!(t.state(), State::Established);
    t.recv("A 1:1 ack 1 win 1000");
    t.sent("PA 1:101 ack 1");
}

#[test]
fn a_shut_window_whose_peer_is_silent_is_given_up() {
    let mut t = Trace::accepted();
    t.recv("A 1:1 ack 1 win 0");
    t.send(1..101);
    t.pass_ms(540_000);
    assert!(matches!(t.events[..], [Event::Reset(..)]));
}

#[test]
fn a_small_window_is_used_when_it_is_half_of_the_largest_or_has_waited() {
    let mut t = Trace::accepted_with(Settings::default(), "mss 1460 sackok ts");
    // The largest was 1000.
    t.recv("A 1:1 ack 1 win 499");
    t.send(1..1449);
    t.quiet();
    t.recv("A 1:1 ack 1 win 500");
    t.sent("A 1:501 ack 1");
    t.recv("A 1:1 ack 501 win 400");
    t.quiet();
    t.pass_ms(300);
    t.sent("A 501:901 ack 1");
}

#[test]
fn a_window_that_shrinks_is_survived() {
    let mut t = Trace::accepted();
    t.send(1..14_481);
    for _ in 0..10 {
        t.sent_any();
    }
    t.recv("A 1:1 ack 1449 win 0");
    t.quiet();
    // What is out and was not taken goes out again until the window opens.
    t.pass_ms(300);
    t.sent("A 1449:2897 ack 1");
    t.recv("A 1:1 ack 1449 win 0");
    t.quiet();
    t.recv("A 1:1 ack 14481 win 1000");
    t.quiet();
    assert_eq!(t.stack.frames_held(), 0);
}

#[test]
fn an_acknowledgement_of_something_new_brings_its_window_whatever_its_number() {
    let mut t = Trace::accepted();
    t.send(1..14_481);
    while t.link.take_sent().is_some() {}
    t.recv("A 1001:2001 ack 1 win 1000");
    // What fills the gap is older by its number, and newer by what it acknowledges.
    t.recv("A 1:1001 ack 7241 win 900");
    assert_eq!(t.stack.info(t.id()).unwrap().send_window, 900 << 7);
    // An old segment does not move the window.
    t.recv("A 1001:2001 ack 7241 win 10");
    assert_eq!(t.stack.info(t.id()).unwrap().send_window, 900 << 7);
}

#[test]
fn what_is_unread_narrows_the_window_and_reading_opens_it_with_an_update() {
    let mut t = Trace::accepted();
    let mut at = 1;
    while at < 60_001 {
        t.recv_quietly(&format!("A {at}:{} ack 1 win 1000", at + 1000));
        at += 1000;
    }
    t.transmit();
    t.sent("A 1:1 ack 60001 win 41");
    assert_eq!(t.stack.info(t.id()).unwrap().unread, 60_000);
    for at in (60_001..65_161).step_by(1290) {
        t.recv_quietly(&format!("A {at}:{} ack 1 win 1000", at + 1290));
    }
    t.transmit();
    // The scale's unit rounds a promise up, since rounding it down would take some of it back.
    t.sent("A 1:1 ack 65161 win 1");
    assert_eq!(t.read(), (65_160, false));
    t.transmit();
    t.sent("A 1:1 ack 65161 win 509");
}

#[test]
fn the_right_edge_never_moves_left() {
    let mut t = Trace::accepted();
    let mut edge = 1 + 65_160;
    let mut at = 1_u32;
    for step in 0..400_u32 {
        let len = 1 + (step * 37) % 400;
        if t.stack.info(t.id()).unwrap().receive_window < len {
            break;
        }
        t.recv(&format!("A {at}:{} ack 1 win 1000", at + len));
        at += len;
        while t.link.sent_count() > 0 {
            t.sent_any();
            let segment = t.last.as_ref().unwrap();
            let new = (segment.ack - PEER_ISS) + (u32::from(segment.window) << 7);
            assert!(new >= edge, "{new} after {edge}");
            edge = new;
        }
    }
    assert!(at > 60_000);
}

#[test]
fn a_probe_of_our_shut_window_is_heard_and_its_text_left() {
    let mut t = Trace::accepted();
    t.send(1..101);
    t.sent("PA 1:101 ack 1");
    let mut at = 1;
    while t.stack.info(t.id()).unwrap().receive_window > 0 {
        let len = t.stack.info(t.id()).unwrap().receive_window.min(1400);
        t.recv_quietly(&format!("A {at}:{} ack 1 win 1000", at + len));
        at += len;
    }
    t.transmit();
    while t.link.sent_count() > 0 {
        t.sent_any();
    }
    t.recv(&format!("A {at}:{} ack 101 win 1000", at + 1));
    assert_eq!(t.sent_any(), format!("A 101:101 ack {at}"));
    assert_eq!(t.stack.frames_held(), t.link.frames_taken());
    assert_eq!(t.stack.info(t.id()).unwrap().queued, 0);
}

#[test]
fn text_beyond_the_window_is_cut_off() {
    let mut t = Trace::accepted();
    for at in (1..65_001).step_by(1000) {
        t.recv_quietly(&format!("A {at}:{} ack 1 win 1000", at + 1000));
    }
    t.recv("FA 65001:66001 ack 1 win 1000");
    let window = t.stack.info(t.id()).unwrap().receive_window;
    assert_eq!(t.stack.info(t.id()).unwrap().unread, 65_160);
    assert_eq!((window, t.state()), (0, State::Established));
    assert_eq!(t.dropped(DropReason::BeyondWindow), 1);
}

#[test]
fn the_window_follows_what_is_drained() {
    let mut t = Trace::accepted();
    let mut at = 1;
    for _ in 0..8 {
        // A window full each round trip.
        let window = t.stack.info(t.id()).unwrap().receive_window;
        let end = at + window / 1000 * 1000;
        while at < end {
            t.recv_quietly(&format!("A {at}:{} ack 1 win 1000", at + 1000));
            at += 1000;
            if at % 20_000 == 1 {
                t.read();
            }
        }
        t.read();
        t.transmit();
        t.pass_ms(10);
        while t.link.take_sent().is_some() {}
    }
    let window = t.stack.info(t.id()).unwrap().receive_window;
    assert!(window > 1 << 20, "{window}");
    assert!(window <= 4 << 20, "{window}");
}

#[test]
fn an_idle_connection_is_kept_alive_only_if_asked_for() {
    let mut t = Trace::accepted();
    t.pass_ms(100 * 3_600_000);
    t.quiet();
    let keepalive = crate::settings::Keepalive {
        idle: Duration::from_secs(100),
        interval: Duration::from_secs(10),
        probes: 3,
    };
    let settings = Settings { keepalive: Some(keepalive), ..Settings::default() };
    let mut t = Trace::accepted_with(settings, SYN_OPTIONS);
    t.pass_ms(99_999);
    t.quiet();
    t.pass_ms(1);
    t.sent("A 0:0 ack 1");
    t.recv("A 1:1 ack 1 win 1000");
    t.pass_ms(99_999);
    t.quiet();
    for _ in 0..3 {
        t.pass_ms(1);
        t.sent("A 0:0 ack 1");
        t.pass_ms(9_999);
        t.quiet();
    }
    t.pass_ms(1);
    t.sent("RA 1:1 ack 1");
    t.gone();
}
