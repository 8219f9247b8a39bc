//! The proxy on network cards with drivers of their own: virtual machines, whose cards QEMU imitates down to their registers.
//!
//! ```text
//!   guest            n0 ── igb, virtio_net, vmxnet3, e1000e ──┐
//!     mtproxy ───────┘                                        ├ a hub of QEMU's
//!     namespace peer: clients, data centre ── n1 ── the same ─┘
//! ```
//! What is shown is that a driver and we understand each other: modes that are bound, packets that are carried, offloads,
//! resets, knobs. How fast anything is cannot be seen here: every instruction is emulated.
//!
//! Each test boots a machine of its own, one at a time, in some ten seconds. `make test-vm` sets everything up (see
//! `setup`), `VM=words` picks tests. Read first: `prelude.sh`, which scenarios are written in terms of.

#![forbid(unsafe_code)]

mod drivers;
mod machine;
mod reattach;
mod setting_up;
