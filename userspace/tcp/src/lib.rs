//! TCP-lite: what a relay at the Internet's edge needs of TCP, pure: segments and time in, segments and
//! ordered bytes out.
//!
//! There is no I/O, clock, thread or `unsafe` in this crate, and nothing here knows MTProto.
//!
//! Read first: RFC 9293 (above all section 3.10), then [`link`] (what the stack stands on).
#![forbid(unsafe_code)]

pub mod link;
pub mod time;
