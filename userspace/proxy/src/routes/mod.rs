//! Where packets go next: the kernel's links, addresses, routes and neighbours, mirrored for the shards.
//!
//! ```text
//!   kernel ──notifications──► mirror thread ──new snapshot, on_change──► shards
//!      ▲                           ▲                                       │
//!      └──── use this neighbour ───┴──────────── Resolver::need ───────────┘
//! ```
//! A shard never asks the kernel. It reads the current [`Snapshot`], which never changes, and keeps what it
//! found per connection until the generation differs. If the neighbour's address is missing, it says so by
//! [`Resolver::need`], which never blocks, and looks again when it is woken.
//!
//! # Rules
//! * **One change, everything read again.** Notifications only say *that* links, addresses or routes changed,
//!   since the kernel removes IPv4 routes of a dead link without one (`fib_flush`, net/ipv4/fib_frontend.c).
//!   Neighbours, which change often, are applied one by one. A lost notification (ENOBUFS) is a change.
//! * **The kernel resolves**, because an entry that is used is one it keeps: `NTF_USE` on a miss, and again
//!   every [`resolver::POKE_EVERY`] for each hop in use, as the kernel sees none of the traffic itself. That
//!   needs `CAP_NET_ADMIN`.
//! * **Tables `local`, then `main`**, longest prefix first, then lowest metric. No policy rules, no routes by
//!   type of service or source: where these decide, packets must leave by the kernel.
//!
//! Read [`snapshot`] for what a shard asks, [`mirror`] for the thread.

mod fib;
mod message;
pub mod mirror;
mod probe;
pub mod resolver;
pub mod snapshot;

pub use mirror::Routes;
pub use probe::{is_learnt, probe};
pub use resolver::Resolver;
pub use snapshot::{NextHop, Snapshot, Via};
