//! Engines and clients to drive them with.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use mtproxy_core::action::{Action, Actions};
use mtproxy_core::config::{Config, Front, Fronts, RELAY_WINDOW_BYTES_DEFAULT, Timeouts};
use mtproxy_core::credentials::Credentials;
use mtproxy_core::dc::{DcId, DcTable, PreferIp};
use mtproxy_core::engine::{Engine, Input};
use mtproxy_core::keyed_hash::KeyedHash;
use mtproxy_core::policy::replay::ReplayCache;
use mtproxy_core::random::Random;
use mtproxy_core::secret::{Key, Secret, SecretKind};
use mtproxy_core::stream::StreamId;
use mtproxy_core::time::{Instant, Now, UnixSeconds};
use mtproxy_tests::client_codec::{ClientCodec, ClientOptions};

/// What the ee clients greet.
pub(crate) const DOMAIN: &str = "front.example";
/// The size of a usual front's first flight.
const FLIGHT_LEN: u16 = 2500;
const CLOCK: u32 = 1_700_000_000;
/// Hellos remembered: a bound, so that a bench that runs for long stays in cache as a proxy would.
const REPLAY_ENTRIES: usize = 1 << 17;

/// The moment at which everything happens.
pub(crate) fn now() -> Now {
    let instant = Instant::after_origin(Duration::from_secs(1));
    Now { instant, unix: UnixSeconds(u64::from(CLOCK)) }
}

/// The key of secret `index`.
pub(crate) fn key(index: usize) -> Key {
    let mut key = [0x5a; 16];
    key[..8].copy_from_slice(&(index as u64).to_le_bytes());
    key
}

/// Bare secrets, as an operator with many users has them.
pub(crate) fn credentials(count: usize) -> Credentials {
    Credentials::new((0..count).map(|i| (format!("user{i}"), Secret::new(key(i), SecretKind::Plain))))
}

/// How a client speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Plain,
    Dd,
    /// With a hello of so many bytes.
    Ee(usize),
}

/// A client under secret `index`.
pub(crate) fn client(mode: Mode, index: usize, seed: u64) -> ClientCodec {
    let (kind, hello_len) = match mode {
        Mode::Plain => (SecretKind::Plain, None),
        Mode::Dd => (SecretKind::Padded, None),
        Mode::Ee(len) => (SecretKind::FakeTls(DOMAIN.parse().expect("a domain")), Some(len)),
    };
    let options = ClientOptions::new(Secret::new(key(index), kind), DcId(2), CLOCK);
    let options = match hello_len {
        Some(len) => options.with_hello_len(len),
        None => options,
    };
    ClientCodec::new(options, random(seed))
}

/// A generator of its own for each seed.
pub(crate) fn random(seed: u64) -> Random {
    let mut bytes = [3; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Random::from_seed(bytes)
}

/// An engine and the buffers of its driver.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) actions: Actions,
}

/// The two streams of a session that relays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    pub(crate) client: StreamId,
    pub(crate) upstream: StreamId,
}

impl Rig {
    /// An engine with so many secrets.
    pub(crate) fn new(secrets: usize) -> Self {
        let domain = DOMAIN.parse().expect("a domain");
        let front = Front { domain, addresses: Vec::new(), flight_len: FLIGHT_LEN };
        let config = Config {
            credentials: credentials(secrets),
            fronts: Fronts::new([front]),
            dc_table: DcTable::builtin(PreferIp::V4),
            timeouts: Timeouts::default(),
            relay_window_bytes: RELAY_WINDOW_BYTES_DEFAULT,
        };
        let cache = ReplayCache::new(REPLAY_ENTRIES, KeyedHash::new(&mut random(1)));
        Self { engine: Engine::new(Arc::new(config), [4; 32], Box::new(cache)), actions: Actions::new() }
    }

    /// From accept to the first byte that is relayed, without the network in between. `hello` is the
    /// first flight of an ee client, `init` the init frame or the records that hold it.
    pub(crate) fn establish(&mut self, source: u32, hello: Option<&mut [u8]>, init: &mut [u8]) -> Streams {
        let source = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | source & 0x00ff_ffff));
        self.actions.clear();
        let client = self.engine.accept(now(), source, &mut self.actions);
        if let Some(hello) = hello {
            self.input(Input::Bytes(client, hello));
            let sent = self.written_to(client);
            assert!(sent > 0, "an authentic hello is answered");
            self.engine.sent(now(), client, sent, &mut self.actions);
        }
        self.input(Input::Bytes(client, init));
        let upstream = self.dialled().expect("an authentic init frame makes the engine dial");
        let sent = self.written_to(upstream);
        self.input(Input::Connected(upstream));
        self.engine.sent(now(), upstream, sent, &mut self.actions);
        Streams { client, upstream }
    }

    /// Both connections break.
    pub(crate) fn end(&mut self, streams: Streams) {
        self.input(Input::Reset(streams.client));
        self.input(Input::Reset(streams.upstream));
        debug_assert_eq!(self.engine.session_count(), 0);
    }

    /// One input; its actions replace those of the one before.
    pub(crate) fn input(&mut self, input: Input<'_>) {
        self.actions.clear();
        self.engine.handle(now(), input, &mut self.actions);
    }

    /// Bytes that the actions at hand send to `stream`.
    pub(crate) fn written_to(&self, stream: StreamId) -> usize {
        let len = |action: &Action| match action {
            Action::Write { to, range } | Action::Relay { to, range } if *to == stream => range.len(),
            _ => 0,
        };
        self.actions.as_slice().iter().map(len).sum()
    }

    fn dialled(&self) -> Option<StreamId> {
        self.actions.as_slice().iter().find_map(|action| match action {
            Action::Dial { stream, .. } => Some(*stream),
            _ => None,
        })
    }
}
