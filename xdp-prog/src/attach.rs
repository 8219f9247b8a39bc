//! Attaching the program to an interface: what was asked for, or nothing, and never over somebody else's.

use aya::programs::{Xdp, XdpMode, links::FdLink};
use netlink_packet_route::link::XdpAttached;

use crate::Error;
use crate::interface::{self, Interface};

/// Where in the kernel the program runs. Which to try in which order is the caller's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// In the driver, before a socket buffer exists.
    Native,
    /// In the network stack, on a socket buffer: any driver, slower.
    Generic,
}

impl AttachMode {
    /// The word for it in logs and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn asked(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }

    const fn obtained(self) -> XdpAttached {
        match self {
            Self::Native => XdpAttached::Driver,
            Self::Generic => XdpAttached::SocketBuffer,
        }
    }
}

/// Where the program is attached, as the interface itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// The interface's index.
    pub index: u32,
    /// The mode.
    pub mode: AttachMode,
    /// The program's id.
    pub program: u32,
}

/// Attaches by a `bpf_link`, reads back what the interface then runs, and undoes it if that is not what was asked.
pub(crate) fn attach(program: &mut Xdp, name: &str, mode: AttachMode) -> Result<(FdLink, Attachment), Error> {
    let refused = |source: Box<dyn std::error::Error + Send + Sync>| Error::Attach {
        interface: name.to_owned(),
        mode,
        source,
    };
    let before = look_up(name)?;
    refuse_foreign(name, before.xdp.as_ref())?;
    let link = program
        .attach_to_if_index(before.index, mode.asked())
        .and_then(|id| program.take_link(id))
        .map_err(|error| match look_up(name) {
            // Somebody attached in between.
            Ok(Interface { xdp: Some(xdp), .. }) => {
                Error::ForeignProgram { interface: name.to_owned(), program: xdp.program }
            }
            _ => refused(error.into()),
        })?;
    // Not a link, but attached by netlink, which would outlive the process: dropping it detaches.
    let link = FdLink::try_from(link).map_err(|error| refused(error.into()))?;

    let ours = program.info().map_err(|error| refused(error.into()))?.id();
    let after = look_up(name)?;
    match after.xdp {
        Some(xdp) if xdp.program == ours && xdp.mode == mode.obtained() => {
            Ok((link, Attachment { interface: name.to_owned(), index: after.index, mode, program: ours }))
        }
        found => Err(Error::Mode {
            interface: name.to_owned(),
            asked: mode,
            found: found
                .map_or_else(|| "none".to_owned(), |xdp| format!("{:?}, program {}", xdp.mode, xdp.program)),
        }),
    }
}

fn look_up(name: &str) -> Result<Interface, Error> {
    Interface::look_up(name).map_err(|source| Error::Interface { name: name.to_owned(), source })
}

fn refuse_foreign(name: &str, found: Option<&interface::Xdp>) -> Result<(), Error> {
    found
        .map_or(Ok(()), |xdp| Err(Error::ForeignProgram { interface: name.to_owned(), program: xdp.program }))
}
