//! Everybody who takes part: hosts, data centre, clients, and one proxy at a time.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mtproxy_bench::data_centre::{DataCentre, Service};
use mtproxy_bench::work::{DOMAIN, configured_secret};
use mtproxy_tests::lab3::PROXY_INTERFACE;
use mtproxy_tests::veth_pair::Offloads;
use mtproxy_tests::{FrontManner, FrontSite, Lab3, Lab3Options, ProxyCommand, ProxyProcess};
use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::clients_process::ClientsProcess;
use crate::drops::METRICS_ADDRESS;
use crate::phase::{Datapath, Plan};

/// Where clients find the proxy.
const PORT: u16 = 443;
/// What a proxy takes to end when its clients have gone; what it takes when it is told once more, which
/// makes it leave the sessions that linger.
const LEAVE_TAKING: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];

/// Who takes part, until dropped. Processes end before their hosts do.
pub(crate) struct Stage {
    pub(crate) clients: ClientsProcess,
    pub(crate) data_centre: DataCentre,
    front: FrontSite,
    pub(crate) lab: Lab3,
    pub(crate) cpus: Cpus,
}

/// Who runs where. Apart, so that the kernel's accounts of interrupts on the generator's CPUs can be told
/// from the generator's own work.
#[derive(Clone, Debug)]
pub(crate) struct Cpus {
    pub(crate) proxy: Vec<usize>,
    pub(crate) generator: Vec<usize>,
}

impl Cpus {
    /// Gives the proxy `workers` CPUs of its own, and moves this process, with all that it will start, to
    /// the others.
    fn divide(workers: usize) -> Result<Self> {
        let allowed = sched_getaffinity(None).context("asking for this process's CPUs")?;
        let mut proxy: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
        if proxy.len() <= workers {
            bail!(
                "found {} CPUs, expected one for the generator besides {workers} for the proxy",
                proxy.len()
            );
        }
        let generator = proxy.split_off(workers);
        let mut set = CpuSet::new();
        generator.iter().for_each(|&cpu| set.set(cpu));
        sched_setaffinity(None, &set).context("moving to other CPUs than the proxy's")?;
        Ok(Self { proxy, generator })
    }

    fn proxy_list(&self) -> String {
        self.proxy.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
    }
}

impl Stage {
    /// Sets it, without a proxy.
    pub(crate) fn set(plan: &Plan) -> Result<Self> {
        let cpus = Cpus::divide(plan.workers)?;
        let lab = Lab3::new(Lab3Options {
            queues: u32::try_from(plan.workers)?,
            proxy_offloads: if plan.offloads { Offloads::Kernel } else { Offloads::Off },
            ..Lab3Options::default()
        })
        .context("building the network")?;
        let data_centre = DataCentre::start(&lab.dc.command_prefix(), plan.bulk_buffer)?;
        let there = SocketAddr::new(Lab3::dc_ip(false), 0);
        let front = lab.dc.enter(|| FrontSite::start_on(there, FrontManner::AnswersAtOnce));
        let clients = ClientsProcess::start(&lab.client)?;
        Ok(Self { clients, data_centre, front, lab, cpus })
    }

    /// Starts a proxy; the error is what it said instead of "ready".
    pub(crate) fn start_proxy(&self, datapath: Datapath, plan: &Plan) -> Result<ProxyProcess, String> {
        let IpAddr::V4(dc_ip) = Lab3::dc_ip(false) else { return Err("no IPv4 here".to_owned()) };
        let mut command = ProxyCommand::new()
            .within(&self.lab.proxy)
            .on_cpus(&self.cpus.proxy_list())
            .listen(Self::proxy_address())
            .secret(&configured_secret())
            .domain(DOMAIN, self.front.address())
            .option("--workers", &plan.workers.to_string())
            .option("--metrics", &METRICS_ADDRESS.to_string())
            .option("--log", "warn,mtproxy=info")
            .option("--datapath", datapath.name());
        if datapath == Datapath::Xdp {
            command = command.option("--interface", PROXY_INTERFACE);
        }
        let addresses = self.data_centre.ports().at(dc_ip).addresses();
        for service in Service::ALL {
            command = command.dc(service.dc().0, addresses[service.index()]);
        }
        command.try_start()
    }

    /// Where clients connect.
    pub(crate) fn proxy_address() -> SocketAddr {
        SocketAddr::new(Lab3::proxy_ip(false), PORT)
    }

    /// Others in place of those that did not do as they were told.
    pub(crate) fn replace_clients(&mut self) -> Result<()> {
        self.clients = ClientsProcess::start(&self.lab.client)?;
        Ok(())
    }
}

/// Ends a proxy as an operator would, so that it takes what it has attached with it; in the end by force.
pub(crate) fn stop(mut proxy: ProxyProcess) {
    for patience in LEAVE_TAKING {
        let deadline = Instant::now() + patience;
        if proxy.is_running() {
            proxy.signal(Signal::TERM);
        }
        while proxy.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
