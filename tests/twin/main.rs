//! One set of scripts, four ways to be served: whoever speaks with the proxy cannot tell its datapaths apart.
//!
//! ```text
//!   scripts/ ─► Performance ─┬─ EngineStage   the engine, streams are pipes           virtual time: the reference
//!                            ├─ FramesStage   the engine over TCP-lite, in memory     virtual time
//!                            ├─ EpollStage    the program over the kernel's TCP       namespaces, root
//!                            └─ XdpStage      the program over AF_XDP, native, copy   namespaces, root
//! ```
//! A performance is written down as what each peer has heard: a client what its codec decrypts, a data centre
//! the fields of the init frame and what it decrypts, a stranger and a front raw bytes; then how the direction
//! ended. The transcripts of a script must be the same to the byte on every stage, and the ends those of
//! docs/session.md.
//!
//! What is left out, and why:
//! * ciphertext, our flight, nonces and the length of records: random by design. Peers' own random bytes have
//!   seeds, and their clock is the same on every stage, so fronts hear the very same hellos.
//! * how bytes were split, and when they came: TCP promises neither.
//! * how much of a stream comes through that a reset overtakes ([`Act::cut_short`](script::Act)): that it is a
//!   beginning of what was said is compared, not its length. Kernels drop what a reset overtakes at its sender
//!   and keep what was received; nobody promises more.
//! * a client that resets while its data centre is dialled: whether the dial comes about first is a race, and
//!   so it is in no script.
//!
//! AF_XDP fails open, so its stage counts which clients the kernel has served; a busy machine may have a few.
//!
//! Read `script.rs` first, then any file of `scripts/`, then `actor.rs`.

#![forbid(unsafe_code)]

mod actor;
mod deployment;
mod engine_stage;
mod frames_stage;
mod kernel_stage;
mod performance;
mod script;
mod scripts;
mod stage;
mod transcript;
mod voice;

use std::collections::HashSet;
use std::sync::OnceLock;

use engine_stage::EngineStage;
use frames_stage::FramesStage;
use kernel_stage::{EpollStage, XdpStage};
use mtproxy_tests::NetNs;
use mtproxy_tests::test_client::unix_seconds;
use performance::{Performance, perform};
use script::{Scene, Script};
use stage::Stage;

/// The clock of every client: what is compared begins with the same bytes on each stage.
fn clock() -> u32 {
    static CLOCK: OnceLock<u32> = OnceLock::new();
    *CLOCK.get_or_init(unix_seconds)
}

/// Performs everything, each scene on a stage of its own, all at the same time: most of it is waiting.
/// `TWIN=words` picks the scripts whose names have them.
fn performances<S: Stage>() -> Vec<(Script, Performance)> {
    let chosen = std::env::var("TWIN").unwrap_or_default();
    let mut scripts = scripts::all();
    scripts.retain(|script| script.name.contains(&chosen));
    std::thread::scope(|scope| {
        let scenes = Scene::ALL.map(|scene| {
            let of_scene: Vec<Script> =
                scripts.iter().filter(|script| script.scene == scene).cloned().collect();
            scope.spawn(move || performances_of::<S>(scene, of_scene))
        });
        scenes.into_iter().flat_map(|scene| scene.join().expect("a scene's stage does not fail")).collect()
    })
}

fn performances_of<S: Stage>(scene: Scene, scripts: Vec<Script>) -> Vec<(Script, Performance)> {
    if scripts.is_empty() {
        return Vec::new();
    }
    let mut stage = S::set(scene, clock());
    let performed = |script: Script| {
        let performance = perform(&script, &mut stage, clock());
        (script, performance)
    };
    let performances = scripts.into_iter().map(performed).collect();
    stage.check_way();
    performances
}

/// Performs everything on the reference and on `S`, and shows every difference.
fn assert_same<S: Stage>(name: &str) {
    let (ours, reference) = (performances::<S>(), performances::<EngineStage>());
    let mut differences = Vec::new();
    for ((script, ours), (_, reference)) in ours.iter().zip(&reference) {
        let sides = [&reference.transcript[..], &ours.transcript[..]];
        if let Some(text) = transcript::difference(["the engine", name], sides) {
            differences.push(format!("{}:\n{text}", script.name));
        }
    }
    let count = differences.len();
    assert!(count == 0, "{count} of {} scripts differ\n\n{}", ours.len(), differences.join("\n"));
}

#[test]
fn every_script_has_a_name_of_its_own() {
    let scripts = scripts::all();
    let names: HashSet<&str> = scripts.iter().map(|script| script.name.as_str()).collect();
    assert_eq!(names.len(), scripts.len());
}

#[test]
fn the_engine_ends_connections_as_session_md_says_and_loses_nothing() {
    let mut failures = Vec::new();
    for (script, Performance { transcript, told, is_intact }) in performances::<EngineStage>() {
        let expected: Vec<_> = script.acts.iter().map(|act| act.ends).collect();
        let is_stuck = transcript.iter().any(|line| line.contains("never came to"));
        if told != expected || is_stuck || !is_intact {
            let transcript = transcript.join("\n");
            failures.push(format!(
                "{}: {told:?}, intact: {is_intact}; {expected:?} awaited\n{transcript}",
                script.name
            ));
        }
    }
    assert!(failures.is_empty(), "{} scripts end otherwise\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn over_tcp_lite_in_memory_nobody_notices_a_difference() {
    assert_same::<FramesStage>("TCP-lite");
}

#[test]
fn over_the_kernels_tcp_nobody_notices_a_difference() {
    if NetNs::permitted_or_skipped() {
        assert_same::<EpollStage>("epoll");
    }
}

#[test]
fn over_af_xdp_nobody_notices_a_difference() {
    if NetNs::permitted_or_skipped() {
        assert_same::<XdpStage>("AF_XDP");
    }
}
