//! The simplest driver there is: streams in memory, and peers that take at once what they are sent,
//! unless they are told to stall. It checks the engine's side of the contract while it carries it out.

#![allow(dead_code, reason = "each test binary uses its own part of the driver")]
#![allow(clippy::unwrap_used, reason = "a panic here fails the test that asked for the impossible")]

pub(crate) mod middle_proxies;
pub(crate) mod scene;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mtproxy_core::action::{Action, Actions};
use mtproxy_core::config::{Config, Front, Fronts, RELAY_WINDOW_BYTES_DEFAULT, Timeouts};
use mtproxy_core::credentials::Credentials;
use mtproxy_core::dc::{DcId, DcTable, PreferIp};
use mtproxy_core::engine::{Direction, Engine, Input};
use mtproxy_core::error::DropReason;
use mtproxy_core::event::{DialError, Event, What};
use mtproxy_core::keyed_hash::KeyedHash;
use mtproxy_core::policy::replay::{ENTRIES_DEFAULT, ReplayCache};
use mtproxy_core::random::Random;
use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_core::stream::{Endpoints, StreamId};
use mtproxy_core::time::{Instant, Now, UnixSeconds};

/// The wall clock when every world begins.
pub(crate) const UNIX_SECONDS: u32 = 1_700_000_000;
/// The data centre of every client that does not care.
pub(crate) const DC: DcId = DcId(2);
/// Its two addresses, in the order tried.
pub(crate) const DC_ADDRESSES: [&str; 2] = ["192.0.2.1:443", "192.0.2.2:443"];
pub(crate) const FRONT_DOMAIN: &str = "front.example";
pub(crate) const FRONT_ADDRESSES: [&str; 2] = ["198.51.100.1:443", "198.51.100.2:443"];
pub(crate) const OTHER_DOMAIN: &str = "other.example";
pub(crate) const OTHER_ADDRESS: &str = "198.51.100.3:443";
/// Where clients reach the proxy, and whence it dials.
pub(crate) const OUR_ADDRESS: &str = "203.0.113.1:443";
/// The port of every client.
pub(crate) const CLIENT_PORT: u16 = 50_000;
/// Size of the fronts' first flight.
pub(crate) const FLIGHT_LEN: u16 = 2000;

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The ends of a client's connection.
pub(crate) fn ends(source: IpAddr) -> Endpoints {
    Endpoints { local: address(OUR_ADDRESS), remote: SocketAddr::new(source, CLIENT_PORT) }
}

pub(crate) fn plain() -> Secret {
    Secret::new([1; 16], SecretKind::Plain)
}

pub(crate) fn padded() -> Secret {
    Secret::new([2; 16], SecretKind::Padded)
}

pub(crate) fn fake_tls(domain: &str) -> Secret {
    Secret::new([3; 16], SecretKind::FakeTls(domain.parse().unwrap()))
}

/// The secret in the link of a client whose operator configured the bare key of [`plain`].
pub(crate) fn link_of_plain(kind: SecretKind) -> Secret {
    Secret::new(*plain().key(), kind)
}

pub(crate) fn credentials(secrets: impl IntoIterator<Item = Secret>) -> Credentials {
    Credentials::new(secrets.into_iter().enumerate().map(|(index, secret)| (format!("user {index}"), secret)))
}

/// All three kinds of secret, two fronts, one data centre with two addresses.
pub(crate) fn config() -> Config {
    let front = |domain: &str, addresses: &[&str]| Front {
        domain: domain.parse().unwrap(),
        addresses: addresses.iter().map(|text| address(text)).collect(),
        flight_len: FLIGHT_LEN,
    };
    let mut dc_table = DcTable::builtin(PreferIp::V4);
    dc_table.set(DC, DC_ADDRESSES.map(address).to_vec());
    Config {
        credentials: credentials([plain(), padded(), fake_tls(FRONT_DOMAIN)]),
        fronts: Fronts::new([front(FRONT_DOMAIN, &FRONT_ADDRESSES), front(OTHER_DOMAIN, &[OTHER_ADDRESS])]),
        dc_table,
        middle_proxies: None,
        timeouts: Timeouts::default(),
        relay_window_bytes: RELAY_WINDOW_BYTES_DEFAULT,
    }
}

/// The same without a front, so without fake TLS.
pub(crate) fn frontless() -> Config {
    Config { fronts: Fronts::default(), ..config() }
}

/// What the peer of a stream has been told of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// There never was such a stream, or the peer itself has reset it.
    Absent,
    /// Being dialled for the n-th time.
    Dialled(usize),
    /// Nothing: the stream is open toward the peer.
    Nothing,
    /// FIN; the peer's own direction is open.
    Fin,
    /// FIN; nothing more is read, and the stream is gone.
    Closed,
    /// RST.
    Rst,
}

/// The driver's end of one stream.
#[derive(Default)]
struct Wire {
    dialled: Vec<SocketAddr>,
    is_connected: bool,
    is_stalled: bool,
    queue: Vec<u8>,
    heard: Vec<u8>,
    is_shut_down: bool,
    end: Option<Told>,
}

/// One engine, its streams, and a clock that moves when told to.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) elapsed: Duration,
    actions: Actions,
    wires: BTreeMap<StreamId, Wire>,
    latest_dialled: Option<StreamId>,
    pub(crate) events: Vec<Event>,
    /// Every stream that was resumed, in order.
    pub(crate) resumed: Vec<StreamId>,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let mut random = Random::from_seed([9; 32]);
        let admission = Box::new(ReplayCache::new(ENTRIES_DEFAULT, KeyedHash::new(&mut random)));
        Self {
            engine: Engine::new(Arc::new(config), random.bytes(), admission),
            elapsed: Duration::ZERO,
            actions: Actions::new(),
            wires: BTreeMap::new(),
            latest_dialled: None,
            events: Vec::new(),
            resumed: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            instant: Instant::after_origin(self.elapsed),
            unix: UnixSeconds(u64::from(UNIX_SECONDS) + self.elapsed.as_secs()),
        }
    }

    pub(crate) fn connect(&mut self) -> StreamId {
        self.connect_from("203.0.113.5".parse().unwrap())
    }

    pub(crate) fn connect_from(&mut self, source: IpAddr) -> StreamId {
        let now = self.now();
        let stream = self.engine.accept(now, ends(source), &mut self.actions);
        self.wires.insert(stream, Wire { is_connected: true, ..Wire::default() });
        self.carry_out(&[]);
        stream
    }

    /// Hands in bytes, in one piece.
    pub(crate) fn say(&mut self, stream: StreamId, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let now = self.now();
        self.engine.handle(now, Input::Bytes(stream, &mut bytes), &mut self.actions);
        self.carry_out(&bytes);
    }

    pub(crate) fn fin(&mut self, stream: StreamId) {
        self.tell(Input::Eof(stream));
    }

    pub(crate) fn reset(&mut self, stream: StreamId) {
        let wire = self.wires.get_mut(&stream).unwrap();
        wire.queue.clear();
        wire.end = Some(Told::Absent);
        self.tell(Input::Reset(stream));
    }

    /// The dialled address answers, and takes what is queued for it.
    pub(crate) fn answer(&mut self, stream: StreamId) {
        self.wires.get_mut(&stream).unwrap().is_connected = true;
        self.tell(Input::Connected(stream, address(OUR_ADDRESS)));
        self.flush(stream);
    }

    pub(crate) fn refuse(&mut self, stream: StreamId) {
        self.tell(Input::DialFailed(stream, DialError::Refused));
    }

    /// The driver itself moves bytes along an opaque direction.
    pub(crate) fn pass_on(&mut self, from: StreamId, bytes: &[u8]) {
        let Direction::Opaque { to } = self.engine.direction(from) else { panic!("not opaque") };
        open(&mut self.wires, to).queue.extend(bytes);
        self.tell(Input::PassedOn(from, bytes.len()));
        self.flush(to);
    }

    pub(crate) fn tell(&mut self, input: Input<'_>) {
        let now = self.now();
        self.engine.handle(now, input, &mut self.actions);
        self.carry_out(&[]);
    }

    /// From now on the peer takes nothing.
    pub(crate) fn stall(&mut self, stream: StreamId) {
        self.wires.get_mut(&stream).unwrap().is_stalled = true;
    }

    /// The peer takes `len` bytes of what is queued for it.
    pub(crate) fn drain(&mut self, stream: StreamId, len: usize) {
        let wire = self.wires.get_mut(&stream).unwrap();
        assert!(len <= wire.queue.len(), "only {} bytes are queued", wire.queue.len());
        wire.heard.extend(wire.queue.drain(..len));
        let now = self.now();
        self.engine.sent(now, stream, len, &mut self.actions);
        self.carry_out(&[]);
    }

    /// The peer takes everything from now on.
    pub(crate) fn unstall(&mut self, stream: StreamId) {
        self.wires.get_mut(&stream).unwrap().is_stalled = false;
        self.flush(stream);
    }

    pub(crate) fn queued_len(&self, stream: StreamId) -> usize {
        self.wires[&stream].queue.len()
    }

    pub(crate) fn heard(&self, stream: StreamId) -> &[u8] {
        &self.wires[&stream].heard
    }

    pub(crate) fn dialled(&self, stream: StreamId) -> &[SocketAddr] {
        &self.wires[&stream].dialled
    }

    /// Streams that are being dialled, and where.
    pub(crate) fn dialing(&self) -> Vec<(StreamId, SocketAddr)> {
        let is_dialled = |wire: &&Wire| !wire.is_connected && wire.end.is_none();
        let last = |(stream, wire): (&StreamId, &Wire)| Some((*stream, *wire.dialled.last()?));
        self.wires.iter().filter(|(_, wire)| is_dialled(wire)).filter_map(last).collect()
    }

    /// True if something is to be done at this moment.
    pub(crate) fn is_due(&self) -> bool {
        self.engine.next_timeout().is_some_and(|at| at <= self.now().instant)
    }

    /// The stream dialled last.
    pub(crate) fn upstream(&self) -> Option<StreamId> {
        self.latest_dialled
    }

    pub(crate) fn told(&self, stream: StreamId) -> Told {
        let wire = &self.wires[&stream];
        match wire.end {
            Some(end) => end,
            None if !wire.is_connected => Told::Dialled(wire.dialled.len()),
            None if wire.is_shut_down && wire.queue.is_empty() => Told::Fin,
            None => Told::Nothing,
        }
    }

    /// Peers whose session is over, and who have heard everything and FIN, end their side as well.
    pub(crate) fn answer_farewells(&mut self) {
        let has_heard_fin = |wire: &Wire| {
            wire.end.is_none() && wire.is_connected && wire.is_shut_down && wire.queue.is_empty()
        };
        let told: Vec<StreamId> =
            self.wires.iter().filter(|(_, wire)| has_heard_fin(wire)).map(|(stream, _)| *stream).collect();
        for stream in told {
            if self.engine.direction(stream) == Direction::Unsettled {
                self.fin(stream);
            }
        }
    }

    /// Time passes, and deadlines with it.
    pub(crate) fn wait(&mut self, duration: Duration) {
        let until = self.elapsed + duration;
        while let Some(timeout) = self.engine.next_timeout() {
            let timeout = timeout.since(Instant::ORIGIN);
            if timeout > until {
                break;
            }
            self.elapsed = self.elapsed.max(timeout);
            self.time_out();
        }
        self.elapsed = until;
    }

    /// Waits for the next deadline and not longer. Answers how long that took.
    pub(crate) fn wait_for_timeout(&mut self) -> Duration {
        let timeout = self.engine.next_timeout().expect("something waits for time").since(Instant::ORIGIN);
        let waited = timeout.saturating_sub(self.elapsed);
        self.elapsed += waited;
        self.time_out();
        waited
    }

    pub(crate) fn time_out(&mut self) {
        let now = self.now();
        self.engine.time_out(now, &mut self.actions);
        self.carry_out(&[]);
    }

    pub(crate) fn stop(&mut self) {
        let now = self.now();
        self.engine.stop(now, &mut self.actions);
        self.carry_out(&[]);
    }

    pub(crate) fn set_config(&mut self, config: Config) {
        self.engine.set_config(Arc::new(config));
    }

    pub(crate) fn reported(&self) -> impl DoubleEndedIterator<Item = What> {
        self.events.iter().map(|event| event.what)
    }

    pub(crate) fn has_reported(&self, what: What) -> bool {
        self.reported().any(|reported| reported == what)
    }

    pub(crate) fn outcome(&self) -> Option<Result<(), DropReason>> {
        self.reported().find_map(|what| match what {
            What::Ended { outcome, .. } => Some(outcome),
            _ => None,
        })
    }

    /// Some session has ended for this reason.
    pub(crate) fn has_ended_with(&self, why: DropReason) -> bool {
        self.reported().any(|what| matches!(what, What::Ended { outcome: Err(reason), .. } if reason == why))
    }

    /// The same, once peers have answered the farewells that were said to them.
    pub(crate) fn has_ended_with_after_farewell(&mut self, why: DropReason) -> bool {
        self.answer_farewells();
        self.has_ended_with(why)
    }

    /// No session, stream or deadline is left.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.engine.session_count(), 0, "sessions left");
        assert_eq!((self.engine.leftovers(), self.engine.next_timeout()), ((0, 0), None));
        for (stream, wire) in &self.wires {
            assert!(wire.end.is_some(), "{stream:?} was never closed");
        }
    }

    fn carry_out(&mut self, input: &[u8]) {
        let mut written = Vec::new();
        for action in self.actions.as_slice() {
            match action {
                Action::Dial { stream, address } => {
                    self.latest_dialled = Some(*stream);
                    self.wires.entry(*stream).or_default().dialled.push(*address);
                }
                Action::Write { to, range } => {
                    open(&mut self.wires, *to).queue.extend(&self.actions.bytes()[range.clone()]);
                    written.push(*to);
                }
                Action::Relay { to, range } => {
                    open(&mut self.wires, *to).queue.extend(&input[range.clone()]);
                    written.push(*to);
                }
                Action::Shutdown(stream) => open(&mut self.wires, *stream).is_shut_down = true,
                Action::Close(stream) => {
                    let wire = self.wires.get_mut(stream).unwrap();
                    assert!(wire.queue.is_empty(), "closed with {} bytes queued", wire.queue.len());
                    assert_eq!(wire.end.replace(Told::Closed), None, "closed twice");
                }
                Action::Abort(stream) => {
                    let wire = self.wires.get_mut(stream).unwrap();
                    wire.queue.clear();
                    assert_eq!(wire.end.replace(Told::Rst), None, "closed twice");
                }
                Action::Resume(stream) => self.resumed.push(*stream),
                Action::Report(event) => self.events.push(*event),
            }
        }
        self.actions.clear();
        for stream in written {
            self.flush(stream);
        }
    }

    /// Lets a peer that is there and does not stall take everything.
    fn flush(&mut self, stream: StreamId) {
        let wire = &self.wires[&stream];
        if wire.is_connected && !wire.is_stalled && wire.end.is_none() && !wire.queue.is_empty() {
            self.drain(stream, wire.queue.len());
        }
    }
}

/// The wire of `stream`, to which nothing may be added behind its end.
fn open(wires: &mut BTreeMap<StreamId, Wire>, stream: StreamId) -> &mut Wire {
    let wire = wires.get_mut(&stream).unwrap();
    assert!(wire.end.is_none() && !wire.is_shut_down, "{stream:?} has already been told its end");
    wire
}
