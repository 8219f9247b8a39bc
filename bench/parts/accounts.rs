//! What processes have used of the machine, as the kernel accounts for it in /proc.

use std::fs;
use std::ops::Sub;

use anyhow::{Context, Result};

/// A reading of the accounts of some processes, or the difference of two.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Time on a CPU, nanoseconds: first field of /proc/PID/task/TID/schedstat. Counts what the kernel
    /// did for the process, and the softirq work that fell on it, such as delivering what it sent
    /// over loopback to the receiver's socket.
    pub cpu_ns: u64,
    /// How often a thread went to sleep.
    pub sleeps: u64,
}

impl Account {
    /// The accounts of `pids`, all threads, now.
    pub fn of(pids: &[u32]) -> Result<Self> {
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

/// USER_HZ, which is 100 on every Linux that Rust runs on (proc(5), time(7)).
const TICK_NS: u64 = 10_000_000;

/// Time all CPUs of the machine were busy since boot, nanoseconds: whoever used them.
pub fn machine_busy_ns() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    Ok(cpu_ns(&stat, "cpu", &[USER, NICE, SYSTEM, IRQ, SOFTIRQ, STEAL]))
}

/// Time these CPUs spent in interrupts and softirqs since boot, nanoseconds: whomever they interrupted. The
/// kernel knows it from samples, as often as it has ticks.
pub fn interrupts_ns(cpus: &[usize]) -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    Ok(cpus.iter().map(|cpu| cpu_ns(&stat, &format!("cpu{cpu}"), &[IRQ, SOFTIRQ])).sum())
}

// Columns of /proc/stat: user nice system idle iowait irq softirq steal …
const USER: usize = 0;
const NICE: usize = 1;
const SYSTEM: usize = 2;
const IRQ: usize = 5;
const SOFTIRQ: usize = 6;
const STEAL: usize = 7;

fn cpu_ns(stat: &str, name: &str, columns: &[usize]) -> u64 {
    let numbers =
        stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default();
    let ticks: Vec<u64> = numbers.split_whitespace().map_while(|word| word.parse().ok()).collect();
    columns.iter().filter_map(|&column| ticks.get(column)).sum::<u64>() * TICK_NS
}

/// The processes with these names: for kernel threads, whose names nobody else has.
pub fn pids_named(is_it: impl Fn(&str) -> bool) -> Result<Vec<u32>> {
    let processes = fs::read_dir("/proc").context("listing processes")?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let named =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| is_it(name.trim()));
    Ok(pids.filter(named).collect())
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

    #[test]
    fn columns_are_those_of_the_cpu_asked_for() {
        let stat = "cpu  1 2 4 100 100 8 16 32 0 0\ncpu1 0 0 0 5 5 3 4 0 0 0\ncpu10 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(cpu_ns(stat, "cpu", &[USER, NICE, SYSTEM, IRQ, SOFTIRQ, STEAL]), 63 * TICK_NS);
        assert_eq!(cpu_ns(stat, "cpu1", &[IRQ, SOFTIRQ]), 7 * TICK_NS);
        assert_eq!(cpu_ns(stat, "cpu2", &[IRQ]), 0);
    }
}
