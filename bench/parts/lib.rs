//! What the measurements share: clients, a data centre, the kernel's accounts of everybody, and a shard in
//! memory.
//!
//! `mtproxy-load` compares the proxy with other relays over loopback, `mtproxy-lab` its datapaths with each
//! other on hosts of their own. Both have the same clients do the same works. Read first: [`work`].
//! `mtproxy-middle` compares the way through middle proxies with the direct one, with the clients of the tests.
//!
//! `mtproxy-replay` needs neither sockets nor a kernel, and no more do the tests of what a relay costs when it
//! stands. Read first: [`scene`].

#![forbid(unsafe_code)]

pub mod accounts;
pub mod attendant;
pub mod clients;
pub mod data_centre;
pub mod machine;
pub mod progress;
pub mod rig;
pub mod scene;
mod socket_buffers;
pub mod spread;
pub mod table;
pub mod work;

use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit, setrlimit};

/// This very program with `words`, behind `prefix`: where it is to run.
pub fn this_program(prefix: &[String], words: &[&str]) -> Result<Command> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = match prefix.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.args(words);
    Ok(command)
}

/// Thousands of clients, on both sides of this program.
pub fn raise_descriptor_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raising the limit of open files")
}
