//! What to send next (RFC 9293 §3.8.6, RFC 5681, RFC 6675 §5).
//!
//! One turn sends, in this order: SYN, what is lost, what is new and allowed by both windows, probes, and an
//! acknowledgement unless text carried it. What stops a turn is a [`Halt`], and what it left undone stays
//! marked in the connection's flags.

use std::time::Duration;

use crate::congestion::CongestionControl;
use crate::connection::{Connection, TIMESTAMPS_LEN};
use crate::link::{Hop, Link};
use crate::receive_window::syn_window;
use crate::send_queue::Mark;
use crate::seq::SeqNumber;
use crate::tcb::{NEVER, State, millis};
use crate::wire::{Flags, Options, Outgoing, SackBlocks, Timestamps};

/// Segments of one connection in one turn, so that one with a wide window does not fill the ring alone.
const QUANTUM: u32 = 32;

/// Small segments that may always be out beyond those that the congestion window would hold: a burst of messages
/// that each deserve to leave at once.
const SMALL_SEGMENTS: u32 = 10;

/// Another try when there was no frame; some are completed or acknowledged by then.
const FRAME_RETRY: Duration = Duration::from_millis(10);

/// Another try when there was no route.
const ROUTE_RETRY: Duration = Duration::from_secs(1);

/// Why a turn stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The transmit ring is full: this connection is first when there is room, unless it has sent something.
    RingFull,
    /// It has had its share of this turn.
    Quantum,
    /// There is no frame to write into.
    NoFrame,
    /// The link knows no way to the peer.
    NoRoute,
}

/// How a turn ended, as far as the queue of ready connections is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing is left to do now.
    Done,
    /// More is to be sent after the others had their turn.
    Again,
    /// More is to be sent when the ring has room.
    RingFull,
}

impl<L: Link> Connection<'_, L> {
    /// One turn of output.
    pub(crate) fn transmit(&mut self) -> Turn {
        let turn = match self.send_what_is_due() {
            Ok(()) => Turn::Done,
            Err(Halt::Quantum) => Turn::Again,
            Err(Halt::RingFull) => {
                self.shared.counters.ring_full += 1;
                Turn::RingFull
            }
            Err(Halt::NoFrame) => {
                self.shared.counters.no_frame += 1;
                self.retry_after(FRAME_RETRY)
            }
            Err(Halt::NoRoute) => {
                self.shared.counters.no_route += 1;
                self.retry_after(ROUTE_RETRY)
            }
        };
        self.retire();
        turn
    }

    fn retry_after(&mut self, delay: Duration) -> Turn {
        let deadline = self.now.plus(delay);
        self.tcb.deadlines.output = self.tcb.deadlines.output.min(deadline);
        Turn::Done
    }

    fn send_what_is_due(&mut self) -> Result<(), Halt> {
        if self.tcb.state == State::Closed {
            return Ok(());
        }
        if self.tcb.flags.syn_due {
            self.send_syn()?;
        }
        if self.tcb.state.is_synchronized() {
            let mut quantum = QUANTUM;
            self.send_lost(&mut quantum)?;
            self.send_new(&mut quantum)?;
            if self.tcb.flags.probe_due {
                self.send_probe()?;
            }
            self.check_window_update();
        }
        if self.tcb.flags.ack_due && self.tcb.state != State::SynSent {
            self.send_ack()?;
        }
        Ok(())
    }

    /// SYN or SYN-ACK, with the options of Linux in the order of Linux.
    fn send_syn(&mut self) -> Result<(), Halt> {
        let hop = self.hop().ok_or(Halt::NoRoute)?;
        let is_answer = self.tcb.state == State::SynReceived;
        let echo = if is_answer { self.tcb.ts_recent } else { 0 };
        let mss = self.advertised_mss(hop);
        // Linux knows only in its answer whether there will be timestamps.
        let timestamps_len = if is_answer && self.tcb.timestamps { TIMESTAMPS_LEN } else { 0 };
        let options = Options {
            mss: Some(mss),
            window_scale: (self.tcb.rcv_wnd_shift > 0).then_some(self.tcb.rcv_wnd_shift),
            sack_permitted: self.tcb.sack,
            timestamps: self.tcb.timestamps.then(|| Timestamps { value: self.ts_now(), echo }),
            sack: SackBlocks::default(),
        };
        let outgoing = Outgoing {
            flags: if is_answer { Flags::SYN | Flags::ACK } else { Flags::SYN },
            seq: self.tcb.snd.una,
            window: syn_window(self.tcb.rcv.wnd, mss.saturating_sub(timestamps_len)),
            options,
            ..self.outgoing()
        };
        self.send_control(&outgoing, hop)?;
        self.tcb.flags.syn_due = false;
        self.tcb.flags.ack_due = false;
        self.tcb.last_ack_sent = self.tcb.rcv.nxt;
        self.tcb.last_sent_ms = millis(self.now);
        Ok(())
    }

    /// Our MSS option: what the hop takes without fragments (MUST-14, MUST-67).
    fn advertised_mss(&self, hop: Hop) -> u16 {
        let headers = if self.tcb.tuple.is_ipv4() { 40 } else { 60 };
        hop.mtu_bytes.saturating_sub(headers)
    }

    /// Retransmissions: the first of a recovery at once, the others as the pipe drains.
    fn send_lost(&mut self, quantum: &mut u32) -> Result<(), Halt> {
        loop {
            let Some(queues) = &mut self.tcb.queues else { return Ok(()) };
            let Some(index) = queues.send.next_lost() else {
                self.tcb.flags.retransmit_due = false;
                return Ok(());
            };
            let space = queues.send.segment(index).space();
            let pipe = queues.recovery.pipe(&queues.send);
            let fits = pipe == 0 || pipe + space <= self.tcb.congestion.cwnd();
            if !fits && !self.tcb.flags.retransmit_due {
                return Ok(());
            }
            self.fit_to_path(index)?;
            self.send_segment(index, quantum)?;
            self.tcb.flags.retransmit_due = false;
        }
    }

    /// New text and FIN, as far as the windows allow.
    fn send_new(&mut self, quantum: &mut u32) -> Result<(), Halt> {
        loop {
            let Some(queues) = &self.tcb.queues else { return Ok(()) };
            let Some(index) = queues.send.next_unsent() else { return Ok(()) };
            if !queues.send.has_sent() {
                self.restart_after_idle();
            }
            self.fit_to_path(index)?;
            if !self.fit_to_window(index)? || !self.fits_congestion_window(index) {
                return Ok(());
            }
            self.send_segment(index, quantum)?;
            self.tcb.flags.window_override = false;
        }
    }

    /// RFC 5681 §4.1: after a silence the window says nothing about the path any more.
    fn restart_after_idle(&mut self) {
        let idle = millis(self.now).wrapping_sub(self.tcb.last_sent_ms);
        if u128::from(idle) > self.tcb.rtt.rto().as_millis() {
            self.tcb.congestion.on_idle_restart(self.now);
            self.tcb.last_sent_ms = millis(self.now);
        }
    }

    /// The congestion window counts bytes. Segments are counted, too: of small ones not many more may be out than
    /// of full ones, or single bytes would leave in bursts of thousands and hold a frame each. What waits instead
    /// grows together into full segments.
    fn fits_congestion_window(&self, index: usize) -> bool {
        let Some(queues) = &self.tcb.queues else { return false };
        let pipe = queues.recovery.pipe(&queues.send);
        let space = queues.send.segment(index).space();
        let cwnd = self.tcb.congestion.cwnd();
        let segments_max = 2 * cwnd / u32::from(self.tcb.smss()) + SMALL_SEGMENTS;
        let fits = pipe + space <= cwnd && queues.send.sent_count() < segments_max as usize;
        pipe == 0 || fits
    }

    /// Cuts a segment that the path does not take whole.
    fn fit_to_path(&mut self, index: usize) -> Result<(), Halt> {
        self.hop().ok_or(Halt::NoRoute)?;
        let smss = u32::from(self.tcb.smss());
        let Some(queues) = &self.tcb.queues else { return Ok(()) };
        if queues.send.segment(index).len > smss { self.split(index, smss) } else { Ok(()) }
    }

    /// Cuts an unsent segment to the peer's window. False: nothing may be sent now, and if nothing is in
    /// flight the persist timer runs.
    fn fit_to_window(&mut self, index: usize) -> Result<bool, Halt> {
        let Some(queues) = &self.tcb.queues else { return Ok(false) };
        let snd = self.tcb.snd;
        let outstanding = snd.nxt - snd.una;
        let usable = snd.wnd.saturating_sub(outstanding);
        let segment = queues.send.segment(index);
        if segment.space() <= usable {
            return Ok(true);
        }
        // Sender SWS avoidance (RFC 9293 §3.8.6.2.1, MUST-38).
        let is_worthwhile =
            usable >= (snd.max_wnd / 2).max(1) || (self.tcb.flags.window_override && usable > 0);
        if is_worthwhile && segment.len > 0 {
            let len = segment.len.min(usable);
            self.split(index, len)?;
            return Ok(true);
        }
        if !queues.send.has_sent() && self.tcb.deadlines.retransmit == NEVER {
            self.restart_retransmit_timer();
        }
        Ok(false)
    }

    /// Cuts a segment in two.
    fn split(&mut self, index: usize, len: u32) -> Result<(), Halt> {
        let Some(queues) = &mut self.tcb.queues else { return Ok(()) };
        let segment = queues.send.segment(index);
        let rest = (segment.len - len) as usize;
        let mut fresh = None;
        if rest > 0 {
            let mut frame = self.link.allocate().ok_or(Halt::NoFrame)?;
            let from = usize::from(segment.at) + len as usize;
            if let Some(whole) = &segment.frame {
                self.link.copy(whole, from..from + rest, &mut frame, usize::from(segment.at));
            }
            fresh = Some(frame);
        }
        queues.send.split(index, len, fresh);
        Ok(())
    }

    /// Sends a segment of the send queue, for the first time or again.
    fn send_segment(&mut self, index: usize, quantum: &mut u32) -> Result<(), Halt> {
        *quantum = quantum.checked_sub(1).ok_or(Halt::Quantum)?;
        let hop = self.hop().ok_or(Halt::NoRoute)?;
        let outgoing = self.segment_headers(index);
        self.send_from_queue(index, &outgoing, hop)?;
        let Some(queues) = &mut self.tcb.queues else { return Ok(()) };
        let is_new = queues.send.segment(index).mark == Mark::Unsent;
        let (len, end) = (queues.send.segment(index).len, queues.send.segment(index).end());
        queues.send.transmitted(index, self.now);
        let has_gap = queues.receive.has_gap();
        if is_new {
            self.shared.counters.text_sent += u64::from(len);
            self.tcb.snd.nxt = self.tcb.snd.nxt.max(end);
        } else {
            self.shared.counters.retransmissions += 1;
        }
        // RFC 6298 §5.1; and anew with a retransmission, which deserves a round trip of its own. One segment
        // alone is not probed: a second one makes it a flight.
        if !is_new {
            self.restart_retransmit_timer();
        } else if self.tcb.deadlines.retransmit == NEVER || self.is_second_in_flight() {
            self.restart_flight_timer();
        }
        // SACK blocks travel on acknowledgements without text, whose header may be longer.
        self.acknowledgement_sent(has_gap);
        Ok(())
    }

    fn is_second_in_flight(&self) -> bool {
        self.tcb.queues.as_ref().is_some_and(|queues| queues.send.sent_count() == 2)
    }

    fn segment_headers(&mut self, index: usize) -> Outgoing {
        let window = self.window_field();
        let outgoing = Outgoing { window, ..self.outgoing() };
        let Some(queues) = &self.tcb.queues else { return outgoing };
        let segment = queues.send.segment(index);
        let mut flags = Flags::ACK;
        if segment.len > 0 && queues.send.ends_text(index) {
            // MUST-61.
            flags = flags | Flags::PSH;
        }
        if segment.fin {
            flags = flags | Flags::FIN;
        }
        Outgoing { seq: segment.seq, flags, ..outgoing }
    }

    /// Writes the headers before the text and hands the frame to the link. If the device still reads the
    /// frame, or the headers are of another length than when the text was laid out, the text moves to a
    /// fresh frame first.
    fn send_from_queue(&mut self, index: usize, outgoing: &Outgoing, hop: Hop) -> Result<(), Halt> {
        let Some(queues) = &mut self.tcb.queues else { return Ok(()) };
        let segment = queues.send.segment_mut(index);
        let at = usize::from(hop.header_len) + outgoing.header_len();
        let Some(mut frame) = segment.frame.take() else {
            return self.send_control(outgoing, hop);
        };
        let len = segment.len as usize;
        if usize::from(segment.at) != at || self.link.is_in_flight(&frame) {
            let Some(mut fresh) = self.link.allocate() else {
                segment.frame = Some(frame);
                return Err(Halt::NoFrame);
            };
            let from = usize::from(segment.at);
            self.link.copy(&frame, from..from + len, &mut fresh, at);
            self.link.release(frame);
            self.shared.counters.copies += 1;
            frame = fresh;
            segment.at = u16::try_from(at).expect("headers are far below 64 KiB");
        }
        let total = outgoing.write(self.link.bytes_mut(&mut frame), usize::from(hop.header_len), len);
        let sent = self.link.transmit(&mut frame, total, hop);
        segment.frame = Some(frame);
        sent.map_err(|_| Halt::RingFull)?;
        self.shared.counters.segments_sent += 1;
        Ok(())
    }

    /// Asks the peer for an acknowledgement with a number that it must find old (RFC 9293 §3.8.4). Also the
    /// zero-window probe: Linux probes so, and unlike an octet of text this needs nothing to be taken back.
    fn send_probe(&mut self) -> Result<(), Halt> {
        let hop = self.hop().ok_or(Halt::NoRoute)?;
        let window = self.window_field();
        let outgoing = Outgoing { seq: self.tcb.snd.una.minus(1), window, ..self.outgoing() };
        self.send_control(&outgoing, hop)?;
        self.tcb.flags.probe_due = false;
        self.shared.counters.probes += 1;
        self.acknowledgement_sent(false);
        Ok(())
    }

    /// An acknowledgement without text.
    fn send_ack(&mut self) -> Result<(), Halt> {
        let hop = self.hop().ok_or(Halt::NoRoute)?;
        let window = self.window_field();
        let mut outgoing = Outgoing { window, ..self.outgoing() };
        if self.tcb.sack
            && let Some(queues) = &mut self.tcb.queues
        {
            // Three fit beside timestamps (RFC 2018 §3).
            let room = if self.tcb.timestamps { 3 } else { 4 };
            for block in queues.receive.sack_blocks(room) {
                outgoing.options.sack.push(block);
            }
        }
        self.send_control(&outgoing, hop)?;
        self.acknowledgement_sent(false);
        self.put_idle_queues();
        Ok(())
    }

    /// What every segment of ours carries that is not text.
    pub(crate) fn outgoing(&self) -> Outgoing {
        let timestamps =
            self.tcb.timestamps.then(|| Timestamps { value: self.ts_now(), echo: self.tcb.ts_recent });
        Outgoing {
            local: self.tcb.tuple.local(),
            remote: self.tcb.tuple.remote(),
            seq: self.tcb.snd.nxt,
            ack: self.tcb.rcv.nxt,
            flags: Flags::ACK,
            window: 0,
            urgent: 0,
            options: Options { timestamps, ..Options::default() },
        }
    }

    /// Notes that a segment told the peer all that we acknowledge.
    fn acknowledgement_sent(&mut self, still_due: bool) {
        self.tcb.last_sent_ms = millis(self.now);
        self.tcb.last_ack_sent = self.tcb.rcv.nxt;
        self.tcb.unacked_segments = 0;
        if !still_due {
            self.tcb.flags.ack_due = false;
            self.tcb.deadlines.output = NEVER;
        }
    }

    /// Sends a segment without text from a frame of its own.
    pub(crate) fn send_control(&mut self, outgoing: &Outgoing, hop: Hop) -> Result<(), Halt> {
        let mut frame = self.link.allocate().ok_or(Halt::NoFrame)?;
        let total = outgoing.write(self.link.bytes_mut(&mut frame), usize::from(hop.header_len), 0);
        let sent = self.link.transmit(&mut frame, total, hop);
        self.link.release(frame);
        sent.map_err(|_| Halt::RingFull)?;
        self.shared.counters.segments_sent += 1;
        Ok(())
    }

    /// Tells the peer that the connection is no more. If that cannot be sent now, the peer's next segment
    /// finds nobody and is answered with a reset.
    pub(crate) fn send_reset(&mut self, seq: SeqNumber) {
        let Some(hop) = self.hop() else { return };
        let outgoing = Outgoing { seq, flags: Flags::RST | Flags::ACK, ..self.outgoing() };
        if self.send_control(&outgoing, hop).is_ok() {
            self.shared.counters.resets_sent += 1;
        }
    }
}
