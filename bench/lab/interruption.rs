//! A run that is told to stop takes its namespaces and processes with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Whether somebody has asked this process to end.
#[derive(Debug)]
pub(crate) struct Interruption {
    asked: Arc<AtomicBool>,
}

impl Interruption {
    /// From now on, signals that would end this process only set a mark.
    pub(crate) fn listen() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&asked)).context("listening for signals")?;
        }
        Ok(Self { asked })
    }

    /// An error once it has been asked for: whoever gets it returns, and what was made is dropped.
    pub(crate) fn check(&self) -> Result<()> {
        if self.asked.load(Ordering::Relaxed) {
            bail!("interrupted; everything has been removed again");
        }
        Ok(())
    }
}
