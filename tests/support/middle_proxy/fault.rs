//! What one end of a link did wrong, as the other end sees it.

use std::fmt;

use super::frames::Checksum;

/// A violation of protocol.md section 7 by the other end of a link. The link is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// A frame length that section 7.1 forbids.
    FrameLength {
        /// As it stands on the wire.
        found: u32,
    },
    /// A frame whose checksum is not that of its bytes.
    Checksum {
        /// Which checksum was expected.
        kind: Checksum,
        /// The sequence number of the frame.
        sequence: i32,
    },
    /// A frame out of turn.
    Sequence {
        /// The number it has.
        found: i32,
        /// The number whose turn it was.
        expected: i32,
    },
    /// Filler words where section 7.5 has none.
    Fillers {
        /// Words in a row.
        count: u32,
        /// Offset in the stream at which they end, in bytes.
        end: u64,
    },
    /// The stream ended inside a cipher block.
    CutBlock {
        /// Bytes of the block that had come.
        found: usize,
    },
    /// Bytes behind the nonce, before the answer to it.
    BytesBehindNonce {
        /// How many.
        found: usize,
    },
    /// The nonce names another proxy secret.
    Selector {
        /// The first four bytes of it.
        found: [u8; 4],
    },
    /// The nonce wants another crypto schema than 1.
    Schema {
        /// The one it wants.
        found: u32,
    },
    /// The clock in the nonce is more than 30 s off.
    Clock {
        /// Theirs minus ours, in seconds.
        skew: i64,
    },
    /// A handshake with something in it that must not be there, or without something that must.
    Handshake {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The other end refused our handshake.
    Refused {
        /// Its reason (section 7.4).
        code: i32,
    },
    /// A message that has no place here.
    UnexpectedMessage {
        /// Its first word.
        op: u32,
    },
    /// A message of a length that its kind cannot have.
    MessageLength {
        /// Its first word.
        op: u32,
        /// Bytes of payload.
        found: usize,
    },
    /// An RPC_PROXY_REQ that differs from section 7.6, or carries a packet that section 5 keeps back.
    Request {
        /// What is wrong with it.
        what: &'static str,
    },
    /// An answer to a ping that was not sent.
    UnaskedPong {
        /// The ping it names.
        id: i64,
    },
}

impl fmt::Display for LinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FrameLength { found } => write!(f, "found a frame length of {found}"),
            Self::Checksum { kind, sequence } => write!(f, "frame {sequence} has a wrong {kind:?}"),
            Self::Sequence { found, expected } => {
                write!(f, "found frame {found} where frame {expected} was due")
            }
            Self::Fillers { count, end } => {
                write!(f, "found {count} fillers in a row that end at byte {end} of the stream")
            }
            Self::CutBlock { found } => write!(f, "the stream ends {found} bytes into a cipher block"),
            Self::BytesBehindNonce { found } => write!(f, "found {found} bytes behind the nonce"),
            Self::Selector { found } => write!(f, "the nonce names the proxy secret {found:02x?}"),
            Self::Schema { found } => write!(f, "the nonce wants crypto schema {found}; expected 1"),
            Self::Clock { skew } => write!(f, "the clock in the nonce is {skew} s off; allowed are 30"),
            Self::Handshake { what } => write!(f, "handshake: {what}"),
            Self::Refused { code } => write!(f, "the handshake was refused with code {code}"),
            Self::UnexpectedMessage { op } => write!(f, "found a message {op:08x}, which has no place here"),
            Self::MessageLength { op, found } => write!(f, "found a message {op:08x} of {found} bytes"),
            Self::Request { what } => write!(f, "proxied request: {what}"),
            Self::UnaskedPong { id } => write!(f, "found an answer to the ping {id:x}, which was not sent"),
        }
    }
}

impl std::error::Error for LinkFault {}
