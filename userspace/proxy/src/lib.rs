//! The proxy around [`mtproxy_core`]: command line, configuration, workers, telemetry.
//!
//! A library only so that tests can reach its parts; the program is `main.rs`, and nothing here is
//! an interface for others.

#![forbid(unsafe_code)]

pub mod capture;
pub mod cli;
pub mod clock;
pub mod columns;
pub mod compat;
pub mod complaint;
pub mod control;
pub mod datapath;
pub mod doctor;
pub mod fleet;
pub mod links;
pub mod local;
pub mod nic;
pub mod privileges;
pub mod process;
pub mod replay;
pub mod routes;
pub mod run;
pub mod settings;
pub mod shards;
pub mod state;
pub mod telemetry;
pub mod top;
pub mod worker;
