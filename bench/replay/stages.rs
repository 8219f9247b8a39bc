//! The stages of a turn, each a function that can be timed, and found by name in a profile.
//!
//! ```text
//!   parse ── look up ── TCP │ events, reads, engine, the one copy │ headers, checksum, ring
//!   └────── receive ──────┘   └──────────── relay ─────────────┘    └───── transmit ─────┘
//! ```
//! Receive, relay and transmit together are a whole turn in another order: stage by stage over a burst, instead
//! of packet by packet. Parse, look-up and engine are done once more, alone, on bursts of their own.

use std::hint::black_box;
use std::net::SocketAddr;

use mtproxy_bench::scene::peers::End;
use mtproxy_bench::scene::{Arrival, Burst, Scene};
use mtproxy_core::action::Actions;
use mtproxy_core::engine::{Engine, Input};
use mtproxy_core::stream::StreamId;
use mtproxy_core::time::Now;
use mtproxy_tcp::link::Link as _;
use mtproxy_tcp::wire::{self, Checksums};
use serde::{Deserialize, Serialize};

/// What is measured of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    Parse,
    LookUp,
    Receive,
    Relay,
    Engine,
    Transmit,
    Whole,
}

impl Stage {
    pub(crate) const ALL: [Self; 7] =
        [Self::Parse, Self::LookUp, Self::Receive, Self::Relay, Self::Engine, Self::Transmit, Self::Whole];

    /// The function below.
    pub(crate) fn function(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::LookUp => "look_up",
            Self::Receive => "receive",
            Self::Relay => "relay",
            Self::Engine => "engine",
            Self::Transmit => "transmit",
            Self::Whole => "whole",
        }
    }
}

/// What the engine alone is given: text, and where it comes from and goes to.
pub(crate) struct Text {
    pub(crate) from: StreamId,
    pub(crate) to: StreamId,
    pub(crate) bytes: Vec<u8>,
    /// What becomes of it.
    pub(crate) len_after: usize,
}

/// The stages, once for each step of an exchange: a profile counts by function.
macro_rules! stages_of {
    ($step:ident) => {
        pub(crate) mod $step {
            use super::*;

            /// So that functions of different steps stay different.
            const STEP: &str = stringify!($step);

            #[inline(never)]
            pub(crate) fn parse(scene: &mut Scene, burst: &Burst) {
                black_box(STEP);
                super::parse_all(scene, burst);
            }

            #[inline(never)]
            pub(crate) fn look_up(scene: &mut Scene, flows: &[(SocketAddr, SocketAddr)]) {
                black_box(STEP);
                super::look_up_all(scene, flows);
            }

            #[inline(never)]
            pub(crate) fn receive(scene: &mut Scene, burst: &mut Burst) {
                black_box(STEP);
                super::receive_all(scene, burst);
            }

            #[inline(never)]
            pub(crate) fn relay(scene: &mut Scene) {
                black_box(STEP);
                let now = scene.now();
                scene.relay.time_out(now, &mut scene.engine);
            }

            #[inline(never)]
            pub(crate) fn transmit(scene: &mut Scene) {
                black_box(STEP);
                let now = scene.now();
                scene.relay.transmit(now, &mut scene.engine);
            }

            #[inline(never)]
            pub(crate) fn engine(engine: &mut Engine, now: Now, texts: &mut [Text], actions: &mut Actions) {
                black_box(STEP);
                super::handle_all(engine, now, texts, actions);
            }

            #[inline(never)]
            pub(crate) fn whole(scene: &mut Scene, burst: &mut Burst) {
                black_box(STEP);
                scene.turn(burst);
            }
        }
    };
}

stages_of!(to_data_centre);
stages_of!(to_client);
stages_of!(acknowledgement);

#[inline(always)]
fn parse_all(scene: &mut Scene, burst: &Burst) {
    let umem = &scene.relay.streams().link;
    for Arrival { frame, len } in burst {
        black_box(wire::parse(&umem.bytes(frame)[..*len], Checksums::Verify)).expect("made by us");
    }
}

#[inline(always)]
fn look_up_all(scene: &mut Scene, flows: &[(SocketAddr, SocketAddr)]) {
    let stack = &scene.relay.streams().stack;
    for (local, remote) in flows {
        black_box(stack.connection_between(*local, *remote)).expect("it is established");
    }
}

#[inline(always)]
fn receive_all(scene: &mut Scene, burst: &mut Burst) {
    let now = scene.now();
    scene.relay.begin(now);
    let streams = scene.relay.streams();
    for Arrival { frame, len } in burst.drain(..) {
        assert!(streams.stack.receive(streams.now, frame, 0..len, &mut streams.link).is_none());
    }
}

#[inline(always)]
fn handle_all(engine: &mut Engine, now: Now, texts: &mut [Text], actions: &mut Actions) {
    for Text { from, to, bytes, len_after } in texts {
        engine.handle(now, Input::Bytes(*from, bytes), actions);
        actions.clear();
        engine.sent(now, *to, *len_after, actions);
        actions.clear();
    }
}

/// The addresses that [`look_up`](to_data_centre::look_up) wants, of the flows that `ends` are.
pub(crate) fn addresses(scene: &Scene, ends: &[End]) -> Vec<(SocketAddr, SocketAddr)> {
    ends.iter().map(|end| scene.peers.addresses(*end)).collect()
}
