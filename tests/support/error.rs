//! What a peer did wrong, as a test peer sees it.

use std::fmt;

use crate::middle_proxy::LinkFault;

/// A violation of protocol.md by the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// The server's first flight differs from section 6.7.
    ServerFlight {
        /// What it should have said.
        expected: &'static str,
    },
    /// The server random is not the HMAC of the flight: whoever answered does not know the secret.
    ServerNotAuthentic,
    /// A record header other than `17 03 03` where only application data may stand.
    NotApplicationData {
        /// The first header byte that is wrong.
        found: u8,
    },
    /// A packet length that section 4.4 forbids.
    PacketLength {
        /// The length announced, in bytes.
        found: usize,
    },
    /// 64 bytes that open to no protocol tag.
    UnknownProtocolTag,
    /// A packet that is neither `req_pq_multi` nor one of our commands.
    UnknownPacket,
    /// A violation of section 7 on a link to a middle proxy.
    Link(LinkFault),
}

impl From<LinkFault> for PeerError {
    fn from(fault: LinkFault) -> Self {
        Self::Link(fault)
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerFlight { expected } => write!(f, "the server's flight should have {expected}"),
            Self::ServerNotAuthentic => f.write_str("the server random is not the HMAC of its flight"),
            Self::NotApplicationData { found } => {
                write!(f, "found the byte {found:02x} in a record header; expected 17 03 03")
            }
            Self::PacketLength { found } => write!(f, "found a packet of {found} bytes"),
            Self::UnknownProtocolTag => f.write_str("the init frame opens to no protocol tag"),
            Self::Link(fault) => write!(f, "on a link: {fault}"),
            Self::UnknownPacket => f.write_str("found a packet that is neither req_pq_multi nor a command"),
        }
    }
}

impl std::error::Error for PeerError {}
