//! Log lines: on standard error or in a file, for people or as JSON.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing_subscriber::Layer as _;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::complaint::Complaint;
use crate::settings::values::{LogFilter, LogFormat};

/// Target of the few lines that are written whatever the filter: those that scripts wait for.
pub const ALWAYS: &str = "mtproxy::main";

/// Where log lines go: standard error, until a file is opened.
#[derive(Clone, Debug, Default)]
pub struct Sink {
    path: Option<PathBuf>,
    file: Arc<Mutex<Option<File>>>,
}

impl Sink {
    /// Standard error, and this file from the first [`reopen`](Self::reopen) on.
    #[must_use]
    pub fn new(path: Option<&Path>) -> Self {
        Self { path: path.map(Path::to_owned), file: Arc::default() }
    }

    /// Opens the file, anew if it was open: a rotation has renamed the old one. Without a file nothing changes.
    ///
    /// # Errors
    /// If it cannot be opened; then lines go where they went.
    pub fn reopen(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.file.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => file.write(bytes),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends every log line from now on to `sink`, as far as `filter` lets it pass.
///
/// # Errors
/// If log lines go somewhere already: this is called once in a process.
pub fn start(filter: &LogFilter, format: LogFormat, sink: &Sink, is_compat: bool) -> Result<(), Complaint> {
    let writer = sink.clone();
    let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    let lines = match format {
        LogFormat::Text if is_compat => {
            lines.with_ansi(false).with_target(false).with_level(false).with_timer(Stamp).boxed()
        }
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let filter = filter.targets().with_target(ALWAYS, tracing::Level::INFO);
    let started = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    started.map_err(|error| {
        Complaint::about_host(format!("found log lines started already ({error}); expected it once"))
    })
}

/// The official proxy's beginning of a line: `[pid][YYYY-MM-DD hh:mm:ss.uuuuuu UTC]`.
struct Stamp;

impl FormatTime for Stamp {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let date = Calendar::of(since.as_secs());
        let Calendar { year, month, day, hour, minute, second } = date;
        let (pid, micros) = (std::process::id(), since.subsec_micros());
        write!(
            writer,
            "[{pid}][{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06} UTC]"
        )
    }
}

/// A moment in UTC, by the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// 1970 and later.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
    /// 0 to 23.
    pub hour: u64,
    /// 0 to 59.
    pub minute: u64,
    /// 0 to 59: Unix time has no leap seconds.
    pub second: u64,
}

impl Calendar {
    /// The moment so many seconds after the beginning of 1970.
    ///
    /// Years are counted from 1 March of year 0, so that the leap day is the last of a year; 400 of them have 146,097
    /// days.
    #[must_use]
    pub fn of(unix: u64) -> Self {
        const DAYS_TO_1970: u64 = 719_468;
        let (days, seconds) = (unix / 86_400 + DAYS_TO_1970, unix % 86_400);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let leaps = day_of_era / 1460 + day_of_era / 146_096 - day_of_era / 36_524;
        let year_of_era = (day_of_era - leaps) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Months from March on: 31, 30, 31, 30, 31 days, and so on; 153 in five of them.
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        // `date -u -d @N '+%F %T'`
        for (unix, expected) in [
            (0, [1970, 1, 1, 0, 0, 0]),
            (784_111_777, [1994, 11, 6, 8, 49, 37]),
            (951_782_399, [2000, 2, 28, 23, 59, 59]),
            (951_782_400, [2000, 2, 29, 0, 0, 0]),
            (951_868_800, [2000, 3, 1, 0, 0, 0]),
            (1_704_067_199, [2023, 12, 31, 23, 59, 59]),
            (4_102_444_800, [2100, 1, 1, 0, 0, 0]),
        ] {
            let Calendar { year, month, day, hour, minute, second } = Calendar::of(unix);
            assert_eq!([year, month, day, hour, minute, second], expected, "{unix}");
        }
    }

    #[test]
    fn a_file_that_was_renamed_is_made_anew() {
        let path = std::env::temp_dir().join(format!("mtproxy-log-{}", std::process::id()));
        let old = path.with_extension("old");
        let mut sink = Sink::new(Some(&path));
        sink.reopen().unwrap();
        sink.write_all(b"first\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        sink.write_all(b"still first\n").unwrap();
        sink.reopen().unwrap();
        sink.write_all(b"second\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "first\nstill first\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second\n");
        for file in [path, old] {
            std::fs::remove_file(file).unwrap();
        }
    }

    #[test]
    fn without_a_file_reopening_changes_nothing() {
        let sink = Sink::new(None);
        sink.reopen().unwrap();
        assert!(sink.file.lock().unwrap().is_none());
    }
}
