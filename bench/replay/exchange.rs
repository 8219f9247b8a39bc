//! What is replayed: exchanges of 64 relays at a time, which no cache has seen lately.
//!
//! ```text
//!   step                comes                         goes
//!   to data centre      64 clients' messages          64 messages, rekeyed
//!   to client           64 answers, which also        64 messages, with acknowledgements for
//!                       acknowledge                    the clients
//!   acknowledgement     64 clients' acknowledgements  what was delayed for the data centre, when its time comes
//! ```
//! Each exchange is of one [`Stage`]: that is timed, the others only happen.

use std::time::{Duration, Instant};

use mtproxy_bench::rig::Mode;
use mtproxy_bench::scene::peers::{End, Side};
use mtproxy_bench::scene::{Burst, RECORD_HEADER_BYTES, Scene, record_header};
use mtproxy_core::action::Actions;
use serde::{Deserialize, Serialize};

use crate::stages::{self, Stage, Text, acknowledgement, to_client, to_data_centre};

/// Packets of a burst: what a shard takes from its ring in one turn.
pub(crate) const BURST: u32 = 64;

/// Time between turns: a million packets a second.
const TURN: Duration = Duration::from_micros(64);

/// A third of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    ToDataCentre,
    ToClient,
    Acknowledgement,
}

impl Step {
    pub(crate) const ALL: [Self; 3] = [Self::ToDataCentre, Self::ToClient, Self::Acknowledgement];

    /// The module of `stages.rs`.
    pub(crate) fn module(self) -> &'static str {
        match self {
            Self::ToDataCentre => "to_data_centre",
            Self::ToClient => "to_client",
            Self::Acknowledgement => "acknowledgement",
        }
    }
}

/// Calls the function of a step.
macro_rules! of_step {
    ($step:expr, $function:ident($($argument:expr),*)) => {
        match $step {
            Step::ToDataCentre => to_data_centre::$function($($argument),*),
            Step::ToClient => to_client::$function($($argument),*),
            Step::Acknowledgement => acknowledgement::$function($($argument),*),
        }
    };
}

/// How long the stages of one step took, nanoseconds for a burst.
pub(crate) type Timings = Vec<(Step, Stage, u64)>;

/// The scene, and which relays come next.
pub(crate) struct Replay {
    scene: Scene,
    payload_len: usize,
    next: u32,
    burst: Burst,
    actions: Actions,
    texts: Vec<Text>,
    /// Packets that the relay sent, and messages that it relayed.
    sent: u64,
    relayed: u64,
}

impl Replay {
    pub(crate) fn new(scene: Scene, payload_len: usize) -> Self {
        Self {
            scene,
            payload_len,
            next: 1,
            burst: Burst::new(),
            actions: Actions::new(),
            texts: Vec::new(),
            sent: 0,
            relayed: 0,
        }
    }

    /// The scene, for other messages.
    pub(crate) fn with_payload(self, payload_len: usize) -> Self {
        Self::new(self.scene, payload_len)
    }

    /// Packets that the relay sent for each message.
    #[expect(clippy::cast_precision_loss, reason = "a run has far fewer than 2^53 packets")]
    pub(crate) fn sent_per_message(&self) -> f64 {
        self.sent as f64 / self.relayed as f64
    }

    /// One exchange, in which `stage` is timed.
    pub(crate) fn exchange(&mut self, stage: Stage, timings: &mut Timings) {
        let relays: Vec<u32> = (0..BURST).map(|_| self.next_relay()).collect();
        for step in Step::ALL {
            self.scene.pass(TURN);
            let side = if step == Step::ToClient { Side::DataCentre } else { Side::Client };
            let ends: Vec<End> = relays.iter().map(|relay| (side, *relay)).collect();
            if stage == Stage::Engine {
                self.engine_alone(step, &ends, timings);
                continue;
            }
            match step {
                Step::Acknowledgement => self.scene.acknowledge(&mut self.burst),
                _ => ends.iter().for_each(|end| self.scene.message(*end, self.payload_len, &mut self.burst)),
            }
            self.turn(step, stage, &ends, timings);
            let echo = self.scene.hear();
            let relayed = if step == Step::Acknowledgement { 0 } else { u64::from(BURST) };
            assert_eq!(echo.with_text, relayed, "every message is relayed, in one packet");
            self.sent += echo.packets;
            self.relayed += relayed;
        }
    }

    fn turn(&mut self, step: Step, stage: Stage, ends: &[End], timings: &mut Timings) {
        let Self { scene, burst, .. } = self;
        let mut time = |stage, work: &mut dyn FnMut()| {
            let started = Instant::now();
            work();
            let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            timings.push((step, stage, took));
        };
        match stage {
            Stage::Parse => time(stage, &mut || of_step!(step, parse(scene, burst))),
            Stage::LookUp => {
                let flows = stages::addresses(scene, ends);
                time(stage, &mut || of_step!(step, look_up(scene, &flows)));
            }
            Stage::Receive | Stage::Relay | Stage::Transmit => {
                time(Stage::Receive, &mut || of_step!(step, receive(scene, burst)));
                time(Stage::Relay, &mut || of_step!(step, relay(scene)));
                time(Stage::Transmit, &mut || of_step!(step, transmit(scene)));
                return;
            }
            Stage::Whole => {
                time(stage, &mut || of_step!(step, whole(scene, burst)));
                return;
            }
            Stage::Engine => return,
        }
        scene.turn(burst);
    }

    /// The engine is handed texts without any TCP below; both keep their places in their streams.
    fn engine_alone(&mut self, step: Step, ends: &[End], timings: &mut Timings) {
        if step == Step::Acknowledgement {
            return;
        }
        let Self { scene, texts, actions, payload_len, .. } = self;
        texts.clear();
        for &(side, relay) in ends {
            let from = scene.stream((side, relay));
            let to = scene.stream((side.other(), relay));
            let has_records = matches!(scene.mode(), Mode::Ee(_));
            let mut bytes = Vec::new();
            if has_records && side == Side::Client {
                bytes.extend_from_slice(&record_header(*payload_len));
            }
            bytes.resize(bytes.len() + *payload_len, 0x5a);
            let header_len = if has_records && side == Side::DataCentre { RECORD_HEADER_BYTES } else { 0 };
            texts.push(Text { from, to, bytes, len_after: *payload_len + header_len });
        }
        let now = scene.now();
        let started = Instant::now();
        of_step!(step, engine(&mut scene.engine, now, texts, actions));
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        timings.push((step, Stage::Engine, took));
    }

    /// Goes round all relays in an order that looks like none (a congruential generator of full period:
    /// Hull and Dobell 1962).
    fn next_relay(&mut self) -> u32 {
        let relays = self.scene.relays();
        let modulus = relays.next_power_of_two();
        loop {
            self.next = self.next.wrapping_mul(0x9e37_79b5).wrapping_add(0x3c6e_f35f) & (modulus - 1);
            if self.next < relays {
                return self.next;
            }
        }
    }
}
