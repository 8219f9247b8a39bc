//! How relays end: by FIN, by RST, by misbehaviour and by silence, with little and much under way.

use crate::script::Step::{
    Await, Deaf, Fin, Greeted, Hear, HearEnd, HearReset, Listen, Open, Raw, Reset, Rest, Say, SayOn, Withhold,
};
use crate::script::{Act, Kind, Role, Scene, Script, Sign, Told};

/// More than a client's window and the relay's.
const SOME: u64 = 300_000;
/// What every way has room for while nobody reads at its end.
const LITTLE: u64 = 30_000;

pub(super) fn scripts() -> Vec<Script> {
    let mut scripts = Vec::new();
    for kind in Kind::BOTH_WAYS {
        let name = kind.name();
        for (what, act) in
            by_fin(kind).into_iter().chain(by_the_clients_reset(kind)).chain(by_the_dcs_reset(kind))
        {
            scripts.push(Script::new(format!("{name}, {what}"), act));
        }
        for (what, act) in by_silence(kind) {
            scripts.push(Script::new(format!("{name}, {what}"), act).within(Scene::Hasty));
        }
    }
    for (what, act) in by_misbehaviour() {
        scripts.push(Script::new(what, act));
    }
    scripts
}

fn by_fin(kind: Kind) -> Vec<(&'static str, Act)> {
    vec![
        (
            "the client's FIN, and a long answer behind it",
            Act::new(
                kind,
                vec![Open(0), Greeted, Say(10), Fin, Hear(SOME), HearEnd],
                vec![HearEnd, Say(SOME), Fin],
            ),
        ),
        (
            "the data centre's FIN, and a long question behind it",
            Act::new(
                kind,
                vec![Open(0), Greeted, Say(10), HearEnd, Say(SOME), Fin],
                vec![Hear(10), Say(20), Fin, Hear(10 + SOME), HearEnd],
            ),
        ),
        (
            "FIN from both, behind much",
            Act::new(
                kind,
                vec![Open(10), Greeted, Say(SOME), Fin, HearEnd],
                vec![Hear(10), Say(SOME), Fin, HearEnd],
            ),
        ),
        (
            "the data centre's FIN while the client is slow",
            Act::new(
                kind,
                vec![Open(10), Greeted, Deaf, Await(Sign::Ended), Rest, Listen, HearEnd, Fin],
                vec![Hear(10), Say(LITTLE), Fin, HearEnd],
            ),
        ),
        (
            "the client's FIN while the data centre is slow",
            Act::new(
                kind,
                vec![Open(10), Greeted, Await(Sign::Heard(10)), Say(LITTLE), Fin, HearEnd],
                vec![Hear(10), Deaf, Await(Sign::Ended), Rest, Listen, HearEnd, Fin],
            ),
        ),
    ]
}

fn by_the_clients_reset(kind: Kind) -> Vec<(&'static str, Act)> {
    let client_is_gone = |act: Act| act.ending(Told::Nothing, Told::Fin);
    vec![
        (
            "the client's reset before a word",
            client_is_gone(Act::new(
                kind,
                vec![Open(0), Greeted, Await(Sign::Greeted), Reset],
                vec![HearEnd, Fin],
            )),
        ),
        (
            "the client's reset after much",
            client_is_gone(Act::new(
                kind,
                vec![Open(10), Greeted, Say(SOME), Await(Sign::Heard(10 + SOME)), Hear(SOME), Reset],
                vec![Hear(10), Say(SOME), HearEnd, Fin],
            )),
        ),
        (
            "the client's reset during a download",
            Act::new(
                kind,
                vec![Open(10), Greeted, Hear(SOME), Reset],
                vec![Hear(10), SayOn, HearEnd, HearReset],
            )
            .ending(Told::Nothing, Told::FinThenRst)
            .cut_short_for(Role::Client),
        ),
        (
            "the client's reset during an upload",
            client_is_gone(Act::new(
                kind,
                vec![Open(10), Greeted, SayOn, Await(Sign::Heard(SOME)), Reset],
                vec![HearEnd, Fin],
            ))
            .cut_short_for(Role::Upstream),
        ),
        (
            "the client's FIN and then reset while it takes nothing",
            Act::new(
                kind,
                vec![
                    Open(10),
                    Greeted,
                    Await(Sign::Heard(10)),
                    Deaf,
                    Rest,
                    Fin,
                    Await(Sign::HeardEnd),
                    Reset,
                ],
                vec![Hear(10), SayOn, HearEnd, HearReset],
            )
            .ending(Told::Nothing, Told::FinThenRst),
        ),
        (
            "the client's FIN and reset at once while it takes nothing",
            Act::new(
                kind,
                vec![Open(10), Greeted, Await(Sign::Heard(10)), Deaf, Rest, Fin, Reset],
                vec![Hear(10), SayOn, HearEnd, HearReset],
            )
            .ending(Told::Nothing, Told::FinThenRst),
        ),
        (
            "the client's FIN and then reset while nobody speaks",
            client_is_gone(Act::new(
                kind,
                vec![Open(10), Greeted, Fin, Await(Sign::HeardEnd), Reset],
                vec![HearEnd, Await(Sign::Done), Rest, Fin],
            )),
        ),
    ]
}

fn by_the_dcs_reset(kind: Kind) -> Vec<(&'static str, Act)> {
    let dc_is_gone = |act: Act| act.ending(Told::Fin, Told::Nothing);
    vec![
        (
            "the data centre's reset before a word",
            dc_is_gone(Act::new(kind, vec![Open(10), Greeted, HearEnd, Fin], vec![Hear(10), Reset])),
        ),
        (
            "the data centre's reset after much",
            dc_is_gone(Act::new(
                kind,
                vec![Open(10), Greeted, Hear(SOME), HearEnd, Fin],
                vec![Hear(10), Say(SOME), Await(Sign::Heard(SOME)), Reset],
            )),
        ),
        (
            "the data centre's reset during a download",
            dc_is_gone(Act::new(
                kind,
                vec![Open(10), Greeted, HearEnd, Fin],
                vec![Hear(10), SayOn, Await(Sign::Heard(SOME)), Reset],
            ))
            .cut_short_for(Role::Client),
        ),
        (
            "the data centre's reset during an upload",
            Act::new(kind, vec![Open(10), Greeted, SayOn, HearEnd, HearReset], vec![Hear(SOME), Reset])
                .ending(Told::FinThenRst, Told::Nothing)
                .cut_short_for(Role::Upstream),
        ),
        (
            "the data centre's FIN and then reset",
            dc_is_gone(Act::new(
                kind,
                vec![Open(10), Greeted, HearEnd, Fin],
                vec![Hear(10), Say(SOME), Fin, Await(Sign::HeardEnd), Reset],
            )),
        ),
    ]
}

fn by_silence(kind: Kind) -> Vec<(&'static str, Act)> {
    vec![
        ("silence", Act::new(kind, vec![Open(10), Greeted, HearEnd, Fin], vec![Hear(10), HearEnd, Fin])),
        (
            "silence behind the client's FIN",
            Act::new(kind, vec![Open(10), Greeted, Fin, HearEnd], vec![HearEnd]),
        ),
        (
            "a client that takes nothing and says nothing",
            // What it is told last overtakes nothing: it reads when all is over.
            Act::new(
                kind,
                vec![Open(10), Greeted, Await(Sign::Heard(10)), Deaf, Await(Sign::Done), Listen, HearReset],
                vec![Hear(10), SayOn, HearEnd, HearReset],
            )
            .ending(Told::Rst, Told::FinThenRst)
            .cut_short_for(Role::Client),
        ),
    ]
}

fn by_misbehaviour() -> Vec<(&'static str, Act)> {
    let nobody = |act: Act| act.ending(Told::Fin, Told::Absent);
    vec![
        (
            "ee, a record that is not application data",
            Act::new(
                Kind::EE,
                vec![
                    Open(10),
                    Greeted,
                    Await(Sign::Heard(10)),
                    Say(1000),
                    Raw(vec![0x15, 3, 3, 0, 2, 1, 0]),
                    HearEnd,
                    Fin,
                ],
                vec![Hear(1010), HearEnd, Fin],
            ),
        ),
        (
            "ee, FIN as soon as it is greeted",
            nobody(Act::new(Kind::EE, vec![Withhold, Open(0), Greeted, Fin, HearEnd], vec![])),
        ),
        (
            "ee, no ChangeCipherSpec when it is greeted",
            nobody(Act::new(
                Kind::EE,
                vec![Withhold, Open(0), Greeted, Raw(vec![0x17, 3, 3, 0, 1, 1]), HearEnd, Fin],
                vec![],
            )),
        ),
    ]
}
