//! Text in both directions, and when it is acknowledged.

use super::*;

#[test]
fn text_goes_out_in_full_segments_and_push_ends_it() {
    let mut t = Trace::accepted();
    t.send(1..3001);
    t.sent("A 1:1449 ack 1");
    t.sent("A 1449:2897 ack 1");
    t.sent("PA 2897:3001 ack 1");
    t.quiet();
    assert_eq!(t.stack.frames_held(), 3);
    t.recv("A 1:1 ack 3001 win 1000");
    assert_eq!(t.stack.frames_held(), 0);
    t.quiet();
}

#[test]
fn small_writes_of_one_turn_share_a_segment() {
    let mut t = Trace::accepted();
    for at in 0..10 {
        t.queue(1 + at * 10..11 + at * 10);
    }
    t.transmit();
    t.sent("PA 1:101 ack 1");
    t.quiet();
    // Nagle is off: what follows does not wait for the acknowledgement.
    t.send(101..111);
    t.sent("PA 101:111 ack 1");
}

#[test]
fn a_dribble_of_small_writes_does_not_take_a_frame_each() {
    let mut t = Trace::accepted();
    for at in 1..1001 {
        t.send(at..at + 1);
    }
    // Twice the ten of the congestion window, and ten; the others wait in one segment.
    assert_eq!(t.stack.frames_held(), 31);
    for at in 1..31 {
        t.sent(&format!("PA {at}:{} ack 1", at + 1));
    }
    t.quiet();
    t.recv("A 1:1 ack 31 win 1000");
    t.sent("PA 31:1001 ack 1");
}

#[test]
fn the_first_segments_are_acknowledged_at_once_then_every_second_or_after_40_ms() {
    let mut t = Trace::accepted();
    let mut at = 1;
    for _ in 0..16 {
        t.recv(&format!("PA {at}:{} ack 1 win 1000", at + 100));
        at += 100;
        t.sent(&format!("A 1:1 ack {at}"));
    }
    t.read();
    t.transmit();
    t.quiet();
    t.recv(&format!("PA {at}:{} ack 1 win 1000", at + 100));
    at += 100;
    t.quiet();
    t.pass_ms(39);
    t.quiet();
    t.pass_ms(1);
    t.sent(&format!("A 1:1 ack {at}"));
    for _ in 0..2 {
        t.quiet();
        t.recv(&format!("PA {at}:{} ack 1 win 1000", at + 100));
        at += 100;
    }
    t.sent(&format!("A 1:1 ack {at}"));
    t.pass_ms(1000);
    t.quiet();
}

#[test]
fn an_acknowledgement_rides_on_text() {
    let mut t = Trace::accepted();
    t.recv_quietly("PA 1:101 ack 1 win 1000");
    t.read();
    t.send(1..11);
    t.sent("PA 1:11 ack 101");
    t.pass_ms(50);
    t.quiet();
}

#[test]
fn a_burst_gets_one_acknowledgement() {
    let mut t = Trace::accepted();
    for at in 0..10 {
        t.recv_quietly(&format!("A {}:{} ack 1 win 1000", 1 + at * 1000, 1001 + at * 1000));
    }
    t.transmit();
    t.sent("A 1:1 ack 10001");
    t.quiet();
    assert_eq!(t.events, [Event::Readable(t.id())]);
    assert_eq!(t.read(), (10_000, false));
}

#[test]
fn text_out_of_order_is_held_acknowledged_at_once_and_reported() {
    let mut t = Trace::accepted();
    t.recv("A 1001:2001 ack 1 win 1000");
    t.sent("A 1:1 ack 1 sack 1001:2001");
    t.recv("A 3001:4001 ack 1 win 1000");
    t.sent("A 1:1 ack 1 sack 3001:4001 sack 1001:2001");
    t.recv("A 2001:3001 ack 1 win 1000");
    t.sent("A 1:1 ack 1 sack 1001:4001");
    assert_eq!(t.read(), (0, false));
    t.recv("A 1:1001 ack 1 win 1000");
    t.sent("A 1:1 ack 4001");
    assert_eq!(t.read(), (4000, false));
    assert_eq!(t.stack.frames_held(), 0);
}

#[test]
fn a_duplicate_is_reported_once_as_such() {
    let mut t = Trace::accepted();
    t.recv("A 1:1001 ack 1 win 1000");
    t.sent("A 1:1 ack 1001");
    t.recv("A 1:1001 ack 1 win 1000");
    t.sent("A 1:1 ack 1001 sack 1:1001");
    t.recv("A 1001:1101 ack 1 win 1000");
    t.sent("A 1:1 ack 1101");
    assert_eq!(t.dropped(DropReason::Duplicate), 1);
    assert_eq!(t.read(), (1100, false));
}

#[test]
fn overlapping_text_is_taken_once() {
    let mut t = Trace::accepted();
    t.recv("A 1:1001 ack 1 win 1000");
    t.sent("A 1:1 ack 1001");
    t.recv("A 501:1501 ack 1 win 1000");
    t.sent("A 1:1 ack 1501");
    assert_eq!(t.read(), (1500, false));
}

#[test]
fn fin_ahead_of_a_gap_counts_when_the_gap_is_closed() {
    let mut t = Trace::accepted();
    t.recv("FA 1001:2001 ack 1 win 1000");
    t.sent("A 1:1 ack 1 sack 1001:2001");
    assert_eq!(t.state(), State::Established);
    t.recv("A 1:1001 ack 1 win 1000");
    t.sent("A 1:1 ack 2002");
    assert_eq!(t.state(), State::CloseWait);
    assert_eq!(t.read(), (2000, true));
    assert_eq!(t.read(), (0, false));
}

#[test]
fn urgent_text_stays_in_line() {
    let mut t = Trace::accepted();
    t.recv("UA 1:101 ack 1 win 1000 urg 50");
    t.sent("A 1:1 ack 101");
    assert_eq!(t.read(), (100, false));
}

#[test]
fn what_the_driver_gives_back_comes_first_again() {
    let mut t = Trace::accepted();
    t.recv_quietly("A 1:1001 ack 1 win 1000");
    t.recv_quietly("A 1001:2001 ack 1 win 1000");
    let Read::Text { frame, range } = t.stack.read(t.id()) else { panic!("there is text") };
    assert_eq!(range.len(), 1000);
    let id = t.id();
    t.stack.unread(id, frame, range, &mut t.link);
    assert!(t.stack.has_text(id));
    assert_eq!(t.read(), (2000, false));
    assert!(!t.stack.has_text(id));
}

#[test]
fn the_send_buffer_is_twice_the_congestion_window_but_64_kib_at_least() {
    let mut t = Trace::accepted();
    assert_eq!(t.queue(1..100_001), 64 << 10);
    t.transmit();
    for _ in 0..10 {
        t.sent_any();
    }
    t.quiet();
    t.recv("A 1:1 ack 14481 win 1000");
    assert_eq!(t.events, [Event::Sent(t.id(), 14_480)]);
    t.events.clear();
    while t.link.take_sent().is_some() {}
    t.recv("A 1:1 ack 43441 win 1000");
    assert_eq!(t.events, [Event::Sent(t.id(), 100_000 - 65_536 - 14_480)]);
}

#[test]
fn a_flight_that_fills_the_ring_does_not_keep_others_from_it() {
    let mut t = Trace::accepted();
    let first = t.id();
    t.remote.set_port(50_001);
    t.recv("S 0:0 win 65535 mss 1460 sackok ws 7 ts");
    t.sent_any();
    t.recv("A 1:1 ack 1 win 1000");
    assert_ne!(t.id(), first);
    let text: Vec<u8> = (1..14_481).map(pattern).collect();
    t.stack.send(first, &text, &mut t.link);
    t.queue(1..101);
    t.link.set_ring_room(2);
    t.transmit();
    while t.link.take_sent().is_some() {}
    t.link.set_ring_room(1);
    t.transmit();
    assert_eq!(t.sent_any(), "PA 1:101 ack 1");
}

#[test]
fn a_full_ring_delays_and_loses_nothing() {
    let mut t = Trace::accepted();
    t.link.set_ring_room(2);
    t.send(1..5001);
    t.sent("A 1:1449 ack 1");
    t.sent("A 1449:2897 ack 1");
    t.quiet();
    assert!(t.stack.wants_transmit());
    t.link.set_ring_room(100);
    t.transmit();
    t.sent("A 2897:4345 ack 1");
    t.sent("PA 4345:5001 ack 1");
    assert!(!t.stack.wants_transmit());
}
