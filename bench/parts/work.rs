//! The works that are measured, and the routes over which each of them is done.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use mtproxy_core::dc::DcId;
use mtproxy_core::secret::{Key, Secret, SecretKind};
use mtproxy_core::transport::Transport;
use mtproxy_tests::client_codec::ClientOptions;
use mtproxy_tests::test_client::unix_seconds;
use serde::{Deserialize, Serialize};

use crate::data_centre::{Ports, Service};

/// Bytes of a request, and of its answer: what most of Telegram's packets are like.
pub const REQUEST_LEN: usize = 128;

/// Bytes of the hello of an ee client: today's clients carry a post-quantum key share.
pub const HELLO_LEN: usize = 1800;

/// What the clients of ee greet.
pub const DOMAIN: &str = "front.example";

/// The secret that a proxy under load is given: a bare one admits every mode.
#[must_use]
pub fn configured_secret() -> Secret {
    Secret::new(KEY, SecretKind::Plain)
}

const KEY: Key = *b"benchmarks' own!";

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Work {
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
    pub const ALL: [Self; 5] =
        [Self::RequestAnswer, Self::Connect, Self::Download, Self::Upload, Self::RequestAnswerAlone];

    /// What a reader calls it.
    pub fn title(self) -> &'static str {
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
    pub fn clients(self) -> usize {
        match self {
            Self::RequestAnswer => 64,
            Self::RequestAnswerAlone => 1,
            Self::Connect => 16,
            Self::Download | Self::Upload => 4,
        }
    }

    /// True if it is counted in bytes, not in operations.
    pub fn is_bulk(self) -> bool {
        matches!(self, Self::Download | Self::Upload)
    }

    /// What one of its units is called.
    pub fn unit(self) -> &'static str {
        if self.is_bulk() { "MiB" } else { "op" }
    }

    /// Who serves it in the data centre.
    pub fn service(self) -> Service {
        match self {
            Self::RequestAnswer | Self::RequestAnswerAlone | Self::Connect => Service::Echo,
            Self::Download => Service::Source,
            Self::Upload => Service::Sink,
        }
    }
}

/// How clients reach the data centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Route {
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
    pub const ALL: [Self; 5] = [Self::Direct, Self::Nginx, Self::Plain, Self::Dd, Self::Ee];

    /// What a reader calls it.
    pub fn title(self) -> &'static str {
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
pub struct Target {
    /// Its name.
    pub route: Route,
    /// `None`: the client speaks with the data centre itself.
    secret: Option<Secret>,
    /// One address a service.
    addresses: [SocketAddr; Service::COUNT],
}

impl Target {
    /// The proxy: one address for everything, the init frame says which service.
    ///
    /// # Errors
    /// If the route does not lead through the proxy.
    pub fn proxy(route: Route, address: SocketAddr) -> Result<Self> {
        let kind = match route {
            Route::Plain => SecretKind::Plain,
            Route::Dd => SecretKind::Padded,
            Route::Ee => SecretKind::FakeTls(DOMAIN.parse().context("a domain name")?),
            Route::Direct | Route::Nginx => bail!("{} takes no secret", route.title()),
        };
        Ok(Self { route, secret: Some(Secret::new(KEY, kind)), addresses: [address; Service::COUNT] })
    }

    /// The data centre itself, or a relay that has one port a service.
    #[must_use]
    pub fn ports(route: Route, ports: &Ports) -> Self {
        Self { route, secret: None, addresses: ports.addresses() }
    }

    /// Where a client with this work connects.
    #[must_use]
    pub fn address(&self, work: Work) -> SocketAddr {
        self.addresses[work.service().index()]
    }

    /// A client with this work.
    #[must_use]
    pub fn client(&self, work: Work) -> ClientOptions {
        let dc: DcId = work.service().dc();
        match &self.secret {
            None => ClientOptions::without_proxy(Transport::PaddedIntermediate, dc),
            Some(secret) => ClientOptions::new(secret.clone(), dc, unix_seconds()).with_hello_len(HELLO_LEN),
        }
    }
}
