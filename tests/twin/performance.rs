//! A script on a stage, from the first client's SYN to the last peer's end.

use std::time::Duration;

use crate::actor::{Actor, Surroundings};
use crate::script::{Act, Ear, Role, Script, Told};
use crate::stage::{Stage, Upstream};
use crate::voice::{Voice, client_codec};

/// So long nothing has moved when a script says that everything rests. Longer than a delayed ACK and a
/// retransmission, which on a quiet network are all that may still come.
const QUIET: Duration = Duration::from_millis(400);
/// So long nothing has moved when a script is given up: longer than any timeout of the scenes.
const PATIENCE: Duration = Duration::from_secs(12);

/// What is known of a script that was performed.
pub(crate) struct Performance {
    pub(crate) transcript: Vec<String>,
    /// What client and upstream were told in the end, act by act.
    pub(crate) told: Vec<[Told; 2]>,
    /// Clients and data centres have decrypted what was said to them, and nothing else.
    pub(crate) is_intact: bool,
}

/// Performs `script`, for clients whose clock is `unix_seconds`.
pub(crate) fn perform(script: &Script, stage: &mut impl Stage, unix_seconds: u32) -> Performance {
    let mut performance = Performance { transcript: Vec::new(), told: Vec::new(), is_intact: true };
    for act in &script.acts {
        // Nobody is left of the act before; if somebody still comes for it, it is not for this one.
        while let Some((_, connection)) = stage.accept() {
            stage.let_go(connection);
        }
        let mut play = Play::new(act, script.is_v6, stage, unix_seconds);
        play.run(stage);
        performance.transcript.extend(play.transcript());
        performance.told.push(play.told());
        performance.is_intact &=
            play.client.is_intact() && play.upstream.as_ref().is_none_or(Actor::is_intact);
        play.end(stage);
    }
    performance
}

struct Play<'a> {
    act: &'a Act,
    client: Actor,
    upstream: Option<Actor>,
    unix_seconds: u32,
}

impl<'a> Play<'a> {
    fn new(act: &'a Act, is_v6: bool, stage: &mut impl Stage, unix_seconds: u32) -> Self {
        let voice = match act.client {
            Ear::Codec(kind) => Voice::Client(Box::new(client_codec(kind, unix_seconds))),
            Ear::Stranger => Voice::Raw,
        };
        let connection = stage.connect(is_v6);
        let client = Actor::new("client", Role::Client, voice, connection, &act.client_steps, unix_seconds);
        Self { act, client, upstream: None, unix_seconds }
    }

    fn run(&mut self, stage: &mut impl Stage) {
        let mut last_moved = stage.elapsed();
        loop {
            let is_quiet = stage.elapsed().saturating_sub(last_moved) >= QUIET;
            let has_moved = self.turn(stage, is_quiet);
            if self.is_over() {
                return;
            }
            if has_moved {
                last_moved = stage.elapsed();
            } else if stage.elapsed().saturating_sub(last_moved) >= PATIENCE {
                return;
            }
            stage.pass(!has_moved);
        }
    }

    fn turn(&mut self, stage: &mut impl Stage, is_quiet: bool) -> bool {
        let mut has_moved = false;
        if self.upstream.is_none()
            && let Some((who, connection)) = stage.accept()
        {
            let (name, voice) = match who {
                Upstream::Dc => ("data centre", Voice::dc()),
                Upstream::Front => ("front", Voice::Raw),
            };
            let steps = &self.act.upstream_steps;
            let upstream = Actor::new(name, Role::Upstream, voice, connection, steps, self.unix_seconds);
            self.upstream = Some(upstream);
            has_moved = true;
        }
        let other = self.upstream.as_ref().map(Actor::signs);
        has_moved |= self.client.act(stage, Surroundings { other, is_quiet });
        if let Some(upstream) = &mut self.upstream {
            let other = Some(self.client.signs());
            has_moved |= upstream.act(stage, Surroundings { other, is_quiet });
        }
        has_moved
    }

    fn is_over(&self) -> bool {
        let is_nobody_missing = self.upstream.is_some() || self.act.ends[1] == Told::Absent;
        is_nobody_missing && self.client.is_done() && self.upstream.as_ref().is_none_or(Actor::is_done)
    }

    fn transcript(&self) -> Vec<String> {
        let is_cut = |role| self.act.cut_short == Some(role);
        let mut lines = self.client.transcript(is_cut(Role::Client));
        match &self.upstream {
            Some(upstream) => lines.extend(upstream.transcript(is_cut(Role::Upstream))),
            None => lines.push("nobody is dialled".to_owned()),
        }
        lines
    }

    fn told(&self) -> [Told; 2] {
        [self.client.told(), self.upstream.as_ref().map_or(Told::Absent, Actor::told)]
    }

    fn end(self, stage: &mut impl Stage) {
        stage.let_go(self.client.connection());
        if let Some(upstream) = self.upstream {
            stage.let_go(upstream.connection());
        }
        stage.pass(false);
    }
}
