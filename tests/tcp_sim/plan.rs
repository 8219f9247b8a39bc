//! Who talks to whom over what, and how badly: all of it drawn from the seed before the first moment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mtproxy_tcp::congestion::Algorithm;
use mtproxy_tcp::settings::{Keepalive, Settings};
use mtproxy_tests::dice::Dice;

use crate::memory_link::{Header, Shape};
use crate::network::{Bottleneck, Bursts, Faults};
use crate::script::{Ending, Script};

pub(crate) const MILLISECOND: u64 = 1_000;
pub(crate) const SECOND: u64 = 1_000_000;

/// Where hosts listen.
pub(crate) const LISTENING_PORT: u16 = 443;
/// Where nobody does.
pub(crate) const CLOSED_PORT: u16 = 81;
/// The connector's port of conversation 0; the next one has the next.
pub(crate) const FIRST_PORT: u16 = 20_000;
/// The other port of a conversation that both ends open.
pub(crate) const FIRST_OPPOSITE_PORT: u16 = 40_000;

/// Address of a host.
pub(crate) fn address(host: usize, is_v6: bool) -> IpAddr {
    let last = host as u8 + 1;
    if is_v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into()
    } else {
        Ipv4Addr::new(198, 51, 100, last).into()
    }
}

/// How a conversation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// To the other host's listener.
    Ordinary,
    /// To a port where nobody listens, which says so.
    Refused,
    /// To a port where nobody listens, which keeps silent.
    Ignored,
    /// Both ends open at once (RFC 9293 section 3.5).
    Simultaneous,
}

/// One connection, wished for.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) at: u64,
    /// Host of each end: who connects, and who is connected to.
    pub(crate) hosts: [usize; 2],
    pub(crate) addresses: [SocketAddr; 2],
    pub(crate) opening: Opening,
    pub(crate) scripts: [Script; 2],
    /// The earlier conversation whose addresses and ports it uses again.
    pub(crate) reuses: Option<usize>,
    /// When forged segments come.
    pub(crate) forgeries: Vec<u64>,
}

impl Conversation {
    /// Nobody means to tear it down.
    pub(crate) fn is_peaceful(&self) -> bool {
        let [connector, acceptor] = &self.scripts;
        matches!(self.opening, Opening::Ordinary | Opening::Simultaneous)
            && connector.is_peaceful_with(acceptor)
            && acceptor.is_peaceful_with(connector)
    }
}

/// SYNs from addresses that mostly never answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storm {
    pub(crate) host: usize,
    pub(crate) gap: u64,
    pub(crate) count: u64,
}

/// How a host's device and driver behave.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// Most time until a sent frame is completed.
    pub(crate) completion_max: u64,
    /// Most time until received packets are looked at.
    pub(crate) poll_max: u64,
    /// Bytes before a received packet in its frame.
    pub(crate) headroom: usize,
    /// Sends nothing from the first to the second.
    pub(crate) stall: Option<(u64, u64)>,
    /// No route from the first to the second.
    pub(crate) unrouted: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) half_open_max: usize,
    pub(crate) receive_buffer_max_bytes: u32,
    pub(crate) send_buffer_max_bytes: u32,
    pub(crate) is_cubic: bool,
    pub(crate) connections_max: usize,
    /// Silence after which the peer is asked whether it lives.
    pub(crate) keepalive: Option<Duration>,
}

impl Limits {
    pub(crate) fn settings(self) -> Settings {
        Settings {
            congestion: if self.is_cubic { Algorithm::Cubic } else { Algorithm::NewReno },
            half_open_max: self.half_open_max,
            receive_buffer_max_bytes: self.receive_buffer_max_bytes,
            send_buffer_max_bytes: self.send_buffer_max_bytes,
            connections_max: self.connections_max,
            keepalive: self.keepalive.map(|idle| Keepalive { idle, interval: idle / 2, probes: 4 }),
            ..Settings::default()
        }
    }
}

/// Whose numbers wrap around soon after the run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wraps {
    Nothing,
    /// The connector's sequence numbers in conversation 0.
    Sequence,
    /// The connector's timestamps in conversation 0.
    Timestamps,
}

/// Everything about a run that is fixed in advance.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shapes: [Shape; 2],
    pub(crate) limits: [Limits; 2],
    pub(crate) devices: [Device; 2],
    /// The path to each host.
    pub(crate) paths: [Faults; 2],
    pub(crate) calm_at: u64,
    pub(crate) conversations: Vec<Conversation>,
    pub(crate) storm: Option<Storm>,
    /// A host that stops, and when.
    pub(crate) stop: Option<(usize, u64)>,
    pub(crate) wraps: Wraps,
    pub(crate) clock_origin: u64,
    pub(crate) secret_seeds: [[u8; 32]; 2],
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let calm_at = if dice.percent(30) { 0 } else { dice.between(1, 20) as u64 * SECOND };
        let header =
            *dice.pick(&[Header::Ethernet, Header::Ethernet, Header::Ethernet, Header::Vlan(0x2007)]);
        let is_v4_only = dice.percent(60);
        let count = if dice.percent(50) { dice.between(1, 3) } else { dice.between(2, 12) };
        let mut conversations: Vec<Conversation> =
            (0..count).map(|index| draw_conversation(dice, index, is_v4_only)).collect();
        add_reuses(dice, &mut conversations);
        let written: u64 = conversations
            .iter()
            .map(|conversation| conversation.scripts.iter().map(|script| script.total).sum::<u64>())
            .sum();
        let mtu_floor = if is_v4_only { 600 } else { 1280 };
        let mut faults = draw_faults(dice, calm_at, written);
        if dice.percent(15) {
            faults.mtu_bytes = Some(dice.between(mtu_floor, 1499) as u16);
        }
        let mut back = if dice.percent(60) {
            Faults { mtu_bytes: faults.mtu_bytes, ..draw_faults(dice, calm_at, written) }
        } else {
            faults.clone()
        };
        back.strips.clone_from(&faults.strips);
        let storm = dice.percent(8).then(|| Storm {
            host: dice.below(2),
            gap: dice.time_micros(20 * MILLISECOND) + 100,
            count: dice.size(400) as u64,
        });
        let shapes = [(); 2].map(|()| draw_shape(dice, header, mtu_floor, count));
        Self {
            shapes,
            limits: [(); 2].map(|()| draw_limits(dice)),
            devices: shapes.map(|shape| draw_device(dice, shape)),
            paths: [faults, back],
            calm_at,
            conversations,
            storm,
            stop: dice.percent(4).then(|| (dice.below(2), dice.time_micros(10 * SECOND))),
            wraps: *dice.pick(&[Wraps::Nothing, Wraps::Sequence, Wraps::Sequence, Wraps::Timestamps]),
            clock_origin: dice.word() >> dice.between(20, 40),
            secret_seeds: [dice.seed(), dice.seed()],
        }
    }

    /// So few connections may be half open that SYN cookies are likely.
    pub(crate) fn uses_cookies(&self) -> bool {
        self.storm.is_some() || self.limits.iter().any(|limits| limits.half_open_max < 100)
    }

    pub(crate) fn has_short_ring(&self) -> bool {
        self.shapes.iter().any(|shape| shape.transmit_ring < 64)
    }

    /// Who listens where.
    pub(crate) fn listeners(&self) -> Vec<(usize, SocketAddr)> {
        let everywhere: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let everywhere = everywhere.map(|address| SocketAddr::new(address, LISTENING_PORT));
        [0, 1].into_iter().flat_map(|host| everywhere.map(|at| (host, at))).collect()
    }

    /// So few connections may be open that some may be turned away.
    pub(crate) fn is_crowded(&self) -> bool {
        self.limits.iter().any(|limits| limits.connections_max < 100)
    }
}

/// Micros as the dice's time.
trait Micros {
    fn time_micros(&mut self, max: u64) -> u64;
}

impl Micros for Dice {
    fn time_micros(&mut self, max: u64) -> u64 {
        self.size(max.max(1) as usize) as u64 - 1
    }
}

fn draw_conversation(dice: &mut Dice, index: usize, is_v4_only: bool) -> Conversation {
    let from = dice.below(2);
    let is_v6 = !is_v4_only && dice.percent(60);
    let opening = match dice.below(100) {
        0..4 => Opening::Refused,
        4..6 => Opening::Ignored,
        6..12 => Opening::Simultaneous,
        _ => Opening::Ordinary,
    };
    let port = match opening {
        Opening::Ordinary => LISTENING_PORT,
        Opening::Refused | Opening::Ignored => CLOSED_PORT,
        Opening::Simultaneous => FIRST_OPPOSITE_PORT + index as u16,
    };
    let bytes_max = *dice.pick(&[2_000, 20_000, 20_000, 200_000, 200_000, 700_000]);
    let mut scripts = [Script::draw(dice, bytes_max), Script::draw(dice, bytes_max)];
    if dice.percent(15) {
        scripts[1].is_echo = true;
        scripts[1].total = scripts[0].total;
    }
    let [connector, acceptor] = &mut scripts;
    // Somebody must be the first to end, and an echo never is.
    if connector.ending == Ending::AfterPeer && (acceptor.ending == Ending::AfterPeer || acceptor.is_echo) {
        connector.ending = Ending::AfterAll;
    }
    Conversation {
        at: dice.time_micros(3 * SECOND),
        hosts: [from, 1 - from],
        addresses: [
            SocketAddr::new(address(from, is_v6), FIRST_PORT + index as u16),
            SocketAddr::new(address(1 - from, is_v6), port),
        ],
        opening,
        scripts,
        reuses: None,
        forgeries: if dice.percent(15) {
            (0..dice.between(1, 20)).map(|_| dice.time_micros(10 * SECOND)).collect()
        } else {
            Vec::new()
        },
    }
}

/// Some conversations take place again, from the same port.
fn add_reuses(dice: &mut Dice, conversations: &mut Vec<Conversation>) {
    for earlier in 0..conversations.len() {
        let is_ordinary = conversations[earlier].opening == Opening::Ordinary;
        if is_ordinary && conversations[earlier].is_peaceful() && dice.percent(8) {
            let mut again = draw_conversation(dice, earlier, true);
            (again.hosts, again.addresses) = (conversations[earlier].hosts, conversations[earlier].addresses);
            (again.opening, again.reuses) = (Opening::Ordinary, Some(earlier));
            again.at = conversations[earlier].at + dice.time_micros(120 * SECOND);
            conversations.push(again);
        }
    }
}

fn draw_faults(dice: &mut Dice, calm_at: u64, written: u64) -> Faults {
    let per_thousand = |dice: &mut Dice, chance: usize, max: usize| {
        if dice.percent(chance) { dice.size(max) } else { 0 }
    };
    let bursts = dice.percent(20).then(|| Bursts {
        begin: dice.size(60),
        end: dice.between(50, 600),
        loss: dice.between(300, 1000),
    });
    let blackout = dice.percent(10).then(|| {
        let from = dice.time_micros(5 * SECOND);
        (from, from + dice.time_micros(10 * SECOND))
    });
    let bottleneck = dice.percent(35).then(|| Bottleneck {
        // Everything passes within a few seconds, if it does not come too often.
        bytes_per_second: (written / dice.between(1, 8) as u64).max(20_000),
        queue: dice.between(4, 200),
    });
    let strips = match dice.below(100) {
        0..5 => vec![3, 4, 8],
        5..10 => vec![8],
        10..14 => vec![4],
        14..18 => vec![3],
        18..20 => vec![2, 3, 4, 8],
        _ => Vec::new(),
    };
    let delay = dice.time_micros(150 * MILLISECOND);
    Faults {
        loss: per_thousand(dice, 40, 250),
        bursts,
        blackout: blackout.filter(|_| calm_at > 0),
        duplicate: per_thousand(dice, 25, 300),
        overtaken: per_thousand(dice, 30, 500),
        overtaken_delay: dice.time_micros(100 * MILLISECOND),
        damage: per_thousand(dice, 20, 100),
        delay,
        jitter: if dice.percent(30) { dice.time_micros(30 * MILLISECOND) } else { 0 },
        bottleneck,
        mtu_bytes: None,
        strips,
        calm_at,
    }
}

fn draw_shape(dice: &mut Dice, header: Header, mtu_floor: usize, conversations: usize) -> Shape {
    let frames = match dice.below(100) {
        0..5 => dice.between(24, 64),
        5..20 => dice.between(64, 400),
        _ => 2_000 + 100 * conversations,
    };
    Shape {
        frames,
        fill: if frames < 400 { frames / 4 } else { 256 },
        transmit_ring: if dice.percent(15) { dice.between(4, 16) } else { 1024 },
        mtu_bytes: if dice.percent(20) { dice.between(mtu_floor, 1500) as u16 } else { 1500 },
        header,
    }
}

fn draw_limits(dice: &mut Dice) -> Limits {
    Limits {
        half_open_max: if dice.percent(15) { dice.between(0, 2) } else { 256 },
        receive_buffer_max_bytes: *dice.pick(&[64 << 10, 256 << 10, 4 << 20, 4 << 20]),
        send_buffer_max_bytes: *dice.pick(&[64 << 10, 256 << 10, 4 << 20, 4 << 20]),
        is_cubic: dice.percent(70),
        connections_max: if dice.percent(3) { dice.between(1, 4) } else { 10_000 },
        keepalive: dice.percent(10).then(|| Duration::from_millis(dice.between(500, 100_000) as u64)),
    }
}

fn draw_device(dice: &mut Dice, shape: Shape) -> Device {
    // A ring that is both short and slow would be a wire of a few packets a second.
    let completion_most = if shape.transmit_ring < 64 { 20 * MILLISECOND } else { 300 * MILLISECOND };
    let stretch = |dice: &mut Dice, chance: usize, max: u64| {
        dice.percent(chance).then(|| {
            let from = dice.time_micros(4 * SECOND);
            (from, from + dice.time_micros(max))
        })
    };
    Device {
        completion_max: *dice.pick(&[0, 20, 20, 500, 5 * MILLISECOND, completion_most]),
        poll_max: *dice.pick(&[0, 10, 100, 1_000]),
        headroom: *dice.pick(&[0, 0, 64]),
        stall: stretch(dice, 10, 2 * SECOND),
        unrouted: stretch(dice, 5, 2 * SECOND),
    }
}
