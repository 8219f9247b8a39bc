//! `mtproxy capture`: the packets of the AF_XDP datapath as a pcapng file, since tcpdump cannot see them.
//!
//! ```text
//!   shard ── tap ── ring ──┐                     abstract Unix socket
//!   shard ── tap ── ring ──┴─ server's thread ══════════════════════════ client ── file
//!            which, how much     pcapng                 a line each way, then pcapng
//! ```
//! A shard copies the first bytes of a packet into its ring and goes on; a full ring loses the packet for the file, never
//! for its connection, and counts it. Without a capture a shard reads one flag a turn. What it must never do: keep payload
//! that nobody asked for, or hold a shard up.
//!
//! Read first: [`tap`], then [`server`].

mod client;
mod request;
mod selection;
pub mod server;
pub mod tap;
#[cfg(test)]
mod tests;

pub use client::{CaptureArgs, run};
pub use selection::Selection;
