//! The peers of an MTProto proxy, for tests and benchmarks: clients, data centres, middle
//! proxies, a front site.
//!
//! ```text
//!   bytes only, no I/O              on real sockets
//!   ClientCodec ──────────────────▶ TestClient   plain, dd and ee clients
//!   DcCodec ──────────────────────▶ FakeDc       a data centre that does as packets command
//!   MiddleProxyCodec ─────────────▶ FakeMiddleProxy  the same behind links, well-behaved or not
//!                                   FrontSite    the real site behind which the proxy hides
//!                                   Socket       a stranger: raw bytes with bounded waits
//!                                   ProxyProcess the proxy under test, and what it costs
//!                                   NetNs, Lab3  a network of their own for all of them (root)
//! ```
//! The codecs are written from protocol.md and share with core only what has known answers of its own
//! (AES-CTR, the init frame, the types for secrets and transports). Above all the fake-TLS hello and the
//! check of its answer are independent: a mistake made twice alike would otherwise pass unseen.
//!
//! Everything here panics with what it was waiting for instead of returning errors to a test, and no
//! wait is without a bound. Nothing here may be linked into the proxy.

#![forbid(unsafe_code)]

pub mod cast;
pub mod client_codec;
pub mod client_hello;
pub mod command;
pub mod dc_codec;
pub mod dice;
pub mod error;
pub mod fake_dc;
pub mod fake_middle_proxy;
pub mod framing;
pub mod front_site;
pub mod lab3;
pub mod metrics_page;
pub mod middle_proxy;
pub mod middle_proxy_files;
pub mod mtproto;
pub mod namespace_scene;
pub mod net_ns;
pub mod pattern;
pub mod process_cost;
pub mod proxy_process;
pub mod server;
pub mod server_hello;
pub mod socket;
pub mod test_client;
pub mod tls_record;
pub mod veth_pair;

pub use client_codec::{ClientCodec, ClientOptions, Progress};
pub use client_hello::{HelloFault, HelloOptions};
pub use command::Command;
pub use dc_codec::{DcCodec, DcMode};
pub use error::PeerError;
pub use fake_dc::FakeDc;
pub use fake_middle_proxy::{FakeMiddleProxy, LinkOrder};
pub use front_site::{FrontManner, FrontSite};
pub use lab3::{Lab3, Lab3Options};
pub use middle_proxy::{MiddleProxyCodec, MiddleProxyOptions, Misbehaviour};
pub use middle_proxy_files::MiddleProxyFiles;
pub use namespace_scene::NamespaceScene;
pub use net_ns::NetNs;
pub use process_cost::ProcessCost;
pub use proxy_process::{ProxyCommand, ProxyProcess};
pub use socket::{PATIENCE, Pace, ReadEnd, SilentAddress, Socket};
pub use test_client::TestClient;
