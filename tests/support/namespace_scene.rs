//! One proxy with its data centre and its front, each on a host of its own, and clients on another.
//!
//! The same cast as the end-to-end tests have on loopback, with every byte in packets on a wire. With
//! options like `--datapath xdp --interface px0` it is the AF_XDP datapath that meets them.

use std::net::SocketAddr;

use mtproxy_core::secret::SecretKind;

use crate::cast::{self, DOMAIN, Mode};
use crate::dc_codec::DcMode;
use crate::fake_dc::FakeDc;
use crate::front_site::{FrontManner, FrontSite};
use crate::lab3::Lab3;
use crate::proxy_process::{ProxyCommand, ProxyProcess};
use crate::socket::{Pace, Socket};
use crate::test_client::TestClient;

/// Where the proxy listens, in both families.
const PORT: u16 = 443;

/// A running cast. Processes and peers end before their hosts do.
#[derive(Debug)]
pub struct NamespaceScene {
    /// The proxy, which listens on IPv4 and on IPv6, in this order.
    pub proxy: ProxyProcess,
    /// Data centre 2.
    pub dc: FakeDc,
    /// The real site.
    pub front: FrontSite,
    /// The hosts.
    pub lab: Lab3,
}

impl NamespaceScene {
    /// A bare secret, a domain whose front answers at once, a data centre of the family asked for, and
    /// whatever else `complete` adds to the command line.
    ///
    /// # Panics
    /// If somebody does not start.
    #[must_use]
    #[track_caller]
    pub fn start(
        lab: Lab3,
        mode: DcMode,
        dc_v6: bool,
        complete: impl FnOnce(ProxyCommand) -> ProxyCommand,
    ) -> Self {
        let there = SocketAddr::new(Lab3::dc_ip(dc_v6), 0);
        let front = lab.dc.enter(|| FrontSite::start_on(there, FrontManner::AnswersAtOnce));
        Self::with_front(lab, front, mode, dc_v6, complete)
    }

    /// The same behind a front of the caller's.
    ///
    /// # Panics
    /// If somebody does not start.
    #[must_use]
    #[track_caller]
    pub fn with_front(
        lab: Lab3,
        front: FrontSite,
        mode: DcMode,
        dc_v6: bool,
        complete: impl FnOnce(ProxyCommand) -> ProxyCommand,
    ) -> Self {
        let dc = lab.dc.enter(|| FakeDc::start_on(SocketAddr::new(Lab3::dc_ip(dc_v6), 0), mode));
        let command = ProxyCommand::new()
            .within(&lab.proxy)
            .listen(SocketAddr::new(Lab3::proxy_ip(false), PORT))
            .listen(SocketAddr::new(Lab3::proxy_ip(true), PORT))
            .secret(&cast::secret(SecretKind::Plain))
            .domain(DOMAIN, front.address())
            .dc(2, dc.address());
        let proxy = complete(command).start();
        Self { proxy, dc, front, lab }
    }

    /// Where the proxy listens.
    #[must_use]
    pub fn address(&self, v6: bool) -> SocketAddr {
        self.proxy.addresses()[usize::from(v6)]
    }

    /// A client that has completed its handshake.
    #[must_use]
    #[track_caller]
    pub fn client(&self, mode: Mode, v6: bool) -> TestClient {
        self.lab.client.enter(|| TestClient::connect(self.address(v6), mode.options()))
    }

    /// A connection on which nothing has been said.
    #[must_use]
    #[track_caller]
    pub fn stranger(&self, v6: bool) -> Socket {
        self.lab.client.enter(|| Socket::connect(self.address(v6)))
    }

    /// Says `bytes` as a stranger, and checks that the front hears exactly them and the stranger exactly
    /// the front.
    #[track_caller]
    pub fn assert_fronted(&self, bytes: &[u8], pace: Pace, v6: bool) {
        cast::assert_fronted(self.stranger(v6), bytes, pace, &self.front);
    }
}
