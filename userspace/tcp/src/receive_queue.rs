//! Text that has arrived: in order and unread, or ahead of a gap. It stays in the frame that brought it.
//!
//! ```text
//!      unread                    rcv.nxt        held (sorted, no overlap)
//!   [frame][frame][frame] ─────────┤   gap   [frame][frame]   gap   [frame]
//! ```
//! A small segment is copied behind its predecessor where that has room, so that a peer that sends single
//! bytes does not cost a frame for each.

use std::collections::VecDeque;
use std::ops::Range;

use crate::link::Link;
use crate::seq::SeqNumber;
use crate::wire::SackBlock;

/// Text up to this size is copied together. A quarter of an Ethernet frame: below, a frame would be mostly
/// empty; above, the copy costs more than the frame is worth.
const SMALL_BYTES: usize = 400;

/// Most frames one connection holds ahead of a gap: the widest receive window in full segments, with room
/// for a third of them being short.
const HELD_MAX: usize = 4096;

/// Text inside a frame.
#[derive(Debug)]
pub(crate) struct Text<F> {
    pub(crate) frame: F,
    pub(crate) range: Range<usize>,
}

#[derive(Debug)]
struct Held<F> {
    seq: SeqNumber,
    text: Text<F>,
}

impl<F> Held<F> {
    fn end(&self) -> SeqNumber {
        self.seq + len(&self.text.range)
    }
}

/// What became of text that was ahead of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// Held, or copied.
    Kept,
    /// All of it was here already.
    Duplicate,
    /// There were too many pieces, and this one was the farthest.
    TooMany,
}

/// What one connection has received and the user has not read.
#[derive(Debug)]
pub(crate) struct ReceiveQueue<F> {
    unread: VecDeque<Text<F>>,
    unread_bytes: usize,
    held: VecDeque<Held<F>>,
    /// Where the peer's FIN stands, if it came ahead of a gap.
    pub(crate) fin_at: Option<SeqNumber>,
    /// What to report by SACK, most recent first (RFC 2018 §4).
    blocks: [Option<SackBlock>; 4],
    /// A duplicate to be reported once (RFC 2883).
    duplicate: Option<SackBlock>,
}

impl<F> Default for ReceiveQueue<F> {
    fn default() -> Self {
        Self {
            unread: VecDeque::new(),
            unread_bytes: 0,
            held: VecDeque::new(),
            fin_at: None,
            blocks: [None; 4],
            duplicate: None,
        }
    }
}

fn len(range: &Range<usize>) -> u32 {
    u32::try_from(range.len()).expect("text is inside a frame, whose size is far below 4 GiB")
}

impl<F> ReceiveQueue<F> {
    pub(crate) fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.held.is_empty() && self.fin_at.is_none() && self.duplicate.is_none()
    }

    pub(crate) fn unread_bytes(&self) -> usize {
        self.unread_bytes
    }

    pub(crate) fn has_gap(&self) -> bool {
        !self.held.is_empty() || self.fin_at.is_some()
    }

    pub(crate) fn frames(&self) -> usize {
        self.unread.len() + self.held.len()
    }

    /// Takes the oldest unread text.
    pub(crate) fn pop(&mut self) -> Option<Text<F>> {
        let text = self.unread.pop_front()?;
        self.unread_bytes -= text.range.len();
        Some(text)
    }

    /// Puts text back in front.
    pub(crate) fn unpop(&mut self, text: Text<F>) {
        self.unread_bytes += text.range.len();
        self.unread.push_front(text);
    }

    /// Appends text that is next in order.
    pub(crate) fn push<L: Link<Frame = F>>(&mut self, text: Text<F>, link: &mut L) {
        self.unread_bytes += text.range.len();
        match self.unread.back_mut() {
            Some(last) if text.range.len() <= SMALL_BYTES => {
                if let Some(text) = join(last, text, link) {
                    self.unread.push_back(text);
                }
            }
            _ => self.unread.push_back(text),
        }
    }

    /// Keeps text that is ahead of `rcv.nxt`.
    pub(crate) fn insert<L: Link<Frame = F>>(
        &mut self,
        mut seq: SeqNumber,
        mut text: Text<F>,
        link: &mut L,
    ) -> Inserted {
        let whole = SackBlock { left: seq, right: seq + len(&text.range) };
        let end = whole.right;
        let mut index = self.held.partition_point(|held| held.end() <= seq);
        if let Some(held) = self.held.get(index)
            && held.seq <= seq
        {
            // The front is here already.
            if held.end() >= end {
                link.release(text.frame);
                self.duplicate = Some(whole);
                return Inserted::Duplicate;
            }
            let known = held.end() - seq;
            text.range.start += known as usize;
            seq += known;
            index += 1;
        }
        while let Some(held) = self.held.get(index)
            && held.end() <= end
        {
            // Wholly inside the new text.
            if let Some(held) = self.held.remove(index) {
                link.release(held.text.frame);
            }
        }
        if let Some(held) = self.held.get(index)
            && held.seq < end
        {
            text.range.end -= (end - held.seq) as usize;
        }
        if self.held.len() >= HELD_MAX && !self.drop_farthest(index, link) {
            link.release(text.frame);
            return Inserted::TooMany;
        }
        self.place(index, Held { seq, text }, link);
        self.note_block(whole);
        Inserted::Kept
    }

    /// Puts a piece where it belongs, behind its predecessor's bytes if it is small.
    fn place<L: Link<Frame = F>>(&mut self, index: usize, piece: Held<F>, link: &mut L) {
        let Held { seq, text } = piece;
        if text.range.len() <= SMALL_BYTES
            && let Some(before) = index.checked_sub(1)
            && self.held[before].end() == seq
        {
            if let Some(text) = join(&mut self.held[before].text, text, link) {
                self.held.insert(index, Held { seq, text });
            }
            return;
        }
        self.held.insert(index, Held { seq, text });
    }

    /// Makes room by dropping the farthest piece, unless the new one would be farther.
    fn drop_farthest<L: Link<Frame = F>>(&mut self, index: usize, link: &mut L) -> bool {
        if index >= self.held.len() {
            return false;
        }
        let Some(farthest) = self.held.pop_back() else { return false };
        for block in &mut self.blocks {
            *block = block.and_then(|block| {
                let right = block.right.min(farthest.seq);
                (block.left < right).then_some(SackBlock { left: block.left, right })
            });
        }
        link.release(farthest.text.frame);
        true
    }

    /// Moves what has become in order to the unread text. Answers the new `rcv.nxt`.
    pub(crate) fn close_gap<L: Link<Frame = F>>(&mut self, mut nxt: SeqNumber, link: &mut L) -> SeqNumber {
        while let Some(first) = self.held.front()
            && first.seq <= nxt
        {
            let Some(Held { seq, mut text }) = self.held.pop_front() else { break };
            let known = (nxt - seq) as usize;
            if known >= text.range.len() {
                link.release(text.frame);
                continue;
            }
            text.range.start += known;
            nxt += len(&text.range);
            self.push(text, link);
        }
        for block in &mut self.blocks {
            *block = block.filter(|block| block.left > nxt);
        }
        nxt
    }

    /// Lets go of everything ahead of a gap. The peer was told of it, and must send it again all the same
    /// (RFC 2018 §8). Answers how many frames that were.
    pub(crate) fn shed(&mut self, mut release: impl FnMut(F)) -> usize {
        let count = self.held.len();
        while let Some(held) = self.held.pop_front() {
            release(held.text.frame);
        }
        self.fin_at = None;
        self.blocks = [None; 4];
        count
    }

    /// Reports a segment that was here already (RFC 2883), once.
    pub(crate) fn note_duplicate(&mut self, block: SackBlock) {
        self.duplicate = Some(block);
    }

    /// Up to `room` blocks to be reported: a duplicate first, then the most recent ranges.
    pub(crate) fn sack_blocks(&mut self, room: usize) -> impl Iterator<Item = SackBlock> + use<F> {
        let duplicate = self.duplicate.take();
        duplicate.into_iter().chain(self.blocks.into_iter().flatten()).take(room)
    }

    /// Puts the range that `block` belongs to first. Blocks that it touches become part of it.
    fn note_block(&mut self, block: SackBlock) {
        let mut merged = block;
        let mut others = [None; 4];
        let mut count = 0;
        for other in self.blocks.iter().flatten() {
            if other.left <= merged.right && merged.left <= other.right {
                merged.left = merged.left.min(other.left);
                merged.right = merged.right.max(other.right);
            } else {
                others[count] = Some(*other);
                count += 1;
            }
        }
        self.blocks = [Some(merged), others[0], others[1], others[2]];
    }

    /// Gives all frames back.
    pub(crate) fn clear(&mut self, mut release: impl FnMut(F)) {
        while let Some(text) = self.unread.pop_front() {
            release(text.frame);
        }
        while let Some(held) = self.held.pop_front() {
            release(held.text.frame);
        }
        let (unread, held) = (std::mem::take(&mut self.unread), std::mem::take(&mut self.held));
        *self = Self { unread, held, ..Self::default() };
    }

    pub(crate) fn shrink_to(&mut self, pieces: usize) {
        self.unread.shrink_to(pieces);
        self.held.shrink_to(pieces);
    }
}

/// Copies small text behind other text in the same frame; answers it back if there is no room.
fn join<L: Link>(before: &mut Text<L::Frame>, text: Text<L::Frame>, link: &mut L) -> Option<Text<L::Frame>> {
    let room = link.bytes(&before.frame).len() - before.range.end;
    if room < text.range.len() || link.is_in_flight(&before.frame) {
        return Some(text);
    }
    let at = before.range.end;
    before.range.end += text.range.len();
    link.copy(&text.frame, text.range, &mut before.frame, at);
    link.release(text.frame);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_link::{MemoryFrame, MemoryLink};

    fn text(link: &mut MemoryLink, bytes: &[u8]) -> Text<MemoryFrame> {
        let (frame, range) = link.received(bytes).unwrap();
        Text { frame, range }
    }

    fn read(queue: &mut ReceiveQueue<MemoryFrame>, link: &mut MemoryLink) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(text) = queue.pop() {
            all.extend_from_slice(&link.bytes(&text.frame)[text.range]);
            link.release(text.frame);
        }
        all
    }

    fn blocks(queue: &mut ReceiveQueue<MemoryFrame>) -> Vec<(u32, u32)> {
        queue.sack_blocks(4).map(|block| (block.left.0, block.right.0)).collect()
    }

    #[test]
    fn overlapping_pieces_come_out_once_and_in_order() {
        let mut link = MemoryLink::new(16, 2048);
        let mut queue = ReceiveQueue::default();
        let bytes: Vec<u8> = (0..=255).collect();
        for (from, to) in [(20, 30), (50, 60), (25, 55), (10, 22), (5, 80), (40, 45)] {
            let piece = text(&mut link, &bytes[from..to]);
            queue.insert(SeqNumber(u32::try_from(from).unwrap()), piece, &mut link);
        }
        let first = text(&mut link, &bytes[0..7]);
        queue.push(first, &mut link);
        assert_eq!(queue.close_gap(SeqNumber(7), &mut link), SeqNumber(80));
        assert_eq!(read(&mut queue, &mut link), &bytes[0..80]);
        assert!(!queue.has_gap());
        assert_eq!((link.frames_taken(), queue.unread_bytes()), (0, 0));
    }

    #[test]
    fn blocks_are_reported_most_recent_first_and_merge() {
        let mut link = MemoryLink::new(16, 2048);
        let mut queue = ReceiveQueue::default();
        for from in [100, 300, 500, 700, 900] {
            let piece = text(&mut link, &[0; 100]);
            assert_eq!(queue.insert(SeqNumber(from), piece, &mut link), Inserted::Kept);
        }
        assert_eq!(blocks(&mut queue), [(900, 1000), (700, 800), (500, 600), (300, 400)]);
        let piece = text(&mut link, &[0; 100]);
        queue.insert(SeqNumber(600), piece, &mut link);
        assert_eq!(blocks(&mut queue), [(500, 800), (900, 1000), (300, 400)]);
    }

    #[test]
    fn a_duplicate_ahead_of_a_gap_is_reported_once() {
        let mut link = MemoryLink::new(16, 2048);
        let mut queue = ReceiveQueue::default();
        for _ in 0..2 {
            let piece = text(&mut link, &[0; 100]);
            queue.insert(SeqNumber(100), piece, &mut link);
        }
        assert_eq!(blocks(&mut queue), [(100, 200), (100, 200)]);
        assert_eq!(blocks(&mut queue), [(100, 200)]);
        assert_eq!(link.frames_taken(), 1);
    }

    #[test]
    fn single_bytes_share_a_frame() {
        let mut link = MemoryLink::new(16, 2048);
        let mut queue = ReceiveQueue::default();
        for index in 0..100 {
            let piece = text(&mut link, &[index]);
            queue.push(piece, &mut link);
        }
        for index in 0..100 {
            let piece = text(&mut link, &[0]);
            queue.insert(SeqNumber(200 + index), piece, &mut link);
        }
        assert_eq!(link.frames_taken(), 2);
        assert_eq!(read(&mut queue, &mut link), (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn the_farthest_piece_is_dropped_and_no_longer_reported() {
        let mut link = MemoryLink::new(HELD_MAX + 2, 64);
        let mut queue = ReceiveQueue::default();
        for index in 0..u32::try_from(HELD_MAX).unwrap() {
            let piece = text(&mut link, &[0; 10]);
            queue.insert(SeqNumber(1000 + index * 20), piece, &mut link);
        }
        let piece = text(&mut link, &[0; 10]);
        let farther = SeqNumber(1000 + u32::try_from(HELD_MAX).unwrap() * 20);
        assert_eq!(queue.insert(farther, piece, &mut link), Inserted::TooMany);
        let piece = text(&mut link, &[0; 10]);
        assert_eq!(queue.insert(SeqNumber(500), piece, &mut link), Inserted::Kept);
        assert_eq!(queue.held.len(), HELD_MAX);
        let gone = 1000 + (u32::try_from(HELD_MAX).unwrap() - 1) * 20;
        assert!(!blocks(&mut queue).contains(&(gone, gone + 10)));
    }
}
