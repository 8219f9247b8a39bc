//! What happened in all runs together, and a fingerprint of each.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// FNV-1a over everything that passes between driver and engine: equal runs have equal fingerprints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add_word(u64::from_le_bytes(word) ^ chunk.len() as u64);
        }
    }

    pub(crate) fn add_word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) runs: u64,
    pub(crate) sessions: u64,
    pub(crate) inputs: u64,
    pub(crate) moments: u64,
    pub(crate) virtual_time: Duration,
    pub(crate) bytes_to_upstream: u64,
    pub(crate) bytes_to_client: u64,
    counts: BTreeMap<(&'static str, &'static str), u64>,
}

impl Tally {
    pub(crate) fn count(&mut self, table: &'static str, row: &'static str) {
        *self.counts.entry((table, row)).or_default() += 1;
    }

    pub(crate) fn has(&self, table: &'static str, row: &'static str) -> bool {
        self.counts.contains_key(&(table, row))
    }

    pub(crate) fn add(&mut self, run: &Self) {
        self.runs += 1;
        self.sessions += run.sessions;
        self.inputs += run.inputs;
        self.moments += run.moments;
        self.virtual_time += run.virtual_time;
        self.bytes_to_upstream += run.bytes_to_upstream;
        self.bytes_to_client += run.bytes_to_client;
        for (key, count) in &run.counts {
            *self.counts.entry(*key).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{} runs: {} sessions, {:.1} MiB to data centres and fronts, {:.1} MiB to clients",
            self.runs,
            self.sessions,
            mebibytes(self.bytes_to_upstream),
            mebibytes(self.bytes_to_client)
        )?;
        writeln!(
            f,
            "{} inputs in {} moments of {} virtual minutes",
            self.inputs,
            self.moments,
            self.virtual_time.as_secs() / 60
        )?;
        let mut table_before = "";
        for ((table, row), count) in &self.counts {
            if *table != table_before {
                writeln!(f, "  {table}")?;
                table_before = table;
            }
            writeln!(f, "    {row:30} {count:6}")?;
        }
        Ok(())
    }
}
