//! What real kernels said, replayed to the stack: its answers must fit.
//!
//! Each file in `recorded/` is an exchange between two Linux kernels, by `recorded/record.py`. The stack
//! takes the part of one of them. The other one's packets come when they came then; their acknowledgement
//! numbers and timestamp echoes are moved to the stack's own ISS and clock, and nothing else is changed.
//!
//! The stack fits if, soon after each packet of the kernel whose part it takes, it has acknowledged and
//! sent at least as much, and in the end exactly as much.

use std::net::SocketAddr;
use std::path::Path;

use mtproxy_tcp::ConnectionId;
use mtproxy_tcp::event::{Event, Read};
use mtproxy_tcp::link::Link;
use mtproxy_tcp::secrets::Secrets;
use mtproxy_tcp::settings::Settings;
use mtproxy_tcp::stack::Stack;
use mtproxy_tcp::time::Instant;

use crate::memory_link::{Header, MemoryLink, Shape};
use crate::wire::{self, ACK, FIN, RST, SYN, View};

/// How much later than the kernel the stack may answer: the delay of an acknowledgement (RFC 9293, MUST-40,
/// allows half a second).
const SLACK: u64 = 300_000;
/// The recorder passed packets on after this time.
const DELAY: u64 = 1_000;
/// After the last packet.
const EPILOGUE: u64 = 5_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToStack,
    /// Sent by the kernel, and lost.
    Lost,
    /// Sent by the kernel whose part the stack takes.
    Model,
}

struct Line {
    at: u64,
    direction: Direction,
    packet: Vec<u8>,
    view: View,
}

/// What the driver does once.
#[derive(Clone, Copy, Debug)]
enum Cue {
    Write(usize),
    ShutDown,
}

struct Recording {
    connects: bool,
    /// When so much is read, or the end.
    cues: Vec<(Option<usize>, Cue)>,
    lines: Vec<Line>,
}

fn unhex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).expect("hexadecimal")
}

fn parse(text: &str) -> Recording {
    let mut recording = Recording { connects: false, cues: Vec::new(), lines: Vec::new() };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["part", part] => recording.connects = part == "connect",
            [when @ ("after_read" | "after_end"), amount, ref what @ ..] => {
                let when = (when == "after_read").then(|| amount.parse().expect("a number"));
                let cue = match what {
                    ["write", len] => Cue::Write(len.parse().expect("a number")),
                    ["shut"] => Cue::ShutDown,
                    other => panic!("a cue: {other:?}"),
                };
                recording.cues.push((when, cue));
            }
            [at, direction, headers, payload_len] => {
                let mut packet = unhex(headers);
                packet.resize(packet.len() + payload_len.parse::<usize>().expect("a number"), 0);
                let direction = match direction {
                    ">" => Direction::ToStack,
                    "x" => Direction::Lost,
                    _ => Direction::Model,
                };
                let view = wire::view(&packet, 0).expect("what a kernel sends is in order");
                let at = (at.parse::<f64>().expect("seconds") * 1e6) as u64;
                recording.lines.push(Line { at, direction, packet, view });
            }
            _ => panic!("a line: {line}"),
        }
    }
    recording
}

/// How far one side has come: relative to both ISS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reached {
    sent: u32,
    acknowledged: u32,
}

impl Reached {
    fn add(&mut self, view: &View, iss: u32, irs: Option<u32>) {
        self.sent = self.sent.max(view.seq.wrapping_add(view.len()).wrapping_sub(iss));
        if let (true, Some(irs)) = (view.has(ACK), irs) {
            self.acknowledged = self.acknowledged.max(view.ack.wrapping_sub(irs));
        }
    }
}

struct Replay {
    stack: Stack<MemoryLink>,
    link: MemoryLink,
    now: u64,
    id: Option<ConnectionId>,
    cues: Vec<(Option<usize>, Cue)>,
    read: usize,
    has_end: bool,
    is_reset: bool,
    /// Both ISS: the stack's, that of the kernel whose part it takes, and that of the other one.
    own_iss: Option<u32>,
    model_iss: u32,
    irs: u32,
    last_timestamp: u32,
    reached: Reached,
    sent: Vec<View>,
    syn: Vec<u8>,
}

impl Replay {
    fn instant(&self) -> Instant {
        Instant::from_micros(1_000_000 + self.now)
    }

    fn settle(&mut self) {
        loop {
            while let Some(event) = self.stack.next_event() {
                match event {
                    Event::Accepted(id, _) | Event::Connected(id) => self.id = Some(id),
                    Event::Reset(id, _) => {
                        self.stack.close(self.instant(), id, &mut self.link);
                        (self.is_reset, self.id) = (true, None);
                    }
                    Event::ConnectFailed(..) => panic!("{event:?}"),
                    Event::Readable(_) | Event::Sent(..) => {}
                }
            }
            self.drive();
            let now = self.instant();
            if self.stack.wants_transmit() {
                self.stack.transmit(now, &mut self.link);
            }
            if !self.depart() {
                return;
            }
        }
    }

    /// Reads all there is, and does what that is the cue for.
    fn drive(&mut self) {
        let Some(id) = self.id else { return };
        loop {
            match self.stack.read(id) {
                Read::Text { frame, range } => {
                    self.read += range.len();
                    self.link.release(frame);
                }
                Read::End => self.has_end = true,
                Read::Nothing => break,
            }
        }
        while let Some(&(when, cue)) = self.cues.first() {
            if !when.map_or(self.has_end, |amount| self.read >= amount) {
                break;
            }
            self.cues.remove(0);
            match cue {
                Cue::Write(len) => drop(self.stack.send(id, &vec![0; len], &mut self.link)),
                Cue::ShutDown => self.stack.shut_down(id),
            }
        }
    }

    /// Takes what the stack sends. True if it sent something.
    fn depart(&mut self) -> bool {
        let departures = self.link.take_departures();
        for &(frame, len) in &departures {
            let packet = self.link.departing(frame, len).to_vec();
            self.link.complete(frame);
            let view = wire::view(&packet, Header::Ethernet.len()).expect("what the stack sends is in order");
            if view.has(SYN) {
                self.own_iss = Some(view.seq);
                self.syn.clone_from(&packet);
            }
            if let Some((value, _)) = view.options.timestamps {
                self.last_timestamp = value;
            }
            let iss = self.own_iss.expect("SYN comes first");
            self.reached.add(&view, iss, Some(self.irs));
            self.sent.push(view);
        }
        self.link.refill();
        !departures.is_empty()
    }

    fn hear(&mut self, line: &Line) {
        let mut packet = line.packet.clone();
        if line.view.has(ACK) {
            let own_iss = self.own_iss.expect("nothing is acknowledged before SYN is sent");
            let relative = line.view.ack.wrapping_sub(self.model_iss);
            let sent = self.reached.sent;
            assert!(relative <= sent, "the kernel acknowledges {relative}, {sent} was sent: {}", line.view);
            wire::move_acknowledgement(
                &mut packet,
                &line.view,
                own_iss.wrapping_add(relative),
                self.last_timestamp,
            );
        }
        packet.splice(0..0, [0; 14]);
        Header::Ethernet.write(&mut packet);
        let (frame, range) = self.link.place(&packet, 0).expect("frames are many");
        let now = self.instant();
        let unknown = self.stack.receive(now, frame, range, &mut self.link);
        assert!(unknown.is_none(), "the stack knows nothing of {}", line.view);
        self.settle();
    }

    fn wait_until(&mut self, at: u64) {
        loop {
            let due = self.stack.next_timeout().map(|due| due.as_micros() - 1_000_000);
            let Some(due) = due.filter(|due| *due <= at) else { break };
            self.now = self.now.max(due);
            let now = self.instant();
            self.stack.time_out(now, &mut self.link);
            self.settle();
        }
        self.now = at;
    }
}

fn replay(recording: &Recording) -> Replay {
    let is_from_model = |line: &&Line| line.direction == Direction::Model;
    let syn_of = |is_model: bool| {
        let line = recording.lines.iter().find(|line| line.view.has(SYN) && is_from_model(line) == is_model);
        line.expect("both say SYN")
    };
    let (own, other) = (syn_of(true), syn_of(false));
    let now = Instant::from_micros(1_000_000);
    let shape =
        Shape { frames: 512, fill: 64, transmit_ring: 256, mtu_bytes: 1500, header: Header::Ethernet };
    let mut replay = Replay {
        stack: Stack::new(Settings::default(), Secrets::from_seed([7; 32]), now),
        link: MemoryLink::new(shape),
        now: 0,
        id: None,
        cues: recording.cues.clone(),
        read: 0,
        has_end: false,
        is_reset: false,
        own_iss: None,
        model_iss: own.view.seq,
        irs: other.view.seq,
        last_timestamp: 0,
        reached: Reached::default(),
        sent: Vec::new(),
        syn: Vec::new(),
    };
    replay.link.refill();
    let local: SocketAddr = own.view.source;
    if !recording.connects {
        replay.stack.listen(local);
    }
    follow(recording, &mut replay, (local, own.view.destination));
    replay
}

/// Goes through the recording, in the order in which things happened to the kernel whose part it is.
fn follow(recording: &Recording, replay: &mut Replay, (local, remote): (SocketAddr, SocketAddr)) {
    let mut model = Reached::default();
    let mut due: Vec<(u64, Reached)> = Vec::new();
    let mut steps: Vec<(u64, &Line)> = recording
        .lines
        .iter()
        .filter(|line| line.direction != Direction::Lost)
        .map(|line| (line.at + if line.direction == Direction::ToStack { DELAY } else { 0 }, line))
        .collect();
    steps.sort_by_key(|(at, _)| *at);
    let end = steps.last().map_or(0, |(at, _)| at + EPILOGUE);
    for (at, line) in steps {
        while due.first().is_some_and(|(due, _)| *due < at) {
            let (checked_at, reached) = due.remove(0);
            replay.wait_until(checked_at);
            require(replay, reached, checked_at);
        }
        replay.wait_until(at);
        if line.direction == Direction::ToStack {
            replay.hear(line);
            continue;
        }
        if recording.connects && replay.own_iss.is_none() {
            let now = replay.instant();
            let id = replay.stack.connect(now, local, remote, &mut replay.link);
            replay.id = Some(id.expect("there is a route"));
            replay.settle();
        }
        if !line.view.has(RST) {
            model.add(&line.view, replay.model_iss, Some(replay.irs));
        }
        due.push((at + SLACK, model));
    }
    replay.wait_until(end);
    assert_eq!(replay.reached, model, "in the end");
}

fn require(replay: &Replay, model: Reached, at: u64) {
    let reached = replay.reached;
    let is_as_far = reached.sent >= model.sent && reached.acknowledged >= model.acknowledged;
    assert!(is_as_far, "{at} us: the stack has reached {reached:?}, the kernel had {model:?}");
}

fn recording(name: &str) -> Recording {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tcp_sim/recorded").join(name).with_extension("txt");
    parse(&std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display())))
}

fn replay_by_name(name: &str) -> Replay {
    let replay = replay(&recording(name));
    let has_reset = replay.sent.iter().any(|view| view.has(RST));
    assert!(!has_reset, "{name}: the stack resets");
    replay
}

#[test]
fn a_request_is_answered_and_the_kernel_closes_first() {
    let replay = replay_by_name("request_and_answer");
    assert!(replay.read == 100 && replay.has_end && !replay.is_reset);
}

#[test]
fn the_stack_connects_to_a_kernel() {
    let replay = replay_by_name("kernel_listens");
    assert!(replay.read == 5_000 && replay.has_end && !replay.is_reset);
}

#[test]
fn a_gap_is_told_by_sack_so_that_the_kernel_retransmits() {
    let replay = replay_by_name("fast_retransmission");
    assert!(replay.read == 20_000 && replay.has_end);
    assert!(replay.sent.iter().any(|view| !view.options.sack().is_empty()), "no SACK was sent");
}

#[test]
fn a_lost_tail_is_taken_when_it_comes_again() {
    let replay = replay_by_name("tail_loss");
    assert!(replay.read == 3_000 && replay.has_end);
}

#[test]
fn the_stack_goes_on_sending_after_the_kernel_s_fin() {
    let replay = replay_by_name("half_close");
    assert!(replay.read == 10 && replay.has_end);
    assert!(replay.sent.iter().any(|view| view.has(FIN)), "FIN was not sent");
}

#[test]
fn a_kernel_s_closed_window_is_probed_until_it_opens() {
    let replay = replay_by_name("zero_window");
    assert!(replay.has_end && !replay.is_reset);
}

#[test]
fn a_kernel_s_reset_is_told() {
    let replay = replay_by_name("kernel_aborts");
    assert!(replay.read == 100 && !replay.has_end && replay.is_reset);
}

/// So that nobody who looks at the first packet takes us for something else than a Linux host.
#[test]
fn syn_and_syn_ack_look_as_the_kernel_s() {
    for name in ["request_and_answer", "kernel_listens"] {
        let recording = recording(name);
        let model = recording.lines.iter().find(|line| line.direction == Direction::Model).expect("SYN");
        let replay = replay(&recording);
        let own = wire::view(&replay.syn, Header::Ethernet.len()).expect("what the stack sends is in order");
        let options =
            |packet: &[u8], view: &View| wire::option_kinds(&packet[view.tcp_at + 20..view.payload_at]);
        assert_eq!(options(&replay.syn, &own), options(&model.packet, &model.view), "{name}");
        assert_eq!(own.options.mss, model.view.options.mss, "{name}");
        assert_eq!(
            (own.window, own.ttl, own.flags),
            (model.view.window, model.view.ttl, model.view.flags),
            "{name}"
        );
    }
}
