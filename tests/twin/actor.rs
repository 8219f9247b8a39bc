//! One peer, who does step by step what the script says, on whatever stage.

use std::collections::VecDeque;

use mtproxy_tests::pattern;

use crate::script::{Cut, Role, Sign, Step, Told};
use crate::stage::{Received, Sent, Stage};
use crate::transcript::{End, Heard};
use crate::voice::{Understood, Voice, client_codec};

/// Payload encoded at once.
const SAID_AT_ONCE: u64 = 16 * 1024;

pub(crate) struct Actor {
    name: &'static str,
    connection: usize,
    voice: Voice,
    steps: VecDeque<Step>,
    unix_seconds: u32,
    cut: Cut,
    /// Pieces on their way to TCP.
    outbox: VecDeque<Vec<u8>>,
    /// Payload that is still to be said, and where the pattern goes on.
    to_say: u64,
    said: u64,
    is_saying_on: bool,
    is_withholding: bool,
    is_deaf: bool,
    is_broken: bool,
    has_ended: bool,
    has_reset: bool,
    heard: Heard,
    notes: Vec<String>,
}

/// What an actor may know of the other one and of the stage.
#[derive(Clone, Copy, Default)]
pub(crate) struct Surroundings {
    pub(crate) other: Option<Signs>,
    pub(crate) is_quiet: bool,
}

/// What the other one may know of an actor.
#[derive(Clone, Copy)]
pub(crate) struct Signs {
    is_greeted: bool,
    heard: u64,
    has_heard_end: bool,
    has_ended: bool,
    is_done: bool,
}

/// The pattern begins here for each speaker, so that nobody's bytes pass for the other's.
fn base(role: Role) -> u64 {
    match role {
        Role::Client => 0,
        Role::Upstream => 1 << 40,
    }
}

fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Upstream,
        Role::Upstream => Role::Client,
    }
}

impl Actor {
    pub(crate) fn new(
        name: &'static str,
        role: Role,
        voice: Voice,
        connection: usize,
        steps: &[Step],
        unix_seconds: u32,
    ) -> Self {
        Self {
            name,
            connection,
            voice,
            steps: steps.iter().cloned().collect(),
            unix_seconds,
            cut: Cut::Whole,
            outbox: VecDeque::new(),
            to_say: 0,
            said: base(role),
            is_saying_on: false,
            is_withholding: false,
            is_deaf: false,
            is_broken: false,
            has_ended: false,
            has_reset: false,
            heard: Heard::of_pattern_from(base(other(role))),
            notes: Vec::new(),
        }
    }

    pub(crate) fn connection(&self) -> usize {
        self.connection
    }

    pub(crate) fn signs(&self) -> Signs {
        Signs {
            is_greeted: self.voice.is_established(),
            heard: self.heard.len,
            has_heard_end: self.told() != Told::Nothing,
            has_ended: self.has_ended,
            is_done: self.is_done(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.steps.is_empty() && (self.is_broken || !self.has_output())
    }

    pub(crate) fn told(&self) -> Told {
        self.heard.told()
    }

    /// True if what it has decrypted is the pattern. Strangers and fronts decrypt nothing.
    pub(crate) fn is_intact(&self) -> bool {
        matches!(self.voice, Voice::Raw) || self.heard.is_pattern()
    }

    /// Does what it can. True if something has moved.
    pub(crate) fn act(&mut self, stage: &mut impl Stage, around: Surroundings) -> bool {
        let mut has_moved = self.speak(stage);
        while self.is_ready_for_a_step() && self.step(stage, around) {
            has_moved = true;
        }
        has_moved | self.listen(stage)
    }

    fn has_output(&self) -> bool {
        !self.outbox.is_empty() || self.to_say > 0
    }

    /// True if nothing is left to say of the step before. What is said on and on holds nothing up.
    fn is_ready_for_a_step(&self) -> bool {
        !self.has_output() || self.is_saying_on && self.to_say == 0
    }

    fn speak(&mut self, stage: &mut impl Stage) -> bool {
        if self.is_broken || self.has_reset {
            return false;
        }
        if self.outbox.is_empty() && self.voice.is_established() && (self.to_say > 0 || self.is_saying_on) {
            let len = if self.to_say > 0 { self.to_say.min(SAID_AT_ONCE) } else { SAID_AT_ONCE };
            self.to_say = self.to_say.saturating_sub(len);
            self.encode(len);
        }
        let Some(piece) = self.outbox.front_mut() else { return false };
        match stage.send(self.connection, piece) {
            Sent::Took(0) => false,
            Sent::Took(len) => {
                piece.drain(..len);
                if piece.is_empty() {
                    self.outbox.pop_front();
                }
                true
            }
            Sent::Broken => {
                self.is_broken = true;
                self.outbox.clear();
                self.to_say = 0;
                true
            }
        }
    }

    fn encode(&mut self, len: u64) {
        let payload = pattern::bytes(self.said, usize::try_from(len).expect("encoded in small parts"));
        self.said += len;
        let wire = self.voice.encode(payload);
        self.post(wire);
    }

    fn post(&mut self, wire: Vec<u8>) {
        match self.cut {
            _ if wire.is_empty() => {}
            Cut::Whole => self.outbox.push_back(wire),
            Cut::Pieces(len) => self.outbox.extend(wire.chunks(len).map(<[u8]>::to_vec)),
            Cut::Head(len) => {
                let (head, rest) = wire.split_at(len.min(wire.len()));
                let parts = [head, rest].into_iter().filter(|part| !part.is_empty());
                self.outbox.extend(parts.map(<[u8]>::to_vec));
            }
        }
    }

    /// Does the next step, if its time has come.
    fn step(&mut self, stage: &mut impl Stage, around: Surroundings) -> bool {
        let Some(step) = self.steps.front() else { return false };
        let is_time = match *step {
            Step::Greeted => self.voice.is_established(),
            Step::Hear(len) => self.heard.len >= len,
            Step::HearEnd => self.told() != Told::Nothing,
            Step::HearReset => matches!(self.told(), Told::Rst | Told::FinThenRst),
            Step::Await(sign) => around.other.is_some_and(|other| other.shows(sign)),
            Step::Rest => around.is_quiet,
            _ => true,
        };
        if !is_time {
            return false;
        }
        if let Some(step) = self.steps.pop_front() {
            self.carry_out(step, stage);
        }
        true
    }

    fn carry_out(&mut self, step: Step, stage: &mut impl Stage) {
        match step {
            Step::Cut(cut) => self.cut = cut,
            Step::Open(payload_len) => {
                let mut wire = self.voice.opening();
                let payload = pattern::bytes(self.said, payload_len);
                self.said += payload_len as u64;
                wire.extend(self.voice.encode(payload));
                self.post(wire);
            }
            // An ee client that has not been greeted keeps payload for the record of its init frame.
            Step::Say(len) if !self.voice.is_established() => self.encode(len),
            Step::Say(len) => self.to_say = len,
            Step::SayOn => self.is_saying_on = true,
            Step::Raw(bytes) => self.post(bytes),
            Step::RawOpening(kind, len) => {
                let mut wire = client_codec(kind, self.unix_seconds).opening();
                wire.truncate(len);
                self.post(wire);
            }
            Step::Withhold => self.is_withholding = true,
            Step::Deaf => self.is_deaf = true,
            Step::Listen => self.is_deaf = false,
            Step::Fin => {
                self.has_ended = true;
                stage.finish(self.connection);
            }
            Step::Reset => {
                self.has_reset = true;
                self.outbox.clear();
                stage.reset(self.connection);
            }
            Step::Greeted | Step::Hear(_) | Step::HearEnd | Step::HearReset | Step::Await(_) | Step::Rest => {
            }
        }
    }

    fn listen(&mut self, stage: &mut impl Stage) -> bool {
        if self.is_deaf || self.has_reset || matches!(self.told(), Told::Rst | Told::FinThenRst) {
            return false;
        }
        match stage.receive(self.connection) {
            Received::Nothing => false,
            Received::Bytes(bytes) => {
                let Understood { payload, answer, mut notes } = self.voice.understand(bytes);
                self.heard.hear(&payload);
                self.notes.append(&mut notes);
                if !self.is_withholding {
                    self.post(answer);
                }
                true
            }
            Received::Fin => {
                if self.voice.is_inside_a_record() {
                    self.notes.push("the end inside a record".to_owned());
                }
                self.heard.ends.push(End::Fin);
                true
            }
            Received::Rst => {
                self.heard.ends.push(End::Rst);
                self.is_broken = true;
                true
            }
        }
    }

    /// Everything that it was told, in lines.
    pub(crate) fn transcript(&self, is_cut_short: bool) -> Vec<String> {
        let mut lines: Vec<String> = self.notes.clone();
        lines.push(self.heard.describe(is_cut_short));
        lines.extend(self.heard.ends.iter().map(|end| format!("{end:?}").to_uppercase()));
        if let Some(step) = self.steps.front() {
            lines.push(format!("nothing more, and never came to {step:?}"));
        }
        lines.iter().map(|line| format!("{:11} hears {line}", self.name)).collect()
    }
}

impl Signs {
    fn shows(self, sign: Sign) -> bool {
        match sign {
            Sign::Greeted => self.is_greeted,
            Sign::Heard(len) => self.heard >= len,
            Sign::HeardEnd => self.has_heard_end,
            Sign::Ended => self.has_ended,
            Sign::Done => self.is_done,
        }
    }
}
