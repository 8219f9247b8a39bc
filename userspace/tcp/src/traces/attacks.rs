//! Segments that others made up, or that are old (RFC 5961, 7323 §5, 1337, 9293 §3.10.7).

use super::*;
use crate::event::ResetReason;

#[test]
fn a_reset_counts_only_if_its_number_is_exact() {
    let mut t = Trace::accepted();
    t.recv("R 1:1");
    assert_eq!(t.events, [Event::Reset(t.id(), ResetReason::ByPeer)]);

    // In the window: challenged. A peer that means it answers with the right number.
    let mut t = Trace::accepted();
    t.recv("R 2:2");
    t.sent("A 1:1 ack 1");
    assert_eq!(t.dropped(DropReason::ResetNotExact), 1);
    t.recv("R 1:1");
    assert!(matches!(t.events[..], [Event::Reset(..)]));

    // Outside: nothing.
    for number in [0, 70_000] {
        let mut t = Trace::accepted();
        t.recv(&format!("R {number}:{number}"));
        t.quiet();
        assert_eq!(t.dropped(DropReason::ResetOutsideWindow), 1);
        assert_eq!(t.state(), State::Established);
    }
}

#[test]
fn a_syn_on_a_connection_is_challenged() {
    for number in [1, 100, 100_000] {
        let mut t = Trace::accepted();
        t.recv(&format!("S {number}:{number} win 500 mss 1460 ts"));
        t.sent("A 1:1 ack 1");
        assert_eq!(t.state(), State::Established);
        assert_eq!(t.stack.counters().challenges, 1);
    }
}

#[test]
fn one_connection_is_challenged_twice_a_second_at_most() {
    let mut t = Trace::accepted();
    for _ in 0..10 {
        t.recv("R 2:2");
    }
    t.sent("A 1:1 ack 1");
    t.quiet();
    t.pass_ms(499);
    t.recv("R 2:2");
    t.quiet();
    t.pass_ms(1);
    t.recv("R 2:2");
    t.sent("A 1:1 ack 1");
}

#[test]
fn all_answers_of_a_second_have_a_limit_that_is_drawn_anew() {
    let settings = Settings { answers_per_second: 100, ..Settings::default() };
    let mut t = Trace::new(settings);
    t.stack.stop_listening();
    let mut counts = Vec::new();
    for _ in 0..8 {
        let before = t.stack.counters().resets_sent;
        for _ in 0..200 {
            let unknown = t.recv_quietly("A 1:1 ack 1 win 500").expect("it is unknown");
            t.stack.refuse(t.now, unknown, &mut t.link);
        }
        counts.push(t.stack.counters().resets_sent - before);
        t.pass_ms(1000);
    }
    assert!(counts.iter().all(|count| (50..150).contains(count)), "{counts:?}");
    counts.dedup();
    assert!(counts.len() > 4, "{counts:?}");
    t.gone();
}

#[test]
fn an_acknowledgement_beyond_what_was_sent_is_challenged_and_its_text_dropped() {
    let mut t = Trace::accepted();
    t.recv("PA 1:101 ack 2 win 1000");
    t.sent("A 1:1 ack 1");
    assert_eq!(t.dropped(DropReason::UnacceptableAck), 1);
    assert_eq!(t.read(), (0, false));
}

#[test]
fn an_acknowledgement_older_than_any_window_is_a_guess() {
    let mut t = Trace::accepted();
    let old = 0_u32.wrapping_sub(1000 << 7);
    t.recv(&format!("PA 1:101 ack {} win 1000", old.wrapping_add(1)));
    assert_eq!(t.read(), (100, false));
    let mut t = Trace::accepted();
    t.recv(&format!("PA 1:101 ack {old} win 1000"));
    assert_eq!(t.read(), (0, false));
    assert_eq!(t.dropped(DropReason::UnacceptableAck), 1);
}

#[test]
fn a_segment_without_ack_is_dropped() {
    let mut t = Trace::accepted();
    t.recv("P 1:101 win 1000");
    t.quiet();
    assert_eq!(t.dropped(DropReason::NoAck), 1);
}

#[test]
fn an_old_timestamp_tells_an_old_duplicate() {
    let mut t = Trace::accepted();
    t.recv("PA 1:101 ack 1 win 1000 tsval 4000");
    t.sent("A 1:1 ack 1");
    assert_eq!(t.dropped(DropReason::OldTimestamp), 1);
    assert_eq!(t.read(), (0, false));
}

#[test]
fn a_timestamp_of_last_month_is_no_measure() {
    let mut t = Trace::accepted();
    t.pass_ms(25 * 24 * 3_600_000);
    t.recv("PA 1:101 ack 1 win 1000 tsval 4000");
    assert_eq!(t.read(), (100, false));
}

#[test]
fn a_segment_without_the_negotiated_timestamp_is_dropped_but_a_reset_is_not() {
    let mut t = Trace::accepted();
    t.recv("PA 1:101 ack 1 win 1000 nots");
    t.quiet();
    assert_eq!(t.dropped(DropReason::NoTimestamp), 1);
    t.recv("R 1:1");
    assert!(matches!(t.events[..], [Event::Reset(..)]));
}

#[test]
fn the_echoed_timestamp_is_of_the_segment_that_filled_the_gap() {
    let mut t = Trace::accepted();
    t.pass_ms(5);
    t.recv("A 1001:2001 ack 1 win 1000 tsval 6000");
    t.sent_any();
    // Ahead of a gap: not echoed (RFC 7323 §4.3).
    assert!(t.last.as_ref().unwrap().options.timestamps.unwrap().echo < PEER_CLOCK + 6000);
    t.recv("A 1:1001 ack 1 win 1000 tsval 6001");
    t.sent_any();
    assert_eq!(t.last.as_ref().unwrap().options.timestamps.unwrap().echo, PEER_CLOCK + 6001);
}

#[test]
fn segments_outside_the_window_are_acknowledged() {
    let mut t = Trace::accepted();
    t.recv("PA 70000:70100 ack 1 win 1000");
    t.sent("A 1:1 ack 1");
    assert_eq!(t.dropped(DropReason::OutsideWindow), 1);
    // A keepalive probe is an old acknowledgement.
    t.recv("A 0:0 ack 1 win 1000");
    t.sent("A 1:1 ack 1");
    // Without text it may be an answer itself, so that only some are answered.
    t.recv("A 0:0 ack 1 win 1000");
    t.quiet();
}

#[test]
fn text_behind_fin_is_dropped() {
    let mut t = Trace::close_wait();
    t.recv("PA 2:102 ack 1 win 1000");
    t.quiet();
    assert_eq!(t.dropped(DropReason::TextAfterFin), 1);
    assert_eq!(t.read(), (0, true));
}

#[test]
fn a_flood_of_syns_is_bounded_by_connections_max() {
    let settings = Settings { connections_max: 2, ..Settings::default() };
    let mut t = Trace::new(settings);
    for port in 1..10 {
        t.remote.set_port(port);
        t.recv("S 0:0 win 500 mss 1460 ts");
    }
    assert_eq!(t.stack.connection_count(), 2);
    assert_eq!(t.dropped(DropReason::TooManyConnections), 7);
}

#[test]
fn a_broken_packet_is_counted_and_its_frame_comes_back() {
    let mut t = Trace::accepted();
    let mut packet = t.packet("PA 1:101 ack 1 win 1000");
    *packet.last_mut().unwrap() ^= 1;
    let (frame, range) = t.link.received(&packet).unwrap();
    assert!(t.stack.receive(t.now, frame, range, &mut t.link).is_none());
    assert_eq!(t.dropped(DropReason::BadTcpChecksum), 1);
    assert_eq!(t.link.frames_taken(), 0);
}
