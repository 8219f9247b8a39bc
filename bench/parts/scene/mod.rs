//! A shard in memory: the real relay, engine and stack over frames, and both other ends of every flow.
//!
//! ```text
//!   clients ── Burst ──►  Relay ◄─► Engine       Umem     ◄── Burst ── data centre
//!   (Peers)   ◄─────────  Stack  ◄───────────────────────────────────  (Peers)
//! ```
//! Time is virtual. What the peers do is never measured: whoever measures makes a [`Burst`] first, then lets
//! the relay have it, then lets the peers [`hear`](Scene::hear).

mod establish;
pub mod peers;
pub mod umem;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use mtproxy_bin::datapath::epoll::ConnectionLimit;
use mtproxy_bin::datapath::xdp::ports::Ask;
use mtproxy_bin::datapath::xdp::{ArrivedOn, NoPortLeft, Relay, SourcePorts, Streams, tcp_instant};
use mtproxy_core::dc::{DcTable, PreferIp};
use mtproxy_core::engine::Engine;
use mtproxy_core::error::PeerMisbehaved;
use mtproxy_core::policy::replay::{HelloAdmission, HelloId};
use mtproxy_core::stream::StreamId;
use mtproxy_core::time::{Now, UnixSeconds};
use mtproxy_tcp::wire::Flags;
use mtproxy_tcp::{Secrets, Settings, Stack};
use rustix::event::{EventfdFlags, eventfd};

use crate::rig::{self, Mode};
use peers::{End, Heard, LISTENER, Peers, Side};
use umem::{Frame, Umem};

/// Frames of the link: 32 MiB, as a shard has by default.
const FRAMES: usize = 16_384;

/// Bytes of a TLS record's header.
pub const RECORD_HEADER_BYTES: usize = 5;

/// A packet that the relay has not had yet.
#[derive(Debug)]
pub struct Arrival {
    /// Where it is.
    pub frame: Frame,
    /// Its length.
    pub len: usize,
}

/// What comes in one turn.
pub type Burst = Vec<Arrival>;

/// What the peers heard at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// Packets.
    pub packets: u64,
    /// Those with text.
    pub with_text: u64,
    /// Bytes of text.
    pub text_bytes: u64,
}

/// Source ports in the order of relays, never given back.
pub struct InOrder {
    dialled: u32,
}

impl SourcePorts for InOrder {
    fn take(&mut self, _: SocketAddr, _: Ask<'_>) -> Option<Result<SocketAddr, NoPortLeft>> {
        self.dialled += 1;
        Some(Ok(peers::local_of(self.dialled - 1)))
    }
}

/// Admits every hello. What is remembered of hellos is bounded, common to all shards, and no part of a relay.
struct AdmitAll;

impl HelloAdmission for AdmitAll {
    fn admit(&mut self, _: HelloId, _: u32, _: UnixSeconds) -> Result<(), PeerMisbehaved> {
        Ok(())
    }
}

/// The shard and its peers.
pub struct Scene {
    /// What is measured.
    pub relay: Relay<Umem, InOrder>,
    /// Its sessions.
    pub engine: Engine,
    /// Everybody else.
    pub peers: Peers,
    mode: Mode,
    now: Now,
    established: u32,
    /// Ends that have heard text and not acknowledged it.
    owing: Vec<End>,
    /// Ends whose SYN or SYN-ACK came just now.
    greeted: Vec<End>,
}

impl Scene {
    /// Nobody is connected; at most `relays` will be.
    ///
    /// # Errors
    /// If the kernel gives no descriptors.
    ///
    /// # Panics
    /// Never: the table of data centres is built in.
    pub fn new(mode: Mode, relays: usize) -> Result<Self> {
        let now = rig::now();
        let settings = Settings { connections_max: usize::MAX, ..Settings::default() };
        let mut stack = Stack::new(settings, Secrets::from_seed([9; 32]), tcp_instant(now));
        stack.listen(LISTENER);
        let limit = ConnectionLimit::new(usize::MAX);
        let streams =
            Streams::new(stack, Umem::new(FRAMES), InOrder { dialled: 0 }, limit.clone(), tcp_instant(now));
        let wake = eventfd(0, EventfdFlags::CLOEXEC).context("making an eventfd")?;
        let relay = Relay::new(streams, limit, wake).context("making an epoll instance")?;
        let table = DcTable::builtin(PreferIp::V4);
        let data_centre = *table.addresses(rig::DC).first().expect("built in");
        Ok(Self {
            relay,
            engine: rig::Rig::with_admission(1, Box::new(AdmitAll)).engine,
            peers: Peers::new(relays, data_centre),
            mode,
            now,
            established: 0,
            owing: Vec::with_capacity(FRAMES),
            greeted: Vec::with_capacity(FRAMES),
        })
    }

    /// How clients speak.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Relays that there are.
    #[must_use]
    pub fn relays(&self) -> u32 {
        self.established
    }

    /// The moment at which everything happens.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    /// Moves time on.
    pub fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant.plus(time);
    }

    /// An end sends a message: `payload_len` bytes, with a client's record header if it needs one. What it owes
    /// is acknowledged with it.
    pub fn message(&mut self, end: End, payload_len: usize, burst: &mut Burst) {
        let has_record = matches!((self.mode, end.0), (Mode::Ee(_), Side::Client));
        let header_len = if has_record { RECORD_HEADER_BYTES } else { 0 };
        self.owing.retain(|owing| *owing != end);
        self.say(end, Flags::ACK | Flags::PSH, header_len + payload_len, burst, |text| {
            // The content does not matter to a stream cipher, a record's header does.
            if has_record {
                text[..RECORD_HEADER_BYTES].copy_from_slice(&record_header(payload_len));
            }
        });
    }

    /// All ends acknowledge what they owe.
    pub fn acknowledge(&mut self, burst: &mut Burst) {
        while let Some(end) = self.owing.pop() {
            self.say(end, Flags::ACK, 0, burst, |_| {});
        }
    }

    /// Ends that have heard text and not acknowledged it.
    #[must_use]
    pub fn owing(&self) -> usize {
        self.owing.len()
    }

    fn say(&mut self, end: End, flags: Flags, len: usize, burst: &mut Burst, fill: impl FnOnce(&mut [u8])) {
        let since_origin = tcp_instant(self.now).as_micros() / 1000;
        let now_ms = u32::try_from(since_origin % (1 << 32)).expect("taken modulo 2^32");
        let umem = &mut self.relay.streams().link;
        let (frame, len) = self.peers.say(end, flags, len, now_ms, umem, fill);
        burst.push(Arrival { frame, len });
    }

    /// One turn of the shard, as its thread takes it.
    ///
    /// # Panics
    /// If a packet is nobody's: then the script is wrong.
    pub fn turn(&mut self, burst: &mut Burst) {
        let Self { relay, engine, now, .. } = self;
        relay.begin(*now);
        for Arrival { frame, len } in burst.drain(..) {
            assert!(
                relay.arrive(*now, frame, 0..len, ArrivedOn::OurQueue, engine).is_none(),
                "a packet of no relay"
            );
        }
        relay.read_ready(*now, engine);
        relay.time_out(*now, engine);
        relay.transmit(*now, engine);
    }

    /// The peers take what was sent.
    pub fn hear(&mut self) -> Echo {
        let mut echo = Echo::default();
        let Self { relay, peers, owing, greeted, .. } = self;
        let umem = &mut relay.streams().link;
        while umem.complete_one(|packet| {
            let Heard { end, flags, text_len } = peers.hear(packet);
            echo.packets += 1;
            if flags.contains(Flags::SYN) {
                greeted.push(end);
            }
            if text_len > 0 {
                echo.with_text += 1;
                echo.text_bytes += text_len as u64;
                owing.push(end);
            }
        }) {}
        relay.drain_reports();
        echo
    }

    /// The stream of an end's flow.
    ///
    /// # Panics
    /// If it has none.
    pub fn stream(&mut self, end: End) -> StreamId {
        let (local, remote) = self.peers.addresses(end);
        let streams = self.relay.streams();
        let connection = streams.stack.connection_between(local, remote).expect("it is established");
        streams.stream_of(connection).expect("it is established")
    }
}

/// Of a record with application data (RFC 8446 section 5.1).
#[must_use]
pub fn record_header(body_len: usize) -> [u8; RECORD_HEADER_BYTES] {
    let [high, low] = u16::try_from(body_len).expect("a record is shorter than 64 KiB").to_be_bytes();
    [0x17, 3, 3, high, low]
}

/// Resident memory of this process that is its own.
///
/// # Errors
/// If `/proc` is not there.
pub fn resident_bytes() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").context("reading /proc/self/statm")?;
    let pages = statm.split_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
    Ok(pages.context("statm has its resident pages second")? * rustix::param::page_size() as u64)
}
