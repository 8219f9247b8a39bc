//! CUBIC (RFC 9438): the window is a cubic function of the time since the last reduction.
//!
//! ```text
//!   cwnd                                        W(t) = C (t - K)^3 + W_max
//!   W_max ─ ─ ╮─ ─ ─ ─ ─ ─ ─ ─ ____------____ ─ ─ ─ /─ ─
//!             │           _-'                   `-'   probing for more
//!             │        ,'   back quickly, then
//!   0.7 W_max ╰───────'     carefully near W_max
//!             0                        K                  t
//! ```
//! All arithmetic is of integers, in bytes and milliseconds, so that a replay on any machine gives the
//! same windows: C is 2/5 segments/s^3 and beta 7/10. The cube root is taken once a loss.

use std::time::Duration;

use super::{CongestionControl, Phase, Window};
use crate::time::Instant;

/// Milliseconds from K beyond which the curve is flat: there (0.4 * 65^3 segments) every window is
/// behind us, and d^3 * mss fits 64 bits.
const DISTANCE_MAX_MILLIS: u64 = 65_535;

/// CUBIC's state.
#[derive(Clone, Copy, Debug)]
pub struct Cubic {
    window: Window,
    in_epoch: bool,
    /// W_max in bytes, after fast convergence. Zero: no loss yet, or the timer fired since.
    w_max: u32,
    /// cwnd before the last reduction: W_est grows as Reno's from there on.
    cwnd_prior: u32,
    /// W_est: what Reno would have.
    w_est: u32,
    /// Acknowledged since `w_est` last grew.
    est_acked: u32,
    /// K.
    k_millis: u32,
    /// Where the curve starts, in milliseconds of [`Instant`]; wraps, and differences do not care.
    epoch_millis: u32,
}

impl Cubic {
    /// A new connection's controller.
    #[must_use]
    pub fn new(mss: u16) -> Self {
        Self {
            window: Window::new(mss),
            in_epoch: false,
            w_max: 0,
            cwnd_prior: 0,
            w_est: 0,
            est_acked: 0,
            k_millis: 0,
            epoch_millis: 0,
        }
    }

    /// ssthresh = beta * flight (RFC 9438 section 4.6), and W_max with fast convergence (4.7).
    fn reduce(&mut self, in_flight: u32) {
        let cwnd = self.window.cwnd;
        let fell_short = cwnd < self.w_max;
        // (1 + beta) / 2 of the window: leaves room to newer flows.
        self.w_max = if fell_short { part(cwnd, 17, 20) } else { cwnd };
        self.cwnd_prior = cwnd;
        self.window.set_ssthresh(u64::from(in_flight.min(cwnd)) * 7 / 10);
        self.in_epoch = false;
    }

    /// Starts the curve at the present window (RFC 9438 section 4.2).
    fn begin_epoch(&mut self, now: Instant) {
        self.in_epoch = true;
        self.epoch_millis = millis(now);
        self.w_est = self.window.cwnd;
        self.est_acked = 0;
        // At or above W_max, and after a timeout (section 4.8), the curve starts at its turning point.
        self.w_max = self.w_max.max(self.window.cwnd);
        // K^3 = (W_max - cwnd) / C; in ms^3 that is 10^9 * 5/2 times the segments.
        let distance = u128::from(self.w_max - self.window.cwnd);
        let cube = distance * 2_500_000_000 / u128::from(self.window.mss());
        self.k_millis = cube_root(cube);
    }

    /// W_cubic at `t_millis` of the epoch, in bytes.
    fn curve(&self, t_millis: u32) -> u32 {
        let distance = u64::from(t_millis.abs_diff(self.k_millis)).min(DISTANCE_MAX_MILLIS);
        // C * d^3 segments: 2/5 / 10^9 for milliseconds.
        let delta = distance.pow(3) * u64::from(self.window.mss) / 2_500_000_000;
        let delta = u32::try_from(delta).unwrap_or(u32::MAX);
        if t_millis < self.k_millis {
            self.w_max.saturating_sub(delta)
        } else {
            self.w_max.saturating_add(delta)
        }
    }

    /// What Reno would do with the same loss rate (RFC 9438 section 4.3): alpha segments a window.
    fn grow_estimate(&mut self, acked: u32) {
        let cwnd = self.window.cwnd;
        // 3 (1 - beta) / (1 + beta) = 9/17, and 1 once the old window is reached again.
        let for_a_segment = if self.w_est >= self.cwnd_prior { cwnd } else { part(cwnd, 17, 9) };
        self.est_acked = self.est_acked.saturating_add(acked);
        if self.est_acked >= for_a_segment {
            self.est_acked -= for_a_segment;
            self.w_est = self.w_est.saturating_add(self.window.mss());
        }
    }

    fn avoid_congestion(&mut self, now: Instant, acked: u32, srtt: Duration) {
        if !self.in_epoch {
            self.begin_epoch(now);
        }
        self.grow_estimate(acked);
        let cwnd = self.window.cwnd;
        let t = millis(now).wrapping_sub(self.epoch_millis);
        if self.curve(t) < self.w_est {
            // The Reno-friendly region.
            self.window.grow(self.w_est.saturating_sub(cwnd));
            return;
        }
        // Where the curve is one round trip ahead, and at most half as much again (section 4.2).
        let ahead = u32::try_from(srtt.as_millis()).unwrap_or(u32::MAX);
        let target = self.curve(t.saturating_add(ahead)).clamp(cwnd, cwnd + cwnd / 2);
        self.window.grow(part(target - cwnd, acked.min(cwnd), cwnd));
    }
}

impl CongestionControl for Cubic {
    fn cwnd(&self) -> u32 {
        self.window.cwnd
    }

    fn ssthresh(&self) -> u32 {
        self.window.ssthresh
    }

    fn on_ack(&mut self, now: Instant, acked: u32, in_flight: u32, srtt: Duration) {
        if self.window.phase == Phase::Recovery {
            return;
        }
        if !self.window.is_used(in_flight) {
            // Time in which the window was not needed is not the curve's (RFC 9438 section 5.8).
            self.in_epoch = false;
            return;
        }
        let left = self.window.slow_start(acked);
        if left > 0 {
            self.avoid_congestion(now, left, srtt);
        }
    }

    fn on_congestion(&mut self, _now: Instant, in_flight: u32) {
        if self.window.phase != Phase::Recovery {
            self.reduce(in_flight);
            self.window.enter_recovery();
        }
    }

    fn on_recovery_exit(&mut self, now: Instant) {
        if self.window.phase == Phase::Recovery {
            self.window.phase = Phase::Open;
            self.begin_epoch(now);
        }
    }

    fn on_rto(&mut self, _now: Instant, in_flight: u32) {
        if !self.window.times_out_again() {
            self.reduce(in_flight);
        }
        self.w_max = 0;
        self.window.enter_loss();
    }

    fn on_idle_restart(&mut self, _now: Instant) {
        self.window.restart();
        self.in_epoch = false;
    }

    fn on_handshake_loss(&mut self) {
        self.window.cwnd = self.window.mss();
    }

    fn on_mss_change(&mut self, mss: u16) {
        self.window.change_mss(mss);
        self.in_epoch = false;
    }
}

/// `of * numerator / denominator`, saturating.
fn part(of: u32, numerator: u32, denominator: u32) -> u32 {
    u32::try_from(u64::from(of) * u64::from(numerator) / u64::from(denominator)).unwrap_or(u32::MAX)
}

fn millis(now: Instant) -> u32 {
    (now.as_micros() / 1000) as u32
}

/// The largest integer whose cube is at most `cube`, bit by bit.
fn cube_root(cube: u128) -> u32 {
    let mut root = 0_u128;
    for bit in (0..32).rev() {
        let candidate = root | 1 << bit;
        if candidate.pow(3) <= cube {
            root = candidate;
        }
    }
    u32::try_from(root).expect("32 bits were tried")
}

#[cfg(test)]
mod tests {
    use super::super::tests::round_trip;
    use super::*;
    use proptest::prelude::*;

    const MSS: u16 = 1000;
    const RTT: Duration = Duration::from_millis(100);

    fn at_millis(n: u64) -> Instant {
        Instant::from_micros(n * 1000)
    }

    /// In avoidance since `now`, after a loss at `window`.
    fn after_loss_at(window: u32, now: Instant) -> Cubic {
        let mut cubic = Cubic::new(MSS);
        cubic.on_ack(now, window - cubic.cwnd(), window, RTT);
        cubic.on_congestion(now, window);
        cubic.on_recovery_exit(now);
        cubic
    }

    /// The window after each of the round trips that fit into `millis`.
    fn windows(cubic: &mut Cubic, millis: u64) -> Vec<u32> {
        (1..=millis / 100)
            .map(|trip| {
                round_trip(cubic, at_millis(trip * 100), MSS);
                cubic.cwnd()
            })
            .collect()
    }

    #[test]
    fn k_is_the_cube_root_of_the_distance_over_c() {
        // RFC 9438 section 4.2: cbrt((1000 - 700) / 0.4) = 9.0856 s.
        assert_eq!(after_loss_at(1_000_000, at_millis(0)).k_millis, 9085);
        // cbrt((100 - 70) / 0.4) = 4.2172 s.
        assert_eq!(after_loss_at(100_000, at_millis(0)).k_millis, 4217);
    }

    #[test]
    fn the_curve_is_that_of_the_rfc() {
        let cubic = after_loss_at(1_000_000, at_millis(0));
        for (t_millis, segments) in
            [(0_u32, 700.0), (4_000, 947.4), (9_085, 1000.0), (14_000, 1047.5), (20_000, 1520.2)]
        {
            // 0.4 (t - 9.0856)^3 + 1000.
            let window = f64::from(cubic.curve(t_millis)) / 1000.0;
            assert!((window - segments).abs() < 0.5, "{t_millis}: {window}");
        }
    }

    #[test]
    fn the_window_returns_to_where_the_loss_was_and_levels_off_there() {
        let mut cubic = after_loss_at(1_000_000, at_millis(0));
        let windows = windows(&mut cubic, 12_000);
        let after = |seconds: usize| windows[10 * seconds - 1];
        assert!((980_000..=1_010_000).contains(&after(9)), "{}", after(9));
        let (early, late) = (after(2) - after(1), after(9) - after(8));
        assert!(early > 10 * late, "{early} {late}");
        assert!(after(12) > after(9));
    }

    #[test]
    fn a_flow_that_falls_short_of_its_last_window_aims_lower() {
        let mut cubic = after_loss_at(1_000_000, at_millis(0));
        assert_eq!(cubic.w_max, 1_000_000);
        cubic.on_congestion(at_millis(100), 700_000);
        assert_eq!(cubic.w_max, 595_000);
        assert_eq!(cubic.cwnd(), 490_000);
    }

    #[test]
    fn on_short_paths_it_is_as_fast_as_reno() {
        // 10 ms: the curve is in seconds, and Reno adds a segment every 10 ms.
        let mut cubic = after_loss_at(20_000, at_millis(0));
        for trip in 1..=100 {
            let window = cubic.cwnd();
            for _ in 0..window.div_ceil(1000) {
                cubic.on_ack(at_millis(trip * 10), 1000, window, Duration::from_millis(10));
            }
        }
        // 9/17 of a segment a trip from 14 to 20 takes 11 trips; a whole one in the other 89 leads to 109.
        assert!((105_000..=110_000).contains(&cubic.cwnd()), "{}", cubic.cwnd());
    }

    #[test]
    fn a_round_trip_grows_the_window_by_half_at_most() {
        let mut cubic = after_loss_at(100_000, at_millis(0));
        let before = cubic.cwnd();
        round_trip(&mut cubic, at_millis(60_000), MSS);
        assert!(cubic.cwnd() > before && cubic.cwnd() <= before + before / 4 * 3, "{}", cubic.cwnd());
    }

    #[test]
    fn after_a_timeout_the_curve_starts_at_its_turning_point() {
        let mut cubic = after_loss_at(100_000, at_millis(0));
        cubic.on_rto(at_millis(0), 70_000);
        let threshold = cubic.ssthresh();
        assert_eq!(threshold, 49_000);
        while cubic.cwnd() < threshold {
            cubic.on_ack(at_millis(500), 1000, 100_000, RTT);
        }
        cubic.on_ack(at_millis(500), 1000, 100_000, RTT);
        assert_eq!((cubic.w_max, cubic.k_millis), (threshold, 0));
    }

    #[test]
    fn time_in_which_the_window_was_not_used_does_not_count() {
        let mut cubic = after_loss_at(1_000_000, at_millis(0));
        let before = cubic.cwnd();
        cubic.on_ack(at_millis(60_000), 1000, 1000, RTT);
        cubic.on_ack(at_millis(120_000), 1000, before, RTT);
        assert!(cubic.cwnd() - before < 1000, "{}", cubic.cwnd());
        assert_eq!(cubic.epoch_millis, 120_000);
    }

    #[test]
    fn the_clock_of_the_curve_may_wrap() {
        let wrap = u64::from(u32::MAX);
        let mut cubic = after_loss_at(100_000, at_millis(wrap));
        let mut same = after_loss_at(100_000, at_millis(0));
        for trip in 1..50 {
            round_trip(&mut cubic, at_millis(wrap + trip * 100), MSS);
            round_trip(&mut same, at_millis(trip * 100), MSS);
            assert_eq!(cubic.cwnd(), same.cwnd());
        }
    }

    proptest! {
        #[test]
        fn a_cube_root_is_the_largest_whose_cube_fits(cube in 0_u128..1 << 95) {
            let root = u128::from(cube_root(cube));
            prop_assert!(root.pow(3) <= cube && (root + 1).pow(3) > cube);
        }
    }
}
