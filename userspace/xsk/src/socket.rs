//! A socket on one queue: packets in, packets out, frames round.
//!
//! A turn of its thread:
//!
//! ```text
//!   complete ── frames that were sent come back
//!   receive  ── a burst of packets             ┐
//!   refill   ── as many frames for the next    │  transmit … any number of times
//!   flush    ── what was transmitted leaves    ┘
//!   wait     ── if there was nothing to do
//! ```

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use std::{fmt, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{SendFlags, send};
use xsk_rs::FrameDesc;

use crate::bind::{self, BindError, Bound, Rings};
use crate::frame::{Census, Frame, FrameState, Full, Packet};
use crate::pool::BadDescriptor;
use crate::settings::Settings;
use crate::statistics::{Counters, KernelStatistics};
use crate::umem::Umem;

/// Descriptors that move through a ring at once. 64 of them are 2 KiB, well within a first-level cache, and
/// as many as a device's poll hands over.
const BATCH: usize = 64;

/// Packets that one kick sends at most in copy mode (`TX_BATCH_SIZE`, net/xdp/xsk.c): more take more kicks.
const KICK_PACKETS: u32 = 32;

/// Longest wait while packets stay in the TX ring. Nothing else than another kick sends them, and no event
/// says when it will work.
const UNSENT_WAIT: Duration = Duration::from_millis(1);

/// An AF_XDP socket with its memory and its four rings. One thread drives it; it may be made on another.
pub struct Socket {
    // Before the memory, so that it is closed first.
    rings: Rings,
    umem: Umem,
    bound: Bound,
    counters: Counters,
    fill_target: u32,
    transmit_reserve: u32,
    tx_ring: u32,
    /// Packets that are in flight but not yet in the TX ring.
    batch: Vec<FrameDesc>,
    /// What a ring was read into.
    scratch: Box<[FrameDesc; BATCH]>,
    /// Room of the TX ring besides the batch, when last looked.
    tx_room: u32,
    /// The TX ring may hold packets that the kernel has not taken.
    unsent: bool,
    fragments: Fragments,
}

/// Tells which descriptors are parts of a packet that spans several frames. No driver makes them unasked, and
/// we do not ask (`XDP_USE_SG`).
#[derive(Default)]
struct Fragments {
    /// The next descriptor continues a packet.
    within: bool,
}

impl Fragments {
    fn is_part(&mut self, more_follow: bool) -> bool {
        let is_part = more_follow || self.within;
        self.within = more_follow;
        is_part
    }
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// There are packets to receive.
    pub packets: bool,
    /// The other descriptor is readable.
    pub other: bool,
}

impl Socket {
    /// Allocates the memory, binds the socket in the best mode of the ladder and fills the fill ring.
    ///
    /// The ring is filled right *after* binding: xsk-rs hands it out no earlier. A driver that finds it empty
    /// while binding in zero-copy mode has to ask for the wake-up that [`refill`](Self::refill) then sends, and
    /// not every one does: attach the program after binding, so that the driver begins with a full ring.
    /// May sleep for up to a second per mode while the queue is busy: not for a thread that moves packets.
    ///
    /// # Errors
    /// [`BindError`] says what was found, what was expected and what to do.
    pub fn bind(settings: &Settings) -> Result<Self, BindError> {
        let (umem, rings, bound) = bind::bind(settings)?;
        let mut socket = Self {
            rings,
            umem,
            bound,
            counters: Counters::default(),
            fill_target: settings.fill_target,
            transmit_reserve: settings.transmit_reserve,
            tx_ring: settings.tx_ring,
            batch: Vec::with_capacity(BATCH),
            scratch: Box::new([FrameDesc::default(); BATCH]),
            tx_room: 0,
            unsent: false,
            fragments: Fragments::default(),
        };
        socket.refill().map_err(BindError::Other)?;
        Ok(socket)
    }

    /// What was obtained when binding.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Appends up to `limit` packets to `packets`. It allocates only if they have no room there.
    pub fn receive(&mut self, packets: &mut Vec<Packet>, limit: usize) -> usize {
        let before = packets.len();
        let mut seen = 0;
        while seen < limit {
            let room = BATCH.min(limit - seen);
            // SAFETY: the descriptors are written, not read; the rings are those of this memory (bind).
            let count = unsafe { self.rings.rx.consume(&mut self.scratch[..room]) };
            for at in 0..count {
                self.received(self.scratch[at], packets);
            }
            seen += count;
            if count < room {
                break;
            }
        }
        packets.len() - before
    }

    fn received(&mut self, desc: FrameDesc, packets: &mut Vec<Packet>) {
        let (frame, range) = match self.umem.pool.received(desc.addr(), desc.lengths().data()) {
            Ok(packet) => packet,
            Err(BadDescriptor::Address) => return self.counters.bad_rx_addresses += 1,
            Err(BadDescriptor::Length) => return self.counters.bad_rx_lengths += 1,
        };
        if self.fragments.is_part(desc.has_more_frames()) {
            self.counters.rx_fragments += 1;
            return self.umem.pool.release(frame);
        }
        self.counters.received += 1;
        packets.push(Packet { frame, range });
    }

    /// Sends the first `len` bytes of a frame, with the next [`flush`](Self::flush) at the latest. It is in
    /// flight from now on.
    ///
    /// # Errors
    /// [`Full`] if the ring has no room; nothing happened then.
    ///
    /// # Panics
    /// If the frame is in flight already, if it has less than `len` bytes, or if `len` is 0.
    pub fn transmit(&mut self, frame: &Frame, len: usize) -> Result<(), Full> {
        let desc = self.umem.descriptor_of_first(frame, len);
        if self.tx_room == 0 {
            self.submit();
            self.tx_room = self.rings.tx.nb_free_exact();
            if self.tx_room == 0 {
                self.counters.tx_full += 1;
                return Err(Full);
            }
        }
        self.tx_room -= 1;
        self.umem.pool.transmitted(frame);
        self.counters.transmitted += 1;
        self.batch.push(desc);
        if self.batch.len() == BATCH {
            self.submit();
        }
        Ok(())
    }

    /// Moves the batch into the TX ring.
    fn submit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        // SAFETY: the frames are of this memory and in flight, that is in no other ring (FramePool), and
        // nobody writes them until they are completed (Umem::bytes_mut).
        let count = unsafe { self.rings.tx.produce(&self.batch) };
        assert_eq!(count, self.batch.len(), "the ring had room, and only we put packets there");
        self.batch.clear();
        self.unsent = true;
    }

    /// Hands all transmitted packets to the kernel, and asks it to send them if it needs asking. Packets that
    /// it does not take now stay in the ring for the next flush.
    ///
    /// # Errors
    /// ENXIO if the interface is gone. A busy device, a full completion ring and an interface that is down are
    /// counted, no errors.
    pub fn flush(&mut self) -> io::Result<()> {
        self.submit();
        if !self.unsent {
            return Ok(());
        }
        if self.rings.tx.needs_wakeup() {
            self.kick()?;
        }
        self.unsent = self.waiting_to_be_sent() > 0;
        Ok(())
    }

    /// Packets in the TX ring.
    fn waiting_to_be_sent(&mut self) -> u32 {
        self.tx_ring - self.rings.tx.nb_free_exact()
    }

    /// Asks the kernel to send, as often as a full ring takes.
    fn kick(&mut self) -> io::Result<()> {
        for _ in 0..=self.tx_ring / KICK_PACKETS {
            let before = self.waiting_to_be_sent();
            self.counters.kicks += 1;
            match send(self.rings.fd(), &[], SendFlags::DONTWAIT) {
                Ok(_) => return Ok(()),
                // The budget of one call is spent, or there is no memory for a packet.
                Err(Errno::AGAIN) if self.waiting_to_be_sent() < before => {}
                Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS) => {
                    self.counters.kicks_unfinished += 1;
                    return Ok(());
                }
                Err(Errno::NETDOWN) => {
                    self.counters.kicks_link_down += 1;
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes back the frames that the kernel has sent: they are free if they were released, else ours.
    pub fn complete(&mut self) -> usize {
        let mut total = 0;
        // The kernel completes no more than is in flight, unless it lies.
        while total <= self.umem.pool.total() as usize {
            // SAFETY: the descriptors are written, not read; the rings are those of this memory (bind).
            let count = unsafe { self.rings.completion.consume(&mut self.scratch[..]) };
            for desc in &self.scratch[..count] {
                match self.umem.pool.completed(desc.addr()) {
                    Ok(()) => self.counters.completed += 1,
                    Err(_) => self.counters.bad_completions += 1,
                }
            }
            total += count;
            if count < BATCH {
                break;
            }
        }
        total
    }

    /// Gives the kernel frames to receive into, up to the fill target and down to the transmit reserve.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn refill(&mut self) -> io::Result<usize> {
        let wanted = self.fill_target.saturating_sub(self.umem.pool.count(FrameState::Fill));
        let spare = self.umem.pool.count(FrameState::Free).saturating_sub(self.transmit_reserve);
        let mut left = wanted.min(spare);
        if left > 0 {
            left = left.min(self.rings.fill.nb_free(left));
        }
        let total = left as usize;
        while left > 0 {
            let count = BATCH.min(left as usize);
            for at in 0..count {
                let index = self.umem.pool.fill().expect("no more than are free");
                self.scratch[at] = self.umem.descriptor(index);
            }
            // SAFETY: the frames are of this memory and in no other ring (FramePool), and nobody touches them
            // until they are received (Umem::bytes).
            let produced = unsafe { self.rings.fill.produce(&self.scratch[..count]) };
            assert_eq!(produced, count, "the ring had room, and only we put frames there");
            left -= u32::try_from(count).expect("at most a batch");
        }
        self.counters.filled += total as u64;
        if self.umem.pool.count(FrameState::Fill) > 0 && self.rings.fill.needs_wakeup() {
            self.counters.fill_wakeups += 1;
            self.rings.fill.wakeup(self.rings.rx.fd_mut(), 0)?;
        }
        Ok(total)
    }

    /// Sleeps until there are packets, until `other` is readable (an eventfd, to be woken by), or for the
    /// time given; `None` is for ever. While packets wait to be sent it sleeps a millisecond at most, so that
    /// the next flush comes. A signal ends it early.
    ///
    /// # Errors
    /// ENETDOWN, once, if the interface is gone; else as poll(2).
    pub fn wait(&mut self, timeout: Option<Duration>, other: BorrowedFd<'_>) -> io::Result<Woken> {
        let timeout = match timeout {
            _ if !self.unsent => timeout,
            Some(time) => Some(time.min(UNSENT_WAIT)),
            None => Some(UNSENT_WAIT),
        };
        // A time that the kernel cannot count to is for ever.
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        let socket = self.rings.fd();
        let mut fds =
            [PollFd::from_borrowed_fd(socket, PollFlags::IN), PollFd::from_borrowed_fd(other, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            // The kernel notes that the interface is gone, but poll does not tell (net/xdp/xsk.c, xsk_poll).
            Ok(0) => socket_error(socket)??,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [packets, other] = fds.map(|fd| fd.revents());
        Ok(Woken { packets: packets.contains(PollFlags::IN), other: !other.is_empty() })
    }

    /// A frame to write into, if one is free.
    pub fn allocate(&mut self) -> Option<Frame> {
        self.umem.pool.allocate()
    }

    /// Gives a frame back. If it is in flight, it is free once it is completed.
    ///
    /// # Panics
    /// If the token is of another socket and its frame is not out here.
    pub fn release(&mut self, frame: Frame) {
        self.umem.pool.release(frame);
    }

    /// All bytes of a frame.
    ///
    /// # Panics
    /// If the token is of another socket and its frame is not out here.
    #[must_use]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.umem.bytes(frame)
    }

    /// All bytes of a frame, to be written.
    ///
    /// # Panics
    /// If the frame is in flight.
    #[must_use]
    pub fn bytes_mut<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.umem.bytes_mut(frame)
    }

    /// Copies `range` of one frame to offset `at` of another.
    ///
    /// # Panics
    /// If a range lies outside its frame, or the target is in flight.
    pub fn copy(&mut self, from: &Frame, range: Range<usize>, to: &mut Frame, at: usize) {
        self.umem.copy(from, range, to, at);
    }

    /// True from [`transmit`](Self::transmit) until the completion was seen.
    #[must_use]
    pub fn is_in_flight(&self, frame: &Frame) -> bool {
        self.umem.pool.state(frame) == FrameState::InFlight
    }

    /// Frames that are free.
    #[must_use]
    pub fn frames_free(&self) -> usize {
        self.umem.pool.count(FrameState::Free) as usize
    }

    /// Frames that the fill ring lacks of its target: the next ones that become free are for it.
    #[must_use]
    pub fn fill_deficit(&self) -> usize {
        self.fill_target.saturating_sub(self.umem.pool.count(FrameState::Fill)) as usize
    }

    /// True if the last [`flush`](Self::flush) has left packets in the TX ring: there may be no room for more yet, and
    /// [`wait`](Self::wait) will be short.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.unsent
    }

    /// All frames.
    #[must_use]
    pub fn frames_total(&self) -> usize {
        self.umem.pool.total() as usize
    }

    /// How many frames are in which state, from the running counts.
    #[must_use]
    pub fn counts(&self) -> Census {
        self.umem.pool.counts()
    }

    /// Counts all frames anew. Costs a pass over all of them: for exit, tests and rare checks.
    #[must_use]
    pub fn census(&self) -> Census {
        self.umem.pool.census()
    }

    /// What was counted here.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What the kernel has counted; a system call.
    ///
    /// # Errors
    /// If the kernel is older than these statistics (5.9).
    pub fn kernel_statistics(&self) -> io::Result<KernelStatistics> {
        self.rings.rx.fd().xdp_statistics().map(Into::into)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("bound", &self.bound)
            .field("census", &self.census())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl AsFd for Socket {
    /// The socket, to be put into an `XSKMAP`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rings.fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_of_a_packet_are_told_from_whole_packets() {
        let mut fragments = Fragments::default();
        let more_follow = [false, true, true, false, false, true, false];
        let parts = more_follow.map(|more| fragments.is_part(more));
        assert_eq!(parts, [false, true, true, true, false, true, true]);
    }
}
