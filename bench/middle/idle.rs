//! What a client costs that is connected and does nothing.

use anyhow::Result;
use mtproxy_bench::progress::Progress;
use mtproxy_tests::{ProcessCost, TestClient};
use serde::Serialize;

use crate::Plan;
use crate::stage::{Route, Stage};

/// Memory of a proxy, and what clients add to it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct IdleResult {
    pub(crate) route: Route,
    pub(crate) clients: usize,
    /// PSS when one client has come and gone.
    pub(crate) pss_bytes_before: u64,
    /// PSS while all are connected, each after one answer.
    pub(crate) pss_bytes_with_clients: u64,
    pub(crate) pss_bytes_per_client: f64,
    /// Descriptors for each client: sockets are memory of the kernel's.
    pub(crate) descriptors_per_client: f64,
}

/// Measures on fresh proxies: memory that earlier work has left behind would be used again.
pub(crate) fn measure(plan: &Plan, progress: &mut Progress) -> Result<Vec<IdleResult>> {
    let measure = |route: Route| {
        progress.step(format!("{} idle clients, {}", plan.idle_clients, route.title()));
        measure_route(route, plan)
    };
    Route::ALL.into_iter().map(measure).collect()
}

#[expect(clippy::cast_precision_loss, reason = "memory and counts of one machine fit a double's 53 bits")]
fn measure_route(route: Route, plan: &Plan) -> Result<IdleResult> {
    let stage = Stage::set(plan)?;
    let before = ProcessCost::of(stage.pid(route));
    let clients: Vec<TestClient> = (0..plan.idle_clients).map(|_| stage.client(route)).collect();
    let with_clients = ProcessCost::of(stage.pid(route));
    let count = clients.len() as f64;
    Ok(IdleResult {
        route,
        clients: clients.len(),
        pss_bytes_before: before.pss_bytes,
        pss_bytes_with_clients: with_clients.pss_bytes,
        pss_bytes_per_client: with_clients.pss_bytes.saturating_sub(before.pss_bytes) as f64 / count,
        descriptors_per_client: with_clients.open_descriptors.saturating_sub(before.open_descriptors) as f64
            / count,
    })
}
