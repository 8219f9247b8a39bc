//! `mtproxy top`: what a running proxy does now, thread by thread and queue by queue, again and again.
//!
//! ```text
//!   the proxy's page ─► Page ─┐
//!   the next one     ─► Page ─┴─► view ─► text
//! ```
//! Everything that it shows is in the metrics, and so in Prometheus (docs/operations.md). It asks for the page as a scraper
//! does and decides nothing; rates are differences between two pages.

mod fetch;
mod page;
mod table;
mod view;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::complaint::Complaints;
use crate::settings::values::socket_address;
use fetch::Source;
use page::Page;
use view::{Size, view};

/// Options of `mtproxy top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Process number of the proxy [default: the only one of this network namespace]
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// Where a proxy shows its metrics, also one of another host
    #[arg(long, value_name = "ADDR:PORT", value_parser = socket_address, conflicts_with = "pid")]
    pub at: Option<SocketAddr>,

    /// Seconds between two looks
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub every: u64,

    /// Look twice, show once, and end
    #[arg(long)]
    pub once: bool,
}

/// Home, and everything behind it cleared: all that any terminal knows.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows until it is interrupted, or once.
///
/// # Errors
/// If there is no such proxy, or none any more.
pub fn run(args: &TopArgs) -> Result<ExitCode, Complaints> {
    let source = Source::find(args.pid, args.at)?;
    let every = Duration::from_secs(args.every);
    let is_terminal = io::stdout().is_terminal();
    let (mut before, mut looked_at) = (Page::parse(&source.fetch()?), Instant::now());
    loop {
        thread::sleep(every.saturating_sub(looked_at.elapsed()));
        let (now, looked_now) = (Page::parse(&source.fetch()?), Instant::now());
        let size = if args.once || !is_terminal { Size::UNBOUNDED } else { Size::of_terminal() };
        let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let text = view(&before, &now, looked_now - looked_at, unix_seconds, size);
        let screen = match (args.once, is_terminal) {
            (true, _) => text,
            (false, true) => format!("{CLEAR}{text}"),
            // One behind the other, a blank line between them.
            (false, false) => text + "\n",
        };
        // A reader that has seen enough is no error.
        if io::stdout().write_all(screen.as_bytes()).is_err() || args.once {
            return Ok(ExitCode::SUCCESS);
        }
        (before, looked_at) = (now, looked_now);
    }
}
