//! Generic netlink, as little of it as two questions need: find a family's number, ask it about one interface.

use std::io;

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
    NlasIterator,
};
use netlink_sys::protocols::NETLINK_GENERIC;

use crate::netlink::Netlink;

/// The controller's family and what we ask of it (linux/genetlink.h).
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Command, version and two reserved bytes (`struct genlmsghdr`).
const HEADER_BYTES: usize = 4;

/// A message of any family: its attributes are bytes here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Generic {
    family: u16,
    command: u8,
    attributes: Vec<u8>,
}

/// One family, by its name.
pub(crate) struct Family {
    netlink: Netlink,
    id: u16,
}

impl Family {
    /// Finds the family `name`.
    pub(crate) fn find(name: &str) -> io::Result<Self> {
        let mut netlink = Netlink::open(NETLINK_GENERIC)?;
        let mut name = name.as_bytes().to_vec();
        name.push(0);
        let attributes = encode(&[DefaultNla::new(CTRL_ATTR_FAMILY_NAME, name)]);
        let question = Generic { family: GENL_ID_CTRL, command: CTRL_CMD_GETFAMILY, attributes };
        let answer = netlink.request(question, 0)?;
        let id = answer.messages.iter().find_map(|family| {
            decode(&family.attributes)
                .find(|&(kind, _)| kind == CTRL_ATTR_FAMILY_ID)
                .and_then(|(_, value)| Some(u16::from_ne_bytes(value.try_into().ok()?)))
        });
        id.map(|id| Self { netlink, id }).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The attributes of the first answer to `command`.
    pub(crate) fn ask(&mut self, command: u8, attributes: &[DefaultNla]) -> io::Result<Vec<u8>> {
        let question = Generic { family: self.id, command, attributes: encode(attributes) };
        let answer = self.netlink.request(question, 0)?;
        let first = answer.messages.into_iter().next();
        first.map(|message| message.attributes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Has `command` done; answers are not looked at.
    pub(crate) fn tell(&mut self, command: u8, attributes: &[DefaultNla]) -> io::Result<()> {
        let order = Generic { family: self.id, command, attributes: encode(attributes) };
        self.netlink.request(order, 0).map(drop)
    }
}

/// An attribute that consists of attributes.
pub(crate) fn nested(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, encode(inner))
}

fn encode(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// Kind and value of each attribute; ends at the first that is none.
pub(crate) fn decode(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes).map_while(Result::ok).map(|attribute| {
        let header_bytes = 4;
        let value = &attribute.into_inner()[header_bytes..header_bytes + attribute.value_length()];
        (attribute.kind(), value)
    })
}

/// An unsigned value of four or eight bytes in the host's order: `NLA_U32`, `NLA_U64` or `NLA_UINT`.
pub(crate) fn unsigned(value: &[u8]) -> Option<u64> {
    match value.len() {
        4 => Some(u64::from(u32::from_ne_bytes(value.try_into().ok()?))),
        8 => Some(u64::from_ne_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

impl NetlinkSerializable for Generic {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let version = 1;
        buffer[..HEADER_BYTES].copy_from_slice(&[self.command, version, 0, 0]);
        buffer[HEADER_BYTES..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Generic {
    type Error = io::Error;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> io::Result<Self> {
        let Some((&[command, ..], attributes)) = payload.split_first_chunk::<HEADER_BYTES>() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        Ok(Self { family: header.message_type, command, attributes: attributes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let attributes =
            encode(&[nested(1, &[DefaultNla::new(7, vec![1, 2, 3])]), DefaultNla::new(3, vec![9])]);
        let outer: Vec<_> = decode(&attributes).collect();
        assert_eq!(outer.len(), 2);
        assert_eq!(outer[0].0, 1);
        assert_eq!(decode(outer[0].1).collect::<Vec<_>>(), [(7, &[1, 2, 3][..])]);
        assert_eq!(outer[1], (3, &[9][..]));
    }

    #[test]
    fn an_unsigned_value_has_four_or_eight_bytes() {
        assert_eq!(unsigned(&5u32.to_ne_bytes()), Some(5));
        assert_eq!(unsigned(&5u64.to_ne_bytes()), Some(5));
        assert_eq!(unsigned(&[1, 2]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(decode(&bytes).count() <= bytes.len());
        }
    }
}
