//! The fifth check for a connection that is open: what an acknowledgement does to the send queue, to round-trip
//! time, windows and recovery (RFC 9293 §3.10.7.4; RFC 5681, 6298, 6582, 6675).

use std::time::Duration;

use crate::congestion::CongestionControl;
use crate::connection::Connection;
use crate::drop_reason::DropReason;
use crate::event::Event;
use crate::link::Link;
use crate::queues::Queues;
use crate::recovery::{Moment, Phase};
use crate::segment_arrives::{Arrival, Step, Stop};
use crate::seq::SeqNumber;
use crate::tcb::NEVER;
use crate::wire::SackBlock;

impl<L: Link> Connection<'_, L> {
    /// SEG.ACK, SEG.WND and SACK of an acceptable segment.
    pub(crate) fn acknowledge(&mut self, arrival: &Arrival<L::Frame>) -> Step {
        let ack = arrival.segment.ack;
        let snd = self.tcb.snd;
        // RFC 5961 §5.2: beyond what was sent, or older than any window, is a guess.
        if ack > snd.nxt || ack < snd.una.minus(snd.max_wnd) {
            self.challenge();
            return Err(Stop::Dropped(DropReason::UnacceptableAck));
        }
        if ack < snd.una {
            // "If the ACK is a duplicate, it can be ignored"; its text cannot.
            return Ok(());
        }
        let is_repeated =
            ack == snd.una && arrival.text_len() == 0 && !arrival.fin && arrival.window == snd.wnd;
        self.update_window(arrival);
        self.tcb.snd.una = ack;
        // Out of the record while both are worked with.
        if let Some(mut queues) = self.tcb.queues.take() {
            if queues.send.has_sent() {
                self.acknowledge_queued(&mut queues, arrival, ack - snd.una, is_repeated);
            }
            self.tcb.queues = Some(queues);
            if ack > snd.una {
                self.restart_flight_timer();
            }
            self.report_sent();
            self.ready();
        }
        Ok(())
    }

    /// SND.WND follows the newest segment, so that an old one does not shrink it again. One that acknowledges
    /// something is new whatever its sequence number (Linux, `tcp_may_update_window`): a retransmission that
    /// moved SND.UNA alone would move the window's right edge beyond what the peer ever granted. A window may
    /// shrink all the same (MUST-34): what is beyond it stays in the queue.
    fn update_window(&mut self, arrival: &Arrival<L::Frame>) {
        let snd = &mut self.tcb.snd;
        let ack = arrival.segment.ack;
        let is_newer = ack > snd.una || snd.wl1 < arrival.seq || (snd.wl1 == arrival.seq && snd.wl2 <= ack);
        if !is_newer {
            return;
        }
        snd.wnd = arrival.window;
        snd.max_wnd = snd.max_wnd.max(arrival.window);
        snd.wl1 = arrival.seq;
        snd.wl2 = ack;
        let has_sent = self.tcb.queues.as_ref().is_some_and(|queues| queues.send.has_sent());
        if arrival.window > 0 && !has_sent {
            // The persist timer has done its duty.
            self.tcb.deadlines.retransmit = NEVER;
            self.tcb.retries = 0;
        } else if arrival.window == 0 {
            // A peer that answers probes keeps its connection for as long as it wishes (MUST-37).
            if let Some(queues) = &mut self.tcb.queues {
                queues.recovery.retrying_since = self.now;
            }
        }
    }

    fn acknowledge_queued(
        &mut self,
        queues: &mut Queues<L::Frame>,
        arrival: &Arrival<L::Frame>,
        acked: u32,
        is_repeated: bool,
    ) {
        let smss = u32::from(self.tcb.smss());
        let outstanding = self.tcb.snd.nxt - self.tcb.snd.una.minus(acked);
        let before = queues.recovery.pipe(&queues.send);
        let blocks: &[SackBlock] = if self.tcb.sack { &arrival.segment.options.sack } else { &[] };
        let was_fast = queues.recovery.phase == Phase::Fast;
        if acked > 0 {
            self.una_advances(queues, arrival, acked);
        }
        let snd = self.tcb.snd;
        let moment = Moment { now: self.now, srtt: self.tcb.rtt.srtt().unwrap_or(Duration::ZERO) };
        let recovery = &mut queues.recovery;
        let (has_news, newest) = recovery.apply_sack(&mut queues.send, snd.una, snd.nxt, blocks, moment);
        if let Some(sent_at) = newest.filter(|_| acked == 0) {
            self.tcb.rtt.sample(self.now.since(sent_at));
        }
        let is_duplicate = acked == 0 && (has_news || (is_repeated && !self.tcb.sack));
        let mut is_lost = is_duplicate && queues.recovery.duplicate(&mut queues.send, self.tcb.sack, smss);
        is_lost |= queues.recovery.find_lost(&mut queues.send, smss, moment);
        if is_lost && queues.recovery.phase == Phase::Open {
            self.shared.counters.fast_recoveries += 1;
            self.tcb.congestion.on_congestion(self.now, outstanding);
            queues.recovery.enter(Phase::Fast, snd.nxt);
            self.tcb.flags.retransmit_due = true;
        } else if acked > 0 && !was_fast {
            self.tcb.congestion.on_ack(self.now, acked, before, moment.srtt);
        }
    }

    /// SND.UNA has moved by `acked`.
    fn una_advances(&mut self, queues: &mut Queues<L::Frame>, arrival: &Arrival<L::Frame>, acked: u32) {
        let una = self.tcb.snd.una;
        let link = &mut *self.link;
        let gone = queues.send.acknowledge(una, |frame| link.release(frame));
        if let Some(sent_at) = gone.sent_once_at {
            self.tcb.rtt.sample(self.now.since(sent_at));
        } else if let Some(timestamps) = arrival.segment.options.timestamps.filter(|_| self.tcb.timestamps) {
            self.sample_timestamp(timestamps.echo);
        }
        let moment = Moment { now: self.now, srtt: self.tcb.rtt.srtt().unwrap_or(Duration::ZERO) };
        for (sent_at, sent_once) in [(gone.sent_once_at, true), (gone.resent_at, false)] {
            if let Some(sent_at) = sent_at {
                queues.recovery.delivered(sent_at, sent_once, moment);
            }
        }
        queues.pace.add(acked);
        self.tcb.retries = 0;
        self.tcb.flags.tail_probed = false;
        self.advance_recovery(queues, una, acked);
    }

    fn advance_recovery(&mut self, queues: &mut Queues<L::Frame>, una: SeqNumber, acked: u32) {
        let recovery = &mut queues.recovery;
        recovery.dup_acks = 0;
        match recovery.phase {
            Phase::Open => recovery.left_network = 0,
            _ if una >= recovery.point => {
                if recovery.phase == Phase::Fast {
                    self.tcb.congestion.on_recovery_exit(self.now);
                }
                recovery.exit();
                self.tcb.flags.retransmit_due = false;
            }
            Phase::Fast if !self.tcb.sack => {
                recovery.partial(&mut queues.send, acked, u32::from(self.tcb.smss()));
                self.tcb.flags.retransmit_due = true;
            }
            Phase::Fast | Phase::Timeout => {}
        }
    }

    /// A round trip told by the peer's echo, which Karn's rule allows for what was sent twice, too (RFC 7323
    /// §4.1). The clock is of milliseconds; an echo from the future or of long ago is a lie.
    pub(crate) fn sample_timestamp(&mut self, echo: u32) {
        const LONGEST_MS: u32 = 120_000;
        let millis = self.ts_now().wrapping_sub(echo);
        if millis <= LONGEST_MS {
            self.tcb.rtt.sample(Duration::from_millis(millis.max(1).into()));
        }
    }

    /// Tells the user what of its text has come within the send buffer.
    fn report_sent(&mut self) {
        let sent = self.take_sent_report();
        if sent > 0 && !self.tcb.flags.orphan {
            self.event(Event::Sent(self.id, sent));
        }
    }

    /// Text that was handed in earlier and falls within the send buffer now.
    pub(crate) fn take_sent_report(&mut self) -> usize {
        let most = self.shared.settings.send_buffer_max_bytes;
        let allotment = self.tcb.send_allotment(most, self.pressure());
        let Some(queues) = &mut self.tcb.queues else { return 0 };
        let queued = queues.send.text_bytes();
        let unreported = queues.send.unreported;
        // Acknowledged before it was reported, because the buffer has shrunk meanwhile.
        let overdue = unreported.saturating_sub(queued);
        let within = queued - (unreported - overdue);
        let report = overdue + allotment.saturating_sub(within).min(unreported - overdue);
        queues.send.unreported -= report;
        report as usize
    }
}
