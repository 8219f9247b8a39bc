//! Tests that read as packet traces, in the manner of packetdrill: what arrives, what leaves, and when.
//!
//! A segment is a line: `PA 1:101 ack 1 win 1000`. Numbers are relative to each side's initial sequence number, so
//! that SYN is 0. Text is not written down: its bytes follow from their sequence numbers, and both directions are
//! checked for them. The window of a segment that leaves is compared only if the line states one.

mod attacks;
mod chaos;
mod closing;
mod handshake;
mod loss;
mod memory;
mod pair;
mod path;
mod text;
mod windows;

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::connections::ConnectionId;
use crate::drop_reason::DropReason;
use crate::event::{Event, Read};
use crate::link::Link;
use crate::memory_link::MemoryLink;
use crate::secrets::Secrets;
use crate::seq::SeqNumber;
use crate::settings::Settings;
use crate::stack::{Stack, Unknown};
use crate::tcb::State;
use crate::time::Instant;
use crate::wire::{self, Body, Checksums, Flags, Options, Outgoing, SackBlock, Segment, Timestamps};

/// What the peer's timestamps are ahead of the clock.
const PEER_CLOCK: u32 = 7_000_000;

/// The peer's initial sequence number: near the end of the space, so that every trace crosses it.
const PEER_ISS: SeqNumber = SeqNumber(u32::MAX - 500);

pub(super) const SYN_OPTIONS: &str = "mss 1460 sackok ws 7 ts";

pub(super) struct Trace {
    pub(super) stack: Stack<MemoryLink>,
    pub(super) link: MemoryLink,
    pub(super) now: Instant,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) id: Option<ConnectionId>,
    iss: Option<SeqNumber>,
    /// Whether the peer's segments carry timestamps, and the last of ours to echo.
    timestamps: bool,
    pub(super) echo: u32,
    /// Read so far, as the peer's next sequence number.
    read_to: u32,
    pub(super) events: Vec<Event>,
    /// Connections that broke, and were not let go of.
    broken: Vec<ConnectionId>,
    pub(super) last: Option<Segment>,
}

impl Trace {
    pub(super) fn new(settings: Settings) -> Self {
        let mut trace = Self {
            stack: Stack::new(settings, Secrets::from_seed([7; 32]), Instant::from_micros(5_000_000)),
            link: MemoryLink::new(1024, 2048),
            now: Instant::from_micros(5_000_000),
            local: "192.0.2.1:443".parse().unwrap(),
            remote: "198.51.100.7:50000".parse().unwrap(),
            id: None,
            iss: None,
            timestamps: true,
            echo: 0,
            read_to: 1,
            events: Vec::new(),
            broken: Vec::new(),
            last: None,
        };
        trace.stack.listen(trace.local);
        trace
    }

    /// A connection that the peer has opened, with all options.
    pub(super) fn accepted() -> Self {
        Self::accepted_with(Settings::default(), SYN_OPTIONS)
    }

    pub(super) fn accepted_with(settings: Settings, options: &str) -> Self {
        let mut trace = Self::new(settings);
        trace.timestamps = options.contains("ts");
        trace.recv(&format!("S 0:0 win 65535 {options}"));
        trace.sent_any();
        trace.pass_ms(10);
        trace.recv("A 1:1 ack 1 win 1000");
        trace.quiet();
        assert!(matches!(trace.events[..], [Event::Accepted(..)]));
        trace.events.clear();
        assert_eq!(trace.state(), State::Established);
        trace
    }

    /// A connection that we have opened.
    pub(super) fn connected() -> Self {
        let mut trace = Self::dialling();
        trace.pass_ms(10);
        trace.recv(&format!("SA 0:0 ack 1 win 65535 {SYN_OPTIONS}"));
        trace.sent("A 1:1 ack 1");
        trace.events.clear();
        trace
    }

    /// SYN is out.
    pub(super) fn dialling() -> Self {
        let mut trace = Self::new(Settings::default());
        trace.link.set_hop(Some(crate::memory_link::ETHERNET));
        let id = trace.stack.connect(trace.now, trace.local, trace.remote, &mut trace.link).unwrap();
        trace.id = Some(id);
        trace.transmit();
        trace.sent("S 0:0 mss 1460 sackok ws 7 ts");
        trace
    }

    /// A half-open connection.
    pub(super) fn syn_received() -> Self {
        let mut trace = Self::new(Settings::default());
        trace.recv(&format!("S 0:0 win 65535 {SYN_OPTIONS}"));
        trace.sent("SA 0:0 ack 1 mss 1460 sackok ws 7 ts");
        trace
    }

    pub(super) fn fin_wait_1() -> Self {
        let mut trace = Self::accepted();
        trace.shut_down();
        trace.sent("FA 1:1 ack 1");
        trace
    }

    pub(super) fn fin_wait_2() -> Self {
        let mut trace = Self::fin_wait_1();
        trace.recv("A 1:1 ack 2 win 1000");
        trace.quiet();
        trace
    }

    pub(super) fn close_wait() -> Self {
        let mut trace = Self::accepted();
        trace.recv("FA 1:1 ack 1 win 1000");
        trace.sent("A 1:1 ack 2");
        trace
    }

    pub(super) fn closing() -> Self {
        let mut trace = Self::fin_wait_1();
        trace.recv("FA 1:1 ack 1 win 1000");
        trace.sent("A 2:2 ack 2");
        trace
    }

    pub(super) fn last_ack() -> Self {
        let mut trace = Self::close_wait();
        trace.shut_down();
        trace.sent("FA 1:1 ack 2");
        trace
    }

    pub(super) fn time_wait() -> Self {
        let mut trace = Self::fin_wait_2();
        trace.recv("FA 1:1 ack 2 win 1000");
        trace.sent("A 2:2 ack 2");
        trace
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.id.expect("no connection was accepted or dialled")
    }

    pub(super) fn state(&self) -> State {
        self.stack.info(self.id()).expect("the connection is gone").state
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.stack.counters().dropped(reason)
    }

    /// Time passes, with everything that is due on the way.
    pub(super) fn pass_ms(&mut self, ms: u64) {
        let end = self.now.plus(Duration::from_millis(ms));
        while let Some(next) = self.stack.next_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.stack.time_out(self.now, &mut self.link);
            self.transmit();
        }
        self.now = end;
        self.stack.time_out(self.now, &mut self.link);
        self.transmit();
    }

    pub(super) fn transmit(&mut self) {
        self.stack.transmit(self.now, &mut self.link);
        self.take_events();
    }

    fn take_events(&mut self) {
        while let Some(event) = self.stack.next_event() {
            if let Event::Accepted(id, remote) = event {
                assert_eq!(remote, self.remote);
                self.id = Some(id);
            }
            if let Event::Reset(id, _) | Event::ConnectFailed(id, _) = event {
                self.broken.push(id);
            }
            self.events.push(event);
        }
    }

    /// A segment arrives, and what it causes leaves.
    pub(super) fn recv(&mut self, line: &str) {
        self.recv_quietly(line);
        self.transmit();
    }

    /// A segment arrives, and more of the same burst may follow.
    pub(super) fn recv_quietly(&mut self, line: &str) -> Option<Unknown<crate::memory_link::MemoryFrame>> {
        let packet = self.packet(line);
        let (frame, range) = self.link.received(&packet).expect("no frame left to receive into");
        let unknown = self.stack.receive(self.now, frame, range, &mut self.link);
        self.take_events();
        unknown
    }

    /// The bytes of a segment of the peer's.
    pub(super) fn packet(&self, line: &str) -> Vec<u8> {
        let mut words = line.split_whitespace();
        let flags = parse_flags(words.next().unwrap());
        let (start, end) = parse_range(words.next().unwrap());
        let mut outgoing = Outgoing {
            local: self.remote,
            remote: self.local,
            seq: PEER_ISS + start,
            ack: SeqNumber(0),
            flags,
            window: 0,
            urgent: 0,
            options: Options::default(),
        };
        let value = PEER_CLOCK.wrapping_add(crate::tcb::millis(self.now));
        let timestamps = Timestamps { value, echo: self.echo };
        if self.timestamps && !flags.intersects(Flags::SYN.with(Flags::RST)) {
            outgoing.options.timestamps = Some(timestamps);
        }
        while let Some(word) = words.next() {
            let options = &mut outgoing.options;
            let mut number = || words.next().unwrap().parse::<u32>().unwrap();
            match word {
                "ack" => outgoing.ack = self.iss.unwrap_or_default() + number(),
                "win" => outgoing.window = u16::try_from(number()).unwrap(),
                "urg" => outgoing.urgent = u16::try_from(number()).unwrap(),
                "mss" => options.mss = Some(u16::try_from(number()).unwrap()),
                "ws" => options.window_scale = Some(u8::try_from(number()).unwrap()),
                "sackok" => options.sack_permitted = true,
                "ts" => options.timestamps = Some(timestamps),
                "nots" => options.timestamps = None,
                "tsval" => {
                    options.timestamps =
                        Some(Timestamps { value: PEER_CLOCK.wrapping_add(number()), ..timestamps });
                }
                "sack" => {
                    let (left, right) = parse_range(words.next().unwrap());
                    let iss = self.iss.unwrap_or_default();
                    options.sack.push(SackBlock { left: iss + left, right: iss + right });
                }
                other => panic!("what is {other}?"),
            }
        }
        // SYN stands before the text.
        let first = start.wrapping_add(u32::from(flags.contains(Flags::SYN)));
        let text: Vec<u8> = (0..end.wrapping_sub(start)).map(|at| pattern(first.wrapping_add(at))).collect();
        let mut packet = vec![0; 14 + outgoing.header_len()];
        packet.extend_from_slice(&text);
        packet[12..14].copy_from_slice(if self.local.is_ipv4() { &[0x08, 0x00] } else { &[0x86, 0xdd] });
        outgoing.write(&mut packet, 14, text.len());
        packet
    }

    /// The next segment that left is this.
    #[track_caller]
    pub(super) fn sent(&mut self, line: &str) {
        let found = self.sent_any();
        let window = self.last.as_ref().unwrap().window;
        let found =
            if line.contains(" win ") { found.replace(" ack", &format!(" win {window} ack")) } else { found };
        let line: Vec<&str> = line.split_whitespace().collect();
        let mut line = line.join(" ");
        if let Some(at) = line.find(" win ") {
            // The window stands before the acknowledgement in what was found.
            let window: Vec<&str> = line[at + 1..].split(' ').take(2).collect();
            let window = format!(" {}", window.join(" "));
            line = line.replacen(&window, "", 1).replace(" ack", &format!("{window} ack"));
        }
        assert_eq!(found, line, "found, and expected");
    }

    /// Takes the next segment that left, as a line without its window.
    #[track_caller]
    pub(super) fn sent_any(&mut self) -> String {
        let packet = self.link.take_sent().expect("nothing was sent");
        let parsed = wire::parse(&packet, Checksums::Verify).expect("what we send is sound");
        let Body::Segment(segment) = parsed.body else { panic!("not TCP") };
        if segment.flags.contains(Flags::SYN) {
            self.iss = Some(segment.seq);
        }
        if let Some(timestamps) = segment.options.timestamps {
            self.echo = timestamps.value;
        }
        let start = segment.seq - self.iss.unwrap_or_default();
        let len = u32::try_from(segment.payload.len()).unwrap();
        for (at, byte) in (start..).zip(&packet[segment.payload.clone()]) {
            assert_eq!(*byte, pattern(at), "text at {at}");
        }
        let mut line = format!("{} {start}:{}", flags_name(segment.flags), start + len);
        if segment.flags.contains(Flags::ACK) {
            write!(line, " ack {}", segment.ack - PEER_ISS).unwrap();
        }
        let options = &segment.options;
        if let Some(mss) = options.mss {
            write!(line, " mss {mss}").unwrap();
        }
        if options.sack_permitted {
            line.push_str(" sackok");
        }
        if let Some(shift) = options.window_scale {
            write!(line, " ws {shift}").unwrap();
        }
        if options.timestamps.is_some() && segment.flags.contains(Flags::SYN) {
            line.push_str(" ts");
        }
        for block in options.sack.iter() {
            write!(line, " sack {}:{}", block.left - PEER_ISS, block.right - PEER_ISS).unwrap();
        }
        self.last = Some(segment);
        self.link.recycle(packet);
        line
    }

    /// Nothing more has left.
    #[track_caller]
    pub(super) fn quiet(&mut self) {
        if self.link.sent_count() > 0 {
            panic!("sent: {}", self.sent_any());
        }
    }

    /// Queues text, whose bytes follow from their sequence numbers.
    pub(super) fn queue(&mut self, range: std::ops::Range<u32>) -> usize {
        let text: Vec<u8> = range.map(pattern).collect();
        self.stack.send(self.id(), &text, &mut self.link)
    }

    pub(super) fn send(&mut self, range: std::ops::Range<u32>) {
        self.queue(range);
        self.transmit();
    }

    pub(super) fn shut_down(&mut self) {
        self.stack.shut_down(self.id());
        self.transmit();
    }

    pub(super) fn close(&mut self) {
        self.stack.close(self.now, self.id(), &mut self.link);
        self.transmit();
    }

    /// Reads all there is; answers how many bytes, and whether the end was told.
    pub(super) fn read(&mut self) -> (u32, bool) {
        let (mut count, mut end) = (0, false);
        loop {
            match self.stack.read(self.id()) {
                Read::Text { frame, range } => {
                    for byte in &self.link.bytes(&frame)[range] {
                        assert_eq!(*byte, pattern(self.read_to), "text at {}", self.read_to);
                        self.read_to += 1;
                        count += 1;
                    }
                    self.link.release(frame);
                }
                Read::End => end = true,
                Read::Nothing => return (count, end),
            }
        }
    }

    /// Nothing is left of anything.
    #[track_caller]
    pub(super) fn gone(&mut self) {
        // A driver lets go of what broke; the name was good until now.
        for id in std::mem::take(&mut self.broken) {
            self.stack.close(self.now, id, &mut self.link);
        }
        assert_eq!(self.stack.connection_count(), 0, "connections are left");
        assert_eq!(self.stack.half_open_count(), 0, "half-open connections are left");
        assert_eq!(self.stack.frames_held(), 0, "frames are held");
        assert_eq!(self.link.frames_taken(), 0, "frames are leaked");
    }
}

fn pattern(at: u32) -> u8 {
    (at.wrapping_mul(31) >> 2).to_le_bytes()[0]
}

fn parse_range(word: &str) -> (u32, u32) {
    let (start, end) = word.split_once(':').unwrap();
    (start.parse().unwrap(), end.parse().unwrap())
}

const FLAG_NAMES: [(char, Flags); 6] = [
    ('S', Flags::SYN),
    ('F', Flags::FIN),
    ('R', Flags::RST),
    ('P', Flags::PSH),
    ('U', Flags::URG),
    ('A', Flags::ACK),
];

fn parse_flags(word: &str) -> Flags {
    let flag = |name| FLAG_NAMES.iter().find(|(known, _)| *known == name).expect("a flag").1;
    word.chars().map(flag).fold(Flags::default(), Flags::with)
}

fn flags_name(flags: Flags) -> String {
    FLAG_NAMES.iter().filter(|(_, flag)| flags.contains(*flag)).map(|(name, _)| name).collect()
}
