//! What is queued or unacknowledged: frames of segments, which are the retransmission buffer.
//!
//! ```text
//!        snd.una                    snd.nxt
//!           │                          │
//!   segments: [sacked][lost][in flight] [unsent][unsent, has room]
//!           0                       sent                     len
//! ```
//! One segment is one frame, laid out once: its header is rewritten when it is sent again, its text never
//! moves. FIN is part of the last segment if that was not sent yet, else a segment without a frame.
//! Every change of a mark goes through [`SendQueue::set_mark`], which keeps the sums.

use std::collections::VecDeque;

use crate::seq::SeqNumber;
use crate::time::Instant;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Not sent yet.
    Unsent,
    /// Sent, and neither reported nor deemed lost.
    InFlight,
    /// The peer says that it has it; it may still change its mind (RFC 2018 §8), so the frame stays.
    Sacked,
    /// Deemed lost: to be sent again.
    Lost,
}

/// One segment of the send queue.
#[derive(Debug)]
pub(crate) struct Segment<F> {
    pub(crate) seq: SeqNumber,
    /// Bytes of text.
    pub(crate) len: u32,
    /// When it was last sent.
    pub(crate) sent_at: Instant,
    /// `None` for a FIN alone.
    pub(crate) frame: Option<F>,
    /// Where the text begins in the frame.
    pub(crate) at: u16,
    pub(crate) transmissions: u8,
    pub(crate) mark: Mark,
    pub(crate) fin: bool,
}

impl<F> Segment<F> {
    /// Sequence numbers it takes: text and FIN.
    pub(crate) fn space(&self) -> u32 {
        self.len + u32::from(self.fin)
    }

    /// The sequence number behind it.
    pub(crate) fn end(&self) -> SeqNumber {
        self.seq + self.space()
    }
}

/// What an acknowledgement took off the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Acknowledged {
    /// When the newest segment was sent, if it tells a round trip: nothing here was sent twice (Karn, MUST-18),
    /// and it did not wait at the peer for a gap to be filled.
    pub(crate) sent_once_at: Option<Instant>,
    /// When the newest segment of those that were sent twice was last sent.
    pub(crate) resent_at: Option<Instant>,
}

/// The queue of one connection.
#[derive(Debug)]
pub(crate) struct SendQueue<F> {
    segments: VecDeque<Segment<F>>,
    /// How many of them were sent at least once.
    sent: usize,
    text_bytes: u32,
    in_flight: u32,
    sacked: u32,
    lost: u32,
    /// No segment before this index is lost.
    lost_from: usize,
    /// Text that was queued beyond the send buffer, and is yet to be reported as sent.
    pub(crate) unreported: u32,
}

impl<F> Default for SendQueue<F> {
    fn default() -> Self {
        Self {
            segments: VecDeque::new(),
            sent: 0,
            text_bytes: 0,
            in_flight: 0,
            sacked: 0,
            lost: 0,
            lost_from: 0,
            unreported: 0,
        }
    }
}

impl<F> SendQueue<F> {
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Text not yet acknowledged, sent or not.
    pub(crate) fn text_bytes(&self) -> u32 {
        self.text_bytes
    }

    /// Sequence space that is out and neither reported nor lost: RFC 6675's pipe.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(crate) fn sacked(&self) -> u32 {
        self.sacked
    }

    pub(crate) fn lost(&self) -> u32 {
        self.lost
    }

    /// True if something was sent that is not acknowledged.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent > 0
    }

    pub(crate) fn sent_count(&self) -> usize {
        self.sent
    }

    pub(crate) fn segment(&self, index: usize) -> &Segment<F> {
        &self.segments[index]
    }

    pub(crate) fn segment_mut(&mut self, index: usize) -> &mut Segment<F> {
        &mut self.segments[index]
    }

    /// Index of the first segment that was never sent.
    pub(crate) fn next_unsent(&self) -> Option<usize> {
        (self.sent < self.segments.len()).then_some(self.sent)
    }

    /// The sequence number behind the last segment.
    pub(crate) fn end(&self) -> Option<SeqNumber> {
        self.segments.back().map(Segment::end)
    }

    /// True if `index` is the last segment with text.
    pub(crate) fn ends_text(&self, index: usize) -> bool {
        index + 1 == self.segments.len()
            || (index + 2 == self.segments.len() && self.segments[index + 1].len == 0)
    }

    /// Index of the first lost segment.
    pub(crate) fn next_lost(&mut self) -> Option<usize> {
        if self.lost == 0 {
            return None;
        }
        while self.lost_from < self.sent && self.segments[self.lost_from].mark != Mark::Lost {
            self.lost_from += 1;
        }
        (self.lost_from < self.sent).then_some(self.lost_from)
    }

    /// The last segment, if it was never sent and no FIN ends it: it may grow.
    pub(crate) fn growing(&mut self) -> Option<&mut Segment<F>> {
        self.segments.back_mut().filter(|last| last.mark == Mark::Unsent && !last.fin)
    }

    /// Counts text that was put into the growing segment.
    pub(crate) fn grew(&mut self, bytes: u32) {
        self.text_bytes += bytes;
    }

    /// Appends text. The segment is unsent.
    pub(crate) fn push(&mut self, seq: SeqNumber, frame: F, at: u16, len: u32) {
        self.text_bytes += len;
        self.segments.push_back(Segment {
            seq,
            len,
            sent_at: Instant::default(),
            frame: Some(frame),
            at,
            transmissions: 0,
            mark: Mark::Unsent,
            fin: false,
        });
    }

    /// Puts FIN behind all text; `seq` is where it stands if it needs a segment of its own.
    pub(crate) fn push_fin(&mut self, seq: SeqNumber) {
        if let Some(last) = self.growing() {
            last.fin = true;
            return;
        }
        self.segments.push_back(Segment {
            seq,
            len: 0,
            sent_at: Instant::default(),
            frame: None,
            at: 0,
            transmissions: 0,
            mark: Mark::Unsent,
            fin: true,
        });
    }

    /// Notes that a segment went out at `now`.
    pub(crate) fn transmitted(&mut self, index: usize, now: Instant) {
        if index == self.sent {
            self.sent += 1;
        }
        let segment = &mut self.segments[index];
        segment.sent_at = now;
        segment.transmissions = segment.transmissions.saturating_add(1);
        self.set_mark(index, Mark::InFlight);
    }

    /// Changes what is known of a segment, and the sums with it.
    pub(crate) fn set_mark(&mut self, index: usize, mark: Mark) {
        let segment = &mut self.segments[index];
        let space = segment.space();
        match segment.mark {
            Mark::Unsent => {}
            Mark::InFlight => self.in_flight -= space,
            Mark::Sacked => self.sacked -= space,
            Mark::Lost => self.lost -= space,
        }
        segment.mark = mark;
        match mark {
            Mark::Unsent => {}
            Mark::InFlight => self.in_flight += space,
            Mark::Sacked => self.sacked += space,
            Mark::Lost => {
                self.lost += space;
                self.lost_from = self.lost_from.min(index);
            }
        }
    }

    /// Everything that was sent is lost: the retransmission timer has expired. What SACK reported is
    /// forgotten, since the peer may have dropped it (RFC 2018 §8).
    pub(crate) fn all_lost(&mut self) {
        for index in 0..self.sent {
            self.set_mark(index, Mark::Lost);
        }
    }

    /// What is in flight and longer than the path takes will not arrive.
    pub(crate) fn lose_longer_than(&mut self, len: u32) {
        for index in 0..self.sent {
            if self.segments[index].len > len && self.segments[index].mark == Mark::InFlight {
                self.set_mark(index, Mark::Lost);
            }
        }
    }

    /// Index of the first sent segment whose end is behind `seq`.
    pub(crate) fn position(&self, seq: SeqNumber) -> usize {
        let (mut low, mut high) = (0, self.sent);
        while low < high {
            let middle = low.midpoint(high);
            if self.segments[middle].end() <= seq {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Drops all segments that end at or before `una`.
    pub(crate) fn acknowledge(&mut self, una: SeqNumber, mut release: impl FnMut(F)) -> Acknowledged {
        let mut acknowledged = Acknowledged::default();
        while self.sent > 0 && self.segments[0].end() <= una {
            let was_sacked = self.segments[0].mark == Mark::Sacked;
            // Takes it out of all sums.
            self.set_mark(0, Mark::Unsent);
            let Some(segment) = self.segments.pop_front() else { break };
            self.sent -= 1;
            self.lost_from = self.lost_from.saturating_sub(1);
            self.text_bytes -= segment.len;
            if segment.transmissions > 1 {
                acknowledged.resent_at = acknowledged.resent_at.max(Some(segment.sent_at));
            }
            if !was_sacked {
                acknowledged.sent_once_at = Some(segment.sent_at);
            }
            if let Some(frame) = segment.frame {
                release(frame);
            }
        }
        if acknowledged.resent_at.is_some() {
            acknowledged.sent_once_at = None;
        }
        acknowledged
    }

    /// Cuts a segment after `len` bytes of text; the rest, which the caller has copied to `frame` if it is
    /// more than FIN, follows it with the same mark.
    pub(crate) fn split(&mut self, index: usize, len: u32, frame: Option<F>) {
        let mark = self.segments[index].mark;
        self.set_mark(index, Mark::Unsent);
        let first = &mut self.segments[index];
        let rest = Segment {
            seq: first.seq + len,
            len: first.len - len,
            sent_at: first.sent_at,
            frame,
            at: first.at,
            transmissions: first.transmissions,
            mark: Mark::Unsent,
            fin: first.fin,
        };
        first.len = len;
        first.fin = false;
        self.segments.insert(index + 1, rest);
        if index < self.sent {
            self.sent += 1;
        }
        self.set_mark(index, mark);
        self.set_mark(index + 1, mark);
    }

    /// Gives all frames back.
    pub(crate) fn clear(&mut self, mut release: impl FnMut(F)) {
        while let Some(segment) = self.segments.pop_front() {
            if let Some(frame) = segment.frame {
                release(frame);
            }
        }
        let segments = std::mem::take(&mut self.segments);
        *self = Self { segments, ..Self::default() };
    }

    /// Frames held: one for each segment, but for a FIN alone at the end.
    pub(crate) fn frames(&self) -> usize {
        let is_fin_alone = self.segments.back().is_some_and(|last| last.frame.is_none());
        self.segments.len() - usize::from(is_fin_alone)
    }

    pub(crate) fn shrink_to(&mut self, segments: usize) {
        self.segments.shrink_to(segments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(segments: u32) -> SendQueue<u32> {
        let mut queue = SendQueue::default();
        for index in 0..segments {
            queue.push(SeqNumber(index * 100), index, 66, 100);
        }
        queue
    }

    #[test]
    fn sums_follow_every_mark() {
        let mut queue = queue(3);
        for index in 0..3 {
            queue.transmitted(index, Instant::from_micros(1));
        }
        assert_eq!((queue.in_flight(), queue.sacked(), queue.lost()), (300, 0, 0));
        queue.set_mark(1, Mark::Sacked);
        queue.set_mark(0, Mark::Lost);
        assert_eq!((queue.in_flight(), queue.sacked(), queue.lost()), (100, 100, 100));
        assert_eq!(queue.next_lost(), Some(0));
        queue.transmitted(0, Instant::from_micros(2));
        assert_eq!((queue.in_flight(), queue.lost()), (200, 0));
        let mut released = Vec::new();
        let acknowledged = queue.acknowledge(SeqNumber(200), |frame| released.push(frame));
        assert_eq!(released, [0, 1]);
        assert_eq!(acknowledged.sent_once_at, None);
        assert_eq!(acknowledged.resent_at, Some(Instant::from_micros(2)));
        assert_eq!((queue.in_flight(), queue.sacked()), (100, 0));
        assert_eq!(queue.text_bytes(), 100);
    }

    #[test]
    fn only_what_was_sent_once_and_did_not_wait_for_a_gap_tells_a_round_trip() {
        let sample = |sacked: &[usize], resent: &[usize]| {
            let mut queue = queue(3);
            for index in 0..3 {
                queue.transmitted(index, Instant::from_micros(index as u64));
            }
            sacked.iter().for_each(|index| queue.set_mark(*index, Mark::Sacked));
            resent.iter().for_each(|index| queue.transmitted(*index, Instant::from_micros(9)));
            queue.acknowledge(SeqNumber(300), |_| {}).sent_once_at.map(Instant::as_micros)
        };
        assert_eq!(sample(&[], &[]), Some(2));
        assert_eq!(sample(&[2], &[]), Some(1));
        assert_eq!(sample(&[1, 2], &[0]), None);
        assert_eq!(sample(&[], &[0]), None);
    }

    #[test]
    fn a_segment_that_is_acknowledged_in_part_stays_whole() {
        let mut queue = queue(1);
        queue.transmitted(0, Instant::default());
        queue.acknowledge(SeqNumber(99), |_| panic!("released too early"));
        assert_eq!(queue.text_bytes(), 100);
    }

    #[test]
    fn fin_rides_on_unsent_text_and_stands_alone_behind_sent_text() {
        let mut queue = queue(1);
        queue.push_fin(SeqNumber(100));
        assert_eq!(queue.segment(0).space(), 101);
        let mut queue = self::queue(1);
        queue.transmitted(0, Instant::default());
        queue.push_fin(SeqNumber(100));
        assert_eq!((queue.segment(0).space(), queue.segment(1).space()), (100, 1));
    }

    #[test]
    fn a_split_segment_keeps_its_mark_and_fin_stays_last() {
        let mut queue = queue(1);
        queue.push_fin(SeqNumber(100));
        queue.transmitted(0, Instant::default());
        queue.set_mark(0, Mark::Lost);
        queue.split(0, 40, Some(9));
        assert_eq!((queue.segment(0).space(), queue.segment(1).space()), (40, 61));
        assert_eq!((queue.lost(), queue.sent_count(), queue.next_lost()), (101, 2, Some(0)));
        assert_eq!(queue.text_bytes(), 100);
    }

    #[test]
    fn position_finds_the_segment_that_holds_a_number() {
        let mut queue = queue(3);
        for index in 0..3 {
            queue.transmitted(index, Instant::default());
        }
        let positions = [0, 99, 100, 199, 200, 300].map(|seq| queue.position(SeqNumber(seq)));
        assert_eq!(positions, [0, 0, 1, 1, 2, 3]);
    }
}
