//! What the steering program and user space share: the names, keys, values and counters of its maps.
//!
//! The program is C and the loader is Rust, so everything that both must agree on is written down once, here,
//! and [`CHeader`] turns it into the header that the C program is compiled with: enumerators and capacities
//! are taken from it, the layout of each struct is asserted by it. A disagreement does not compile.
//!
//! Keys and values are plain values with `to_bytes`; maps are typed in arrays of bytes and integers, which
//! is what lets the loader do without `unsafe`. Nothing here allocates, and nothing knows of aya.
//!
//! Read [`Exit`] first: it is the list of everything that can happen to a packet.
#![no_std]
#![forbid(unsafe_code)]

mod c_header;
mod exit;
mod keys;
mod setting;

pub use c_header::CHeader;
pub use exit::{Exit, Verdict};
pub use keys::{Addr, Listener, Local, Prefix, PrefixTooLong};
pub use setting::Setting;

/// The steering program's function in the object, and its name in `bpftool prog`.
pub const PROGRAM: &str = "steer";

/// The maps' names in the object. The kernel cuts names at 15 bytes, so none is longer.
pub mod map {
    /// XSKMAP, by receive queue: the AF_XDP socket that serves it.
    pub const SOCKETS: &str = "sockets";
    /// Array, by receive queue: when its shard last said that it is alive, in ns of CLOCK_MONOTONIC; 0 is never.
    pub const BEATS: &str = "beats";
    /// Array of 64-bit cells, by [`Setting`](crate::Setting).
    pub const SETTINGS: &str = "settings";
    /// Hash from [`Addr`](crate::Addr) to [`Local`](crate::Local).
    pub const LOCALS: &str = "locals";
    /// Hash used as a set of [`Listener`](crate::Listener).
    pub const LISTENERS: &str = "listeners";
    /// Longest-prefix trie used as a set of [`Prefix`](crate::Prefix).
    pub const DENY: &str = "deny";
    /// LRU hash from a source to the time from which its next SYN would be on schedule.
    pub const SYN_SOURCES: &str = "syn_sources";
    /// One 64-bit cell: when a SYN for a listener of ours last went to the kernel. Written by the program alone, once it
    /// is attached.
    pub const KERNEL_FLOWS: &str = "kernel_flows";
    /// Per-CPU array, by [`Exit`](crate::Exit): packets that left this way.
    pub const EXITS: &str = "exits";
}

/// Receive queues of one interface. The largest NICs in servers have 128 to 256 of them; a slot costs 8 bytes.
pub const QUEUES_MAX: u32 = 256;
/// Local addresses. One for each upstream source address, which is how ports are multiplied.
pub const LOCALS_MAX: u32 = 1024;
/// Listeners, after wildcards were expanded to the host's addresses.
pub const LISTENERS_MAX: u32 = 1024;
/// Denied prefixes. Entries are allocated one by one, so the bound costs nothing until it is used.
pub const DENY_MAX: u32 = 65_536;
/// Sources whose SYNs are timed at once. Beyond, the least recently seen is forgotten, that is: forgiven.
pub const SYN_SOURCES_MAX: u32 = 65_536;
/// IPv6 extension headers that are walked. RFC 8504 (5.3) lets a host set such a bound; real traffic has 0 or 1.
pub const EXTENSION_HEADERS_MAX: u32 = 6;
