//! What a run found. This is also the form of the JSON file.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::machine::Machine;
use crate::plan::Plan;
use crate::work::{Route, Work};

/// Everything that a run found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) plan: Plan,
    pub(crate) works: Vec<WorkResult>,
    pub(crate) idle: Vec<IdleResult>,
}

/// One work over all routes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WorkResult {
    pub(crate) work: Work,
    pub(crate) routes: Vec<RouteResult>,
}

/// One work over one route.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RouteResult {
    pub(crate) route: Route,
    /// Operations, or MiB, a second.
    pub(crate) units_per_second: Spread,
    /// CPU time of the relay's processes for one operation, or one MiB. `None`: there is no relay.
    pub(crate) relay_cpu_us_per_unit: Option<Spread>,
    /// The same divided by nginx's of the same round.
    pub(crate) relay_cpu_to_nginx: Option<Spread>,
    /// How often a thread of the relay went to sleep for one operation, or one MiB.
    pub(crate) relay_sleeps_per_unit: Option<Spread>,
    /// CPU time of clients, relay and data centre together.
    pub(crate) all_cpu_us_per_unit: Spread,
    /// Of all rounds together; `None` for bulk.
    pub(crate) latency_us: Option<Latency>,
    /// The rounds themselves, in order.
    pub(crate) rounds: Vec<Round>,
}

/// One turn of one route.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) seconds: f64,
    /// Operations, or MiB.
    pub(crate) units: f64,
    pub(crate) relay_cpu_us: Option<f64>,
    pub(crate) relay_sleeps: Option<f64>,
    pub(crate) clients_cpu_us: f64,
    pub(crate) data_centre_cpu_us: f64,
    /// What everybody else on the machine used meanwhile: the noise.
    pub(crate) others_cpu_us: f64,
}

/// Median of the rounds, with the lowest and the highest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Some(Self { median, min, max })
    }
}

/// Percentiles, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// `None` if nothing was recorded.
    #[expect(clippy::cast_precision_loss, reason = "a minute in nanoseconds fits a double's 53 bits")]
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        let latency = Self { p50: at(0.5), p99: at(0.99), p99_9: at(0.999), max: us(histogram.max()) };
        (!histogram.is_empty()).then_some(latency)
    }
}

/// What clients cost that do nothing.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct IdleResult {
    pub(crate) route: Route,
    pub(crate) clients: usize,
    /// Memory of the relay's processes (PSS), when one client has come and gone.
    pub(crate) pss_bytes_before: u64,
    /// The same while all are connected.
    pub(crate) pss_bytes_with_clients: u64,
    /// The difference for each client.
    pub(crate) pss_bytes_per_client: f64,
    /// How often a thread of the relay woke up, while no client did anything.
    pub(crate) wake_ups_per_second: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_both_ends() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }
}
