//! Everything that takes part in a run: data centre, relays, and what leads to them.

use std::time::Duration;

use anyhow::{Context, Result};
use mtproxy_core::secret::{DomainName, Secret, SecretKind};
use mtproxy_tests::{FrontManner, FrontSite, ProxyCommand, ProxyProcess};

use crate::data_centre::{DataCentre, Service};
use crate::nginx::Nginx;
use crate::plan::Plan;
use crate::work::{Route, Target};

/// What the clients of ee greet.
const DOMAIN: &str = "front.example";
/// Admits every mode, as a bare secret does.
const KEY: [u8; 16] = *b"benchmarks' own!";
/// The data centre's addresses toward the two relays; clients without a relay use 127.0.0.1.
const NGINX_SIDE: u8 = 2;
const PROXY_SIDE: u8 = 3;
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
        let data_centre = DataCentre::start(plan.bulk_buffer)?;
        let ports = data_centre.ports();
        let nginx = Nginx::start(&ports.at(NGINX_SIDE), plan.workers, &plan.nginx_buffer)?;
        let front = FrontSite::start(FrontManner::AnswersAtOnce);
        let mut command = ProxyCommand::new()
            .secret(&Secret::new(KEY, SecretKind::Plain))
            .domain(DOMAIN, front.address())
            .option("--workers", &plan.workers.to_string())
            .option("--log", "warn,mtproxy=info");
        let proxy_side = ports.at(PROXY_SIDE).addresses();
        for service in Service::ALL {
            command = command.dc(service.dc().0, proxy_side[service.index()]);
        }
        let proxy = command.start();
        let domain: DomainName = DOMAIN.parse().context("a domain name")?;
        let client = |route, kind| Target::proxy(route, Secret::new(KEY, kind), proxy.address());
        let targets = vec![
            Target::ports(Route::Direct, &ports),
            Target::ports(Route::Nginx, &nginx.ports()),
            client(Route::Plain, SecretKind::Plain),
            client(Route::Dd, SecretKind::Padded),
            client(Route::Ee, SecretKind::FakeTls(domain)),
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
