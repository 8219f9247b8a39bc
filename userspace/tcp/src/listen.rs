//! LISTEN (RFC 9293 §3.10.7.2): a SYN becomes a half-open connection, or above a threshold a cookie that
//! remembers nothing (RFC 4987 §3.6); and the acknowledgement that brings a cookie back.

use std::net::SocketAddr;
use std::time::Duration;

use crate::connection::TIMESTAMPS_LEN;
use crate::cookie::CookieOptions;
use crate::drop_reason::DropReason;
use crate::four_tuple::FourTuple;
use crate::link::{Link, VlanTag};
use crate::pressure::Pressure;
use crate::receive_window::{INITIAL_ALLOTMENT, shift_for, syn_window};
use crate::rto::RttEstimator;
use crate::secrets::timestamp_clock;
use crate::segment_arrives::Arrival;
use crate::seq::SeqNumber;
use crate::stack::Stack;
use crate::syn_sent::peer_mss;
use crate::tcb::{State, Tcb};
use crate::wire::{Flags, Options, Outgoing, SackBlocks, Segment, Timestamps};

/// How long after the last cookie an acknowledgement may still bring one: two ticks.
const COOKIE_LIFE: Duration = Duration::from_secs(128);

/// Where a segment came from, as far as a listener wants to know.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) vlan: Option<VlanTag>,
}

/// True if a segment asks for a connection, and for nothing else.
pub(crate) fn is_syn(segment: &Segment) -> bool {
    segment.flags.contains(Flags::SYN)
        && !segment.flags.intersects(Flags::ACK.with(Flags::RST).with(Flags::FIN))
}

impl<L: Link> Stack<L> {
    pub(crate) fn is_listening(&self, local: SocketAddr) -> bool {
        self.listeners.iter().any(|at| {
            at.port() == local.port()
                && at.is_ipv4() == local.is_ipv4()
                && (at.ip().is_unspecified() || at.ip() == local.ip())
        })
    }

    /// A SYN for a listening address. `iss` is given if it opens a tuple again that was in TIME-WAIT.
    pub(crate) fn syn_arrives(
        &mut self,
        origin: Origin,
        arrival: Arrival<L::Frame>,
        iss: Option<SeqNumber>,
        link: &mut L,
    ) {
        if let Some(reason) = self.refuses_new(link) {
            self.drop_arrival(arrival, reason, link);
        } else if self.shared.half_open >= self.shared.settings.half_open_max {
            self.answer_with_cookie(origin, arrival, link);
        } else {
            let iss = iss.unwrap_or_else(|| self.shared.secrets.isn(self.now, origin.local, origin.remote));
            let index = self.insert_half_open(origin, iss);
            self.visit(index, link, |connection| {
                connection.accept_syn(&arrival);
                connection.ready();
                if let Some(frame) = arrival.frame {
                    connection.link.release(frame);
                }
            });
        }
    }

    fn refuses_new(&self, link: &L) -> Option<DropReason> {
        if Pressure::of(link) == Pressure::Dire {
            Some(DropReason::Pressure)
        } else if self.connections.len() >= self.shared.settings.connections_max {
            Some(DropReason::TooManyConnections)
        } else {
            None
        }
    }

    fn insert_half_open(&mut self, origin: Origin, iss: SeqNumber) -> u32 {
        let tuple = FourTuple::new(origin.local, origin.remote);
        let tcb = Tcb::open(&self.shared, self.now, tuple, State::SynReceived, iss, origin.vlan);
        self.shared.half_open += 1;
        self.insert(tcb)
    }

    /// A SYN-ACK whose numbers are all that is remembered of the SYN.
    fn answer_with_cookie(&mut self, origin: Origin, arrival: Arrival<L::Frame>, link: &mut L) {
        let Origin { local, remote, vlan } = origin;
        let theirs = arrival.segment.options;
        let secrets = &self.shared.secrets;
        let mss = peer_mss(theirs.mss, local.is_ipv4());
        let ours = CookieOptions {
            window_scale: theirs.window_scale,
            sack_permitted: theirs.sack_permitted,
            ecn: false,
        };
        let clock = timestamp_clock(self.now).wrapping_add(secrets.timestamp_offset(local, remote));
        let timestamps =
            theirs.timestamps.map(|echo| Timestamps { value: ours.encode_into(clock), echo: echo.value });
        let shift = shift_for(self.shared.settings.receive_buffer_max_bytes);
        let hop_mtu = link.hop(local.ip(), remote.ip(), vlan).map_or(1500, |hop| hop.mtu_bytes);
        let headers = if local.is_ipv4() { 40 } else { 60 };
        let our_mss = hop_mtu.saturating_sub(headers);
        let text_max = our_mss.saturating_sub(timestamps.map_or(0, |_| TIMESTAMPS_LEN));
        let outgoing = Outgoing {
            local,
            remote,
            seq: secrets.cookie(self.now, local, remote, arrival.seq, mss),
            ack: arrival.seq + 1,
            flags: Flags::SYN | Flags::ACK,
            window: syn_window(INITIAL_ALLOTMENT, text_max),
            urgent: 0,
            options: Options {
                mss: Some(our_mss),
                // Without timestamps there is no room to remember these in.
                window_scale: theirs.window_scale.and(timestamps).map(|_| shift),
                sack_permitted: theirs.sack_permitted && timestamps.is_some(),
                timestamps,
                sack: SackBlocks::default(),
            },
        };
        self.shared.counters.cookies_sent += 1;
        self.shared.cookie_sent_at = Some(self.now);
        if let Some(frame) = arrival.frame {
            self.answer(&outgoing, vlan, frame, link);
        }
    }

    /// An acknowledgement for a listening address that no connection knows: answers it back unless it brings a
    /// cookie of ours.
    pub(crate) fn cookie_arrives(
        &mut self,
        origin: Origin,
        arrival: Arrival<L::Frame>,
        link: &mut L,
    ) -> Option<Arrival<L::Frame>> {
        let flags = arrival.segment.flags;
        let is_answer = flags.contains(Flags::ACK) && !flags.intersects(Flags::SYN.with(Flags::RST));
        let is_time = self.shared.cookie_sent_at.is_some_and(|sent_at| self.now.since(sent_at) < COOKIE_LIFE);
        if !is_answer || !is_time {
            return Some(arrival);
        }
        let (irs, ack) = (arrival.seq.minus(1), arrival.segment.ack);
        let mss = self.shared.secrets.check_cookie(self.now, origin.local, origin.remote, irs, ack);
        let Some(mss) = mss else { return Some(arrival) };
        if let Some(reason) = self.refuses_new(link) {
            self.drop_arrival(arrival, reason, link);
            return None;
        }
        let index = self.insert_half_open(origin, ack.minus(1));
        self.shared.counters.cookies_accepted += 1;
        self.visit(index, link, |connection| {
            let theirs = arrival.segment.options.timestamps;
            let options = theirs.map(|timestamps| CookieOptions::decode(timestamps.echo)).unwrap_or_default();
            let syn = Options {
                mss: Some(mss),
                window_scale: options.window_scale,
                sack_permitted: options.sack_permitted,
                timestamps: theirs,
                sack: SackBlocks::default(),
            };
            connection.remember_syn(irs, arrival.window, &syn);
            connection.tcb.flags.syn_due = false;
            connection.segment_arrives(arrival);
            // When our answer went out is not known.
            connection.tcb.rtt = RttEstimator::new();
        });
        None
    }
}
