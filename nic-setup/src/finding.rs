//! What a stage has found, and what it would do about it.

use crate::facts::Unreadable;
use crate::knob::Change;

/// What one stage says of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The stage's name, as `mtproxy nic list` has it.
    pub stage: &'static str,
    /// What is there.
    pub found: String,
    /// What should be.
    pub wanted: String,
    /// Why it should.
    pub why: &'static str,
    /// How sure that is.
    pub sureness: Sureness,
    /// What follows.
    pub state: State,
}

/// How sure a stage is of what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sureness {
    /// It follows from how the kernel or a driver is written, or was seen on the real driver.
    Known,
    /// It is better on most hosts; a measurement on this one would be better still.
    RuleOfThumb,
}

impl Sureness {
    /// A word for a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::RuleOfThumb => "rule of thumb",
        }
    }
}

/// What follows from what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing: it is as it should be, or does not matter.
    Fine,
    /// We can put it right.
    Change(Vec<Change>),
    /// Only the operator can; the sentence says how.
    Advice(String),
    /// AF_XDP does not work, or gains nothing, until the operator does this.
    Blocked(String),
    /// The device or the kernel has no such thing.
    Absent,
    /// It could not be read.
    Unknown(Unreadable),
}

impl State {
    /// A word for a table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Change(_) => "change",
            Self::Advice(_) => "advice",
            Self::Blocked(_) => "BLOCKED",
            Self::Absent => "absent",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl Finding {
    /// The changes that it asks for.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        match &self.state {
            State::Change(changes) => changes,
            _ => &[],
        }
    }
}
