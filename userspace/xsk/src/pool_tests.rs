//! The pool against a model of the kernel: rings are queues of addresses.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

const FRAMES: u32 = 16;
const CHUNK: usize = 2048;

fn pool() -> FramePool {
    FramePool::new(FRAMES, ChunkSize::Bytes2048)
}

fn start_of(index: u32) -> usize {
    index as usize * CHUNK + HEADROOM
}

#[test]
fn every_frame_is_handed_out_once() {
    let mut pool = pool();
    let handed_out: HashSet<u32> = std::iter::from_fn(|| pool.allocate()).map(|frame| frame.index).collect();
    assert_eq!(handed_out.len(), FRAMES as usize);
    assert_eq!(pool.census().tokens(), FRAMES);
}

#[test]
fn a_dropped_token_is_a_leak_that_the_census_shows() {
    let mut pool = pool();
    let _ = pool.allocate();
    let census = pool.census();
    assert!(census.adds_up());
    assert_eq!((census.tokens(), census.free), (1, FRAMES - 1));
}

#[test]
fn a_frame_released_in_flight_is_free_only_when_completed() {
    let mut pool = pool();
    let frame = pool.allocate().unwrap();
    let address = start_of(frame.index);
    pool.transmitted(&frame);
    pool.release(frame);
    assert_eq!(pool.count(FrameState::Free), FRAMES - 1);
    assert_eq!(pool.completed(address), Ok(()));
    assert_eq!(pool.count(FrameState::Free), FRAMES);
}

#[test]
fn a_frame_completed_before_its_release_is_ours_again() {
    let mut pool = pool();
    let frame = pool.allocate().unwrap();
    pool.transmitted(&frame);
    assert_eq!(pool.completed(start_of(frame.index)), Ok(()));
    assert_eq!(pool.state(&frame), FrameState::Ours);
    pool.transmitted(&frame);
    pool.release(frame);
}

#[test]
#[should_panic(expected = "cannot be transmitted")]
fn a_frame_in_flight_is_not_transmitted_again() {
    let mut pool = pool();
    let frame = pool.allocate().unwrap();
    pool.transmitted(&frame);
    pool.transmitted(&frame);
}

#[test]
#[should_panic(expected = "a token of another pool")]
fn a_token_of_another_pool_is_not_taken_for_a_free_frame() {
    let token = pool().allocate().unwrap();
    pool().release(token);
}

#[test]
fn a_packet_may_fill_its_frame_and_no_more() {
    for (start, len, fits) in [
        (0, 0, true),
        (0, 1792, true),
        (0, 1793, false),
        (10, 1782, true),
        (10, 1783, false),
        (0, usize::MAX, false),
        (1, usize::MAX, false),
    ] {
        let mut pool = pool();
        let index = pool.fill().unwrap();
        match pool.received(start_of(index) + start, len) {
            Ok((frame, range)) => {
                assert!(fits, "{start} {len}");
                assert_eq!(range, start..start + len);
                pool.release(frame);
            }
            Err(error) => {
                assert!(!fits, "{start} {len}");
                assert_eq!(error, BadDescriptor::Length);
            }
        }
        assert_eq!(pool.count(FrameState::Free), FRAMES, "the frame is free either way");
    }
}

#[test]
fn a_packet_that_was_moved_in_front_of_its_start_is_bad() {
    let mut pool = pool();
    let index = pool.fill().unwrap();
    assert_eq!(pool.received(start_of(index) - 1, 60), Err(BadDescriptor::Length));
}

#[test]
fn an_address_outside_the_memory_or_of_a_frame_that_the_kernel_has_not_changes_nothing() {
    let mut pool = pool();
    let ours = pool.allocate().unwrap();
    let before = pool.census();
    for address in [start_of(ours.index), start_of(FRAMES - 1), start_of(FRAMES), usize::MAX] {
        assert_eq!(pool.received(address, 60), Err(BadDescriptor::Address));
        assert_eq!(pool.completed(address), Err(BadDescriptor::Address));
    }
    assert_eq!(pool.census(), before);
    pool.release(ours);
}

#[derive(Clone, Debug)]
enum Step {
    Allocate,
    Fill,
    /// The kernel writes a packet of this length into its oldest frame and says so.
    Receive(usize),
    Transmit(usize),
    Release(usize),
    /// The kernel completes one frame that is in flight, in any order.
    Complete(usize),
    /// The kernel says something arbitrary.
    Lie {
        address: usize,
        len: usize,
        as_completion: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Allocate),
        3 => Just(Step::Fill),
        3 => (0usize..2000).prop_map(Step::Receive),
        3 => any::<usize>().prop_map(Step::Transmit),
        3 => any::<usize>().prop_map(Step::Release),
        3 => any::<usize>().prop_map(Step::Complete),
        1 => (FRAMES as usize * CHUNK.., any::<usize>(), any::<bool>())
            .prop_map(|(address, len, as_completion)| Step::Lie { address, len, as_completion }),
    ]
}

/// What the caller and the kernel hold, as they themselves see it.
#[derive(Default)]
struct Model {
    held: Vec<Frame>,
    fill_ring: VecDeque<u32>,
    tx_ring: Vec<u32>,
}

impl Model {
    fn take(&mut self, pool: &mut FramePool, step: Step) {
        match step {
            Step::Allocate => self.hold(pool.allocate()),
            Step::Fill => self.fill_ring.extend(pool.fill()),
            Step::Receive(len) => {
                let Some(index) = self.fill_ring.pop_front() else { return };
                let received = pool.received(start_of(index), len);
                assert_eq!(received.is_ok(), len <= CHUNK - HEADROOM);
                self.hold(received.ok().map(|(frame, _)| frame));
            }
            Step::Transmit(pick) => {
                let idle: Vec<_> =
                    self.held.iter().filter(|frame| pool.state(frame) == FrameState::Ours).collect();
                if idle.is_empty() {
                    return;
                }
                let frame = idle[pick % idle.len()];
                pool.transmitted(frame);
                self.tx_ring.push(frame.index);
            }
            Step::Release(pick) if !self.held.is_empty() => {
                pool.release(self.held.swap_remove(pick % self.held.len()));
            }
            Step::Complete(pick) if !self.tx_ring.is_empty() => {
                let index = self.tx_ring.swap_remove(pick % self.tx_ring.len());
                assert_eq!(pool.completed(start_of(index)), Ok(()));
            }
            Step::Lie { address, len, as_completion } => {
                let before = pool.census();
                let bad = if as_completion {
                    pool.completed(address).is_err()
                } else {
                    pool.received(address, len).is_err()
                };
                assert!(bad);
                assert_eq!(pool.census(), before);
            }
            Step::Release(_) | Step::Complete(_) => {}
        }
    }

    fn hold(&mut self, frame: Option<Frame>) {
        let Some(frame) = frame else { return };
        assert!(!self.held.contains(&frame), "{frame:?} is handed out twice");
        assert!(!self.fill_ring.contains(&frame.index), "{frame:?} is the kernel's to write");
        assert!(!self.tx_ring.contains(&frame.index), "{frame:?} is the kernel's to read");
        self.held.push(frame);
    }
}

proptest! {
    #[test]
    fn frames_are_conserved_and_each_has_one_owner(steps in prop::collection::vec(step(), 0..400)) {
        let mut pool = pool();
        let mut model = Model::default();
        for step in steps {
            model.take(&mut pool, step);
            let census = pool.census();
            prop_assert!(census.adds_up(), "{:?}", census);
            prop_assert_eq!(census.tokens() as usize, model.held.len());
            prop_assert_eq!(census.fill as usize, model.fill_ring.len());
            prop_assert_eq!((census.in_flight + census.in_flight_released) as usize, model.tx_ring.len());
        }
        while !model.held.is_empty() {
            model.take(&mut pool, Step::Release(0));
        }
        while !model.tx_ring.is_empty() {
            model.take(&mut pool, Step::Complete(0));
        }
        while !model.fill_ring.is_empty() {
            model.take(&mut pool, Step::Receive(usize::MAX));
        }
        prop_assert_eq!(pool.count(FrameState::Free), FRAMES);
    }
}
