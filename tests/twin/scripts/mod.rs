//! Every script, by theme.

mod endings;
mod handshakes;
mod strangers;
mod transfers;

use crate::script::{Act, Ear, Kind, Role, Scene, Script, Step, Told};

/// All of them. Each has random bytes of its own.
pub(crate) fn all() -> Vec<Script> {
    let themes = [handshakes::scripts(), transfers::scripts(), endings::scripts(), strangers::scripts()];
    let mut scripts = themes.concat();
    for (number, script) in (1u64..).zip(&mut scripts) {
        for (index, act) in (0u64..).zip(&mut script.acts) {
            act.seed(number * 16 + index);
        }
    }
    scripts
}

impl Script {
    fn new(name: impl Into<String>, act: Act) -> Self {
        Self { name: name.into(), scene: Scene::Fronted, is_v6: false, acts: vec![act] }
    }

    fn within(self, scene: Scene) -> Self {
        Self { scene, ..self }
    }

    fn over_v6(self) -> Self {
        Self { is_v6: true, ..self }
    }
}

impl Act {
    /// A client of this kind and its data centre, both of whom hear FIN.
    fn new(kind: Kind, client_steps: Vec<Step>, upstream_steps: Vec<Step>) -> Self {
        let ends = [Told::Fin, Told::Fin];
        Self { client: Ear::Codec(kind), client_steps, upstream_steps, ends, cut_short: None }
    }

    /// A stranger and the front, both of whom hear FIN.
    fn of_stranger(client_steps: Vec<Step>, upstream_steps: Vec<Step>) -> Self {
        let ends = [Told::Fin, Told::Fin];
        Self { client: Ear::Stranger, client_steps, upstream_steps, ends, cut_short: None }
    }

    fn ending(self, client: Told, upstream: Told) -> Self {
        Self { ends: [client, upstream], ..self }
    }

    fn cut_short_for(self, role: Role) -> Self {
        Self { cut_short: Some(role), ..self }
    }

    /// Gives its clients random bytes of their own, unless the script chose them.
    fn seed(&mut self, seed: u64) {
        let choose = |kind: &mut Kind| {
            if kind.seed == 0 {
                kind.seed = seed;
            }
        };
        if let Ear::Codec(kind) = &mut self.client {
            choose(kind);
        }
        for step in &mut self.client_steps {
            if let Step::RawOpening(kind, _) = step {
                choose(kind);
            }
        }
    }
}
