//! Where the middle proxies are and what they know: from files or downloads to what the engines get.
//!
//! ```text
//! operator's files ──(files: looked at every 5 s)──┐
//! core.telegram.org ─(download ─► snapshot rule)───┼─► document ─► addresses ─► LoadedMiddleProxies ─► ControlEvent
//! state directory ──(cache: the last good copy)────┘   checked      resolved
//! ```
//! All of it happens on one thread of its own, downloads and look-ups on short-lived ones beside it: none of them may
//! hold up a client, a reload or the start for longer than its patience. What is wrong with a newer file never
//! touches the one in use.
//!
//! docs/middle-proxies.md tells the operator about it; begin with [`keeper`].

mod addresses;
mod cache;
pub(crate) mod clock_skew;
mod document;
mod download;
mod files;
mod keeper;
mod kept;
pub(crate) mod nat;
#[cfg(test)]
mod scratch;
mod snapshot;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam::channel::{self, Receiver, Sender};
use crossbeam::select;
use mtproxy_core::dc::PreferIp;
use mtproxy_core::middle_proxy::nat::NatRules;
use mtproxy_core::middle_proxy::secret::ProxySecret;
use tracing::error;

pub use addresses::{Clusters, Target};
pub use document::Origin;

use self::keeper::Keeper;
use self::kept::Arrival;
use super::ControlEvent;
use crate::complaint::{Complaint, Complaints};
use crate::settings::Settings;
use crate::settings::middle_proxies::{MiddleProxyFiles, RefreshSettings};

/// Everything about middle proxies that does not stand in the settings.
#[derive(Clone, Debug)]
pub struct LoadedMiddleProxies {
    /// What they know.
    pub secret: ProxySecret,
    /// Where they are.
    pub clusters: Clusters,
    /// Where `clusters` came from.
    pub config_origin: Origin,
    /// Where `secret` came from.
    pub secret_origin: Origin,
}

impl LoadedMiddleProxies {
    /// True if an engine would notice the difference, or statistics.
    fn differs_from(&self, other: &Self) -> bool {
        let origin =
            |loaded: &Self| (loaded.config_origin.name.clone(), loaded.config_origin.md5_hex.clone());
        self.clusters != other.clusters
            || self.secret.bytes() != other.secret.bytes()
            || origin(self) != origin(other)
    }
}

/// What is to be known about the middle proxies, from the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MiddleProxyPlan {
    files: Option<MiddleProxyFiles>,
    refresh: Option<RefreshSettings>,
    nat: NatRules,
    prefer_ip: PreferIp,
    state_dir: Option<PathBuf>,
}

impl MiddleProxyPlan {
    /// The plan of `settings`; `None` if they do without middle proxies.
    #[must_use]
    pub fn of(settings: &Settings) -> Option<Self> {
        let middle_proxies = settings.middle_proxies.as_ref()?;
        Some(Self {
            files: middle_proxies.files.clone(),
            refresh: middle_proxies.refresh.clone(),
            nat: middle_proxies.nat.clone(),
            prefer_ip: middle_proxies.prefer_ip,
            state_dir: settings.state_dir.clone(),
        })
    }
}

/// What was read from disk for a start.
#[derive(Debug)]
pub struct ReadMiddleProxies(Option<Keeper>);

/// Reads what `plan` finds on this host, its operator's files or cached copies. Apart from the start, because the files
/// may be for root's eyes only, and the process may be about to become somebody else.
///
/// # Errors
/// What is wrong with the operator's files. A cached copy that cannot be used is only warned of.
pub fn read(plan: Option<MiddleProxyPlan>) -> Result<ReadMiddleProxies, Complaints> {
    plan.map(Keeper::open).transpose().map(ReadMiddleProxies)
}

/// The thread that keeps middle proxies known.
#[derive(Debug)]
pub struct MiddleProxyWatch {
    plans: Sender<Option<MiddleProxyPlan>>,
}

impl MiddleProxyWatch {
    /// Completes what was read, which takes a download where there is neither file nor copy, and
    /// [`keeper::FIRST_PATIENCE`] at most. Then watches over it; later changes go to `events`.
    ///
    /// # Errors
    /// If there are to be middle proxies and nothing is known about them, or the system has no thread left.
    pub fn start(
        read: ReadMiddleProxies,
        events: Sender<ControlEvent>,
    ) -> Result<(Option<Arc<LoadedMiddleProxies>>, Self), Complaint> {
        let (arrival, arrivals) = channel::unbounded();
        let mut keeper = read.0;
        if let Some(keeper) = &mut keeper {
            keeper.complete(&arrival, &arrivals)?;
        }
        let loaded = keeper.as_ref().and_then(Keeper::loaded);
        let (plans, new_plans) = channel::unbounded();
        let watch = move || Watch { keeper, arrival, arrivals, events }.watch(&new_plans);
        thread::Builder::new().name("middle-proxies".to_owned()).spawn(watch).map_err(|error| {
            Complaint::about_host(format!(
                "found no thread to look after middle proxies ({error}); expected one; raise the limit of processes"
            ))
        })?;
        Ok((loaded, Self { plans }))
    }

    /// Follows `plan` from now on. What is then known arrives as an event, unless there is nothing: then it does as
    /// soon as there is.
    pub fn follow(&self, plan: Option<MiddleProxyPlan>) {
        // The thread ends only when this sender is gone.
        let _ = self.plans.send(plan);
    }
}

/// What the thread has.
struct Watch {
    keeper: Option<Keeper>,
    /// For the threads that download.
    arrival: Sender<Arrival>,
    arrivals: Receiver<Arrival>,
    events: Sender<ControlEvent>,
}

impl Watch {
    /// Ends when nobody sends plans any more.
    fn watch(mut self, plans: &Receiver<Option<MiddleProxyPlan>>) {
        loop {
            let next = self.keeper.as_ref().and_then(Keeper::next_at);
            let timer = next.map_or_else(channel::never, channel::at);
            let is_news = select! {
                recv(plans) -> plan => match plan {
                    Ok(plan) => self.replan(plan),
                    Err(_) => return,
                },
                recv(self.arrivals) -> arrival => match (&mut self.keeper, arrival) {
                    (Some(keeper), Ok(arrival)) => keeper.take(arrival),
                    (None, _) | (_, Err(_)) => false,
                },
                recv(timer) -> _ => match &mut self.keeper {
                    Some(keeper) => keeper.tick(Instant::now(), &self.arrival),
                    None => false,
                },
            };
            let loaded = self.keeper.as_ref().filter(|_| is_news).and_then(Keeper::loaded);
            if let Some(loaded) = loaded
                && self.events.send(ControlEvent::MiddleProxies(loaded)).is_err()
            {
                return;
            }
        }
    }

    /// True if there is something to be told: always, if anything is known.
    fn replan(&mut self, plan: Option<MiddleProxyPlan>) -> bool {
        let Some(plan) = plan else {
            self.keeper = None;
            return false;
        };
        let replanned = match &mut self.keeper {
            Some(keeper) => keeper.replan(plan),
            None => Keeper::open(plan).map(|mut keeper| {
                keeper.recompute();
                self.keeper = Some(keeper);
            }),
        };
        if let Err(complaints) = replanned {
            for line in complaints.to_string().lines() {
                error!("reload: {line}");
            }
            error!("reload: what was known about middle proxies stays in use");
        }
        true
    }
}
