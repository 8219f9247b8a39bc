//! The clients: a process of their own in the client namespace, so that the kernel keeps their accounts
//! apart. One order at a time, a line of JSON each; news come back the same way.
//!
//! ```text
//!   lab                                   clients
//!    ── Work ──────────────────────────▶  connect, warm up
//!    ◀──────────────────────────── Begun  the lab reads everybody's accounts
//!    ◀───────────────────────── Progress  four times a second
//!    ◀──────────────────────────── Ended  the lab reads them again
//!    ── Leave ─────────────────────────▶  close all connections
//!    ◀───────────────────────────── Left
//! ```

use std::io::{BufRead, BufReader, Lines, StdinLock, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mtproxy_bench::clients::{Crowd, Figures, Sources};
use mtproxy_bench::spread::Latency;
use mtproxy_bench::work::{Route, Target, Work};
use mtproxy_tests::{Lab3, NetNs};
use serde::{Deserialize, Serialize};

use crate::interruption::Interruption;

/// Between two pieces of news during a turn.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// What the clients are told.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum Order {
    /// Do this.
    Work {
        work: Work,
        route: Route,
        address: SocketAddr,
        clients: usize,
        warm_up: Duration,
        window: Duration,
        bulk_buffer: u32,
    },
    /// Close all connections.
    Leave,
}

/// What the clients tell.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum News {
    /// The window has begun.
    Begun,
    /// What was done since the last news.
    Progress(Done),
    /// The window is over: what was done in all of it.
    Ended(Done),
    /// All connections are closed.
    Left,
    /// An order could not be obeyed.
    Failed(String),
}

/// What clients have done.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Done {
    pub(crate) seconds: f64,
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    pub(crate) latency_us: Option<Latency>,
}

impl Done {
    fn of(figures: &Figures, duration: Duration) -> Self {
        Self {
            seconds: duration.as_secs_f64(),
            operations: figures.operations,
            bytes: figures.bytes,
            latency_us: Latency::of(&figures.latency_ns),
        }
    }
}

/// The process, seen from the lab.
#[derive(Debug)]
pub(crate) struct ClientsProcess {
    child: Child,
    orders: ChildStdin,
    news: Receiver<News>,
}

impl ClientsProcess {
    /// Starts it in `namespace`.
    pub(crate) fn start(namespace: &NetNs) -> Result<Self> {
        let mut child = mtproxy_bench::this_program(&namespace.command_prefix(), &["clients"])?
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the clients")?;
        let orders = child.stdin.take().context("their input is piped")?;
        let lines = BufReader::new(child.stdout.take().context("their output is piped")?).lines();
        let (sender, news) = channel();
        std::thread::spawn(move || {
            // Ends with the process, or when nobody listens any more.
            let news = lines.map_while(Result::ok).map_while(|line| serde_json::from_str(&line).ok());
            news.map(|news| sender.send(news)).take_while(Result::is_ok).for_each(drop);
        });
        Ok(Self { child, orders, news })
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order.
    pub(crate) fn order(&mut self, order: &Order) -> Result<()> {
        let line = serde_json::to_string(order).context("writing an order")?;
        writeln!(self.orders, "{line}").context("telling the clients")
    }

    /// The next news; meanwhile `wait` is called several times a second.
    pub(crate) fn next_news(
        &self,
        patience: Duration,
        interruption: &Interruption,
        mut wait: impl FnMut(),
    ) -> Result<News> {
        let deadline = Instant::now() + patience;
        loop {
            interruption.check()?;
            match self.news.recv_timeout(Duration::from_millis(100)) {
                Ok(News::Failed(why)) => bail!(why),
                Ok(news) => return Ok(news),
                Err(RecvTimeoutError::Disconnected) => bail!("the clients' process has ended"),
                Err(RecvTimeoutError::Timeout) => wait(),
            }
            ensure!(Instant::now() < deadline, "no news from the clients for {patience:?}");
        }
    }
}

impl Drop for ClientsProcess {
    fn drop(&mut self) {
        // Both fail only if it has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Obeys orders until standard input ends.
pub(crate) fn serve() -> Result<()> {
    let sources = Sources::new(Lab3::client_addresses().collect());
    let mut lines = std::io::stdin().lock().lines();
    while let Some(order) = next_order(&mut lines)? {
        let Order::Work { work, route, address, clients, warm_up, window, bulk_buffer } = order else {
            // A crowd that failed is gone already.
            tell(&News::Left)?;
            continue;
        };
        let outcome = Target::proxy(route, address).and_then(|target| {
            let mut crowd = Crowd::gather(&target, work, clients, bulk_buffer, Some(&sources))?;
            crowd.release()?;
            crowd.work_for(warm_up, 0)?;
            crowd.take_figures()?;
            tell(&News::Begun)?;
            tell(&News::Ended(work_and_tell(&mut crowd, window)?))?;
            // Nobody closes before the lab has read the accounts.
            next_order(&mut lines)?;
            Ok(())
        });
        tell(&outcome.map_or_else(|error| News::Failed(format!("{error:#}")), |()| News::Left))?;
    }
    Ok(())
}

fn work_and_tell(crowd: &mut Crowd<'_>, window: Duration) -> Result<Done> {
    let begun = Instant::now();
    let mut all = Figures::new()?;
    while let Some(left) = window.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        let slice_begun = Instant::now();
        crowd.work_for(left.min(PROGRESS_INTERVAL), 0)?;
        let figures = crowd.take_figures()?;
        tell(&News::Progress(Done::of(&figures, slice_begun.elapsed())))?;
        all.operations += figures.operations;
        all.bytes += figures.bytes;
        all.latency_ns.add(&figures.latency_ns).context("adding latencies")?;
    }
    Ok(Done::of(&all, begun.elapsed()))
}

fn next_order(lines: &mut Lines<StdinLock<'_>>) -> Result<Option<Order>> {
    let Some(line) = lines.next() else { return Ok(None) };
    serde_json::from_str(&line.context("reading an order")?).context("reading an order").map(Some)
}

fn tell(news: &News) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(news)?).context("telling news")?;
    output.flush().context("telling news")
}
