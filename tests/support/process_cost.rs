//! What a process costs, as the kernel accounts for it in /proc.

use std::fs;
use std::path::{Path, PathBuf};

/// One reading of the kernel's accounts of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessCost {
    /// Resident memory, bytes (smaps_rollup).
    pub rss_bytes: u64,
    /// Resident memory with shared pages divided among those who share them, bytes (smaps_rollup).
    pub pss_bytes: u64,
    /// Time on a CPU, nanoseconds, of threads that are alive (schedstat).
    pub cpu_ns: u64,
    /// How often its threads went to sleep: a thread that is woken up must do so again (status).
    pub voluntary_switches: u64,
    /// Open file descriptors.
    pub open_descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl ProcessCost {
    /// The accounts of `pid` now.
    ///
    /// # Panics
    /// If the process is gone or its accounts cannot be read: smaps_rollup takes the same user, or root.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let memory = read(&process.join("smaps_rollup"));
        let tasks = entries(&process.join("task"));
        let sum = |figure: fn(&Path) -> Option<u64>| tasks.iter().filter_map(|task| figure(task)).sum();
        Self {
            rss_bytes: field(&memory, "Rss:").unwrap_or_default() * 1024,
            pss_bytes: field(&memory, "Pss:").unwrap_or_default() * 1024,
            cpu_ns: sum(cpu_ns),
            voluntary_switches: sum(voluntary_switches),
            open_descriptors: entries(&process.join("fd")).len() as u64,
            threads: tasks.len() as u64,
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

fn entries(path: &Path) -> Vec<PathBuf> {
    let directory = fs::read_dir(path).unwrap_or_else(|error| panic!("listing {}: {error}", path.display()));
    directory.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

// A thread may end between the listing and the reading: it is then left out.

fn cpu_ns(task: &Path) -> Option<u64> {
    fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
}

fn voluntary_switches(task: &Path) -> Option<u64> {
    field(&fs::read_to_string(task.join("status")).ok()?, "voluntary_ctxt_switches:")
}

/// The first number behind `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let cost = ProcessCost::of(std::process::id());
        assert!(cost.rss_bytes >= cost.pss_bytes && cost.pss_bytes > 0);
        assert!(cost.threads >= 1 && cost.open_descriptors >= 3);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t5\nPss:   12 kB\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:"), Some(5));
        assert_eq!(field(text, "Pss:"), Some(12));
        assert_eq!(field(text, "Rss:"), None);
    }
}
