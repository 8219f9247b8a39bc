//! The data centre as a child process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Ports, Service};
use crate::this_program;

/// A running data centre. It ends by itself when its standard input does, so it outlives nobody.
#[derive(Debug)]
pub struct DataCentre {
    child: Child,
    ports: Ports,
}

impl DataCentre {
    /// Starts one, from this very program, which must know the subcommand `data-centre`. `prefix` is put in
    /// front of the command line: where it is to run.
    pub fn start(prefix: &[String], bulk_buffer: u32) -> Result<Self> {
        let words = ["data-centre", "--bulk-buffer", &bulk_buffer.to_string()];
        let mut child = this_program(prefix, &words)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the data centre")?;
        let mut line = String::new();
        let output = child.stdout.take().context("its output is piped")?;
        BufReader::new(output).read_line(&mut line).context("reading the data centre's ports")?;
        let mut ports = [0; Service::COUNT];
        let words: Vec<&str> = line.split_whitespace().collect();
        ensure!(words.len() == ports.len(), "the data centre said {line:?} instead of its ports");
        for (port, word) in ports.iter_mut().zip(words) {
            *port = word.parse().with_context(|| format!("reading the data centre's port {word}"))?;
        }
        Ok(Self { child, ports: Ports::new(ports) })
    }

    /// Where it listens.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for DataCentre {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Nothing is left to be done about a child that cannot be waited for.
        let _ = self.child.wait();
    }
}
