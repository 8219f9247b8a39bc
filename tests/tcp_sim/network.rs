//! One direction of the network between two hosts: everything that can happen to a packet on its way.
//!
//! ```text
//!   leaves ─► MTU ─► options stripped ─► lost? ─► queue and rate ─► damaged? ─► delay, jitter ─► arrives
//!              └─ ICMP packet too big, back                            └─ twice?
//! ```

use mtproxy_tests::dice::Dice;

use crate::wire::{self, SYN, View};

/// What arrives.
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    /// What a receiver should see in it; `None` if it is damaged, or nobody's segment.
    pub(crate) view: Option<View>,
    pub(crate) is_damaged: bool,
}

/// A Gilbert-Elliott channel: chances in a thousand, drawn anew for each packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bursts {
    pub(crate) begin: usize,
    pub(crate) end: usize,
    pub(crate) loss: usize,
}

/// Rate and queue of the narrowest hop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bottleneck {
    pub(crate) bytes_per_second: u64,
    /// Packets that fit; the next one is dropped at the tail.
    pub(crate) queue: usize,
}

/// What a path does to packets. Chances are in a thousand, times in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) loss: usize,
    pub(crate) bursts: Option<Bursts>,
    /// Nothing passes from the first to the second.
    pub(crate) blackout: Option<(u64, u64)>,
    pub(crate) duplicate: usize,
    pub(crate) overtaken: usize,
    pub(crate) overtaken_delay: u64,
    pub(crate) damage: usize,
    pub(crate) delay: u64,
    pub(crate) jitter: u64,
    pub(crate) bottleneck: Option<Bottleneck>,
    pub(crate) mtu_bytes: Option<u16>,
    /// Kinds of TCP options that a middlebox takes out of SYNs.
    pub(crate) strips: Vec<u8>,
    /// From here on nothing is lost, doubled, damaged or overtaken.
    pub(crate) calm_at: u64,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    Lost,
    QueueFull,
    TooBig,
    Damaged,
    Doubled,
}

impl Fate {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arrives => "arrives",
            Self::Lost => "lost",
            Self::QueueFull => "dropped by a full queue",
            Self::TooBig => "too big",
            Self::Damaged => "damaged",
            Self::Doubled => "doubled",
        }
    }
}

/// One direction.
pub(crate) struct Path {
    faults: Faults,
    dice: Dice,
    is_in_burst: bool,
    /// When the bottleneck has sent all it holds.
    is_busy_until: u64,
    link_header_len: usize,
}

/// What comes of a packet: arrivals by time, and an answer of a router.
#[derive(Default)]
pub(crate) struct Passage {
    pub(crate) arrivals: Vec<(u64, Packet)>,
    pub(crate) answer: Option<(u64, Packet)>,
}

impl Path {
    pub(crate) fn new(faults: Faults, dice: Dice, link_header_len: usize) -> Self {
        Self { faults, dice, is_in_burst: false, is_busy_until: 0, link_header_len }
    }

    fn happens(&mut self, now: u64, per_thousand: usize) -> bool {
        per_thousand > 0 && now < self.faults.calm_at && self.dice.below(1000) < per_thousand
    }

    fn is_lost(&mut self, now: u64) -> bool {
        if self.faults.blackout.is_some_and(|(from, until)| (from..until).contains(&now)) {
            return true;
        }
        if let Some(bursts) = self.faults.bursts {
            let turns = if self.is_in_burst { bursts.end } else { bursts.begin };
            self.is_in_burst ^= self.happens(now, turns);
            if self.is_in_burst && self.happens(now, bursts.loss) {
                return true;
            }
        }
        self.happens(now, self.faults.loss)
    }

    /// When a packet of `len` bytes has left the bottleneck; `None` if its queue is full.
    fn queue(&mut self, now: u64, len: usize) -> Option<u64> {
        let Some(Bottleneck { bytes_per_second, queue }) = self.faults.bottleneck else { return Some(now) };
        let backlog_bytes = self.is_busy_until.saturating_sub(now) * bytes_per_second / 1_000_000;
        // Packets of full size take the room; a queue of small ones is longer, as with byte queues.
        if backlog_bytes > queue as u64 * 1500 {
            return None;
        }
        let service = (len as u64 * 1_000_000).div_ceil(bytes_per_second);
        self.is_busy_until = self.is_busy_until.max(now) + service;
        Some(self.is_busy_until)
    }

    /// One packet goes in.
    pub(crate) fn pass(&mut self, now: u64, packet: &[u8], view: &View, passage: &mut Passage) -> Fate {
        let is_too_big =
            self.faults.mtu_bytes.is_some_and(|mtu| view.ip_len(self.link_header_len) > usize::from(mtu));
        if is_too_big {
            if !self.is_lost(now) {
                let mtu = self.faults.mtu_bytes.unwrap_or_default();
                let bytes = wire::packet_too_big(packet, self.link_header_len, view, mtu);
                let at = now + self.faults.delay + 1;
                passage.answer = Some((at, Packet { bytes, view: None, is_damaged: false }));
            }
            return Fate::TooBig;
        }
        if self.is_lost(now) {
            return Fate::Lost;
        }
        let Some(sent_at) = self.queue(now, packet.len()) else { return Fate::QueueFull };
        let (mut bytes, mut view) = (packet.to_vec(), *view);
        if view.has(SYN) && !self.faults.strips.is_empty() {
            wire::strip_options(&mut bytes, &mut view, &self.faults.strips);
        }
        let mut fate = Fate::Arrives;
        if self.happens(now, self.faults.duplicate) {
            fate = Fate::Doubled;
            let at = self.arrival(now, sent_at);
            passage.arrivals.push((at, Packet { bytes: bytes.clone(), view: Some(view), is_damaged: false }));
        }
        let at = self.arrival(now, sent_at);
        if self.happens(now, self.faults.damage) {
            self.damage(&mut bytes);
            passage.arrivals.push((at, Packet { bytes, view: None, is_damaged: true }));
            return Fate::Damaged;
        }
        passage.arrivals.push((at, Packet { bytes, view: Some(view), is_damaged: false }));
        fate
    }

    fn arrival(&mut self, now: u64, sent_at: u64) -> u64 {
        let mut at = sent_at + self.faults.delay;
        if self.faults.jitter > 0 {
            at += self.dice.word() % (self.faults.jitter + 1);
        }
        if self.happens(now, self.faults.overtaken) {
            at += self.dice.word() % (self.faults.overtaken_delay + 1);
        }
        at
    }

    /// Damage that checksums and lengths surely show: a burst of fewer than 16 bits in IP header, TCP
    /// header or text, or an end cut off. What no checksum covers stays whole: link header, IPv6 flow label.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let from = self.link_header_len;
        if self.dice.percent(20) {
            bytes.truncate(self.dice.between(from + 1, bytes.len() - 1));
            return;
        }
        let is_v6 = bytes[from] >> 4 == 6;
        let covered = if is_v6 { from + 8 } else { from + 1 };
        let at = self.dice.between(covered, bytes.len() - 2);
        let burst = self.dice.between(1, 0x7fff) as u16;
        bytes[at] ^= (burst >> 8) as u8;
        bytes[at + 1] ^= burst as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets() -> [Vec<u8>; 2] {
        [["192.0.2.1:1", "192.0.2.2:2"], ["[2001:db8::1]:1", "[2001:db8::2]:2"]].map(|addresses| {
            let addresses = addresses.map(|address| address.parse().expect("an address"));
            wire::bare_segment(14, addresses, (7, 8, wire::ACK))
        })
    }

    #[test]
    fn damage_is_always_seen() {
        let mut path = Path::new(Faults::default(), Dice::new(1), 14);
        for packet in packets() {
            for _ in 0..20_000 {
                let mut damaged = packet.clone();
                path.damage(&mut damaged);
                assert!(wire::view(&damaged, 14).is_err(), "{packet:02x?} became {damaged:02x?}");
            }
        }
    }

    #[test]
    fn a_full_queue_drops_at_its_tail_and_empties_at_its_rate() {
        let bottleneck = Some(Bottleneck { bytes_per_second: 1_000_000, queue: 4 });
        let mut path = Path::new(Faults { bottleneck, ..Faults::default() }, Dice::new(1), 14);
        let sent: Vec<Option<u64>> = (0..6).map(|_| path.queue(0, 1500)).collect();
        assert_eq!(sent, [Some(1500), Some(3000), Some(4500), Some(6000), Some(7500), None]);
        assert_eq!(path.queue(1500, 1500), Some(9000));
    }

    #[test]
    fn losses_come_in_bursts_and_end_when_it_is_calm() {
        let bursts = Some(Bursts { begin: 20, end: 200, loss: 1000 });
        let mut path = Path::new(Faults { bursts, calm_at: 10, ..Faults::default() }, Dice::new(1), 14);
        let lost: Vec<bool> = (0..20_000).map(|_| path.is_lost(0)).collect();
        let losses = lost.iter().filter(|lost| **lost).count();
        let pairs = lost.windows(2).filter(|pair| pair[0] && pair[1]).count();
        // In the burst for 5 packets of 55 on average, and then the next one is lost four times of five.
        assert!((1_000..2_700).contains(&losses), "{losses}");
        assert!((600..950).contains(&(pairs * 1000 / losses)), "{pairs} of {losses}");
        assert!((0..1_000).all(|_| !path.is_lost(10)));
    }
}
