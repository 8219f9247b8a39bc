//! The slow plane: what happens a few times in the life of a process, away from the workers.
//!
//! One channel leads to the control thread, which sleeps on it; what concerns the whole process arrives
//! there as a [`ControlEvent`].

pub mod fronts;
pub(crate) mod lookup;
pub mod middle_proxies;
pub mod signals;
pub(crate) mod source_address;

use std::sync::Arc;

use mtproxy_core::config::Fronts;

use self::middle_proxies::LoadedMiddleProxies;

/// What the control thread hears.
#[derive(Debug)]
pub enum ControlEvent {
    /// SIGTERM or SIGINT: take no new clients, let the open ones finish.
    Drain,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: open the log file anew.
    ReopenLog,
    /// SIGUSR2, where tests have asked for it: hold a shard.
    Hold,
    /// The fronts have moved, or were looked up again after a reload.
    Fronts(Fronts),
    /// Something else is known about the middle proxies, or they were read again after a reload.
    MiddleProxies(Arc<LoadedMiddleProxies>),
}
