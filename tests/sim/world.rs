//! What surrounds driver and peers: time, chance, the network, and the witness.

use std::net::SocketAddr;
use std::time::Duration;

use mtproxy_core::event::DialError;
use mtproxy_core::stream::StreamId;

use crate::driver::Driver;
use crate::network::Connection;
use crate::plan::Mood;
use crate::schedule::{Moment, Schedule};
use crate::violation::{Checker, Violation, require};
use crate::witness::Witness;
use mtproxy_tests::dice::Dice;

pub(crate) struct World {
    pub(crate) schedule: Schedule,
    pub(crate) dice: Dice,
    pub(crate) connections: Vec<Connection>,
    pub(crate) witness: Witness,
    /// What each address does with a dial.
    pub(crate) moods: Vec<(SocketAddr, Mood)>,
    /// Connections whose peer waits for room in its pipe.
    pub(crate) waiting_for_room: Vec<usize>,
}

impl World {
    /// What becomes of a dial is decided when it begins.
    pub(crate) fn dial(&mut self, stream: StreamId, attempt: u32, address: SocketAddr) {
        let known = self.moods.iter().find(|(known, _)| *known == address);
        let mut mood = known.map_or(Mood::Answers, |(_, mood)| *mood);
        if mood == Mood::Fickle {
            mood = *self.dice.pick(&[Mood::Answers, Mood::Refuses, Mood::Silent]);
        }
        let refused = match mood {
            Mood::Answers => None,
            Mood::Silent => return,
            Mood::Refuses | Mood::Fickle => Some(*self.dice.pick(&[
                DialError::Refused,
                DialError::Unreachable,
                DialError::NoResources,
                DialError::Other,
            ])),
        };
        // Now and then an answer comes later than anybody waits for.
        let patience = Duration::from_millis(if self.dice.percent(5) { 20_000 } else { 300 });
        let delay = self.dice.time(patience);
        self.schedule.after(delay, Moment::Answer { stream, attempt, refused });
    }

    /// There is room again in the pipe toward the proxy.
    pub(crate) fn wake_speaker(&mut self, connection: usize) {
        if let Some(at) = self.waiting_for_room.iter().position(|waiting| *waiting == connection) {
            self.waiting_for_room.swap_remove(at);
            let peer = self.connections[connection].peer;
            self.schedule.after(Duration::ZERO, Moment::Speak { peer });
        }
    }

    /// Nothing may be left of the engine's sessions.
    pub(crate) fn check_leftovers(&self, driver: &Driver) -> Result<(), Violation> {
        let engine = &driver.engine;
        let left = (engine.session_count(), engine.leftovers(), engine.next_timeout(), driver.sockets_left());
        let is_clean = left == (0, (0, 0), None, 0);
        self.witness.judge(require(is_clean, Checker::Leftovers, || {
            format!("left: {left:?} (sessions, (streams, deadlines), timeout, sockets)")
        }))
    }
}
