//! Whether packets come in at all once zero-copy is on: a gateway that answered before is asked again.
//!
//! What counts is any packet that the steering program sees, because it runs on what the driver received into the sockets'
//! memory. It must never hold up the start for longer than [`PATIENCE`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::routes::{NextHop, Snapshot, Via, is_learnt, probe};

/// Three times as long as a neighbour is waited for before it is asked once more.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two questions: a card that was reset loses the first.
const ASK_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Of the blocks for documentation (RFC 5737, RFC 3849): only default routes lead there.
const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// What came of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// A packet came in.
    Received {
        /// So long after the question.
        after: Duration,
    },
    /// None did.
    Silence,
    /// There is no gateway that has answered before.
    NobodyToAsk,
}

/// The gateways that answered before zero-copy was switched on.
#[derive(Clone, Debug, Default)]
pub(super) struct Gateways {
    interface: u32,
    /// Addresses, of the link layer, too.
    known: Vec<(IpAddr, [u8; 6])>,
}

impl Gateways {
    /// Those that default routes over this interface have, but for addresses that were set by hand.
    pub(super) fn known(routes: &Snapshot, interface: u32) -> Self {
        let gateway = |outside: &IpAddr| {
            let unspecified = if outside.is_ipv4() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            } else {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            };
            match routes.next_hop(unspecified, *outside, interface) {
                NextHop::Via(Via { gateway, neighbour: Some(mac), .. })
                    if is_learnt(interface, gateway).unwrap_or(false) =>
                {
                    Some((gateway, mac))
                }
                _ => None,
            }
        };
        Self { interface, known: OUTSIDE.iter().filter_map(gateway).collect() }
    }

    /// Asks, and watches how many packets have come in.
    pub(super) fn prove(&self, received: impl FnMut() -> u64) -> Proof {
        if self.known.is_empty() {
            return Proof::NobodyToAsk;
        }
        let ask = || {
            for &(ip, mac) in &self.known {
                if let Err(error) = probe(self.interface, ip, mac) {
                    debug!(%error, "a gateway cannot be asked");
                }
            }
        };
        watch(received, ask, PATIENCE)
    }
}

fn watch(mut received: impl FnMut() -> u64, mut ask: impl FnMut(), patience: Duration) -> Proof {
    let (before, began) = (received(), Instant::now());
    let mut asked: Option<Instant> = None;
    loop {
        if asked.is_none_or(|last| last.elapsed() >= ASK_EVERY) {
            ask();
            asked = Some(Instant::now());
        }
        let after = began.elapsed();
        if received() > before {
            return Proof::Received { after };
        }
        if after >= patience {
            return Proof::Silence;
        }
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_first_packet_behind_the_question_is_the_proof_and_those_before_are_none() {
        let packets = Cell::new(7);
        let answer = || packets.set(packets.get() + 1);
        assert!(matches!(watch(|| packets.get(), answer, PATIENCE), Proof::Received { .. }));
        assert_eq!(watch(|| packets.get(), || {}, Duration::ZERO), Proof::Silence);
    }

    #[test]
    fn a_question_that_was_lost_is_asked_again() {
        let asked = Cell::new(0);
        let received = || u64::from(asked.get() > 1);
        let proof = watch(received, || asked.set(asked.get() + 1), PATIENCE);
        assert!(matches!(proof, Proof::Received { after } if after >= ASK_EVERY), "{proof:?}");
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn without_a_gateway_nobody_is_waited_for() {
        let gateways = Gateways::known(&Snapshot::default(), 1);
        assert_eq!(gateways.prove(|| unreachable!("nobody looks")), Proof::NobodyToAsk);
    }
}
