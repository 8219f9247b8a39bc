//! Every kind of client, cut in every way, and each way to its data centre.

use mtproxy_core::dc::DcId;

use crate::script::Cut::{Head, Pieces, Whole};
use crate::script::Step::{Cut, Fin, Greeted, Hear, HearEnd, Open, Say};
use crate::script::{Act, DC_AFTER_REFUSAL, DC_REFUSING, DC_V4, DC_V6, Kind, Script, Step, Told};

/// What is said after a handshake.
const QUESTION: u64 = 404;
const ANSWER: u64 = 505;

pub(super) fn scripts() -> Vec<Script> {
    let mut scripts = Vec::new();
    for kind in Kind::ALL {
        let name = kind.name();
        scripts.push(Script::new(format!("{name}, whole"), asked_and_answered(kind, 0, vec![])));
        scripts
            .push(Script::new(format!("{name}, over IPv6"), asked_and_answered(kind, 0, vec![])).over_v6());
        // 64: the init frame alone; 6: ChangeCipherSpec alone; 11: the hello up to its random.
        for cut in [Pieces(1), Pieces(100), Head(1), Head(6), Head(11), Head(64), Head(516)] {
            let act = asked_and_answered(kind, 0, vec![Cut(cut)]);
            scripts.push(Script::new(format!("{name}, cut as {cut:?}"), act));
        }
        for cut in [Whole, Pieces(1), Head(100)] {
            let act = asked_and_answered(kind, 300, vec![Cut(cut)]);
            scripts.push(Script::new(format!("{name}, with its first message, cut as {cut:?}"), act));
        }
        let act = whole_life_at_once(kind);
        scripts.push(Script::new(format!("{name}, a whole life at once"), act));
        for dc in [DC_V6, DC_AFTER_REFUSAL, DcId(-DC_V4.0)] {
            let act = asked_and_answered(Kind { dc, ..kind }, 0, vec![]);
            scripts.push(Script::new(format!("{name}, to data centre {}", dc.0), act));
        }
        let act = asked_and_answered(Kind { dc: DC_AFTER_REFUSAL, ..kind }, 20_000, vec![]);
        scripts.push(Script::new(format!("{name}, much for the second address"), act));
        scripts.push(Script::new(format!("{name}, no address answers"), unreachable(kind)));
    }
    for hello_records in [2, 5] {
        let act = asked_and_answered(Kind { hello_records, ..Kind::EE }, 0, vec![]);
        scripts.push(Script::new(format!("ee, a hello in {hello_records} records"), act));
    }
    scripts
}

/// `early` bytes travel with the last of the handshake.
fn asked_and_answered(kind: Kind, early: usize, mut client: Vec<Step>) -> Act {
    let asked = early as u64 + QUESTION;
    client.extend([Open(early), Greeted, Cut(Whole), Say(QUESTION), Hear(ANSWER), Fin, HearEnd]);
    Act::new(kind, client, vec![Hear(asked), Say(ANSWER), HearEnd, Fin])
}

/// Question and FIN are behind the handshake before it is over.
fn whole_life_at_once(kind: Kind) -> Act {
    let client = vec![Open(QUESTION as usize), Greeted, Fin, HearEnd];
    Act::new(kind, client, vec![HearEnd, Hear(QUESTION), Say(ANSWER), Fin])
}

fn unreachable(kind: Kind) -> Act {
    let kind = Kind { dc: DC_REFUSING, ..kind };
    Act::new(kind, vec![Open(100), HearEnd, Fin], vec![]).ending(Told::Fin, Told::Absent)
}
