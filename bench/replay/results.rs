//! What a run found. This is also the form of the JSON files.

use mtproxy_bench::machine::Machine;
use mtproxy_bench::spread::Spread;
use serde::{Deserialize, Serialize};

use crate::Client;
use crate::exchange::Step;
use crate::stages::Stage;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) costs: Vec<Cost>,
    pub(crate) idle: Vec<Idle>,
}

/// What the stages cost for one kind of client, number of relays and length of messages.
#[derive(Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) client: Client,
    pub(crate) relays: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) unit: Unit,
    /// Packets that the relay sends for each message that it relays, acknowledgements included.
    pub(crate) sent_per_message: f64,
    pub(crate) stages: Vec<StageCost>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    Nanoseconds,
    Instructions,
}

/// One stage of one step, for each packet that comes.
#[derive(Debug, Serialize)]
pub(crate) struct StageCost {
    pub(crate) step: Step,
    pub(crate) stage: Stage,
    /// Over the rounds; of instructions there is one round.
    pub(crate) per_packet: Spread,
}

/// Memory of idle relays.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Idle {
    pub(crate) client: Client,
    /// How many there were, and the resident bytes of the process.
    pub(crate) resident: Vec<(u32, u64)>,
}

impl Results {
    /// Nothing yet.
    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine, costs: Vec::new(), idle: Vec::new() }
    }
}

impl Cost {
    fn of(&self, step: Step, stage: Stage) -> f64 {
        let found = self.stages.iter().find(|cost| cost.step == step && cost.stage == stage);
        found.map_or(0.0, |cost| cost.per_packet.median)
    }

    /// A stage for each message relayed. An exchange relays two, and a third packet acknowledges.
    pub(crate) fn per_message(&self, stage: Stage) -> f64 {
        Step::ALL.iter().map(|step| self.of(*step, stage)).sum::<f64>() / 2.0
    }

    /// The same of one step.
    pub(crate) fn per_packet(&self, step: Step, stage: Stage) -> f64 {
        self.of(step, stage)
    }
}
