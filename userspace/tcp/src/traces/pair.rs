//! Two stacks and a network between them that loses, doubles and reorders, from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::memory_link::MemoryFrame;

struct Side {
    stack: Stack<MemoryLink>,
    link: MemoryLink,
    id: Option<ConnectionId>,
    to_send: u32,
    sent: u32,
    received: u32,
    ended: bool,
    shut: bool,
    closed: bool,
    broken: Option<Event>,
}

impl Side {
    fn new(seed: u8, to_send: u32) -> Self {
        let secrets = Secrets::from_seed([seed; 32]);
        // With every fifth packet lost, back-off alone may take minutes.
        let patient = Duration::from_secs(2000);
        let settings = Settings { orphan_timeout: patient, user_timeout: patient, ..Settings::default() };
        Self {
            stack: Stack::new(settings, secrets, Instant::default()),
            link: MemoryLink::new(8192, 2048),
            id: None,
            to_send,
            sent: 0,
            received: 0,
            ended: false,
            shut: false,
            closed: false,
            broken: None,
        }
    }

    fn drive(&mut self, now: Instant) {
        while let Some(event) = self.stack.next_event() {
            match event {
                Event::Accepted(id, _) => self.id = Some(id),
                Event::ConnectFailed(..) | Event::Reset(..) => self.broken = Some(event),
                Event::Connected(_) | Event::Readable(_) | Event::Sent(..) => {}
            }
        }
        let Some(id) = self.id.filter(|_| !self.closed && self.broken.is_none()) else { return };
        self.read(id);
        let queued = self.stack.info(id).map_or(0, |info| info.queued);
        while self.sent < self.to_send && queued < 4 << 20 && self.stack.can_take(4000, &self.link) {
            let end = (self.sent + 4000).min(self.to_send);
            let text: Vec<u8> = (self.sent..end).map(pattern).collect();
            self.stack.send(id, &text, &mut self.link);
            self.sent = end;
            if self.stack.info(id).is_none_or(|info| info.queued >= 4 << 20) {
                break;
            }
        }
        if self.sent == self.to_send && !self.shut {
            self.stack.shut_down(id);
            self.shut = true;
        }
        if self.shut && self.ended {
            self.stack.close(now, id, &mut self.link);
            self.closed = true;
        }
    }

    fn read(&mut self, id: ConnectionId) {
        loop {
            match self.stack.read(id) {
                Read::Text { frame, range } => {
                    for byte in &self.link.bytes(&frame)[range] {
                        assert_eq!(*byte, pattern(self.received), "text at {}", self.received);
                        self.received += 1;
                    }
                    self.link.release(frame);
                }
                Read::End => self.ended = true,
                Read::Nothing => return,
            }
        }
    }
}

pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// When it arrives, in which order of those that arrive together, at which side, and what.
type Flight = (Instant, u64, usize, Vec<u8>);

/// Runs until both have closed; answers how long it took. Without loss nothing is doubled or reordered either.
fn run(seed: u64, loss_percent: u64, to_send: [u32; 2]) -> Duration {
    let mut sides = [Side::new(1, to_send[0]), Side::new(2, to_send[1])];
    let (client, server) = ("198.51.100.7:50000".parse().unwrap(), "192.0.2.1:443".parse().unwrap());
    sides[1].stack.listen(server);
    let mut now = Instant::default();
    let client_side = &mut sides[0];
    client_side.id = client_side.stack.connect(now, client, server, &mut client_side.link).ok();
    let mut random = Random(seed * 2 + 1);
    let mut network: BinaryHeap<Reverse<Flight>> = BinaryHeap::new();
    let is_bad = loss_percent > 0;
    let mut number = 0;
    while sides.iter().any(|side| !side.closed || side.stack.connection_count() > 0) {
        assert!(now.since(Instant::default()) < Duration::from_secs(4000), "seed {seed} does not end");
        for (index, side) in sides.iter_mut().enumerate() {
            side.drive(now);
            side.stack.time_out(now, &mut side.link);
            side.stack.transmit(now, &mut side.link);
            side.drive(now);
            assert_eq!(side.broken, None, "seed {seed}");
            while let Some(packet) = side.link.take_sent() {
                let copies = if random.below(100) < loss_percent {
                    0
                } else {
                    1 + u64::from(is_bad && random.below(100) < 2)
                };
                for _ in 0..copies {
                    let spread = if random.below(20) == 0 { 8000 } else { 200 };
                    let delay = 10_000 + if is_bad { random.below(spread) } else { 0 };
                    number += 1;
                    let at = now.plus(Duration::from_micros(delay));
                    network.push(Reverse((at, number, 1 - index, packet.clone())));
                }
            }
        }
        let timeouts = sides.iter().filter_map(|side| side.stack.next_timeout()).min();
        let arrival = network.peek().map(|Reverse((at, ..))| *at);
        let Some(next) = [timeouts, arrival].into_iter().flatten().min() else { continue };
        now = now.max(next);
        while network.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((_, _, to, packet))) = network.pop() else { break };
            let side = &mut sides[to];
            let (frame, range): (MemoryFrame, _) = side.link.received(&packet).expect("memory is kept");
            if let Some(unknown) = side.stack.receive(now, frame, range, &mut side.link) {
                side.stack.refuse(now, unknown, &mut side.link);
            }
        }
    }
    for (side, expected) in sides.iter().zip([to_send[1], to_send[0]]) {
        assert_eq!(side.received, expected, "seed {seed}");
        assert_eq!((side.stack.frames_held(), side.link.frames_taken()), (0, 0), "seed {seed}");
    }
    now.since(Instant::default())
}

#[test]
fn every_byte_arrives_once_and_in_order_over_a_bad_network() {
    for seed in 1..20 {
        for loss_percent in [0, 1, 5, 20] {
            run(seed, loss_percent, [100_000, 300_000]);
        }
    }
}

#[test]
fn a_clean_network_is_filled() {
    // 16 MiB over 20 ms of round trip: slow start to a window of 4 MiB takes some ten round trips.
    let time = run(1, 0, [10, 16 << 20]);
    assert!(time < Duration::from_millis(900), "{time:?}");
}
