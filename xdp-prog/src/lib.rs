//! The steering program: built from C, embedded, loaded and configured.
//!
//! `steer.bpf.c` decides for each packet of an interface whether it is ours; this crate loads it, attaches it, and
//! writes its maps while it runs. Everything that both sides must agree on is in `mtproxy-xdp-abi`.
//!
//! ```text
//! Steering::load ── set_local, add_listener, add_deny ── set_socket, beat, per queue ── attach
//! ```
//!
//! Attach last: a packet that is redirected before its shard polls is lost.
//! It must never replace somebody else's program, and never outlive its process: it is attached by a `bpf_link`,
//! which the kernel closes with the process. Nothing here raises a resource limit; a kernel from 5.11 on accounts BPF
//! memory to the cgroup.
//!
//! Read `docs/steering.md` first, then [`Steering`].
#![forbid(unsafe_code)]

mod attach;
mod beat;
mod error;
mod interface;
mod settings;
mod steering;

pub use attach::{AttachMode, Attachment};
pub use beat::{Beat, monotonic_ns};
pub use error::Error;
pub use mtproxy_xdp_abi::{Exit, Local, Verdict};
pub use settings::{DEFAULT_STALE_AFTER, Settings, SynLimit};
pub use steering::{Counts, KernelFlows, Steering};
