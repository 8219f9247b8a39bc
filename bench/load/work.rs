//! The works that are measured, and the routes over which each of them is done.

use std::net::SocketAddr;

use clap::ValueEnum;
use mtproxy_core::dc::DcId;
use mtproxy_core::secret::Secret;
use mtproxy_core::transport::Transport;
use mtproxy_tests::client_codec::ClientOptions;
use mtproxy_tests::test_client::unix_seconds;
use serde::Serialize;

use crate::data_centre::{Ports, Service};

/// Bytes of a request, and of its answer: what most of Telegram's packets are like.
pub(crate) const REQUEST_LEN: usize = 128;

/// Bytes of the hello of an ee client: today's clients carry a post-quantum key share.
pub(crate) const HELLO_LEN: usize = 1800;

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// A small request and its answer on an open connection.
    RequestAnswer,
    /// The same with one client that nobody disturbs: what a relay adds to the latency when it is at rest,
    /// and what a message costs that shares no wake-up with another.
    RequestAnswerAlone,
    /// Connect, handshake, one request with its answer, close.
    Connect,
    /// Bytes from the data centre as fast as they come.
    Download,
    /// Bytes to the data centre as fast as they go.
    Upload,
}

impl Work {
    /// In the order in which they are measured.
    pub(crate) const ALL: [Self; 5] =
        [Self::RequestAnswer, Self::Connect, Self::Download, Self::Upload, Self::RequestAnswerAlone];

    /// What a reader calls it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::RequestAnswer => "request and answer, 128 bytes each",
            Self::RequestAnswerAlone => "request and answer, one client alone",
            Self::Connect => "connect, handshake, one request, close",
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }

    /// Clients at a time. Requests: enough that a wake-up often finds more than one. Bulk: few, as each
    /// could fill the machine alone.
    pub(crate) fn clients(self) -> usize {
        match self {
            Self::RequestAnswer => 64,
            Self::RequestAnswerAlone => 1,
            Self::Connect => 16,
            Self::Download | Self::Upload => 4,
        }
    }

    /// True if it is counted in bytes, not in operations.
    pub(crate) fn is_bulk(self) -> bool {
        matches!(self, Self::Download | Self::Upload)
    }

    /// What one of its units is called.
    pub(crate) fn unit(self) -> &'static str {
        if self.is_bulk() { "MiB" } else { "op" }
    }

    /// Who serves it in the data centre.
    pub(crate) fn service(self) -> Service {
        match self {
            Self::RequestAnswer | Self::RequestAnswerAlone | Self::Connect => Service::Echo,
            Self::Download => Service::Source,
            Self::Upload => Service::Sink,
        }
    }
}

/// How clients reach the data centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Route {
    /// Straight.
    Direct,
    /// Through nginx's stream module, which passes bytes on and knows nothing of them.
    Nginx,
    /// Through the proxy with a bare secret.
    Plain,
    /// Through the proxy with a `dd` secret.
    Dd,
    /// Through the proxy with an `ee` secret: inside what looks like TLS.
    Ee,
}

impl Route {
    /// In the order in which they take turns.
    pub(crate) const ALL: [Self; 5] = [Self::Direct, Self::Nginx, Self::Plain, Self::Dd, Self::Ee];

    /// What a reader calls it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx stream",
            Self::Plain => "mtproxy plain",
            Self::Dd => "mtproxy dd",
            Self::Ee => "mtproxy ee",
        }
    }
}

/// Where the clients of one route connect, and who they are.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) route: Route,
    /// `None`: the client speaks with the data centre itself.
    pub(crate) secret: Option<Secret>,
    /// One address a service.
    pub(crate) addresses: [SocketAddr; Service::COUNT],
}

impl Target {
    /// The proxy: one address for everything, the init frame says which service.
    pub(crate) fn proxy(route: Route, secret: Secret, address: SocketAddr) -> Self {
        Self { route, secret: Some(secret), addresses: [address; Service::COUNT] }
    }

    /// The data centre itself, or a relay that has one port a service.
    pub(crate) fn ports(route: Route, ports: &Ports) -> Self {
        Self { route, secret: None, addresses: ports.addresses() }
    }

    /// Where a client with this work connects.
    pub(crate) fn address(&self, work: Work) -> SocketAddr {
        self.addresses[work.service().index()]
    }

    /// A client with this work.
    pub(crate) fn client(&self, work: Work) -> ClientOptions {
        let dc: DcId = work.service().dc();
        match &self.secret {
            None => ClientOptions::without_proxy(Transport::PaddedIntermediate, dc),
            Some(secret) => ClientOptions::new(secret.clone(), dc, unix_seconds()).with_hello_len(HELLO_LEN),
        }
    }
}
