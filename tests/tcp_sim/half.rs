//! What one end of a connection has said on the wire and has been told: the rules that its next segment
//! must keep.
//!
//! Numbers are relative: what this end sends to its own ISS, what it hears to the peer's.
//!
//! ```text
//!            acked              sent        granted
//!   ──────────┼──────────────────┼─────────────┼───►   what this end sends
//!    is over      may come again     may come
//! ```

use crate::violation::{Checker, Judge, Violation};
use crate::wire::{ACK, FIN, Options, RST, SYN, View};

/// MSS of a peer that did not say one (RFC 9293 section 3.7.1).
fn mss_default(view: &View) -> u16 {
    if view.source.is_ipv4() { 536 } else { 1220 }
}

/// SYNs that are remembered until one is answered: the newest, in case an old duplicate is among them.
const SYNS_MAX: usize = 8;

/// Parts of a sequence space that have come.
#[derive(Default)]
struct Received {
    /// All before it has come.
    contiguous: i64,
    /// Beyond: sorted, apart from each other.
    ranges: Vec<(i64, i64)>,
}

impl Received {
    fn insert(&mut self, mut from: i64, mut to: i64) {
        if to <= self.contiguous || from >= to {
            return;
        }
        if from > self.contiguous {
            self.ranges.retain(|&(left, right)| {
                let is_apart = right < from || left > to;
                if !is_apart {
                    (from, to) = (from.min(left), to.max(right));
                }
                is_apart
            });
            let at = self.ranges.partition_point(|&(left, _)| left < from);
            self.ranges.insert(at, (from, to));
            return;
        }
        self.contiguous = to;
        while let Some(&(left, right)) = self.ranges.first() {
            if left > self.contiguous {
                break;
            }
            self.contiguous = self.contiguous.max(right);
            self.ranges.remove(0);
        }
    }

    fn has(&self, from: i64, to: i64) -> bool {
        to <= self.contiguous || self.ranges.iter().any(|&(left, right)| left <= from && to <= right)
    }
}

#[derive(Default)]
pub(crate) struct Half {
    iss: Option<u32>,
    irs: Option<u32>,
    /// Other ISS that this end has answered the same SYN with: cookies of other ticks.
    cookies: Vec<u32>,
    /// Behind the last sequence number sent.
    sent: i64,
    /// What the peer has acknowledged in segments that this end surely took, and in any that came.
    acked: i64,
    acked_perhaps: i64,
    /// Right edge of the peer's window.
    granted: i64,
    /// Options of this end's SYN, and what both agreed on.
    offered: Options,
    has_timestamps: bool,
    has_sack: bool,
    own_shift: u8,
    peer_shift: u8,
    peer_mss: u16,
    /// What this end last acknowledged, and the right edge of its window.
    acknowledged: i64,
    edge: i64,
    last_timestamp: Option<u32>,
    received: Received,
    syns: Vec<View>,
}

fn distance(number: u32, from: u32) -> i64 {
    i64::from(number.wrapping_sub(from) as i32)
}

/// What a segment that leaves is judged by.
pub(crate) struct Departure<'a> {
    pub(crate) judge: Judge,
    pub(crate) view: &'a View,
    pub(crate) ip_len: usize,
    pub(crate) mtu_bytes: u16,
    /// Bytes this end's driver has written by now.
    pub(crate) written: u64,
    /// The tuple was used before.
    pub(crate) is_again: bool,
    /// It will not write any more.
    pub(crate) is_finished: bool,
}

impl Half {
    /// Something of this end is surely not acknowledged.
    pub(crate) fn has_unacknowledged(&self) -> bool {
        self.iss.is_some() && self.acked_perhaps < self.sent
    }

    /// A sequence number beyond all that has come, and within the window; none is if the window is full.
    pub(crate) fn unexpected(&self, word: u64) -> Option<u32> {
        let first = self.received.contiguous + 1;
        let room = u64::try_from(self.edge - 1 - first).ok().filter(|room| *room > 0)?;
        Some(self.irs?.wrapping_add((first + (word % room) as i64) as u32))
    }

    /// The next sequence number to be sent.
    pub(crate) fn next(&self) -> Option<u32> {
        Some(self.iss?.wrapping_add(self.sent as u32))
    }

    /// Where in the stream the text of a segment begins.
    pub(crate) fn text_at(&self, view: &View) -> Option<u64> {
        u64::try_from(distance(view.seq, self.iss?) - 1).ok()
    }

    /// Forgets an earlier incarnation.
    fn begin(&mut self, iss: u32, view: &View) {
        let syns = std::mem::take(&mut self.syns);
        *self = Self { iss: Some(iss), syns, sent: 1, offered: view.options, ..Self::default() };
        self.peer_mss = mss_default(view);
    }

    /// Takes the peer's SYN, after this end's own.
    fn adopt(&mut self, syn: &View) {
        self.irs = Some(syn.seq);
        let offered = &self.offered;
        self.has_timestamps = syn.options.timestamps.is_some() && offered.timestamps.is_some();
        self.has_sack = syn.options.is_sack_permitted && offered.is_sack_permitted;
        if let (Some(own), Some(peer)) = (offered.shift, syn.options.shift) {
            (self.own_shift, self.peer_shift) = (own.min(14), peer.min(14));
        }
        self.peer_mss = syn.options.mss.unwrap_or(mss_default(syn));
        self.granted = 1 + i64::from(syn.window);
        self.received.insert(0, 1 + syn.payload_len as i64);
    }

    /// A whole segment is handed to this end's stack.
    pub(crate) fn arrives(&mut self, view: &View) {
        if view.has(RST) {
            return;
        }
        if view.has(SYN) && !view.has(ACK) {
            if self.syns.len() == SYNS_MAX {
                self.syns.remove(0);
            }
            self.syns.push(*view);
            if self.iss.is_some() && self.irs.is_none() {
                self.adopt(view);
            }
            return;
        }
        let Some(iss) = self.iss else { return };
        if view.has(SYN) && self.irs.is_none() && view.ack == iss.wrapping_add(1) {
            self.adopt(view);
        }
        let Some(irs) = self.irs else { return };
        let first = view.ack.wrapping_sub(1);
        if self.sent == 1 && !view.has(SYN) && self.cookies.contains(&first) {
            self.iss = Some(first);
        }
        let iss = self.iss.unwrap_or(iss);
        let from = distance(view.seq, irs);
        let to = from + i64::from(view.len());
        // What lies before the window is dropped with its acknowledgement (RFC 9293 section 3.10.7.4).
        let is_acceptable = to > self.received.contiguous || from == to && from >= self.received.contiguous;
        self.received.insert(from, to);
        let ack = distance(view.ack, iss);
        if view.has(ACK) && (0..=self.sent).contains(&ack) {
            self.acked_perhaps = self.acked_perhaps.max(ack);
            if is_acceptable {
                self.acked = self.acked.max(ack);
            }
            let shift = if view.has(SYN) { 0 } else { self.peer_shift };
            self.granted = self.granted.max(ack + (i64::from(view.window) << shift));
        }
    }

    /// Judges a segment that this end's stack sends.
    pub(crate) fn departs(&mut self, departure: &Departure<'_>) -> Result<(), Violation> {
        let Departure { judge, view, .. } = departure;
        if view.has(RST) {
            return Ok(());
        }
        if view.has(SYN) {
            self.begins(*judge, view)?;
        }
        let Some(iss) = self.iss else {
            if departure.is_again {
                // The earlier incarnation is still in TIME-WAIT.
                return Ok(());
            }
            return judge
                .require(false, Checker::Sequence, || "a segment of no connection, and no RST".to_owned());
        };
        self.check_sequence(departure, distance(view.seq, iss))?;
        if let (Some(irs), true) = (self.irs, view.has(ACK)) {
            self.check_acknowledgement(*judge, view, irs)?;
        }
        self.check_timestamps(*judge, view)
    }

    fn begins(&mut self, judge: Judge, view: &View) -> Result<(), Violation> {
        if !view.has(ACK) {
            if self.iss != Some(view.seq) {
                self.begin(view.seq, view);
            }
            return Ok(());
        }
        let Some(syn) = self.syns.iter().rev().find(|syn| syn.seq.wrapping_add(1) == view.ack).copied()
        else {
            return judge.require(false, Checker::Acknowledgement, || "SYN-ACK without a SYN".to_owned());
        };
        let (own, peer) = (&view.options, &syn.options);
        let is_invited = (own.shift.is_none() || peer.shift.is_some())
            && (!own.is_sack_permitted || peer.is_sack_permitted)
            && (own.timestamps.is_none() || peer.timestamps.is_some());
        judge.require(is_invited, Checker::WellFormed, || {
            "SYN-ACK has an option that the SYN did not".to_owned()
        })?;
        if self.irs != Some(syn.seq) || self.iss != Some(view.seq) {
            let is_again = self.irs == Some(syn.seq);
            let mut cookies = if is_again { std::mem::take(&mut self.cookies) } else { Vec::new() };
            cookies.extend(self.iss.filter(|_| is_again));
            self.begin(view.seq, view);
            self.cookies = cookies;
            self.adopt(&syn);
        }
        Ok(())
    }

    fn check_sequence(&mut self, departure: &Departure<'_>, from: i64) -> Result<(), Violation> {
        let Departure { judge, view, ip_len, mtu_bytes, .. } = departure;
        let text_end = from + i64::from(view.has(SYN)) + view.payload_len as i64;
        let end = from + i64::from(view.len());
        let written = departure.written as i64 + 1;
        judge.require(from >= 0 && from <= self.sent, Checker::Sequence, || {
            format!("begins at {from} of {} sent", self.sent)
        })?;
        let is_end_right = !view.has(FIN) || departure.is_finished && text_end == written;
        let is_text_right = view.payload_len == 0 || text_end <= written;
        judge.require(is_text_right && is_end_right, Checker::Sequence, || {
            format!("FIN or text ends at {text_end}; {written} are written")
        })?;
        judge.require(
            view.payload_len == 0 && !view.has(FIN) || end > self.acked,
            Checker::Acknowledged,
            || format!("{from}..{end} is sent, and {} is acknowledged", self.acked),
        )?;
        let is_probe = view.payload_len == 1 && from <= self.granted.max(self.acked);
        judge.require(
            text_end <= self.granted || view.payload_len == 0 || is_probe,
            Checker::PeerWindow,
            || format!("{from}..{text_end} is beyond the window's edge at {}", self.granted),
        )?;
        let options_len = view.tcp_header_len - 20;
        judge.require(
            view.has(SYN) || view.payload_len + options_len <= usize::from(self.peer_mss),
            Checker::SegmentSize,
            || format!("{} bytes behind {options_len}, MSS {}", view.payload_len, self.peer_mss),
        )?;
        judge.require(*ip_len <= usize::from(*mtu_bytes), Checker::SegmentSize, || {
            format!("{ip_len} bytes, MTU {mtu_bytes}")
        })?;
        self.sent = self.sent.max(end);
        Ok(())
    }

    fn check_acknowledgement(&mut self, judge: Judge, view: &View, irs: u32) -> Result<(), Violation> {
        let ack = distance(view.ack, irs);
        let contiguous = self.received.contiguous;
        // A SYN that is sent again says what it said, and a cookie knows nothing of a connection.
        let is_onward = ack >= self.acknowledged || view.has(SYN);
        judge.require(ack <= contiguous && is_onward, Checker::Acknowledgement, || {
            format!("acknowledges {ack}; {contiguous} has come, {} was acknowledged", self.acknowledged)
        })?;
        self.acknowledged = self.acknowledged.max(ack);
        let sack = view.options.sack();
        judge.require(sack.is_empty() || self.has_sack, Checker::Acknowledgement, || {
            "SACK without agreement".to_owned()
        })?;
        for (index, &(left, right)) in sack.iter().enumerate() {
            let (left, right) = (distance(left, irs), distance(right, irs));
            // The first block may tell of a duplicate (RFC 2883).
            let is_true = left < right && self.received.has(left, right) && (index == 0 || left > ack);
            judge.require(is_true, Checker::Acknowledgement, || {
                format!("SACK {left}..{right} behind {ack}; {contiguous} and {:?} came", self.received.ranges)
            })?;
        }
        let shift = if view.has(SYN) { 0 } else { self.own_shift };
        let edge = ack + (i64::from(view.window) << shift);
        judge.require(edge >= self.edge || view.has(SYN), Checker::WindowEdge, || {
            format!("the window's edge goes back from {} to {edge}", self.edge)
        })?;
        self.edge = self.edge.max(edge);
        Ok(())
    }

    fn check_timestamps(&mut self, judge: Judge, view: &View) -> Result<(), Violation> {
        if !view.has(SYN) {
            judge.require(
                view.options.timestamps.is_some() == self.has_timestamps,
                Checker::WellFormed,
                || format!("timestamps {:?}, agreed {}", view.options.timestamps, self.has_timestamps),
            )?;
        }
        if let Some((value, _)) = view.options.timestamps {
            let is_forward = self.last_timestamp.is_none_or(|last| distance(value, last) >= 0);
            // A cookie's timestamp carries options in its low bits (RFC 4987 practice, as Linux does).
            judge.require(is_forward || view.has(SYN), Checker::WellFormed, || {
                "a timestamp goes back".to_owned()
            })?;
            if !view.has(SYN) {
                self.last_timestamp = Some(value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_is_known_in_whatever_order_it_came() {
        let mut received = Received::default();
        for (from, to) in [(0, 1), (10, 20), (30, 40), (15, 32)] {
            received.insert(from, to);
        }
        assert_eq!((received.contiguous, received.ranges.clone()), (1, vec![(10, 40)]));
        assert!(received.has(10, 40) && !received.has(9, 12) && !received.has(39, 41) && received.has(0, 1));
        received.insert(1, 10);
        assert_eq!((received.contiguous, received.ranges.len()), (40, 0));
        received.insert(5, 30);
        assert_eq!(received.contiguous, 40);
    }
}
