//! Everything that takes part in a run: data centre, relays, and what leads to them.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use mtproxy_bench::data_centre::{DataCentre, Service};
use mtproxy_bench::work::{DOMAIN, Route, Target, configured_secret};
use mtproxy_tests::{FrontManner, FrontSite, ProxyCommand, ProxyProcess};

use crate::nginx::Nginx;
use crate::plan::Plan;

/// The data centre's addresses toward the two relays; clients without a relay use 127.0.0.1.
const NGINX_SIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const PROXY_SIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// What a relay is given to forget the clients of the turn before.
const CLEARING: Duration = Duration::from_millis(60);

/// The participants, until dropped.
pub(crate) struct Stage {
    data_centre: DataCentre,
    nginx: Nginx,
    proxy: ProxyProcess,
    /// Where strangers would go, if any came.
    _front: FrontSite,
    targets: Vec<Target>,
}

impl Stage {
    /// Starts them all.
    pub(crate) fn set(plan: &Plan) -> Result<Self> {
        let data_centre = DataCentre::start(&[], plan.bulk_buffer)?;
        let ports = data_centre.ports();
        let nginx = Nginx::start(&ports.at(NGINX_SIDE), plan.workers, &plan.nginx_buffer)?;
        let front = FrontSite::start(FrontManner::AnswersAtOnce);
        let mut command = ProxyCommand::new()
            .secret(&configured_secret())
            .domain(DOMAIN, front.address())
            .option("--workers", &plan.workers.to_string())
            .option("--log", "warn,mtproxy=info");
        let proxy_side = ports.at(PROXY_SIDE).addresses();
        for service in Service::ALL {
            command = command.dc(service.dc().0, proxy_side[service.index()]);
        }
        let proxy = command.start();
        let client = |route| Target::proxy(route, proxy.address());
        let targets = vec![
            Target::ports(Route::Direct, &ports),
            Target::ports(Route::Nginx, &nginx.ports()),
            client(Route::Plain)?,
            client(Route::Dd)?,
            client(Route::Ee)?,
        ];
        Ok(Self { data_centre, nginx, proxy, _front: front, targets })
    }

    /// In the order of [`Route::ALL`].
    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The processes between the clients of `route` and the data centre.
    pub(crate) fn relay_pids(&self, route: Route) -> Result<Vec<u32>> {
        match route {
            Route::Direct => Ok(Vec::new()),
            Route::Nginx => self.nginx.pids(),
            Route::Plain | Route::Dd | Route::Ee => Ok(vec![self.proxy.pid()]),
        }
    }

    /// The data centre's process.
    pub(crate) fn data_centre_pid(&self) -> u32 {
        self.data_centre.pid()
    }

    /// Gives everybody time to notice that the clients are gone.
    pub(crate) fn clear(&self) {
        std::thread::sleep(CLEARING);
    }
}
