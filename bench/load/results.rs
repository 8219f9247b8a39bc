//! What a run found. This is also the form of the JSON file.

use mtproxy_bench::machine::Machine;
use mtproxy_bench::spread::{Latency, Spread};
use mtproxy_bench::work::{Route, Work};
use serde::Serialize;

use crate::plan::Plan;

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
