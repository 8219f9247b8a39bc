//! Shows how far a run is: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal.
const STEPS_PER_LINE: u64 = 10;

/// How far a run is.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    done: u64,
    total: u64,
}

impl Progress {
    /// A run of `total` steps begins.
    pub fn new(total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{elapsed_precise} [{bar:40}] {pos}/{len} {msg}");
            ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, started: Instant::now(), done: 0, total }
    }

    /// A step begins.
    pub fn step(&mut self, what: String) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.done);
                bar.set_message(what);
            }
            None if self.done.is_multiple_of(STEPS_PER_LINE) => {
                let seconds = self.started.elapsed().as_secs();
                eprintln!("{seconds:>4} s  step {} of {}: {what}", self.done + 1, self.total);
            }
            None => {}
        }
        self.done += 1;
    }

    /// The run is over.
    pub fn finish(&self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => eprintln!("{:>4} s  done", self.started.elapsed().as_secs()),
        }
    }
}
