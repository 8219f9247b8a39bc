//! Core's events as counts and log lines.
//!
//! Every event is counted; few are worth a line at the default level, because strangers decide how many
//! there are. Fields, not sentences, and always the session. Addresses of clients are not in events.

use std::sync::Arc;

use mtproxy_core::credentials::{Credentials, SecretId};
use mtproxy_core::event::{DialError, Event, What};
use mtproxy_core::middle_proxy::{LinkEvent, LinkEventKind, LinkLoss};
use mtproxy_core::transport::Transport;
use tracing::{debug, enabled, info, trace, warn};

use super::metrics::{Metrics, Mode, SecretCounters, WorkerCounters};

/// A clock that is off by more is worth a warning: at 30 s middle proxies refuse us.
const SKEW_SECONDS_MAX: i64 = 5;

/// Counts and writes down what happens in one worker.
#[derive(Debug)]
pub struct Recorder {
    worker: usize,
    counters: Arc<WorkerCounters>,
    metrics: Arc<Metrics>,
    /// By [`SecretId`] of the configuration in force.
    secrets: Vec<Arc<SecretCounters>>,
}

impl Recorder {
    /// For worker number `worker`, counted from zero, and the secrets it begins with.
    #[must_use]
    pub fn new(worker: usize, metrics: Arc<Metrics>, credentials: &Credentials) -> Self {
        let (counters, secrets) = (metrics.worker(worker), metrics.secrets(credentials));
        Self { worker, counters, metrics, secrets }
    }

    /// From now on events number the secrets as `credentials` does.
    pub fn configure(&mut self, credentials: &Credentials) {
        self.secrets = self.metrics.secrets(credentials);
    }

    /// The worker's own counters.
    #[must_use]
    pub fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// What all workers count in.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Counts `event`, and writes it down if the operator asked for that much.
    pub fn record(&self, event: &Event) {
        count(self.counters(), &event.what);
        if let What::Authenticated { secret, .. } = event.what
            && let Some(secret) = self.secret(secret)
        {
            secret.count_authenticated();
        }
        if enabled!(tracing::Level::DEBUG) {
            self.write(event);
        }
    }

    /// Counts what happened to a link to a middle proxy, and writes it down: there are few.
    pub fn record_link(&self, event: &LinkEvent) {
        self.counters().middle_proxy.count(event);
        let (worker, address) = (self.worker, event.address);
        match event.kind {
            LinkEventKind::Ready { clock_skew_seconds } if clock_skew_seconds.abs() > SKEW_SECONDS_MAX => {
                warn!(
                    worker,
                    %address,
                    clock_skew_seconds,
                    "middle proxy reached, but its clock and ours differ; look after this host's clock (NTP)"
                );
            }
            LinkEventKind::Ready { .. } => debug!(worker, %address, "middle proxy reached"),
            LinkEventKind::Lost { why: LinkLoss::Retired, clients } => {
                debug!(worker, %address, clients, "link to a middle proxy ended as it should");
            }
            LinkEventKind::Lost { why, clients } => {
                let reason = why.name();
                info!(worker, %address, reason, ?why, clients, "link to a middle proxy lost");
            }
        }
    }

    fn secret(&self, id: SecretId) -> Option<&SecretCounters> {
        self.secrets.get(id.0 as usize).map(Arc::as_ref)
    }

    fn write(&self, event: &Event) {
        let (worker, session) = (self.worker, event.session.0);
        let name = |id: &SecretId| self.secret(*id).map(SecretCounters::name);
        match &event.what {
            What::Opened => trace!(worker, session, "opened"),
            What::Greeted { secret } => trace!(worker, session, secret = name(secret), "greeted"),
            What::Authenticated { secret, transport, fake_tls, dc } => {
                let (secret, dc) = (name(secret), dc.0);
                debug!(worker, session, secret, ?transport, fake_tls, dc, "authenticated");
            }
            What::Fronted(reason) => debug!(worker, session, reason = reason.name(), "fronted"),
            What::Discarding(reason) => debug!(worker, session, reason = reason.name(), "discarding"),
            What::Misbehaved(reason) => debug!(worker, session, reason = reason.name(), "misbehaved"),
            What::DialFailed { address, why } => debug!(worker, session, %address, ?why, "dial failed"),
            What::Connected { address } => trace!(worker, session, %address, "connected"),
            What::Ended { outcome, from_client_bytes, from_upstream_bytes, lasted } => {
                let outcome = outcome.map_or_else(mtproxy_core::error::DropReason::name, |()| "finished");
                debug!(worker, session, outcome, from_client_bytes, from_upstream_bytes, ?lasted, "ended");
            }
        }
    }
}

fn count(counters: &WorkerCounters, what: &What) {
    match what {
        What::Opened => counters.sessions_opened.add(1),
        What::Greeted { .. } | What::Connected { .. } => {}
        What::Authenticated { transport, fake_tls, .. } => {
            counters.authenticated[mode(*transport, *fake_tls) as usize].add(1);
        }
        What::Fronted(reason) => counters.fronted[*reason as usize].add(1),
        What::Discarding(reason) => counters.discarded[*reason as usize].add(1),
        What::Misbehaved(reason) => counters.misbehaved[*reason as usize].add(1),
        What::DialFailed { why, .. } => counters.dial_failures[dial_failure(*why)].add(1),
        What::Ended { outcome: Ok(()), .. } => counters.sessions_finished.add(1),
        What::Ended { outcome: Err(reason), .. } => counters.sessions_dropped[*reason as usize].add(1),
    }
}

fn mode(transport: Transport, fake_tls: bool) -> Mode {
    match (fake_tls, transport) {
        (true, _) => Mode::FakeTls,
        (false, Transport::PaddedIntermediate) => Mode::Padded,
        (false, Transport::Abridged | Transport::Intermediate) => Mode::Plain,
    }
}

/// Index into [`super::metrics::DIAL_FAILURES`].
fn dial_failure(why: DialError) -> usize {
    match why {
        DialError::Refused => 0,
        DialError::Unreachable => 1,
        DialError::TimedOut => 2,
        DialError::NoResources => 3,
        DialError::Other => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Shards;
    use mtproxy_core::dc::DcId;
    use mtproxy_core::error::{DropReason, PeerMisbehaved};
    use mtproxy_core::event::SessionNumber;
    use mtproxy_core::secret::{Secret, SecretKind};
    use std::time::Duration;

    fn credentials<const N: usize>(names: [&str; N]) -> Credentials {
        Credentials::new(names.map(|name| (name.to_owned(), Secret::new([1; 16], SecretKind::Plain))))
    }

    fn record_all(recorder: &Recorder, events: &[What]) {
        for &what in events {
            recorder.record(&Event { session: SessionNumber(1), what });
        }
    }

    fn authenticated(secret: u32) -> What {
        let transport = Transport::PaddedIntermediate;
        What::Authenticated { secret: SecretId(secret), transport, fake_tls: true, dc: DcId(2) }
    }

    fn assert_lines(metrics: &Metrics, lines: &[&str]) {
        let page = metrics.exposition();
        for line in lines {
            assert!(page.contains(&format!("{line}\n")), "{line} not in\n{page}");
        }
    }

    #[test]
    fn a_sessions_events_add_up_on_the_page() {
        let metrics = Arc::new(Metrics::new(1, Shards::NONE, 10));
        let recorder = Recorder::new(0, Arc::clone(&metrics), &credentials(["a"]));
        let ended = |outcome| What::Ended {
            outcome,
            from_client_bytes: 10,
            from_upstream_bytes: 20,
            lasted: Duration::ZERO,
        };
        let abridged = Transport::Abridged;
        let events = [
            What::Opened,
            authenticated(0),
            ended(Ok(())),
            What::Opened,
            What::Authenticated { secret: SecretId(0), transport: abridged, fake_tls: false, dc: DcId(2) },
            What::DialFailed { address: "192.0.2.1:443".parse().unwrap(), why: DialError::TimedOut },
            ended(Err(DropReason::UpstreamUnreachable)),
            What::Opened,
            What::Fronted(PeerMisbehaved::SpokeHttp),
        ];
        record_all(&recorder, &events);
        let lines = [
            "mtproxy_sessions_opened_total 3",
            "mtproxy_sessions_open 1",
            "mtproxy_sessions_finished_total 1",
            "mtproxy_sessions_dropped_total{reason=\"upstream_unreachable\"} 1",
            "mtproxy_authenticated_total{mode=\"plain\"} 1",
            "mtproxy_authenticated_total{mode=\"fake_tls\"} 1",
            "mtproxy_fronted_total{reason=\"spoke_http\"} 1",
            "mtproxy_dial_failures_total{reason=\"timed_out\"} 1",
        ];
        assert_lines(&metrics, &lines);
    }

    #[test]
    fn events_number_the_secrets_of_the_configuration_in_force() {
        let metrics = Arc::new(Metrics::new(2, Shards::NONE, 10));
        let mut recorder = Recorder::new(0, Arc::clone(&metrics), &credentials(["family", "work"]));
        let other_worker = Recorder::new(1, Arc::clone(&metrics), &credentials(["family", "work"]));
        record_all(&recorder, &[authenticated(0), authenticated(1)]);
        recorder.configure(&credentials(["work"]));
        // A number that no secret has is not counted under another's name.
        record_all(&recorder, &[authenticated(0), authenticated(1)]);
        record_all(&other_worker, &[authenticated(1)]);
        assert_lines(
            &metrics,
            &[
                "mtproxy_authenticated_by_secret_total{secret=\"family\"} 1",
                "mtproxy_authenticated_by_secret_total{secret=\"work\"} 3",
                "mtproxy_authenticated_total{mode=\"fake_tls\"} 5",
            ],
        );
    }
}
