//! Changing a host stage by stage, and taking it back.
//!
//! ```text
//!   apply   for each stage: look anew ─► what it wants ─► for each change:
//!             journal what else may move ─► journal the change ─► turn the knob ─► journal what the kernel says now
//!   undo    the journal backwards: what is as we left it goes back to what it was; what somebody else has turned since stays
//! ```
//! A knob that a driver does not turn costs that change alone.

use std::io;

use crate::finding::Finding;
use crate::host::Host;
use crate::journal::{Entry, Journal};
use crate::knob::{Change, Knob};
use crate::stages::STAGES;
use crate::survey::{Goals, Survey};

/// What all stages say of a host at one moment.
#[must_use]
pub fn examine(survey: &Survey, goals: &Goals) -> Vec<Finding> {
    STAGES.iter().map(|stage| (stage.examine)(survey, goals)).collect()
}

/// One change, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The stage that asked for it.
    pub stage: &'static str,
    /// The change.
    pub change: Change,
    /// What the kernel says now, or why it refused.
    pub outcome: Result<String, String>,
}

/// Makes every change that a stage asks for, telling `report` of each.
///
/// # Errors
/// If the host cannot be looked at, or the journal not be written: then nothing more is changed.
pub fn apply(
    host: &mut dyn Host,
    goals: &Goals,
    journal: &mut Journal,
    report: &mut dyn FnMut(&Step),
) -> io::Result<()> {
    for stage in STAGES {
        let finding = (stage.examine)(&host.survey()?, goals);
        for change in finding.changes() {
            let outcome = make(host, change, journal)?;
            report(&Step { stage: stage.name, change: change.clone(), outcome });
        }
    }
    Ok(())
}

fn make(host: &mut dyn Host, change: &Change, journal: &mut Journal) -> io::Result<Result<String, String>> {
    let Change { knob, to, .. } = change;
    // What it is at this moment, not when it was looked at: that is what has to come back.
    let old = match host.read(knob) {
        Ok(old) => old,
        Err(error) => return Ok(Err(error.to_string())),
    };
    for other in knob.moves() {
        if let Ok(old) = host.read(other) {
            journal.moved(other, &old)?;
        }
    }
    journal.set(knob, &old, to)?;
    if let Err(error) = host.write(knob, to) {
        return Ok(Err(error.to_string()));
    }
    let now = match host.read(knob) {
        Ok(now) => now,
        Err(error) => return Ok(Err(error.to_string())),
    };
    journal.now(knob, &now)?;
    Ok(Ok(now))
}

/// One knob, and what undoing did to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The knob.
    pub knob: Knob,
    /// What it was before we came.
    pub old: String,
    /// What was done.
    pub outcome: Undoing,
}

/// What undoing did to a knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undoing {
    /// It is what it was again.
    Restored,
    /// It was that already.
    WasThatAlready,
    /// Somebody else has turned it since, to this; it was left alone.
    LeftToOthers(String),
    /// It did not work.
    Failed(String),
}

impl Undoing {
    /// True if the knob is what it was.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Restored | Self::WasThatAlready)
    }
}

/// Takes back what the entries say, the last one first. With `force` also what somebody else has turned since.
#[must_use]
pub fn undo(host: &mut dyn Host, entries: &[Entry], force: bool) -> Vec<Restored> {
    entries
        .iter()
        .rev()
        .map(|entry| {
            let (Entry::Moved { knob, old } | Entry::Set { knob, old, .. }) = entry;
            let outcome = restore(host, entry, knob, old, force);
            Restored { knob: knob.clone(), old: old.clone(), outcome }
        })
        .collect()
}

fn restore(host: &mut dyn Host, entry: &Entry, knob: &Knob, old: &str, force: bool) -> Undoing {
    let present = match host.read(knob) {
        Ok(present) => present,
        Err(error) => return Undoing::Failed(error.to_string()),
    };
    if present == old {
        return Undoing::WasThatAlready;
    }
    let is_ours = match entry {
        // A driver moved it, or we did and were killed before we could say so.
        Entry::Moved { .. } | Entry::Set { now: None, .. } => true,
        Entry::Set { now: Some(now), .. } => *now == present,
    };
    if !is_ours && !force {
        return Undoing::LeftToOthers(present);
    }
    match host.write(knob, old).and_then(|()| host.read(knob)) {
        Ok(now) if now == old => Undoing::Restored,
        Ok(now) => Undoing::Failed(format!("it is {now} although {old} was taken")),
        Err(error) => Undoing::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
