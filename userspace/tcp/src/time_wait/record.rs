//! What is kept of a closed connection, and what follows from it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Closed, ClosedTimestamps, REOPEN_AFTER, Verdict, WAIT, is_newer, millis};
use crate::link::VlanTag;
use crate::secrets::timestamp_clock;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::{Flags, Options, Outgoing, Segment, Timestamps};

/// Expiry is in milliseconds and wraps: all records are within a minute of each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    local_ip: [u8; 16],
    remote_ip: [u8; 16],
    local_port: u16,
    remote_port: u16,
    pub(super) snd_nxt: SeqNumber,
    pub(super) rcv_nxt: SeqNumber,
    pub(super) ts_recent: u32,
    ts_offset: u32,
    pub(super) expiry_millis: u32,
    window: u16,
    vlan: u16,
    pub(super) bits: u8,
}

impl Record {
    const IS_V4: u8 = 1;
    pub(super) const HAS_TIMESTAMPS: u8 = 2;
    const HAS_VLAN: u8 = 4;
    /// Its tuple was opened again; it is not in the table, and only keeps its place.
    pub(super) const IS_GONE: u8 = 8;
    /// Its time began anew; it goes to the back when it comes to the front.
    pub(super) const WAITS_AGAIN: u8 = 16;

    pub(super) fn new(closed: &Closed, expiry_millis: u32) -> Self {
        let mut bits = 0;
        let mut set = |bit, condition| bits |= if condition { bit } else { 0 };
        set(Self::IS_V4, closed.local.is_ipv4());
        set(Self::HAS_TIMESTAMPS, closed.timestamps.is_some());
        set(Self::HAS_VLAN, closed.vlan.is_some());
        let timestamps = closed.timestamps.unwrap_or(ClosedTimestamps { recent: 0, offset: 0 });
        Self {
            local_ip: octets(closed.local.ip()),
            remote_ip: octets(closed.remote.ip()),
            local_port: closed.local.port(),
            remote_port: closed.remote.port(),
            snd_nxt: closed.snd_nxt,
            rcv_nxt: closed.rcv_nxt,
            ts_recent: timestamps.recent,
            ts_offset: timestamps.offset,
            expiry_millis,
            window: closed.window,
            vlan: closed.vlan.map_or(0, |tag| tag.0),
            bits,
        }
    }

    pub(super) fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    pub(super) fn tuple(&self) -> (SocketAddr, SocketAddr) {
        let ip = |octets| {
            let v6 = Ipv6Addr::from_octets(octets);
            match v6.to_ipv4_mapped() {
                Some(v4) if self.has(Self::IS_V4) => IpAddr::V4(v4),
                _ => IpAddr::V6(v6),
            }
        };
        let local = SocketAddr::new(ip(self.local_ip), self.local_port);
        (local, SocketAddr::new(ip(self.remote_ip), self.remote_port))
    }

    pub(super) fn has_expired(&self, now: Instant) -> bool {
        millis(now).wrapping_sub(self.expiry_millis) < 1 << 31
    }

    pub(super) fn timestamps(&self) -> Option<ClosedTimestamps> {
        self.has(Self::HAS_TIMESTAMPS)
            .then_some(ClosedTimestamps { recent: self.ts_recent, offset: self.ts_offset })
    }

    /// RFC 6191 section 2: may this SYN open the tuple again? Its timestamp, or else its sequence number, tells
    /// it from an old duplicate.
    pub(super) fn may_reopen(&self, syn: &Segment) -> bool {
        let is_beyond = syn.seq > self.rcv_nxt;
        match (self.timestamps(), syn.options.timestamps) {
            (Some(_), Some(new)) if new.value == self.ts_recent => is_beyond,
            (Some(_), Some(new)) => is_newer(new.value, self.ts_recent),
            (None, Some(_)) => true,
            (_, None) => is_beyond,
        }
    }

    /// RFC 6191 read from the other side: may our SYN open the tuple again? Only its timestamp makes that safe,
    /// and only once the clock has moved on.
    pub(super) fn may_be_dialled(&self, now: Instant) -> bool {
        let youngest = millis(now.plus(WAIT.saturating_sub(REOPEN_AFTER)));
        self.has(Self::HAS_TIMESTAMPS) && youngest.wrapping_sub(self.expiry_millis) < 1 << 31
    }

    pub(super) fn acknowledgement(&self, now: Instant) -> Verdict {
        let (local, remote) = self.tuple();
        let timestamps = self.timestamps().map(|known| Timestamps {
            value: timestamp_clock(now).wrapping_add(known.offset),
            echo: known.recent,
        });
        Verdict::Acknowledge {
            segment: Outgoing {
                local,
                remote,
                seq: self.snd_nxt,
                ack: self.rcv_nxt,
                flags: Flags::ACK,
                window: self.window,
                urgent: 0,
                options: Options { timestamps, ..Options::default() },
            },
            vlan: self.has(Self::HAS_VLAN).then_some(VlanTag(self.vlan)),
        }
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
