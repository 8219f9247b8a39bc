//! TIME-WAIT without a connection: what a closed one leaves behind to answer its stragglers with
//! (RFC 9293 sections 3.6.1 and 3.10.7.4), in 64 bytes.
//!
//! Records lie in a ring in the order in which they expire, since all wait equally long. A record that must
//! wait again, because its peer sent the FIN again, stays where it is until it comes to the front, and goes
//! to the back then: it may wait up to a minute more than it must.

mod record;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use self::record::Record;
use crate::event::Standing;
use crate::flow_table::FlowTable;
use crate::link::VlanTag;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::{Flags, Outgoing, Segment};

/// How long a record waits: Linux's `TCP_TIMEWAIT_LEN`. The RFC's 2 MSL are four minutes (MUST-13); no
/// segment lives that long in today's networks, and the ports would be gone.
pub const WAIT: Duration = Duration::from_secs(60);

/// How far a new incarnation begins above the old one's last number: no window that was not scaled reaches so
/// far (Linux: `tcp_timewait_state_process`).
const REOPEN_DISTANCE: u32 = 65_537;

/// How old a record must be for us to dial its tuple again. Our timestamps tick each millisecond, so that by then they
/// are above all that the peer has seen, and our last acknowledgement has reached a data centre in time. Linux waits
/// a second unless told otherwise (`tcp_tw_reuse_delay`); a proxy that dials one address 4,000 times a second from
/// 4,500 ports cannot.
const REOPEN_AFTER: Duration = Duration::from_millis(100);

/// A connection at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Our side.
    pub local: SocketAddr,
    /// The peer's side.
    pub remote: SocketAddr,
    /// SND.NXT: behind our FIN.
    pub snd_nxt: SeqNumber,
    /// RCV.NXT: behind the peer's FIN.
    pub rcv_nxt: SeqNumber,
    /// The window to state, scaled already.
    pub window: u16,
    /// If timestamps were negotiated.
    pub timestamps: Option<ClosedTimestamps>,
    /// The flow's VLAN, by which answers find their way.
    pub vlan: Option<VlanTag>,
}

/// What a closed connection knows of timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedTimestamps {
    /// TS.Recent.
    pub recent: u32,
    /// What our timestamps are ahead of the [clock](crate::secrets::timestamp_clock).
    pub offset: u32,
}

/// What to do about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No record is of this tuple.
    Unknown,
    /// Nothing.
    Ignore,
    /// Send this. Acknowledgements of the unacceptable are to be limited, like all of them (RFC 5961).
    Acknowledge {
        /// An acknowledgement without text.
        segment: Outgoing,
        /// The flow's VLAN.
        vlan: Option<VlanTag>,
    },
    /// The segment is a SYN that opens the tuple again. The record is gone, and the listener decides.
    Reopen {
        /// The sequence number to begin with: above all of the old incarnation's (MAY-2).
        iss: SeqNumber,
    },
}

/// The waiting of one shard.
#[derive(Debug)]
pub struct TimeWait {
    records: VecDeque<Record>,
    /// The name of the record at the front; those behind it count on, and wrap.
    front: u32,
    table: FlowTable,
    records_max: usize,
    evicted: u64,
}

impl TimeWait {
    /// Room for `records_max` records, and the key of the table over them. Memory is taken as it is needed.
    ///
    /// # Panics
    /// If there is room for none, or for 2^31 or more.
    #[must_use]
    pub fn new(records_max: usize, key: [u8; 16]) -> Self {
        assert!((1..1 << 31).contains(&records_max), "records have names of 32 bits");
        Self { records: VecDeque::new(), front: 0, table: FlowTable::new(key), records_max, evicted: 0 }
    }

    /// Remembers a connection that is in no record yet. If there is no room, the oldest record goes.
    pub fn insert(&mut self, now: Instant, closed: &Closed) {
        if self.records.len() == self.records_max {
            let oldest = self.pop_front().expect("room for at least one");
            self.evicted += u64::from(!oldest.has(Record::IS_GONE));
        }
        self.push_back(Record::new(closed, expiry(now)));
    }

    /// True if the tuple waits.
    #[must_use]
    pub fn contains(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.position(local, remote).is_some()
    }

    /// What the tuple is to us who would dial it.
    #[must_use]
    pub fn standing(&self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Standing {
        match self.position(local, remote) {
            None => Standing::Free,
            Some(position) if self.records[position].may_be_dialled(now) => Standing::MayReopen,
            Some(_) => Standing::InUse,
        }
    }

    /// Ends the wait of a tuple that we dial again. Answers the sequence number to begin with, above all of the old
    /// incarnation's; `None` if there is no such record, or it is [in use](Standing::InUse). Timestamps stay above
    /// the old ones by themselves: their offset is the tuple's.
    pub fn reopen(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Option<SeqNumber> {
        let position = self.position(local, remote)?;
        let record = &self.records[position];
        let iss = record.may_be_dialled(now).then(|| record.snd_nxt.plus(REOPEN_DISTANCE))?;
        self.forget(position);
        Some(iss)
    }

    /// SEGMENT ARRIVES in TIME-WAIT state. `local` and `remote` are the segment's.
    pub fn receive(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        segment: &Segment,
    ) -> Verdict {
        let Some(position) = self.position(local, remote) else {
            return Verdict::Unknown;
        };
        let record = &mut self.records[position];
        // A reset must not end the wait: it would be of any age (RFC 1337).
        if segment.flags.contains(Flags::RST) {
            return Verdict::Ignore;
        }
        if segment.flags.contains(Flags::SYN) && !segment.flags.intersects(Flags::ACK.with(Flags::FIN)) {
            if !record.may_reopen(segment) {
                return record.acknowledgement(now);
            }
            let iss = record.snd_nxt.plus(REOPEN_DISTANCE);
            self.forget(position);
            return Verdict::Reopen { iss };
        }
        if record.has(Record::HAS_TIMESTAMPS) {
            let Some(timestamps) = segment.options.timestamps else {
                // To be dropped once timestamps are negotiated (RFC 7323 section 3.2).
                return Verdict::Ignore;
            };
            // PAWS (RFC 7323 section 5.3, R1).
            if is_newer(record.ts_recent, timestamps.value) {
                return record.acknowledgement(now);
            }
            if segment.seq <= record.rcv_nxt {
                record.ts_recent = timestamps.value;
            }
        }
        let end = segment.seq.plus(segment.len());
        if segment.flags.contains(Flags::FIN) && end == record.rcv_nxt {
            // Our last acknowledgement was lost: "Acknowledge it, and restart the 2 MSL timeout".
            record.expiry_millis = expiry(now);
            record.bits |= Record::WAITS_AGAIN;
            return record.acknowledgement(now);
        }
        // Everything else behind or ahead of RCV.NXT is not acceptable, and text is of nobody. A bare
        // acknowledgement is what ends connections properly, and an answer to it would be answered.
        if segment.is_empty() && segment.seq == record.rcv_nxt && !segment.flags.contains(Flags::SYN) {
            return Verdict::Ignore;
        }
        record.acknowledgement(now)
    }

    /// Removes one record that has waited long enough, if there is one, and answers its tuple.
    pub fn expire(&mut self, now: Instant) -> Option<(SocketAddr, SocketAddr)> {
        // Ends: a record that goes to the back loses the mark that sends it there.
        loop {
            let front = self.records.front()?;
            let stays = !front.has(Record::IS_GONE) && !front.has(Record::WAITS_AGAIN);
            if stays && !front.has_expired(now) {
                return None;
            }
            let mut record = self.pop_front()?;
            if stays {
                return Some(record.tuple());
            }
            if !record.has(Record::IS_GONE) {
                record.bits &= !Record::WAITS_AGAIN;
                self.push_back(record);
            }
        }
    }

    /// When [`expire`](Self::expire) has something to do next.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let front = self.records.front()?;
        if front.has_expired(now) {
            return Some(now);
        }
        let left = front.expiry_millis.wrapping_sub(millis(now));
        Some(now.plus(Duration::from_millis(left.into())))
    }

    /// Tuples that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Records that went before their time, because there was no room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn position(&self, local: SocketAddr, remote: SocketAddr) -> Option<usize> {
        let name = self.table.find(local, remote, |name| {
            self.records[position_of(name, self.front)].tuple() == (local, remote)
        })?;
        Some(position_of(name, self.front))
    }

    /// Takes a record out of the table; its place in the ring stays until it comes to the front.
    fn forget(&mut self, position: usize) {
        let name = self.front.wrapping_add(u32::try_from(position).expect("fewer than 2^31 records"));
        let record = &mut self.records[position];
        record.bits |= Record::IS_GONE;
        let (local, remote) = record.tuple();
        self.table.remove(local, remote, name);
        // The front tells when to look next: what is gone must not.
        while self.records.front().is_some_and(|front| front.has(Record::IS_GONE)) {
            self.pop_front();
        }
    }

    fn push_back(&mut self, record: Record) {
        let name =
            self.front.wrapping_add(u32::try_from(self.records.len()).expect("fewer than 2^31 records"));
        self.records.push_back(record);
        let (local, remote) = record.tuple();
        let (records, front) = (&self.records, self.front);
        self.table.insert(local, remote, name, |name| records[position_of(name, front)].tuple());
    }

    fn pop_front(&mut self) -> Option<Record> {
        let record = self.records.pop_front()?;
        if !record.has(Record::IS_GONE) {
            let (local, remote) = record.tuple();
            self.table.remove(local, remote, self.front);
        }
        self.front = self.front.wrapping_add(1);
        Some(record)
    }
}

fn position_of(name: u32, front: u32) -> usize {
    name.wrapping_sub(front) as usize
}

/// Of timestamps, which wrap (RFC 7323 section 5.2).
fn is_newer(timestamp: u32, than: u32) -> bool {
    SeqNumber(timestamp) > SeqNumber(than)
}

fn expiry(now: Instant) -> u32 {
    millis(now.plus(WAIT))
}

/// Wraps every 49 days.
fn millis(now: Instant) -> u32 {
    (now.as_micros() / 1000) as u32
}
