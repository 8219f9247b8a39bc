//! Waiting for the data centre or the front. Its addresses are tried one after the other; what the client
//! has already sent waits in the upstream's output queue, and the client is not read meanwhile.

use std::net::SocketAddr;

use super::{Farewell, Legs, Phase, Relaying, Turn};
use crate::action::Action;
use crate::deadline::Deadline;
use crate::error::{DropReason, PeerMisbehaved};
use crate::event::{DialError, What};

/// A session between handshake and relay.
pub(crate) struct Dialing {
    pub(crate) legs: Legs,
    address: SocketAddr,
    /// The addresses still to try, the next one last.
    untried: Vec<SocketAddr>,
    after: AfterDial,
}

/// What to do once somebody answers.
pub(crate) enum AfterDial {
    /// Relay between client and data centre.
    Relay(Relaying),
    /// Connect a stranger to the real site.
    Front,
}

impl Dialing {
    /// Dials the first of `addresses`, those that failed lately last. Ends the session if there is none.
    pub(crate) fn begin(
        turn: &mut Turn<'_>,
        legs: Legs,
        addresses: &[SocketAddr],
        after: AfterDial,
    ) -> Phase {
        let mut untried = turn.shared.address_memory.order(addresses, turn.now.instant);
        untried.reverse();
        let Some(address) = untried.pop() else {
            turn.forget(legs.upstream);
            let why = match after {
                AfterDial::Relay(_) => DropReason::UpstreamUnreachable,
                AfterDial::Front => DropReason::NoFront,
            };
            return turn.leave(&[(legs.client, Farewell::Close)], Err(why));
        };
        turn.actions.push(Action::Dial { stream: legs.upstream, address });
        turn.arm(Deadline::Dial);
        Phase::Dialing(Self { legs, address, untried, after })
    }

    pub(crate) fn relaying_mut(&mut self) -> Option<&mut Relaying> {
        match &mut self.after {
            AfterDial::Relay(relaying) => Some(relaying),
            AfterDial::Front => None,
        }
    }

    /// Queues the client's payload that came together with its init frame: `bytes` from `at` on.
    pub(crate) fn relay_payload(
        &mut self,
        bytes: &mut [u8],
        at: usize,
        turn: &mut Turn<'_>,
    ) -> Result<(), PeerMisbehaved> {
        let legs = self.legs;
        self.relaying_mut().map_or(Ok(()), |relaying| relaying.relay_to_upstream(legs, bytes, at, turn))
    }

    pub(crate) fn connected(self, turn: &mut Turn<'_>) -> Phase {
        turn.shared.address_memory.answered(self.address);
        turn.report(What::Connected { address: self.address });
        turn.arm(Deadline::Idle);
        turn.resume(self.legs.client);
        match self.after {
            AfterDial::Relay(relaying) => Phase::Relaying(self.legs, relaying),
            AfterDial::Front => Phase::Fronting(self.legs),
        }
    }

    pub(crate) fn failed(mut self, why: DialError, turn: &mut Turn<'_>) -> Phase {
        turn.report(What::DialFailed { address: self.address, why });
        if why != DialError::NoResources {
            turn.shared.address_memory.failed(self.address, turn.now.instant);
        }
        let Some(next) = self.untried.pop() else {
            turn.abort(self.legs.upstream);
            let farewells = [(self.legs.client, Farewell::Close)];
            return turn.leave(&farewells, Err(DropReason::UpstreamUnreachable));
        };
        turn.actions.push(Action::Dial { stream: self.legs.upstream, address: next });
        turn.arm(Deadline::Dial);
        self.address = next;
        Phase::Dialing(self)
    }
}
