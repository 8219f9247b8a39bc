//! Links between a proxy and a middle proxy, both ends of them, as pure values.
//!
//! ```text
//!   MiddleProxyCodec  the server's end, well-behaved or not ──▶ FakeMiddleProxy, on real sockets
//!   ProxyLinkCodec    the proxy's end, to try the other
//!     wire, request   what frames carry      telegram  what becomes of the clients' packets
//!     frames          frames and fillers     manner    how to behave, and how not to
//!     keys            keys and CBC           record    what was seen
//! ```
//! Written from protocol.md section 7 and sharing nothing with the proxy's own code for it: a mistake
//! made twice alike would otherwise pass unseen. Read [`codec`] first.

pub mod codec;
pub mod fault;
pub mod frames;
mod greeting;
pub mod keys;
pub mod manner;
mod misdeed;
pub mod proxy_side;
pub mod record;
pub mod request;
mod telegram;
pub mod wire;

#[cfg(test)]
mod tests;

pub use codec::MiddleProxyCodec;
pub use fault::LinkFault;
pub use keys::Ends;
pub use manner::{
    DataFault, HandshakeFault, Malformed, MiddleProxyOptions, Misbehaviour, NonceFault, Telegram,
};
pub use proxy_side::{ProxyLinkCodec, ProxyLinkOptions};
pub use record::{LinkCounters, LinkReport, Phase};
pub use request::ProxyRequest;
pub use wire::{Message, ProcessId};
