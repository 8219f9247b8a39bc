//! SEGMENT ARRIVES (RFC 9293 §3.10.7), one function for each numbered check, in the RFC's order.
//!
//! ```text
//!   SYN-SENT          syn_sent.rs
//!   all other states  timestamps ─ first: sequence number ─ second: RST ─ fourth: SYN ─ fifth: ACK
//!                     ─ sixth: URG ─ seventh: text ─ eighth: FIN          (third, security: not used)
//! ```
//! A check answers whether the next one follows. What stops a segment either dropped it, with a reason, or
//! has done all there was to do.

use std::ops::Range;

use crate::answer_limit::connection_may_answer;
use crate::connection::Connection;
use crate::drop_reason::DropReason;
use crate::event::{ConnectFailure, ResetReason};
use crate::link::Link;
use crate::seq::SeqNumber;
use crate::tcb::{State, millis};
use crate::time_wait::WAIT;
use crate::wire::{Flags, Outgoing, SackBlock, Segment};

/// A timestamp that was not renewed for so long says nothing (RFC 7323 §5.5).
const TS_RECENT_VALID_MS: u32 = 24 * 24 * 3600 * 1000;

/// Why processing of a segment ends before the last check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It was dropped.
    Dropped(DropReason),
    /// It did what it had to.
    Done,
}

/// What a check answers.
pub(crate) type Step = Result<(), Stop>;

/// A segment on its way through the checks.
pub(crate) struct Arrival<F> {
    pub(crate) segment: Segment,
    /// SEG.SEQ of what is left of it.
    pub(crate) seq: SeqNumber,
    /// SEG.WND, scaled.
    pub(crate) window: u32,
    /// The text in the frame.
    pub(crate) text: Range<usize>,
    pub(crate) fin: bool,
    /// Taken by the text if it stays.
    pub(crate) frame: Option<F>,
}

impl<F> Arrival<F> {
    /// `start` is where the packet begins in the frame.
    pub(crate) fn new(segment: Segment, frame: F, start: usize) -> Self {
        Self {
            seq: segment.seq,
            window: u32::from(segment.window),
            text: segment.payload.start + start..segment.payload.end + start,
            fin: segment.flags.contains(Flags::FIN),
            frame: Some(frame),
            segment,
        }
    }

    pub(crate) fn has(&self, flag: Flags) -> bool {
        self.segment.flags.contains(flag)
    }

    /// Bytes of text that are left.
    pub(crate) fn text_len(&self) -> u32 {
        u32::try_from(self.text.len()).expect("IP carries at most 65535 bytes")
    }
}

impl<L: Link> Connection<'_, L> {
    /// A segment of this connection has arrived.
    pub(crate) fn segment_arrives(&mut self, mut arrival: Arrival<L::Frame>) {
        self.schedule_keepalive();
        let end = match self.tcb.state {
            State::SynSent => self.syn_sent(&mut arrival),
            _ => self.otherwise(&mut arrival),
        };
        if let Err(Stop::Dropped(reason)) = end {
            self.shared.counters.drop(reason);
        }
        if let Some(frame) = arrival.frame {
            self.link.release(frame);
        }
    }

    /// All states but SYN-SENT (§3.10.7.4).
    fn otherwise(&mut self, arrival: &mut Arrival<L::Frame>) -> Step {
        arrival.window <<= self.tcb.snd_wnd_shift;
        self.simultaneous_syn(arrival)?;
        self.check_timestamps(arrival)?;
        self.first_check_sequence_number(arrival)?;
        self.second_check_rst(arrival)?;
        self.fourth_check_syn(arrival)?;
        self.note_timestamp(arrival);
        self.fifth_check_ack(arrival)?;
        self.seventh_process_text(arrival)?;
        self.eighth_check_fin(arrival)
    }

    /// In SYN-RECEIVED the peer's SYN comes again: with ACK if both have opened at once (§3.5, figure 8), where
    /// only the acknowledgement is new; without, if our answer was lost.
    fn simultaneous_syn(&mut self, arrival: &mut Arrival<L::Frame>) -> Step {
        let is_again = self.tcb.state == State::SynReceived
            && arrival.has(Flags::SYN)
            && !arrival.has(Flags::RST)
            && arrival.seq + 1 == self.tcb.rcv.nxt;
        if !is_again {
            return Ok(());
        }
        if arrival.has(Flags::ACK) {
            // The window of a SYN is never scaled (RFC 7323 §2.2).
            arrival.window = u32::from(arrival.segment.window);
            arrival.segment.flags = Flags(arrival.segment.flags.0 & !Flags::SYN.0);
            arrival.seq += 1;
            return Ok(());
        }
        if connection_may_answer(&mut self.tcb.challenged_at_ms, self.now) {
            self.tcb.flags.syn_due = true;
            self.ready();
        }
        Err(Stop::Dropped(DropReason::DuplicateSyn))
    }

    /// RFC 7323 §5.3, R1: an old duplicate is told by its timestamp. A reset is judged by its sequence number
    /// alone.
    fn check_timestamps(&mut self, arrival: &Arrival<L::Frame>) -> Step {
        if !self.tcb.timestamps || arrival.has(Flags::RST) {
            return Ok(());
        }
        let Some(timestamps) = arrival.segment.options.timestamps else {
            // RFC 7323 §3.2: must be there once negotiated.
            return Err(Stop::Dropped(DropReason::NoTimestamp));
        };
        let is_older = timestamps.value.wrapping_sub(self.tcb.ts_recent) >= 1 << 31;
        let age_ms = millis(self.now).wrapping_sub(self.tcb.ts_recent_at_ms);
        if is_older && age_ms < TS_RECENT_VALID_MS {
            self.acknowledge_unacceptable(arrival);
            return Err(Stop::Dropped(DropReason::OldTimestamp));
        }
        Ok(())
    }

    /// First: the segment must hold something of the window.
    fn first_check_sequence_number(&mut self, arrival: &mut Arrival<L::Frame>) -> Step {
        let rcv = self.tcb.rcv;
        let edge = rcv.nxt + rcv.wnd;
        let len = arrival.text_len() + u32::from(arrival.fin) + u32::from(arrival.has(Flags::SYN));
        let acceptable = match (len, rcv.wnd) {
            // One more than the RFC's table allows: a peer that has filled the window acknowledges from its edge.
            (0, _) => rcv.nxt <= arrival.seq && arrival.seq <= edge,
            // "special allowance should be made to accept valid ACKs" (§3.4, MUST-66): a probe of a zero window
            // is processed without its text.
            (_, 0) if arrival.seq == rcv.nxt && !arrival.has(Flags::SYN) => {
                arrival.text.end = arrival.text.start;
                arrival.fin = false;
                self.ack_now();
                self.shared.counters.drop(DropReason::ZeroWindow);
                true
            }
            (_, 0) => false,
            (_, _) => {
                let last = arrival.seq + (len - 1);
                (rcv.nxt <= arrival.seq && arrival.seq < edge) || (rcv.nxt <= last && last < edge)
                    // The window lies inside the segment.
                    || (arrival.seq < rcv.nxt && edge <= last)
            }
        };
        if acceptable {
            return Ok(());
        }
        if arrival.has(Flags::RST) {
            return Err(Stop::Dropped(DropReason::ResetOutsideWindow));
        }
        let is_old = arrival.seq + len <= rcv.nxt;
        if is_old && arrival.text_len() > 0 && self.tcb.sack {
            let right = arrival.seq + arrival.text_len();
            self.queues().receive.note_duplicate(SackBlock { left: arrival.seq, right });
        }
        self.again_in_time_wait(arrival);
        self.acknowledge_unacceptable(arrival);
        Err(Stop::Dropped(if is_old { DropReason::Duplicate } else { DropReason::OutsideWindow }))
    }

    /// The peer's FIN again in TIME-WAIT: our last acknowledgement was lost, and the wait starts anew.
    fn again_in_time_wait(&mut self, arrival: &Arrival<L::Frame>) {
        if self.tcb.state == State::TimeWait && arrival.fin {
            self.tcb.deadlines.life = self.now.plus(WAIT);
        }
    }

    /// An unacceptable segment is answered with an acknowledgement. One without text or FIN may be such an
    /// answer itself, or forged: then it is limited (Linux: `tcp_oow_rate_limited`).
    fn acknowledge_unacceptable(&mut self, arrival: &Arrival<L::Frame>) {
        if arrival.has(Flags::SYN) {
            self.challenge();
        } else if arrival.text_len() > 0
            || arrival.fin
            || connection_may_answer(&mut self.tcb.challenged_at_ms, self.now)
        {
            self.ack_now();
        }
    }

    /// Second: RST, as RFC 5961 §3.2 has it: exact, or challenged.
    fn second_check_rst(&mut self, arrival: &Arrival<L::Frame>) -> Step {
        if !arrival.has(Flags::RST) {
            return Ok(());
        }
        if arrival.seq != self.tcb.rcv.nxt {
            self.challenge();
            return Err(Stop::Dropped(DropReason::ResetNotExact));
        }
        if self.tcb.state == State::TimeWait {
            // RFC 1337: a reset must not end the wait.
            return Err(Stop::Dropped(DropReason::ResetInTimeWait));
        }
        self.shared.counters.resets_received += 1;
        self.break_off(ResetReason::ByPeer, ConnectFailure::Refused);
        Err(Stop::Done)
    }

    /// Fourth: SYN. RFC 5961 §4.2: never a reason to do more than ask.
    fn fourth_check_syn(&mut self, arrival: &Arrival<L::Frame>) -> Step {
        if !arrival.has(Flags::SYN) {
            return Ok(());
        }
        if self.tcb.state == State::SynReceived && self.tcb.flags.passive {
            // "Return this connection to the LISTEN state"; the peer's next SYN finds it there.
            self.enter_closed();
            self.tcb.flags.forget = true;
        } else {
            self.challenge();
        }
        Err(Stop::Dropped(DropReason::SynInWindow))
    }

    /// RFC 7323 §4.3: TS.Recent follows the segment that covers what was last acknowledged.
    fn note_timestamp(&mut self, arrival: &Arrival<L::Frame>) {
        if self.tcb.timestamps
            && let Some(timestamps) = arrival.segment.options.timestamps
            && arrival.seq <= self.tcb.last_ack_sent
        {
            self.tcb.ts_recent = timestamps.value;
            self.tcb.ts_recent_at_ms = millis(self.now);
        }
    }

    /// Fifth: ACK.
    fn fifth_check_ack(&mut self, arrival: &Arrival<L::Frame>) -> Step {
        if !arrival.has(Flags::ACK) {
            return Err(Stop::Dropped(DropReason::NoAck));
        }
        if self.tcb.state == State::SynReceived {
            self.complete_handshake(arrival)?;
        }
        self.acknowledge(arrival)?;
        if !self.tcb.fin_is_acknowledged() {
            return Ok(());
        }
        match self.tcb.state {
            State::FinWait1 => self.tcb.state = State::FinWait2,
            State::Closing => self.enter_time_wait(),
            State::LastAck => {
                self.enter_closed();
                return Err(Stop::Done);
            }
            _ => {}
        }
        Ok(())
    }

    /// SYN-RECEIVED becomes ESTABLISHED if our SYN is acknowledged.
    fn complete_handshake(&mut self, arrival: &Arrival<L::Frame>) -> Step {
        let ack = arrival.segment.ack;
        if ack <= self.tcb.snd.una || ack > self.tcb.snd.nxt {
            self.reset_segment(arrival);
            return Err(Stop::Dropped(DropReason::UnacceptableAck));
        }
        self.tcb.snd.wnd = arrival.window;
        self.tcb.snd.max_wnd = arrival.window;
        self.tcb.snd.wl1 = arrival.seq;
        self.tcb.snd.wl2 = ack;
        self.establish(ack, arrival);
        Ok(())
    }

    /// `<SEQ=SEG.ACK><CTL=RST>`.
    pub(crate) fn reset_segment(&mut self, arrival: &Arrival<L::Frame>) {
        if !self.shared.answers.take(self.now, &self.shared.secrets) {
            return;
        }
        let Some(hop) = self.hop() else { return };
        let outgoing = Outgoing { seq: arrival.segment.ack, flags: Flags::RST, ..self.outgoing() };
        if self.send_control(&outgoing, hop).is_ok() {
            self.shared.counters.resets_sent += 1;
        }
    }

    /// Eighth: FIN. It counts when all before it is here.
    fn eighth_check_fin(&mut self, arrival: &mut Arrival<L::Frame>) -> Step {
        let fin_at = self.tcb.queues.as_ref().and_then(|queues| queues.receive.fin_at);
        let is_in_order = (arrival.fin && arrival.seq + arrival.text_len() == self.tcb.rcv.nxt)
            || fin_at == Some(self.tcb.rcv.nxt);
        if !is_in_order || self.tcb.flags.fin_received {
            return Ok(());
        }
        if let Some(queues) = &mut self.tcb.queues {
            queues.receive.fin_at = None;
        }
        self.tcb.rcv.nxt += 1;
        self.tcb.rcv.wnd = self.tcb.rcv.wnd.saturating_sub(1);
        self.tcb.flags.fin_received = true;
        self.ack_now();
        self.tell_readable();
        match self.tcb.state {
            State::Established => self.tcb.state = State::CloseWait,
            // Our FIN was not acknowledged by this segment, or the fifth check would have moved on.
            State::FinWait1 => self.tcb.state = State::Closing,
            State::FinWait2 => self.enter_time_wait(),
            _ => {}
        }
        Ok(())
    }
}
