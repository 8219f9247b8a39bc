//! How much of the shared memory is left, who may take of it, and what that does to each connection.
//!
//! ```text
//!   frames free   all ──────── 1/2 ──────── 1/4 ──────── 1/8 ──────── 1/16 ─────── 0
//!   stage            Plenty        Enough       Scarce         Dire
//!   windows          grow          stay         1/4            only what was promised
//!   text in order    kept          kept         16 KB each     1 KB each
//!   ahead of gaps    held          held         dropped        what was held goes, too
//!   new SYNs         yes           yes          yes            no
//!   send buffers     all           1/2          1/4            1/4
//!
//!   who may take a frame:
//!     acknowledgements, SYN, RST, copies of what is lost          ──────────────────► 0
//!     the fill ring, up to its target                             ───────────► 1/32
//!     text to be sent,  while there is less of it than its own    ───────► 1/16
//!     text received,    while there is less of it than its own    ───────► 1/16
//!     either of them, beyond its own                              ──► 1/16 + the other's unused own
//! ```
//! Free are those frames that the fill ring does not lack ([`Link::frames_free`]): so it is full whenever text is
//! taken, and what arrives finds a frame.
//!
//! # Why nothing waits in a circle
//!
//! Text received leaves its frame when the driver has copied it into text to be sent; that leaves its frame
//! when the peer acknowledges it; an acknowledgement needs the fill ring, and one of ours a frame. Each of these
//! has a part of the memory that no other takes. So received text cannot keep a relay from sending, however
//! much was promised, and text to be sent cannot keep the peers' text from being taken, however slowly it
//! drains. A window that was promised is not taken back (SHLD-14); text within it that would take what is
//! another's is dropped without an acknowledgement, and comes again.
//!
//! What may last is a peer that acknowledges nothing: `shed.rs`.

use crate::link::Link;

/// How much is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    Plenty,
    Enough,
    Scarce,
    Dire,
}

/// Unread text that a connection may have when frames are scarce: a quarter of the first window.
const UNREAD_WHEN_SCARCE_BYTES: usize = 16 << 10;

/// The same when they are dire: one segment, or some small ones that share a frame. So each goes on, if slowly.
const UNREAD_WHEN_DIRE_BYTES: usize = 1 << 10;

impl Pressure {
    pub(crate) fn of<L: Link>(link: &L) -> Self {
        let (free, total) = (link.frames_free(), link.frames_total());
        if free < control(total) + own(total) {
            Self::Dire
        } else if free < total / 4 {
            Self::Scarce
        } else if free < total / 2 {
            Self::Enough
        } else {
            Self::Plenty
        }
    }

    /// What a receive window may be of the allotment.
    pub(crate) fn receive_allotment(self, allotment: u32) -> u32 {
        match self {
            Self::Plenty | Self::Enough => allotment,
            Self::Scarce => allotment / 4,
            Self::Dire => 0,
        }
    }

    /// What a send buffer may be of the allotment.
    pub(crate) fn send_allotment(self, allotment: u32) -> u32 {
        match self {
            Self::Plenty => allotment,
            Self::Enough => allotment / 2,
            Self::Scarce | Self::Dire => allotment / 4,
        }
    }

    /// True if a connection with so much unread text may keep more.
    fn tolerates(self, unread_bytes: usize) -> bool {
        match self {
            Self::Plenty | Self::Enough => true,
            Self::Scarce => unread_bytes < UNREAD_WHEN_SCARCE_BYTES,
            Self::Dire => unread_bytes < UNREAD_WHEN_DIRE_BYTES,
        }
    }
}

/// Frames that neither received text nor text to be sent takes: those of acknowledgements and other segments of
/// their own until the device has sent them, and copies of what is lost.
fn control(total: usize) -> usize {
    (total / 16).max(4)
}

/// Frames that received text, and as many that text to be sent, may have whatever the other holds. With the default
/// of 16384 frames 1024: a dozen of the largest answers that a relay makes.
fn own(total: usize) -> usize {
    (total / 16).max(6)
}

/// What all connections of a stack hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// Frames of text that has come and was not read, in order or not.
    pub(crate) received: usize,
    /// Frames of text that is not acknowledged.
    pub(crate) queued: usize,
}

impl Holdings {
    /// What one connection's part was becomes `after`.
    pub(crate) fn change(&mut self, before: Self, after: Self) {
        self.received = self.received + after.received - before.received;
        self.queued = self.queued + after.queued - before.queued;
    }

    /// True if `len` bytes may be queued to be sent. `least_text` is the least that a full frame takes.
    pub(crate) fn can_take<L: Link>(self, len: usize, least_text: usize, link: &L) -> bool {
        let total = link.frames_total();
        let theirs = own(total).saturating_sub(self.received);
        let needed = len / least_text + 2;
        link.frames_free() >= control(total) + theirs + needed
    }

    /// True if a connection with so much unread text may keep the frame at hand, which is not free any more.
    pub(crate) fn can_keep<L: Link>(self, unread_bytes: usize, link: &L) -> bool {
        let total = link.frames_total();
        let theirs = own(total).saturating_sub(self.queued);
        link.frames_free() >= control(total) + theirs && Pressure::of(link).tolerates(unread_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_link::{MemoryFrame, MemoryLink};

    /// A link of `total` frames, all taken but `free`.
    fn link(total: usize, free: usize) -> (MemoryLink, Vec<MemoryFrame>) {
        let mut link = MemoryLink::new(total, 64);
        let taken = (free..total).map(|_| link.allocate().unwrap()).collect();
        (link, taken)
    }

    fn stage(total: usize, free: usize) -> Pressure {
        Pressure::of(&link(total, free).0)
    }

    #[test]
    fn stages_begin_where_the_picture_says() {
        assert_eq!((stage(1024, 512), stage(1024, 511)), (Pressure::Plenty, Pressure::Enough));
        assert_eq!((stage(1024, 256), stage(1024, 255)), (Pressure::Enough, Pressure::Scarce));
        assert_eq!((stage(1024, 128), stage(1024, 127)), (Pressure::Scarce, Pressure::Dire));
    }

    #[test]
    fn a_tiny_memory_has_no_stage_that_it_cannot_leave() {
        assert_eq!(
            (stage(24, 18), stage(24, 10), stage(24, 9)),
            (Pressure::Plenty, Pressure::Enough, Pressure::Dire)
        );
    }

    #[test]
    fn text_to_be_sent_leaves_what_belongs_to_received_text() {
        let can_take = |received, free| {
            let holdings = Holdings { received, queued: 500 };
            holdings.can_take(500, 500, &link(1024, free).0)
        };
        // 64 for control, 64 of received text's own, 3 needed.
        assert_eq!((can_take(0, 131), can_take(0, 130)), (true, false));
        assert_eq!((can_take(60, 71), can_take(60, 70)), (true, false));
        assert_eq!((can_take(900, 67), can_take(900, 66)), (true, false));
    }

    #[test]
    fn received_text_leaves_what_belongs_to_text_to_be_sent() {
        let can_keep = |queued, free| {
            let holdings = Holdings { received: 500, queued };
            holdings.can_keep(0, &link(1024, free).0)
        };
        assert_eq!((can_keep(0, 128), can_keep(0, 127)), (true, false));
        assert_eq!((can_keep(60, 68), can_keep(60, 67)), (true, false));
        assert_eq!((can_keep(900, 64), can_keep(900, 63)), (true, false));
    }

    #[test]
    fn the_less_is_left_the_less_a_connection_may_leave_unread() {
        let can_keep = |unread_bytes, free| {
            let holdings = Holdings { received: 100, queued: 100 };
            holdings.can_keep(unread_bytes, &link(1024, free).0)
        };
        assert!(can_keep(1 << 20, 256));
        assert_eq!((can_keep((16 << 10) - 1, 255), can_keep(16 << 10, 255)), (true, false));
        assert_eq!((can_keep(1023, 127), can_keep(1024, 127)), (true, false));
    }

    /// Whatever the two hold when neither can take more, one of them can move.
    #[test]
    fn what_is_received_can_always_be_sent_or_what_was_sent_is_waited_for() {
        for total in [24, 64, 400, 16_384] {
            let rest = total - total / 4;
            for queued in 0..rest {
                // As much received text as may be kept beside it.
                let least_free = control(total) + own(total).saturating_sub(queued);
                let received = (rest - queued).saturating_sub(least_free);
                let free = rest - queued - received;
                let needed = control(total) + own(total).saturating_sub(received) + 1500 / 524 + 2;
                assert!(free >= needed || queued > 0, "{total} frames, {queued} queued, {received} received");
            }
        }
    }
}
