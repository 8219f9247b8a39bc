//! USER TIMEOUT, RETRANSMISSION TIMEOUT and TIME-WAIT TIMEOUT (RFC 9293 §3.10.8), and the other deadlines.

use crate::congestion::CongestionControl;
use crate::connection::Connection;
use crate::event::{ConnectFailure, ResetReason};
use crate::link::Link;
use crate::recovery::Phase;
use crate::send_queue::Mark;
use crate::tcb::{NEVER, State};

/// Retransmissions of a SYN-ACK, as Linux's `tcp_synack_retries`: whoever opens by the thousand gets no more.
const SYN_ACK_RETRIES: u8 = 5;

impl<L: Link> Connection<'_, L> {
    /// Carries out every deadline that has passed, so that all that remain are in the future.
    pub(crate) fn time_out(&mut self) {
        if self.tcb.deadlines.life <= self.now {
            self.tcb.deadlines.life = NEVER;
            self.life_timeout();
        }
        if self.tcb.deadlines.retransmit <= self.now {
            self.tcb.deadlines.retransmit = NEVER;
            self.retransmission_timeout();
        }
        if self.tcb.deadlines.output <= self.now {
            self.tcb.deadlines.output = NEVER;
            // A delayed acknowledgement, or what could not be sent before.
            self.tcb.flags.ack_due |= self.tcb.unacked_segments > 0;
            self.ready();
        }
    }

    fn retransmission_timeout(&mut self) {
        match self.tcb.state {
            State::SynSent | State::SynReceived => self.syn_timeout(),
            _ => {
                let send = self.tcb.queues.as_ref().map(|queues| &queues.send);
                let (has_sent, is_empty) =
                    send.map_or((false, true), |send| (send.has_sent(), send.is_empty()));
                if std::mem::take(&mut self.tcb.flags.tail_probe) && has_sent {
                    self.probe_tail();
                    return;
                }
                if is_empty || self.gives_up() {
                    return;
                }
                if has_sent { self.text_timeout() } else { self.persist_timeout() }
            }
        }
    }

    /// Another expiry in a row. True if the user timeout (R2) has passed and the connection is given up.
    fn gives_up(&mut self) -> bool {
        let (now, is_first) = (self.now, self.tcb.retries == 0);
        let recovery = &mut self.queues().recovery;
        if is_first {
            recovery.retrying_since = now;
        }
        let retrying = now.since(recovery.retrying_since);
        self.tcb.retries = self.tcb.retries.saturating_add(1);
        if retrying < self.shared.settings.user_timeout {
            return false;
        }
        self.give_up();
        true
    }

    /// The peer is gone; should it come back, a reset tells it.
    fn give_up(&mut self) {
        self.shared.counters.given_up += 1;
        if self.tcb.state.is_synchronized() {
            self.send_reset(self.tcb.snd.nxt);
        }
        self.break_off(ResetReason::TimedOut, ConnectFailure::TimedOut);
    }

    fn syn_timeout(&mut self) {
        self.tcb.retries = self.tcb.retries.saturating_add(1);
        if self.tcb.flags.passive && self.tcb.retries > SYN_ACK_RETRIES {
            self.give_up();
            return;
        }
        self.shared.counters.timeouts += 1;
        self.tcb.rtt.back_off();
        self.restart_retransmit_timer();
        self.tcb.flags.syn_due = true;
        self.ready();
    }

    /// RFC 6298 §5.4 to 5.7: the earliest segment goes out again, the timer is backed off, the window
    /// collapses. All that was sent is deemed lost, and goes out again as slow start allows.
    fn text_timeout(&mut self) {
        self.shared.counters.timeouts += 1;
        let outstanding = self.tcb.snd.nxt - self.tcb.snd.una;
        self.tcb.congestion.on_rto(self.now, outstanding);
        let point = self.tcb.snd.nxt;
        let queues = self.queues();
        queues.send.all_lost();
        queues.recovery.enter(Phase::Timeout, point);
        self.tcb.rtt.back_off();
        self.restart_retransmit_timer();
        self.tcb.flags.retransmit_due = true;
        self.black_hole();
        self.ready();
    }

    /// RFC 8985 §7.3: the last segment goes out again, so that the peer reports what is missing before it.
    fn probe_tail(&mut self) {
        self.tcb.flags.tail_probed = true;
        self.restart_retransmit_timer();
        let Some(queues) = &mut self.tcb.queues else { return };
        let last = queues.send.sent_count() - 1;
        if queues.send.segment(last).mark == Mark::InFlight {
            self.shared.counters.tail_probes += 1;
            queues.send.set_mark(last, Mark::Lost);
            self.tcb.flags.retransmit_due = true;
            self.ready();
        }
    }

    /// A path that swallows full segments without a word (RFC 4821 in its simplest form): after a few expiries
    /// in a row try what every path takes.
    fn black_hole(&mut self) {
        const EXPIRIES: u8 = 3;
        const MTU_V4: u16 = 1064;
        const MTU_V6: u16 = 1280;
        let least = if self.tcb.tuple.is_ipv4() { MTU_V4 } else { MTU_V6 };
        if self.tcb.retries == EXPIRIES && self.tcb.path_mtu > least {
            self.change_path_mtu(least);
        }
    }

    /// The persist timer (RFC 9293 §3.8.6.1): a window that is shut is probed for ever, ever more slowly; one
    /// that is too small to be worth it is used after all.
    fn persist_timeout(&mut self) {
        self.tcb.rtt.back_off();
        self.restart_retransmit_timer();
        if self.tcb.snd.wnd > 0 {
            self.tcb.flags.window_override = true;
        } else {
            self.tcb.flags.probe_due = true;
        }
        self.ready();
    }

    /// The end of a wait.
    fn life_timeout(&mut self) {
        match self.tcb.state {
            State::SynSent | State::SynReceived => self.give_up(),
            State::TimeWait => self.enter_closed(),
            // A closed connection whose peer does not close: it may be gone, and if not, is told so when it
            // sends (Linux: `tcp_fin_timeout`).
            State::FinWait2 if self.tcb.flags.orphan => self.enter_closed(),
            _ if self.tcb.flags.orphan => self.give_up(),
            State::Closed => {}
            _ => self.keepalive_timeout(),
        }
    }

    /// The peer was heard: the keepalive deadline moves on.
    pub(crate) fn schedule_keepalive(&mut self) {
        if let Some(keepalive) = self.shared.settings.keepalive
            && !self.tcb.flags.orphan
            && self.tcb.state.is_synchronized()
            && self.tcb.state != State::TimeWait
        {
            if self.tcb.queues.as_ref().is_none_or(|queues| queues.send.is_empty()) {
                self.tcb.retries = 0;
            }
            self.tcb.deadlines.life = self.now.plus(keepalive.idle);
        }
    }

    /// RFC 9293 §3.8.4: a probe only on a connection that is idle; several unanswered ones end it.
    fn keepalive_timeout(&mut self) {
        let Some(keepalive) = self.shared.settings.keepalive else { return };
        if self.tcb.queues.as_ref().is_some_and(|queues| !queues.send.is_empty()) {
            // The other timers watch over what is in flight.
            self.schedule_keepalive();
            return;
        }
        if self.tcb.retries >= keepalive.probes {
            self.give_up();
            return;
        }
        self.tcb.retries += 1;
        self.tcb.deadlines.life = self.now.plus(keepalive.interval);
        self.tcb.flags.probe_due = true;
        self.ready();
    }
}
