//! Which of this host's addresses the steering program is told of, and what is ours at each.
//!
//! | address | clients | upstream ports |
//! |---|---|---|
//! | the source of connections over the interface | ours | ours |
//! | another on the interface | ours | the kernel's: nobody dials from there |
//! | of another interface, of a VLAN, link-local of IPv6 | the kernel's | the kernel's |
//!
//! The last row because answers may have to leave by another interface, or with a tag that the device has taken
//! off before the program saw the packet; whoever is reached there is served by the kernel's listener.
//!
//! An address that is gone stays declared for a while: it may only flap, and the kernel would answer the packets of
//! its live connections with resets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::routes::Snapshot;

/// How long an address that is gone stays ours: longer than a link is renegotiated or a DHCP lease renewed, and
/// than a peer retransmits to it with hope.
const KEPT_FOR: Duration = Duration::from_secs(180);

/// The addresses that are to be declared, and whether connections are dialled from them.
pub(super) fn wanted(snapshot: &Snapshot, interface: u32) -> BTreeMap<IpAddr, bool> {
    let can_be_reached = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_unspecified() || v4.is_multicast()),
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local())
        }
    };
    let on_it = snapshot.addresses_on(interface).map(|ip| (ip, false));
    let sources = snapshot.source_addresses(interface).map(|ip| (ip, true));
    // The later of two entries of one address counts.
    on_it.chain(sources).filter(|(ip, _)| can_be_reached(ip)).collect()
}

/// One call of the steering program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Declare this address, or declare it anew.
    Declare { ip: IpAddr, is_source: bool },
    /// Leave it to the kernel.
    Leave(IpAddr),
}

/// What the steering program was told and has taken.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses {
    declared: BTreeMap<IpAddr, Declared>,
}

#[derive(Debug)]
struct Declared {
    is_source: bool,
    gone_since: Option<Instant>,
}

impl OwnAddresses {
    /// What is to be done so that the program knows `wanted`. A step that fails comes again at the next call.
    pub(super) fn steps(&mut self, wanted: &BTreeMap<IpAddr, bool>, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        for (&ip, &is_source) in wanted {
            match self.declared.get_mut(&ip) {
                // Connections that were dialled from there may still live.
                Some(known) if known.is_source || !is_source => known.gone_since = None,
                Some(_) | None => steps.push(Step::Declare { ip, is_source }),
            }
        }
        for (&ip, known) in self.declared.iter_mut().filter(|(ip, _)| !wanted.contains_key(ip)) {
            let since = *known.gone_since.get_or_insert(now);
            if now.duration_since(since) >= KEPT_FOR {
                steps.push(Step::Leave(ip));
            }
        }
        steps
    }

    /// The program has taken this step.
    pub(super) fn did(&mut self, step: Step) {
        match step {
            Step::Declare { ip, is_source } => {
                self.declared.insert(ip, Declared { is_source, gone_since: None });
            }
            Step::Leave(ip) => drop(self.declared.remove(&ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn declare(last: u8, is_source: bool) -> Step {
        Step::Declare { ip: ip(last), is_source }
    }

    fn wanted<const N: usize>(addresses: [(u8, bool); N]) -> BTreeMap<IpAddr, bool> {
        addresses.into_iter().map(|(last, is_source)| (ip(last), is_source)).collect()
    }

    /// Takes all steps; answers them.
    fn follow(own: &mut OwnAddresses, wanted: &BTreeMap<IpAddr, bool>, now: Instant) -> Vec<Step> {
        let steps = own.steps(wanted, now);
        steps.iter().for_each(|step| own.did(*step));
        steps
    }

    #[test]
    fn what_the_program_did_not_take_is_tried_again() {
        let (mut own, now) = (OwnAddresses::default(), Instant::now());
        let both = wanted([(1, true), (2, false)]);
        assert_eq!(own.steps(&both, now), [declare(1, true), declare(2, false)]);
        own.did(declare(1, true));
        assert_eq!(own.steps(&both, now), [declare(2, false)]);
        own.did(declare(2, false));
        assert_eq!(own.steps(&both, now), []);
    }

    #[test]
    fn an_address_that_is_gone_is_left_after_a_while_and_one_that_comes_back_stays() {
        let (mut own, start) = (OwnAddresses::default(), Instant::now());
        let (both, one) = (wanted([(1, true), (2, false)]), wanted([(1, true)]));
        follow(&mut own, &both, start);
        assert_eq!(follow(&mut own, &one, start), []);
        let almost = start + KEPT_FOR - Duration::from_millis(1);
        assert_eq!(follow(&mut own, &one, almost), []);
        assert_eq!(follow(&mut own, &both, almost), [], "it is still declared");
        let gone = start + KEPT_FOR;
        assert_eq!(follow(&mut own, &one, gone), []);
        assert_eq!(own.steps(&one, gone + KEPT_FOR), [Step::Leave(ip(2))]);
        assert_eq!(follow(&mut own, &one, gone + KEPT_FOR), [Step::Leave(ip(2))], "the first try failed");
        assert_eq!(follow(&mut own, &one, gone + KEPT_FOR), []);
    }

    #[test]
    fn upstream_ports_become_ours_when_an_address_becomes_a_source_and_stay_ours() {
        let (mut own, now) = (OwnAddresses::default(), Instant::now());
        follow(&mut own, &wanted([(1, false)]), now);
        assert_eq!(follow(&mut own, &wanted([(1, true)]), now), [declare(1, true)]);
        assert_eq!(follow(&mut own, &wanted([(1, false)]), now), [], "its connections live on");
    }
}
