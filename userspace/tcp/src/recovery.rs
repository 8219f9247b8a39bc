//! Which segments are lost, and how far a recovery reaches (RFC 6675; RFC 6582 for peers without SACK).
//!
//! ```text
//!            3 duplicates or SACK              una >= point
//!   Open ───────────────────────────► Fast ─────────────────► Open
//!     └──────────► Timeout ◄────────────┘                      ▲
//!        RTO          └────────────────────────────────────────┘
//! ```
//! Beside the counts of RFC 6675 there is RACK's rule of time (RFC 8985 §6.2): what was sent before something
//! that has been delivered, by more than a reordering window, is lost. That finds retransmissions that are lost
//! again, and the end of a flight once its tail was probed.

use std::time::Duration;

use crate::send_queue::{Mark, SendQueue};
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::SackBlock;

/// Duplicate acknowledgements, or separate SACKed runs, that tell of a loss (RFC 5681 §3.2).
const DUP_THRESH: u32 = 3;

/// Why a recovery is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// None is.
    #[default]
    Open,
    /// Fast recovery: the congestion window does not grow.
    Fast,
    /// The retransmission timer has expired: slow start.
    Timeout,
}

/// What time means to an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    /// Smoothed round-trip time; zero if nothing was measured.
    pub(crate) srtt: Duration,
}

/// Loss recovery of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recovery {
    pub(crate) phase: Phase,
    /// RecoveryPoint: the recovery ends when this is acknowledged.
    pub(crate) point: SeqNumber,
    /// Duplicate acknowledgements in a row.
    pub(crate) dup_acks: u32,
    /// Without SACK: what duplicate acknowledgements say has left the network.
    pub(crate) left_network: u32,
    /// When the first of the timer's expiries in a row was.
    pub(crate) retrying_since: Instant,
    /// When the last sent of the delivered segments was sent.
    delivered_sent_at: Instant,
    /// Highest number that SACK reported, if any.
    sack_high: Option<SeqNumber>,
    /// Everything sent only once below this was judged already.
    judged: Option<SeqNumber>,
    /// Blocks of the last acknowledgement: they come again in the next, and need no second look.
    seen: [SackBlock; 4],
}

impl Recovery {
    /// Notes that a segment, last sent at `sent_at`, was delivered. Of one that was sent again it may be the
    /// first copy, if no round trip has passed since the last (RFC 8985 §6.2, step 2).
    pub(crate) fn delivered(&mut self, sent_at: Instant, sent_once: bool, moment: Moment) {
        if sent_once || moment.now.since(sent_at) >= moment.srtt * 3 / 4 {
            self.delivered_sent_at = self.delivered_sent_at.max(sent_at);
        }
    }

    /// Applies the SACK blocks of an acknowledgement. Answers whether they brought anything new, and when the
    /// newest of that was sent, if only once: a round trip that Karn allows.
    pub(crate) fn apply_sack<F>(
        &mut self,
        queue: &mut SendQueue<F>,
        una: SeqNumber,
        nxt: SeqNumber,
        blocks: &[SackBlock],
        moment: Moment,
    ) -> (bool, Option<Instant>) {
        let before = queue.sacked();
        let mut newest = None;
        let seen = std::mem::take(&mut self.seen);
        for (index, block) in blocks.iter().enumerate().take(seen.len()) {
            self.seen[index] = *block;
            // A block at or below una reports a duplicate (RFC 2883), one beyond nxt is a lie.
            let is_sane = block.left < block.right && block.left >= una && block.right <= nxt;
            if !is_sane || seen.contains(block) {
                continue;
            }
            // What of it was known is passed over if it only grew to the right.
            let grown = seen
                .iter()
                .find(|old| old.left == block.left && old.left < old.right && old.right < block.right);
            let left = grown.map_or(block.left, |old| old.right);
            newest = newest.max(self.sack_block(queue, left, block.right, moment));
        }
        (queue.sacked() != before, newest)
    }

    fn sack_block<F>(
        &mut self,
        queue: &mut SendQueue<F>,
        left: SeqNumber,
        right: SeqNumber,
        moment: Moment,
    ) -> Option<Instant> {
        let mut newest = None;
        for index in queue.position(left)..queue.sent_count() {
            let segment = queue.segment(index);
            if segment.end() > right {
                break;
            }
            if segment.seq < left || segment.mark == Mark::Sacked {
                continue;
            }
            let (sent_at, sent_once) = (segment.sent_at, segment.transmissions == 1);
            if sent_once {
                newest = newest.max(Some(sent_at));
            }
            self.delivered(sent_at, sent_once, moment);
            queue.set_mark(index, Mark::Sacked);
        }
        self.sack_high = Some(self.sack_high.map_or(right, |high| high.max(right)));
        newest
    }

    /// IsLost () of RFC 6675 §4, and RACK's rule. Answers whether a segment was found lost.
    pub(crate) fn find_lost<F>(&mut self, queue: &mut SendQueue<F>, smss: u32, moment: Moment) -> bool {
        let before = queue.lost();
        if let Some(edge) = self.lost_edge(queue, smss) {
            let from = self.judged.map_or(0, |judged| queue.position(judged));
            for index in from..edge {
                let segment = queue.segment(index);
                if segment.mark == Mark::InFlight && segment.transmissions == 1 {
                    queue.set_mark(index, Mark::Lost);
                }
            }
            self.judged = Some(queue.segment(edge).seq);
        }
        self.find_lost_by_time(queue, moment.srtt);
        queue.lost() != before
    }

    /// RACK's rule (RFC 8985 §6.2). What was sent once lies in the order of time, so that the first such segment
    /// that is young enough ends the search: without loss that is the first of all.
    fn find_lost_by_time<F>(&mut self, queue: &mut SendQueue<F>, srtt: Duration) {
        let reordering = (srtt / 4).max(Duration::from_millis(1));
        for index in 0..queue.sent_count() {
            let segment = queue.segment(index);
            if segment.sent_at.plus(reordering) < self.delivered_sent_at {
                if segment.mark == Mark::InFlight {
                    queue.set_mark(index, Mark::Lost);
                }
            } else if segment.transmissions == 1 {
                return;
            }
        }
    }

    /// The first segment above which less than the threshold was reported: those before it are lost.
    fn lost_edge<F>(&self, queue: &SendQueue<F>, smss: u32) -> Option<usize> {
        let high = queue.position(self.sack_high?).min(queue.sent_count());
        let (mut runs, mut bytes, mut in_run) = (0, 0, false);
        for index in (0..high).rev() {
            let segment = queue.segment(index);
            let is_sacked = segment.mark == Mark::Sacked;
            if is_sacked {
                runs += u32::from(!in_run);
                bytes += segment.space();
            }
            in_run = is_sacked;
            if runs >= DUP_THRESH || bytes > (DUP_THRESH - 1) * smss {
                return Some(index);
            }
        }
        None
    }

    /// A duplicate acknowledgement came. Answers whether it is the one that tells of a loss.
    pub(crate) fn duplicate<F>(&mut self, queue: &mut SendQueue<F>, sack: bool, smss: u32) -> bool {
        self.dup_acks += 1;
        if !sack {
            self.left_network = (self.left_network + smss).min(queue.in_flight().saturating_sub(smss));
        }
        let is_third = self.dup_acks == DUP_THRESH && self.phase == Phase::Open;
        if is_third && queue.has_sent() && queue.segment(0).mark == Mark::InFlight {
            queue.set_mark(0, Mark::Lost);
        }
        is_third
    }

    /// A partial acknowledgement of a peer without SACK: the next segment is lost as well (RFC 6582 §3.2).
    pub(crate) fn partial<F>(&mut self, queue: &mut SendQueue<F>, acked: u32, smss: u32) {
        self.left_network = self.left_network.saturating_sub(acked.saturating_sub(smss));
        if queue.has_sent() && queue.segment(0).mark == Mark::InFlight {
            queue.set_mark(0, Mark::Lost);
        }
    }

    /// Fast recovery begins.
    pub(crate) fn enter(&mut self, phase: Phase, point: SeqNumber) {
        self.phase = phase;
        self.point = point;
        if phase == Phase::Timeout {
            *self = Self { phase, point, retrying_since: self.retrying_since, ..Self::default() };
        }
    }

    /// All up to the recovery point is acknowledged.
    pub(crate) fn exit(&mut self) {
        self.phase = Phase::Open;
        self.dup_acks = 0;
        self.left_network = 0;
    }

    /// RFC 6675's pipe, with duplicates standing in for SACK where there is none.
    pub(crate) fn pipe<F>(&self, queue: &SendQueue<F>) -> u32 {
        queue.in_flight().saturating_sub(self.left_network)
    }
}
