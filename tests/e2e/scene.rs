//! One proxy, its data centre 2 and its front, on loopback.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mtproxy_core::secret::SecretKind;
pub(crate) use mtproxy_tests::cast::{DOMAIN, KEY, Mode, assert_fronted, fake_tls, secret};
use mtproxy_tests::test_client::fresh_random;
use mtproxy_tests::{
    ClientCodec, ClientOptions, DcMode, FakeDc, FrontManner, FrontSite, Pace, ProxyCommand, ProxyProcess,
    Socket, TestClient,
};

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
