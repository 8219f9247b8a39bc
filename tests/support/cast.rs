//! Who the tests' clients are: one secret, one domain, and every kind of client that may have them.

use std::net::{IpAddr, SocketAddr};

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::{Key, Secret, SecretKind};
use mtproxy_core::stream::Endpoints;
use mtproxy_core::transport::Transport;

use crate::client_codec::ClientOptions;
use crate::front_site::FrontSite;
use crate::socket::{Pace, ReadEnd, Socket};
use crate::test_client::unix_seconds;

/// The key of the secret that all share.
pub const KEY: Key = *b"sixteen byte key";
/// What ee clients greet.
pub const DOMAIN: &str = "front.example";

/// The address that the proxy is reached at and dials from, where there is no network but memory.
#[must_use]
pub fn proxy_in_memory() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 1], 443))
}

/// The ends of the connection of a client that is in memory, too.
#[must_use]
pub fn ends_in_memory(source: IpAddr) -> Endpoints {
    const CLIENT_PORT: u16 = 50_000;
    Endpoints { local: proxy_in_memory(), remote: SocketAddr::new(source, CLIENT_PORT) }
}

/// The kinds of client there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Obfuscated, abridged transport.
    Abridged,
    /// Obfuscated, intermediate transport.
    Intermediate,
    /// Padded intermediate transport, as a `dd` secret demands.
    Dd,
    /// The same inside what looks like TLS.
    Ee,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Abridged, Self::Intermediate, Self::Dd, Self::Ee];

    /// What a client of this kind does, now.
    #[must_use]
    pub fn options(self) -> ClientOptions {
        let kind = match self {
            Self::Abridged | Self::Intermediate => SecretKind::Plain,
            Self::Dd => SecretKind::Padded,
            Self::Ee => fake_tls(DOMAIN),
        };
        let options = ClientOptions::new(Secret::new(KEY, kind), DcId(2), unix_seconds());
        if self == Self::Abridged { options.with_transport(Transport::Abridged) } else { options }
    }
}

/// The kind of secret whose clients greet `domain`.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn fake_tls(domain: &str) -> SecretKind {
    SecretKind::FakeTls(domain.parse().expect("a domain"))
}

/// The secret with [`KEY`] that an operator configures.
#[must_use]
pub fn secret(kind: SecretKind) -> Secret {
    Secret::new(KEY, kind)
}

/// Says `bytes` as `stranger`, and checks that `front`, which must answer at once or at EOF, hears exactly
/// them and the stranger exactly the front.
///
/// # Panics
/// If it is otherwise.
#[track_caller]
pub fn assert_fronted(mut stranger: Socket, bytes: &[u8], pace: Pace, front: &FrontSite) {
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
