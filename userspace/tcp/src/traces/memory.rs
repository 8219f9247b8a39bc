//! Frames: none is lost, none is taken in vain, and want of them is survived.

use super::*;
use crate::memory_link::MemoryFrame;

fn take_all(t: &mut Trace) -> Vec<MemoryFrame> {
    std::iter::from_fn(|| t.link.allocate()).collect()
}

#[test]
fn an_idle_connection_holds_no_frame_and_no_queues() {
    let mut t = Trace::accepted();
    t.send(1..5001);
    t.recv("PA 1:101 ack 5001 win 1000");
    t.read();
    t.pass_ms(100);
    assert_eq!((t.stack.frames_held(), t.link.frames_taken()), (0, 0));
    assert!(t.stack.connections.iter().all(|tcb| tcb.queues.is_none()));
}

#[test]
fn want_of_frames_delays_acknowledgements_and_text_and_breaks_nothing() {
    let mut t = Trace::accepted();
    t.queue(1..101);
    t.recv_quietly("PA 1:101 ack 1 win 1000");
    t.read();
    let hostages = take_all(&mut t);
    t.transmit();
    // The text has its frame already.
    t.sent("PA 1:101 ack 101");
    t.recv_ack_without_frames();
    assert!(t.stack.counters().no_frame > 0);
    for frame in hostages {
        t.link.release(frame);
    }
    t.pass_ms(10);
    t.sent("A 101:101 ack 101");
}

impl Trace {
    /// Makes an acknowledgement due while no frame is free.
    fn recv_ack_without_frames(&mut self) {
        let id = self.id();
        let slot = u32::try_from(id.slot()).unwrap();
        self.stack.visit(slot, &mut self.link, |connection| {
            connection.ack_now();
        });
        self.transmit();
        self.quiet();
    }
}

#[test]
fn text_that_no_frame_is_left_for_ends_the_connection() {
    let mut t = Trace::accepted();
    let mut hostages = take_all(&mut t);
    assert!(!t.stack.can_take(1, &t.link));
    t.link.release(hostages.pop().unwrap());
    assert_eq!(t.queue(1..10_001), 0);
    t.transmit();
    assert!(matches!(t.events[..], [Event::Reset(_, crate::event::ResetReason::OutOfFrames)]));
    for frame in hostages {
        t.link.release(frame);
    }
    t.gone();
}

#[test]
fn when_frames_are_dire_new_connections_and_text_ahead_of_gaps_are_refused() {
    let mut t = Trace::accepted();
    let mut hostages = take_all(&mut t);
    for _ in 0..100 {
        t.link.release(hostages.pop().unwrap());
    }
    t.recv("A 1001:2001 ack 1 win 1000");
    t.sent("A 1:1 ack 1");
    assert_eq!(t.dropped(DropReason::Pressure), 1);
    assert_eq!(t.stack.frames_held(), 0);
    t.remote.set_port(50_001);
    t.recv("S 0:0 win 65535 mss 1460 ts");
    t.quiet();
    assert_eq!(t.dropped(DropReason::Pressure), 2);
    for frame in hostages {
        t.link.release(frame);
    }
}

/// A connection that has `queued` bytes out, and all frames but `free` gone.
fn starved(queued: u32, free: usize) -> (Trace, Vec<MemoryFrame>) {
    let mut t = Trace::accepted();
    t.queue(1..queued + 1);
    t.transmit();
    while t.link.take_sent().is_some() {}
    let mut hostages = take_all(&mut t);
    for _ in 0..free {
        t.link.release(hostages.pop().unwrap());
    }
    (t, hostages)
}

#[test]
fn text_in_order_is_dropped_unacknowledged_before_it_takes_what_text_to_be_sent_may_have() {
    // Of 1024 frames 64 are for control, and 64 for each kind of text. One is taken by what arrives.
    let (mut t, mut hostages) = starved(0, 128);
    let promised = t.stack.info(t.id()).unwrap().receive_window;
    t.recv("A 1:1001 ack 1 win 1000");
    t.quiet();
    assert_eq!(t.dropped(DropReason::OverBudget), 1);
    assert_eq!(t.stack.info(t.id()).unwrap().receive_window, promised);
    t.link.release(hostages.pop().unwrap());
    t.recv("A 1:1001 ack 1 win 1000");
    t.sent("A 1:1 ack 1001");
    assert_eq!(t.read(), (1000, false));
    hostages.drain(..).for_each(|frame| t.link.release(frame));
}

#[test]
fn when_frames_are_dire_a_connection_may_have_one_segment_unread() {
    // More text is out than is its own, so that 64 frames for control are all that must be left.
    let (mut t, mut hostages) = starved(100_000, 66);
    t.recv("A 1:1101 ack 1 win 1000");
    assert!(t.sent_any().ends_with(" ack 1101"));
    t.recv("A 1101:2201 ack 1 win 1000");
    t.quiet();
    assert_eq!(t.dropped(DropReason::OverBudget), 1);
    assert_eq!(t.read(), (1100, false));
    t.recv("A 1101:2201 ack 1 win 1000");
    assert!(t.sent_any().ends_with(" ack 2201"));
    assert_eq!(t.read(), (1100, false));
    hostages.drain(..).for_each(|frame| t.link.release(frame));
}

#[test]
fn what_text_in_order_needs_is_taken_from_what_is_held_ahead_of_it() {
    let mut t = Trace::accepted();
    t.recv("A 1001:2001 ack 1 win 1000");
    t.sent("A 1:1 ack 1 sack 1001:2001");
    let mut hostages = take_all(&mut t);
    for _ in 0..128 {
        t.link.release(hostages.pop().unwrap());
    }
    t.recv("A 1:1001 ack 1 win 1000");
    t.sent("A 1:1 ack 1001");
    assert_eq!((t.dropped(DropReason::Pressure), t.dropped(DropReason::OverBudget)), (1, 0));
    assert_eq!(t.read(), (1000, false));
    hostages.drain(..).for_each(|frame| t.link.release(frame));
}

#[test]
fn when_frames_have_run_out_the_largest_holder_that_takes_nothing_goes() {
    let (mut t, mut hostages) = starved(100_000, 500);
    t.pass_ms(5_000);
    while t.link.take_sent().is_some() {}
    assert_eq!(t.stack.counters().shed, 0, "there are frames for others");
    hostages.extend(std::iter::from_fn(|| t.link.allocate()).take(500 - 96));
    t.pass_ms(20);
    assert_eq!(t.stack.counters().shed, 1);
    assert!(matches!(t.events[..], [Event::Reset(_, crate::event::ResetReason::Shed)]));
    while t.link.take_sent().is_some() {}
    assert_eq!(t.stack.frames_held(), 0);
    hostages.drain(..).for_each(|frame| t.link.release(frame));
}

#[test]
fn who_takes_what_it_is_sent_stays_when_frames_have_run_out() {
    let (mut t, mut hostages) = starved(100_000, 96);
    for at in 1..=60 {
        t.pass_ms(100);
        t.recv_quietly(&format!("A 1:1 ack {} win 1000", 1 + 1_000 * at));
        while t.link.take_sent().is_some() {}
    }
    assert_eq!((t.stack.counters().shed, t.state()), (0, State::Established));
    hostages.drain(..).for_each(|frame| t.link.release(frame));
}

#[test]
fn when_frames_are_dire_text_held_ahead_of_a_gap_goes_and_comes_again() {
    let mut t = Trace::accepted();
    t.recv("A 1001:2001 ack 1 win 1000");
    t.sent("A 1:1 ack 1 sack 1001:2001");
    let mut hostages = take_all(&mut t);
    t.link.release(hostages.pop().unwrap());
    t.recv("A 3001:4001 ack 1 win 1000");
    t.sent("A 1:1 ack 1");
    assert_eq!((t.stack.frames_held(), t.dropped(DropReason::Pressure)), (0, 2));
    hostages.drain(..).for_each(|frame| t.link.release(frame));
    t.recv_quietly("A 1:1001 ack 1 win 1000");
    t.recv("A 1001:2001 ack 1 win 1000");
    t.sent("A 1:1 ack 2001");
    assert_eq!(t.read(), (2000, false));
}

#[test]
fn ten_thousand_connections_are_told_apart() {
    let mut t = Trace::new(Settings { half_open_max: 20_000, ..Settings::default() });
    let peers: Vec<SocketAddr> = (0..10_000_u32)
        .map(|n| SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + n / 4), 1 + (n % 4) as u16)))
        .collect();
    let mut ids = Vec::new();
    for peer in &peers {
        t.remote = *peer;
        t.recv("S 0:0 win 65535 mss 1460 sackok ws 7 ts");
        t.sent("SA 0:0 ack 1 mss 1460 sackok ws 7 ts");
        t.recv("A 1:1 ack 1 win 1000");
        ids.push(t.id());
    }
    assert_eq!((t.stack.connection_count(), t.stack.half_open_count()), (10_000, 0));
    for (peer, id) in peers.iter().zip(&ids) {
        assert_eq!(t.stack.remote(*id), Some(*peer));
        t.stack.abort(t.now, *id, &mut t.link);
        assert_eq!(t.stack.remote(*id), None);
    }
    t.gone();
}

#[test]
fn a_packet_may_lie_anywhere_in_its_frame() {
    let mut t = Trace::accepted();
    for (at, line) in [(0, "A 1001:2001 ack 1 win 1000"), (256, "A 1:1001 ack 1 win 1000")] {
        let packet = t.packet(line);
        let mut frame = t.link.allocate().unwrap();
        t.link.bytes_mut(&mut frame)[at..at + packet.len()].copy_from_slice(&packet);
        assert!(t.stack.receive(t.now, frame, at..at + packet.len(), &mut t.link).is_none());
    }
    assert_eq!(t.read(), (2000, false));
}

#[test]
fn a_window_shut_for_want_of_frames_opens_when_there_are_some() {
    let (mut t, hostages) = starved(100_000, 100);
    let mut at = 1;
    while t.stack.info(t.id()).unwrap().receive_window > 0 {
        let len = t.stack.info(t.id()).unwrap().receive_window.min(1400);
        t.recv(&format!("A {at}:{} ack 1 win 1000", at + len));
        at += len;
        t.read();
        t.transmit();
        while t.link.take_sent().is_some() {}
    }
    for frame in hostages {
        t.link.release(frame);
    }
    t.transmit();
    assert!(t.sent_any().ends_with(&format!(" ack {at}")));
    assert!(t.last.as_ref().unwrap().window > 400);
}

#[test]
fn a_steady_state_allocates_nothing() {
    let mut t = Trace::accepted();
    let text = [0; 1000].map(|_: u8| 0);
    let id = t.id();
    let mut packets = Vec::new();
    for round in 0..200_u32 {
        let (at, ack) = (1 + round * 1000, 1 + round * 1000);
        packets.push(t.packet(&format!("PA {at}:{} ack {ack} win 1000", at + 1000)));
    }
    let turn = |t: &mut Trace, packet: &[u8]| {
        t.now = t.now.plus(Duration::from_millis(1));
        let (frame, range) = t.link.received(packet).unwrap();
        assert!(t.stack.receive(t.now, frame, range, &mut t.link).is_none());
        while t.stack.next_event().is_some() {}
        while let Read::Text { frame, .. } = t.stack.read(id) {
            t.link.release(frame);
        }
        t.stack.send(id, &text, &mut t.link);
        t.stack.time_out(t.now, &mut t.link);
        t.stack.transmit(t.now, &mut t.link);
        while let Some(packet) = t.link.take_sent() {
            t.link.recycle(packet);
        }
    };
    let (warm, steady) = packets.split_at(50);
    for packet in warm {
        turn(&mut t, packet);
    }
    let info = allocation_counter::measure(|| {
        for packet in steady {
            turn(&mut t, packet);
        }
    });
    assert_eq!(info.count_total, 0);
    assert_eq!(t.stack.counters().text_received, 200_000);
}
