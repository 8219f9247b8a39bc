//! Loss and what is done about it (RFC 5681, 6298, 6582, 6675).

use super::*;
use crate::event::ResetReason;
use crate::memory_link::Completion;

/// A connection whose ten first segments are out.
fn ten_in_flight(options: &str) -> Trace {
    let mut t = Trace::accepted_with(Settings::default(), options);
    let smss = u32::from(t.stack.info(t.id()).unwrap().smss);
    t.send(1..10 * smss + 1);
    for _ in 0..10 {
        t.sent_any();
    }
    t.quiet();
    t
}

#[test]
fn three_reports_above_a_gap_bring_the_lost_segment_back() {
    let mut t = ten_in_flight(SYN_OPTIONS);
    t.pass_ms(10);
    t.recv("A 1:1 ack 1 win 1000 sack 1449:2897");
    t.quiet();
    // More than two segments' bytes are above it now.
    t.recv("A 1:1 ack 1 win 1000 sack 1449:5793");
    t.sent("A 1:1449 ack 1");
    t.quiet();
    assert_eq!(t.stack.counters().fast_recoveries, 1);
    let info = t.stack.info(t.id()).unwrap();
    assert_eq!(info.cwnd, 14_480 * 7 / 10);
    t.recv("A 1:1 ack 14481 win 1000");
    t.quiet();
    assert_eq!(t.stack.frames_held(), 0);
    assert_eq!(t.stack.counters().retransmissions, 1);
}

#[test]
fn all_holes_below_the_reports_are_filled_and_none_twice() {
    let mut t = ten_in_flight(SYN_OPTIONS);
    // Segments 1, 3 and 5 are lost.
    t.recv("A 1:1 ack 1 win 1000 sack 7241:14481 sack 4345:5793 sack 1449:2897");
    t.sent("A 1:1449 ack 1");
    t.sent("A 2897:4345 ack 1");
    t.sent("A 5793:7241 ack 1");
    t.quiet();
    t.recv("A 1:1 ack 2897 win 1000 sack 7241:14481 sack 4345:5793");
    t.recv("A 1:1 ack 5793 win 1000 sack 7241:14481");
    t.quiet();
    t.recv("A 1:1 ack 14481 win 1000");
    assert_eq!(t.stack.counters().retransmissions, 3);
    assert_eq!(t.stack.counters().fast_recoveries, 1);
}

#[test]
fn a_retransmission_that_is_lost_again_is_found_without_a_timeout() {
    let mut t = ten_in_flight(SYN_OPTIONS);
    t.recv("A 1:1 ack 1 win 1000 sack 1449:14481");
    t.sent("A 1:1449 ack 1");
    // New text, sent after the retransmission, is reported; the retransmission is not.
    t.pass_ms(10);
    t.send(14_481..15_929);
    t.sent("PA 14481:15929 ack 1");
    t.pass_ms(10);
    t.recv("A 1:1 ack 1 win 1000 sack 1449:15929");
    t.sent("A 1:1449 ack 1");
    assert_eq!(t.stack.counters().timeouts, 0);
}

#[test]
fn the_tail_of_a_flight_is_probed_and_the_answer_tells_what_is_lost() {
    let mut t = ten_in_flight(SYN_OPTIONS);
    // The last three segments are lost.
    t.pass_ms(10);
    t.recv("A 1:1 ack 10137 win 1000");
    t.pass_ms(29);
    t.quiet();
    t.pass_ms(1);
    t.sent("PA 13033:14481 ack 1");
    t.pass_ms(10);
    t.recv("A 1:1 ack 10137 win 1000 sack 13033:14481");
    t.sent("A 10137:11585 ack 1");
    t.sent("A 11585:13033 ack 1");
    t.quiet();
    t.recv("A 1:1 ack 14481 win 1000");
    assert_eq!((t.stack.counters().timeouts, t.stack.counters().tail_probes), (0, 1));
    assert_eq!(t.stack.counters().fast_recoveries, 1);
}

#[test]
fn a_single_segment_is_not_probed() {
    let mut t = Trace::accepted();
    t.send(1..101);
    t.sent("PA 1:101 ack 1");
    t.pass_ms(200);
    t.quiet();
}

#[test]
fn without_sack_three_duplicates_and_partial_acknowledgements_do_it() {
    let mut t = ten_in_flight("mss 1460 ws 7 ts");
    t.recv("A 1:1 ack 1 win 1000");
    t.recv("A 1:1 ack 1 win 1000");
    t.quiet();
    t.recv("A 1:1 ack 1 win 1000");
    t.sent("A 1:1449 ack 1");
    t.quiet();
    // The third segment is lost as well (RFC 6582).
    t.recv("A 1:1 ack 2897 win 1000");
    t.sent("A 2897:4345 ack 1");
    t.quiet();
    t.recv("A 1:1 ack 14481 win 1000");
    t.quiet();
    assert_eq!(t.stack.counters().fast_recoveries, 1);
    assert_eq!(t.stack.counters().timeouts, 0);
}

#[test]
fn acknowledgements_with_text_or_a_new_window_are_no_duplicates() {
    let mut t = ten_in_flight("mss 1460 ws 7 ts");
    for window in [1001, 1002, 1003, 1004] {
        t.recv(&format!("A 1:1 ack 1 win {window}"));
    }
    t.quiet();
    for at in 0..4 {
        t.recv(&format!("A {}:{} ack 1 win 1004", 1 + at * 10, 11 + at * 10));
        t.sent(&format!("A 14481:14481 ack {}", 11 + at * 10));
    }
    assert_eq!(t.stack.counters().fast_recoveries, 0);
}

#[test]
fn limited_transmit_sends_new_text_on_the_first_two_duplicates() {
    let mut t = ten_in_flight("mss 1460 ws 7 ts");
    t.send(14_481..20_001);
    t.quiet();
    t.recv("A 1:1 ack 1 win 1000");
    t.sent("A 14481:15929 ack 1");
    t.quiet();
    t.recv("A 1:1 ack 1 win 1000");
    t.sent("A 15929:17377 ack 1");
    t.quiet();
}

#[test]
fn the_retransmission_timer_backs_off_and_slow_start_follows() {
    let mut t = ten_in_flight(SYN_OPTIONS);
    // The tail is probed first, which nobody answers.
    t.pass_ms(30);
    t.sent("PA 13033:14481 ack 1");
    let mut wait = u64::try_from(t.stack.info(t.id()).unwrap().rto.as_millis()).unwrap();
    assert!((200..=250).contains(&wait), "{wait}");
    for _ in 0..2 {
        t.pass_ms(wait - 1);
        t.quiet();
        t.pass_ms(1);
        t.sent("A 1:1449 ack 1");
        t.quiet();
        wait *= 2;
    }
    assert_eq!(t.stack.counters().timeouts, 2);
    assert_eq!(t.stack.info(t.id()).unwrap().cwnd, 1448);
    t.pass_ms(10);
    t.recv("A 1:1 ack 1449 win 1000");
    t.sent("A 1449:2897 ack 1");
    t.sent("A 2897:4345 ack 1");
    t.quiet();
    // The echo tells the round trip of the retransmission (Karn): no back-off remains.
    let rto = t.stack.info(t.id()).unwrap().rto;
    assert!(rto < Duration::from_millis(300), "{rto:?}");
    t.recv("A 1:1 ack 14481 win 1000");
    t.quiet();
    assert_eq!(t.stack.frames_held(), 0);
}

#[test]
fn without_timestamps_karn_keeps_the_back_off_until_new_text_is_acknowledged() {
    let mut t = ten_in_flight("mss 1460 sackok ws 7");
    t.pass_ms(30);
    t.sent("PA 13141:14601 ack 1");
    let rto = u64::try_from(t.stack.info(t.id()).unwrap().rto.as_millis()).unwrap();
    t.pass_ms(rto);
    t.sent("A 1:1461 ack 1");
    t.recv("A 1:1 ack 1461 win 1000");
    assert_eq!(t.stack.info(t.id()).unwrap().rto.as_millis(), u128::from(2 * rto));
}

#[test]
fn a_peer_that_forgot_what_it_reported_gets_all_again_after_a_timeout() {
    let mut t = ten_in_flight(SYN_OPTIONS);
    t.recv("A 1:1 ack 1 win 1000 sack 1449:14481");
    t.sent("A 1:1449 ack 1");
    t.pass_ms(400);
    t.sent("A 1:1449 ack 1");
    t.recv("A 1:1 ack 1449 win 1000");
    t.sent("A 1449:2897 ack 1");
    t.sent("A 2897:4345 ack 1");
}

#[test]
fn reports_of_what_was_never_sent_or_of_nothing_are_ignored() {
    let mut t = ten_in_flight(SYN_OPTIONS);
    for block in ["20000:30000", "14481:14482", "5000:4000", "1:1", "0:1449"] {
        t.recv(&format!("A 1:1 ack 1 win 1000 sack {block}"));
    }
    t.quiet();
    assert_eq!(t.stack.info(t.id()).unwrap().in_flight, 14_480);
}

#[test]
fn a_peer_that_is_gone_is_given_up_after_the_user_timeout() {
    let mut t = Trace::accepted();
    t.send(1..101);
    t.pass_ms(299_000);
    assert_eq!(t.state(), State::Established);
    t.pass_ms(240_000);
    assert_eq!(t.events, [Event::Reset(t.id(), ResetReason::TimedOut)]);
    let mut last = String::new();
    while t.link.sent_count() > 0 {
        last = t.sent_any();
    }
    assert_eq!(last, "RA 101:101 ack 1");
    t.gone();
}

#[test]
fn a_frame_that_the_device_still_reads_is_copied_to_be_sent_again() {
    let mut t = Trace::accepted();
    t.link.set_completion(Completion::ByHand);
    t.send(1..1449);
    t.sent("PA 1:1449 ack 1");
    t.pass_ms(300);
    t.sent("PA 1:1449 ack 1");
    assert_eq!(t.stack.counters().copies, 1);
    assert_eq!(t.link.frames_in_flight(), 2);
    t.link.complete(2);
    // The old frame is free now, the new one is kept.
    assert_eq!(t.link.frames_taken(), 1);
    t.pass_ms(500);
    t.sent("PA 1:1449 ack 1");
    assert_eq!(t.stack.counters().copies, 1);
    t.recv("A 1:1 ack 1449 win 1000");
    // Acknowledged before it was completed: it is the device's until then.
    assert_eq!((t.stack.frames_held(), t.link.frames_taken()), (0, 1));
    t.link.complete(1);
    assert_eq!(t.link.frames_taken(), 0);
}

#[test]
fn a_long_silence_closes_the_congestion_window_again() {
    let mut t = ten_in_flight(SYN_OPTIONS);
    t.pass_ms(10);
    t.recv("A 1:1 ack 14481 win 1000");
    assert!(t.stack.info(t.id()).unwrap().cwnd > 14_480);
    t.pass_ms(10_000);
    t.send(14_481..14_491);
    assert_eq!(t.stack.info(t.id()).unwrap().cwnd, 14_480);
}
