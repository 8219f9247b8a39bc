//! Relays: little, much, both ways at once, and with a side that is slow.

use crate::script::Step::{Await, Deaf, Fin, Greeted, Hear, HearEnd, Listen, Open, Rest, Say};
use crate::script::{Act, Kind, Script, Sign, Step};

const MUCH: u64 = 3 << 20;

pub(super) fn scripts() -> Vec<Script> {
    let mut scripts = Vec::new();
    for kind in Kind::ALL {
        let name = kind.name();
        scripts.push(Script::new(format!("{name}, small talk"), small_talk(kind)));
    }
    for kind in Kind::BOTH_WAYS {
        let name = kind.name();
        scripts.push(Script::new(format!("{name}, a download"), bulk(kind, 100, MUCH)));
        scripts.push(Script::new(format!("{name}, an upload"), bulk(kind, MUCH, 100)));
        scripts.push(Script::new(format!("{name}, both at once"), bulk(kind, MUCH, MUCH)));
        scripts
            .push(Script::new(format!("{name}, both at once over IPv6"), bulk(kind, MUCH, MUCH)).over_v6());
        scripts.push(Script::new(format!("{name}, a client that reads late"), late_client(kind)));
        scripts.push(Script::new(format!("{name}, a data centre that reads late"), late_dc(kind)));
    }
    scripts
}

fn small_talk(kind: Kind) -> Act {
    let mut client = vec![Open(0), Greeted];
    let mut dc = Vec::new();
    let (mut asked, mut answered) = (0, 0);
    for turn in 0..20u64 {
        let (question, answer) = (1 + turn * 17 % 90, 1 + turn * 101 % 1500);
        asked += question;
        answered += answer;
        client.extend([Say(question), Hear(answered)]);
        dc.extend([Hear(asked), Say(answer)]);
    }
    client.extend([Fin, HearEnd]);
    dc.extend([HearEnd, Fin]);
    Act::new(kind, client, dc)
}

fn bulk(kind: Kind, up: u64, down: u64) -> Act {
    Act::new(
        kind,
        vec![Open(4), Greeted, Say(up), Hear(down), Fin, HearEnd],
        vec![Hear(4), Say(down), Hear(4 + up), HearEnd, Fin],
    )
}

/// Everything on the way is full before the client begins to read.
fn late_client(kind: Kind) -> Act {
    Act::new(
        kind,
        vec![Open(4), Greeted, Await(Sign::Heard(4)), Deaf, Rest, Listen, Hear(24 << 20), Fin, HearEnd],
        vec![Hear(4), Say(24 << 20), HearEnd, Fin],
    )
}

fn late_dc(kind: Kind) -> Act {
    let client: Vec<Step> = vec![Open(4), Greeted, Await(Sign::Heard(4)), Say(24 << 20), Fin, HearEnd];
    Act::new(kind, client, vec![Hear(4), Deaf, Rest, Listen, Hear(4 + (24 << 20)), HearEnd, Fin])
}
