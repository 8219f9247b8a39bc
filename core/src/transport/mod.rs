//! The three MTProto transports, told apart by the tag in the init frame (protocol.md section 4).
//!
//! In direct mode the proxy never looks inside the framing: it tells the DC the client's own tag, and
//! quick acks and padding pass through as they are.

pub mod packet;
pub mod packet_reader;
pub mod packet_writer;

/// The longest packet of a client, its padding not counted (protocol.md section 4).
pub const PACKET_LEN_MAX: usize = 1_044_480;

/// How packets are framed inside the obfuscated stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `ef`: length in words, one byte or four.
    Abridged,
    /// `ee`: four-byte length.
    Intermediate,
    /// `dd`: four-byte length that counts up to 15 bytes of random padding too.
    PaddedIntermediate,
}

impl Transport {
    /// The transport with this tag.
    #[must_use]
    pub fn from_tag(tag: [u8; 4]) -> Option<Self> {
        match tag {
            [0xef, 0xef, 0xef, 0xef] => Some(Self::Abridged),
            [0xee, 0xee, 0xee, 0xee] => Some(Self::Intermediate),
            [0xdd, 0xdd, 0xdd, 0xdd] => Some(Self::PaddedIntermediate),
            _ => None,
        }
    }

    /// The four equal bytes that name this transport in an init frame.
    #[must_use]
    pub fn tag(self) -> [u8; 4] {
        match self {
            Self::Abridged => [0xef; 4],
            Self::Intermediate => [0xee; 4],
            Self::PaddedIntermediate => [0xdd; 4],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_their_transport_and_nothing_else_does() {
        for transport in [Transport::Abridged, Transport::Intermediate, Transport::PaddedIntermediate] {
            assert_eq!(Transport::from_tag(transport.tag()), Some(transport));
        }
        for tag in [[0; 4], [0xef, 0xef, 0xef, 0xee], [0xff; 4]] {
            assert_eq!(Transport::from_tag(tag), None);
        }
    }
}
