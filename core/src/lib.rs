//! The MTProto proxy's sessions and decisions, pure: bytes and time in, bytes and requests out.
//!
//! ```text
//!                      Input, Now                    a driver is one of
//!   ┌────────┐   ─────────────────────►  ┌────────┐    epoll datapath     sockets
//!   │ driver │   ◄─────────────────────  │ Engine │    AF_XDP datapath    frames
//!   └────────┘        Actions            └────────┘    simulator          memory
//! ```
//! There is no I/O, clock, thread, lock or `unsafe` in this crate, and none may come in.
//!
//! Read first: [`engine`] (the contract), then [`event`] and [`error`] (what can happen), then
//! `session/mod.rs` (the phases of a session). The wire formats are in [`secret`], [`obfuscated2`],
//! [`transport`] and [`fake_tls`]; decisions that stand apart from them are in [`policy`].
//!
//! # Driving a session
//!
//! ```
//! use std::sync::Arc;
//! use mtproxy_core::action::{Action, Actions};
//! use mtproxy_core::config::{Config, Fronts, RELAY_WINDOW_BYTES_DEFAULT, Timeouts};
//! use mtproxy_core::credentials::Credentials;
//! use mtproxy_core::dc::{DcId, DcTable, PreferIp};
//! use mtproxy_core::engine::{Engine, Input};
//! use mtproxy_core::keyed_hash::KeyedHash;
//! use mtproxy_core::obfuscated2::ComposedInitFrame;
//! use mtproxy_core::policy::replay::{ENTRIES_DEFAULT, ReplayCache};
//! use mtproxy_core::random::Random;
//! use mtproxy_core::secret::{Secret, SecretKind};
//! use mtproxy_core::stream::Endpoints;
//! use mtproxy_core::time::Now;
//! use mtproxy_core::transport::Transport;
//!
//! let mut random = Random::from_seed([7; 32]);
//! let secret = Secret::generate(&mut random, SecretKind::Plain);
//! let config = Config {
//!     credentials: Credentials::new([("friends".to_owned(), secret.clone())]),
//!     fronts: Fronts::default(),
//!     dc_table: DcTable::builtin(PreferIp::V4),
//!     middle_proxies: None,
//!     timeouts: Timeouts::default(),
//!     relay_window_bytes: RELAY_WINDOW_BYTES_DEFAULT,
//! };
//! let replay_cache = ReplayCache::new(ENTRIES_DEFAULT, KeyedHash::new(&mut random));
//! let mut engine = Engine::new(Arc::new(config), random.bytes(), Box::new(replay_cache));
//!
//! // A client connects and sends its init frame …
//! let (now, mut actions) = (Now::default(), Actions::new());
//! let ends = Endpoints {
//!     local: "198.51.100.1:443".parse().unwrap(),
//!     remote: "192.0.2.7:50000".parse().unwrap(),
//! };
//! let client = engine.accept(now, ends, &mut actions);
//! actions.clear();
//! let init = ComposedInitFrame::random(&mut random, Some(secret.key()), Transport::Intermediate, DcId(4));
//! let mut bytes = init.wire;
//! engine.handle(now, Input::Bytes(client, &mut bytes), &mut actions);
//!
//! // … and the engine asks for a connection to data centre 4.
//! let dialled = actions.as_slice().iter().find_map(|action| match action {
//!     Action::Dial { address, .. } => Some(*address),
//!     _ => None,
//! });
//! assert_eq!(dialled, Some("149.154.167.91:443".parse().unwrap()));
//! ```
#![forbid(unsafe_code)]

pub mod action;
pub mod aes_ctr;
pub mod config;
pub mod credentials;
pub mod dc;
mod deadline;
pub mod engine;
pub mod error;
pub mod event;
pub mod fake_tls;
pub mod keyed_hash;
pub mod middle_proxy;
pub mod obfuscated2;
mod packet_buffers;
pub mod policy;
pub mod random;
pub mod secret;
mod session;
mod session_key;
pub mod stream;
pub mod time;
pub mod transport;
