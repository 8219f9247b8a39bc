//! One datapath at one phase: what everybody used meanwhile.
//!
//! The figure that counts is the CPU time of the whole system less the generator. AF_XDP moves work between
//! process and softirq, so the proxy's own account alone would compare different things:
//!
//! ```text
//!   proxy's CPUs:      ▒▒▒▒ proxy's threads, with the softirqs that run on top of them ▒▒▒▒ ksoftirqd
//!   generator's CPUs:  clients and data centre ── ▒▒▒ interrupts and softirqs ▒▒▒ ── others
//!                                                                                 ▒ = counted
//! ```
//! A softirq runs where the packet was sent, on top of whoever sent it. Without CONFIG_IRQ_TIME_ACCOUNTING
//! the kernel charges it to that process as well, so that "all CPUs less the generator's processes" would
//! lose it. Hence proxy and generator have CPUs of their own, and of the generator's CPUs that is counted
//! which /proc/stat calls irq and softirq. What other processes use is in neither.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mtproxy_bench::accounts::{Account, interrupts_ns, machine_busy_ns, pids_named};
use mtproxy_bench::spread::Latency;
use mtproxy_tests::ProxyProcess;
use mtproxy_tests::lab3::PROXY_INTERFACE;
use mtproxy_tests::net_ns::LinkCounters;
use serde::Serialize;

use crate::clients_process::{Done, News, Order};
use crate::drops::Page;
use crate::interruption::Interruption;
use crate::live::{Glance, Live};
use crate::phase::{Phase, Plan};
use crate::stage::Stage;

/// How long clients may take for a step beyond what they were told.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one turn found.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Turn {
    pub(crate) seconds: f64,
    /// Operations, or MiB.
    pub(crate) units: f64,
    pub(crate) latency_us: Option<Latency>,
    /// The proxy's threads, interrupts and softirqs on the generator's CPUs, and kernel threads that do
    /// softirqs on the proxy's.
    pub(crate) system_cpu_us: f64,
    /// Of this, the proxy's threads.
    pub(crate) proxy_cpu_us: f64,
    /// Of this, interrupts and softirqs on the generator's CPUs.
    pub(crate) generator_interrupts_us: f64,
    /// Clients and data centre, with what the kernel did on top of them.
    pub(crate) generator_cpu_us: f64,
    /// All CPUs, whoever used them.
    pub(crate) machine_cpu_us: f64,
    /// Both directions of the proxy's interface.
    pub(crate) packets: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) drops: BTreeMap<String, u64>,
}

/// Plays one turn.
pub(crate) fn measure(
    stage: &mut Stage,
    proxy: &ProxyProcess,
    phase: Phase,
    plan: &Plan,
    live: &mut Live,
    interruption: &Interruption,
) -> Result<Turn> {
    stage.clients.order(&Order::Work {
        work: phase.work,
        route: phase.route,
        address: Stage::proxy_address(),
        clients: phase.clients(),
        warm_up: plan.warm_up,
        window: plan.window,
        bulk_buffer: plan.bulk_buffer,
    })?;
    match stage.clients.next_news(plan.warm_up + PATIENCE, interruption, || {})? {
        News::Begun => {}
        news => bail!("awaiting that clients begin: they said {news:?}"),
    }
    // Within the window: clients that leave leave some connections half done, which is nobody's fault.
    let drops_before = Page::fetch(&stage.lab.proxy)?;
    let before = Reading::take(stage, proxy)?;
    let done = watch(stage, plan, live, &drops_before, interruption)?;
    let after = Reading::take(stage, proxy)?;
    let drops = Page::fetch(&stage.lab.proxy)?.drops_since(&drops_before);
    stage.clients.order(&Order::Leave)?;
    match stage.clients.next_news(PATIENCE, interruption, || {})? {
        News::Left => {}
        news => bail!("awaiting that clients leave: they said {news:?}"),
    }
    let turn = after.since(&before, &done, phase, drops);
    ensure!(turn.units > 0.0, "nothing was done in {:?}", plan.window);
    Ok(turn)
}

/// Shows how it goes until the window is over.
fn watch(
    stage: &Stage,
    plan: &Plan,
    live: &mut Live,
    drops_before: &Page,
    interruption: &Interruption,
) -> Result<Done> {
    let mut last = (Instant::now(), counters(stage)?);
    loop {
        let done = match stage.clients.next_news(plan.window + PATIENCE, interruption, || {})? {
            News::Progress(done) => done,
            News::Ended(done) => return Ok(done),
            news => bail!("awaiting that clients work: they said {news:?}"),
        };
        live.note(&done);
        if live.is_due() {
            let now = (Instant::now(), counters(stage)?);
            let page = Page::fetch(&stage.lab.proxy)?;
            live.show(&Glance {
                connections: page.value("mtproxy_sessions_open"),
                seconds: now.0.duration_since(last.0).as_secs_f64(),
                packets: packets_between(&last.1, &now.1),
                wire_bytes: bytes_between(&last.1, &now.1),
                drops: page.drops_since(drops_before),
            });
            last = now;
        }
    }
}

fn counters(stage: &Stage) -> Result<LinkCounters> {
    stage.lab.proxy.link_counters(PROXY_INTERFACE).context("counting packets")
}

fn packets_between(before: &LinkCounters, after: &LinkCounters) -> u64 {
    (after.rx_packets + after.tx_packets).saturating_sub(before.rx_packets + before.tx_packets)
}

fn bytes_between(before: &LinkCounters, after: &LinkCounters) -> u64 {
    (after.rx_bytes + after.tx_bytes).saturating_sub(before.rx_bytes + before.tx_bytes)
}

/// The accounts of everybody at one moment.
struct Reading {
    link: LinkCounters,
    proxy: Account,
    kernel_threads: Account,
    generator_interrupts_ns: u64,
    generator: Account,
    machine_ns: u64,
}

impl Reading {
    fn take(stage: &Stage, proxy: &ProxyProcess) -> Result<Self> {
        let ksoftirqd: Vec<String> = stage.cpus.proxy.iter().map(|cpu| format!("ksoftirqd/{cpu}")).collect();
        let is_it = |name: &str| name.starts_with("napi/") || ksoftirqd.iter().any(|own| own == name);
        Ok(Self {
            link: counters(stage)?,
            proxy: Account::of(&[proxy.pid()])?,
            kernel_threads: Account::of(&pids_named(is_it)?)?,
            generator_interrupts_ns: interrupts_ns(&stage.cpus.generator)?,
            generator: Account::of(&[stage.clients.pid(), stage.data_centre.pid()])?,
            machine_ns: machine_busy_ns()?,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody reads more than 53 bits of a measurement")]
    fn since(&self, before: &Self, done: &Done, phase: Phase, drops: BTreeMap<String, u64>) -> Turn {
        let us = |later: u64, earlier: u64| later.saturating_sub(earlier) as f64 / 1000.0;
        let proxy_cpu_us = us(self.proxy.cpu_ns, before.proxy.cpu_ns);
        let generator_interrupts_us = us(self.generator_interrupts_ns, before.generator_interrupts_ns);
        let kernel_threads_us = us(self.kernel_threads.cpu_ns, before.kernel_threads.cpu_ns);
        Turn {
            seconds: done.seconds,
            units: if phase.work.is_bulk() {
                done.bytes as f64 / f64::from(1 << 20)
            } else {
                done.operations as f64
            },
            latency_us: done.latency_us,
            system_cpu_us: proxy_cpu_us + generator_interrupts_us + kernel_threads_us,
            proxy_cpu_us,
            generator_interrupts_us,
            generator_cpu_us: us(self.generator.cpu_ns, before.generator.cpu_ns),
            machine_cpu_us: us(self.machine_ns, before.machine_ns),
            packets: packets_between(&before.link, &self.link),
            wire_bytes: bytes_between(&before.link, &self.link),
            drops,
        }
    }
}
