//! The retransmission timeout (RFC 6298).

use std::time::Duration;

/// Before there is a sample (RFC 6298 section 2.1).
const INITIAL: Duration = Duration::from_secs(1);
/// Before there is a sample, if the SYN timed out (RFC 6298 section 5.7).
const INITIAL_AFTER_SYN_LOSS: Duration = Duration::from_secs(3);
/// Least allowance for variance. RFC 6298 would have the whole timeout at least 1 s, for clocks of half a
/// second; ours counts microseconds. 200 ms is Linux's `tcp_rto_min`, added to the round trip as there:
/// it outlasts an acknowledgement that the peer delays.
const VARIANCE_MIN: Duration = Duration::from_millis(200);
/// Upper bound (RFC 6298 section 2.5 allows 60 s or more): Linux's `TCP_RTO_MAX`.
const MAX: Duration = Duration::from_secs(120);
/// Doublings after which every timeout is the largest: 200 ms * 2^10 > 120 s.
const BACK_OFFS_MAX: u8 = 10;

/// Smoothed round-trip time and what follows from it: 12 bytes in every connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RttEstimator {
    /// SRTT; zero until there is a sample.
    srtt_micros: u32,
    /// RTTVAR.
    variance_micros: u32,
    back_offs: u8,
    syn_timed_out: bool,
}

impl RttEstimator {
    /// Before the first sample.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One measured round trip. Not of a segment that was sent twice, unless timestamps tell which
    /// transmission was acknowledged (Karn, MUST-18). Ends any back-off.
    pub fn sample(&mut self, rtt: Duration) {
        // At least one, because zero says that there is no sample; at most what no peer is away.
        let rtt = u32::try_from(rtt.as_micros().clamp(1, MAX.as_micros())).expect("120 s fit");
        self.back_offs = 0;
        if self.srtt_micros == 0 {
            self.srtt_micros = rtt;
            self.variance_micros = rtt / 2;
            return;
        }
        // Alpha is 1/8 and beta 1/4 (RFC 6298 section 2.3).
        let error = self.srtt_micros.abs_diff(rtt);
        self.variance_micros = self.variance_micros - self.variance_micros / 4 + error / 4;
        self.srtt_micros = (self.srtt_micros - self.srtt_micros / 8 + rtt / 8).max(1);
    }

    /// Smoothed round-trip time, if one was measured.
    #[must_use]
    pub fn srtt(&self) -> Option<Duration> {
        (self.srtt_micros != 0).then(|| Duration::from_micros(self.srtt_micros.into()))
    }

    /// How long to wait for an acknowledgement now.
    #[must_use]
    pub fn rto(&self) -> Duration {
        let base = match self.srtt() {
            // K is 4 (RFC 6298 section 2.2).
            Some(srtt) => srtt + (4 * Duration::from_micros(self.variance_micros.into())).max(VARIANCE_MIN),
            None if self.syn_timed_out => INITIAL_AFTER_SYN_LOSS,
            None => INITIAL,
        };
        (base * (1 << self.back_offs)).min(MAX)
    }

    /// The timeout passed: the next one is twice as long (MUST-19).
    pub fn back_off(&mut self) {
        self.back_offs = (self.back_offs + 1).min(BACK_OFFS_MAX);
    }

    /// The handshake is over, and its SYN had timed out: data start anew, from 3 s unless there is a
    /// sample.
    pub fn handshake_timed_out(&mut self) {
        self.syn_timed_out = true;
        self.back_offs = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_first_timeout_is_a_second_and_three_after_a_lost_syn() {
        let mut rtt = RttEstimator::new();
        assert_eq!(rtt.srtt(), None);
        assert_eq!(rtt.rto(), millis(1000));
        rtt.back_off();
        assert_eq!(rtt.rto(), millis(2000));
        rtt.handshake_timed_out();
        assert_eq!(rtt.rto(), millis(3000));
        rtt.sample(millis(80));
        assert_eq!(rtt.rto(), millis(280));
    }

    #[test]
    fn the_first_sample_sets_the_variance_to_half_of_it() {
        let mut rtt = RttEstimator::new();
        rtt.sample(millis(400));
        assert_eq!(rtt.srtt(), Some(millis(400)));
        assert_eq!(rtt.rto(), millis(400 + 4 * 200));
    }

    #[test]
    fn later_samples_are_smoothed_by_an_eighth_and_a_quarter() {
        let mut rtt = RttEstimator::new();
        rtt.sample(millis(800));
        rtt.sample(millis(1600));
        // RFC 6298 section 2.3 by hand: RTTVAR = 3/4 * 400 + 1/4 * 800; SRTT = 7/8 * 800 + 1/8 * 1600.
        assert_eq!(rtt.srtt(), Some(millis(900)));
        assert_eq!(rtt.rto(), millis(900 + 4 * 500));
    }

    #[test]
    fn a_steady_path_still_leaves_200_ms_for_delayed_acknowledgements() {
        let mut rtt = RttEstimator::new();
        for _ in 0..100 {
            rtt.sample(millis(40));
        }
        assert_eq!(rtt.rto(), millis(240));
    }

    #[test]
    fn back_off_doubles_until_two_minutes_and_a_sample_ends_it() {
        let mut rtt = RttEstimator::new();
        rtt.sample(Duration::from_micros(1));
        let first = rtt.rto();
        assert!(first >= millis(200) && first < millis(201));
        rtt.back_off();
        assert_eq!(rtt.rto(), 2 * first);
        for _ in 0..1000 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), Duration::from_secs(120));
        rtt.sample(Duration::from_micros(1));
        assert_eq!(rtt.rto(), first);
    }

    #[test]
    fn an_estimator_is_twelve_bytes() {
        assert_eq!(size_of::<RttEstimator>(), 12);
    }

    proptest! {
        #[test]
        fn the_timeout_is_between_200_ms_and_two_minutes_whatever_was_measured(
            samples in proptest::collection::vec(any::<u64>(), 0..20), back_offs in 0..20,
        ) {
            let mut rtt = RttEstimator::new();
            for sample in samples {
                rtt.sample(Duration::from_micros(sample));
            }
            for _ in 0..back_offs {
                rtt.back_off();
            }
            prop_assert!(rtt.rto() >= millis(200) && rtt.rto() <= Duration::from_secs(120));
        }
    }
}
