//! What a watcher sees while it runs: a table that stays in place on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use mtproxy_bench::table::{begin, dash, finish};

use crate::clients_process::Done;
use crate::drops::describe;
use crate::phase::{Datapath, Phase};

/// Between two looks: often enough to live on a terminal, one line a second elsewhere.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(400);
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// The display.
pub(crate) struct Live {
    bar: Option<ProgressBar>,
    started: Instant,
    shown: Instant,
    rounds: usize,
    now: Option<(usize, Datapath, Phase)>,
    /// What clients did since the last look.
    done: Done,
    /// The last look at each, in order of their first.
    rows: Vec<((Datapath, Phase), Vec<String>)>,
}

/// What the lab itself has seen since the last look.
pub(crate) struct Glance {
    pub(crate) connections: Option<f64>,
    pub(crate) seconds: f64,
    pub(crate) packets: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) drops: BTreeMap<String, u64>,
}

const HEADER: [&str; 9] = [
    "phase",
    "datapath",
    "connections",
    "packets/s",
    "MiB/s on the wire",
    "op/s",
    "p50 µs",
    "p99 µs",
    "drops",
];

impl Live {
    /// A run of so many rounds begins.
    pub(crate) fn new(rounds: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg}");
            ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        let now = Instant::now();
        Self { bar, started: now, shown: now, rounds, now: None, done: Done::default(), rows: Vec::new() }
    }

    /// A turn begins.
    pub(crate) fn begin(&mut self, round: usize, datapath: Datapath, phase: Phase) {
        self.now = Some((round, datapath, phase));
        self.done = Done::default();
    }

    /// The clients have got on.
    pub(crate) fn note(&mut self, done: &Done) {
        self.done.seconds += done.seconds;
        self.done.operations += done.operations;
        self.done.bytes += done.bytes;
        self.done.latency_us = done.latency_us;
    }

    /// True if it is time for another look.
    pub(crate) fn is_due(&self) -> bool {
        let interval = if self.bar.is_some() { TERMINAL_INTERVAL } else { LINE_INTERVAL };
        self.shown.elapsed() >= interval
    }

    /// Shows a look.
    #[expect(clippy::cast_precision_loss, reason = "rates for the eye")]
    pub(crate) fn show(&mut self, glance: &Glance) {
        let Some((round, datapath, phase)) = self.now else { return };
        let per_second = |count: f64| format!("{:.0}", count / glance.seconds.max(1e-9));
        let done = std::mem::take(&mut self.done);
        let row = vec![
            phase.title().to_owned(),
            datapath.name().to_owned(),
            glance.connections.map_or_else(dash, |count| format!("{count:.0}")),
            per_second(glance.packets as f64),
            format!("{:.1}", glance.wire_bytes as f64 / f64::from(1 << 20) / glance.seconds.max(1e-9)),
            if phase.work.is_bulk() {
                dash()
            } else {
                format!("{:.0}", done.operations as f64 / done.seconds)
            },
            done.latency_us.map_or_else(dash, |latency| format!("{:.0}", latency.p50)),
            done.latency_us.map_or_else(dash, |latency| format!("{:.0}", latency.p99)),
            describe(&glance.drops),
        ];
        self.shown = Instant::now();
        let heading =
            format!("{:>3} s  round {} of {}", self.started.elapsed().as_secs(), round + 1, self.rounds);
        match &self.bar {
            None => {
                let cells: Vec<String> =
                    HEADER.iter().zip(&row).skip(2).map(|(h, c)| format!("{h} {c}")).collect();
                eprintln!("{heading}  {}  {}: {}", row[1], row[0], cells.join(", "));
            }
            Some(bar) => {
                match self.rows.iter_mut().find(|(key, _)| *key == (datapath, phase)) {
                    Some((_, old)) => *old = row,
                    None => self.rows.push(((datapath, phase), row)),
                }
                let mut table = begin(HEADER.map(str::to_owned).to_vec());
                for (key, row) in &self.rows {
                    let mut row = row.clone();
                    row[0].insert_str(0, if *key == (datapath, phase) { "▶ " } else { "  " });
                    table.add_row(row);
                }
                bar.set_message(format!("{heading}\n{}", finish(table)));
            }
        }
    }

    /// The run is over.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
