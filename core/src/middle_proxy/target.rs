//! A middle proxy's address and the pool of links to it.
//!
//! How many links there shall be, and when the next is dialled after failures, is decided by
//! [`policy::net_connections`](crate::policy::net_connections) (policies.md section 2).

use slotmap::new_key_type;

use super::clusters::TargetConfig;
use super::link::LinkKey;
use crate::policy::net_connections::pool::Backoff;
use crate::policy::net_connections::target::TargetId;
use crate::time::Instant;

new_key_type! {
    /// Name of a target within its engine.
    pub(crate) struct TargetKey;
}

/// One middle proxy.
pub(crate) struct Target {
    pub(crate) id: TargetId,
    pub(crate) min_connections: u16,
    pub(crate) max_connections: u16,
    pub(crate) links: Vec<LinkKey>,
    pub(crate) backoff: Backoff,
    /// No link is dialled before, unless another one is ready.
    pub(crate) next_reconnect: Instant,
    /// The configuration names it.
    pub(crate) is_named: bool,
    /// It was first seen not to be named any more.
    pub(crate) retired_at: Option<Instant>,
}

impl Target {
    pub(crate) fn new(config: TargetConfig, backoff: Backoff) -> Self {
        Self {
            id: TargetId::of(config.address),
            min_connections: config.min_connections,
            max_connections: config.max_connections,
            links: Vec::new(),
            backoff,
            next_reconnect: Instant::ORIGIN,
            is_named: true,
            retired_at: None,
        }
    }
}
