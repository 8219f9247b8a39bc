//! The data centre as a child process.

use anyhow::{Context, Result, ensure};

use super::{Ports, Service};
use crate::attendant::Attendant;

/// A running data centre. It ends by itself when its standard input does, so it outlives nobody.
#[derive(Debug)]
pub struct DataCentre {
    process: Attendant,
    ports: Ports,
}

impl DataCentre {
    /// Starts one, from this very program, which must know the subcommand `data-centre`. `prefix` is put in
    /// front of the command line: where it is to run.
    pub fn start(prefix: &[String], bulk_buffer: u32) -> Result<Self> {
        let process = Attendant::start(prefix, &["data-centre", "--bulk-buffer", &bulk_buffer.to_string()])?;
        let mut ports = [0; Service::COUNT];
        let line = &process.line;
        let words: Vec<&str> = line.split_whitespace().collect();
        ensure!(words.len() == ports.len(), "the data centre said {line:?} instead of its ports");
        for (port, word) in ports.iter_mut().zip(words) {
            *port = word.parse().with_context(|| format!("reading the data centre's port {word}"))?;
        }
        Ok(Self { process, ports: Ports::new(ports) })
    }

    /// Where it listens.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}
