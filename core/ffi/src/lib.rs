//! The decisions of `mtproxy-core`'s policies for programs in C.
//!
//! ```text
//!   C program ─► include/mtproxy.h ─► here: numbers to types, types to numbers, one write ─► mtproxy_core::policy
//! ```
//! There is no policy in this crate, and none may come in: a function turns its arguments into the types of core, asks
//! core, and turns the answer into numbers. Those of the C proxy are used where it has any. One file a policy.
//!
//! Every function is safe to call with any numbers. Where it takes a pointer, that must be null or point to memory of the
//! pointed-to type that nobody else uses meanwhile; null is answered with [`MTPROXY_NULL_POINTER`]. Nothing unwinds into
//! C: no function here can panic.
//!
//! The header is generated and compared by `tests/header.rs`; `tests/decisions.c` is a program that uses it.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod forwarding;
pub mod net_connections;
pub mod net_events;
pub mod net_msg_buffers;
pub mod net_thread;
pub mod tcp_rpc_client;
pub mod tcp_rpc_server;

/// The answer was written.
pub const MTPROXY_OK: i32 = 0;
/// There was nowhere to write the answer to.
pub const MTPROXY_NULL_POINTER: i32 = -1000;
/// An argument is none of the numbers that it may be.
pub const MTPROXY_BAD_ARGUMENT: i32 = -1001;

/// Writes an answer.
///
/// # Safety
/// `out` is null, or valid for writing a `T`.
unsafe fn answer<T>(out: *mut T, value: T) -> i32 {
    if out.is_null() {
        return MTPROXY_NULL_POINTER;
    }
    // SAFETY: it is not null (above), so that it is valid for writing by this function's own contract.
    unsafe { out.write(value) };
    MTPROXY_OK
}
