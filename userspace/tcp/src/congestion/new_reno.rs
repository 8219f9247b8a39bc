//! NewReno (RFC 5681, 6582): one segment more each round trip, half after a loss.

use std::time::Duration;

use super::{CongestionControl, Phase, Window};
use crate::time::Instant;

/// NewReno's state.
#[derive(Clone, Copy, Debug)]
pub struct NewReno {
    window: Window,
    /// Acknowledged in avoidance since the window last grew.
    acked: u32,
}

impl NewReno {
    /// A new connection's controller.
    #[must_use]
    pub fn new(mss: u16) -> Self {
        Self { window: Window::new(mss), acked: 0 }
    }

    /// Equation 4 of RFC 5681. With limited transmit more than the window may be in flight.
    fn halve(&mut self, in_flight: u32) {
        self.window.set_ssthresh(u64::from(in_flight.min(self.window.cwnd) / 2));
        self.acked = 0;
    }
}

impl CongestionControl for NewReno {
    fn cwnd(&self) -> u32 {
        self.window.cwnd
    }

    fn ssthresh(&self) -> u32 {
        self.window.ssthresh
    }

    fn on_ack(&mut self, _now: Instant, acked: u32, in_flight: u32, _srtt: Duration) {
        if self.window.phase == Phase::Recovery || !self.window.is_used(in_flight) {
            return;
        }
        let left = self.window.slow_start(acked);
        if left == 0 {
            return;
        }
        // One segment for each window of acknowledged bytes (RFC 5681 section 3.1, RFC 3465).
        self.acked = self.acked.saturating_add(left);
        if self.acked >= self.window.cwnd {
            self.acked -= self.window.cwnd;
            self.window.grow(self.window.mss());
        }
    }

    fn on_congestion(&mut self, _now: Instant, in_flight: u32) {
        if self.window.phase != Phase::Recovery {
            self.halve(in_flight);
            self.window.enter_recovery();
        }
    }

    fn on_recovery_exit(&mut self, _now: Instant) {
        if self.window.phase == Phase::Recovery {
            self.window.phase = Phase::Open;
        }
    }

    fn on_rto(&mut self, _now: Instant, in_flight: u32) {
        if !self.window.times_out_again() {
            self.halve(in_flight);
        }
        self.window.enter_loss();
    }

    fn on_idle_restart(&mut self, _now: Instant) {
        self.window.restart();
        self.acked = 0;
    }

    fn on_handshake_loss(&mut self) {
        self.window.cwnd = self.window.mss();
    }

    fn on_mss_change(&mut self, mss: u16) {
        self.window.change_mss(mss);
    }
}
