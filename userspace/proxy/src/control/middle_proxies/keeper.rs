//! Keeps the three documents about middle proxies: reads, downloads, judges, caches, and says when one changed.
//!
//! | document | from the operator | downloaded from | cached as |
//! |---|---|---|---|
//! | addresses, IPv4 | `config` | `config_url` | `proxy-multi.conf` |
//! | addresses, IPv6 | (in `config`) | `config_url_v6` | `proxy-multi-v6.conf` |
//! | secret | `secret` | `secret_url` | `proxy-secret` |
//!
//! The document that came last is the one in use: a file that the operator changes, a download that is believed. At
//! start that is the younger one of file and cached copy.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};
use mtproxy_core::dc::PreferIp;
use mtproxy_core::middle_proxy::cluster_file::{ClusterFile, Host};
use mtproxy_core::middle_proxy::secret::ProxySecret;
use mtproxy_core::random::Random;
use tracing::{error, info};

use super::super::source_address;
use super::addresses::{Names, has_names};
use super::cache::Cache;
use super::clock_skew::SkewReport;
use super::document::Document;
use super::download::Downloaded;
use super::files::{FileWatch, LOOK_EVERY};
use super::kept::{Arrival, FeedPlan, Kept, Which};
use super::nat::NatReport;
use super::{LoadedMiddleProxies, MiddleProxyPlan};
use crate::complaint::{Complaint, Complaints};
use crate::settings::middle_proxies::{DownloadUrl, MiddleProxyFiles, RefreshSettings};
use crate::state;

/// How long a start waits for downloads without which it would have nothing. Telegram answers within a second; a
/// network that comes up late needs some.
pub(super) const FIRST_PATIENCE: Duration = Duration::from_secs(30);
/// How long it then waits for what it could do without: the addresses of the other family.
const OTHERS_PATIENCE: Duration = Duration::from_secs(3);
/// Between attempts within that time.
const FIRST_RETRY_AFTER: Duration = Duration::from_secs(2);
/// Between look-ups of names in the file, as for fronts.
const NAMES_EVERY: Duration = Duration::from_secs(600);
/// The same while some name has no address yet.
const NAMES_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Watches over the operator's two files.
#[derive(Debug)]
struct FileWatches {
    config: FileWatch,
    secret: FileWatch,
    next_look_at: Instant,
}

/// All that is known about middle proxies, and what is to be done about it when.
#[derive(Debug)]
pub(super) struct Keeper {
    plan: MiddleProxyPlan,
    clusters: Kept<ClusterFile>,
    clusters_v6: Kept<ClusterFile>,
    secret: Kept<ProxySecret>,
    files: Option<FileWatches>,
    names: Names,
    next_look_up_at: Option<Instant>,
    skew: SkewReport,
    nat: NatReport,
    loaded: Option<Arc<LoadedMiddleProxies>>,
}

impl Keeper {
    /// Reads what `plan` finds on this host.
    ///
    /// # Errors
    /// What is wrong with the operator's files.
    pub(super) fn open(plan: MiddleProxyPlan) -> Result<Self, Complaints> {
        let mut random = Random::from_seed(state::seed()?);
        let files = plan.files.as_ref().map(|files| FileWatches {
            config: FileWatch::new(&files.config),
            secret: FileWatch::new(&files.secret),
            next_look_at: Instant::now() + LOOK_EVERY,
        });
        let mut complaints = Complaints::default();
        let mut refresh = |url: fn(&RefreshSettings) -> Option<&DownloadUrl>, name| {
            let refresh = plan.refresh.as_ref()?;
            let cache = plan.state_dir.as_deref().map(|directory| Cache::new(directory, name));
            Some(FeedPlan { url: url(refresh)?.clone(), cache, refresh, seed: random.bytes() })
        };
        let config = plan.files.as_ref().map(|files| files.config.as_path());
        let feed = refresh(|refresh| Some(&refresh.config_url), "proxy-multi.conf");
        let clusters = complaints.note(Kept::open(config, feed));
        let feed = refresh(|refresh| refresh.config_url_v6.as_ref(), "proxy-multi-v6.conf");
        let clusters_v6 = complaints.note(Kept::open(None, feed));
        let secret = plan.files.as_ref().map(|files| files.secret.as_path());
        let feed = refresh(|refresh| Some(&refresh.secret_url), "proxy-secret");
        let secret = complaints.note(Kept::open(secret, feed));
        let (Some(clusters), Some(clusters_v6), Some(secret)) = (clusters, clusters_v6, secret) else {
            return Err(complaints);
        };
        Ok(Self {
            plan,
            clusters,
            clusters_v6,
            secret,
            files,
            names: Names::default(),
            next_look_up_at: None,
            skew: SkewReport::default(),
            nat: NatReport::default(),
            loaded: None,
        })
    }

    /// What is known, if it is enough for a link.
    pub(super) fn loaded(&self) -> Option<Arc<LoadedMiddleProxies>> {
        self.loaded.clone()
    }

    /// Downloads what neither file nor copy had, within [`FIRST_PATIENCE`].
    ///
    /// # Errors
    /// If something is missing after that.
    pub(super) fn complete(
        &mut self,
        arrival: &Sender<Arrival>,
        arrivals: &Receiver<Arrival>,
    ) -> Result<(), Complaint> {
        self.complete_within(FIRST_PATIENCE, arrival, arrivals)
    }

    pub(super) fn complete_within(
        &mut self,
        patience: Duration,
        arrival: &Sender<Arrival>,
        arrivals: &Receiver<Arrival>,
    ) -> Result<(), Complaint> {
        let deadline = Instant::now() + patience;
        while self.is_incomplete() {
            self.clusters.forgive();
            self.clusters_v6.forgive();
            self.secret.forgive();
            self.download(arrival, |_, is_missing| is_missing);
            while self.is_downloading() {
                let until = if self.is_incomplete() {
                    deadline
                } else {
                    deadline.min(Instant::now() + OTHERS_PATIENCE)
                };
                let Ok(arrival) = arrivals.recv_deadline(until) else { break };
                self.take(arrival);
            }
            if self.is_incomplete() {
                if Instant::now() + FIRST_RETRY_AFTER >= deadline {
                    return Err(self.nothing_known());
                }
                thread::sleep(FIRST_RETRY_AFTER);
            }
        }
        self.recompute();
        Ok(())
    }

    fn is_incomplete(&self) -> bool {
        self.clusters.in_use.is_none() && self.clusters_v6.in_use.is_none() || self.secret.in_use.is_none()
    }

    fn is_downloading(&self) -> bool {
        self.clusters.is_downloading() || self.clusters_v6.is_downloading() || self.secret.is_downloading()
    }

    fn nothing_known(&self) -> Complaint {
        let failed = [self.clusters.failure(), self.clusters_v6.failure(), self.secret.failure()];
        let failures: Vec<String> = failed.into_iter().flatten().collect();
        let found = if failures.is_empty() { "no answer in time".to_owned() } else { failures.join("; ") };
        Complaint::about_host(format!(
            "found no way to download what middle proxies need ({found}), and no earlier copy; expected an answer \
            within {} seconds at the first start; check this host's network, DNS and clock, or bring the files here and give \
            --middle-proxy-config and --middle-proxy-secret",
            FIRST_PATIENCE.as_secs()
        ))
    }

    /// When [`tick`](Self::tick) should be called; `None` if there is nothing to look after.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let files = self.files.as_ref().map(|files| files.next_look_at);
        let feeds = [self.clusters.next_at(), self.clusters_v6.next_at(), self.secret.next_at()];
        feeds.into_iter().chain([files, self.next_look_up_at]).flatten().min()
    }

    /// Does what is due at `now`. True if it changed what is known.
    pub(super) fn tick(&mut self, now: Instant, arrival: &Sender<Arrival>) -> bool {
        self.download(arrival, |next_at, _| next_at <= now);
        let names_are_due = self.next_look_up_at.is_some_and(|at| at <= now);
        let files_changed = self.look_at_files(now);
        (names_are_due || files_changed) && self.recompute()
    }

    /// Starts the downloads for which `is_due` holds, given when each is due and whether it is missing.
    fn download(&mut self, arrival: &Sender<Arrival>, is_due: impl Fn(Instant, bool) -> bool) {
        self.clusters.download(Which::Clusters, arrival, &is_due);
        self.clusters_v6.download(Which::ClustersV6, arrival, &is_due);
        self.secret.download(Which::Secret, arrival, &is_due);
    }

    /// Takes a download that has ended. True if it changed what is known.
    pub(super) fn take(&mut self, arrival: Arrival) -> bool {
        let Arrival { which, url, outcome } = arrival;
        if let Ok(Downloaded { clock: Some(reading), .. }) = &outcome {
            self.skew.judge(*reading, host_of(&url));
        }
        let changed = match which {
            Which::Clusters => self.clusters.take(&url, outcome),
            Which::ClustersV6 => self.clusters_v6.take(&url, outcome),
            Which::Secret => self.secret.take(&url, outcome),
        };
        changed && self.recompute()
    }

    /// Reads the operator's files if they have changed. True if one of them is in use now.
    fn look_at_files(&mut self, now: Instant) -> bool {
        let (Some(watches), Some(paths)) = (&mut self.files, &self.plan.files) else { return false };
        if now < watches.next_look_at {
            return false;
        }
        watches.next_look_at = now + LOOK_EVERY;
        // Both are asked, so that both have been seen.
        let config = watches.config.has_changed(&paths.config);
        let secret = watches.secret.has_changed(&paths.secret);
        let config_taken = config && self.clusters.reread(&paths.config);
        let secret_taken = secret && self.secret.reread(&paths.secret);
        config_taken || secret_taken
    }

    /// Follows `plan` from now on; what is known stays until there is something newer.
    ///
    /// # Errors
    /// What is wrong with the operator's files; then the plan stays as it was.
    pub(super) fn replan(&mut self, plan: MiddleProxyPlan) -> Result<(), Complaints> {
        // A file that root read at start may be out of reach by now, and need not be read again.
        if plan == self.plan && self.files_are_as_read() {
            self.recompute();
            return Ok(());
        }
        let mut newer = Self::open(plan)?;
        newer.loaded = self.loaded.take();
        newer.names = std::mem::take(&mut self.names);
        newer.skew = std::mem::take(&mut self.skew);
        newer.nat = std::mem::take(&mut self.nat);
        newer.recompute();
        *self = newer;
        Ok(())
    }

    fn files_are_as_read(&self) -> bool {
        match (&self.files, &self.plan.files) {
            (Some(watches), Some(MiddleProxyFiles { config, secret })) => {
                watches.config.is_as_read(config) && watches.secret.is_as_read(secret)
            }
            (None, _) | (_, None) => true,
        }
    }

    /// Makes what the engines get of what is known now. True if it is something else than before.
    pub(super) fn recompute(&mut self) -> bool {
        let (Some(config), Some(secret)) = (self.chosen(), &self.secret.in_use) else { return false };
        let clusters = self.names.clusters(&config.content, self.plan.prefer_ip);
        let names_after = has_names(&config.content)
            .then(|| if self.names.miss_some_of(&config.content) { NAMES_RETRY_AFTER } else { NAMES_EVERY });
        self.next_look_up_at = names_after.map(|after| Instant::now() + after);
        self.nat.judge(clusters.targets(), &self.plan.nat);
        let newer = LoadedMiddleProxies {
            secret: secret.content.clone(),
            clusters,
            config_origin: config.origin.clone(),
            secret_origin: secret.origin.clone(),
        };
        let is_news = self.loaded.as_ref().is_none_or(|loaded| loaded.differs_from(&newer));
        if is_news {
            if newer.clusters.targets().next().is_none() {
                error!(
                    config = newer.config_origin.name,
                    "found no address of any middle proxy; expected at least one; clients that go through middle \
                    proxies are not served until its names can be resolved"
                );
            }
            info!(
                config = newer.config_origin.name,
                secret = newer.secret_origin.name,
                clusters = newer.clusters.by_id.len(),
                targets = newer.clusters.targets().count(),
                "middle proxies are known"
            );
            self.loaded = Some(Arc::new(newer));
        }
        is_news
    }

    /// The addresses to use: of the preferred family if there is a route to them, or else of the other.
    fn chosen(&self) -> Option<Document<ClusterFile>> {
        let (v4, v6) = (self.clusters.in_use.as_ref(), self.clusters_v6.in_use.as_ref());
        let (first, second) = match self.plan.prefer_ip {
            PreferIp::V4 => (v4, v6),
            PreferIp::V6 => (v6, v4),
        };
        let reachable = |document: Option<&Document<ClusterFile>>| {
            document.is_some_and(|document| is_reachable(&document.content))
        };
        let chosen = if !reachable(first) && reachable(second) { second } else { first.or(second) };
        chosen.cloned()
    }
}

/// True if the routing table leads to one of the addresses, or may do so once its name is resolved.
fn is_reachable(file: &ClusterFile) -> bool {
    file.clusters.iter().flat_map(|cluster| &cluster.targets).any(|target| match target.host {
        Host::Ip(ip) => source_address::towards(ip).is_some(),
        Host::Name(_) => true,
    })
}

/// The part of a URL that names a server.
fn host_of(url: &DownloadUrl) -> &str {
    url.as_str().split('/').nth(2).unwrap_or_default()
}
