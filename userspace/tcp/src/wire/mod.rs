//! Frames as values: every byte from the network is judged here, once, and what comes out cannot be wrong.
//!
//! Nothing here keeps state or answers a packet. Nothing panics on any input, and every frame that is not
//! taken has a [`DropReason`](crate::drop_reason::DropReason).
//!
//! Read first: [`packet`], which is the way in; [`outgoing`] is the way out.

pub mod checksum;
mod ethernet;
pub mod icmp;
mod ip;
mod ipv4;
mod ipv6;
pub mod options;
pub mod outgoing;
pub mod packet;
pub mod tcp;
#[cfg(test)]
mod tests;

pub use icmp::{IcmpError, IcmpKind};
pub use options::{Options, SackBlock, SackBlocks, Timestamps};
pub use outgoing::Outgoing;
pub use packet::{Body, Checksums, Packet, parse};
pub use tcp::{Flags, Segment};

/// The `N` bytes at `at`, if `bytes` holds them.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
