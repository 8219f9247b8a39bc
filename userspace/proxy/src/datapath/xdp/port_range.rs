//! Which ports the datapath may dial from: those that the kernel never gives to its own connections, and that are
//! reserved for nobody else.
//!
//! Both dialling from one port to one data centre would go well for years and then not: the kernel answers
//! what it does not know with a reset.

use mtproxy_nic::Facts;
use mtproxy_nic::sysctl::PortRange;

use crate::complaint::Complaint;

/// Fewer would end a busy proxy's dials: with one data centre address, each client needs a port. Whoever
/// configures fewer knows why.
const PORTS_MIN: u16 = 1024;

/// What the kernel does with ports on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPorts {
    /// It gives these to its own connections …
    pub ephemeral: PortRange,
    /// … but for these.
    pub reserved: Vec<PortRange>,
}

impl KernelPorts {
    /// As the facts have it.
    ///
    /// # Errors
    /// If either is unreadable.
    pub fn new(facts: &Facts) -> Result<Self, Complaint> {
        let unreadable = |error| {
            Complaint::about_host(format!(
                "found no way to read which ports the kernel uses ({error}); expected /proc/sys/net/ipv4; mount /proc"
            ))
        };
        Ok(Self {
            ephemeral: facts.ephemeral_ports.clone().map_err(unreadable)?,
            reserved: facts.reserved_ports.clone().map_err(unreadable)?,
        })
    }

    fn reserves(&self, port: u16) -> bool {
        self.reserved.iter().any(|range| range.contains(port))
    }
}

/// The part of a configured `range` that is the datapath's: the steering program takes all of it from the kernel,
/// so that it must be in one piece. Ports that are reserved within it are somebody else's, unless the
/// reservation covers the range: that is how ports are kept for us.
///
/// # Errors
/// If the kernel may dial from a port of it: both would use the port for the same data centre one day, and the
/// kernel reset ours. Or if too few are left.
pub fn own_range(range: PortRange, kernel: &KernelPorts) -> Result<PortRange, Complaint> {
    check_range(range, kernel)?;
    let covers = |it: &&PortRange| it.first <= range.first && range.last <= it.last;
    let is_kept_for_us = kernel.reserved.iter().any(|it| covers(&it));
    let is_ours = |port: &u16| is_kept_for_us || !kernel.reserves(*port);
    let ports: Vec<u16> = (range.first..=range.last).filter(is_ours).collect();
    let longest = ports.chunk_by(|port, next| port + 1 == *next).max_by_key(|piece| piece.len());
    match longest {
        Some(&[first, .., last]) if last - first + 1 >= PORTS_MIN.min(range.last - range.first + 1) => {
            Ok(PortRange { first, last })
        }
        _ => Err(Complaint::about_host(format!(
            "found fewer than {PORTS_MIN} ports of {range} in one piece between those in \
            net.ipv4.ip_local_reserved_ports; expected as many to reach data centres from; choose others for [xdp] \
            ports"
        ))),
    }
}

/// Checks that the kernel dials from no port of `range`.
fn check_range(range: PortRange, kernel: &KernelPorts) -> Result<(), Complaint> {
    if range.first < 1024 {
        return Err(Complaint::about_host(format!(
            "found {range} as ports to dial from; expected none below 1024, where services listen; choose higher ones"
        )));
    }
    let shared =
        (range.first..=range.last).find(|&port| kernel.ephemeral.contains(port) && !kernel.reserves(port));
    let Some(shared) = shared else { return Ok(()) };
    let mut reserved: Vec<String> = kernel.reserved.iter().map(PortRange::to_string).collect();
    reserved.push(range.to_string());
    Err(Complaint::about_host(format!(
        "found port {shared} of {range} in the kernel's own range {}; expected ports that the kernel does not dial \
        from; sysctl -w net.ipv4.ip_local_reserved_ports={}",
        kernel.ephemeral,
        reserved.join(","),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: PortRange = PortRange { first: 61000, last: 65535 };

    fn kernel(ephemeral: (u16, u16), reserved: &[(u16, u16)]) -> KernelPorts {
        let range = |&(first, last): &(u16, u16)| PortRange { first, last };
        KernelPorts { ephemeral: range(&ephemeral), reserved: reserved.iter().map(range).collect() }
    }

    #[test]
    fn a_range_above_the_kernels_or_reserved_is_accepted() {
        assert_eq!(check_range(RANGE, &kernel((32768, 60999), &[])), Ok(()));
        assert_eq!(check_range(RANGE, &kernel((32768, 65535), &[(61000, 65535)])), Ok(()));
    }

    #[test]
    fn a_range_that_the_kernel_dials_from_is_refused_with_the_setting_that_helps() {
        let one_too_low = PortRange { first: 60999, last: 65535 };
        let complaint = check_range(one_too_low, &kernel((32768, 60999), &[(8080, 8080)])).unwrap_err();
        assert_eq!(
            complaint.message(),
            "found port 60999 of 60999-65535 in the kernel's own range 32768-60999; expected ports that the kernel \
            does not dial from; sysctl -w net.ipv4.ip_local_reserved_ports=8080,60999-65535"
        );
        assert!(check_range(RANGE, &kernel((32768, 65535), &[(61001, 65535)])).is_err());
        assert!(check_range(PortRange { first: 1023, last: 2000 }, &kernel((32768, 60999), &[])).is_err());
        assert!(check_range(PortRange { first: 1024, last: 2000 }, &kernel((32768, 60999), &[])).is_ok());
    }

    #[test]
    fn the_longest_piece_without_ports_that_are_reserved_for_others_is_ours() {
        let own = |reserved: &[(u16, u16)]| own_range(RANGE, &kernel((32768, 60999), reserved));
        let piece = |first, last| Ok(PortRange { first, last });
        assert_eq!(own(&[]), Ok(RANGE));
        assert_eq!(own(&[(8080, 8080)]), Ok(RANGE));
        assert_eq!(own(&[(61616, 61616)]), piece(61617, 65535));
        assert_eq!(own(&[(61616, 61616), (65000, 65535)]), piece(61617, 64999));
        assert_eq!(own(&[(61000, 64511)]), piece(64512, 65535), "1024 are left");
        let complaint = own(&[(61000, 64512)]).unwrap_err();
        assert!(complaint.message().contains("ip_local_reserved_ports"), "{complaint}");
    }

    #[test]
    fn a_reservation_that_covers_the_range_keeps_it_for_us() {
        for (first, last) in [(61000, 65535), (50000, 65535)] {
            assert_eq!(own_range(RANGE, &kernel((32768, 65535), &[(first, last)])), Ok(RANGE));
        }
        let few = PortRange { first: 61000, last: 61009 };
        assert_eq!(own_range(few, &kernel((32768, 60999), &[])), Ok(few), "as configured");
        assert!(own_range(few, &kernel((32768, 60999), &[(61009, 61009)])).is_err());
    }
}
