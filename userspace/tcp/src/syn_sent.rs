//! SEGMENT ARRIVES in SYN-SENT state (RFC 9293 §3.10.7.3), and what both roles do when a handshake succeeds.

use crate::congestion::{CongestionControl, Controller};
use crate::connection::Connection;
use crate::drop_reason::DropReason;
use crate::event::{ConnectFailure, Event, ResetReason};
use crate::link::Link;
use crate::segment_arrives::{Arrival, Step, Stop};
use crate::seq::SeqNumber;
use crate::tcb::{NEVER, State, millis};
use crate::wire::{Flags, Options};

/// Least MSS that we believe. With less, a peer could have us send one byte in a packet (CVE-2019-11479);
/// 88 is Linux's `TCP_MIN_MSS`.
const MSS_MIN: u16 = 88;

/// What to assume without the option (MUST-15).
const MSS_DEFAULT_V4: u16 = 536;
const MSS_DEFAULT_V6: u16 = 1220;

/// The peer's MSS, clamped.
pub(crate) fn peer_mss(option: Option<u16>, is_ipv4: bool) -> u16 {
    let default = if is_ipv4 { MSS_DEFAULT_V4 } else { MSS_DEFAULT_V6 };
    option.unwrap_or(default).max(MSS_MIN)
}

impl<L: Link> Connection<'_, L> {
    /// The checks of SYN-SENT, in the RFC's order.
    pub(crate) fn syn_sent(&mut self, arrival: &mut Arrival<L::Frame>) -> Step {
        let has_ack = arrival.has(Flags::ACK);
        // First: ACK.
        if has_ack {
            let ack = arrival.segment.ack;
            if ack <= self.tcb.snd.una || ack > self.tcb.snd.nxt {
                if !arrival.has(Flags::RST) {
                    self.reset_segment(arrival);
                }
                return Err(Stop::Dropped(DropReason::UnacceptableAck));
            }
        }
        // Second: RST. Without an acceptable ACK it may be of anybody.
        if arrival.has(Flags::RST) {
            if !has_ack {
                return Err(Stop::Dropped(DropReason::ResetOutsideWindow));
            }
            self.shared.counters.resets_received += 1;
            self.break_off(ResetReason::ByPeer, ConnectFailure::Refused);
            return Err(Stop::Done);
        }
        // Fourth: SYN.
        if !arrival.has(Flags::SYN) {
            return Err(Stop::Dropped(DropReason::NoSyn));
        }
        self.accept_syn(arrival);
        if has_ack {
            self.tcb.snd.wl2 = arrival.segment.ack;
            self.establish(arrival.segment.ack, arrival);
            self.ack_now();
        } else {
            // Both have opened at once.
            self.tcb.state = State::SynReceived;
            self.tcb.flags.syn_due = true;
            self.ready();
        }
        // Text or FIN on a SYN is not acknowledged, so that the peer sends it again: this is legal, and nobody
        // sends any without having been told that it may (RFC 7413).
        Err(Stop::Done)
    }

    /// Takes numbers and options of the peer's SYN.
    pub(crate) fn accept_syn(&mut self, arrival: &Arrival<L::Frame>) {
        // The window of a SYN is never scaled (RFC 7323 §2.2).
        self.remember_syn(arrival.seq, u32::from(arrival.segment.window), &arrival.segment.options);
    }

    /// What a SYN said.
    pub(crate) fn remember_syn(&mut self, irs: SeqNumber, window: u32, options: &Options) {
        self.tcb.rcv.nxt = irs + 1;
        self.tcb.last_ack_sent = self.tcb.rcv.nxt;
        self.tcb.snd.wnd = window;
        self.tcb.snd.max_wnd = window;
        self.tcb.snd.wl1 = irs;
        self.agree_on(options);
    }

    /// What both sides offered holds.
    fn agree_on(&mut self, theirs: &Options) {
        self.tcb.peer_mss = peer_mss(theirs.mss, self.tcb.tuple.is_ipv4());
        match theirs.window_scale {
            Some(shift) => self.tcb.snd_wnd_shift = shift,
            None => (self.tcb.snd_wnd_shift, self.tcb.rcv_wnd_shift) = (0, 0),
        }
        self.tcb.sack &= theirs.sack_permitted;
        self.tcb.timestamps &= theirs.timestamps.is_some();
        if let Some(timestamps) = theirs.timestamps {
            self.tcb.ts_recent = timestamps.value;
            self.tcb.ts_recent_at_ms = millis(self.now);
        }
    }

    /// Enters ESTABLISHED: our SYN is acknowledged.
    pub(crate) fn establish(&mut self, ack: SeqNumber, arrival: &Arrival<L::Frame>) {
        let is_passive = self.tcb.flags.passive;
        self.leave_syn_received();
        self.measure_handshake(arrival);
        // The segment may acknowledge more than SYN only if more was sent, and nothing was.
        self.tcb.snd.una = ack;
        self.tcb.state = State::Established;
        self.tcb.flags.syn_due = false;
        self.tcb.congestion = Controller::new(self.shared.settings.congestion, self.tcb.smss());
        if self.tcb.retries > 1 {
            self.tcb.congestion.on_handshake_loss();
        }
        self.tcb.retries = 0;
        self.tcb.deadlines.retransmit = NEVER;
        self.tcb.deadlines.life = NEVER;
        self.tcb.drained_since_ms = millis(self.now);
        self.schedule_keepalive();
        if is_passive {
            self.shared.counters.accepted += 1;
            self.event(Event::Accepted(self.id, self.tcb.tuple.remote()));
        } else {
            self.shared.counters.connected += 1;
            self.event(Event::Connected(self.id));
        }
        self.send_what_waited();
    }

    /// The first round trip. Karn: only if SYN was sent once, or if a timestamp tells which was answered.
    fn measure_handshake(&mut self, arrival: &Arrival<L::Frame>) {
        if self.tcb.retries > 0 {
            self.tcb.rtt.handshake_timed_out();
        }
        let echo = arrival.segment.options.timestamps.filter(|_| self.tcb.timestamps).map(|ts| ts.echo);
        match echo {
            Some(echo) if self.tcb.retries > 0 => self.sample_timestamp(echo),
            None if self.tcb.retries > 0 => {}
            _ => {
                let millis = millis(self.now).wrapping_sub(self.tcb.last_sent_ms);
                self.tcb.rtt.sample(std::time::Duration::from_millis(millis.into()));
            }
        }
    }

    /// Text, and FIN, that the user handed in before there was a connection.
    fn send_what_waited(&mut self) {
        if self.tcb.flags.fin_queued {
            self.tcb.state = State::FinWait1;
        }
        if self.tcb.queues.is_some() {
            self.ready();
        }
    }
}
