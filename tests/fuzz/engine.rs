//! The whole engine, driven from memory by a script: anything that a driver may tell it, in any order.
//!
//! A step is four bytes: what, who, and a number. `world.rs` carries out what the engine asks, and
//! checks after each step what must hold after every one.

#[path = "engine/person.rs"]
mod person;
#[path = "engine/world.rs"]
mod world;

use std::sync::LazyLock;
use std::time::Duration;

use mtproxy_core::event::DialError;
use mtproxy_core::stream::Leg;

use crate::script::{Script, verbatim};
use person::Person;
use world::{Wire, World};

/// More steps find nothing new, only later.
const STEPS_MAX: usize = 300;
/// Longest payload of one step: so that four of them fill the largest window.
const PAYLOAD_LEN_MAX: usize = 1 << 14;

macro_rules! steps {
    ($($name:ident)*) => {
        #[derive(Clone, Copy)]
        enum Step { $($name,)* }
        const STEPS: &[Step] = &[$(Step::$name,)*];
    };
}

steps! {
    Accept Say SayRaw Garble Answer Refuse UpstreamSay PassOn Sent SentAll
    Fin Reset Wait WaitForTimeout TurnClock Configure Late
}

/// What makes a session get on, twice more: random steps would end most sessions early.
const HELPFUL: [Step; 10] = [
    Step::Accept,
    Step::Say,
    Step::Say,
    Step::Answer,
    Step::Answer,
    Step::SentAll,
    Step::SentAll,
    Step::UpstreamSay,
    Step::UpstreamSay,
    Step::Say,
];

pub(crate) fn run(input: &[u8]) {
    static STORIES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(stories);
    let input = Script::new(input).text(&STORIES);
    let mut script = Script::new(&input);
    let mut world = World::new();
    let ends_by_itself = script.byte() % 2 == 1;
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        let number = usize::from(script.byte()) % (STEPS.len() + HELPFUL.len());
        let step = STEPS.get(number).or_else(|| HELPFUL.get(number - STEPS.len()));
        let step = *step.expect("one of the two");
        let (who, number) = (usize::from(script.byte()), script.number());
        take(step, who, number, &mut script, &mut world);
        world.assert_invariants();
    }
    if ends_by_itself {
        world.wait_until_all_is_over();
    } else {
        world.stop();
    }
    world.assert_nothing_is_left();
}

fn take(step: Step, who: usize, number: usize, script: &mut Script<'_>, world: &mut World) {
    let payload_len = number % PAYLOAD_LEN_MAX;
    let nth = |mut streams: Vec<_>| (!streams.is_empty()).then(|| streams.swap_remove(who % streams.len()));
    match step {
        Step::Accept => world.accept(who, number),
        Step::Say => {
            if let Some(client) = nth(world.streams(|wire| wire.leg == Leg::Client && wire.may_speak())) {
                world.say_next(client, number);
            }
        }
        Step::SayRaw => {
            let bytes = script.bytes(number % 64);
            if let Some(stream) = nth(world.streams(Wire::may_speak)) {
                world.hand_in(stream, bytes);
            }
        }
        Step::Garble => {
            if let Some(client) = nth(world.streams(|wire| wire.leg == Leg::Client)) {
                world.person(client).garble(number);
            }
        }
        Step::Answer => {
            if let Some(dialled) = nth(world.streams(|wire| !wire.is_connected)) {
                world.answer(dialled);
            }
        }
        Step::Refuse => {
            const WHY: [DialError; 5] = [
                DialError::Refused,
                DialError::Unreachable,
                DialError::TimedOut,
                DialError::NoResources,
                DialError::Other,
            ];
            if let Some(dialled) = nth(world.streams(|wire| !wire.is_connected)) {
                world.refuse(dialled, WHY[number % WHY.len()]);
            }
        }
        Step::UpstreamSay => {
            if let Some(stream) = nth(world.streams(|wire| wire.leg == Leg::Upstream && wire.may_speak())) {
                world.hand_in(stream, &vec![number.to_le_bytes()[0]; payload_len]);
            }
        }
        Step::PassOn => {
            if let Some(stream) = nth(world.streams(Wire::may_speak)) {
                world.pass_on(stream, &vec![number.to_le_bytes()[0]; payload_len]);
            }
        }
        Step::Sent | Step::SentAll => {
            if let Some(stream) = nth(world.streams(|wire| wire.is_connected && wire.queued_len > 0)) {
                let len = if matches!(step, Step::Sent) { number } else { usize::MAX };
                world.sent(stream, len);
            }
        }
        Step::Fin => {
            if let Some(stream) = nth(world.streams(Wire::may_speak)) {
                world.fin(stream);
            }
        }
        Step::Reset => {
            if let Some(stream) = nth(world.streams(|wire| wire.is_connected)) {
                world.reset(stream);
            }
        }
        Step::Wait => {
            // Seconds matter as much as milliseconds; and a driver may be late.
            let unit = if who.is_multiple_of(2) { 1 } else { 1000 };
            world.wait(Duration::from_millis(number as u64 * unit));
            if who % 4 < 2 {
                world.time_out();
            }
        }
        Step::WaitForTimeout => world.wait_for_timeout(),
        Step::TurnClock => world.turn_clock(number),
        Step::Configure => world.configure(number),
        Step::Late => world.tell_late(who, number),
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    verbatim(&stories())
}

/// A story for each kind of person, from the first byte to the last.
fn stories() -> Vec<Vec<u8>> {
    let mut stories = Vec::new();
    for person in 0..Person::KINDS {
        let mut story = vec![0];
        let mut step = |step: Step, who: u8, number: u16| {
            story.extend([step as u8, who]);
            story.extend(number.to_le_bytes());
        };
        step(Step::Accept, person as u8, 0);
        step(Step::Say, 0, 0);
        // The flight of fake TLS, and what the client answers.
        step(Step::SentAll, 0, 0);
        step(Step::Say, 0, 0);
        step(Step::Refuse, 0, 0);
        step(Step::Answer, 0, 0);
        step(Step::SentAll, 0, 0);
        for _ in 0..5 {
            step(Step::Say, 0, 32_000);
            step(Step::UpstreamSay, 0, 16_000);
        }
        step(Step::Sent, 0, 40_000);
        step(Step::Sent, 1, 40_000);
        step(Step::SentAll, 0, 0);
        step(Step::SentAll, 0, 0);
        step(Step::PassOn, 1, 1000);
        step(Step::Fin, 0, 0);
        step(Step::UpstreamSay, 0, 500);
        step(Step::Fin, 0, 0);
        step(Step::SentAll, 0, 0);
        stories.push(story);
    }
    stories
}
