//! The AF_XDP datapath: one shard, that is one queue, one thread, one packet memory, one space of ports.
//!
//! ```text
//!   RX ring ─► Stack ─► Engine ─► Stack ─► TX ring          a turn:  complete, receive a burst, refill,
//!     │ not ours?                                                     sockets, parcels, deadlines,
//!     └─► Crossing ─► the shard that owns it                          transmit once, flush once
//! ```
//! What a stream is and what becomes of its bytes is settled in `relay.rs` and `streams.rs`, which know no
//! ring. Here are the burst, the sleep, the beat that tells the steering program that this shard lives, and
//! the way to other shards.
//!
//! Read `mtproxy_tcp::link` first, then `relay.rs`.

pub mod crossing;
mod gauges;
mod hops;
mod host;
mod link;
pub mod port_range;
pub mod ports;
mod relay;
mod streams;

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use mtproxy_core::engine::Engine;
use mtproxy_core::event::Event;
use mtproxy_core::time::{Instant, Now};
use mtproxy_tcp::Unknown;
use mtproxy_tcp::link::Link as _;
use mtproxy_xsk::{Frame, Packet};

use super::Datapath;
use crate::capture::tap::Direction;
use crate::telemetry::metrics::WorkerCounters;
use crossing::{Crossing, Parcel};
pub use gauges::Gauges;
pub use hops::{NextHop, Routes};
pub use host::{Dialer, HostRoutes};
pub use link::{LinkCounters, XskLink};
pub use relay::{ArrivedOn, Relay, tcp_instant};
pub use streams::{NoPortLeft, SourcePorts, Streams};

/// Packets taken from the RX ring in a turn: the budget of one NAPI poll.
const BURST: usize = 64;
/// Parcels of other shards taken in a turn.
const PARCELS_PER_TURN: usize = 64;
/// Longest sleep, and longest turn's distance between two beats. The steering program takes a shard for hung
/// after three times as long.
const BEAT_EVERY: Duration = Duration::from_millis(40);
/// How often the kernel is told which neighbours are in use; it doubts them after 15 to 45 s.
const CONFIRM_EVERY: Duration = Duration::from_secs(10);
/// Turns of work after which sockets are looked at even though frames keep coming.
const TURNS_BETWEEN_POLLS_MAX: u32 = 8;
/// How long an ending shard waits for the device to give back what it still sends.
const LAST_COMPLETIONS: Duration = Duration::from_millis(200);

/// What a shard counts besides its stack and its link.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardTotals {
    /// Bursts that brought packets.
    pub busy_turns: u64,
    /// Turns that found nothing.
    pub idle_turns: u64,
    /// Packets and bytes received.
    pub received: u64,
    /// Bytes of them, link headers included.
    pub received_bytes: u64,
    /// Packets of other shards handed over.
    pub handed_over: u64,
    /// Packets of this shard that came by way of another.
    pub taken_over: u64,
    /// Packets of other shards lost: their inbox was full, or no frame was free.
    pub lost_between: u64,
    /// Calls of poll(2).
    pub polls: u64,
}

/// The sign of life that the steering program looks for.
pub trait Pulse {
    /// This shard lives.
    fn beat(&mut self);

    /// It will beat no more: new clients go to the kernel at once.
    fn stop(&mut self);
}

/// One shard.
pub struct Xdp<R: Routes, P, B> {
    relay: Relay<XskLink<R>, P>,
    crossing: Crossing,
    pulse: B,
    gauges: Gauges,
    packets: Vec<Packet>,
    totals: ShardTotals,
    next_beat: Instant,
    next_confirm: Instant,
    /// The last turn had work, so that the next may have some, too.
    was_busy: bool,
    turns_since_poll: u32,
    sockets_have_events: bool,
}

impl<R: Routes, P: SourcePorts, B: Pulse> Xdp<R, P, B> {
    /// A shard that is ready to run.
    #[must_use]
    pub fn new(relay: Relay<XskLink<R>, P>, crossing: Crossing, pulse: B, gauges: Gauges) -> Self {
        Self {
            relay,
            crossing,
            pulse,
            gauges,
            packets: Vec::with_capacity(BURST),
            totals: ShardTotals::default(),
            next_beat: Instant::ORIGIN,
            next_confirm: Instant::ORIGIN.plus(CONFIRM_EVERY),
            was_busy: true,
            turns_since_poll: 0,
            sockets_have_events: false,
        }
    }

    fn link(&mut self) -> &mut XskLink<R> {
        &mut self.relay.streams().link
    }

    fn keep_alive(&mut self, now: Now) {
        if self.next_beat <= now.instant {
            self.pulse.beat();
            self.next_beat = now.instant.plus(BEAT_EVERY);
            self.show();
        }
        if self.next_confirm <= now.instant {
            self.link().confirm_neighbours();
            self.next_confirm = now.instant.plus(CONFIRM_EVERY);
        }
        if self.link().follow_routes(now.instant) {
            self.relay.streams().stack.forget_hops();
        }
    }

    /// True if packets are due and the TX ring has taken all before them. If it has not, the wait is for the device,
    /// and the socket knows how long that may be.
    fn can_transmit(&self) -> bool {
        let streams = &self.relay.sockets.elsewhere;
        streams.stack.wants_transmit() && !streams.link.socket.has_unsent()
    }

    fn show(&self) {
        let streams = &self.relay.sockets.elsewhere;
        self.gauges.publish(&streams.stack, &streams.link, streams.ports.counts(), &self.totals);
    }

    fn take_burst(&mut self, now: Now, engine: &mut Engine) {
        let mut packets = std::mem::take(&mut self.packets);
        let link = self.link();
        link.tap.begin_turn();
        link.socket.complete();
        link.socket.receive(&mut packets, BURST);
        self.was_busy = !packets.is_empty();
        self.totals.received += packets.len() as u64;
        for Packet { frame, range } in packets.drain(..) {
            self.totals.received_bytes += range.len() as u64;
            let link = self.link();
            link.tap.note(Direction::Received, &link.socket.bytes(&frame)[range.clone()]);
            if let Some(unknown) = self.relay.arrive(now, frame, range, ArrivedOn::OurQueue, engine) {
                self.hand_over(unknown, 0);
            }
        }
        self.packets = packets;
    }

    fn take_parcels(&mut self, now: Now, engine: &mut Engine) {
        for _ in 0..PARCELS_PER_TURN {
            let Some(parcel) = self.crossing.receive() else { return };
            self.was_busy = true;
            self.take_parcel(&parcel, now, engine);
            self.crossing.give_back(parcel);
        }
    }

    fn take_parcel(&mut self, parcel: &Parcel, now: Now, engine: &mut Engine) {
        let link = self.link();
        let Some(mut frame) = link.allocate() else {
            self.totals.lost_between += 1;
            return;
        };
        let len = parcel.bytes().len();
        link.bytes_mut(&mut frame)[..len].copy_from_slice(parcel.bytes());
        match self.relay.arrive(now, frame, 0..len, ArrivedOn::AnotherQueue, engine) {
            None => self.totals.taken_over += 1,
            Some(unknown) => self.hand_over(unknown, parcel.passed_on + 1),
        }
    }

    /// Hands a packet that this shard does not know to the one that may; answers it with RST if there is none. A
    /// client that would connect where nobody listens is nobody's: data centres do not dial us.
    fn hand_over(&mut self, unknown: Unknown<Frame>, passed_on: usize) {
        let owner = self.relay.streams().ports.owner(unknown.local);
        let next = self.crossing.next(owner, passed_on).filter(|_| !unknown.is_syn);
        let streams = self.relay.streams();
        let Some((to, claim)) = next else {
            return streams.stack.refuse(streams.now, unknown, &mut streams.link);
        };
        let packet = &streams.link.bytes(&unknown.frame)[unknown.packet.clone()];
        if self.crossing.send(to, packet, passed_on, claim).is_ok() {
            self.totals.handed_over += 1;
        } else {
            self.totals.lost_between += 1;
        }
        self.link().release(unknown.frame);
    }

    /// Lets everything go, and says how many frames of how many were found again.
    fn settle_frames(&mut self, now: Now) {
        let streams = self.relay.streams();
        streams.stack.stop(tcp_instant(now), &mut streams.link);
        streams.link.unpark();
        let socket = &mut streams.link.socket;
        let started = std::time::Instant::now();
        loop {
            // A broken socket gives nothing back; the census says so.
            let _ = socket.flush();
            socket.complete();
            let census = socket.census();
            let is_back = census.in_flight + census.in_flight_released == 0;
            if is_back || started.elapsed() > LAST_COMPLETIONS {
                let shard = self.crossing.shard();
                let (total, free, fill) = (census.total, census.free, census.fill);
                let accounted = census.adds_up() && census.ours == 0 && is_back;
                tracing::info!(shard, total, free, fill, accounted, "frames at the end");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl<R: Routes, P: SourcePorts, B: Pulse> Datapath for Xdp<R, P, B> {
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let has_work = self.was_busy || self.relay.is_busy() || self.can_transmit();
        self.turns_since_poll += 1;
        if has_work && self.turns_since_poll < TURNS_BETWEEN_POLLS_MAX {
            return Ok(());
        }
        self.turns_since_poll = 0;
        self.totals.polls += 1;
        let may_sleep = !has_work && self.crossing.fall_asleep();
        let longest = if may_sleep { BEAT_EVERY } else { Duration::ZERO };
        let timeout = timeout.map_or(longest, |timeout| timeout.min(longest));
        let sockets = &mut self.relay.sockets;
        let woken = sockets.elsewhere.link.socket.wait(Some(timeout), sockets.epoll.as_fd());
        self.crossing.wake_up();
        self.sockets_have_events = woken?.other;
        Ok(())
    }

    fn receive(&mut self, now: Now, engine: &mut Engine) {
        self.relay.begin(now);
        self.keep_alive(now);
        self.take_burst(now, engine);
        self.take_parcels(now, engine);
        let are_due = self.relay.sockets.next_timeout().is_some_and(|at| at <= now.instant);
        if std::mem::take(&mut self.sockets_have_events) || self.relay.sockets.is_ready() || are_due {
            // Cannot fail: the instance is ours, and it does not sleep.
            let _ = self.relay.sockets.wait(Some(Duration::ZERO));
            self.relay.sockets.receive(now, engine);
            self.was_busy = true;
        }
        self.relay.read_ready(now, engine);
        if self.was_busy {
            self.totals.busy_turns += 1;
        } else {
            self.totals.idle_turns += 1;
        }
    }

    fn time_out(&mut self, now: Now, engine: &mut Engine) {
        self.relay.time_out(now, engine);
    }

    fn transmit(&mut self, now: Now, engine: &mut Engine) {
        self.relay.transmit(now, engine);
        let socket = &mut self.link().socket;
        // A socket that is broken says so to the next wait, which ends the shard.
        let _ = socket.flush();
        let _ = socket.refill();
    }

    fn next_timeout(&self) -> Option<Instant> {
        let of_stack = self.relay.sockets.elsewhere.stack.next_timeout();
        let of_stack = of_stack.map(|at| Instant::ORIGIN.plus(Duration::from_micros(at.as_micros())));
        let of_sockets = self.relay.sockets.next_timeout();
        [of_stack, of_sockets, self.relay.retry_at()].into_iter().flatten().min()
    }

    fn stop_accepting(&mut self) {
        self.relay.streams().stack.stop_listening();
        self.relay.sockets.stop_accepting();
    }

    /// Connections in TIME-WAIT do not count, half-open ones do.
    fn has_last_words(&self) -> bool {
        self.relay.sockets.elsewhere.stack.connection_count() > 0
    }

    fn may_end(&mut self) -> bool {
        self.crossing.have_done();
        self.crossing.all_have_done()
    }

    fn stop(&mut self, now: Now, engine: &mut Engine) {
        self.pulse.stop();
        self.relay.begin(now);
        self.relay.sockets.stop(now, engine);
        self.settle_frames(now);
        self.show();
    }

    fn drain_reports(&mut self) -> std::vec::Drain<'_, Event> {
        self.relay.drain_reports()
    }

    fn publish(&self, counters: &WorkerCounters) {
        self.relay.sockets.publish(counters);
    }
}
