//! The stages: each looks at one matter, says what it found and wants, and what would change.
//!
//! A stage decides over plain values and touches nothing. Their order is that in which changes are made: channels come
//! before what depends on their number, and the host is looked at anew before each stage (see [`crate::apply`]).
//!
//! ```text
//!   host.rs        kernel, capabilities, memory, ports     device.rs      kind of interface, XDP, MTU
//!   queues.rs      channels, rings, table, hash            offloads.rs    what merges packets
//!   interrupts.rs  coalescing, NAPI, cores, NUMA
//! ```

pub mod device;
pub mod host;
pub mod interrupts;
pub mod offloads;
pub mod queues;

use crate::facts::{Fact, Unreadable};
use crate::finding::{Finding, State, Sureness};
use crate::survey::{Goals, Survey};

/// One matter to look at.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    /// Looks.
    pub examine: fn(&Survey, &Goals) -> Finding,
}

/// All of them, in the order in which changes are made.
pub const STAGES: [Stage; 21] = [
    Stage { name: "kernel", about: "the running kernel's version", examine: host::kernel },
    Stage {
        name: "capabilities",
        about: "rights to load programs and open sockets",
        examine: host::capabilities,
    },
    Stage { name: "kind", about: "what the interface is", examine: device::kind },
    Stage { name: "xdp", about: "what the driver says of XDP", examine: device::xdp },
    Stage { name: "program", about: "XDP programs of others", examine: device::program },
    Stage { name: "mtu", about: "the largest packet", examine: device::mtu },
    Stage { name: "channels", about: "receive queues, each with a shard", examine: queues::channels },
    Stage { name: "rings", about: "descriptors of each receive ring", examine: queues::rings },
    Stage { name: "merging", about: "offloads that merge packets before XDP", examine: offloads::merging },
    Stage { name: "rss-table", about: "how hashes are spread over queues", examine: queues::rss_table },
    Stage { name: "rss-hash", about: "what is hashed, and with which key", examine: queues::rss_hash },
    Stage {
        name: "steering-rules",
        about: "rules that choose a queue before the hash",
        examine: queues::steering_rules,
    },
    Stage { name: "coalescing", about: "how long receive interrupts wait", examine: interrupts::coalescing },
    Stage { name: "napi", about: "who polls the device when it is busy", examine: interrupts::napi },
    Stage { name: "threaded-napi", about: "polling by threads of the kernel", examine: interrupts::threaded },
    Stage { name: "irq-affinity", about: "which core serves a queue", examine: interrupts::affinity },
    Stage { name: "irqbalance", about: "a daemon that moves interrupts", examine: interrupts::irqbalance },
    Stage { name: "numa", about: "the memory next to the device", examine: interrupts::numa },
    Stage { name: "huge-pages", about: "pages for packet memory", examine: host::huge_pages },
    Stage { name: "memlock", about: "memory that may be pinned", examine: host::memlock },
    Stage { name: "ports", about: "ports to dial from", examine: host::ports },
];

/// A finding in the making: what does not depend on what was found.
#[derive(Clone, Copy)]
struct Matter {
    stage: &'static str,
    why: &'static str,
    sureness: Sureness,
}

impl Matter {
    const fn known(stage: &'static str, why: &'static str) -> Self {
        Self { stage, why, sureness: Sureness::Known }
    }

    const fn rule_of_thumb(stage: &'static str, why: &'static str) -> Self {
        Self { stage, why, sureness: Sureness::RuleOfThumb }
    }

    fn finding(self, found: impl Into<String>, wanted: impl Into<String>, state: State) -> Finding {
        let Self { stage, why, sureness } = self;
        Finding { stage, found: found.into(), wanted: wanted.into(), why, sureness, state }
    }

    fn fine(self, found: impl Into<String>) -> Finding {
        let found = found.into();
        self.finding(found.clone(), found, State::Fine)
    }

    fn absent(self, what: impl Into<String>) -> Finding {
        self.finding(what, "–", State::Absent)
    }

    fn unknown(self, why: &Unreadable) -> Finding {
        self.finding("?", "–", State::Unknown(why.clone()))
    }

    /// What `of` says of the fact, if it could be read.
    fn of<T>(self, fact: &Fact<T>, of: impl FnOnce(&T) -> Finding) -> Finding {
        match fact {
            Ok(value) => of(value),
            Err(why) => self.unknown(why),
        }
    }
}

#[cfg(test)]
pub(crate) mod made_up;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_the_name_of_its_stage_and_no_two_share_one() {
        let survey = made_up::server();
        let goals = made_up::goals();
        let names: std::collections::BTreeSet<_> = STAGES.iter().map(|stage| stage.name).collect();
        assert_eq!(names.len(), STAGES.len());
        for stage in STAGES {
            assert_eq!((stage.examine)(&survey, &goals).stage, stage.name);
        }
    }

    #[test]
    fn the_document_has_every_stage_in_its_order() {
        let document = include_str!("../../../docs/nic-setup.md");
        let stages = document.split("\n## ").find(|chapter| chapter.starts_with("The stages"));
        let rows: Vec<&str> =
            stages.unwrap_or_default().lines().filter(|line| line.starts_with("| `")).collect();
        let found: Vec<String> =
            rows.iter().map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" | ")).collect();
        let expected = STAGES.map(|stage| format!("| `{}` | {}", stage.name, stage.about));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_server_that_was_set_up_well_has_nothing_to_change() {
        for stage in STAGES {
            let finding = (stage.examine)(&made_up::server(), &made_up::goals());
            assert!(matches!(finding.state, State::Fine | State::Absent), "{finding:?}");
        }
    }

    #[test]
    fn a_host_of_which_nothing_can_be_read_is_judged_without_a_change() {
        for stage in STAGES {
            let finding = (stage.examine)(&made_up::unreadable(), &made_up::goals());
            assert!(finding.changes().is_empty(), "{finding:?}");
        }
    }
}
