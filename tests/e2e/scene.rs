//! The usual cast: one proxy, its data centre 2, its front, and the secret that all tests share.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::{Key, Secret, SecretKind};
use mtproxy_core::transport::Transport;
use mtproxy_tests::test_client::{fresh_random, unix_seconds};
use mtproxy_tests::{
    ClientCodec, ClientOptions, DcMode, FakeDc, FrontManner, FrontSite, Pace, ProxyCommand, ProxyProcess,
    ReadEnd, Socket, TestClient,
};

pub(crate) const KEY: Key = *b"sixteen byte key";
pub(crate) const DOMAIN: &str = "front.example";

/// The kinds of client there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Abridged,
    Intermediate,
    Dd,
    Ee,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::Abridged, Self::Intermediate, Self::Dd, Self::Ee];

    /// What a client of this kind does, now.
    pub(crate) fn options(self) -> ClientOptions {
        let kind = match self {
            Self::Abridged | Self::Intermediate => SecretKind::Plain,
            Self::Dd => SecretKind::Padded,
            Self::Ee => fake_tls(DOMAIN),
        };
        let options = ClientOptions::new(Secret::new(KEY, kind), DcId(2), unix_seconds());
        if self == Self::Abridged { options.with_transport(Transport::Abridged) } else { options }
    }
}

pub(crate) fn fake_tls(domain: &str) -> SecretKind {
    SecretKind::FakeTls(domain.parse().expect("a domain"))
}

/// The secret with [`KEY`] that an operator configures.
pub(crate) fn secret(kind: SecretKind) -> Secret {
    Secret::new(KEY, kind)
}

pub(crate) fn loopback_v4() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

pub(crate) fn loopback_v6() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, 0))
}

/// One proxy with a data centre and, where there is one, a front.
pub(crate) struct Scene {
    pub(crate) proxy: ProxyProcess,
    pub(crate) dc: FakeDc,
    pub(crate) front: FrontSite,
}

impl Scene {
    /// A bare secret, a domain, and a front that answers at once.
    pub(crate) fn start(mode: DcMode) -> Self {
        Self::with(mode, FrontManner::AnswersAtOnce, |command| command.secret(&secret(SecretKind::Plain)))
    }

    /// A domain, and whatever else `complete` adds to the command line.
    pub(crate) fn with(
        mode: DcMode,
        manner: FrontManner,
        complete: impl FnOnce(ProxyCommand) -> ProxyCommand,
    ) -> Self {
        let front = FrontSite::start(manner);
        let address = front.address();
        Self::start_with(mode, front, |command| complete(command.domain(DOMAIN, address)))
    }

    /// A bare secret and no domain: nobody sees the front.
    pub(crate) fn without_domain(mode: DcMode, config: &str) -> Self {
        Self::start_with(mode, FrontSite::start(FrontManner::AnswersAtOnce), |command| {
            command.secret(&secret(SecretKind::Plain)).config(config)
        })
    }

    fn start_with(
        mode: DcMode,
        front: FrontSite,
        complete: impl FnOnce(ProxyCommand) -> ProxyCommand,
    ) -> Self {
        let dc = FakeDc::start(mode);
        let proxy = complete(ProxyCommand::new().dc(2, dc.address())).start();
        Self { proxy, dc, front }
    }

    /// A client that has completed its handshake.
    #[track_caller]
    pub(crate) fn client(&self, mode: Mode) -> TestClient {
        TestClient::connect(self.proxy.address(), mode.options())
    }

    /// A connection on which nothing has been said.
    #[track_caller]
    pub(crate) fn stranger(&self) -> Socket {
        Socket::connect(self.proxy.address())
    }

    /// Says `bytes` as a stranger, and checks that the front hears exactly them and the stranger exactly
    /// the front.
    #[track_caller]
    pub(crate) fn assert_fronted(&self, bytes: &[u8], pace: Pace) {
        assert_fronted(self.stranger(), bytes, pace, &self.front);
    }
}

/// As [`Scene::assert_fronted`], for a front of choice, which must answer at once or at EOF.
#[track_caller]
pub(crate) fn assert_fronted(mut stranger: Socket, bytes: &[u8], pace: Pace, front: &FrontSite) {
    let before = front.accepted();
    stranger.send(bytes, pace);
    stranger.half_close();
    let (heard, end) = stranger.read_to_end();
    assert!(heard == FrontSite::answer(), "a stranger hears the front: found {} bytes, {end:?}", heard.len());
    assert_eq!(end, ReadEnd::Eof);
    assert_eq!(front.accepted(), before + 1, "one stranger is one connection to the front");
    let what = format!("a session with exactly the stranger's {} bytes", bytes.len());
    front.wait_until(&what, |sessions| sessions.iter().any(|s| s.closed && s.report == bytes));
}

/// The first bytes of a client that nobody else has sent.
pub(crate) fn opening(options: ClientOptions) -> Vec<u8> {
    ClientCodec::new(options, fresh_random()).opening()
}

/// The proxy's descriptors once their number is the same twice in a row: the last close of a session
/// may still be under way when its peers know of it.
pub(crate) fn settled_descriptors(scene: &Scene) -> u64 {
    let mut before = scene.proxy.cost().open_descriptors;
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(50));
        let now = scene.proxy.cost().open_descriptors;
        if now == before {
            return now;
        }
        before = now;
    }
    panic!("awaiting a constant number of descriptors: still {before}");
}
