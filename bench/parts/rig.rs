//! Engines, and the first flights of clients to drive them with.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use mtproxy_core::action::{Action, Actions};
use mtproxy_core::config::{Config, Front, Fronts, RELAY_WINDOW_BYTES_DEFAULT, Timeouts};
use mtproxy_core::credentials::Credentials;
use mtproxy_core::dc::{DcId, DcTable, PreferIp};
use mtproxy_core::engine::{Engine, Input};
use mtproxy_core::keyed_hash::KeyedHash;
use mtproxy_core::policy::replay::{HelloAdmission, ReplayCache};
use mtproxy_core::random::Random;
use mtproxy_core::secret::{Key, Secret, SecretKind};
use mtproxy_core::stream::StreamId;
use mtproxy_core::time::{Instant, Now, UnixSeconds};
use mtproxy_tests::cast::{ends_in_memory, proxy_in_memory};
use mtproxy_tests::client_codec::{ClientCodec, ClientOptions};
use mtproxy_tests::tls_record::{CHANGE_CIPHER_SPEC, CLIENT_BODY_LEN_MAX, write_records};

/// What the ee clients greet.
pub const DOMAIN: &str = "front.example";
/// The size of a usual front's first flight.
const FLIGHT_LEN: u16 = 2500;
/// The data centre that every client asks for.
pub const DC: DcId = DcId(2);
const CLOCK: u32 = 1_700_000_000;
/// Hellos remembered: a bound, so that a bench that runs for long stays in cache as a proxy would.
const REPLAY_ENTRIES: usize = 1 << 17;

/// The moment at which everything happens, or begins to.
#[must_use]
pub fn now() -> Now {
    let instant = Instant::after_origin(Duration::from_secs(1));
    Now { instant, unix: UnixSeconds(u64::from(CLOCK)) }
}

/// The key of secret `index`.
#[must_use]
pub fn key(index: usize) -> Key {
    let mut key = [0x5a; 16];
    key[..8].copy_from_slice(&(index as u64).to_le_bytes());
    key
}

/// Bare secrets, as an operator with many users has them.
#[must_use]
pub fn credentials(count: usize) -> Credentials {
    Credentials::new((0..count).map(|i| (format!("user{i}"), Secret::new(key(i), SecretKind::Plain))))
}

/// How a client speaks.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// Obfuscated2, intermediate.
    Plain,
    /// Obfuscated2, padded intermediate.
    Dd,
    /// With a hello of so many bytes.
    Ee(usize),
}

/// A client under secret `index`.
///
/// # Panics
/// Never: the domain is a constant.
#[must_use]
pub fn client(mode: Mode, index: usize, seed: u64) -> ClientCodec {
    let (kind, hello_len) = match mode {
        Mode::Plain => (SecretKind::Plain, None),
        Mode::Dd => (SecretKind::Padded, None),
        Mode::Ee(len) => (SecretKind::FakeTls(DOMAIN.parse().expect("a domain")), Some(len)),
    };
    let options = ClientOptions::new(Secret::new(key(index), kind), DC, CLOCK);
    let options = match hello_len {
        Some(len) => options.with_hello_len(len),
        None => options,
    };
    ClientCodec::new(options, random(seed))
}

/// A generator of its own for each seed.
#[must_use]
pub fn random(seed: u64) -> Random {
    let mut bytes = [3; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Random::from_seed(bytes)
}

/// CCS and a record with an init frame: what an ee client sends behind its hello. Made without waiting for the
/// server's flight, on which it does not depend.
#[must_use]
pub fn inner_init_frame(secret: usize, seed: u64) -> Vec<u8> {
    let frame = client(Mode::Dd, secret, !seed).opening();
    let mut wire = CHANGE_CIPHER_SPEC.to_vec();
    write_records(&frame, CLIENT_BODY_LEN_MAX, &mut wire);
    wire
}

/// An engine and the buffers of its driver.
pub struct Rig {
    /// With one front and the data centres that are built in.
    pub engine: Engine,
    /// What the last input led to.
    pub actions: Actions,
}

/// The two streams of a session that relays.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// To the client.
    pub client: StreamId,
    /// To the data centre.
    pub upstream: StreamId,
}

impl Rig {
    /// An engine with so many secrets.
    #[must_use]
    pub fn new(secrets: usize) -> Self {
        let cache = ReplayCache::new(REPLAY_ENTRIES, KeyedHash::new(&mut random(1)));
        Self::with_admission(secrets, Box::new(cache))
    }

    /// The same, where `admission` decides on hellos.
    ///
    /// # Panics
    /// Never: the domain is a constant.
    #[must_use]
    pub fn with_admission(secrets: usize, admission: Box<dyn HelloAdmission + Send>) -> Self {
        let domain = DOMAIN.parse().expect("a domain");
        let front = Front { domain, addresses: Vec::new(), flight_len: FLIGHT_LEN };
        let config = Config {
            credentials: credentials(secrets),
            fronts: Fronts::new([front]),
            dc_table: DcTable::builtin(PreferIp::V4),
            middle_proxies: None,
            timeouts: Timeouts::default(),
            relay_window_bytes: RELAY_WINDOW_BYTES_DEFAULT,
        };
        Self { engine: Engine::new(Arc::new(config), [4; 32], admission), actions: Actions::new() }
    }

    /// From accept to the first byte that is relayed, without the network in between. `hello` is the
    /// first flight of an ee client, `init` the init frame or the records that hold it.
    ///
    /// # Panics
    /// If the engine takes either for a stranger's.
    pub fn establish(&mut self, source: u32, hello: Option<&mut [u8]>, init: &mut [u8]) -> Streams {
        let source = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | source & 0x00ff_ffff));
        self.actions.clear();
        let client = self.engine.accept(now(), ends_in_memory(source), &mut self.actions);
        if let Some(hello) = hello {
            self.input(Input::Bytes(client, hello));
            let sent = self.written_to(client);
            assert!(sent > 0, "an authentic hello is answered");
            self.engine.sent(now(), client, sent, &mut self.actions);
        }
        self.input(Input::Bytes(client, init));
        let upstream = self.dialled().expect("an authentic init frame makes the engine dial");
        let sent = self.written_to(upstream);
        self.input(Input::Connected(upstream, proxy_in_memory()));
        self.engine.sent(now(), upstream, sent, &mut self.actions);
        Streams { client, upstream }
    }

    /// Both connections break.
    pub fn end(&mut self, streams: Streams) {
        self.input(Input::Reset(streams.client));
        self.input(Input::Reset(streams.upstream));
        debug_assert_eq!(self.engine.session_count(), 0);
    }

    /// One input; its actions replace those of the one before.
    pub fn input(&mut self, input: Input<'_>) {
        self.actions.clear();
        self.engine.handle(now(), input, &mut self.actions);
    }

    /// Bytes that the actions at hand send to `stream`.
    #[must_use]
    pub fn written_to(&self, stream: StreamId) -> usize {
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
