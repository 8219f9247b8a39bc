//! A process of this program's own that serves the others: its accounts are apart, and it outlives nobody.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};

use crate::this_program;

/// A running one. It is to end when its standard input does.
#[derive(Debug)]
pub struct Attendant {
    child: Child,
    /// The first line that it printed: where it serves.
    pub line: String,
}

impl Attendant {
    /// Starts this program with `words`, behind `prefix`: where it is to run. Returns when it serves.
    ///
    /// # Errors
    /// If it cannot be started, or says nothing.
    pub fn start(prefix: &[String], words: &[&str]) -> Result<Self> {
        let what = words.first().copied().unwrap_or("a part of this program");
        let mut child = this_program(prefix, words)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {what}"))?;
        let mut line = String::new();
        let output = child.stdout.take().context("its output is piped")?;
        BufReader::new(output)
            .read_line(&mut line)
            .with_context(|| format!("reading where {what} serves"))?;
        Ok(Self { child, line })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Nothing is left to be done about a child that cannot be waited for.
        let _ = self.child.wait();
    }
}
