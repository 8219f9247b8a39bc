//! Congestion control: how much may be in flight.
//!
//! A controller only ever sees bytes, time and events. What is in flight, and when a loss is a new one,
//! the sender knows. Windows are in bytes.
//!
//! ```text
//!                 on_congestion                  on_recovery_exit
//!   Open ─────────────────────────► Recovery ─────────────────────► Open
//!     │  slow start below ssthresh,     │  window stands still        ▲
//!     │  avoidance above                │                             │ cwnd >= ssthresh
//!     └────────── on_rto ───────────────┴─────────► Loss ─────────────┘
//!                                                     slow start from one segment
//! ```
//! In recovery the window is not inflated by duplicate acknowledgements (RFC 5681 section 3.2, step 4):
//! the sender counts what has left the network instead, as RFC 6675 does.
//!
//! Read first: RFC 5681, RFC 9438.

mod cubic;
mod new_reno;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use cubic::Cubic;
pub use new_reno::NewReno;

use crate::time::Instant;

/// What the sender tells a congestion controller, and what it learns from it.
pub trait CongestionControl {
    /// Congestion window: bytes that may be in flight.
    fn cwnd(&self) -> u32;

    /// Slow start ends here.
    fn ssthresh(&self) -> u32;

    /// `acked` new bytes were acknowledged; `in_flight` were out before. `srtt` is zero if nothing was
    /// measured yet.
    fn on_ack(&mut self, now: Instant, acked: u32, in_flight: u32, srtt: Duration);

    /// Loss was found by acknowledgements, or a router marked (RFC 3168). Until the recovery's exit
    /// further calls change nothing: one reduction a round trip.
    fn on_congestion(&mut self, now: Instant, in_flight: u32);

    /// All that was in flight when the loss was found is acknowledged.
    fn on_recovery_exit(&mut self, now: Instant);

    /// The retransmission timer fired.
    fn on_rto(&mut self, now: Instant, in_flight: u32);

    /// Nothing was sent for longer than a retransmission timeout, and now there is something to send
    /// (RFC 5681 section 4.1).
    fn on_idle_restart(&mut self, now: Instant);

    /// The SYN, or our SYN-ACK, timed out more than once (RFC 6928 section 2): begin with one segment.
    fn on_handshake_loss(&mut self);

    /// The path takes segments of another size now.
    fn on_mss_change(&mut self, mss: u16);
}

/// Which algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681 and 6582.
    NewReno,
}

/// A controller of either algorithm, without a box.
#[derive(Clone, Copy, Debug)]
pub enum Controller {
    /// See [`Cubic`].
    Cubic(Cubic),
    /// See [`NewReno`].
    NewReno(NewReno),
}

impl Controller {
    /// A new connection's controller.
    #[must_use]
    pub fn new(algorithm: Algorithm, mss: u16) -> Self {
        match algorithm {
            Algorithm::Cubic => Self::Cubic(Cubic::new(mss)),
            Algorithm::NewReno => Self::NewReno(NewReno::new(mss)),
        }
    }
}

macro_rules! either {
    ($self:ident, $controller:ident => $call:expr) => {
        match $self {
            Controller::Cubic($controller) => $call,
            Controller::NewReno($controller) => $call,
        }
    };
}

impl CongestionControl for Controller {
    fn cwnd(&self) -> u32 {
        either!(self, controller => controller.cwnd())
    }

    fn ssthresh(&self) -> u32 {
        either!(self, controller => controller.ssthresh())
    }

    fn on_ack(&mut self, now: Instant, acked: u32, in_flight: u32, srtt: Duration) {
        either!(self, controller => controller.on_ack(now, acked, in_flight, srtt));
    }

    fn on_congestion(&mut self, now: Instant, in_flight: u32) {
        either!(self, controller => controller.on_congestion(now, in_flight));
    }

    fn on_recovery_exit(&mut self, now: Instant) {
        either!(self, controller => controller.on_recovery_exit(now));
    }

    fn on_rto(&mut self, now: Instant, in_flight: u32) {
        either!(self, controller => controller.on_rto(now, in_flight));
    }

    fn on_idle_restart(&mut self, now: Instant) {
        either!(self, controller => controller.on_idle_restart(now));
    }

    fn on_handshake_loss(&mut self) {
        either!(self, controller => controller.on_handshake_loss());
    }

    fn on_mss_change(&mut self, mss: u16) {
        either!(self, controller => controller.on_mss_change(mss));
    }
}

/// Largest window. More cannot be advertised (RFC 7323 section 2.3), so that it is never used.
const CWND_MAX: u32 = 1 << 30;

/// ssthresh before the first loss: arbitrarily high (RFC 5681 section 3.1).
const SSTHRESH_INITIAL: u32 = u32::MAX;

/// Where a connection stands between two losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Recovery,
    /// The timer fired, and slow start goes on since. `acked`: something was acknowledged since.
    Loss {
        acked: bool,
    },
}

/// What both algorithms share: the window, slow start, and the phases.
#[derive(Clone, Copy, Debug)]
struct Window {
    cwnd: u32,
    ssthresh: u32,
    mss: u16,
    phase: Phase,
}

impl Window {
    fn new(mss: u16) -> Self {
        Self { cwnd: initial_window(mss), ssthresh: SSTHRESH_INITIAL, mss, phase: Phase::Open }
    }

    fn mss(&self) -> u32 {
        u32::from(self.mss)
    }

    /// False if the window is not what holds the sender back: then it must not grow on the strength of
    /// acknowledgements that never tested it (RFC 7661, RFC 9438 section 5.8). Half of it, because
    /// several acknowledgements of one burst are seen before anything new is sent.
    fn is_used(&self, in_flight: u32) -> bool {
        in_flight >= self.cwnd / 2
    }

    fn is_in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Grows below ssthresh, and answers the bytes of `acked` that are left for avoidance. Not in recovery.
    ///
    /// Every byte counts (RFC 3465), because peers acknowledge dozens of segments at once. After a
    /// timeout at most one segment does: there one acknowledgement may cover what left long ago.
    fn slow_start(&mut self, acked: u32) -> u32 {
        let counted = match &mut self.phase {
            Phase::Loss { acked: seen } => {
                *seen = true;
                acked.min(u32::from(self.mss))
            }
            Phase::Open | Phase::Recovery => acked,
        };
        let grown = counted.min(self.ssthresh.saturating_sub(self.cwnd));
        self.grow(grown);
        if !self.is_in_slow_start() {
            self.phase = Phase::Open;
        }
        counted - grown
    }

    fn grow(&mut self, by: u32) {
        self.cwnd = self.cwnd.saturating_add(by).min(CWND_MAX);
    }

    fn set_ssthresh(&mut self, bytes: u64) {
        // Two segments at least (RFC 5681, equation 4).
        self.ssthresh = u32::try_from(bytes).unwrap_or(u32::MAX).max(2 * self.mss());
    }

    fn enter_recovery(&mut self) {
        self.cwnd = self.ssthresh;
        self.phase = Phase::Recovery;
    }

    /// True if the same segment times out again: ssthresh stays then (RFC 5681 section 3.1).
    fn times_out_again(&self) -> bool {
        self.phase == Phase::Loss { acked: false }
    }

    fn enter_loss(&mut self) {
        self.cwnd = self.mss();
        self.phase = Phase::Loss { acked: false };
    }

    fn restart(&mut self) {
        // What the path bore is remembered by three quarters (RFC 2861 section 3.2).
        self.ssthresh = self.ssthresh.max(self.cwnd / 4 * 3);
        self.cwnd = self.cwnd.min(initial_window(self.mss));
    }

    fn change_mss(&mut self, mss: u16) {
        self.mss = mss;
        self.cwnd = self.cwnd.max(self.mss());
    }
}

/// Ten segments, or 14600 bytes if they are large (RFC 6928 section 2).
#[must_use]
pub fn initial_window(mss: u16) -> u32 {
    let mss = u32::from(mss);
    (10 * mss).min((2 * mss).max(14600))
}
