//! What happened in runs: counted, and as one number that tells two runs apart.

use std::collections::BTreeMap;
use std::fmt;

/// FNV-1a, a word at a time: equal runs have equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    pub(crate) fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) runs: u64,
    pub(crate) packets: u64,
    pub(crate) bytes_read: u64,
    pub(crate) virtual_micros: u64,
    /// When the last byte was read.
    pub(crate) last_read_micros: u64,
    counts: BTreeMap<(&'static str, &'static str), u64>,
}

impl Tally {
    pub(crate) fn of_one_run() -> Self {
        Self { runs: 1, ..Self::default() }
    }

    pub(crate) fn count(&mut self, table: &'static str, row: &'static str) {
        self.count_many(table, row, 1);
    }

    pub(crate) fn count_many(&mut self, table: &'static str, row: &'static str, count: u64) {
        if count > 0 {
            *self.counts.entry((table, row)).or_default() += count;
        }
    }

    pub(crate) fn has(&self, table: &'static str, row: &'static str) -> bool {
        self.counts.contains_key(&(table, row))
    }

    pub(crate) fn add(&mut self, run: &Self) {
        self.runs += run.runs;
        self.packets += run.packets;
        self.bytes_read += run.bytes_read;
        self.virtual_micros += run.virtual_micros;
        for (&(table, row), count) in &run.counts {
            self.count_many(table, row, *count);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} runs: {} packets, {:.1} MiB read, {} virtual hours",
            self.runs,
            self.packets,
            self.bytes_read as f64 / f64::from(1 << 20),
            self.virtual_micros / 3_600_000_000
        )?;
        let mut table_before = "";
        for ((table, row), count) in &self.counts {
            if *table != table_before {
                writeln!(f, "  {table}")?;
                table_before = table;
            }
            writeln!(f, "    {row:36} {count:9}")?;
        }
        Ok(())
    }
}
