//! How a segment finds its connection, and what is answered if there is none (RFC 9293 §3.10.7.1).

use std::net::SocketAddr;
use std::ops::Range;

use crate::drop_reason::DropReason;
use crate::link::{Link, VlanTag};
use crate::listen::{Origin, is_syn};
use crate::segment_arrives::Arrival;
use crate::seq::SeqNumber;
use crate::stack::Stack;
use crate::time::Instant;
use crate::time_wait::Verdict;
use crate::wire::{self, Body, Flags, IcmpError, Options, Outgoing, Packet, Segment};

/// A good segment, or ICMP error, of a connection that this stack does not know: perhaps another does.
#[derive(Debug)]
pub struct Unknown<F> {
    /// The frame it came in.
    pub frame: F,
    /// Its used part.
    pub packet: Range<usize>,
    /// Our side.
    pub local: SocketAddr,
    /// The peer's side.
    pub remote: SocketAddr,
    /// It asks for a connection, and for nothing else.
    pub is_syn: bool,
}

impl<L: Link> Stack<L> {
    /// One frame from the wire; `packet` is its used part. The stack takes the frame, unless nobody here knows
    /// what to do with the segment in it.
    pub fn receive(
        &mut self,
        now: Instant,
        frame: L::Frame,
        packet: Range<usize>,
        link: &mut L,
    ) -> Option<Unknown<L::Frame>> {
        self.now = now;
        let parsed = wire::parse(&link.bytes(&frame)[packet.clone()], self.shared.settings.checksums);
        let Packet { local, remote, vlan, body, .. } = match parsed {
            Ok(parsed) => parsed,
            Err(reason) => {
                self.shared.counters.drop(reason);
                link.release(frame);
                return None;
            }
        };
        match body {
            Body::Segment(segment) => {
                self.shared.counters.segments_received += 1;
                let origin = Origin {
                    local: SocketAddr::new(local, segment.local_port),
                    remote: SocketAddr::new(remote, segment.remote_port),
                    vlan,
                };
                let is_syn = is_syn(&segment);
                let arrival = Arrival::new(segment, frame, packet.start);
                let stranger = self.demultiplex(origin, arrival, link)?;
                let Origin { local, remote, .. } = origin;
                stranger.frame.map(|frame| Unknown { frame, packet, local, remote, is_syn })
            }
            Body::Icmp(error) => self.receive_icmp(&error, frame, packet, link),
        }
    }

    /// Finds whose segment this is; answers it back if nobody's.
    fn demultiplex(
        &mut self,
        origin: Origin,
        arrival: Arrival<L::Frame>,
        link: &mut L,
    ) -> Option<Arrival<L::Frame>> {
        let Origin { local, remote, vlan } = origin;
        if let Some(index) = self.find(local, remote) {
            self.visit(index, link, |connection| connection.segment_arrives(arrival));
            return None;
        }
        let mut iss = None;
        match self.shared.time_wait.receive(self.now, local, remote, &arrival.segment) {
            Verdict::Unknown => {}
            Verdict::Ignore => {
                self.drop_arrival(arrival, DropReason::TimeWait, link);
                return None;
            }
            Verdict::Acknowledge { segment, .. } => {
                self.answer_limited(&segment, vlan, arrival, link);
                return None;
            }
            Verdict::Reopen { iss: above } => iss = Some(above),
        }
        if !self.is_listening(local) {
            return Some(arrival);
        }
        if is_syn(&arrival.segment) {
            self.syn_arrives(origin, arrival, iss, link);
            return None;
        }
        self.cookie_arrives(origin, arrival, link)
    }

    fn receive_icmp(
        &mut self,
        error: &IcmpError,
        frame: L::Frame,
        packet: Range<usize>,
        link: &mut L,
    ) -> Option<Unknown<L::Frame>> {
        let (local, remote) = (error.embedded_local, error.embedded_remote);
        let Some(index) = self.find(local, remote) else {
            return Some(Unknown { frame, packet, local, remote, is_syn: false });
        };
        link.release(frame);
        self.visit(index, link, |connection| connection.icmp_arrives(error));
        None
    }

    /// Answers a segment that nobody knows with a reset (RFC 9293 §3.10.7.1), unless that is one itself, or
    /// there were too many. The frame is released.
    pub fn refuse(&mut self, now: Instant, unknown: Unknown<L::Frame>, link: &mut L) {
        self.now = now;
        let Unknown { frame, packet, local, remote, .. } = unknown;
        let parsed = wire::parse(&link.bytes(&frame)[packet.clone()], self.shared.settings.checksums);
        let (segment, vlan) = match parsed {
            Ok(Packet { body: Body::Segment(segment), vlan, .. }) if !segment.flags.contains(Flags::RST) => {
                (segment, vlan)
            }
            _ => {
                self.shared.counters.drop(DropReason::Stray);
                link.release(frame);
                return;
            }
        };
        let reset = reset_for(&segment, local, remote);
        if self.answer_limited(&reset, vlan, Arrival::new(segment, frame, packet.start), link) {
            self.shared.counters.resets_sent += 1;
        }
    }

    pub(crate) fn drop_arrival(&mut self, arrival: Arrival<L::Frame>, reason: DropReason, link: &mut L) {
        self.shared.counters.drop(reason);
        if let Some(frame) = arrival.frame {
            link.release(frame);
        }
    }

    /// Answers a segment of no connection, in the frame it came in, if the limit of answers allows.
    fn answer_limited(
        &mut self,
        outgoing: &Outgoing,
        vlan: Option<VlanTag>,
        arrival: Arrival<L::Frame>,
        link: &mut L,
    ) -> bool {
        if !self.shared.answers.take(self.now, &self.shared.secrets) {
            self.drop_arrival(arrival, DropReason::AnswersLimited, link);
            return false;
        }
        arrival.frame.is_some_and(|frame| self.answer(outgoing, vlan, frame, link))
    }

    /// Sends a segment of no connection in a frame whose content is not needed any more.
    pub(crate) fn answer(
        &mut self,
        outgoing: &Outgoing,
        vlan: Option<VlanTag>,
        mut frame: L::Frame,
        link: &mut L,
    ) -> bool {
        let hop = link.hop(outgoing.local.ip(), outgoing.remote.ip(), vlan);
        let is_sent = hop.is_some_and(|hop| {
            let total = outgoing.write(link.bytes_mut(&mut frame), usize::from(hop.header_len), 0);
            link.transmit(&mut frame, total, hop).is_ok()
        });
        link.release(frame);
        if is_sent {
            self.shared.counters.segments_sent += 1;
        } else {
            self.shared.counters.drop(DropReason::Unanswered);
        }
        is_sent
    }
}

/// `<SEQ=SEG.ACK><CTL=RST>`, or without ACK `<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>`.
fn reset_for(segment: &Segment, local: SocketAddr, remote: SocketAddr) -> Outgoing {
    let (seq, flags) = if segment.flags.contains(Flags::ACK) {
        (segment.ack, Flags::RST)
    } else {
        (SeqNumber(0), Flags::RST | Flags::ACK)
    };
    let ack = segment.seq + segment.len();
    Outgoing { local, remote, seq, ack, flags, window: 0, urgent: 0, options: Options::default() }
}
