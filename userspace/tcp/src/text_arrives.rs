//! The seventh check: segment text (RFC 9293 §3.10.7.4), delivered in order whatever order it came in, and
//! when its acknowledgement is due (§3.8.6.3, RFC 5681 §4.2).

use crate::connection::Connection;
use crate::drop_reason::DropReason;
use crate::link::Link;
use crate::pressure::Pressure;
use crate::receive_queue::{Inserted, Text};
use crate::segment_arrives::{Arrival, Step, Stop};

/// Segments between acknowledgements (SHLD-19).
const SEGMENTS_PER_ACK: u8 = 2;

impl<L: Link> Connection<'_, L> {
    /// Puts the text where it belongs. Urgent text is text: it stays in line, where the application finds it by
    /// itself (RFC 6093 §6 recommends no more).
    pub(crate) fn seventh_process_text(&mut self, arrival: &mut Arrival<L::Frame>) -> Step {
        if arrival.text_len() == 0 && !arrival.fin {
            return Ok(());
        }
        if !self.tcb.state.may_receive() {
            // "This should not occur since a FIN has been received": behind FIN there is nothing.
            return Err(Stop::Dropped(DropReason::TextAfterFin));
        }
        self.trim_to_window(arrival);
        if self.tcb.flags.orphan && arrival.text_len() > 0 {
            // Nobody will read it, and the peer must not believe that somebody did (RFC 2525 §2.17).
            self.send_reset(self.tcb.snd.nxt);
            self.enter_closed();
            return Err(Stop::Dropped(DropReason::TextAfterClose));
        }
        if arrival.seq == self.tcb.rcv.nxt { self.text_in_order(arrival) } else { self.text_ahead(arrival) }
    }

    /// Cuts off what was received before, and what is beyond the window.
    fn trim_to_window(&mut self, arrival: &mut Arrival<L::Frame>) {
        let rcv = self.tcb.rcv;
        if arrival.seq < rcv.nxt {
            let known = (rcv.nxt - arrival.seq).min(arrival.text_len());
            arrival.text.start += known as usize;
            arrival.seq += known;
        }
        let room = (rcv.nxt + rcv.wnd) - arrival.seq;
        if arrival.text_len() > room {
            arrival.text.end = arrival.text.start + room as usize;
            arrival.fin = false;
            self.shared.counters.drop(DropReason::BeyondWindow);
        } else if arrival.text_len() == room {
            // FIN takes a place in the window, too.
            arrival.fin = false;
        }
    }

    /// What no frame may be spared for goes without an acknowledgement, though it was promised: it comes again, and
    /// the promise stands.
    fn text_in_order(&mut self, arrival: &mut Arrival<L::Frame>) -> Step {
        let len = arrival.text_len();
        if len == 0 {
            return Ok(());
        }
        if !self.can_keep() {
            self.shed_held();
        }
        if !self.can_keep() {
            return Err(Stop::Dropped(DropReason::OverBudget));
        }
        let before = self.tcb.rcv.nxt;
        let mut nxt = before + len;
        let range = arrival.text.clone();
        let queues = self.shared.queues(self.tcb);
        if let Some(frame) = arrival.frame.take() {
            queues.receive.push(Text { frame, range }, self.link);
        }
        let had_gap = queues.receive.has_gap();
        if had_gap {
            nxt = queues.receive.close_gap(nxt, self.link);
        }
        let moved = nxt - before;
        self.tcb.rcv.nxt = nxt;
        self.tcb.rcv.wnd = self.tcb.rcv.wnd.saturating_sub(moved);
        // The text is gone from the segment's end of the window, so that FIN is looked for behind it.
        arrival.seq += len;
        arrival.text.start = arrival.text.end;
        self.shared.counters.text_received += u64::from(moved);
        self.tell_readable();
        self.schedule_ack(had_gap);
        Ok(())
    }

    fn can_keep(&self) -> bool {
        self.shared.holdings.can_keep(self.tcb.unread_bytes(), self.link)
    }

    /// Lets go of what is held ahead of gaps: the peer must keep it anyway.
    fn shed_held(&mut self) {
        let Some(queues) = &mut self.tcb.queues else { return };
        let link = &mut *self.link;
        for _ in 0..queues.receive.shed(|frame| link.release(frame)) {
            self.shared.counters.drop(DropReason::Pressure);
        }
    }

    /// Text ahead of a gap is acknowledged at once (RFC 5681 §4.2), held if memory allows, and its FIN noted. When
    /// frames run out, what is held already goes: it is what the peer must keep anyway.
    fn text_ahead(&mut self, arrival: &mut Arrival<L::Frame>) -> Step {
        self.ack_now();
        let pressure = self.pressure();
        if pressure == Pressure::Dire {
            self.shed_held();
        }
        if pressure >= Pressure::Scarce {
            return Err(Stop::Dropped(DropReason::Pressure));
        }
        let queues = self.shared.queues(self.tcb);
        if arrival.fin {
            queues.receive.fin_at = Some(arrival.seq + arrival.text_len());
        }
        if arrival.text_len() == 0 {
            return Ok(());
        }
        let Some(frame) = arrival.frame.take() else { return Ok(()) };
        let text = Text { frame, range: arrival.text.clone() };
        match queues.receive.insert(arrival.seq, text, self.link) {
            Inserted::Kept => Ok(()),
            Inserted::Duplicate => Err(Stop::Dropped(DropReason::Duplicate)),
            Inserted::TooMany => Err(Stop::Dropped(DropReason::TooManyGaps)),
        }
    }

    /// The first segments of a connection are acknowledged at once, since the peer is in slow start and counts
    /// acknowledgements; then every second, or after a while. One turn of output sends one acknowledgement,
    /// however many segments a burst had (MUST-58).
    fn schedule_ack(&mut self, had_gap: bool) {
        self.tcb.unacked_segments = self.tcb.unacked_segments.saturating_add(1);
        if had_gap || self.tcb.quick_acks > 0 || self.tcb.unacked_segments >= SEGMENTS_PER_ACK {
            self.tcb.quick_acks = self.tcb.quick_acks.saturating_sub(1);
            self.ack_now();
        } else {
            self.ack_later();
        }
    }
}
