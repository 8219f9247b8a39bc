//! What processes have used of the machine, as the kernel accounts for it in /proc.

use std::fs;
use std::ops::Sub;

use anyhow::{Context, Result};

/// A reading of the accounts of some processes, or the difference of two.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    /// Time on a CPU, nanoseconds: first field of /proc/PID/task/TID/schedstat. Counts what the kernel
    /// did for the process, and the softirq work that fell on it, such as delivering what it sent
    /// over loopback to the receiver's socket.
    pub(crate) cpu_ns: u64,
    /// How often a thread went to sleep.
    pub(crate) sleeps: u64,
}

impl Account {
    /// The accounts of `pids`, all threads, now.
    pub(crate) fn of(pids: &[u32]) -> Result<Self> {
        let mut total = Self::default();
        for pid in pids {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"))
                .with_context(|| format!("reading the accounts of process {pid}"))?;
            for task in tasks {
                let task = task.context("reading the accounts of a thread")?.path();
                // A thread may have ended since the listing.
                let Ok(schedstat) = fs::read_to_string(task.join("schedstat")) else { continue };
                let cpu_ns = schedstat.split_whitespace().next().unwrap_or_default();
                total.cpu_ns += cpu_ns.parse::<u64>().context("reading schedstat")?;
                let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
                let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
                total.sleeps += sleeps.unwrap_or_default().trim().parse::<u64>().context("reading status")?;
            }
        }
        Ok(total)
    }
}

impl Sub for Account {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            sleeps: self.sleeps.saturating_sub(earlier.sleeps),
        }
    }
}

/// Time all CPUs of the machine were busy since boot, nanoseconds: whoever used them.
pub(crate) fn machine_busy_ns() -> Result<u64> {
    /// USER_HZ, which is 100 on every Linux that Rust runs on (proc(5), time(7)).
    const TICK_NS: u64 = 10_000_000;
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let fields: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().filter_map(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal …
    let busy = fields.iter().take(8).enumerate().filter(|(index, _)| ![3, 4].contains(index));
    Ok(busy.map(|(_, ticks)| ticks).sum::<u64>() * TICK_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_is_charged_for_its_time() {
        let before = Account::of(&[std::process::id()]).unwrap();
        let busy_before = machine_busy_ns().unwrap();
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 60 {
            std::hint::black_box(0);
        }
        let used = Account::of(&[std::process::id()]).unwrap() - before;
        assert!(used.cpu_ns > 1_000_000, "{used:?}");
        assert!(machine_busy_ns().unwrap() > busy_before);
    }
}
