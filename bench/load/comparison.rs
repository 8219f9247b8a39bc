//! The works, over all routes in turn.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use mtproxy_bench::accounts::{Account, machine_busy_ns};
use mtproxy_bench::clients::{Crowd, Figures};
use mtproxy_bench::progress::Progress;
use mtproxy_bench::spread::{Latency, Spread};
use mtproxy_bench::work::{Route, Target, Work};

use crate::plan::Plan;
use crate::results::{Round, RouteResult, WorkResult};
use crate::stage::Stage;

/// Steps that [`compare`] reports.
pub(crate) fn steps(plan: &Plan) -> u64 {
    (plan.works.len() * plan.routes.len() * plan.rounds) as u64
}

/// Measures every work over every route.
pub(crate) fn compare(stage: &Stage, plan: &Plan, progress: &mut Progress) -> Result<Vec<WorkResult>> {
    plan.works.iter().map(|&work| compare_work(stage, work, plan, progress)).collect()
}

/// What has been found of one route so far.
struct Tally {
    route: Route,
    rounds: Vec<Round>,
    latency_ns: Histogram<u64>,
}

fn compare_work(stage: &Stage, work: Work, plan: &Plan, progress: &mut Progress) -> Result<WorkResult> {
    let targets: Vec<&Target> =
        stage.targets().iter().filter(|target| plan.routes.contains(&target.route)).collect();
    let mut tallies = Vec::new();
    for target in &targets {
        let latency_ns = Figures::new()?.latency_ns;
        tallies.push(Tally { route: target.route, rounds: Vec::new(), latency_ns });
    }
    for round in 0..plan.rounds {
        let mut turns: Vec<(&Target, &mut Tally)> = targets.iter().copied().zip(&mut tallies).collect();
        // There and back again: a machine that slowly gets busier favours nobody.
        if round % 2 == 1 {
            turns.reverse();
        }
        for (target, tally) in turns {
            progress.step(format!("{}, {}, round {}", work.title(), target.route.title(), round + 1));
            let (round, figures) = measure(stage, target, work, plan)?;
            tally.rounds.push(round);
            tally.latency_ns.add(&figures.latency_ns)?;
            stage.clear();
        }
    }
    Ok(WorkResult { work, routes: evaluate(&tallies) })
}

/// One turn.
fn measure(stage: &Stage, target: &Target, work: Work, plan: &Plan) -> Result<(Round, Figures)> {
    let mut crowd = Crowd::gather(target, work, work.clients(), plan.bulk_buffer, None)?;
    crowd.release()?;
    crowd.work_for(plan.warm_up, 0)?;
    crowd.take_figures()?;
    let before = Reading::take(stage, target.route)?;
    crowd.work_for(plan.window, plan.bulk_bytes_min)?;
    let after = Reading::take(stage, target.route)?;
    let figures = crowd.take_figures()?;
    Ok((after.since(&before, &figures, work, target.route), figures))
}

/// The accounts of everybody at one moment.
struct Reading {
    at: Instant,
    relay: Account,
    clients: Account,
    data_centre: Account,
    machine_busy_ns: u64,
}

impl Reading {
    fn take(stage: &Stage, route: Route) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            relay: Account::of(&stage.relay_pids(route)?)?,
            clients: Account::of(&[std::process::id()])?,
            data_centre: Account::of(&[stage.data_centre_pid()])?,
            machine_busy_ns: machine_busy_ns()?,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody reads more than 53 bits of a measurement")]
    fn since(&self, before: &Self, figures: &Figures, work: Work, route: Route) -> Round {
        let us = |ns: u64| ns as f64 / 1000.0;
        let relay = self.relay - before.relay;
        let clients_cpu_us = us((self.clients - before.clients).cpu_ns);
        let data_centre_cpu_us = us((self.data_centre - before.data_centre).cpu_ns);
        let machine_us = us(self.machine_busy_ns.saturating_sub(before.machine_busy_ns));
        let ours_us = us(relay.cpu_ns) + clients_cpu_us + data_centre_cpu_us;
        let has_relay = route != Route::Direct;
        Round {
            seconds: self.at.duration_since(before.at).max(Duration::from_nanos(1)).as_secs_f64(),
            units: if work.is_bulk() {
                figures.bytes as f64 / f64::from(1 << 20)
            } else {
                figures.operations as f64
            },
            relay_cpu_us: has_relay.then_some(us(relay.cpu_ns)),
            relay_sleeps: has_relay.then_some(relay.sleeps as f64),
            clients_cpu_us,
            data_centre_cpu_us,
            others_cpu_us: (machine_us - ours_us).max(0.0),
        }
    }
}

fn evaluate(tallies: &[Tally]) -> Vec<RouteResult> {
    let nginx: Vec<Option<f64>> = tallies
        .iter()
        .filter(|tally| tally.route == Route::Nginx)
        .flat_map(|tally| tally.rounds.iter().map(relay_cpu_us_per_unit))
        .collect();
    tallies.iter().filter_map(|tally| evaluate_route(tally, &nginx)).collect()
}

/// `None` if there was no round at all.
fn evaluate_route(tally: &Tally, nginx: &[Option<f64>]) -> Option<RouteResult> {
    let rounds = &tally.rounds;
    let all_cpu_us =
        |r: &Round| (r.relay_cpu_us.unwrap_or_default() + r.clients_cpu_us + r.data_centre_cpu_us) / r.units;
    let to_nginx =
        rounds.iter().zip(nginx).filter_map(|(r, nginx)| Some(relay_cpu_us_per_unit(r)? / (*nginx)?));
    Some(RouteResult {
        route: tally.route,
        units_per_second: Spread::of(rounds.iter().map(|r| r.units / r.seconds))?,
        relay_cpu_us_per_unit: Spread::of(rounds.iter().filter_map(relay_cpu_us_per_unit)),
        relay_cpu_to_nginx: Spread::of(to_nginx),
        relay_sleeps_per_unit: Spread::of(rounds.iter().filter_map(|r| Some(r.relay_sleeps? / r.units))),
        all_cpu_us_per_unit: Spread::of(rounds.iter().map(all_cpu_us))?,
        latency_us: Latency::of(&tally.latency_ns),
        rounds: rounds.clone(),
    })
}

fn relay_cpu_us_per_unit(round: &Round) -> Option<f64> {
    Some(round.relay_cpu_us? / round.units)
}
