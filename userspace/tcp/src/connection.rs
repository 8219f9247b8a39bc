//! One connection for the time of one call: its record, what it shares with all others, and the link.
//!
//! The RFC's procedures are methods of this, each in the file named after its part of the RFC:
//! `segment_arrives.rs`, `user_calls.rs`, `timeouts.rs`, `output.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::answer_limit::{AnswerLimit, connection_may_answer};
use crate::congestion::CongestionControl;
use crate::connections::ConnectionId;
use crate::counters::Counters;
use crate::event::{ConnectFailure, Event, ResetReason};
use crate::link::{Hop, Link};
use crate::pressure::{Holdings, Pressure};
use crate::queues::{Pool, Queues};
use crate::recovery::Phase;
use crate::secrets::Secrets;
use crate::send_queue::SendQueue;
use crate::seq::SeqNumber;
use crate::settings::Settings;
use crate::tcb::{NEVER, State, Tcb, millis};
use crate::time::Instant;
use crate::time_wait::TimeWait;
use crate::wheel::Wheel;

/// Acknowledgements are delayed this long at most (MUST-40 allows 500 ms): Linux's `TCP_DELACK_MIN`.
const DELAYED_ACK: Duration = Duration::from_millis(40);

/// What a tail probe waits beyond two round trips: a peer that handles packets in batches may take that long.
const TAIL_PROBE_SLACK: Duration = Duration::from_millis(10);

/// Bytes of the timestamps option in every segment, padded (RFC 7323 appendix A).
pub(crate) const TIMESTAMPS_LEN: u16 = 12;

/// Bytes of a TCP header without options.
pub(crate) const TCP_HEADER_LEN: u16 = 20;

/// What all connections of a stack share.
pub(crate) struct Shared<F> {
    pub(crate) settings: Settings,
    pub(crate) secrets: Secrets,
    pub(crate) counters: Counters,
    pub(crate) events: VecDeque<Event>,
    pub(crate) wheel: Wheel,
    /// Slots of connections that have something to transmit.
    pub(crate) ready: VecDeque<u32>,
    /// Slots of connections whose window was held down for want of frames.
    pub(crate) pinched: VecDeque<u32>,
    pub(crate) pool: Pool<F>,
    /// Frames of all queues.
    pub(crate) holdings: Holdings,
    /// When connections that hold frames in vain are looked for again.
    pub(crate) next_shed: Instant,
    /// Challenge acknowledgements of connections.
    pub(crate) challenges: AnswerLimit,
    /// Answers to segments of no connection; apart, so that a flood of those silences no connection.
    pub(crate) answers: AnswerLimit,
    pub(crate) time_wait: TimeWait,
    /// Connections in SYN-RECEIVED that a SYN opened.
    pub(crate) half_open: usize,
    /// Routes of now; connections that know an older number ask again.
    pub(crate) hop_epoch: u16,
    /// When the last cookie was sent, since an acknowledgement may only then be one.
    pub(crate) cookie_sent_at: Option<Instant>,
}

/// One connection and its surroundings.
pub(crate) struct Connection<'a, L: Link> {
    pub(crate) now: Instant,
    pub(crate) id: ConnectionId,
    pub(crate) tcb: &'a mut Tcb<L::Frame>,
    pub(crate) shared: &'a mut Shared<L::Frame>,
    pub(crate) link: &'a mut L,
}

impl<F> Shared<F> {
    /// Lets a connection have a turn of output.
    pub(crate) fn ready(&mut self, slot: u32, tcb: &mut Tcb<F>) {
        if !tcb.flags.is_ready {
            tcb.flags.is_ready = true;
            self.ready.push_back(slot);
        }
    }

    /// The queues of a connection, from the pool if it has none.
    pub(crate) fn queues<'t>(&mut self, tcb: &'t mut Tcb<F>) -> &'t mut Queues<F> {
        tcb.queues.get_or_insert_with(|| self.pool.take())
    }

    /// Puts FIN behind what is queued, and moves on to the state that RFC 9293 §3.10.4 says.
    pub(crate) fn queue_fin(&mut self, slot: u32, tcb: &mut Tcb<F>) {
        tcb.flags.fin_queued = true;
        let next = match tcb.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            // FIN waits until the handshake is over.
            other => other,
        };
        tcb.state = next;
        let end = tcb.queued_end();
        self.queues(tcb).send.push_fin(end);
        self.ready(slot, tcb);
    }
}

impl<F> Tcb<F> {
    /// The sequence number behind everything queued.
    pub(crate) fn queued_end(&self) -> SeqNumber {
        let send = self.queues.as_ref().map(|queues| &queues.send);
        send.and_then(SendQueue::end).unwrap_or(self.snd.nxt)
    }

    /// True once the peer has acknowledged our FIN.
    pub(crate) fn fin_is_acknowledged(&self) -> bool {
        self.flags.fin_queued && self.queues.as_ref().is_none_or(|queues| queues.send.is_empty())
    }

    /// Frames of this connection's queues.
    pub(crate) fn holdings(&self) -> Holdings {
        self.queues.as_ref().map_or(Holdings::default(), |queues| queues.holdings())
    }

    /// Text that the user has not read.
    pub(crate) fn unread_bytes(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.receive.unread_bytes())
    }

    fn ip_header_len(&self) -> u16 {
        if self.tuple.is_ipv4() { 20 } else { 40 }
    }

    /// Headers of a segment with text.
    pub(crate) fn header_len(&self) -> u16 {
        self.ip_header_len() + TCP_HEADER_LEN + if self.timestamps { TIMESTAMPS_LEN } else { 0 }
    }

    /// Text of a full segment: Eff.snd.MSS (RFC 9293 §3.7.1, MUST-16).
    pub(crate) fn smss(&self) -> u16 {
        let path = self.path_mtu.saturating_sub(self.ip_header_len() + TCP_HEADER_LEN);
        let options = if self.timestamps { TIMESTAMPS_LEN } else { 0 };
        self.peer_mss.min(path).saturating_sub(options).max(1)
    }

    /// What the send buffer holds at most: twice the congestion window, so that what is acknowledged is
    /// replaced within a round trip.
    pub(crate) fn send_allotment(&self, most: u32, pressure: Pressure) -> u32 {
        const LEAST: u32 = 64 << 10;
        let allotment = self.congestion.cwnd().saturating_mul(2).max(LEAST).min(most);
        pressure.send_allotment(allotment)
    }
}

impl<L: Link> Connection<'_, L> {
    /// Lets this connection have a turn of output.
    pub(crate) fn ready(&mut self) {
        self.shared.ready(self.slot(), self.tcb);
    }

    pub(crate) fn slot(&self) -> u32 {
        u32::try_from(self.id.slot()).expect("slots are counted in 32 bits")
    }

    pub(crate) fn queues(&mut self) -> &mut Queues<L::Frame> {
        self.shared.queues(self.tcb)
    }

    pub(crate) fn pressure(&self) -> Pressure {
        Pressure::of(self.link)
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.shared.events.push_back(event);
    }

    /// Tells the user once that there is something to read.
    pub(crate) fn tell_readable(&mut self) {
        if !self.tcb.flags.readable_told && !self.tcb.flags.orphan {
            self.tcb.flags.readable_told = true;
            self.event(Event::Readable(self.id));
        }
    }

    /// An acknowledgement goes out with the next turn of output.
    pub(crate) fn ack_now(&mut self) {
        self.tcb.flags.ack_due = true;
        self.ready();
    }

    /// An acknowledgement goes out soon, or with text that goes out sooner.
    pub(crate) fn ack_later(&mut self) {
        let deadline = self.now.plus(DELAYED_ACK);
        self.tcb.deadlines.output = self.tcb.deadlines.output.min(deadline);
    }

    /// An acknowledgement to a segment that may be forged: limited for each connection and for all.
    pub(crate) fn challenge(&mut self) {
        if connection_may_answer(&mut self.tcb.challenged_at_ms, self.now)
            && self.shared.challenges.take(self.now, &self.shared.secrets)
        {
            self.shared.counters.challenges += 1;
            self.ack_now();
        }
    }

    /// Where the segments of this connection go. Asked once, and again when routes have changed.
    pub(crate) fn hop(&mut self) -> Option<Hop> {
        if self.tcb.hop.is_none() || self.tcb.hop_epoch != self.shared.hop_epoch {
            let (local, remote) = (self.tcb.tuple.local().ip(), self.tcb.tuple.remote().ip());
            self.tcb.hop = self.link.hop(local, remote, self.tcb.vlan);
            self.tcb.hop_epoch = self.shared.hop_epoch;
            if let Some(hop) = self.tcb.hop {
                self.change_path_mtu(hop.mtu_bytes);
            }
        }
        self.tcb.hop
    }

    /// The path takes packets of another size.
    pub(crate) fn change_path_mtu(&mut self, mtu: u16) {
        let before = self.tcb.smss();
        self.tcb.path_mtu = mtu;
        let smss = self.tcb.smss();
        if smss != before {
            self.tcb.congestion.on_mss_change(smss);
        }
    }

    /// Starts the retransmission timer, or starts it anew.
    pub(crate) fn restart_retransmit_timer(&mut self) {
        self.tcb.flags.tail_probe = false;
        self.tcb.deadlines.retransmit = self.now.plus(self.tcb.rtt.rto());
    }

    /// Starts the timer of what is in flight (RFC 6298 §5.1 and 5.3), or stops it. If the last segments of a
    /// flight are lost, no acknowledgement tells; so the tail is probed once before the timer of last resort
    /// (RFC 8985 §7.2). A single segment's acknowledgement the peer may delay, which leaves no time for a probe.
    pub(crate) fn restart_flight_timer(&mut self) {
        let Some(queues) = &self.tcb.queues else { return };
        if !queues.send.has_sent() {
            self.tcb.flags.tail_probe = false;
            self.tcb.deadlines.retransmit = NEVER;
            return;
        }
        let may_probe = self.tcb.sack
            && !self.tcb.flags.tail_probed
            && queues.recovery.phase == Phase::Open
            && queues.send.sent_count() > 1
            && self.tcb.snd.wnd > 0;
        self.restart_retransmit_timer();
        if may_probe && let Some(srtt) = self.tcb.rtt.srtt() {
            let probe = self.now.plus(srtt * 2 + TAIL_PROBE_SLACK);
            if probe < self.tcb.deadlines.retransmit {
                self.tcb.flags.tail_probe = true;
                self.tcb.deadlines.retransmit = probe;
            }
        }
    }

    /// Our timestamp clock: milliseconds, with an offset that only this four-tuple has.
    pub(crate) fn ts_now(&self) -> u32 {
        millis(self.now).wrapping_add(self.tcb.ts_offset)
    }

    /// What holds between any two calls: no queues without need, and the wheel knows the next deadline. It is
    /// not told of later ones: an entry that fires too early is armed anew then.
    pub(crate) fn settle(&mut self) {
        if self.tcb.flags.forget {
            self.drop_queues();
            return;
        }
        if self.tcb.state == State::Closed
            && let Some(queues) = &mut self.tcb.queues
        {
            let link = &mut *self.link;
            queues.send.clear(|frame| link.release(frame));
        }
        self.put_idle_queues();
        let earliest = self.tcb.deadlines.earliest();
        if earliest < self.tcb.deadlines.armed {
            self.tcb.deadlines.armed = earliest;
            let slot = self.slot();
            self.shared.wheel.arm(slot, earliest);
        }
    }

    /// Releases what is queued in both directions.
    pub(crate) fn drop_queues(&mut self) {
        if let Some(queues) = self.tcb.queues.take() {
            self.shared.pool.put(queues, self.link);
        }
    }

    /// Gives the queues back if nothing needs them.
    pub(crate) fn put_idle_queues(&mut self) {
        let is_idle = self.tcb.queues.as_ref().is_some_and(|queues| queues.is_idle());
        if is_idle && let Some(queues) = self.tcb.queues.take() {
            self.shared.pool.put_idle(queues);
        }
    }

    /// Enters CLOSED. The four-tuple is free; the record stays until the user lets go of it.
    pub(crate) fn enter_closed(&mut self) {
        self.leave_syn_received();
        self.tcb.state = State::Closed;
        let deadlines = &mut self.tcb.deadlines;
        (deadlines.retransmit, deadlines.output, deadlines.life) = (NEVER, NEVER, NEVER);
        if self.tcb.flags.orphan {
            self.tcb.flags.forget = true;
        }
    }

    /// Counts a half-open connection out, if this is one.
    pub(crate) fn leave_syn_received(&mut self) {
        if self.tcb.state == State::SynReceived && self.tcb.flags.passive {
            self.shared.half_open -= 1;
        }
    }

    /// The connection is over and the user is told, unless it has closed or never knew. What came before and is
    /// unread stays to be read until the user lets go of the record.
    pub(crate) fn break_off(&mut self, reset: ResetReason, failure: ConnectFailure) {
        let event = match self.tcb.state {
            State::SynSent | State::SynReceived if !self.tcb.flags.passive => {
                Some(Event::ConnectFailed(self.id, failure))
            }
            State::SynReceived => None,
            _ => Some(Event::Reset(self.id, reset)),
        };
        match event {
            Some(event) if !self.tcb.flags.orphan => self.event(event),
            _ => self.tcb.flags.forget = true,
        }
        self.enter_closed();
    }
}
