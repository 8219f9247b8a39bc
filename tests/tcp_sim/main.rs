//! TCP-lite under simulation: two stacks, a bad network between them, and proof that the checkers can fail.
//!
//! ```text
//!            dice ──► plan: who talks to whom, over what, and how badly
//!                      │
//!   driver ─ Stack ─ MemoryLink ─► path ─► MemoryLink ─ Stack ─ driver      virtual time
//!     │                  │                     │                  │
//!     ▼                  └────► half: what each end may send ◄────┘         on the wire
//!   every byte once, in order; every end as wished; nothing left            above and below
//! ```
//! A run has one thread, no clock and no socket; everything in it follows from its seed. A failure names
//! the seed and the command that repeats it.
//!
//! ```text
//!   TCP_SIM_SEED=n     the first seed; alone unless a count is given
//!   TCP_SIM_COUNT=n    so many seeds instead of the default
//!   TCP_SIM_THREADS=n  so many at once; the default is one
//!   TCP_SIM_TRACE=1    every packet and event, as tcpdump would write it
//! ```
//! [`violation::Checker`] lists what is checked, [`sabotage::Sabotage`] how each checker is proved to work.
//! [`recorded`] replays what real kernels said; [`goodput`] is a table of what congestion control makes of loss and delay.

mod app;
mod driver;
mod goodput;
mod half;
mod host;
mod memory_link;
mod network;
mod plan;
mod reading;
mod recorded;
mod sabotage;
mod schedule;
mod script;
mod simulation;
mod tally;
mod verdict;
mod violation;
mod wire;

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sabotage::Sabotage;
use simulation::{Options, run};
use tally::Tally;
use violation::{Checker, Judge, Violation};

/// As many as take about a minute on one old core.
const COUNT_DEFAULT: u64 = 10_000;
/// Between two signs of life.
const PROGRESS: Duration = Duration::from_secs(5);

/// Runs that may fail before the rest is not tried any more.
const FAILURES_MAX: usize = 10;

/// Past the test harness, which would keep it for itself.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// One run; the error says all that is needed to repeat it.
fn try_run(seed: u64, is_traced: bool) -> Result<Tally, String> {
    let options = Options { seed, is_traced, ..Options::default() };
    let what = match std::panic::catch_unwind(|| run(options)) {
        Ok(Ok(tally)) => return Ok(tally),
        Ok(Err(Violation { checker, what })) => format!("{checker:?}: {what}"),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            format!("panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default())
        }
    };
    Err(format!("seed {seed}: {what}\n  again with: make tcp-sim SEED={seed} TRACE=1"))
}

fn run_or_panic(seed: u64) -> Tally {
    try_run(seed, false).unwrap_or_else(|why| panic!("{why}"))
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("found {name}={text}; expected a number")))
}

/// What came of all runs so far.
struct Sum {
    tally: Tally,
    failures: Vec<String>,
    said_at: Instant,
}

/// Runs all seeds on some threads, and says now and then how far it is.
fn run_all(seeds: std::ops::Range<u64>, threads: u64, is_traced: bool) -> Tally {
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum { tally: Tally::default(), failures: Vec::new(), said_at: began });
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let ran = try_run(seed, is_traced);
            let mut sum = sum.lock().expect("nothing panics while it holds this");
            match ran {
                Ok(tally) => sum.tally.add(&tally),
                Err(why) => {
                    say(&why);
                    sum.failures.push(why);
                    if sum.failures.len() == FAILURES_MAX {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            }
            if sum.said_at.elapsed() > PROGRESS {
                sum.said_at = Instant::now();
                let rate = sum.tally.runs as f64 / began.elapsed().as_secs_f64();
                say(&format!("{} of {} runs, {rate:.0}/s", sum.tally.runs, seeds.end - seeds.start));
            }
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let Sum { tally, failures, .. } = sum.into_inner().expect("nothing panics while it holds this");
    say(&format!("{tally}in {:.1} s", began.elapsed().as_secs_f64()));
    assert!(failures.is_empty(), "{} runs failed:\n{}", failures.len(), failures.join("\n"));
    tally
}

#[test]
fn every_seed_keeps_all_promises() {
    let (seed, count) = (number_from_environment("TCP_SIM_SEED"), number_from_environment("TCP_SIM_COUNT"));
    let first = seed.unwrap_or_default();
    let count = count.unwrap_or(if seed.is_some() { 1 } else { COUNT_DEFAULT });
    let threads = number_from_environment("TCP_SIM_THREADS").unwrap_or(1);
    let is_traced = number_from_environment("TCP_SIM_TRACE").is_some_and(|trace| trace > 0);
    let total = run_all(first..first + count, threads, is_traced);
    if count >= COUNT_DEFAULT {
        assert_everything_happened(&total);
    }
}

/// A simulation in which something never happens does not test it.
fn assert_everything_happened(total: &Tally) {
    for fate in ["arrives", "lost", "dropped by a full queue", "too big", "damaged", "doubled"] {
        assert!(total.has("packets", fate), "no packet was {fate}");
    }
    for bound in ["transmit ring full", "no frame to write into", "no frame to receive into"] {
        assert!(total.has("device", bound), "no device had its {bound}");
    }
    for outcome in ["both closed", "one was reset", "one left"] {
        assert!(total.has("in strife", outcome), "in strife: never {outcome}");
    }
}

fn compare(first: &Tally, second: &Tally) -> Result<(), Violation> {
    let [first, second] =
        [first, second].map(|tally| (tally.fingerprint, tally.packets, tally.virtual_micros));
    Judge::default().require(first == second, Checker::Determinism, || format!("{first:?} is not {second:?}"))
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let compared = compare(&run_or_panic(seed), &run_or_panic(seed));
        assert!(compared.is_ok(), "seed {seed}: {compared:?}");
    }
    assert!(compare(&run_or_panic(0), &run_or_panic(1)).is_err());
}

#[test]
fn a_run_that_does_not_repeat_is_noticed() {
    let noticed = (0..20).any(|seed| {
        let other = run(Options { seed, is_unrepeatable: true, ..Options::default() });
        compare(&run_or_panic(seed), &other.expect("this too keeps all promises")).is_err()
    });
    assert!(noticed);
}

#[test]
fn every_sabotage_is_noticed_by_its_own_checker() {
    for (sabotage, checker) in Sabotage::ALL {
        let noticed = (0..200).find_map(|seed| {
            let judge = Judge { armed: Some(checker) };
            let options = Options { seed, sabotage: Some(sabotage), judge, ..Options::default() };
            run(options).err().map(|found| (seed, found))
        });
        let Some((seed, found)) = noticed else { panic!("{sabotage:?} was not noticed by {checker:?}") };
        assert_eq!(found.checker, checker);
        println!("{sabotage:?}, seed {seed}: {:?}: {}", found.checker, found.what);
    }
}

#[test]
fn every_checker_is_proved_by_some_sabotage() {
    for checker in Checker::ALL.into_iter().filter(|checker| *checker != Checker::Determinism) {
        assert!(Sabotage::ALL.iter().any(|(_, proved)| *proved == checker), "{checker:?}");
    }
}
