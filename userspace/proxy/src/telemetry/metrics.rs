//! Counters, and the one list that defines every metric.
//!
//! A worker counts in a block of its own, without contention; a scrape sums the blocks. To add a metric,
//! add a field to [`WorkerCounters`] and a row to [`METRICS`]: the exposition and the table in
//! docs/operations.md, which a test compares, follow from the row.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use mtproxy_core::credentials::Credentials;
use mtproxy_core::error::{DropReason, PeerMisbehaved};

/// A number that one thread increases and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`. Only the thread that owns the counter may call this: with a single writer, a load
    /// and a store are enough, and cost what an ordinary addition costs.
    pub fn add(&self, amount: u64) {
        self.publish(self.0.load(Relaxed).wrapping_add(amount));
    }

    /// Shows `total`, which its owner counts elsewhere.
    pub fn publish(&self, total: u64) {
        self.0.store(total, Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How clients talk to us; the values of the label `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// obfuscated2, abridged or intermediate.
    Plain,
    /// obfuscated2, padded intermediate.
    Padded,
    /// Inside fake TLS.
    FakeTls,
}

/// The label values of [`Mode`], in its order.
pub const MODES: [&str; 3] = ["plain", "padded", "fake_tls"];

/// The label values of a dial failure, in the order of core's `DialError`.
pub const DIAL_FAILURES: [&str; 5] = ["refused", "unreachable", "timed_out", "no_resources", "other"];

/// Where bytes came from; the values of the label `from`.
pub const BYTE_ORIGINS: [&str; 2] = ["client", "upstream"];

/// What one worker counts. Blocks lie apart in memory, so that no two workers write to one cache line
/// (128 bytes, since processors fetch lines in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// Clients accepted.
    pub sessions_opened: Counter,
    /// Sessions that ended with both sides finished.
    pub sessions_finished: Counter,
    /// Sessions that ended otherwise, by [`DropReason`].
    pub sessions_dropped: [Counter; DropReason::ALL.len()],
    /// Clients that showed a secret, by [`Mode`].
    pub authenticated: [Counter; MODES.len()],
    /// Strangers connected to the real site, by [`PeerMisbehaved`].
    pub fronted: [Counter; PeerMisbehaved::ALL.len()],
    /// Strangers met with silence, by [`PeerMisbehaved`].
    pub discarded: [Counter; PeerMisbehaved::ALL.len()],
    /// Authenticated clients that broke the protocol, by [`PeerMisbehaved`].
    pub misbehaved: [Counter; PeerMisbehaved::ALL.len()],
    /// Attempts to reach a data centre or front that failed, in the order of [`DIAL_FAILURES`].
    pub dial_failures: [Counter; DIAL_FAILURES.len()],
    /// Bytes received, in the order of [`BYTE_ORIGINS`].
    pub received_bytes: [Counter; BYTE_ORIGINS.len()],
    /// How often accepting was paused for want of descriptors or places.
    pub accept_pauses: Counter,
}

/// What is counted of one secret. All workers count here: once for each client, for which they share the
/// count of connections and the replay cache anyway.
#[derive(Debug)]
pub struct SecretCounters {
    name: String,
    authenticated: AtomicU64,
}

impl SecretCounters {
    /// The name of the secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another client has shown the secret.
    pub fn count_authenticated(&self) {
        self.authenticated.fetch_add(1, Relaxed);
    }
}

/// Everything that can be scraped.
#[derive(Debug)]
pub struct Metrics {
    started: SystemTime,
    is_draining: AtomicBool,
    connections_limit: usize,
    workers: Box<[WorkerCounters]>,
    /// By name: every secret that was configured since the start. Locked for a scrape and for a reload.
    secrets: Mutex<BTreeMap<String, Arc<SecretCounters>>>,
}

impl Metrics {
    /// Counters for so many workers, all at zero, of a proxy that admits so many clients at a time.
    #[must_use]
    pub fn new(workers: usize, connections_limit: usize) -> Self {
        Self {
            started: SystemTime::now(),
            is_draining: AtomicBool::new(false),
            connections_limit,
            workers: (0..workers).map(|_| WorkerCounters::default()).collect(),
            secrets: Mutex::default(),
        }
    }

    /// The block of one worker, numbered from zero.
    ///
    /// # Panics
    /// If there is no such worker.
    #[must_use]
    pub fn worker(&self, worker: usize) -> &WorkerCounters {
        &self.workers[worker]
    }

    /// The counters of these secrets, in their order. A secret is known by its name: after a reload the
    /// same name counts on, whatever else has changed.
    #[must_use]
    pub fn secrets(&self, credentials: &Credentials) -> Vec<Arc<SecretCounters>> {
        let mut known = self.known_secrets();
        let mut counters_of = |name: &str| {
            let new = || SecretCounters { name: name.to_owned(), authenticated: AtomicU64::new(0) };
            Arc::clone(known.entry(name.to_owned()).or_insert_with(|| Arc::new(new())))
        };
        credentials.names().map(&mut counters_of).collect()
    }

    /// From now on the proxy takes no new clients.
    pub fn start_draining(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// True once the proxy takes no new clients.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }

    /// Sessions that are open now, over all workers.
    #[must_use]
    pub fn sessions_open(&self) -> u64 {
        let ended = |worker: &WorkerCounters| {
            worker.sessions_finished.get() + worker.sessions_dropped.iter().map(Counter::get).sum::<u64>()
        };
        // The ends are read first: read the other way round, a busy worker would make it negative.
        let ended: u64 = self.workers.iter().map(ended).sum();
        self.sum(|worker| &worker.sessions_opened).saturating_sub(ended)
    }

    /// The page: Prometheus text exposition 0.0.4.
    #[must_use]
    pub fn exposition(&self) -> String {
        let mut page = String::with_capacity(8 * 1024);
        for metric in METRICS {
            metric.render(self, &mut page).expect("a String takes all that is written to it");
        }
        page
    }

    fn sum(&self, counter: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| counter(worker).get()).sum()
    }

    fn sum_each<const N: usize>(
        &self,
        labels: [&'static str; N],
        counters: impl Fn(&WorkerCounters) -> &[Counter; N],
    ) -> Vec<Sample> {
        let sum = |index: usize| self.sum(|worker| &counters(worker)[index]);
        let sample =
            |(index, label): (usize, &'static str)| Sample { label: label.into(), value: sum(index) };
        labels.into_iter().enumerate().map(sample).collect()
    }

    fn known_secrets(&self) -> MutexGuard<'_, BTreeMap<String, Arc<SecretCounters>>> {
        // Whoever panicked inside left a table that is whole.
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a metric's values relate over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One row of the list.
#[derive(Debug)]
pub struct Metric {
    /// Its name on the page.
    pub name: &'static str,
    /// How its values relate over time.
    pub kind: Kind,
    /// What it says, in a sentence without full stop.
    pub help: &'static str,
    /// The name of its label, or nothing.
    pub label: &'static str,
    /// Its values now.
    read: fn(&Metrics) -> Vec<Sample>,
}

/// One value; `label` is empty if the metric has no label.
struct Sample {
    label: Cow<'static, str>,
    value: u64,
}

impl Metric {
    fn render(&self, metrics: &Metrics, page: &mut String) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        writeln!(page, "# HELP {} {}\n# TYPE {} {kind}", self.name, self.help, self.name)?;
        for Sample { label, value } in (self.read)(metrics) {
            if self.label.is_empty() {
                writeln!(page, "{} {value}", self.name)?;
            } else {
                writeln!(page, "{}{{{}=\"{}\"}} {value}", self.name, self.label, escaped(&label))?;
            }
        }
        Ok(())
    }
}

fn one(value: u64) -> Vec<Sample> {
    vec![Sample { label: "".into(), value }]
}

/// A label's value as the exposition format has it between quotation marks.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Every metric there is, in the order of the page.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        help: "When the proxy was started, in Unix seconds",
        label: "",
        read: |metrics| one(metrics.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())),
    },
    Metric {
        name: "mtproxy_build_info",
        kind: Kind::Gauge,
        help: "Always 1; the label says which version runs",
        label: "version",
        read: |_| vec![Sample { label: env!("CARGO_PKG_VERSION").into(), value: 1 }],
    },
    Metric {
        name: "mtproxy_workers",
        kind: Kind::Gauge,
        help: "Threads that serve clients",
        label: "",
        read: |metrics| one(metrics.workers.len() as u64),
    },
    Metric {
        name: "mtproxy_draining",
        kind: Kind::Gauge,
        help: "1 once the proxy takes no new clients, else 0",
        label: "",
        read: |metrics| one(metrics.is_draining().into()),
    },
    Metric {
        name: "mtproxy_connections_limit",
        kind: Kind::Gauge,
        help: "Client connections that there may be at a time; beyond it new ones wait",
        label: "",
        read: |metrics| one(metrics.connections_limit as u64),
    },
    Metric {
        name: "mtproxy_accept_pauses_total",
        kind: Kind::Counter,
        help: "Times that a worker stopped accepting for a tenth of a second, at the limit or out of descriptors",
        label: "",
        read: |metrics| one(metrics.sum(|worker| &worker.accept_pauses)),
    },
    Metric {
        name: "mtproxy_sessions_open",
        kind: Kind::Gauge,
        help: "Client connections now, strangers included; one user has up to about eight",
        label: "",
        read: |metrics| one(metrics.sessions_open()),
    },
    Metric {
        name: "mtproxy_sessions_opened_total",
        kind: Kind::Counter,
        help: "Client connections accepted, strangers included",
        label: "",
        read: |metrics| one(metrics.sum(|worker| &worker.sessions_opened)),
    },
    Metric {
        name: "mtproxy_sessions_finished_total",
        kind: Kind::Counter,
        help: "Sessions that ended because both sides had finished",
        label: "",
        read: |metrics| one(metrics.sum(|worker| &worker.sessions_finished)),
    },
    Metric {
        name: "mtproxy_sessions_dropped_total",
        kind: Kind::Counter,
        help: "Sessions that ended otherwise, each under one reason",
        label: "reason",
        read: |metrics| {
            metrics.sum_each(DropReason::ALL.map(DropReason::name), |worker| &worker.sessions_dropped)
        },
    },
    Metric {
        name: "mtproxy_authenticated_total",
        kind: Kind::Counter,
        help: "Clients that showed a valid secret, by how they talk",
        label: "mode",
        read: |metrics| metrics.sum_each(MODES, |worker| &worker.authenticated),
    },
    Metric {
        name: "mtproxy_authenticated_by_secret_total",
        kind: Kind::Counter,
        help: "Clients that showed a valid secret, by its name",
        label: "secret",
        read: |metrics| {
            let sample = |counters: &Arc<SecretCounters>| Sample {
                label: counters.name.clone().into(),
                value: counters.authenticated.load(Relaxed),
            };
            metrics.known_secrets().values().map(sample).collect()
        },
    },
    Metric {
        name: "mtproxy_fronted_total",
        kind: Kind::Counter,
        help: "Strangers connected to the real site, by what gave them away",
        label: "reason",
        read: |metrics| {
            metrics.sum_each(PeerMisbehaved::ALL.map(PeerMisbehaved::name), |worker| &worker.fronted)
        },
    },
    Metric {
        name: "mtproxy_discarded_total",
        kind: Kind::Counter,
        help: "Strangers met with silence because there is no site, by what gave them away",
        label: "reason",
        read: |metrics| {
            metrics.sum_each(PeerMisbehaved::ALL.map(PeerMisbehaved::name), |worker| &worker.discarded)
        },
    },
    Metric {
        name: "mtproxy_misbehaved_total",
        kind: Kind::Counter,
        help: "Clients with a valid secret that then broke the protocol, by what they did",
        label: "reason",
        read: |metrics| {
            metrics.sum_each(PeerMisbehaved::ALL.map(PeerMisbehaved::name), |worker| &worker.misbehaved)
        },
    },
    Metric {
        name: "mtproxy_dial_failures_total",
        kind: Kind::Counter,
        help: "Attempts to reach a data centre or site that failed",
        label: "reason",
        read: |metrics| metrics.sum_each(DIAL_FAILURES, |worker| &worker.dial_failures),
    },
    Metric {
        name: "mtproxy_received_bytes_total",
        kind: Kind::Counter,
        help: "Bytes received in all sessions, by the side they came from",
        label: "from",
        read: |metrics| metrics.sum_each(BYTE_ORIGINS, |worker| &worker.received_bytes),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy_core::secret::{Secret, SecretKind};
    use std::collections::HashSet;

    fn credentials<const N: usize>(names: [&str; N]) -> Credentials {
        Credentials::new(names.map(|name| (name.to_owned(), Secret::new([1; 16], SecretKind::Plain))))
    }

    /// The table of docs/operations.md, as it should be.
    fn documented() -> String {
        let mut table = String::from("| metric | type | label | says |\n|---|---|---|---|\n");
        for metric in METRICS {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let label = if metric.label.is_empty() { String::new() } else { format!("`{}`", metric.label) };
            writeln!(table, "| `{}` | {kind} | {label} | {} |", metric.name, metric.help).unwrap();
        }
        table
    }

    #[test]
    fn the_operations_manual_has_the_table_of_all_metrics() {
        let manual = include_str!("../../../../docs/operations.md");
        assert!(manual.contains(&documented()), "docs/operations.md needs this table:\n{}", documented());
    }

    #[test]
    fn a_page_names_each_metric_once_with_help_and_type_before_its_values() {
        let metrics = Metrics::new(2, 10);
        let _ = metrics.secrets(&credentials(["a"]));
        let page = metrics.exposition();
        let mut lines = page.lines().peekable();
        for metric in METRICS {
            assert_eq!(lines.next().unwrap(), format!("# HELP {} {}", metric.name, metric.help));
            assert!(lines.next().unwrap().starts_with(&format!("# TYPE {} ", metric.name)));
            let mut values = 0;
            while lines.peek().is_some_and(|line| !line.starts_with('#')) {
                let (series, value) = lines.next().unwrap().rsplit_once(' ').unwrap();
                assert!(series.starts_with(metric.name) && value.parse::<f64>().is_ok(), "{series} {value}");
                values += 1;
            }
            assert!(values > 0, "{}", metric.name);
        }
        assert!(page.ends_with('\n'));
        let names: HashSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for Metric { name, kind, label, help, .. } in METRICS {
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert!(
                label.chars().all(|c| c.is_ascii_lowercase()) && !help.contains(['\n', '\\', '|']),
                "{name}"
            );
        }
    }

    #[test]
    fn a_scrape_sums_the_workers() {
        let metrics = Metrics::new(2, 10);
        metrics.worker(0).sessions_opened.add(2);
        metrics.worker(1).sessions_opened.add(3);
        metrics.worker(0).sessions_finished.add(1);
        metrics.worker(1).sessions_dropped[DropReason::Idle as usize].add(1);
        metrics.worker(1).authenticated[Mode::Padded as usize].add(4);
        metrics.worker(0).accept_pauses.publish(1);
        metrics.worker(1).accept_pauses.publish(6);
        metrics.worker(1).accept_pauses.publish(7);
        let page = metrics.exposition();
        for line in [
            "mtproxy_sessions_opened_total 5\n",
            "mtproxy_sessions_open 3\n",
            "mtproxy_sessions_dropped_total{reason=\"idle\"} 1\n",
            "mtproxy_authenticated_total{mode=\"padded\"} 4\n",
            "mtproxy_workers 2\n",
            "mtproxy_connections_limit 10\n",
            "mtproxy_accept_pauses_total 8\n",
        ] {
            assert!(page.contains(line), "{line} not in\n{page}");
        }
    }

    #[test]
    fn a_secret_counts_on_under_its_name_whatever_its_place_after_a_reload() {
        let metrics = Metrics::new(1, 10);
        let before = metrics.secrets(&credentials(["family", "work"]));
        assert_eq!([before[0].name(), before[1].name()], ["family", "work"]);
        before[1].count_authenticated();
        let after = metrics.secrets(&credentials(["work", "guests"]));
        after[0].count_authenticated();
        let page = metrics.exposition();
        for line in ["secret=\"family\"} 0\n", "secret=\"work\"} 2\n", "secret=\"guests\"} 0\n"] {
            let line = format!("mtproxy_authenticated_by_secret_total{{{line}");
            assert!(page.contains(&line), "{line} not in\n{page}");
        }
        assert_eq!(page.matches("by_secret_total{").count(), 3);
    }

    #[test]
    fn a_label_cannot_leave_its_quotation_marks() {
        let metrics = Metrics::new(1, 10);
        let _ = metrics.secrets(&credentials(["a\"} 1\n\\b"]));
        let line = "mtproxy_authenticated_by_secret_total{secret=\"a\\\"} 1\\n\\\\b\"} 0\n";
        assert!(metrics.exposition().contains(line), "{}", metrics.exposition());
    }

    #[test]
    fn draining_shows_on_the_page() {
        let metrics = Metrics::new(1, 10);
        assert!(metrics.exposition().contains("mtproxy_draining 0\n"));
        metrics.start_draining();
        assert!(metrics.exposition().contains("mtproxy_draining 1\n"));
    }
}
