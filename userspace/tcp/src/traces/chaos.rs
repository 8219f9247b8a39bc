//! A peer that sends anything, a driver that calls anything, a device that is full and slow: nothing panics, no frame
//! is lost, and what is read is what was sent.

use super::pair::Random;
use super::*;
use crate::memory_link::Completion;

/// One segment somewhere near what is expected, and sometimes far off.
fn any_segment(t: &Trace, random: &mut Random) -> String {
    let near = |random: &mut Random, at: u32| {
        let offset = match random.below(8) {
            0..=3 => 0,
            4 => random.below(3000),
            5 => random.below(100_000),
            6 => 0_u64.wrapping_sub(random.below(3000)),
            _ => random.below(1 << 32),
        };
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
        let offset = offset as u32;
        at.wrapping_add(offset)
    };
    let info = t.id.and_then(|id| t.stack.info(id));
    let tcb = t.id.and_then(|id| t.stack.connections.view(id));
    let nxt = tcb.map_or(0, |tcb| tcb.rcv.nxt - PEER_ISS);
    let una = tcb.map_or(1, |tcb| tcb.snd.una - t.iss.unwrap_or_default());
    let flight = info.map_or(0, |info| info.in_flight);
    let flags = match random.below(20) {
        0 => "S",
        1 => "SA",
        2 => "R",
        3 => "RA",
        4 | 5 => "FA",
        6 => "F",
        7 => "",
        8 => "SFRPUA",
        _ => "A",
    };
    let start = near(random, nxt);
    let len = [0, 0, 1, 100, 1448, 1448][usize::try_from(random.below(6)).unwrap()];
    let acked = if random.below(2) == 0 { flight } else { 0 };
    let ack = near(random, una.wrapping_add(acked));
    let window = [0, 1, 50, 1000, 65_535][usize::try_from(random.below(5)).unwrap()];
    let mut line = format!("{flags}U {start}:{} ack {ack} win {window}", start.wrapping_add(len));
    if !flags.contains('S') {
        for _ in 0..random.below(4) {
            let left = near(random, una);
            write!(line, " sack {left}:{}", near(random, left.wrapping_add(1448))).unwrap();
        }
    } else if random.below(2) == 0 {
        line.push_str(" mss 1460 sackok ws 7 ts");
    }
    if random.below(20) == 0 {
        line.push_str(" nots");
    }
    line
}

/// Reads without a look at the text.
fn drain(t: &mut Trace) {
    let Some(id) = t.id else { return };
    while let Read::Text { frame, .. } = t.stack.read(id) {
        t.link.release(frame);
    }
}

/// Text is taken from the sequence numbers of the segment that a peer made up, so that it is always what it should be.
/// Only if new connections can come about, it begins somewhere else.
fn one_life(seed: u64, start: fn() -> Trace, listening: bool) {
    let mut random = Random(seed * 2 + 1);
    let mut t = start();
    if !listening {
        t.stack.stop_listening();
    }
    if seed.is_multiple_of(2) {
        t.link.set_completion(Completion::ByHand);
    }
    let mut to_send = 1;
    let mut hostages = Vec::new();
    for _ in 0..300 {
        let id = t.id.filter(|id| t.stack.info(*id).is_some());
        match random.below(16) {
            0 => t.pass_ms([1, 50, 300, 5000, 100_000][usize::try_from(random.below(5)).unwrap()]),
            1 if listening => drain(&mut t),
            1 if id.is_some() => {
                t.read();
            }
            2 | 3 if id.is_some() => {
                let len = 1 + u32::try_from(random.below(20_000)).unwrap();
                if t.stack.can_take(len as usize, &t.link) {
                    t.queue(to_send..to_send + len);
                    to_send += len;
                }
            }
            4 => t.link.set_ring_room(usize::try_from(random.below(20)).unwrap()),
            5 => t.link.complete(usize::try_from(random.below(50)).unwrap()),
            6 if random.below(20) == 0 && id.is_some() => t.shut_down(),
            7 if random.below(40) == 0 && id.is_some() => t.close(),
            8 => hostages.extend((0..random.below(400)).filter_map(|_| t.link.allocate())),
            9 => hostages.drain(..).for_each(|frame| t.link.release(frame)),
            10 => t.stack.forget_hops(),
            _ => {
                let packet = t.packet(&any_segment(&t, &mut random));
                if let Some((frame, range)) = t.link.received(&packet)
                    && let Some(unknown) = t.stack.receive(t.now, frame, range, &mut t.link)
                {
                    t.stack.refuse(t.now, unknown, &mut t.link);
                }
                if random.below(2) == 0 {
                    t.transmit();
                }
            }
        }
        while let Some(packet) = t.link.take_sent() {
            let parsed = wire::parse(&packet, Checksums::Verify).expect("what we send is sound");
            if let Body::Segment(segment) = parsed.body
                && segment.flags.contains(Flags::SYN)
            {
                t.iss = Some(segment.seq);
            }
        }
    }
    hostages.drain(..).for_each(|frame| t.link.release(frame));
    t.stack.stop(t.now, &mut t.link);
    t.link.complete(5000);
    t.gone();
}

#[test]
fn nothing_that_anybody_does_breaks_the_stack() {
    let starts: [fn() -> Trace; 9] = [
        Trace::accepted,
        Trace::connected,
        Trace::dialling,
        Trace::syn_received,
        Trace::fin_wait_1,
        Trace::fin_wait_2,
        Trace::close_wait,
        Trace::closing,
        Trace::time_wait,
    ];
    for seed in 1..150 {
        for start in starts {
            one_life(seed, start, false);
        }
    }
}

#[test]
fn nothing_that_anybody_does_breaks_a_listener() {
    let few: fn() -> Trace =
        || Trace::new(Settings { half_open_max: 1, connections_max: 3, ..Settings::default() });
    for seed in 1..300 {
        one_life(seed, few, true);
        one_life(seed, Trace::accepted, true);
        one_life(seed, Trace::time_wait, true);
    }
}
