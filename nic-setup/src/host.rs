//! The one door through which a host is changed.

use std::io;

use crate::knob::Knob;
use crate::survey::Survey;

/// A host and one of its interfaces: the real one ([`crate::live::LiveHost`]), or one that a test makes up.
pub trait Host {
    /// Everything that stages look at, now.
    ///
    /// # Errors
    /// If there is no such interface.
    fn survey(&mut self) -> io::Result<Survey>;

    /// What a knob is turned to: one line, white space as single spaces.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn read(&mut self, knob: &Knob) -> io::Result<String>;

    /// Turns a knob.
    ///
    /// # Errors
    /// The kernel's or the driver's refusal.
    fn write(&mut self, knob: &Knob, value: &str) -> io::Result<()>;
}
