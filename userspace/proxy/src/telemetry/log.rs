//! Log lines: on standard error, for people or as JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::complaint::Complaint;
use crate::settings::values::{LogFilter, LogFormat};

/// Target of the few lines that are written whatever the filter: those that scripts wait for.
pub const ALWAYS: &str = "mtproxy::main";

/// Sends every log line from now on to standard error, as far as `filter` lets it pass.
///
/// # Errors
/// If log lines go somewhere already: this is called once in a process.
pub fn start(filter: &LogFilter, format: LogFormat) -> Result<(), Complaint> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let filter = filter.targets().with_target(ALWAYS, tracing::Level::INFO);
    let started = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    started.map_err(|error| {
        Complaint::about_host(format!("found log lines started already ({error}); expected it once"))
    })
}
