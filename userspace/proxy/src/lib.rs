//! The proxy around [`mtproxy_core`]: command line, configuration, workers, telemetry.
//!
//! A library only so that tests can reach its parts; the program is `main.rs`, and nothing here is
//! an interface for others.

#![forbid(unsafe_code)]

pub mod cli;
pub mod complaint;
pub mod links;
pub mod run;
pub mod settings;
pub mod state;
