//! The receive window: what is promised, how it grows, and when the peer is told (RFC 9293 §3.8.6.2.2).
//!
//! ```text
//!   rcv.nxt                       rcv.nxt + rcv.wnd
//!      ├──────── promised ────────────┤- - - may be promised - - ┤
//!      └─ never shorter (SHLD-14) ────┘                          allotment - unread
//! ```
//! The allotment starts small and follows what the user drains in a round trip (Linux calls this dynamic
//! right-sizing), so that memory goes where bytes flow; shared memory running short holds it down.

use crate::connection::Connection;
use crate::link::Link;
use crate::pressure::Pressure;
use crate::tcb::millis;

/// The first window: 45 segments of Ethernet with timestamps, as Linux begins with.
pub(crate) const INITIAL_ALLOTMENT: u32 = 65_160;

/// The shift to offer, so that the largest buffer can be promised (RFC 7323 §2.3 allows 14).
pub(crate) fn shift_for(buffer_max_bytes: u32) -> u8 {
    (0..14).find(|shift| (0xffff_u32 << shift) >= buffer_max_bytes).unwrap_or(14)
}

/// The window that a SYN names, which is never scaled (RFC 7323 section 2.2): whole segments, as many as 16 bits
/// hold and are promised, as Linux's `tcp_select_initial_window` has it. `text_max` is MSS without options.
pub(crate) fn syn_window(promised: u32, text_max: u16) -> u16 {
    let whole = u16::MAX / text_max.max(1) * text_max.max(1);
    whole.min(u16::try_from(promised).unwrap_or(u16::MAX))
}

impl<L: Link> Connection<'_, L> {
    /// What the window could be now.
    fn window_possible(&self) -> u32 {
        let allotment = self.pressure().receive_allotment(self.tcb.receive_allotment);
        let unread = u32::try_from(self.tcb.unread_bytes()).unwrap_or(u32::MAX);
        let most = u32::from(u16::MAX) << self.tcb.rcv_wnd_shift;
        let unit = 1_u32 << self.tcb.rcv_wnd_shift;
        allotment.saturating_sub(unread).min(most) / unit * unit
    }

    /// Decides the window and answers the header's field.
    pub(crate) fn window_field(&mut self) -> u16 {
        let possible = self.window_possible();
        let promised = self.tcb.rcv.wnd;
        // Receiver SWS avoidance (MUST-39): the edge moves by a worthwhile step or not at all.
        if possible >= promised.saturating_add(self.worthwhile_step()) {
            self.tcb.rcv.wnd = possible;
        }
        let shift = self.tcb.rcv_wnd_shift;
        // What was promised may not be a multiple any more. Rounding it down would take it back.
        let field = self.tcb.rcv.wnd.div_ceil(1 << shift).min(u32::from(u16::MAX));
        self.tcb.rcv.wnd = self.tcb.rcv.wnd.max(field << shift);
        self.note_pinched(possible);
        u16::try_from(field).expect("held to 16 bits above")
    }

    fn worthwhile_step(&self) -> u32 {
        (self.tcb.receive_allotment / 2).min(u32::from(self.tcb.smss())).max(1)
    }

    /// The user has read: a wider window is worth an acknowledgement of its own if the peer may be waiting for
    /// it, or soon will.
    pub(crate) fn check_window_update(&mut self) {
        if !std::mem::take(&mut self.tcb.flags.window_moved) || !self.tcb.state.may_receive() {
            return;
        }
        self.grow_allotment();
        let (possible, promised) = (self.window_possible(), self.tcb.rcv.wnd);
        let step = if promised < u32::from(self.tcb.smss()) {
            self.worthwhile_step()
        } else {
            self.tcb.receive_allotment / 2
        };
        if possible >= promised.saturating_add(step) {
            self.tcb.flags.ack_due = true;
        }
        self.note_pinched(possible);
    }

    /// Twice what was drained in the last round trip is what the peer needs to send as fast as we read, and as
    /// much again to find out whether it could send faster.
    fn grow_allotment(&mut self) {
        let now = millis(self.now);
        let round_trip = self.tcb.rtt.srtt().map_or(100, |srtt| srtt.as_millis().max(1));
        if u128::from(now.wrapping_sub(self.tcb.drained_since_ms)) < round_trip {
            return;
        }
        let wanted = self.tcb.drained.saturating_mul(2);
        if wanted > self.tcb.receive_allotment && self.pressure() == Pressure::Plenty {
            let most = self.shared.settings.receive_buffer_max_bytes.max(INITIAL_ALLOTMENT);
            self.tcb.receive_allotment = wanted.min(most);
        }
        self.tcb.drained = 0;
        self.tcb.drained_since_ms = now;
    }

    /// A window that only want of frames keeps shut is opened again when frames are there: the stack looks
    /// after those it knows of.
    fn note_pinched(&mut self, possible: u32) {
        let is_shut = self.tcb.rcv.wnd < u32::from(self.tcb.smss()) && possible < self.worthwhile_step();
        let by_want = self.pressure() > Pressure::Enough;
        if is_shut && by_want && self.tcb.unread_bytes() == 0 && !self.tcb.flags.is_pinched {
            self.tcb.flags.is_pinched = true;
            let slot = self.slot();
            self.shared.pinched.push_back(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_is_the_least_that_holds_the_buffer() {
        assert_eq!(shift_for(65_535), 0);
        assert_eq!(shift_for(65_536), 1);
        assert_eq!(shift_for(4 << 20), 7);
        assert_eq!(shift_for(u32::MAX), 14);
    }
}
