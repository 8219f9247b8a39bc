//! Packets that came to the wrong shard, on their way to the right one.
//!
//! The kernel hands a socket only what its own queue received, so a program cannot put a packet right. A
//! shard that meets a packet of another copies it into a parcel and puts it into the other's inbox:
//!
//! ```text
//!   shard 0 ── parcel ──► inbox of 1 ──► shard 1     its parcels go back to 1's spare ones
//! ```
//! Whose a packet is follows from our port if that is one of the upstream range. Of a client's packet nobody
//! knows whose it is, once the device spreads flows anew: it is passed from shard to shard, once around, until
//! one knows it. Both are rare where the device's hash is known, and counted.
//!
//! No allocation: parcels are made at start. A full inbox loses the packet, as a full queue of a NIC would.
//!
//! A shard that has nothing left of its own still receives for the others: without its socket the kernel would
//! have their packets, and answer with a reset. So all of them end together, when each has said that it is done.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;

/// Packets of each [`Claim`] that may wait for one shard: a burst of each of a few others.
const INBOX_PARCELS: usize = 256;
/// Largest packet: an Ethernet frame of 1500 bytes with two VLAN tags.
const PARCEL_BYTES: usize = 1522;

/// Why a packet is handed to a shard. Each has parcels of its own, so that a flood of one crowds the other out of
/// no inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Our port is one that the shard dials from.
    Port,
    /// It may be of a client that the shard has.
    Client,
}

/// A packet under way between shards.
#[derive(Debug)]
pub struct Parcel {
    bytes: Box<[u8; PARCEL_BYTES]>,
    len: usize,
    claim: Claim,
    /// How many shards have not known it.
    pub passed_on: usize,
}

impl Parcel {
    /// The packet, from its link header on.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What reaches one shard from the others.
#[derive(Debug)]
struct Inbox {
    parcels: ArrayQueue<Parcel>,
    /// By [`Claim`].
    spare: [ArrayQueue<Box<[u8; PARCEL_BYTES]>>; 2],
    /// The shard sleeps, or is about to, and wants its eventfd written.
    is_asleep: AtomicBool,
    wake: OwnedFd,
}

/// One shard's door to the others. A shard whose door is gone needs nobody any more.
#[derive(Debug)]
pub struct Crossing {
    inboxes: Arc<[Inbox]>,
    shard: usize,
    /// Shards that still have connections.
    needed_by: Arc<AtomicUsize>,
    is_done: bool,
}

/// The packet is lost: the other's inbox is full, or the packet too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl Crossing {
    /// Doors for as many shards as there are eventfds, in their order.
    #[must_use]
    pub fn between(wakes: Vec<OwnedFd>) -> Vec<Self> {
        let is_alone = wakes.len() == 1;
        let inbox = |wake| {
            let spare = [ArrayQueue::new(INBOX_PARCELS), ArrayQueue::new(INBOX_PARCELS)];
            for spare in spare.iter().filter(|_| !is_alone) {
                while spare.push(Box::new([0; PARCEL_BYTES])).is_ok() {}
            }
            Inbox {
                parcels: ArrayQueue::new(2 * INBOX_PARCELS),
                spare,
                is_asleep: AtomicBool::new(false),
                wake,
            }
        };
        let inboxes: Arc<[Inbox]> = wakes.into_iter().map(inbox).collect();
        let needed_by = Arc::new(AtomicUsize::new(inboxes.len()));
        let door = |shard| Self {
            inboxes: Arc::clone(&inboxes),
            shard,
            needed_by: Arc::clone(&needed_by),
            is_done: false,
        };
        (0..inboxes.len()).map(door).collect()
    }

    /// This shard has no connection left, and will have none.
    pub fn have_done(&mut self) {
        if !std::mem::replace(&mut self.is_done, true) {
            self.needed_by.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// True once every shard has done, or is gone.
    #[must_use]
    pub fn all_have_done(&self) -> bool {
        self.needed_by.load(Ordering::Acquire) == 0
    }

    /// This shard.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.inboxes.len()
    }

    /// The shard to hand a packet to that this one does not know, whose port is `owner`'s and that so many other
    /// shards have not known; `None` if nobody is left to ask.
    #[must_use]
    pub fn next(&self, owner: Option<usize>, passed_on: usize) -> Option<(usize, Claim)> {
        match owner {
            Some(owner) => (passed_on == 0 && owner != self.shard).then_some((owner, Claim::Port)),
            None => {
                (passed_on + 1 < self.shards()).then(|| ((self.shard + 1) % self.shards(), Claim::Client))
            }
        }
    }

    /// Hands a packet over.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn send(&self, to: usize, packet: &[u8], passed_on: usize, claim: Claim) -> Result<(), Lost> {
        let inbox = &self.inboxes[to];
        if packet.len() > PARCEL_BYTES {
            return Err(Lost);
        }
        let mut bytes = inbox.spare[claim as usize].pop().ok_or(Lost)?;
        bytes[..packet.len()].copy_from_slice(packet);
        // As many parcels exist as fit, so that there is always room.
        inbox.parcels.push(Parcel { bytes, len: packet.len(), claim, passed_on }).map_err(|_| Lost)?;
        if inbox.is_asleep.swap(false, Ordering::SeqCst) {
            // Fails only if the counter is at its maximum; then the shard is awake anyway.
            let _ = rustix::io::write(&inbox.wake, &1u64.to_ne_bytes());
        }
        Ok(())
    }

    /// The next packet for this shard.
    #[must_use]
    pub fn receive(&self) -> Option<Parcel> {
        self.inboxes[self.shard].parcels.pop()
    }

    /// Done with a packet for this shard.
    pub fn give_back(&self, parcel: Parcel) {
        // Cannot be full: it had this one before.
        let _ = self.inboxes[self.shard].spare[parcel.claim as usize].push(parcel.bytes);
    }

    /// The shard is about to sleep. False: it must not, a packet has come.
    #[must_use]
    pub fn fall_asleep(&self) -> bool {
        let inbox = &self.inboxes[self.shard];
        // Flag first, then look: whoever sends in between finds the flag up, and one of the two is seen.
        inbox.is_asleep.store(true, Ordering::SeqCst);
        inbox.parcels.is_empty()
    }

    /// The shard is awake.
    pub fn wake_up(&self) {
        self.inboxes[self.shard].is_asleep.store(false, Ordering::SeqCst);
    }
}

impl Drop for Crossing {
    fn drop(&mut self) {
        self.have_done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn crossing(shards: usize) -> Vec<Crossing> {
        Crossing::between((0..shards).map(|_| eventfd(0, EventfdFlags::NONBLOCK).unwrap()).collect())
    }

    fn was_woken(crossing: &Crossing) -> bool {
        rustix::io::read(&crossing.inboxes[crossing.shard].wake, &mut [0; 8]).is_ok()
    }

    #[test]
    fn a_packet_reaches_the_shard_it_is_for_and_no_other() {
        let doors = crossing(3);
        doors[0].send(2, b"packet", 1, Claim::Port).unwrap();
        assert!(doors[0].receive().is_none() && doors[1].receive().is_none());
        let parcel = doors[2].receive().unwrap();
        assert_eq!((parcel.bytes(), parcel.passed_on), (&b"packet"[..], 1));
        doors[2].give_back(parcel);
        assert!(doors[2].receive().is_none());
    }

    #[test]
    fn a_packet_that_nobody_knows_goes_once_around() {
        let doors = crossing(3);
        assert_eq!(doors[1].next(None, 0), Some((2, Claim::Client)));
        assert_eq!(doors[2].next(None, 1), Some((0, Claim::Client)));
        assert_eq!(doors[0].next(None, 2), None);
        assert_eq!(crossing(1)[0].next(None, 0), None);
    }

    #[test]
    fn a_packet_to_a_shards_port_goes_to_that_shard_and_no_further() {
        let doors = crossing(3);
        assert_eq!(doors[0].next(Some(2), 0), Some((2, Claim::Port)));
        assert_eq!(doors[2].next(Some(2), 1), None);
        assert_eq!(doors[2].next(Some(2), 0), None);
    }

    #[test]
    fn a_full_inbox_loses_the_packet_and_has_room_again_when_one_was_taken() {
        let doors = crossing(2);
        for _ in 0..INBOX_PARCELS {
            doors[0].send(1, b"x", 0, Claim::Port).unwrap();
        }
        assert_eq!(doors[0].send(1, b"x", 0, Claim::Port), Err(Lost));
        doors[1].give_back(doors[1].receive().unwrap());
        assert_eq!(doors[0].send(1, b"x", 0, Claim::Port), Ok(()));
    }

    #[test]
    fn a_flood_of_one_claim_leaves_the_others_their_room() {
        let doors = crossing(2);
        for (flood, other) in [(Claim::Port, Claim::Client), (Claim::Client, Claim::Port)] {
            while doors[0].send(1, b"flood", 0, flood).is_ok() {}
            assert_eq!(doors[0].send(1, b"other", 0, other), Ok(()));
            while let Some(parcel) = doors[1].receive() {
                doors[1].give_back(parcel);
            }
        }
    }

    #[test]
    fn the_largest_packet_fits_and_one_byte_more_does_not() {
        let doors = crossing(2);
        assert_eq!(doors[0].send(1, &[0; PARCEL_BYTES], 0, Claim::Port), Ok(()));
        assert_eq!(doors[0].send(1, &[0; PARCEL_BYTES + 1], 0, Claim::Port), Err(Lost));
    }

    #[test]
    fn only_a_shard_that_sleeps_is_woken_and_only_once() {
        let doors = crossing(2);
        doors[0].send(1, b"x", 0, Claim::Port).unwrap();
        assert!(!was_woken(&doors[1]));
        assert!(!doors[1].fall_asleep(), "a packet waits");
        doors[1].wake_up();
        doors[1].give_back(doors[1].receive().unwrap());
        assert!(doors[1].fall_asleep());
        doors[0].send(1, b"x", 0, Claim::Port).unwrap();
        doors[0].send(1, b"x", 0, Claim::Port).unwrap();
        assert!(was_woken(&doors[1]) && !was_woken(&doors[1]));
    }

    #[test]
    fn shards_end_together_and_one_that_is_gone_keeps_nobody() {
        let mut doors = crossing(3);
        doors[0].have_done();
        doors[0].have_done();
        assert!(!doors[0].all_have_done(), "two others have connections");
        drop(doors.pop());
        assert!(!doors[0].all_have_done(), "one other has connections");
        doors[1].have_done();
        assert!(doors[0].all_have_done() && doors[1].all_have_done());
    }
}
