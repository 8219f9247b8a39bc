//! Middle proxies: the way on which a proxy may show its sponsored channel (protocol.md sections 7 and 9).
//!
//! ```text
//!   cluster_file ─► clusters ─► links/: which there are, who goes by which     settings: what all of it depends on
//!                                  │
//!                                link: nonce ─► key_derivation ─► handshake ─► ready
//!                                  │
//!         proxy_req, message ─► outbox ─► frame ─► cbc ─► the stream
//!                    message ◄─ inbound ◄─ frame ◄─ cbc ◄─ the stream
//! ```
//! Here are the wire and the links; a client that goes by one is in `session/proxied.rs`, and where the two meet is
//! `engine/middle_proxies.rs`. What is decided about links is in [`policy`](crate::policy).
//!
//! Nothing here knows a client's key, a socket or a clock. Read `link.rs` first, then `outbox.rs`.

pub mod cbc;
pub mod cluster_file;
mod clusters;
mod event;
pub mod frame;
pub mod handshake;
pub(crate) mod inbound;
pub mod key_derivation;
pub(crate) mod link;
pub(crate) mod links;
pub mod message;
pub mod nat;
pub mod nonce;
pub(crate) mod outbox;
pub mod proxy_req;
pub mod secret;
pub mod settings;
pub(crate) mod target;

pub use clusters::{Clusters, TargetConfig};
pub use event::{Forwarded, LinkEvent, LinkEventKind, LinkLoss};
pub use handshake::ProcessId;
pub use nat::NatRules;
pub use proxy_req::ProxyTag;
pub use secret::ProxySecret;
