//! Core's events as counts and log lines.
//!
//! Every event is counted; few are worth a line at the default level, because strangers decide how many
//! there are. Fields, not sentences, and always the session. Addresses of clients are not in events.

use mtproxy_core::event::{DialError, Event, What};
use mtproxy_core::transport::Transport;
use tracing::{debug, enabled, trace};

use super::metrics::{Mode, WorkerCounters};

/// Counts `event`, and writes it down if the operator asked for that much. Called by worker `worker` for
/// each event of its engine.
pub fn record(counters: &WorkerCounters, worker: usize, event: &Event) {
    count(counters, &event.what);
    if enabled!(tracing::Level::DEBUG) {
        write(worker, event);
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
        What::Ended { outcome, from_client_bytes, from_upstream_bytes, .. } => {
            match outcome {
                Ok(()) => counters.sessions_finished.add(1),
                Err(reason) => counters.sessions_dropped[*reason as usize].add(1),
            }
            counters.received_bytes[0].add(*from_client_bytes);
            counters.received_bytes[1].add(*from_upstream_bytes);
        }
    }
}

fn write(worker: usize, event: &Event) {
    let session = event.session.0;
    match &event.what {
        What::Opened => trace!(worker, session, "opened"),
        What::Greeted { secret } => trace!(worker, session, secret = secret.0, "greeted"),
        What::Authenticated { secret, transport, fake_tls, dc } => {
            debug!(worker, session, secret = secret.0, ?transport, fake_tls, dc = dc.0, "authenticated");
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
    use crate::telemetry::metrics::Metrics;
    use mtproxy_core::credentials::SecretId;
    use mtproxy_core::dc::DcId;
    use mtproxy_core::error::{DropReason, PeerMisbehaved};
    use mtproxy_core::event::SessionNumber;
    use std::time::Duration;

    fn page_after(events: &[What]) -> String {
        let metrics = Metrics::new(1);
        for &what in events {
            record(metrics.worker(0), 0, &Event { session: SessionNumber(1), what });
        }
        metrics.exposition()
    }

    #[test]
    fn a_sessions_events_add_up_on_the_page() {
        let secret = SecretId(0);
        let ended = |outcome| What::Ended {
            outcome,
            from_client_bytes: 10,
            from_upstream_bytes: 20,
            lasted: Duration::ZERO,
        };
        let authenticated =
            |transport, fake_tls| What::Authenticated { secret, transport, fake_tls, dc: DcId(2) };
        let page = page_after(&[
            What::Opened,
            authenticated(Transport::PaddedIntermediate, true),
            ended(Ok(())),
            What::Opened,
            authenticated(Transport::Abridged, false),
            What::DialFailed { address: "192.0.2.1:443".parse().unwrap(), why: DialError::TimedOut },
            ended(Err(DropReason::UpstreamUnreachable)),
            What::Opened,
            What::Fronted(PeerMisbehaved::SpokeHttp),
        ]);
        for line in [
            "mtproxy_sessions_opened_total 3\n",
            "mtproxy_sessions_open 1\n",
            "mtproxy_sessions_finished_total 1\n",
            "mtproxy_sessions_dropped_total{reason=\"upstream_unreachable\"} 1\n",
            "mtproxy_authenticated_total{mode=\"plain\"} 1\n",
            "mtproxy_authenticated_total{mode=\"fake_tls\"} 1\n",
            "mtproxy_fronted_total{reason=\"spoke_http\"} 1\n",
            "mtproxy_dial_failures_total{reason=\"timed_out\"} 1\n",
            "mtproxy_received_bytes_total{from=\"client\"} 20\n",
            "mtproxy_received_bytes_total{from=\"upstream\"} 40\n",
        ] {
            assert!(page.contains(line), "{line} not in\n{page}");
        }
    }
}
