//! What can be turned on a host, and how each is called: in the journal, in `plan`, and by the tools of others.
//!
//! ```text
//!   text of a knob                              its values               the command that does the same
//!   file:/proc/sys/net/core/…                   as the file has them     sysctl -w net.core.…=V
//!   file:/sys/class/net/eth0/threaded           as the file has them     echo V > /sys/class/net/eth0/threaded
//!   channels:combined                           a number                 ethtool -L eth0 combined V
//!   rings:rx                                    a number                 ethtool -G eth0 rx V
//!   feature:rx-lro                              on, off                  ethtool -K eth0 rx-lro V
//!   coalesce:rx-usecs                           a number                 ethtool -C eth0 rx-usecs V
//!   rss:table                                   queues, with spaces      ethtool -X eth0 equal N, where that is meant
//! ```
//! Texts and values are on one line each, so that a journal can keep them; see [`crate::journal`].

use std::fmt;
use std::str::FromStr;

/// One thing that can be turned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Knob {
    /// A file below `/proc` or `/sys`.
    File(String),
    /// Channels that receive and transmit.
    CombinedChannels,
    /// Descriptors of each receive ring.
    ReceiveRing,
    /// An offload, by the kernel's name.
    Feature(String),
    /// Longest wait before a receive interrupt, microseconds.
    ReceiveCoalescing,
    /// Which queue each value of the hash's low bits leads to.
    RssTable,
}

const FILE: &str = "file:";
const FEATURE: &str = "feature:";

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{FILE}{path}"),
            Self::CombinedChannels => f.write_str("channels:combined"),
            Self::ReceiveRing => f.write_str("rings:rx"),
            Self::Feature(name) => write!(f, "{FEATURE}{name}"),
            Self::ReceiveCoalescing => f.write_str("coalesce:rx-usecs"),
            Self::RssTable => f.write_str("rss:table"),
        }
    }
}

impl FromStr for Knob {
    type Err = UnknownKnob;

    fn from_str(text: &str) -> Result<Self, UnknownKnob> {
        match text {
            "channels:combined" => Ok(Self::CombinedChannels),
            "rings:rx" => Ok(Self::ReceiveRing),
            "coalesce:rx-usecs" => Ok(Self::ReceiveCoalescing),
            "rss:table" => Ok(Self::RssTable),
            _ => {
                // Whoever can write a journal cannot have files elsewhere written by it.
                let is_kernels = |path: &&str| {
                    (path.starts_with("/proc/") || path.starts_with("/sys/")) && !path.contains("..")
                };
                let file = text.strip_prefix(FILE).filter(is_kernels).map(|path| Self::File(path.to_owned()));
                let feature = || Some(Self::Feature(text.strip_prefix(FEATURE)?.to_owned()));
                file.or_else(feature).ok_or_else(|| UnknownKnob(text.to_owned()))
            }
        }
    }
}

/// A text that names no knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKnob(pub String);

impl fmt::Display for UnknownKnob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found {:?} where a knob is expected", self.0)
    }
}

/// A knob, and what it is to be turned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The knob.
    pub knob: Knob,
    /// What it was when it was looked at.
    pub from: String,
    /// What it should be.
    pub to: String,
}

impl Change {
    /// The command that does the same on the interface `name`.
    #[must_use]
    pub fn command(&self, name: &str) -> String {
        let to = &self.to;
        match &self.knob {
            Knob::File(path) => match path.strip_prefix("/proc/sys/") {
                Some(sysctl) => format!("sysctl -w {}='{to}'", sysctl.replace('/', ".")),
                None => format!("echo {to} > {path}"),
            },
            Knob::CombinedChannels => format!("ethtool -L {name} combined {to}"),
            Knob::ReceiveRing => format!("ethtool -G {name} rx {to}"),
            Knob::Feature(feature) => format!("ethtool -K {name} {feature} {to}"),
            Knob::ReceiveCoalescing => format!("ethtool -C {name} rx-usecs {to}"),
            Knob::RssTable => {
                let highest = to.split(' ').filter_map(|queue| queue.parse::<u32>().ok()).max();
                format!("ethtool -X {name} equal {}", highest.map_or(1, |highest| highest + 1))
            }
        }
    }
}

impl Knob {
    /// Knobs that a driver may turn by itself when this one is turned.
    #[must_use]
    pub fn moves(&self) -> &'static [Self] {
        match self {
            // Other queues, another table (`ethtool_check_max_channel` and the drivers' set_channels).
            Self::CombinedChannels => &[Self::RssTable],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knobs() -> Vec<(Knob, &'static str)> {
        vec![
            (Knob::File("/proc/sys/net/core/busy_read".to_owned()), "sysctl -w net.core.busy_read='2'"),
            (Knob::File("/sys/class/net/e0/threaded".to_owned()), "echo 2 > /sys/class/net/e0/threaded"),
            (Knob::CombinedChannels, "ethtool -L e0 combined 2"),
            (Knob::ReceiveRing, "ethtool -G e0 rx 2"),
            (Knob::Feature("rx-lro".to_owned()), "ethtool -K e0 rx-lro 2"),
            (Knob::ReceiveCoalescing, "ethtool -C e0 rx-usecs 2"),
        ]
    }

    #[test]
    fn a_knob_is_what_its_text_says_and_has_a_command_that_does_the_same() {
        for (knob, command) in knobs() {
            assert_eq!(knob.to_string().parse(), Ok(knob.clone()));
            let change = Change { knob, from: "1".to_owned(), to: "2".to_owned() };
            assert_eq!(change.command("e0"), command);
        }
    }

    #[test]
    fn an_even_table_is_what_ethtool_calls_equal() {
        let change = Change { knob: Knob::RssTable, from: "0 0".to_owned(), to: "0 1 2 0 1 2".to_owned() };
        assert_eq!(change.command("e0"), "ethtool -X e0 equal 3");
    }

    #[test]
    fn files_that_are_not_the_kernels_are_no_knobs() {
        for text in ["file:/etc/passwd", "file:/proc/../etc/passwd", "file:", "nothing", ""] {
            assert!(text.parse::<Knob>().is_err(), "{text}");
        }
    }
}
