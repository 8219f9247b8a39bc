//! The fence around AF_XDP: packet memory, rings and sockets behind a safe interface.
//!
//! ```text
//!                     Socket (one queue of one interface, one thread)
//!    ┌──────────────────────────────────────────────────────────────────┐
//!    │  receive ◄── RX ring ◄──────┐                                    │
//!    │     │                       │                      ┌───────────┐ │
//!    │     ▼                       │      the kernel ◄───►│ interface │ │
//!    │   Frame          fill ring ─┘          │           │  queue q  │ │
//!    │     │    refill ──►  ▲                 │           └───────────┘ │
//!    │     ▼                │                 ▼                         │
//!    │  transmit ──► TX ring ──────►   completion ring ──► complete     │
//!    └──────────────────────────────────────────────────────────────────┘
//! ```
//! This package is the only one of the datapath that holds `unsafe` code. It knows frames, rings and how to
//! bind a socket; it must never know what a packet says, and it loads no XDP program: whoever does puts the
//! socket's descriptor into an `XSKMAP`.
//!
//! # What its safety rests on
//!
//! A [`Frame`] is a move-only number. Soundness does not hang on it, but on two facts. Bytes are borrowed
//! from the [`Socket`] as a whole, so that Rust's own rules exclude two views of which one may write. And the
//! state of each frame is kept in a table ([`pool`]): the kernel writes a frame only in state *fill*, whose
//! bytes nobody can borrow, and reads a frame only *in flight*, whose bytes nobody can borrow to write. So
//! even a token that was used at the wrong socket meets a panic or another packet, never a data race.
//! Everything that the kernel says through a ring is checked against that table, in release builds too.
//!
//! Read `pool.rs` first, then `socket.rs`.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod bind;
mod frame;
mod options;
mod pool;
mod settings;
mod socket;
mod statistics;
mod umem;

pub use bind::{BindError, Bound};
pub use frame::{Census, Frame, FrameState, Full, Packet};
pub use settings::{BindMode, BusyPoll, ChunkSize, ModeLadder, Settings};
pub use socket::{Socket, Woken};
pub use statistics::{Counters, KernelStatistics};
