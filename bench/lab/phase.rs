//! What is done, through which datapaths, and for how long.

use std::time::Duration;

use clap::ValueEnum;
use mtproxy_bench::work::{Route, Work};
use serde::Serialize;

/// The proxy's datapaths, by the names that `--datapath` has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Datapath {
    /// Through the kernel's network stack.
    Epoll,
    /// Past it: AF_XDP.
    Xdp,
}

impl Datapath {
    /// As the command line names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::Xdp => "xdp",
        }
    }
}

/// One kind of work in one of the proxy's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Phase {
    pub(crate) work: Work,
    pub(crate) route: Route,
}

impl Phase {
    /// In the order in which they are played. What costs a handshake depends on the mode; the rest is
    /// measured in the mode that most clients use, and that costs most.
    pub(crate) const ALL: [Self; 6] = [
        Self { work: Work::Connect, route: Route::Plain },
        Self { work: Work::Connect, route: Route::Dd },
        Self { work: Work::Connect, route: Route::Ee },
        Self { work: Work::RequestAnswer, route: Route::Ee },
        Self { work: Work::Download, route: Route::Ee },
        Self { work: Work::Upload, route: Route::Ee },
    ];

    /// What a reader calls it.
    pub(crate) fn title(self) -> &'static str {
        match (self.work, self.route) {
            (Work::Connect, Route::Plain) => "handshakes, plain",
            (Work::Connect, Route::Dd) => "handshakes, dd",
            (Work::Connect, _) => "handshakes, ee",
            (Work::RequestAnswer | Work::RequestAnswerAlone, _) => "small requests, ee",
            (Work::Download, _) => "download, ee",
            (Work::Upload, _) => "upload, ee",
        }
    }

    /// Clients at a time.
    pub(crate) fn clients(self) -> usize {
        match self.work {
            Work::Connect => 32,
            Work::RequestAnswer => 200,
            Work::RequestAnswerAlone => 1,
            Work::Download | Work::Upload => 4,
        }
    }
}

/// The extent of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) datapaths: Vec<Datapath>,
    /// Turns of each datapath at each phase; in each round every datapath has its own.
    pub(crate) rounds: usize,
    /// Length of one turn.
    pub(crate) window: Duration,
    /// Work before the turn that does not count: ciphers, caches and neighbours settle.
    pub(crate) warm_up: Duration,
    /// After this much time no turn is begun.
    pub(crate) time_max: Duration,
    /// Threads of the proxy, and queues of its interface.
    pub(crate) workers: usize,
    /// Whether the proxy's interface is left checksums and segmentation.
    pub(crate) offloads: bool,
    /// Socket buffers at both ends of a bulk transfer: enough for 40 Mbit/s at 50 ms.
    pub(crate) bulk_buffer: u32,
}

impl Plan {
    /// To be watched, and for numbers: about a minute.
    pub(crate) fn full() -> Self {
        Self {
            datapaths: vec![Datapath::Epoll, Datapath::Xdp],
            rounds: 3,
            window: Duration::from_millis(1200),
            warm_up: Duration::from_millis(250),
            time_max: Duration::from_secs(80),
            workers: 1,
            offloads: false,
            bulk_buffer: 256 * 1024,
        }
    }

    /// To see that everything still runs: a quarter of a minute.
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 2,
            window: Duration::from_millis(400),
            warm_up: Duration::from_millis(100),
            time_max: Duration::from_secs(25),
            ..Self::full()
        }
    }
}
