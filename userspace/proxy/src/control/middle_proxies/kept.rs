//! One document: the operator's file or a cached copy at first, then what downloads bring.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::Sender;
use mtproxy_core::random::Random;
use tracing::{debug, error, info, warn};

use super::cache::Cache;
use super::document::{Content, Document};
use super::download::{self, Downloaded};
use super::files;
use super::snapshot::{Schedule, StableSnapshot, Verdict};
use crate::complaint::Complaint;
use crate::settings::middle_proxies::{DownloadUrl, RefreshSettings};

/// Which of the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Clusters,
    ClustersV6,
    Secret,
}

/// A download that has ended.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) which: Which,
    /// What was asked for; a reload may have changed the plan meanwhile.
    pub(super) url: DownloadUrl,
    pub(super) outcome: Result<Downloaded, String>,
}

/// One document and how it is kept current.
#[derive(Debug)]
pub(super) struct Kept<T> {
    pub(super) in_use: Option<Document<T>>,
    feed: Option<Feed<T>>,
}

/// Downloads of one document.
#[derive(Debug)]
struct Feed<T> {
    url: DownloadUrl,
    /// `None` without a state directory.
    cache: Option<Cache>,
    snapshot: StableSnapshot<T>,
    schedule: Schedule,
    is_under_way: bool,
    /// Why the last one failed.
    last_error: Option<String>,
}

/// How one document is to be kept current.
pub(super) struct FeedPlan<'a> {
    pub(super) url: DownloadUrl,
    pub(super) cache: Option<Cache>,
    pub(super) refresh: &'a RefreshSettings,
    pub(super) seed: [u8; 32],
}

impl<T: Content> Kept<T> {
    /// Reads the operator's `file` and the cached copy; the younger one is in use.
    pub(super) fn open(file: Option<&Path>, feed: Option<FeedPlan<'_>>) -> Result<Self, Complaint> {
        let from_file = file.map(files::read::<T>).transpose()?;
        let cache = feed.as_ref().and_then(|feed| feed.cache.as_ref());
        let cached = cache.and_then(|cache| {
            cache.load::<T>().unwrap_or_else(|complaint| {
                warn!("{complaint}; until the next download there is no copy of it");
                None
            })
        });
        let in_use = match (from_file, cached) {
            (Some(file), Some(copy)) if file.origin.current_at >= copy.origin.current_at => Some(file),
            (_, Some(copy)) => Some(copy),
            (file, None) => file,
        };
        let feed = feed.map(|plan| Feed::new(plan, in_use.as_ref()));
        Ok(Self { in_use, feed })
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        let feed = self.feed.as_ref().filter(|feed| !feed.is_under_way)?;
        Some(feed.schedule.next_at())
    }

    /// True while a download is on its way.
    pub(super) fn is_downloading(&self) -> bool {
        self.feed.as_ref().is_some_and(|feed| feed.is_under_way)
    }

    /// Lets the failures of a start not count for later.
    pub(super) fn forgive(&mut self) {
        if let Some(feed) = &mut self.feed {
            feed.schedule.forgive();
        }
    }

    /// Why there is no document.
    pub(super) fn failure(&self) -> Option<String> {
        let feed = self.feed.as_ref().filter(|_| self.in_use.is_none())?;
        Some(format!("{}: {}", feed.url, feed.last_error.as_ref()?))
    }

    pub(super) fn download(
        &mut self,
        which: Which,
        arrival: &Sender<Arrival>,
        is_due: &impl Fn(Instant, bool) -> bool,
    ) {
        let is_missing = self.in_use.is_none();
        let Some(feed) = &mut self.feed else { return };
        if feed.is_under_way || !is_due(feed.schedule.next_at(), is_missing) {
            return;
        }
        let (url, arrival) = (feed.url.clone(), arrival.clone());
        let download = move || {
            let outcome = download::fetch(&url, T::BYTES_MAX);
            // Nobody waits for it any more if the process is ending.
            let _ = arrival.send(Arrival { which, url, outcome });
        };
        match thread::Builder::new().name("download".to_owned()).spawn(download) {
            Ok(_) => feed.is_under_way = true,
            Err(error) => feed.failed(&format!("found no thread ({error})"), self.in_use.as_ref()),
        }
    }

    /// Takes what was downloaded from `url`. True if it is in use now.
    pub(super) fn take(&mut self, url: &DownloadUrl, outcome: Result<Downloaded, String>) -> bool {
        let Some(feed) = self.feed.as_mut().filter(|feed| feed.url == *url) else { return false };
        feed.is_under_way = false;
        let read = outcome.and_then(|downloaded| {
            let document = Document::<T>::read(url.as_str(), &downloaded.body, SystemTime::now());
            document.map(|document| (document, downloaded.body)).map_err(|flaw| flaw.to_string())
        });
        let (document, body) = match read {
            Ok(read) => read,
            Err(error) => {
                feed.failed(&error, self.in_use.as_ref());
                return false;
            }
        };
        let verdict = feed.judge(document, self.in_use.as_ref());
        match verdict {
            Verdict::Accepted(document) => {
                feed.keep(&body);
                self.in_use = Some(document);
                true
            }
            Verdict::Current => {
                if let Some(in_use) = &mut self.in_use {
                    in_use.origin.current_at = SystemTime::now();
                }
                feed.confirm(&body);
                false
            }
            Verdict::Candidate | Verdict::Refused(_) => false,
        }
    }

    /// Reads the operator's file at `path` again. True if it is in use now.
    pub(super) fn reread(&mut self, path: &Path) -> bool {
        match files::read::<T>(path) {
            Ok(document) => {
                self.in_use = Some(document);
                true
            }
            Err(complaint) => {
                error!("{complaint}; what was read before stays in use");
                false
            }
        }
    }
}

impl<T: Content> Feed<T> {
    fn new(plan: FeedPlan<'_>, in_use: Option<&Document<T>>) -> Self {
        let FeedPlan { url, cache, refresh, seed } = plan;
        let age = in_use.map(|document| age_of(document));
        if let Some(age) = age.filter(|age| *age > refresh.every) {
            warn!(
                "found only a copy of {} from {} ago; expected one of the last {}; it is in use until {url} answers",
                T::NAME,
                in_words(age),
                in_words(refresh.every)
            );
        }
        let wait = age.map_or(Duration::ZERO, |age| refresh.every.saturating_sub(age));
        let first_at = Instant::now() + wait;
        let schedule = Schedule::new(refresh.every, refresh.confirm_after, Random::from_seed(seed), first_at);
        Self { url, cache, snapshot: StableSnapshot::new(), schedule, is_under_way: false, last_error: None }
    }

    fn judge(&mut self, document: Document<T>, in_use: Option<&Document<T>>) -> Verdict<T> {
        if self.last_error.take().is_some() {
            info!(url = %self.url, "{} can be downloaded again", T::NAME);
        }
        let now = Instant::now();
        let verdict = self.snapshot.judge(document, in_use, self.schedule.confirm_after(), now);
        self.schedule.judged(&verdict, now);
        let url = &self.url;
        match &verdict {
            Verdict::Current => debug!(%url, "{} is current", T::NAME),
            Verdict::Candidate => info!(
                %url,
                "found a newer version of {}; it counts if the source still has it in {}",
                T::NAME,
                in_words(self.schedule.confirm_after())
            ),
            Verdict::Accepted(document) => {
                info!(%url, bytes = document.origin.bytes, md5 = document.origin.md5_hex, "took {}", T::NAME);
            }
            Verdict::Refused(reason) => warn!(
                %url,
                "refused a newer version of {}: {reason}; the one before stays in use; if the newer one is right, \
                remove the copy in the state directory and restart",
                T::NAME
            ),
        }
        verdict
    }

    fn failed(&mut self, error: &str, in_use: Option<&Document<T>>) {
        let wait = self.schedule.failed(Instant::now());
        let (url, again) = (&self.url, in_words(wait));
        let consequence = match in_use {
            Some(document) => {
                format!(
                    "the one from {} ago stays in use; tries again in {again}",
                    in_words(age_of(document))
                )
            }
            None => "there is none in use".to_owned(),
        };
        // Every further one only if it is rare.
        if self.last_error.is_none() || wait > Duration::from_secs(3600) {
            warn!(%url, "could not download {}: {error}; {consequence}", T::NAME);
        } else {
            debug!(%url, "could not download {} again: {error}; {consequence}", T::NAME);
        }
        self.last_error = Some(error.to_owned());
    }

    fn keep(&self, body: &[u8]) {
        let Some(cache) = &self.cache else { return };
        if let Err(error) = cache.save(body) {
            warn!(
                "found no way to keep a copy of {} at {} ({error}); expected a directory that this user can write; set \
                state_dir in the configuration file: without a copy, the next start needs the network",
                T::NAME,
                cache.path().display()
            );
        }
    }

    /// Notes that `body` is current. It may be of the operator's own file, of which there is no copy yet.
    fn confirm(&self, body: &[u8]) {
        let is_copied = self.cache.as_ref().is_some_and(|cache| {
            cache.load::<T>().ok().flatten().is_some_and(|copy| {
                Document::<T>::read("", body, SystemTime::now()).is_ok_and(|body| body.is_same_as(&copy))
            })
        });
        match &self.cache {
            Some(cache) if is_copied => {
                if let Err(error) = cache.confirm() {
                    debug!("cannot note at {} that it is current: {error}", cache.path().display());
                }
            }
            Some(_) | None => self.keep(body),
        }
    }
}

fn age_of<T>(document: &Document<T>) -> Duration {
    document.origin.current_at.elapsed().unwrap_or_default()
}

/// A time in the largest unit that fits.
fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}
