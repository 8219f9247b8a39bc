//! Whether middle proxies see this host at the address that its sockets have.
//!
//! Both ends' addresses go into the keys of a link (protocol.md section 7.3). Behind NAT the two sides derive different
//! ones, every link is closed without a word, and clients stay at "connecting": the most common complaint about the
//! official proxy. So it is said at start.
//!
//! The public address is not guessed. Asking a stranger on the Internet would tell him that a proxy starts here, and
//! he may see yet another address than middle proxies do; the interfaces of a host behind NAT do not have it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use mtproxy_core::middle_proxy::nat::NatRules;
use tracing::warn;

use super::super::source_address;
use super::addresses::Target;

/// What was said already.
#[derive(Debug, Default)]
pub(super) struct NatReport {
    said: BTreeSet<IpAddr>,
}

impl NatReport {
    /// Warns once of each address that `targets` cannot be reached from as they would have to see it.
    pub(super) fn judge<'a>(&mut self, targets: impl Iterator<Item = &'a Target>, rules: &NatRules) {
        for local in untranslated(targets, rules, source_address::towards) {
            if self.said.insert(local) {
                warn!("{}", diagnosis(local));
            }
        }
    }
}

/// The private addresses of this host from which public targets would be reached, and which no rule translates.
fn untranslated<'a>(
    targets: impl Iterator<Item = &'a Target>,
    rules: &NatRules,
    source_towards: impl Fn(IpAddr) -> Option<IpAddr>,
) -> BTreeSet<IpAddr> {
    let public = targets.map(|target| target.address.ip()).filter(|ip| !is_private(*ip));
    let sources = public.filter_map(source_towards);
    sources.filter(|&local| is_private(local) && rules.global(local) == local).collect()
}

fn diagnosis(local: IpAddr) -> String {
    format!(
        "found {local} as this host's address toward middle proxies, which is a private one, so they see another; \
        expected a rule that says which: without it no link comes about, and clients stay at \"connecting\"; give \
        --nat-info {local}:PUBLIC, where PUBLIC is the address that the Internet sees (of your cloud's or router's \
        settings)"
    )
}

/// True if no host on the Internet is reached, or seen, at `ip`.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    /// Shared by customers of one provider (RFC 6598).
    fn is_shared(ip: Ipv4Addr) -> bool {
        ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64
    }
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared(ip),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Target {
        Target { address: address.parse().unwrap(), min_connections: 4, max_connections: 8 }
    }

    fn found(targets: &[&str], rules: &[&str], local: &str) -> Vec<String> {
        let targets: Vec<Target> = targets.iter().map(|text| target(text)).collect();
        let mut all = NatRules::default();
        for rule in rules {
            all.add(rule.parse().unwrap()).unwrap();
        }
        untranslated(targets.iter(), &all, |_| Some(local.parse().unwrap()))
            .iter()
            .map(IpAddr::to_string)
            .collect()
    }

    #[test]
    fn a_private_address_without_a_rule_is_found_once() {
        let public = ["149.154.175.50:8888", "149.154.161.144:8888"];
        assert_eq!(found(&public, &[], "10.0.0.5"), ["10.0.0.5"]);
        assert_eq!(found(&public, &["10.0.0.6:198.51.100.1"], "10.0.0.5"), ["10.0.0.5"]);
        assert!(found(&public, &["10.0.0.5:198.51.100.1"], "10.0.0.5").is_empty());
        assert!(found(&public, &[], "198.51.100.1").is_empty());
    }

    #[test]
    fn private_middle_proxies_see_private_addresses() {
        assert!(found(&["10.0.0.9:8888", "127.0.0.1:1"], &[], "10.0.0.5").is_empty());
    }

    #[test]
    fn the_edges_of_private_networks_are_known() {
        for (ip, expected) in [
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("172.15.255.255", false),
            ("172.16.0.0", true),
            ("100.63.255.255", false),
            ("100.64.0.0", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("169.254.1.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("2001:67c:4e8:f002::a", false),
        ] {
            assert_eq!(is_private(ip.parse().unwrap()), expected, "{ip}");
        }
    }

    #[test]
    fn the_diagnosis_says_what_to_write() {
        let text = diagnosis("10.0.0.5".parse().unwrap());
        assert!(text.contains("--nat-info 10.0.0.5:PUBLIC") && text.contains("expected"), "{text}");
    }
}
