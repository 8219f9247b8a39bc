//! What the proxy says about itself: log lines, counters, and the page where they are read.
//!
//! Core reports events as values; only here do they become text. Nothing here ever sees a secret, a
//! key or a payload, and client addresses are not written down.

pub mod events;
pub mod http;
pub mod log;
pub mod metrics;
