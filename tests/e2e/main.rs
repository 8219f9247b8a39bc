//! The built proxy on real sockets: clients, data centres, front sites and strangers.
//!
//! Each test starts a proxy of its own. A test proves what crosses the wire and nothing else; what the
//! sessions inside decide, and every row of docs/session.md's table, is core's simulation to prove.

#![forbid(unsafe_code)]

mod admission;
mod back_pressure;
mod closing;
mod descriptors;
mod greeting;
mod metrics;
mod middle_proxies;
mod middle_proxy_crowd;
mod relay;
mod routing;
mod scene;
mod signals;
mod storm;
mod strangers;
mod timeouts;
