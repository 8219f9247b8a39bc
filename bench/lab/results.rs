//! What a run found. This is also the form of the JSON file.

use mtproxy_bench::machine::Machine;
use mtproxy_bench::spread::Spread;
use serde::Serialize;

use crate::phase::{Datapath, Phase, Plan};
use crate::turn::Turn;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) plan: Plan,
    /// Datapaths that the proxy did not start with, and what it said.
    pub(crate) refused: Vec<(Datapath, String)>,
    /// There was no time for all turns.
    pub(crate) cut_short: bool,
    pub(crate) findings: Vec<Finding>,
}

/// One turn, or why there is none.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) round: usize,
    pub(crate) datapath: Datapath,
    pub(crate) phase: Phase,
    pub(crate) turn: Option<Turn>,
    pub(crate) failure: Option<String>,
}

impl Finding {
    /// What came of it.
    pub(crate) fn new(round: usize, datapath: Datapath, phase: Phase, turn: anyhow::Result<Turn>) -> Self {
        let (turn, failure) = match turn {
            Ok(turn) => (Some(turn), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        Self { round, datapath, phase, turn, failure }
    }
}

impl Results {
    /// Nothing yet.
    pub(crate) fn new(machine: Machine, plan: Plan) -> Self {
        Self { machine, plan, refused: Vec::new(), cut_short: false, findings: Vec::new() }
    }

    /// Adds the outcome of a turn.
    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// The proxy does not start with this datapath, and need not be asked again.
    pub(crate) fn refuse(&mut self, datapath: Datapath, said: String) {
        self.refused.push((datapath, said));
    }

    /// True after [`refuse`](Self::refuse).
    pub(crate) fn is_refused(&self, datapath: Datapath) -> bool {
        self.refused.iter().any(|(refused, _)| *refused == datapath)
    }

    /// True if every datapath has shown at every phase what it can do.
    pub(crate) fn is_complete(&self) -> bool {
        let has_turns = |datapath| Phase::ALL.iter().all(|&phase| !self.turns(datapath, phase).is_empty());
        self.findings.iter().all(|finding| finding.failure.is_none())
            && self.plan.datapaths.iter().all(|&datapath| has_turns(datapath))
    }

    /// The turns of one datapath at one phase, with their rounds.
    pub(crate) fn turns(&self, datapath: Datapath, phase: Phase) -> Vec<(usize, &Turn)> {
        let of_both = |finding: &&Finding| finding.datapath == datapath && finding.phase == phase;
        let found = self.findings.iter().filter(of_both);
        found.filter_map(|finding| Some((finding.round, finding.turn.as_ref()?))).collect()
    }

    /// Why a datapath has no turns at a phase, in so few words that they fit a cell.
    pub(crate) fn absence(&self, datapath: Datapath, phase: Phase) -> &'static str {
        let has_failed = |finding: &Finding| {
            finding.datapath == datapath && finding.phase == phase && finding.failure.is_some()
        };
        if self.is_refused(datapath) {
            "does not start"
        } else if self.findings.iter().any(has_failed) {
            "failed"
        } else {
            "no time left"
        }
    }

    /// The system's CPU time for one unit over xdp, divided by that over epoll in the same round.
    pub(crate) fn xdp_to_epoll(&self, phase: Phase) -> Option<Spread> {
        let epoll = self.turns(Datapath::Epoll, phase);
        let ratios = self.turns(Datapath::Xdp, phase).into_iter().filter_map(|(round, xdp)| {
            let (_, epoll) = epoll.iter().find(|(other, _)| *other == round)?;
            Some(system_cpu_us_per_unit(xdp) / system_cpu_us_per_unit(epoll))
        });
        Spread::of(ratios.collect::<Vec<f64>>())
    }
}

/// What one operation or MiB costs everybody but the generator.
pub(crate) fn system_cpu_us_per_unit(turn: &Turn) -> f64 {
    turn.system_cpu_us / turn.units
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASE: Phase = Phase::ALL[0];

    fn results(findings: impl IntoIterator<Item = (usize, Datapath, f64)>) -> Results {
        let mut results = Results::new(Machine::this("test"), Plan::quick());
        for (round, datapath, system_cpu_us) in findings {
            let turn = Turn { system_cpu_us, units: 10.0, ..Turn::default() };
            results.add(Finding::new(round, datapath, PHASE, Ok(turn)));
        }
        results
    }

    #[test]
    fn a_ratio_compares_turns_of_the_same_round() {
        let (epoll, xdp) = (Datapath::Epoll, Datapath::Xdp);
        let results =
            results([(0, epoll, 100.0), (0, xdp, 50.0), (1, xdp, 100.0), (1, epoll, 400.0), (2, xdp, 9.0)]);
        let ratio = results.xdp_to_epoll(PHASE);
        assert_eq!(ratio, Some(Spread { median: 0.375, min: 0.25, max: 0.5 }));
        assert_eq!(results.xdp_to_epoll(Phase::ALL[1]), None);
    }

    #[test]
    fn a_datapath_that_is_not_there_is_said_to_be_and_leaves_the_run_incomplete() {
        let mut all: Vec<Finding> = Vec::new();
        for phase in Phase::ALL {
            all.push(Finding::new(0, Datapath::Epoll, phase, Ok(Turn::default())));
        }
        let mut results = results([]);
        all.into_iter().for_each(|finding| results.add(finding));
        assert_eq!(results.absence(Datapath::Xdp, PHASE), "no time left");
        results.refuse(Datapath::Xdp, "not built yet".to_owned());
        assert_eq!(results.absence(Datapath::Xdp, PHASE), "does not start");
        assert!(!results.is_complete());
        results.plan.datapaths = vec![Datapath::Epoll];
        assert!(results.is_complete());
        results.add(Finding::new(1, Datapath::Epoll, PHASE, Err(anyhow::anyhow!("a client was closed"))));
        assert!(!results.is_complete(), "a failure counts, whatever the other rounds found");
    }
}
