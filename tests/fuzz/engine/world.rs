//! One engine, the streams it knows, and everybody at their other ends; and what must always hold:
//!
//! * the engine asks nothing of a stream that is gone, sends nothing behind a FIN, and closes nothing that
//!   still has something queued;
//! * who respects credit meets bounded queues, and is resumed once there is room again;
//! * a stranger's bytes are exactly what the front gets, and the front's what the stranger gets;
//! * each session ends once, and until then waits for some deadline; so all of them end by themselves;
//! * nothing is left when all sessions are over, and bytes are counted as they were handed in.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use mtproxy_core::action::{Action, Actions};
use mtproxy_core::config::{Config, Front, Fronts, Timeouts};
use mtproxy_core::credentials::Credentials;
use mtproxy_core::dc::{DcId, DcTable, PreferIp};
use mtproxy_core::engine::{Direction, Engine, Input};
use mtproxy_core::event::{DialError, Event, What};
use mtproxy_core::keyed_hash::KeyedHash;
use mtproxy_core::policy::replay::ReplayCache;
use mtproxy_core::random::Random;
use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_core::stream::{Leg, StreamId};
use mtproxy_core::time::{Instant, Now, UnixSeconds};
use mtproxy_tests::cast::{ends_in_memory, proxy_in_memory};

use super::PAYLOAD_LEN_MAX;
use super::person::{DOMAIN, FAKE_TLS_KEY, OTHER_DOMAIN, PADDED_KEY, PLAIN_KEY, Person};

const UNIX_SECONDS: i64 = 1_700_000_000;
const WINDOW_BYTES_MAX: usize = 1 << 16;
/// What credit admits, and beside it an init frame, the headers of the records that one full window is cut
/// into, and what the driver itself passes on at once.
const QUEUED_BYTES_MAX: usize = WINDOW_BYTES_MAX + 64 + 5 * 16 + PAYLOAD_LEN_MAX;
const SESSIONS_MAX: usize = 40;

/// The driver's end of one stream.
pub(crate) struct Wire {
    session: usize,
    pub(crate) leg: Leg,
    pub(crate) is_connected: bool,
    pub(crate) queued_len: usize,
    is_shut_down: bool,
    has_ended: bool,
    /// There was no credit: not read again before `Resume`.
    is_stopped: bool,
}

impl Wire {
    fn new(session: usize, leg: Leg) -> Self {
        Self {
            session,
            leg,
            is_connected: leg == Leg::Client,
            queued_len: 0,
            is_shut_down: false,
            has_ended: false,
            is_stopped: false,
        }
    }

    /// Its peer may send.
    pub(crate) fn may_speak(&self) -> bool {
        self.is_connected && !self.has_ended
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unknown,
    Member,
    Stranger,
}

/// What is known of a session from outside.
struct Session {
    person: Person,
    standing: Standing,
    is_over: bool,
    streams: [Option<StreamId>; 2],
    /// By the leg they came from; without those that came while the session took leave.
    received: [Vec<u8>; 2],
    /// Those included.
    received_len: [u64; 2],
    /// By the leg they were for.
    queued: [Vec<u8>; 2],
    /// What the client has understood of it.
    heard_payload_len: usize,
}

pub(crate) struct World {
    engine: Engine,
    actions: Actions,
    elapsed: Duration,
    clock_error_seconds: i64,
    sessions: Vec<Session>,
    wires: BTreeMap<StreamId, Wire>,
    gone: Vec<StreamId>,
    overheard: Vec<u8>,
    received_len: [u64; 2],
}

impl World {
    pub(crate) fn new() -> Self {
        let mut random = Random::from_seed([7; 32]);
        // Small, so that it overflows.
        let admission = ReplayCache::new(8, KeyedHash::new(&mut random));
        Self {
            engine: Engine::new(Arc::clone(&CONFIGS[0]), random.bytes(), Box::new(admission)),
            actions: Actions::new(),
            elapsed: Duration::ZERO,
            clock_error_seconds: 0,
            sessions: Vec::new(),
            wires: BTreeMap::new(),
            gone: Vec::new(),
            overheard: Vec::new(),
            received_len: [0; 2],
        }
    }

    fn now(&self) -> Now {
        let unix = UNIX_SECONDS + self.clock_error_seconds + self.elapsed.as_secs() as i64;
        Now { instant: Instant::after_origin(self.elapsed), unix: UnixSeconds(unix.unsigned_abs()) }
    }

    /// The streams that are alive and fit.
    pub(crate) fn streams(&self, fits: impl Fn(&Wire) -> bool) -> Vec<StreamId> {
        self.wires.iter().filter(|(_, wire)| fits(wire)).map(|(stream, _)| *stream).collect()
    }

    pub(crate) fn person(&mut self, client: StreamId) -> &mut Person {
        &mut self.sessions[self.wires[&client].session].person
    }

    pub(crate) fn accept(&mut self, kind: usize, number: usize) {
        if self.sessions.len() == SESSIONS_MAX {
            return;
        }
        let now = self.now();
        let index = self.sessions.len();
        let client_clock = now.unix.0 as u32;
        let person = Person::new(kind, index as u8 + 1, client_clock, &self.overheard);
        self.overheard = person.opening().to_vec();
        let source = IpAddr::from([192, 0, 2, number as u8 % 4]);
        let client = self.engine.accept(now, ends_in_memory(source), &mut self.actions);
        self.sessions.push(Session {
            person,
            standing: Standing::Unknown,
            is_over: false,
            streams: [Some(client), None],
            received: [Vec::new(), Vec::new()],
            received_len: [0; 2],
            queued: [Vec::new(), Vec::new()],
            heard_payload_len: 0,
        });
        let known = self.wires.insert(client, Wire::new(index, Leg::Client));
        assert!(known.is_none() && !self.gone.contains(&client), "a name is given twice");
        self.carry_out(Some(index), &[]);
    }

    /// The client says what it would say next, as far as there is credit.
    pub(crate) fn say_next(&mut self, client: StreamId, number: usize) {
        let speech = self.person(client).speech(number);
        let session = self.wires[&client].session;
        let said_len = self.hand_in(client, &speech);
        self.sessions[session].person.keep(&speech[said_len..]);
    }

    /// Hands in as much of `bytes` as there is credit for.
    pub(crate) fn hand_in(&mut self, from: StreamId, bytes: &[u8]) -> usize {
        let mut bytes = bytes[..self.admitted_len(from, bytes.len())].to_vec();
        if !bytes.is_empty() {
            let session = self.note_received(from, &bytes);
            let now = self.now();
            self.engine.handle(now, Input::Bytes(from, &mut bytes), &mut self.actions);
            self.carry_out(Some(session), &bytes);
        }
        bytes.len()
    }

    /// The driver itself moves bytes to the other side, if the engine need not see them.
    pub(crate) fn pass_on(&mut self, from: StreamId, bytes: &[u8]) {
        let Direction::Opaque { to } = self.engine.direction(from) else { return };
        // Where there is credit at all, a pipe may take more.
        if self.admitted_len(from, bytes.len()) > 0 {
            let session = self.note_received(from, bytes);
            self.queue(to, bytes);
            self.tell(session, Input::PassedOn(from, bytes.len()));
        }
    }

    fn admitted_len(&mut self, from: StreamId, len: usize) -> usize {
        let credit = self.engine.credit(from);
        self.wire(from).is_stopped |= credit == 0;
        credit.min(len)
    }

    fn note_received(&mut self, from: StreamId, bytes: &[u8]) -> usize {
        let (index, leg) = (self.wires[&from].session, self.wires[&from].leg as usize);
        let session = &mut self.sessions[index];
        session.received_len[leg] += bytes.len() as u64;
        self.received_len[leg] += bytes.len() as u64;
        // With an upstream, bytes go nowhere only when the session takes leave.
        let goes_nowhere = self.engine.direction(from) == Direction::Unsettled;
        if session.streams[Leg::Upstream as usize].is_none() || !goes_nowhere {
            session.received[leg].extend_from_slice(bytes);
        }
        index
    }

    pub(crate) fn answer(&mut self, dialled: StreamId) {
        self.wire(dialled).is_connected = true;
        self.tell(self.wires[&dialled].session, Input::Connected(dialled, proxy_in_memory()));
    }

    pub(crate) fn refuse(&mut self, dialled: StreamId, why: DialError) {
        self.tell(self.wires[&dialled].session, Input::DialFailed(dialled, why));
    }

    pub(crate) fn sent(&mut self, stream: StreamId, len_max: usize) {
        let wire = self.wire(stream);
        let len = wire.queued_len.min(len_max);
        wire.queued_len -= len;
        let (session, now) = (wire.session, self.now());
        self.engine.sent(now, stream, len, &mut self.actions);
        self.carry_out(Some(session), &[]);
    }

    pub(crate) fn fin(&mut self, stream: StreamId) {
        self.wire(stream).has_ended = true;
        self.tell(self.wires[&stream].session, Input::Eof(stream));
    }

    pub(crate) fn reset(&mut self, stream: StreamId) {
        let session = self.forget(stream).session;
        self.tell(session, Input::Reset(stream));
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.elapsed += duration;
    }

    pub(crate) fn wait_for_timeout(&mut self) {
        if let Some(timeout) = self.engine.next_timeout() {
            self.elapsed = self.elapsed.max(timeout.since(Instant::ORIGIN));
            self.time_out();
        }
    }

    pub(crate) fn time_out(&mut self) {
        let now = self.now();
        self.engine.time_out(now, &mut self.actions);
        self.carry_out(None, &[]);
        let next = self.engine.next_timeout();
        assert!(next.is_none_or(|next| next > now.instant), "a deadline that has passed is still armed");
    }

    /// The wall clock is set, forward or back, by up to nine hours.
    pub(crate) fn turn_clock(&mut self, number: usize) {
        self.clock_error_seconds = number as i64 - 0x8000;
    }

    pub(crate) fn configure(&mut self, number: usize) {
        self.engine.set_config(Arc::clone(&CONFIGS[number % CONFIGS.len()]));
    }

    /// Something comes for a stream that is gone: a driver learns late.
    pub(crate) fn tell_late(&mut self, who: usize, number: usize) {
        if self.gone.is_empty() {
            return;
        }
        let (stream, now) = (self.gone[who % self.gone.len()], self.now());
        let mut bytes = [0; 9];
        let input = match number % 6 {
            0 => Input::Connected(stream, proxy_in_memory()),
            1 => Input::DialFailed(stream, DialError::TimedOut),
            2 => Input::Bytes(stream, &mut bytes),
            3 => Input::PassedOn(stream, number),
            4 => Input::Eof(stream),
            _ => Input::Reset(stream),
        };
        self.engine.handle(now, input, &mut self.actions);
        self.engine.sent(now, stream, number, &mut self.actions);
        assert_eq!(self.actions.as_slice(), [], "a stream that is gone still acts");
        assert_eq!((self.engine.credit(stream), self.engine.direction(stream)), (0, Direction::Unsettled));
    }

    pub(crate) fn stop(&mut self) {
        let now = self.now();
        self.engine.stop(now, &mut self.actions);
        self.carry_out(None, &[]);
    }

    /// Nobody does anything any more; deadlines alone must end every session.
    pub(crate) fn wait_until_all_is_over(&mut self) {
        // Fronted too late, every address dialled, idle, and flushed.
        const DEADLINES_OF_A_SESSION_MAX: usize = 16;
        for _ in 0..DEADLINES_OF_A_SESSION_MAX * SESSIONS_MAX {
            self.wait_for_timeout();
            self.assert_invariants();
        }
    }

    fn tell(&mut self, session: usize, input: Input<'_>) {
        let now = self.now();
        self.engine.handle(now, input, &mut self.actions);
        self.carry_out(Some(session), &[]);
    }

    /// `session` is the one that was told something; `None`: any.
    fn carry_out(&mut self, session: Option<usize>, input: &[u8]) {
        let actions = std::mem::take(&mut self.actions);
        let mut acting = session;
        for action in actions.as_slice() {
            match action {
                Action::Report(Event { session: number, what }) => {
                    let index = usize::try_from(number.0).expect("few sessions") - 1;
                    assert!(session.is_none_or(|told| told == index), "another session answers");
                    acting = Some(index);
                    self.note(index, *what);
                }
                Action::Dial { stream, .. } => self.dial(*stream, acting),
                Action::Write { to, range } => self.queue(*to, &actions.bytes()[range.clone()]),
                Action::Relay { to, range } => self.queue(*to, &input[range.clone()]),
                Action::Shutdown(stream) => {
                    let wire = self.wire(*stream);
                    assert!(!std::mem::replace(&mut wire.is_shut_down, true), "FIN is sent twice");
                }
                Action::Close(stream) => {
                    let wire = self.forget(*stream);
                    assert_eq!(wire.queued_len, 0, "closed with something queued");
                }
                Action::Abort(stream) => drop(self.forget(*stream)),
                Action::Resume(stream) => self.wire(*stream).is_stopped = false,
            }
        }
        self.actions = actions;
        self.actions.clear();
    }

    fn note(&mut self, index: usize, what: What) {
        let session = &mut self.sessions[index];
        assert!(!session.is_over, "{what:?} behind the end");
        match what {
            What::Greeted { .. } | What::Authenticated { .. } => session.standing = Standing::Member,
            What::Fronted(_) => {
                assert_eq!(session.standing, Standing::Unknown, "a member is fronted");
                session.standing = Standing::Stranger;
            }
            What::Ended { from_client_bytes, from_upstream_bytes, .. } => {
                session.is_over = true;
                assert_eq!([from_client_bytes, from_upstream_bytes], session.received_len);
                for stream in session.streams.into_iter().flatten() {
                    assert!(!self.wires.contains_key(&stream), "a session ends before its streams");
                }
                self.assert_relayed(index);
            }
            _ => {}
        }
    }

    fn dial(&mut self, stream: StreamId, acting: Option<usize>) {
        if let Some(wire) = self.wires.get(&stream) {
            assert!(!wire.is_connected && wire.leg == Leg::Upstream, "dialled although connected");
            return;
        }
        let index = acting.expect("a session that dials in time has said why");
        let upstream = &mut self.sessions[index].streams[Leg::Upstream as usize];
        assert!(upstream.replace(stream).is_none(), "a second upstream");
        assert!(!self.gone.contains(&stream), "a name is given twice");
        self.wires.insert(stream, Wire::new(index, Leg::Upstream));
    }

    fn queue(&mut self, to: StreamId, bytes: &[u8]) {
        let wire = self.wire(to);
        assert!(!wire.is_shut_down, "output behind a FIN");
        assert!(!bytes.is_empty(), "nothing is sent");
        wire.queued_len += bytes.len();
        let (session, leg) = (&mut self.sessions[self.wires[&to].session], self.wires[&to].leg);
        session.queued[leg as usize].extend_from_slice(bytes);
        if leg == Leg::Client && session.standing != Standing::Stranger {
            session.heard_payload_len += session.person.hear(bytes);
        }
    }

    /// The live end of `stream`.
    fn wire(&mut self, stream: StreamId) -> &mut Wire {
        self.wires.get_mut(&stream).expect("the engine speaks of a stream that is gone")
    }

    fn forget(&mut self, stream: StreamId) -> Wire {
        self.gone.push(stream);
        self.wires.remove(&stream).expect("the engine speaks of a stream that is gone")
    }

    pub(crate) fn assert_invariants(&self) {
        let open = self.sessions.iter().filter(|session| !session.is_over).count();
        assert_eq!(self.engine.session_count(), open);
        assert_eq!(self.engine.next_timeout().is_some(), open > 0, "a session waits for nothing");
        assert_eq!(self.engine.leftovers(), (0, 0));
        let counted = [Leg::Client, Leg::Upstream].map(|leg| self.engine.received_bytes(leg));
        assert_eq!(counted, self.received_len);
        for (stream, wire) in &self.wires {
            assert!(wire.queued_len <= QUEUED_BYTES_MAX, "{} bytes are queued", wire.queued_len);
            let session = &self.sessions[wire.session];
            let opposite = session.streams[wire.leg.other() as usize];
            let has_room = opposite.and_then(|id| self.wires.get(&id)).is_none_or(|to| to.queued_len == 0);
            let is_forgotten = wire.is_stopped && !wire.has_ended && has_room;
            assert!(!is_forgotten || self.engine.credit(*stream) == 0, "there is room again; nobody resumes");
        }
    }

    /// What came from one side is what was queued for the other.
    fn assert_relayed(&self, index: usize) {
        let session = &self.sessions[index];
        let [from_client, from_upstream] = &session.received;
        let [to_client, to_upstream] = &session.queued;
        if session.streams[Leg::Upstream as usize].is_none() {
            return;
        }
        match session.standing {
            Standing::Stranger => {
                assert!(to_upstream == from_client, "a stranger's bytes are the front's");
                assert!(to_client == from_upstream, "the front's bytes are the stranger's");
            }
            Standing::Member => {
                // In fake TLS headers come off on the way up.
                assert!(to_upstream.len() <= from_client.len(), "more is sent than came");
                if session.person.codec.is_some() {
                    assert_eq!(session.heard_payload_len, from_upstream.len());
                }
            }
            Standing::Unknown => panic!("nobody in particular was connected"),
        }
    }

    pub(crate) fn assert_nothing_is_left(&self) {
        self.assert_invariants();
        assert_eq!((self.engine.session_count(), self.wires.len()), (0, 0));
    }
}

/// What a reload may change. The first is where every world begins.
static CONFIGS: LazyLock<Vec<Arc<Config>>> = LazyLock::new(|| {
    let first = config();
    let second = Duration::from_secs(1);
    let hurried =
        Timeouts { first_byte: second, handshake: second, dial: second, idle: second, linger: second };
    let configs = [
        first.clone(),
        Config { relay_window_bytes: 4096, credentials: credentials([2, 0]), ..first.clone() },
        Config { fronts: Fronts::default(), ..first.clone() },
        Config { fronts: fronts(&[], 0), timeouts: hurried, ..first.clone() },
        Config { fronts: fronts(&[front_address()], u16::MAX), credentials: credentials([1]), ..first },
    ];
    configs.map(Arc::new).to_vec()
});

fn config() -> Config {
    let mut dc_table = DcTable::builtin(PreferIp::V4);
    dc_table
        .set(DcId(2), vec![SocketAddr::from(([192, 0, 2, 1], 443)), SocketAddr::from(([192, 0, 2, 2], 443))]);
    // Unknown ones have no address.
    dc_table.set_default(DcId(999));
    Config {
        credentials: credentials([0, 1, 2]),
        fronts: fronts(&[front_address(), SocketAddr::from(([198, 51, 100, 2], 443))], 2000),
        dc_table,
        middle_proxies: None,
        timeouts: Timeouts::default(),
        relay_window_bytes: WINDOW_BYTES_MAX,
    }
}

fn front_address() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], 443))
}

fn fronts(addresses: &[SocketAddr], flight_len: u16) -> Fronts {
    Fronts::new([DOMAIN, OTHER_DOMAIN].map(|domain| Front {
        domain: domain.parse().expect("a domain"),
        addresses: addresses.to_vec(),
        flight_len,
    }))
}

/// Those of the three secrets, in this order.
fn credentials<const N: usize>(order: [usize; N]) -> Credentials {
    let domain = DOMAIN.parse().expect("a domain");
    let all = [
        ("plain", Secret::new(PLAIN_KEY, SecretKind::Plain)),
        ("padded", Secret::new(PADDED_KEY, SecretKind::Padded)),
        ("fake TLS", Secret::new(FAKE_TLS_KEY, SecretKind::FakeTls(domain))),
    ];
    Credentials::new(order.map(|index| (all[index].0.to_owned(), all[index].1.clone())))
}
