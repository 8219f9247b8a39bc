//! Everybody who takes part: two proxies that differ in their way to Telegram alone.

use std::net::SocketAddr;

use anyhow::Result;
use mtproxy_core::secret::SecretKind;
use mtproxy_tests::cast::{DOMAIN, Mode, secret};
use mtproxy_tests::{FrontManner, FrontSite, MiddleProxyFiles, ProxyCommand, ProxyProcess, TestClient};
use serde::Serialize;

use crate::Plan;
use crate::peers::Peers;

/// How clients talk, and which way they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Route {
    PlainDirect,
    PlainMiddle,
    EeDirect,
    EeMiddle,
}

impl Route {
    /// In the order in which they take turns.
    pub(crate) const ALL: [Self; 4] = [Self::PlainDirect, Self::PlainMiddle, Self::EeDirect, Self::EeMiddle];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::PlainDirect => "plain, direct",
            Self::PlainMiddle => "plain, middle proxy",
            Self::EeDirect => "ee, direct",
            Self::EeMiddle => "ee, middle proxy",
        }
    }

    /// The direct one with the same clients.
    pub(crate) fn direct(self) -> Self {
        match self {
            Self::PlainDirect | Self::PlainMiddle => Self::PlainDirect,
            Self::EeDirect | Self::EeMiddle => Self::EeDirect,
        }
    }

    fn is_direct(self) -> bool {
        self == self.direct()
    }

    fn mode(self) -> Mode {
        match self.direct() {
            Self::EeDirect => Mode::Ee,
            _ => Mode::Intermediate,
        }
    }
}

/// The participants, until dropped.
pub(crate) struct Stage {
    direct: ProxyProcess,
    middle: ProxyProcess,
    _peers: Peers,
    _files: MiddleProxyFiles,
    /// Where strangers would go, if any came.
    _front: FrontSite,
}

impl Stage {
    /// Starts them all, and waits until packets go both ways.
    pub(crate) fn set(plan: &Plan) -> Result<Self> {
        let peers = Peers::start()?;
        let front = FrontSite::start(FrontManner::AnswersAtOnce);
        let files = MiddleProxyFiles::new(&[peers.middle_proxy], plan.links);
        let config = format!("[limits]\nconnections = {}\n", plan.idle_clients + 200);
        let command = || {
            ProxyCommand::new()
                .secret(&secret(SecretKind::Plain))
                .domain(DOMAIN, front.address())
                .option("--workers", &plan.workers.to_string())
                .option("--datapath", "epoll")
                .config(&config)
        };
        let direct = command().dc(2, peers.dc).start();
        let middle = files.told_to(command()).start();
        let stage = Self { direct, middle, _peers: peers, _files: files, _front: front };
        // A link's handshake is over when the first answer has come by it.
        for route in Route::ALL {
            drop(stage.client(route));
        }
        Ok(stage)
    }

    fn proxy(&self, route: Route) -> &ProxyProcess {
        if route.is_direct() { &self.direct } else { &self.middle }
    }

    pub(crate) fn pid(&self, route: Route) -> u32 {
        self.proxy(route).pid()
    }

    fn address(&self, route: Route) -> SocketAddr {
        self.proxy(route).address()
    }

    /// A client that has not been answered yet.
    pub(crate) fn new_client(&self, route: Route) -> TestClient {
        TestClient::connect(self.address(route), route.mode().options())
    }

    /// A client that has had an answer.
    pub(crate) fn client(&self, route: Route) -> TestClient {
        let mut client = self.new_client(route);
        client.send_command(&crate::work::question());
        let _ = client.receive_body();
        client
    }
}
