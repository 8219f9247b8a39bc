//! How our addresses look from outside: a middle proxy derives keys from the address that it sees (protocol.md section
//! 11). Ports are never rewritten: a NAT that changes them makes links impossible.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// Rules at most, as in the official proxy.
pub const NAT_RULES_MAX: usize = 16;

/// One address of ours, and what the world sees instead. Written `LOCAL:GLOBAL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatRule {
    local: Ipv4Addr,
    global: Ipv4Addr,
}

impl FromStr for NatRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(local, global)| {
            Some(Self { local: local.parse().ok()?, global: global.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            format!(
                "found {text:?}; expected LOCAL:GLOBAL, two IPv4 addresses such as 10.0.0.5:198.51.100.1: the one \
                 of this host, and the one under which others see it"
            )
        })
    }
}

impl fmt::Display for NatRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.local, self.global)
    }
}

/// All rules, each for another local address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatRules {
    rules: Vec<NatRule>,
}

/// Why a rule cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatRuleRefused {
    /// There are [`NAT_RULES_MAX`] already.
    TooMany,
    /// This local address has a rule already.
    AnotherRule(Ipv4Addr),
}

impl fmt::Display for NatRuleRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(
                f,
                "found more than {NAT_RULES_MAX} rules for addresses behind NAT; expected one for each address that \
                 this host dials from; remove those that it does not"
            ),
            Self::AnotherRule(local) => write!(
                f,
                "found a second rule for the local address {local}; expected one for each; remove one of the two"
            ),
        }
    }
}

impl std::error::Error for NatRuleRefused {}

impl NatRules {
    /// Adds a rule.
    ///
    /// # Errors
    /// If there are too many, or one for the same local address.
    pub fn add(&mut self, rule: NatRule) -> Result<(), NatRuleRefused> {
        if self.rules.iter().any(|known| known.local == rule.local) {
            return Err(NatRuleRefused::AnotherRule(rule.local));
        }
        if self.rules.len() == NAT_RULES_MAX {
            return Err(NatRuleRefused::TooMany);
        }
        self.rules.push(rule);
        Ok(())
    }

    /// The address as others see it.
    #[must_use]
    pub fn global(&self, local: IpAddr) -> IpAddr {
        let rule = self.rules.iter().find(|rule| IpAddr::V4(rule.local) == local);
        rule.map_or(local, |rule| rule.global.into())
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// True without rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules in order.
    pub fn iter(&self) -> impl Iterator<Item = &NatRule> {
        self.rules.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_rewrites_its_address_and_no_other() {
        let mut rules = NatRules::default();
        rules.add("10.0.0.5:198.51.100.1".parse().unwrap()).unwrap();
        let global = |text: &str| rules.global(text.parse().unwrap()).to_string();
        assert_eq!(global("10.0.0.5"), "198.51.100.1");
        assert_eq!((global("10.0.0.6"), global("2001:db8::1")), ("10.0.0.6".into(), "2001:db8::1".into()));
    }

    #[test]
    fn sixteen_rules_fit_and_a_second_for_one_address_does_not() {
        let mut rules = NatRules::default();
        for last in 1..=16 {
            rules.add(format!("10.0.0.{last}:198.51.100.1").parse().unwrap()).unwrap();
        }
        assert_eq!(rules.add("10.0.1.1:198.51.100.1".parse().unwrap()), Err(NatRuleRefused::TooMany));
        let again = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(
            rules.add("10.0.0.1:198.51.100.2".parse().unwrap()),
            Err(NatRuleRefused::AnotherRule(again))
        );
    }

    #[test]
    fn what_is_no_rule_is_answered_with_what_was_expected() {
        for text in
            ["", "10.0.0.5", "10.0.0.5:", ":198.51.100.1", "10.0.0.5:198.51.100.1:3", "::1:10.0.0.5", "a:b"]
        {
            let error = text.parse::<NatRule>().unwrap_err();
            assert!(error.contains(&format!("found {text:?}")) && error.contains("LOCAL:GLOBAL"), "{error}");
        }
    }

    #[test]
    fn a_rule_is_written_as_it_is_read() {
        assert_eq!("10.0.0.5:198.51.100.1".parse::<NatRule>().unwrap().to_string(), "10.0.0.5:198.51.100.1");
    }
}
