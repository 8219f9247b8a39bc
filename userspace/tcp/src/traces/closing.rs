//! Closing (RFC 9293 §3.6), in every order.

use super::*;
use crate::event::{ConnectError, ResetReason, Standing};

/// Makes a connection in one state.
type Make = fn() -> Trace;

#[test]
fn we_close_first() {
    let mut t = Trace::accepted();
    t.shut_down();
    t.sent("FA 1:1 ack 1");
    assert_eq!(t.state(), State::FinWait1);
    t.recv("A 1:1 ack 2 win 1000");
    assert_eq!(t.state(), State::FinWait2);
    t.recv("FA 1:1 ack 2 win 1000");
    t.sent("A 2:2 ack 2");
    assert_eq!(t.state(), State::TimeWait);
    assert_eq!(t.read(), (0, true));
    t.close();
    assert_eq!(t.stack.time_wait_count(), 1);
    t.gone();
    t.pass_ms(59_999);
    assert_eq!(t.stack.time_wait_count(), 1);
    t.pass_ms(2);
    assert_eq!(t.stack.time_wait_count(), 0);
}

#[test]
fn the_peer_closes_first_and_there_is_no_time_wait() {
    let mut t = Trace::close_wait();
    assert_eq!(t.read(), (0, true));
    t.send(1..101);
    t.sent("PA 1:101 ack 2");
    t.shut_down();
    t.sent("FA 101:101 ack 2");
    assert_eq!(t.state(), State::LastAck);
    t.recv("A 2:2 ack 102 win 1000");
    assert_eq!(t.state(), State::Closed);
    t.close();
    t.gone();
    assert_eq!(t.stack.time_wait_count(), 0);
}

#[test]
fn both_close_at_once() {
    let mut t = Trace::fin_wait_1();
    t.recv("FA 1:1 ack 1 win 1000");
    t.sent("A 2:2 ack 2");
    assert_eq!(t.state(), State::Closing);
    t.recv("A 2:2 ack 2 win 1000");
    assert_eq!(t.state(), State::TimeWait);
    t.quiet();
}

#[test]
fn one_segment_may_acknowledge_our_fin_and_bring_the_peers() {
    let mut t = Trace::fin_wait_1();
    t.recv("FA 1:1 ack 2 win 1000");
    t.sent("A 2:2 ack 2");
    assert_eq!(t.state(), State::TimeWait);
}

#[test]
fn fin_follows_all_text_and_rides_on_the_last() {
    let mut t = Trace::accepted();
    t.queue(1..2001);
    t.shut_down();
    t.sent("A 1:1449 ack 1");
    t.sent("FPA 1449:2001 ack 1");
    t.recv("A 1:1 ack 2001 win 1000");
    assert_eq!(t.state(), State::FinWait1);
    t.recv("A 1:1 ack 2002 win 1000");
    assert_eq!(t.state(), State::FinWait2);
    t.gone_after_abort();
}

#[test]
fn after_our_fin_the_peer_may_go_on_sending() {
    let mut t = Trace::fin_wait_2();
    t.recv("PA 1:101 ack 2 win 1000");
    t.sent("A 2:2 ack 101");
    assert_eq!(t.read(), (100, false));
    t.pass_ms(3_600_000);
    assert_eq!(t.state(), State::FinWait2);
    t.recv("FA 101:101 ack 2 win 1000");
    t.sent("A 2:2 ack 102");
    assert_eq!(t.read(), (0, true));
}

#[test]
fn a_lost_fin_goes_out_again() {
    let mut t = Trace::fin_wait_1();
    t.pass_ms(300);
    t.sent("FA 1:1 ack 1");
    t.recv("A 1:1 ack 2 win 1000");
    assert_eq!(t.state(), State::FinWait2);
}

#[test]
fn the_peers_fin_again_is_acknowledged_again() {
    for (mut t, ack) in [(Trace::close_wait(), "A 1:1 ack 2"), (Trace::time_wait(), "A 2:2 ack 2")] {
        t.pass_ms(600);
        let ours = if t.state() == State::TimeWait { 2 } else { 1 };
        t.recv(&format!("FA 1:1 ack {ours} win 1000"));
        t.sent(ack);
    }
}

#[test]
fn a_closed_connection_still_delivers_what_is_queued() {
    let mut t = Trace::accepted();
    t.queue(1..1001);
    t.close();
    t.sent("FPA 1:1001 ack 1");
    t.recv("A 1:1 ack 1002 win 1000");
    assert_eq!(t.stack.connection_count(), 1);
    t.recv("FA 1:1 ack 1002 win 1000");
    t.sent("A 1002:1002 ack 2");
    assert_eq!(t.stack.time_wait_count(), 1);
    t.gone();
    assert_eq!(t.events, []);
}

#[test]
fn text_for_a_closed_connection_is_answered_with_a_reset() {
    let mut t = Trace::fin_wait_2();
    t.close();
    t.recv("PA 1:101 ack 2 win 1000");
    t.sent("RA 2:2 ack 1");
    t.gone();
    assert_eq!(t.dropped(DropReason::TextAfterClose), 1);
}

#[test]
fn unread_text_at_close_is_answered_with_a_reset() {
    let mut t = Trace::accepted();
    t.recv("PA 1:101 ack 1 win 1000");
    t.sent("A 1:1 ack 101");
    t.close();
    t.sent("RA 1:1 ack 101");
    t.gone();
}

#[test]
fn an_orphan_whose_peer_does_not_close_is_forgotten() {
    let mut t = Trace::fin_wait_2();
    t.close();
    t.pass_ms(59_999);
    assert_eq!(t.stack.connection_count(), 1);
    t.pass_ms(2);
    t.quiet();
    t.gone();
}

#[test]
fn an_orphan_whose_peer_acknowledges_nothing_is_reset() {
    let mut t = Trace::accepted();
    t.send(1..101);
    t.sent_any();
    t.close();
    t.pass_ms(60_001);
    let mut last = String::new();
    while t.link.sent_count() > 0 {
        last = t.sent_any();
    }
    assert_eq!(last, "RA 102:102 ack 1");
    t.gone();
}

#[test]
fn abort_resets_in_every_state_that_the_rfc_says() {
    let cases: [(Make, &str); 7] = [
        (Trace::accepted, "RA 1:1 ack 1"),
        (Trace::fin_wait_1, "RA 2:2 ack 1"),
        (Trace::fin_wait_2, "RA 2:2 ack 1"),
        (Trace::close_wait, "RA 1:1 ack 2"),
        (Trace::closing, "RA 2:2 ack 2"),
        (Trace::last_ack, "RA 2:2 ack 2"),
        (Trace::connected, "RA 1:1 ack 1"),
    ];
    for (state, reset) in cases {
        let mut t = state();
        t.stack.abort(t.now, t.id(), &mut t.link);
        t.sent(reset);
        t.gone();
    }
    for state in [Trace::time_wait, Trace::dialling] {
        let mut t = state();
        t.stack.abort(t.now, t.id(), &mut t.link);
        t.quiet();
        t.gone();
    }
}

#[test]
fn a_reset_ends_every_state_but_time_wait() {
    let cases: [(Make, u32); 7] = [
        (Trace::accepted, 1),
        (Trace::fin_wait_1, 1),
        (Trace::fin_wait_2, 1),
        (Trace::close_wait, 2),
        (Trace::closing, 2),
        (Trace::last_ack, 2),
        (Trace::connected, 1),
    ];
    for (state, nxt) in cases {
        let mut t = state();
        t.events.clear();
        t.recv(&format!("R {nxt}:{nxt}"));
        t.quiet();
        assert_eq!(t.events, [Event::Reset(t.id(), ResetReason::ByPeer)]);
        t.gone();
    }
    let mut t = Trace::time_wait();
    t.recv("R 2:2");
    assert_eq!(t.state(), State::TimeWait);
    assert_eq!(t.dropped(DropReason::ResetInTimeWait), 1);
}

#[test]
fn a_new_syn_opens_a_tuple_in_time_wait_again_above_the_old_numbers() {
    let mut t = Trace::time_wait();
    t.close();
    let old = t.last.take().unwrap().seq;
    t.pass_ms(2000);
    t.recv("S 5000:5000 win 65535 mss 1460 sackok ws 7 ts");
    assert_eq!(t.sent_any(), "SA 0:0 ack 5001 mss 1460 sackok ws 7 ts");
    assert!(t.last.take().unwrap().seq > old + 65_535);
    assert_eq!(t.stack.time_wait_count(), 0);
    t.recv("A 5001:5001 ack 1 win 1000");
    assert_eq!(t.state(), State::Established);
}

#[test]
fn a_record_in_time_wait_answers_and_blocks_dialling() {
    let mut t = Trace::time_wait();
    t.close();
    t.pass_ms(1000);
    t.recv("FA 1:1 ack 2 win 1000");
    t.sent("A 2:2 ack 2");
    let again = t.stack.connect(t.now, t.local, t.remote, &mut t.link);
    assert_eq!(again, Err(ConnectError::InUse));
}

#[test]
fn after_a_tenth_of_a_second_in_time_wait_a_tuple_may_be_dialled_above_all_it_said() {
    let mut t = Trace::time_wait();
    t.close();
    let old = t.last.take().unwrap();
    let standing = |t: &Trace| t.stack.standing(t.now, t.local, t.remote);
    t.pass_ms(99);
    assert_eq!(standing(&t), Standing::InUse);
    assert_eq!(t.stack.connect(t.now, t.local, t.remote, &mut t.link), Err(ConnectError::InUse));
    t.pass_ms(1);
    assert_eq!(standing(&t), Standing::MayReopen);
    t.id = t.stack.connect(t.now, t.local, t.remote, &mut t.link).ok();
    assert_eq!((standing(&t), t.stack.time_wait_count()), (Standing::InUse, 0));
    t.transmit();
    t.sent_any();
    let syn = t.last.take().unwrap();
    assert!(syn.flags.contains(Flags::SYN) && syn.seq == old.seq.plus(65_537));
    let value = |segment: &Segment| segment.options.timestamps.unwrap().value;
    assert_eq!(value(&syn) - value(&old), 100, "one clock and one offset for both incarnations");
}

#[test]
fn without_timestamps_time_wait_is_waited_out() {
    let mut t = Trace::accepted_with(Settings::default(), "mss 1460 sackok ws 7");
    t.shut_down();
    t.sent("FA 1:1 ack 1");
    t.recv("FA 1:1 ack 2 win 1000");
    t.sent("A 2:2 ack 2");
    t.close();
    t.pass_ms(59_999);
    assert_eq!(t.stack.standing(t.now, t.local, t.remote), Standing::InUse);
    t.pass_ms(1);
    assert_eq!(t.stack.standing(t.now, t.local, t.remote), Standing::Free);
}

#[test]
fn stop_leaves_nothing() {
    let mut t = Trace::accepted();
    t.recv("PA 1:101 ack 1 win 1000");
    t.send(1..20_001);
    t.stack.stop(t.now, &mut t.link);
    assert!(!t.stack.wants_transmit());
    t.gone();
}

impl Trace {
    #[track_caller]
    fn gone_after_abort(&mut self) {
        let id = self.id();
        self.stack.abort(self.now, id, &mut self.link);
        self.gone();
    }
}

#[test]
fn text_that_came_before_a_reset_stays_to_be_read_until_the_driver_lets_go() {
    let mut t = Trace::accepted();
    t.recv_quietly("PA 1:501 ack 1");
    t.recv("R 501:501");
    assert!(matches!(t.events.last(), Some(Event::Reset(_, ResetReason::ByPeer))));
    assert_eq!(t.read(), (500, false));
    t.gone();
}

#[test]
fn text_that_nobody_wants_after_a_reset_goes_with_the_connection() {
    let mut t = Trace::accepted();
    t.recv_quietly("PA 1:501 ack 1");
    t.recv("R 501:501");
    assert_eq!(t.stack.frames_held(), 1);
    t.gone();
}
