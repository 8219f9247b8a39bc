//! The works, over all routes by turns.
//!
//! Clients take a step together: all ask, then all read. That keeps as many packets under way as there are clients, and
//! costs this process so little that the proxy is what is measured: its CPU time, by the kernel's account.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mtproxy_bench::accounts::Account;
use mtproxy_bench::progress::Progress;
use mtproxy_bench::spread::Spread;
use mtproxy_tests::{Command, TestClient};
use serde::Serialize;

use crate::Plan;
use crate::stage::{Route, Stage};

/// Bytes of a question and of its answer: what most of Telegram's packets are like.
const QUESTION_LEN: usize = 128 - mtproxy_tests::command::COMMAND_HEADER_LEN;
/// Bytes that one client downloads in a step.
const DOWNLOAD_LEN: u64 = 4 << 20;
/// What a proxy is given to forget the clients of the turn before.
const CLEARING: Duration = Duration::from_millis(60);
const MIB: f64 = (1 << 20) as f64;

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    RequestAnswer,
    Connect,
    Download,
}

impl Work {
    const ALL: [Self; 3] = [Self::RequestAnswer, Self::Connect, Self::Download];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::RequestAnswer => "request and answer, 128 bytes each",
            Self::Connect => "connect, handshake, one request, close",
            Self::Download => "download",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        if self == Self::Download { "MiB" } else { "op" }
    }

    /// Clients at a time.
    pub(crate) fn clients(self) -> usize {
        match self {
            Self::RequestAnswer => 64,
            Self::Connect => 16,
            Self::Download => 4,
        }
    }

    /// What all clients together have done in one step, in units.
    fn units_per_step(self) -> f64 {
        let clients = f64::from(u16::try_from(self.clients()).expect("a handful"));
        match self {
            Self::RequestAnswer | Self::Connect => clients,
            #[expect(clippy::cast_precision_loss, reason = "a few MiB")]
            Self::Download => clients * DOWNLOAD_LEN as f64 / MIB,
        }
    }
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
    pub(crate) units_per_second: Spread,
    /// CPU time of the proxy.
    pub(crate) cpu_us_per_unit: Spread,
    /// The same divided by that of the direct route in the same round.
    pub(crate) cpu_to_direct: Spread,
}

/// One turn of one route.
#[derive(Clone, Copy)]
struct Turn {
    units_per_second: f64,
    cpu_us_per_unit: f64,
}

/// What everybody asks.
pub(crate) fn question() -> Command {
    Command::Echo(vec![0x61; QUESTION_LEN])
}

/// Measures every work over every route.
pub(crate) fn compare(stage: &Stage, plan: &Plan, progress: &mut Progress) -> Result<Vec<WorkResult>> {
    Work::ALL.into_iter().map(|work| compare_work(stage, work, plan, progress)).collect()
}

/// Steps that [`compare`] reports.
pub(crate) fn steps(plan: &Plan) -> u64 {
    (Work::ALL.len() * Route::ALL.len() * plan.rounds) as u64
}

fn compare_work(stage: &Stage, work: Work, plan: &Plan, progress: &mut Progress) -> Result<WorkResult> {
    let mut turns: Vec<(Route, Vec<Turn>)> = Route::ALL.map(|route| (route, Vec::new())).into();
    for round in 0..plan.rounds {
        // There and back again: a machine that slowly gets busier favours nobody.
        for at in 0..turns.len() {
            let at = if round % 2 == 1 { turns.len() - 1 - at } else { at };
            let (route, done) = &mut turns[at];
            progress.step(format!("{}, {}, round {}", work.title(), route.title(), round + 1));
            done.push(measure(stage, *route, work, plan)?);
            std::thread::sleep(CLEARING);
        }
    }
    let of =
        |wanted: Route| turns.iter().find(|(route, _)| *route == wanted).map(|(_, turns)| turns.as_slice());
    let routes = turns.iter().filter_map(|(route, own)| evaluate(*route, own, of(route.direct())?)).collect();
    Ok(WorkResult { work, routes })
}

fn evaluate(route: Route, own: &[Turn], direct: &[Turn]) -> Option<RouteResult> {
    let ratios = own.iter().zip(direct).map(|(own, direct)| own.cpu_us_per_unit / direct.cpu_us_per_unit);
    Some(RouteResult {
        route,
        units_per_second: Spread::of(own.iter().map(|turn| turn.units_per_second))?,
        cpu_us_per_unit: Spread::of(own.iter().map(|turn| turn.cpu_us_per_unit))?,
        cpu_to_direct: Spread::of(ratios)?,
    })
}

fn measure(stage: &Stage, route: Route, work: Work, plan: &Plan) -> Result<Turn> {
    let clients = if work == Work::Connect { 0 } else { work.clients() };
    let mut clients: Vec<TestClient> = (0..clients).map(|_| stage.client(route)).collect();
    // Ciphers, caches and socket buffers settle.
    step(stage, route, work, &mut clients)?;
    let pids = [stage.pid(route)];
    let (began, before) = (Instant::now(), Account::of(&pids)?);
    let mut units = 0.0;
    while began.elapsed() < plan.window {
        step(stage, route, work, &mut clients)?;
        units += work.units_per_step();
    }
    let (seconds, used) = (began.elapsed().as_secs_f64(), Account::of(&pids)? - before);
    #[expect(clippy::cast_precision_loss, reason = "nobody reads more than 53 bits of a measurement")]
    let cpu_us = used.cpu_ns as f64 / 1000.0;
    Ok(Turn { units_per_second: units / seconds, cpu_us_per_unit: cpu_us / units })
}

/// All clients do the work once.
fn step(stage: &Stage, route: Route, work: Work, clients: &mut [TestClient]) -> Result<()> {
    match work {
        Work::RequestAnswer => ask_and_read(clients),
        Work::Connect => {
            let mut clients: Vec<TestClient> = (0..work.clients()).map(|_| stage.new_client(route)).collect();
            ask_and_read(&mut clients)
        }
        Work::Download => {
            for client in clients.iter_mut() {
                client.send_command(&Command::Bulk { len: DOWNLOAD_LEN });
            }
            // Checks every byte.
            clients.iter_mut().for_each(|client| client.receive_bulk(DOWNLOAD_LEN));
            Ok(())
        }
    }
}

fn ask_and_read(clients: &mut [TestClient]) -> Result<()> {
    let question = question();
    for client in clients.iter_mut() {
        client.send_command(&question);
    }
    for client in clients.iter_mut() {
        let answer = Command::parse(&client.receive_body());
        ensure!(answer.as_ref() == Some(&question), "the answer is not what was asked for");
    }
    Ok(())
}
