//! One host: a stack, its link, and the device between them and the network.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;

use mtproxy_tcp::ConnectionId;
use mtproxy_tcp::link::Link;
use mtproxy_tcp::stack::Stack;

use crate::app::Gone;
use crate::half::Departure;
use crate::memory_link::{Frame, MemoryLink, Shape};
use crate::network::{Fate, Packet, Passage};
use crate::plan::{CLOSED_PORT, LISTENING_PORT, Opening};
use crate::sabotage::Sabotage;
use crate::schedule::Moment;
use crate::simulation::Simulation;
use crate::violation::{Checker, Violation};
use crate::wire::{self, ACK, RST, SYN, View};

/// Packets that are handed to the stack before it may answer.
const BURST: usize = 64;
/// Rounds of events and transmission within one moment, at most.
const ROUNDS_MAX: usize = 1_000;

/// A packet in its frame.
struct Received {
    frame: Frame,
    range: Range<usize>,
    view: Option<View>,
    is_damaged: bool,
}

pub(crate) struct Host {
    pub(crate) stack: Stack<MemoryLink>,
    pub(crate) link: MemoryLink,
    /// Received, and not yet looked at.
    inbox: VecDeque<Received>,
    is_poll_due: bool,
    /// Conversation and end of each connection.
    pub(crate) whose: HashMap<ConnectionId, (usize, usize)>,
    /// Connections that came about a second time, by a cookie, and were reset at once.
    pub(crate) ghosts: HashSet<ConnectionId>,
    /// Frames in the hands of its driver.
    pub(crate) driver_frames: usize,
    /// The second in which timers were looked at, and how often.
    pub(crate) timeouts: (u64, u64),
    pub(crate) no_frame_count: u64,
}

impl Host {
    pub(crate) fn new(stack: Stack<MemoryLink>, shape: &Shape) -> Self {
        Self {
            stack,
            link: MemoryLink::new(*shape),
            inbox: VecDeque::new(),
            is_poll_due: false,
            whose: HashMap::new(),
            ghosts: HashSet::new(),
            driver_frames: 0,
            timeouts: (0, 0),
            no_frame_count: 0,
        }
    }
}

impl Simulation {
    /// A packet reaches the device, which needs a frame for it.
    pub(crate) fn arrive(&mut self, host: usize, packet: Packet) {
        let device = &self.plan.devices[host];
        let Host { link, inbox, is_poll_due, no_frame_count, .. } = &mut self.hosts[host];
        let Some((frame, range)) = link.place(&packet.bytes, device.headroom) else {
            *no_frame_count += 1;
            self.say(|| format!("host {host} has no frame for what arrives"));
            return;
        };
        inbox.push_back(Received { frame, range, view: packet.view, is_damaged: packet.is_damaged });
        if !std::mem::replace(is_poll_due, true) {
            let delay = self.dice.word() % (device.poll_max + 1);
            self.schedule.after(delay, Moment::Poll { host });
        }
    }

    /// Everything that was received goes to the stack.
    pub(crate) fn poll(&mut self, host: usize) -> Result<(), Violation> {
        self.hosts[host].is_poll_due = false;
        let count = self.hosts[host].inbox.len();
        for index in 1..=count {
            let Some(received) = self.hosts[host].inbox.pop_front() else { break };
            if self.is_stopped(host) {
                self.hosts[host].link.release(received.frame);
                continue;
            }
            self.receive(host, received)?;
            if index == count || index % BURST == 0 {
                self.settle(host)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, host: usize, received: Received) -> Result<(), Violation> {
        let Received { frame, range, view, is_damaged } = received;
        if let Some(mut view) = view {
            if let Some(sabotage) = self.options.sabotage {
                sabotage.tamper_with_arrival(&mut view);
            }
            if let Some((conversation, sender)) = self.whose(&view) {
                self.halves[conversation][1 - sender].arrives(&view);
            }
        }
        let now = self.instant();
        let Host { stack, link, .. } = &mut self.hosts[host];
        let unknown = stack.receive(now, frame, range, link);
        if let Some(unknown) = unknown {
            let is_ignored = unknown.local.port() == CLOSED_PORT
                && view.and_then(|view| self.whose(&view)).is_some_and(|(conversation, _)| {
                    self.plan.conversations[conversation].opening == Opening::Ignored
                });
            self.say(|| format!("host {host} knows nothing of {} > {}", unknown.remote, unknown.local));
            let Host { stack, link, .. } = &mut self.hosts[host];
            if is_ignored {
                link.release(unknown.frame);
            } else {
                stack.refuse(now, unknown, link);
            }
            self.require(!is_damaged, Checker::WellFormed, || {
                "a damaged packet passed for a segment".to_owned()
            })?;
        }
        self.depart(host)?;
        self.take_events(host)
    }

    /// Lets the stack say and send all that is due.
    pub(crate) fn settle(&mut self, host: usize) -> Result<(), Violation> {
        for round in 0.. {
            self.require(round < ROUNDS_MAX, Checker::Spinning, || {
                format!("host {host} does not come to rest")
            })?;
            self.take_events(host)?;
            let now = self.instant();
            let Host { stack, link, .. } = &mut self.hosts[host];
            if !stack.wants_transmit() {
                break;
            }
            let full_before = link.full_count + link.exhausted_count;
            stack.transmit(now, link);
            let has_met_bounds = link.full_count + link.exhausted_count > full_before;
            self.depart(host)?;
            if has_met_bounds {
                self.take_events(host)?;
                break;
            }
        }
        self.depart(host)?;
        self.check_frames(host)?;
        self.hosts[host].link.refill();
        Ok(())
    }

    fn check_frames(&self, host: usize) -> Result<(), Violation> {
        let Host { stack, link, driver_frames, inbox, .. } = &self.hosts[host];
        let owned = stack.frames_held() + driver_frames + inbox.len();
        self.require(link.held() == owned, Checker::Frames, || {
            format!(
                "host {host} has given out {} frames; stack {}, driver {driver_frames}, received {}",
                link.held(),
                stack.frames_held(),
                inbox.len()
            )
        })
    }

    /// What the stack transmitted is judged and goes on its way.
    pub(crate) fn depart(&mut self, host: usize) -> Result<(), Violation> {
        let departures = self.hosts[host].link.take_departures();
        for (frame, len) in departures {
            let device = &self.plan.devices[host];
            let now = self.schedule.now;
            let leaves_at = device.stall.map_or(
                now,
                |(from, until)| {
                    if (from..until).contains(&now) { until } else { now }
                },
            );
            let completed_at = leaves_at + self.dice.word() % (device.completion_max + 1);
            self.schedule.at(completed_at, Moment::Complete { host, frame });
            let header_len = self.plan.shapes[host].header.len();
            let packet = self.hosts[host].link.departing(frame, len).to_vec();
            let view = self.judge_departure(host, &packet, header_len)?;
            if let Some(view) = view {
                self.pass(host, leaves_at, &packet, &view);
            }
        }
        Ok(())
    }

    fn judge_departure(
        &mut self,
        host: usize,
        packet: &[u8],
        header_len: usize,
    ) -> Result<Option<View>, Violation> {
        self.tally.packets += 1;
        let mut seen = wire::view(packet, header_len);
        if self.has_sabotage(Sabotage::SpoilsChecksums) {
            seen = Err("bad TCP checksum");
        }
        let view = match seen {
            Ok(view) => view,
            Err(why) => {
                self.require(false, Checker::WellFormed, || format!("host {host} sends a packet: {why}"))?;
                return Ok(None);
            }
        };
        let is_tidy = packet.len() == view.payload_at + view.payload_len && view.ttl == 64;
        self.require(is_tidy, Checker::WellFormed, || format!("host {host} sends {view}, TTL {}", view.ttl))?;
        self.fingerprint(host, &view);
        let Some((conversation, end)) = self.whose(&view) else { return Ok(Some(view)) };
        let is_from_here = self.plan.conversations[conversation].hosts[end] == host;
        self.require(is_from_here, Checker::WellFormed, || format!("host {host} sends as another: {view}"))?;
        let mut judged = view;
        if let Some(sabotage) = self.options.sabotage {
            sabotage.tamper_with_departure(&mut judged);
        }
        let app = &self.apps[conversation][end];
        let departure = Departure {
            judge: self.options.judge,
            view: &judged,
            ip_len: view.ip_len(header_len),
            mtu_bytes: self.hosts[host].link.mtu_bytes,
            written: app.written,
            is_finished: app.is_finished,
            is_again: self.plan.conversations[conversation].reuses.is_some(),
        };
        let half = &mut self.halves[conversation][end];
        if let Err(Violation { checker, what }) = half.departs(&departure) {
            self.say(|| format!("host {host} sends {view}"));
            self.require(false, checker, || format!("{view}: {what}"))?;
        }
        self.check_text(conversation, end, packet, &judged)?;
        Ok(Some(view))
    }

    /// The text of a segment is what its driver wrote there.
    fn check_text(
        &self,
        conversation: usize,
        end: usize,
        packet: &[u8],
        view: &View,
    ) -> Result<(), Violation> {
        if view.payload_len == 0 || view.has(RST | SYN) {
            return Ok(());
        }
        let at = self.halves[conversation][end].text_at(view);
        let is_right = at.is_some_and(|at| {
            let position = self.position(conversation, end) + at;
            mtproxy_tests::pattern::first_difference(position, &packet[view.payload()]).is_none()
        });
        self.require(is_right, Checker::Sequence, || format!("{view}: not the text that belongs there"))
    }

    fn fingerprint(&mut self, host: usize, view: &View) {
        let fingerprint = &mut self.tally.fingerprint;
        fingerprint.add(self.schedule.now << 1 | host as u64);
        fingerprint.add(u64::from(view.seq) << 32 | u64::from(view.ack));
        fingerprint.add(view.payload_len as u64 | u64::from(view.flags) << 16 | u64::from(view.window) << 24);
    }

    /// A packet of `host` goes into the network.
    fn pass(&mut self, host: usize, at: u64, packet: &[u8], view: &View) {
        let other = 1 - host;
        let mut passage = Passage::default();
        let is_for_other =
            [false, true].iter().any(|is_v6| view.destination.ip() == crate::plan::address(other, *is_v6));
        let mut fate = Fate::Lost;
        if is_for_other {
            fate = self.paths[other].pass(at, packet, view, &mut passage);
        }
        self.tally.count("packets", fate.name());
        if let (false, Some((conversation, _))) =
            (matches!(fate, Fate::Arrives | Fate::Doubled), self.whose(view))
        {
            self.losses[conversation] += 1;
        }
        if self.options.is_traced {
            let arrives: Vec<String> = passage
                .arrivals
                .iter()
                .map(|(arrives_at, _)| format!("+{:.3} ms", (arrives_at - at) as f64 / 1e3))
                .collect();
            self.say(|| format!("{} {view} [{} {}]", ["A", "B"][host], fate.name(), arrives.join(" ")));
        }
        for (at, packet) in passage.arrivals {
            self.schedule.at(at, Moment::Arrive { host: other, packet: Box::new(packet) });
        }
        if let Some((at, mut packet)) = passage.answer {
            self.plan.shapes[host].header.write(&mut packet.bytes);
            self.schedule.at(at, Moment::Arrive { host, packet: Box::new(packet) });
        }
    }

    pub(crate) fn complete(&mut self, host: usize, frame: u32) -> Result<(), Violation> {
        self.hosts[host].link.complete(frame);
        self.settle(host)
    }

    pub(crate) fn route(&mut self, host: usize, is_there: bool) -> Result<(), Violation> {
        self.say(|| format!("host {host}: the route {}", if is_there { "is back" } else { "goes" }));
        let Host { stack, link, .. } = &mut self.hosts[host];
        link.is_routed = is_there;
        stack.forget_hops();
        self.settle(host)
    }

    /// A forged segment comes, at a sequence number within the window that is not the expected one: it may
    /// be answered, and must change nothing (RFC 5961).
    pub(crate) fn forge(&mut self, conversation: usize) -> Result<(), Violation> {
        let planned = &self.plan.conversations[conversation];
        let end = self.dice.below(2);
        let (host, half) = (planned.hosts[end], &self.halves[conversation][end]);
        let word = self.dice.word();
        let Some((seq, next)) = half.unexpected(word).zip(half.next()) else { return Ok(()) };
        let (ack, flags) = match word >> 62 {
            0 => (0, RST),
            1 => (next, RST | ACK),
            2 => (0, SYN),
            // Acknowledges what was not sent.
            _ => (next.wrapping_add(1 + u32::from((word >> 40) as u16)), ACK),
        };
        let addresses = [planned.addresses[1 - end], planned.addresses[end]];
        let header = self.plan.shapes[host].header;
        let mut bytes = wire::bare_segment(header.len(), addresses, (seq, ack, flags));
        header.write(&mut bytes);
        let app = &self.apps[conversation][end];
        let is_closing = app.is_finished && self.apps[conversation][1 - end].is_finished;
        let is_live = app.live().is_some() && !is_closing;
        self.say(|| format!("host {host}: forged, seq {seq}, ack {ack}, flags {flags:#x}"));
        let headroom = self.plan.devices[host].headroom;
        let now = self.instant();
        let Host { stack, link, .. } = &mut self.hosts[host];
        // What both have closed may begin anew (RFC 6191).
        if !is_live {
            return Ok(());
        }
        let Some((frame, range)) = link.place(&bytes, headroom) else { return Ok(()) };
        if let Some(unknown) = stack.receive(now, frame, range, link) {
            link.release(unknown.frame);
        }
        self.tally.count("packets", "forged");
        self.depart(host)?;
        self.settle(host)
    }

    pub(crate) fn is_stopped(&self, host: usize) -> bool {
        self.plan.stop.is_some_and(|(stopped, at)| stopped == host && at <= self.schedule.now)
    }

    /// The driver stops its stack, and with it all connections.
    pub(crate) fn stop(&mut self, host: usize) -> Result<(), Violation> {
        self.say(|| format!("host {host} stops"));
        let now = self.instant();
        for conversation in 0..self.apps.len() {
            let planned = &self.plan.conversations[conversation];
            let end = usize::from(planned.hosts[1] == host);
            if self.apps[conversation][end].live().is_some() {
                self.release_held(conversation, end);
                self.apps[conversation][end].gone = Some(Gone::Left);
            }
        }
        let Host { stack, link, .. } = &mut self.hosts[host];
        stack.stop(now, link);
        self.depart(host)?;
        let stack = &self.hosts[host].stack;
        let counts = [stack.connection_count(), stack.half_open_count(), stack.frames_held()];
        self.require(counts == [0; 3], Checker::Leftovers, || format!("host {host} stopped: {counts:?}"))?;
        self.settle(host)
    }

    /// The storm's next SYN.
    pub(crate) fn storm(&mut self) {
        let Some(storm) = self.plan.storm else { return };
        self.storm_left -= 1;
        if self.storm_left > 0 {
            self.schedule.after(storm.gap, Moment::Storm);
        }
        let word = self.dice.word();
        let source =
            std::net::SocketAddr::from(([203, 0, 113, word as u8], 1024 + (word >> 8) as u16 % 9_000));
        let destination = std::net::SocketAddr::new(crate::plan::address(storm.host, false), LISTENING_PORT);
        let header = self.plan.shapes[storm.host].header;
        let mut bytes =
            wire::bare_segment(header.len(), [source, destination], ((word >> 32) as u32, 0, SYN));
        header.write(&mut bytes);
        self.tally.count("packets", "of a storm");
        self.arrive(storm.host, Packet { bytes, view: None, is_damaged: false });
    }
}
