//! What holds of both algorithms, and of NewReno.

use proptest::prelude::*;

use super::*;

const MSS: u16 = 1000;
const RTT: Duration = Duration::from_millis(100);

const BOTH: [Algorithm; 2] = [Algorithm::Cubic, Algorithm::NewReno];

fn at_millis(n: u64) -> Instant {
    Instant::from_micros(n * 1000)
}

/// One round trip: the whole window is acknowledged, two segments at a time.
pub(super) fn round_trip(controller: &mut impl CongestionControl, now: Instant, mss: u16) {
    let window = controller.cwnd();
    let mut left = window;
    while left > 0 {
        let acked = left.min(2 * u32::from(mss));
        controller.on_ack(now, acked, window, RTT);
        left -= acked;
    }
}

/// A controller in avoidance, after a loss at `window`.
fn after_loss_at(algorithm: Algorithm, window: u32) -> Controller {
    let mut controller = Controller::new(algorithm, MSS);
    controller.on_ack(at_millis(0), window - controller.cwnd(), window, RTT);
    assert_eq!(controller.cwnd(), window);
    controller.on_congestion(at_millis(0), window);
    controller.on_recovery_exit(at_millis(0));
    controller
}

#[test]
fn the_initial_window_is_that_of_rfc_6928() {
    for (mss, window) in [(88, 880), (536, 5360), (1460, 14600), (1461, 14600), (7300, 14600), (8960, 17920)]
    {
        assert_eq!(initial_window(mss), window, "{mss}");
        for algorithm in BOTH {
            assert_eq!(Controller::new(algorithm, mss).cwnd(), window);
        }
    }
}

#[test]
fn slow_start_doubles_the_window_in_a_round_trip() {
    for algorithm in BOTH {
        let mut controller = Controller::new(algorithm, MSS);
        for expected in [20_000, 40_000, 80_000] {
            round_trip(&mut controller, at_millis(0), MSS);
            assert_eq!(controller.cwnd(), expected);
        }
    }
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    for algorithm in BOTH {
        for mut controller in [Controller::new(algorithm, MSS), after_loss_at(algorithm, 100_000)] {
            let window = controller.cwnd();
            controller.on_ack(at_millis(60_000), 1000, window / 2 - 1, RTT);
            assert_eq!(controller.cwnd(), window);
            for _ in 0..window / 1000 {
                controller.on_ack(at_millis(60_000), 1000, window / 2, RTT);
            }
            assert!(controller.cwnd() > window);
        }
    }
}

#[test]
fn a_loss_reduces_once_and_nothing_grows_until_recovery_ends() {
    for (algorithm, reduced) in [(Algorithm::Cubic, 70_000), (Algorithm::NewReno, 50_000)] {
        let mut controller = Controller::new(algorithm, MSS);
        controller.on_ack(at_millis(0), 90_000, 10_000, RTT);
        controller.on_congestion(at_millis(0), 100_000);
        assert_eq!((controller.cwnd(), controller.ssthresh()), (reduced, reduced));
        controller.on_congestion(at_millis(10), 100_000);
        round_trip(&mut controller, at_millis(10), MSS);
        assert_eq!((controller.cwnd(), controller.ssthresh()), (reduced, reduced));
        controller.on_recovery_exit(at_millis(100));
        assert_eq!(controller.cwnd(), reduced);
        controller.on_congestion(at_millis(200), reduced);
        assert!(controller.cwnd() < reduced);
    }
}

#[test]
fn what_is_in_flight_is_reduced_and_not_an_unused_window() {
    for (algorithm, reduced) in [(Algorithm::Cubic, 14_000), (Algorithm::NewReno, 10_000)] {
        let mut controller = Controller::new(algorithm, MSS);
        controller.on_ack(at_millis(0), 90_000, 10_000, RTT);
        controller.on_congestion(at_millis(0), 20_000);
        assert_eq!(controller.cwnd(), reduced);
    }
}

#[test]
fn two_segments_are_the_least_threshold() {
    for algorithm in BOTH {
        let mut controller = Controller::new(algorithm, MSS);
        controller.on_congestion(at_millis(0), 1000);
        assert_eq!((controller.cwnd(), controller.ssthresh()), (2000, 2000));
    }
}

#[test]
fn a_timeout_leaves_one_segment_and_a_second_one_keeps_the_threshold() {
    for (algorithm, threshold) in [(Algorithm::Cubic, 70_000), (Algorithm::NewReno, 50_000)] {
        let mut controller = Controller::new(algorithm, MSS);
        controller.on_ack(at_millis(0), 90_000, 10_000, RTT);
        for _ in 0..2 {
            controller.on_rto(at_millis(0), 100_000);
            assert_eq!((controller.cwnd(), controller.ssthresh()), (1000, threshold));
        }
        // An acknowledgement of much counts as one of a segment.
        controller.on_ack(at_millis(0), 40_000, 100_000, RTT);
        assert_eq!(controller.cwnd(), 2000);
        // Then another segment timed out.
        controller.on_rto(at_millis(0), 2000);
        assert_eq!((controller.cwnd(), controller.ssthresh()), (1000, 2000));
    }
}

#[test]
fn slow_start_after_a_timeout_ends_at_the_threshold() {
    let mut controller = Controller::new(Algorithm::NewReno, MSS);
    controller.on_rto(at_millis(0), 10_000);
    for _ in 0..4 {
        controller.on_ack(at_millis(0), 1000, 10_000, RTT);
    }
    assert_eq!((controller.cwnd(), controller.ssthresh()), (5000, 5000));
    round_trip(&mut controller, at_millis(0), MSS);
    assert_eq!(controller.cwnd(), 6000);
}

#[test]
fn after_idleness_the_window_is_the_initial_one_at_most() {
    for algorithm in BOTH {
        let mut controller = after_loss_at(algorithm, 100_000);
        let before = controller.cwnd();
        controller.on_idle_restart(at_millis(10_000));
        assert_eq!(controller.cwnd(), 10_000);
        assert!(controller.ssthresh() >= before / 4 * 3);
        let mut small = after_loss_at(algorithm, 10_000);
        let before = small.cwnd();
        small.on_idle_restart(at_millis(10_000));
        assert_eq!(small.cwnd(), before);
        let mut fresh = Controller::new(algorithm, MSS);
        fresh.on_idle_restart(at_millis(10_000));
        assert_eq!((fresh.cwnd(), fresh.ssthresh()), (10_000, u32::MAX));
    }
}

#[test]
fn after_a_hard_handshake_the_window_is_one_segment_and_slow_start_goes_on() {
    for algorithm in BOTH {
        let mut controller = Controller::new(algorithm, MSS);
        controller.on_handshake_loss();
        assert_eq!(controller.cwnd(), 1000);
        round_trip(&mut controller, at_millis(0), MSS);
        assert_eq!(controller.cwnd(), 2000);
    }
}

#[test]
fn reno_avoids_congestion_by_one_segment_a_round_trip() {
    let mut controller = after_loss_at(Algorithm::NewReno, 100_000);
    for expected in [51_000, 52_000, 53_000] {
        round_trip(&mut controller, at_millis(0), MSS);
        assert_eq!(controller.cwnd(), expected);
    }
}

#[test]
fn controllers_are_small() {
    assert!(size_of::<NewReno>() <= 16);
    assert!(size_of::<Cubic>() <= 40);
    assert!(size_of::<Controller>() <= 40);
}

#[derive(Clone, Debug)]
enum Event {
    Ack(u32, u32),
    Congestion(u32),
    RecoveryExit,
    Rto(u32),
    IdleRestart,
    HandshakeLoss,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => any::<(u32, u32)>().prop_map(|(acked, in_flight)| Event::Ack(acked, in_flight)),
        4 => (0_u32..100_000).prop_map(|acked| Event::Ack(acked, u32::MAX)),
        1 => any::<u32>().prop_map(Event::Congestion),
        1 => Just(Event::RecoveryExit),
        1 => any::<u32>().prop_map(Event::Rto),
        1 => Just(Event::IdleRestart),
        1 => Just(Event::HandshakeLoss),
    ]
}

proptest! {
    #[test]
    fn windows_stay_within_their_bounds_whatever_happens(
        mss in 88_u16.., start: u64,
        events in proptest::collection::vec((event(), 0_u64..10_000_000, 0_u64..1_000_000), 0..100),
    ) {
        for algorithm in BOTH {
            let mut controller = Controller::new(algorithm, mss);
            let mut now = Instant::from_micros(start);
            for (event, elapsed, srtt) in &events {
                now = now.plus(Duration::from_micros(*elapsed));
                match *event {
                    Event::Ack(acked, in_flight) => {
                        controller.on_ack(now, acked, in_flight, Duration::from_micros(*srtt));
                    }
                    Event::Congestion(in_flight) => controller.on_congestion(now, in_flight),
                    Event::RecoveryExit => controller.on_recovery_exit(now),
                    Event::Rto(in_flight) => controller.on_rto(now, in_flight),
                    Event::IdleRestart => controller.on_idle_restart(now),
                    Event::HandshakeLoss => controller.on_handshake_loss(),
                }
                prop_assert!(controller.cwnd() >= u32::from(mss) && controller.cwnd() <= CWND_MAX);
                prop_assert!(controller.ssthresh() >= 2 * u32::from(mss));
            }
        }
    }
}
