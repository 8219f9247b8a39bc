//! The engine under simulation: many seeds, and proof that the checkers can fail.
//!
//! ```text
//!            dice ──► plan: who comes when, how each talks, listens and ends; what each address does
//!                      │
//!   peer ◄── network ──► driver ──► Engine           schedule: what happens next, under virtual time
//!     │                    │
//!     ▼                    ▼
//!   ledger: what was said  witness, verdicts: what may be ordered and reported, and what must be
//! ```
//! A run has one thread, no clock and no socket; everything in it follows from its seed. A failure names
//! the seed and the command that repeats it.
//!
//! ```text
//!   SIM_SEED=n    that seed alone         SIM_SEEDS=n   so many seeds instead of the default
//! ```
//! [`violation::Checker`] lists what is checked, [`sabotage::Sabotage`] how each checker is proved to work.

mod character;
mod driver;
mod ledger;
mod network;
mod order;
mod peer;
mod plan;
mod sabotage;
mod schedule;
mod simulation;
mod tally;
mod verdicts;
mod violation;
mod witness;
mod world;

use std::io::Write;
use std::time::Instant;

use mtproxy_core::error::{DropReason, PeerMisbehaved};
use sabotage::Sabotage;
use simulation::{Options, run};
use tally::Tally;
use violation::{Checker, Violation, require};

/// As many as take some fifteen seconds in the dev profile on two old cores.
const SEEDS_DEFAULT: u64 = 1800;

/// Names the seed if the run panics.
struct Naming {
    seed: u64,
}

impl Drop for Naming {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("seed {}: panicked; again with: {}", self.seed, again(self.seed)));
        }
    }
}

fn again(seed: u64) -> String {
    format!("make sim SEED={seed}")
}

/// Past the test harness, which would keep it for itself.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn run_or_panic(seed: u64) -> Tally {
    let naming = Naming { seed };
    match run(Options { seed, ..Options::default() }) {
        Ok(tally) => {
            drop(naming);
            tally
        }
        Err(Violation { checker, what }) => panic!("seed {seed}: {checker:?}: {what}"),
    }
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("found {name}={text}; expected a number")))
}

#[test]
fn every_seed_keeps_all_promises() {
    let began = Instant::now();
    let seeds = match (number_from_environment("SIM_SEED"), number_from_environment("SIM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(SEEDS_DEFAULT),
    };
    let is_broad = seeds.end - seeds.start >= SEEDS_DEFAULT;
    let mut total = Tally::default();
    for seed in seeds {
        total.add(&run_or_panic(seed));
    }
    say(&format!("{total}in {:.1} s", began.elapsed().as_secs_f64()));
    if is_broad {
        assert_everything_happened(&total);
    }
}

/// 2^28 bytes from one stranger are tested in core/tests/endings/fronting.rs; what ends only clients of
/// middle proxies, of whom there are none here, in core/tests/middle_proxy.
const ELSEWHERE: [DropReason; 4] = [
    DropReason::DiscardLimit,
    DropReason::MiddleProxyLost,
    DropReason::SlowReader,
    DropReason::MemoryPressure,
];

/// A simulation in which something never happens does not test it.
fn assert_everything_happened(total: &Tally) {
    for reason in DropReason::ALL.into_iter().filter(|reason| !ELSEWHERE.contains(reason)) {
        assert!(total.has("ended", reason.name()), "no session ended for {}", reason.name());
    }
    // Packets are looked into for middle proxies only.
    for why in PeerMisbehaved::ALL.into_iter().filter(|why| *why != PeerMisbehaved::BadPacketLength) {
        let happened =
            ["fronted", "met with silence", "misbehaved"].iter().any(|how| total.has(how, why.name()));
        assert!(happened, "nobody was turned away for {}", why.name());
    }
}

fn compare(first: &Tally, second: &Tally) -> Result<(), Violation> {
    let [first, second] = [first, second].map(|tally| (tally.fingerprint, tally.moments, tally.virtual_time));
    require(first == second, Checker::Determinism, || format!("{first:?} is not {second:?}"))
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
        let noticed = (0..60).find_map(|seed| {
            let options =
                Options { seed, sabotage: Some(sabotage), armed: Some(checker), ..Options::default() };
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
