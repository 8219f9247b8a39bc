//! Probes and other strangers: with a front, with none, and with no patience.

use mtproxy_tests::{HelloFault, pattern};

use crate::script::Cut::Pieces;
use crate::script::Step::{
    Await, Cut, Deaf, Fin, Greeted, Hear, HearEnd, HearReset, Listen, Open, Raw, RawOpening, Reset, Rest, Say,
};
use crate::script::{Act, Kind, Scene, Script, Sign, Step, Told};

/// What the front answers.
const ANSWER: u64 = 5000;
const MUCH: u64 = 3 << 20;

/// A fixed seed for the client that is replayed.
const REPLAYED: u64 = 7;

pub(super) fn scripts() -> Vec<Script> {
    let mut scripts = Vec::new();
    for (who, what, len) in probes() {
        let act = |client: Vec<Step>| Act::of_stranger(client, vec![Hear(len), Say(ANSWER), HearEnd, Fin]);
        let polite = |mut what: Vec<Step>| {
            what.extend([Hear(ANSWER), Fin, HearEnd]);
            what
        };
        scripts.push(Script::new(format!("{who}, fronted"), act(polite(what.clone()))));
        scripts.push(Script::new(format!("{who}, fronted over IPv6"), act(polite(what.clone()))).over_v6());
        let mut bytewise = vec![Cut(Pieces(1))];
        bytewise.extend(what.clone());
        scripts.push(Script::new(format!("{who}, byte by byte"), act(polite(bytewise))));
        let mut at_once = what.clone();
        at_once.extend([Fin, HearEnd]);
        let front = vec![HearEnd, Say(ANSWER), Fin];
        scripts.push(Script::new(format!("{who}, with FIN"), Act::of_stranger(at_once, front)));
        let mut silenced = what;
        silenced.extend([Rest, Fin, HearEnd]);
        let act = Act::of_stranger(silenced, vec![]).ending(Told::Fin, Told::Absent);
        scripts.push(Script::new(format!("{who}, no front"), act).within(Scene::Frontless));
    }
    for (what, act) in endings() {
        scripts.push(Script::new(format!("a fronted stranger, {what}"), act));
    }
    scripts.push(replayed_hello());
    scripts.extend(beginnings());
    scripts.extend(slow_ones());
    scripts
}

/// Name, what they say, and how long it is.
fn probes() -> Vec<(&'static str, Vec<Step>, u64)> {
    let http: &[u8] = b"GET / HTTP/1.1\r\nHost: front.example\r\n\r\n";
    // Far from what actors say, and no init frame of ours.
    let random = pattern::bytes(1 << 50, 300);
    let hello = |fault| RawOpening(Kind { fault, ..Kind::EE }, usize::MAX);
    let foreign = |kind: Kind| RawOpening(Kind { has_other_secret: true, ..kind }, usize::MAX);
    vec![
        ("HTTP", vec![Raw(http.to_vec())], http.len() as u64),
        ("random bytes", vec![Raw(random)], 300),
        ("a browser's TLS", vec![hello(HelloFault::Browser)], 517),
        ("a hello with a wrong HMAC", vec![hello(HelloFault::WrongHmac)], 517),
        ("a hello without TLS 1.3", vec![hello(HelloFault::NoTls13Suite)], 517),
        ("a hello of another proxy", vec![foreign(Kind::EE)], 517),
        ("an init frame of another proxy", vec![foreign(Kind::DD)], 64),
    ]
}

/// How a fronted connection ends; the stranger has said ten bytes in any case.
fn endings() -> Vec<(&'static str, Act)> {
    // Nothing begins like this that is ours, or HTTP's.
    let hi = || Raw(vec![0xff; 64]);
    vec![
        (
            "who is answered after its FIN",
            Act::of_stranger(vec![hi(), Hear(ANSWER), Fin, Hear(2 * ANSWER), HearEnd], {
                vec![Hear(64), Say(ANSWER), HearEnd, Say(ANSWER), Fin]
            }),
        ),
        (
            "who talks on after the front's FIN",
            Act::of_stranger(vec![hi(), HearEnd, Say(1000), Fin], {
                vec![Hear(64), Say(ANSWER), Fin, Hear(1064), HearEnd]
            }),
        ),
        (
            "much both ways",
            Act::of_stranger(vec![hi(), Say(MUCH), Hear(MUCH), Fin, HearEnd], {
                vec![Hear(64), Say(MUCH), Hear(64 + MUCH), HearEnd, Fin]
            }),
        ),
        (
            "who resets",
            Act::of_stranger(vec![hi(), Hear(ANSWER), Reset], vec![Hear(64), Say(ANSWER), HearReset])
                .ending(Told::Nothing, Told::Rst),
        ),
        (
            "whose front resets",
            Act::of_stranger(vec![hi(), Hear(ANSWER), HearReset], {
                vec![Hear(64), Say(ANSWER), Await(Sign::Heard(ANSWER)), Reset]
            })
            .ending(Told::Rst, Told::Nothing),
        ),
        (
            "whose front ends its side and then resets",
            Act::of_stranger(vec![hi(), HearEnd, HearReset], {
                vec![Hear(64), Say(ANSWER), Fin, Await(Sign::HeardEnd), Reset]
            })
            .ending(Told::FinThenRst, Told::Nothing),
        ),
        (
            "who ends its side and then resets",
            Act::of_stranger(vec![hi(), Fin, Await(Sign::HeardEnd), Reset], vec![HearEnd, HearReset])
                .ending(Told::Nothing, Told::FinThenRst),
        ),
        (
            "who is slow, and whose front has ended its side",
            Act::of_stranger(vec![hi(), Deaf, Await(Sign::Ended), Rest, Listen, HearEnd, Fin], {
                vec![Hear(64), Say(30_000), Fin, HearEnd]
            }),
        ),
    ]
}

/// The same hello a second time is a stranger's.
fn replayed_hello() -> Script {
    let kind = Kind { seed: REPLAYED, ..Kind::EE };
    let first = Act::new(kind, vec![Open(10), Greeted, Hear(20), Fin, HearEnd], {
        vec![Hear(10), Say(20), HearEnd, Fin]
    });
    let second = Act::of_stranger(vec![RawOpening(kind, usize::MAX), Hear(ANSWER), Fin, HearEnd], {
        vec![Hear(517), Say(ANSWER), HearEnd, Fin]
    });
    Script { acts: vec![first, second], ..Script::new("a replayed hello", Act::of_stranger(vec![], vec![])) }
}

/// Handshakes that break off.
fn beginnings() -> Vec<Script> {
    let mut scripts = Vec::new();
    for (kind, len) in [(Kind::EE, 1), (Kind::EE, 5), (Kind::EE, 300), (Kind::DD, 63), (Kind::PLAIN, 1)] {
        let name = format!("{} breaks off after {len} bytes", kind.name());
        let client = vec![RawOpening(kind, len), Fin, HearEnd];
        let fronted = Act::of_stranger(client.clone(), vec![HearEnd, Say(ANSWER), Fin]);
        scripts.push(Script::new(format!("{name}, fronted"), fronted));
        let closed = Act::of_stranger(client, vec![]).ending(Told::Fin, Told::Absent);
        scripts.push(Script::new(format!("{name}, no front"), closed).within(Scene::Frontless));
        let reset = Act::of_stranger(vec![RawOpening(kind, len), Rest, Reset], vec![]);
        let reset = reset.ending(Told::Nothing, Told::Absent);
        scripts.push(Script::new(format!("{name}, reset"), reset));
    }
    let nothing = Act::of_stranger(vec![Fin, HearEnd], vec![]).ending(Told::Fin, Told::Absent);
    scripts.push(Script::new("a client that comes and leaves", nothing));
    scripts
}

/// Who takes too long is fronted.
fn slow_ones() -> Vec<Script> {
    let answered = |mut client: Vec<Step>, len| {
        client.extend([Hear(ANSWER), Fin, HearEnd]);
        Act::of_stranger(client, vec![Hear(len), Say(ANSWER), HearEnd, Fin])
    };
    let slow = |what, act| Script::new(what, act).within(Scene::Hasty);
    vec![
        slow("silence", answered(vec![], 0)),
        slow("silence behind one byte", answered(vec![RawOpening(Kind::DD, 1)], 1)),
        slow("silence behind half a hello", answered(vec![RawOpening(Kind::EE, 300)], 300)),
        slow(
            "a fronted stranger and silence",
            Act::of_stranger(vec![Raw(vec![0xff; 64]), Hear(ANSWER), HearEnd, Fin], {
                vec![Hear(64), Say(ANSWER), HearEnd, Fin]
            }),
        ),
    ]
}
