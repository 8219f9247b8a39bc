//! Nanoseconds. A burst is timed as a whole: reading the clock costs a fiftieth of a nanosecond a packet then.

use anyhow::Result;
use mtproxy_bench::scene::Scene;
use mtproxy_bench::spread::Spread;

use crate::Client;
use crate::exchange::{BURST, Replay, Step, Timings};
use crate::results::{Cost, StageCost, Unit};
use crate::stages::Stage;

const ROUNDS: usize = 9;
/// Exchanges of each stage in a round: enough that a median is not moved by what else the machine does.
const EXCHANGES: usize = 60;

/// Stages that are timed in exchanges of their own. Relay and transmit are timed with receive.
const TIMED: [Stage; 5] = [Stage::Whole, Stage::Parse, Stage::LookUp, Stage::Receive, Stage::Engine];

pub(crate) fn measure(client: Client, relays: u32, payloads: &[usize]) -> Result<Vec<Cost>> {
    let mut scene = Scene::new(client.mode(), relays as usize)?;
    scene.establish(relays);
    let mut replay = Replay::new(scene, 0);
    let mut costs = Vec::new();
    for &payload_bytes in payloads {
        replay = replay.with_payload(payload_bytes);
        play(&mut replay, &mut Timings::new());
        let rounds: Vec<Timings> = (0..ROUNDS)
            .map(|_| {
                let mut timings = Timings::new();
                play(&mut replay, &mut timings);
                timings
            })
            .collect();
        costs.push(Cost {
            client,
            relays,
            payload_bytes,
            unit: Unit::Nanoseconds,
            sent_per_message: replay.sent_per_message(),
            stages: evaluate(&rounds),
        });
    }
    Ok(costs)
}

fn play(replay: &mut Replay, timings: &mut Timings) {
    for _ in 0..EXCHANGES {
        for stage in TIMED {
            replay.exchange(stage, timings);
        }
    }
}

/// The median burst of each round, and the spread of those.
fn evaluate(rounds: &[Timings]) -> Vec<StageCost> {
    let mut costs = Vec::new();
    for step in Step::ALL {
        for stage in Stage::ALL {
            let medians = rounds.iter().filter_map(|timings| {
                let bursts = timings.iter().filter(|(of, what, _)| *of == step && *what == stage);
                #[expect(clippy::cast_precision_loss, reason = "a burst takes microseconds")]
                let packets = bursts.map(|(_, _, took)| *took as f64 / f64::from(BURST));
                Spread::of(packets).map(|spread| spread.median)
            });
            let spread = Spread::of(medians);
            costs.extend(spread.map(|per_packet| StageCost { step, stage, per_packet }));
        }
    }
    costs
}
