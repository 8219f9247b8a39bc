//! What a relay over frames costs the heap once it stands: nothing.
//!
//! The real relay, engine and stack; the peers and their packets are made outside of what is counted.

use std::time::Duration;

use mtproxy_bench::rig::Mode;
use mtproxy_bench::scene::peers::Side;
use mtproxy_bench::scene::{Burst, Scene};

const RELAYS: u32 = 256;
/// Messages of one flow in a turn of bulk, such that never more than 64 segments are queued: what a transfer needs
/// beyond is given back to the allocator when the connection is idle (`mtproxy_tcp`, `queues.rs`).
const BULK: usize = 20;
const MODES: [Mode; 3] = [Mode::Plain, Mode::Dd, Mode::Ee(517)];
/// Counted, after as many that make room for what is longest.
const PACKETS: u64 = 100_000;

/// A stretch of one kind of traffic; `script` makes the packets of one turn. Answers allocations, and packets that
/// the relay received and sent meanwhile.
fn count(scene: &mut Scene, turns: u32, mut script: impl FnMut(u32, &mut Scene, &mut Burst)) -> (u64, u64) {
    let (mut allocated, mut packets) = (0, 0);
    let mut burst = Burst::new();
    for turn in 0..turns {
        script(turn, scene, &mut burst);
        packets += burst.len() as u64;
        allocated += allocation_counter::measure(|| scene.turn(&mut burst)).count_total;
        packets += scene.hear().packets;
    }
    (allocated, packets)
}

/// 32 flows a turn send a message each way, others acknowledge; time runs so that acknowledgements are delayed, and
/// timers armed, moved and fired.
fn small_messages(turn: u32, scene: &mut Scene, burst: &mut Burst) {
    scene.pass(Duration::from_millis(7));
    for index in 0..32 {
        let relay = (turn * 32 + index) % RELAYS;
        let side = if turn.is_multiple_of(3) { Side::DataCentre } else { Side::Client };
        scene.message((side, relay), 64 + (turn as usize * 13 + index as usize) % 700, burst);
    }
    if turn.is_multiple_of(2) {
        scene.acknowledge(burst);
    }
}

/// One flow sends full segments, its peer acknowledges each other turn.
fn bulk(turn: u32, scene: &mut Scene, burst: &mut Burst) {
    scene.pass(Duration::from_millis(1));
    let side = if (turn / 64).is_multiple_of(2) { Side::DataCentre } else { Side::Client };
    let relay = turn / 128 % RELAYS;
    match turn % 2 {
        0 => (0..BULK).for_each(|_| scene.message((side, relay), 1400, burst)),
        _ => scene.acknowledge(burst),
    }
}

#[test]
fn a_hundred_thousand_packets_through_a_relay_allocate_nothing() {
    for mode in MODES {
        let mut scene = Scene::new(mode, RELAYS as usize).unwrap();
        scene.establish(RELAYS);
        for (name, script) in
            [("small messages", small_messages as fn(u32, &mut Scene, &mut Burst)), ("bulk", bulk)]
        {
            count(&mut scene, 2000, script);
            let (allocated, packets) = count(&mut scene, 4000, script);
            assert_eq!(allocated, 0, "{mode:?}, {name}, in {packets} packets");
            assert!(packets > PACKETS, "{mode:?}, {name}: {packets} packets");
            let stack = &scene.relay.streams().stack;
            assert_eq!(stack.counters().retransmissions, 0, "nothing was lost");
        }
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(vec![1, 2, 3]))).count_total, 1);
}
