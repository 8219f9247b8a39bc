//! The data centre of the measurements: a process of its own, one thread, one epoll, three ports.
//!
//! It must cost little, so that the relays are what fills the machine. The init frame is real; what
//! follows is as cheap as can be: an echo, bytes that were made beforehand, or a sink that does not even
//! copy. Which of them it is depends on the port, so that no request has to be parsed.

mod conversation;
mod process;
mod serve;

use std::net::{Ipv4Addr, SocketAddr};

use mtproxy_core::dc::DcId;

pub use process::DataCentre;
pub use serve::serve;

/// What is done on one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Sends every byte back, through the ciphers of both directions.
    Echo,
    /// [`SOURCE_PROOF_LEN`] bytes of the pattern, then noise without end.
    Source,
    /// Takes [`SINK_PROOF_LEN`] bytes of the pattern, answers one byte, then takes anything.
    Sink,
}

/// Beginning of every download, encrypted and checked. The rest is noise: to encrypt and to check it
/// would cost more than the relay in between.
pub const SOURCE_PROOF_LEN: usize = 1 << 20;
/// Beginning of every upload, likewise.
pub const SINK_PROOF_LEN: usize = 1 << 16;
/// Bytes per write of noise.
pub const NOISE_LEN: usize = 256 * 1024;

impl Service {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All, by [`index`](Self::index).
    pub const ALL: [Self; Self::COUNT] = [Self::Echo, Self::Source, Self::Sink];

    /// Its place among all.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The number under which a proxy knows it.
    pub fn dc(self) -> DcId {
        DcId(match self {
            Self::Echo => 2,
            Self::Source => 4,
            Self::Sink => 5,
        })
    }
}

/// Where a data centre listens, on every address of its host.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    ip: Ipv4Addr,
    /// By [`Service::index`].
    ports: [u16; Service::COUNT],
}

impl Ports {
    /// Ports of 127.0.0.1.
    #[must_use]
    pub fn new(ports: [u16; Service::COUNT]) -> Self {
        Self { ip: Ipv4Addr::LOCALHOST, ports }
    }

    /// The same ports of another address. A relay that has a data-centre address of its own shares no
    /// ephemeral ports in TIME-WAIT with the others.
    #[must_use]
    pub fn at(self, ip: Ipv4Addr) -> Self {
        Self { ip, ..self }
    }

    /// By [`Service::index`].
    pub fn addresses(&self) -> [SocketAddr; Service::COUNT] {
        self.ports.map(|port| SocketAddr::from((self.ip, port)))
    }
}
