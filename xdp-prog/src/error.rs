//! What can go wrong, as values: what was found, what was expected, what to do about it.

use std::error::Error as StdError;
use std::fmt::{Display, Formatter, Result};
use std::io;
use std::net::IpAddr;

use mtproxy_xdp_abi::PrefixTooLong;

use crate::AttachMode;

/// Why the steering program could not be loaded, attached or configured.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The kernel did not take the program.
    Load(Box<dyn StdError + Send + Sync>),
    /// A map could not be read or written.
    Map {
        /// Which.
        map: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
    /// More receive queues than there are slots, or none.
    Queues {
        /// What was asked for.
        asked: u32,
        /// What there may be.
        most: u32,
    },
    /// A listener at an address for which [`set_local`](crate::Steering::set_local) was not called.
    NotLocal(IpAddr),
    /// An address that no packet is for: a wildcard or a group.
    NotUnicast(IpAddr),
    /// A range of ports that is empty or contains port 0.
    Ports {
        /// Its first.
        first: u16,
        /// Its last.
        last: u16,
    },
    /// A prefix that is longer than its address.
    Prefix(PrefixTooLong),
    /// The interface could not be looked up.
    Interface {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// This steering program is attached already.
    Attached {
        /// Where.
        interface: String,
    },
    /// The interface runs a program that is not ours.
    ForeignProgram {
        /// The interface.
        interface: String,
        /// The program's id, for `bpftool prog show id`.
        program: u32,
    },
    /// The kernel or the driver refused.
    Attach {
        /// The interface.
        interface: String,
        /// What was asked for.
        mode: AttachMode,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Attached, but not as asked; it was detached again.
    Mode {
        /// The interface.
        interface: String,
        /// What was asked for.
        asked: AttachMode,
        /// What the interface then said about itself.
        found: String,
    },
}

impl Error {
    pub(crate) fn map(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { map, source }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Load(_) => f.write_str(
                "the kernel does not take the steering program; it needs Linux 5.15 or later and root, or CAP_BPF, \
                 CAP_NET_ADMIN and CAP_PERFMON",
            ),
            Self::Map { map, .. } => write!(f, "the steering program's map {map}"),
            Self::Queues { asked, most } => {
                write!(f, "{asked} receive queues, of 1 to {most}; reduce them with ethtool -L")
            }
            Self::NotLocal(ip) => write!(f, "a listener at {ip}, which was not declared a local address first"),
            Self::NotUnicast(ip) => write!(f, "{ip} is no unicast address; name the host's addresses one by one"),
            Self::Ports { first, last } => write!(f, "ports {first} to {last} are no range within 1 to 65535"),
            Self::Prefix(_) => f.write_str("no prefix"),
            Self::Interface { name, .. } => write!(f, "interface {name}"),
            Self::Attached { interface } => write!(f, "already attached to {interface}; detach first"),
            Self::ForeignProgram { interface, program } => write!(
                f,
                "{interface} already runs XDP program {program}, which is not ours and stays; see bpftool prog show id \
                 {program}, and remove it or choose another interface or the epoll datapath"
            ),
            Self::Attach { interface, mode, .. } => write!(f, "{interface} refuses {} XDP", mode.name()),
            Self::Mode { interface, asked, found } => {
                write!(f, "{interface} was asked for {} XDP and has {found}; detached again", asked.name())
            }
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Load(source) | Self::Attach { source, .. } => Some(source.as_ref()),
            Self::Map { source, .. } => Some(source),
            Self::Prefix(source) => Some(source),
            Self::Interface { source, .. } => Some(source),
            Self::Queues { .. }
            | Self::NotLocal(_)
            | Self::NotUnicast(_)
            | Self::Ports { .. }
            | Self::Attached { .. }
            | Self::ForeignProgram { .. }
            | Self::Mode { .. } => None,
        }
    }
}
