//! Sockets on real queues: a veth pair, packets between its ends. All of this needs root, clang and `ip`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ground;

use std::env;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ground::{Redirect, Veth, XdpMode, again, check, is_root, len_of, receive, run, send, settings, settle};
use mtproxy_xsk::{BindError, BindMode, BusyPoll, ChunkSize, Full, ModeLadder, Settings, Socket};
use rustix::event::{EventfdFlags, eventfd};

/// Packets per turn: what the ring of a veth (256) takes without loss.
const BURST: u32 = 64;

/// Sends `total` packets from one socket to another and checks each, and all frames at the end.
fn relay(from: &mut Socket, to: &mut Socket, total: u32) {
    let mut packets = Vec::with_capacity(BURST as usize);
    let mut next = 0;
    while next < total {
        for number in next..next + BURST {
            send(from, number);
        }
        from.flush().unwrap();
        receive(to, &mut packets, BURST as usize);
        for (number, packet) in (next..).zip(packets.drain(..)) {
            check(to, &packet, number);
            to.release(packet.frame);
        }
        to.refill().unwrap();
        from.complete();
        next += BURST;
    }
    settle(from);
    for socket in [&*from, &*to] {
        let census = socket.census();
        assert!(census.adds_up(), "{census:?}");
        assert_eq!(census.tokens(), 0);
        assert_eq!(census.free + census.fill, census.total);
        let counters = socket.counters();
        assert_eq!(
            counters.bad_rx_addresses + counters.bad_rx_lengths + counters.bad_completions,
            0,
            "{counters:?}"
        );
    }
    assert_eq!(to.counters().received, u64::from(next));
    assert_eq!(from.counters().completed, u64::from(next));
}

fn a_pair_that_relays(mode: XdpMode, queue: u32, chunk: ChunkSize, total: u32) {
    let veth = Veth::new(2);
    let mut redirect = Redirect::attach(&veth.near, mode);
    let mut to = Socket::bind(&Settings { chunk, ..settings(&veth.near, queue) }).unwrap();
    redirect.to(queue, &to);
    let mut from = Socket::bind(&Settings { chunk, ..settings(&veth.far, queue) }).unwrap();
    relay(&mut from, &mut to, total);
}

#[test]
fn a_hundred_thousand_packets_arrive_in_order_and_intact_natively() {
    if is_root("natively") {
        a_pair_that_relays(XdpMode::Driver, 0, ChunkSize::Bytes2048, 100_000);
    }
}

#[test]
fn packets_arrive_in_order_and_intact_generically() {
    if is_root("generically") {
        a_pair_that_relays(XdpMode::Skb, 0, ChunkSize::Bytes2048, 10_000);
    }
}

#[test]
fn packets_arrive_on_another_queue_than_the_first() {
    if is_root("another queue") {
        a_pair_that_relays(XdpMode::Driver, 1, ChunkSize::Bytes2048, 1_000);
    }
}

#[test]
fn packets_arrive_in_chunks_of_a_page() {
    if is_root("chunks of a page") {
        a_pair_that_relays(XdpMode::Driver, 0, ChunkSize::Bytes4096, 1_000);
    }
}

#[test]
fn a_veth_refuses_zero_copy_and_the_socket_says_that_it_copies() {
    if !is_root("zero-copy on a veth") {
        return;
    }
    let veth = Veth::new(1);
    let ladder = |modes| Settings { modes, ..settings(&veth.near, 0) };
    let socket = Socket::bind(&ladder(ModeLadder::ZeroCopyThenCopy)).unwrap();
    assert_eq!(socket.bound().mode, BindMode::Copy);
    let (mode, error) = &socket.bound().refused[0];
    assert_eq!((*mode, error.raw_os_error()), (BindMode::ZeroCopy, Some(libc::EOPNOTSUPP)));
    drop(socket);

    let refusal = Socket::bind(&ladder(ModeLadder::ZeroCopy)).unwrap_err();
    assert!(matches!(&refusal, BindError::Refused { refused, .. } if refused.len() == 1), "{refusal}");
}

#[test]
fn a_queue_can_be_bound_again_as_soon_as_its_socket_is_dropped() {
    if !is_root("binding again") {
        return;
    }
    let veth = Veth::new(1);
    let mut redirect = Redirect::attach(&veth.near, XdpMode::Driver);
    let mut from = Socket::bind(&settings(&veth.far, 0)).unwrap();
    let mut busy = 0;
    for _ in 0..20 {
        let mut to = Socket::bind(&settings(&veth.near, 0)).unwrap();
        busy += to.bound().busy_retries;
        redirect.to(0, &to);
        send(&mut from, 7);
        from.flush().unwrap();
        let mut packets = Vec::new();
        receive(&mut to, &mut packets, 1);
        check(&to, &packets[0], 7);
    }
    eprintln!("20 binds found the queue busy {busy} times");
}

#[test]
fn a_queue_that_somebody_holds_is_busy_after_a_second() {
    if !is_root("busy queue") {
        return;
    }
    let veth = Veth::new(1);
    let _holder = Socket::bind(&settings(&veth.near, 0)).unwrap();
    let start = Instant::now();
    let error = Socket::bind(&settings(&veth.near, 0)).unwrap_err();
    assert!(matches!(error, BindError::Busy { queue: 0, .. }), "{error}");
    assert!(start.elapsed() > Duration::from_secs(1) && start.elapsed() < ground::PATIENCE);
}

#[test]
fn what_is_not_there_is_named() {
    if !is_root("not there") {
        return;
    }
    let veth = Veth::new(1);
    let error = Socket::bind(&settings("wxsk-none", 0)).unwrap_err();
    assert!(matches!(error, BindError::NoInterface { .. }), "{error}");
    let error = Socket::bind(&settings(&veth.near, 1)).unwrap_err();
    assert!(matches!(error, BindError::Refused { queue: 1, .. }), "{error}");
}

#[test]
fn memory_beyond_what_may_be_pinned_is_refused_with_advice() {
    const TEST: &str = "memory_beyond_what_may_be_pinned_is_refused_with_advice";
    const WITHOUT_THE_CAPABILITY: &str = "XSK_TEST_WITHOUT_IPC_LOCK";
    if !is_root(TEST) {
        return;
    }
    if env::var_os(WITHOUT_THE_CAPABILITY).is_none() {
        let drop = "prlimit --memlock=8388608:8388608 setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock";
        return again(drop, TEST, WITHOUT_THE_CAPABILITY);
    }
    let veth = Veth::new(1);
    let frames = |frames| Settings { frames, ..settings(&veth.near, 0) };
    let error = Socket::bind(&frames(8192)).unwrap_err();
    let BindError::MemoryLock { bytes_needed, bytes_allowed } = error else { panic!("{error}") };
    assert_eq!((bytes_needed, bytes_allowed), (16 << 20, Some(8 << 20)));
    Socket::bind(&frames(2048)).unwrap();
}

#[test]
fn huge_pages_are_optional() {
    if !is_root("huge pages") {
        return;
    }
    let veth = Veth::new(1);
    let socket = Socket::bind(&Settings { huge_pages: true, ..settings(&veth.near, 0) }).unwrap();
    eprintln!("huge pages: {}", socket.bound().huge_pages);
    assert!(socket.census().adds_up());
}

#[test]
fn busy_polling_is_reported() {
    if !is_root("busy polling") {
        return;
    }
    let veth = Veth::new(1);
    let asked = |busy_poll| Socket::bind(&Settings { busy_poll, ..settings(&veth.near, 0) }).unwrap();
    assert!(asked(None).bound().busy_poll.is_none());
    assert!(matches!(asked(Some(BusyPoll::default())).bound().busy_poll, Some(Ok(()))));
    let too_much = BusyPoll { budget_packets: u32::MAX, ..BusyPoll::default() };
    assert!(matches!(asked(Some(too_much)).bound().busy_poll, Some(Err(_))));
}

#[test]
fn a_full_transmit_ring_is_said_and_one_flush_empties_it() {
    if !is_root("full ring") {
        return;
    }
    let veth = Veth::new(1);
    let mut socket = Socket::bind(&Settings { tx_ring: 128, ..settings(&veth.near, 0) }).unwrap();
    for number in 0..128 {
        send(&mut socket, number);
    }
    let frame = ground::written(&mut socket, 128);
    assert_eq!(socket.transmit(&frame, len_of(128)), Err(Full));
    assert!(!socket.is_in_flight(&frame));
    socket.flush().unwrap();
    assert_eq!(socket.transmit(&frame, len_of(128)), Ok(()));
    assert!(socket.is_in_flight(&frame));
    for number in 129..256 {
        send(&mut socket, number);
    }
    settle(&mut socket);
    assert!(!socket.is_in_flight(&frame));
    socket.release(frame);
    assert_eq!(socket.counters().tx_full, 1);
    assert_eq!(socket.counters().completed, 256);
    assert_eq!(socket.kernel_statistics().unwrap().tx_invalid_descriptors, 0);
}

#[test]
fn a_ring_full_of_the_largest_packets_is_sent_by_one_flush() {
    if !is_root("largest packets") {
        return;
    }
    let veth = Veth::new(1);
    let mut socket = Socket::bind(&settings(&veth.near, 0)).unwrap();
    for number in 0..512 {
        let frame = ground::written(&mut socket, number);
        socket.transmit(&frame, 1514).unwrap();
        socket.release(frame);
    }
    socket.flush().unwrap();
    assert_eq!(socket.counters().kicks_unfinished, 0);
    settle(&mut socket);
}

#[test]
fn refilling_stops_at_the_reserve() {
    if !is_root("reserve") {
        return;
    }
    let veth = Veth::new(1);
    let mut redirect = Redirect::attach(&veth.near, XdpMode::Driver);
    let few = Settings { frames: 128, fill_target: 64, transmit_reserve: 32, ..settings(&veth.near, 0) };
    let mut to = Socket::bind(&few).unwrap();
    redirect.to(0, &to);
    let mut from = Socket::bind(&settings(&veth.far, 0)).unwrap();
    for number in 0..10 {
        send(&mut from, number);
    }
    from.flush().unwrap();
    let mut packets = Vec::new();
    receive(&mut to, &mut packets, 10);
    let held: Vec<_> = (0..30).map_while(|_| to.allocate()).collect();
    assert_eq!((to.frames_free(), to.census().fill), (34, 54));
    assert_eq!(to.refill().unwrap(), 2);
    assert_eq!(to.refill().unwrap(), 0);
    for frame in held {
        to.release(frame);
    }
    assert_eq!(to.refill().unwrap(), 8);
    assert_eq!(to.census().tokens(), 10);
}

#[test]
fn copying_leaves_the_source_as_it_was() {
    if !is_root("copying") {
        return;
    }
    let veth = Veth::new(1);
    let mut socket = Socket::bind(&settings(&veth.near, 0)).unwrap();
    let (mut from, mut to) = (socket.allocate().unwrap(), socket.allocate().unwrap());
    let capacity = socket.bytes(&from).len();
    assert_eq!(capacity, ChunkSize::Bytes2048.capacity());
    socket.bytes_mut(&mut from).fill(1);
    socket.bytes_mut(&mut to).fill(2);
    socket.copy(&from, 100..capacity, &mut to, 50);
    assert!(socket.bytes(&from).iter().all(|&byte| byte == 1));
    let copied = 50..capacity - 50;
    for (at, &byte) in socket.bytes(&to).iter().enumerate() {
        assert_eq!(byte, if copied.contains(&at) { 1 } else { 2 }, "{at}");
    }
    socket.release(from);
    socket.release(to);
}

#[test]
#[should_panic(expected = "cannot be written")]
fn a_frame_in_flight_cannot_be_written() {
    if !is_root("in flight") {
        panic!("skipped: cannot be written");
    }
    let veth = Veth::new(1);
    let mut socket = Socket::bind(&settings(&veth.near, 0)).unwrap();
    let mut frame = ground::written(&mut socket, 0);
    socket.transmit(&frame, len_of(0)).unwrap();
    assert_eq!(socket.bytes(&frame)[14..18], [0; 4], "but it can be read");
    let _ = socket.bytes_mut(&mut frame);
}

#[test]
fn a_waiting_thread_is_woken_by_packets_and_by_the_other_descriptor() {
    if !is_root("waiting") {
        return;
    }
    let veth = Veth::new(1);
    let mut redirect = Redirect::attach(&veth.near, XdpMode::Driver);
    let mut to = Socket::bind(&settings(&veth.near, 0)).unwrap();
    redirect.to(0, &to);
    let mut from = Socket::bind(&settings(&veth.far, 0)).unwrap();
    let bell = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let wait = |socket: &mut Socket, patience| {
        let woken = socket.wait(Some(patience), bell.as_fd()).unwrap();
        (woken.packets, woken.other)
    };

    assert_eq!(wait(&mut to, Duration::ZERO), (false, false));
    rustix::io::write(&bell, &1u64.to_ne_bytes()).unwrap();
    assert_eq!(wait(&mut to, ground::PATIENCE), (false, true));
    rustix::io::read(&bell, &mut [0; 8]).unwrap();
    send(&mut from, 0);
    from.flush().unwrap();
    assert_eq!(wait(&mut to, ground::PATIENCE), (true, false));
}

#[test]
fn packets_wait_while_the_interface_is_down_and_leave_when_it_is_up() {
    if !is_root("interface down") {
        return;
    }
    let veth = Veth::new(1);
    let mut socket = Socket::bind(&settings(&veth.near, 0)).unwrap();
    run(&format!("ip link set {} down", veth.near));
    send(&mut socket, 0);
    socket.flush().unwrap();
    assert_eq!(socket.counters().kicks_link_down, 1);
    assert_eq!(socket.complete(), 0);
    run(&format!("ip link set {} up", veth.near));
    settle(&mut socket);
    assert_eq!(socket.counters().completed, 1);
}

#[test]
fn a_socket_moves_to_the_thread_that_drives_it() {
    fn assert_send<T: Send>() {}
    assert_send::<Socket>();
}

#[test]
fn an_interface_that_is_removed_is_an_error_of_waiting_and_of_flushing() {
    if !is_root("removed interface") {
        return;
    }
    let veth = Veth::new(1);
    let mut socket = Socket::bind(&settings(&veth.near, 0)).unwrap();
    let bell = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    socket.wait(Some(Duration::ZERO), bell.as_fd()).unwrap();
    run(&format!("ip link del {}", veth.near));
    let error = socket.wait(Some(Duration::ZERO), bell.as_fd()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
    send(&mut socket, 0);
    assert_eq!(socket.flush().unwrap_err().raw_os_error(), Some(libc::ENXIO));
    assert!(socket.census().adds_up());
}

#[test]
fn nothing_is_allocated_once_packets_flow() {
    if !is_root("allocation") {
        return;
    }
    let veth = Veth::new(1);
    let mut redirect = Redirect::attach(&veth.near, XdpMode::Driver);
    let mut to = Socket::bind(&settings(&veth.near, 0)).unwrap();
    redirect.to(0, &to);
    let mut from = Socket::bind(&settings(&veth.far, 0)).unwrap();
    let mut packets = Vec::with_capacity(BURST as usize);
    let allocated = allocation_counter::measure(|| {
        for number in 0..BURST {
            send(&mut from, number);
        }
        from.flush().unwrap();
        receive(&mut to, &mut packets, BURST as usize);
        for packet in packets.drain(..) {
            to.release(packet.frame);
        }
        to.refill().unwrap();
        settle(&mut from);
    });
    assert_eq!(allocated.count_total, 0);
}

/// Not a test of anything: `cargo test --release -p mtproxy-xsk --test kernel -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_the_rings_per_packet() {
    if !is_root("measurement") {
        return;
    }
    let veth = Veth::new(1);
    let mut redirect = Redirect::attach(&veth.near, XdpMode::Driver);
    let mut to = Socket::bind(&settings(&veth.near, 0)).unwrap();
    redirect.to(0, &to);
    let mut from = Socket::bind(&settings(&veth.far, 0)).unwrap();
    let mut packets = Vec::with_capacity(BURST as usize);
    let (mut out, mut back) = (Vec::new(), Vec::new());
    for _ in 0..2_000 {
        let start = Instant::now();
        from.complete();
        for _ in 0..BURST {
            let frame = from.allocate().unwrap();
            from.transmit(&frame, 64).unwrap();
            from.release(frame);
        }
        out.push(start.elapsed());
        from.flush().unwrap();
        // Until all are there, so that the measured call finds a full burst.
        let silent = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        to.wait(Some(ground::PATIENCE), silent.as_fd()).unwrap();
        let start = Instant::now();
        let count = to.receive(&mut packets, BURST as usize);
        for packet in packets.drain(..) {
            to.release(packet.frame);
        }
        to.refill().unwrap();
        if count == BURST as usize {
            back.push(start.elapsed());
        }
    }
    for (name, mut bursts) in [("transmit, complete", out), ("receive, refill", back)] {
        bursts.sort();
        let quartile =
            |of_four: usize| bursts[bursts.len() * of_four / 4].as_nanos() as f64 / f64::from(BURST);
        eprintln!("{name}: {:.1} ns (p25), {:.1} ns (p50) a packet", quartile(1), quartile(2));
    }
}
