//! What one worker counts of middle proxies: its links, and what goes over them.

use mtproxy_core::engine::Engine;
use mtproxy_core::middle_proxy::{LinkEvent, LinkEventKind, LinkLoss};

use super::{Counter, Gauge, Kind, Metric, one};

/// The labels of answers and acknowledgements: whether the client was still there.
const OUTCOMES: [&str; 2] = ["delivered", "dropped"];
/// The labels of links.
const LINK_STATES: [&str; 2] = ["open", "ready"];
/// The labels of targets.
const TARGET_STATES: [&str; 2] = ["configured", "ready"];

/// One worker's numbers.
#[derive(Clone, Debug, Default)]
pub struct MiddleProxyCounters {
    /// Links by [`LINK_STATES`].
    pub links: [Gauge; 2],
    /// Middle proxies by [`TARGET_STATES`].
    pub targets: [Gauge; 2],
    /// Links that became ready.
    pub links_ready: Counter,
    /// Links that ended, by [`LinkLoss`].
    pub links_lost: [Counter; LinkLoss::NAMES.len()],
    /// Packets of clients forwarded.
    pub requests: Counter,
    /// Packets of clients that are no MTProto message.
    pub ignored: Counter,
    /// Answers by [`OUTCOMES`].
    pub answers: [Counter; 2],
    /// Quick acknowledgements by [`OUTCOMES`].
    pub acks: [Counter; 2],
    /// Times that a client's packets began to go by a link.
    pub mappings: Counter,
    /// Messages that are unknown or malformed.
    pub unknown: Counter,
    /// Bytes that wait for clients, or came from them.
    pub buffered_bytes: Gauge,
}

impl MiddleProxyCounters {
    /// Counts what happened to a link.
    pub fn count(&self, event: &LinkEvent) {
        match event.kind {
            LinkEventKind::Ready { .. } => self.links_ready.add(1),
            LinkEventKind::Lost { why, .. } => self.links_lost[why.index()].add(1),
        }
    }

    /// Shows what the engine counts.
    pub fn publish(&self, engine: &Engine) {
        let forwarded = engine.forwarded();
        self.requests.publish(forwarded.requests);
        self.ignored.publish(forwarded.ignored);
        self.answers[0].publish(forwarded.answers);
        self.answers[1].publish(forwarded.answers_dropped);
        self.acks[0].publish(forwarded.acks);
        self.acks[1].publish(forwarded.acks_dropped);
        self.mappings.publish(forwarded.mappings);
        self.unknown.publish(forwarded.unknown);
        self.buffered_bytes.set(engine.buffered_bytes() as u64);
    }

    /// Shows how many links and targets there are: these are counted anew, so only when they may have changed.
    pub fn publish_links(&self, engine: &Engine) {
        let (open, ready) = engine.link_counts();
        self.links[0].set(open as u64);
        self.links[1].set(ready as u64);
        let (reachable, configured) = engine.target_counts();
        self.targets[0].set(configured as u64);
        self.targets[1].set(reachable as u64);
    }
}

/// The part of the list of metrics that is about middle proxies.
pub(super) const METRICS: [Metric; 10] = [
    Metric {
        name: "mtproxy_middle_proxy_links",
        kind: Kind::Gauge,
        help: "Connections to middle proxies now, and those of them that carry packets",
        labels: &["state"],
        read: |metrics| metrics.sum_each_gauge(LINK_STATES, |worker| &worker.middle_proxy.links),
    },
    Metric {
        name: "mtproxy_middle_proxy_targets",
        kind: Kind::Gauge,
        help: "Middle proxies in the configuration, and those reached, summed over workers",
        labels: &["state"],
        read: |metrics| metrics.sum_each_gauge(TARGET_STATES, |worker| &worker.middle_proxy.targets),
    },
    Metric {
        name: "mtproxy_middle_proxy_links_ready_total",
        kind: Kind::Counter,
        help: "Connections to middle proxies whose handshake succeeded",
        labels: &[],
        read: |metrics| one(metrics.sum(|worker| &worker.middle_proxy.links_ready)),
    },
    Metric {
        name: "mtproxy_middle_proxy_links_lost_total",
        kind: Kind::Counter,
        help: "Connections to middle proxies that ended or never came about",
        labels: &["reason"],
        read: |metrics| metrics.sum_each(LinkLoss::NAMES, |worker| &worker.middle_proxy.links_lost),
    },
    Metric {
        name: "mtproxy_middle_proxy_requests_total",
        kind: Kind::Counter,
        help: "Packets of clients forwarded to middle proxies",
        labels: &[],
        read: |metrics| one(metrics.sum(|worker| &worker.middle_proxy.requests)),
    },
    Metric {
        name: "mtproxy_middle_proxy_ignored_total",
        kind: Kind::Counter,
        help: "Packets of clients that are no MTProto message, and were passed over",
        labels: &[],
        read: |metrics| one(metrics.sum(|worker| &worker.middle_proxy.ignored)),
    },
    Metric {
        name: "mtproxy_middle_proxy_answers_total",
        kind: Kind::Counter,
        help: "Packets of middle proxies for clients, by whether the client was still there",
        labels: &["outcome"],
        read: |metrics| metrics.sum_each(OUTCOMES, |worker| &worker.middle_proxy.answers),
    },
    Metric {
        name: "mtproxy_middle_proxy_acks_total",
        kind: Kind::Counter,
        help: "Quick acknowledgements of middle proxies for clients, by whether the client was still there",
        labels: &["outcome"],
        read: |metrics| metrics.sum_each(OUTCOMES, |worker| &worker.middle_proxy.acks),
    },
    Metric {
        name: "mtproxy_middle_proxy_mappings_total",
        kind: Kind::Counter,
        help: "Times that a client's packets began to go by a connection to a middle proxy",
        labels: &[],
        read: |metrics| one(metrics.sum(|worker| &worker.middle_proxy.mappings)),
    },
    Metric {
        name: "mtproxy_middle_proxy_buffered_bytes",
        kind: Kind::Gauge,
        help: "Bytes that wait for clients of middle proxies, or came from them and wait for a connection",
        labels: &[],
        read: |metrics| one(metrics.sum_gauge(|worker| &worker.middle_proxy.buffered_bytes)),
    },
];
