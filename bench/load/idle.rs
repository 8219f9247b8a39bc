//! What clients cost that are connected and do nothing: memory, and wake-ups.

use anyhow::Result;
use mtproxy_bench::clients::Crowd;
use mtproxy_bench::progress::Progress;
use mtproxy_bench::work::{Route, Work};
use mtproxy_tests::ProcessCost;

use crate::plan::Plan;
use crate::results::IdleResult;
use crate::stage::Stage;

/// Routes that are measured: nginx, and the mode that most clients use and that costs most.
const ROUTES: [Route; 2] = [Route::Nginx, Route::Ee];

/// Steps that [`measure_idle`] reports.
pub(crate) fn steps(plan: &Plan) -> u64 {
    if plan.idle_clients == 0 { 0 } else { ROUTES.len() as u64 }
}

/// Measures on fresh relays: memory that earlier work has left behind would be used again.
pub(crate) fn measure_idle(plan: &Plan, progress: &mut Progress) -> Result<Vec<IdleResult>> {
    let mut results = Vec::new();
    if plan.idle_clients == 0 {
        return Ok(results);
    }
    let stage = Stage::set(plan)?;
    for target in stage.targets().iter().filter(|target| ROUTES.contains(&target.route)) {
        let route = target.route;
        progress.step(format!("{} idle clients, {}", plan.idle_clients, route.title()));
        let pids = stage.relay_pids(route)?;
        // The first client of a process pays for what is made once.
        drop(Crowd::gather(target, Work::RequestAnswer, 1, 0, None)?);
        stage.clear();
        let before = pss_bytes(&pids);
        let crowd = Crowd::gather(target, Work::RequestAnswer, plan.idle_clients, 0, None)?;
        stage.clear();
        let with_clients = pss_bytes(&pids);
        let wake_ups_before = wake_ups(&pids);
        std::thread::sleep(plan.idle_window);
        let woken = wake_ups(&pids) - wake_ups_before;
        drop(crowd);
        stage.clear();
        results.push(result(route, plan, [before, with_clients], woken));
    }
    Ok(results)
}

#[expect(clippy::cast_precision_loss, reason = "memory and counts of one machine fit a double's 53 bits")]
fn result(route: Route, plan: &Plan, [before, with_clients]: [u64; 2], woken: u64) -> IdleResult {
    IdleResult {
        route,
        clients: plan.idle_clients,
        pss_bytes_before: before,
        pss_bytes_with_clients: with_clients,
        pss_bytes_per_client: with_clients.saturating_sub(before) as f64 / plan.idle_clients as f64,
        wake_ups_per_second: woken as f64 / plan.idle_window.as_secs_f64(),
    }
}

fn pss_bytes(pids: &[u32]) -> u64 {
    pids.iter().map(|&pid| ProcessCost::of(pid).pss_bytes).sum()
}

fn wake_ups(pids: &[u32]) -> u64 {
    pids.iter().map(|&pid| ProcessCost::of(pid).voluntary_switches).sum()
}
