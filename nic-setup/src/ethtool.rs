//! What ethtool's netlink family says of an interface: channels, and how packets are spread over queues.
//!
//! Reference: `Documentation/networking/ethtool-netlink.rst` and `include/uapi/linux/ethtool_netlink*.h` of
//! Linux 6.18.

use std::io;

use netlink_packet_core::DefaultNla;
use rustix::io::Errno;

use crate::facts::{Channels, Rss};
use crate::generic::{Family, decode, nested, unsigned};

const ETHTOOL_MSG_CHANNELS_GET: u8 = 17;
const ETHTOOL_MSG_RSS_GET: u8 = 38;

/// Which interface a request is about: in every family member the first attribute, nested.
const ETHTOOL_A_HEADER: u16 = 1;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;

const ETHTOOL_A_CHANNELS_RX_COUNT: u16 = 6;
const ETHTOOL_A_CHANNELS_TX_COUNT: u16 = 7;
const ETHTOOL_A_CHANNELS_COMBINED_COUNT: u16 = 9;

const ETHTOOL_A_RSS_HFUNC: u16 = 3;
const ETHTOOL_A_RSS_INDIR: u16 = 4;
const ETHTOOL_A_RSS_HKEY: u16 = 5;
const ETHTOOL_A_RSS_INPUT_XFRM: u16 = 6;
const ETHTOOL_A_RSS_FLOW_HASH: u16 = 8;
const ETHTOOL_A_FLOW_TCP4: u16 = 4;
const ETHTOOL_A_FLOW_TCP6: u16 = 5;

/// `ETH_RSS_HASH_TOP` (include/linux/ethtool.h).
const HASH_IS_TOEPLITZ: u64 = 1;
/// Both addresses and both ports, and nothing else: `RXH_IP_SRC | RXH_IP_DST | RXH_L4_B_0_1 | RXH_L4_B_2_3`.
const FOUR_TUPLE: u64 = 0xf0;

/// The family, asked about one interface.
pub(crate) struct Ethtool {
    family: Family,
    index: u32,
}

impl Ethtool {
    pub(crate) fn open(index: u32) -> io::Result<Self> {
        Ok(Self { family: Family::find("ethtool")?, index })
    }

    /// The channels in use. `None`: the driver has no such notion.
    pub(crate) fn channels(&mut self) -> io::Result<Option<Channels>> {
        Ok(self.ask(ETHTOOL_MSG_CHANNELS_GET)?.map(|attributes| parse_channels(&attributes)))
    }

    /// How packets are spread. `None`: the driver does not say.
    pub(crate) fn rss(&mut self) -> io::Result<Option<Rss>> {
        Ok(self.ask(ETHTOOL_MSG_RSS_GET)?.map(|attributes| parse_rss(&attributes)))
    }

    fn ask(&mut self, command: u8) -> io::Result<Option<Vec<u8>>> {
        let index = DefaultNla::new(ETHTOOL_A_HEADER_DEV_INDEX, self.index.to_ne_bytes().to_vec());
        match self.family.ask(command, &[nested(ETHTOOL_A_HEADER, &[index])]) {
            Ok(attributes) => Ok(Some(attributes)),
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn parse_channels(attributes: &[u8]) -> Channels {
    let mut channels = Channels::default();
    for (kind, value) in decode(attributes) {
        let count = unsigned(value).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        match kind {
            ETHTOOL_A_CHANNELS_RX_COUNT => channels.receive_only = count,
            ETHTOOL_A_CHANNELS_TX_COUNT => channels.transmit_only = count,
            ETHTOOL_A_CHANNELS_COMBINED_COUNT => channels.combined = count,
            _ => {}
        }
    }
    channels
}

fn parse_rss(attributes: &[u8]) -> Rss {
    // Before Linux 6.17 the fields are not told; all drivers hash TCP over four of them by default.
    let mut rss = Rss { hashes_four_tuple: true, ..Rss::default() };
    for (kind, value) in decode(attributes) {
        match kind {
            ETHTOOL_A_RSS_HFUNC => rss.is_toeplitz = unsigned(value) == Some(HASH_IS_TOEPLITZ),
            ETHTOOL_A_RSS_INDIR => {
                let queues = value.chunks_exact(4).filter_map(unsigned);
                rss.table = queues.filter_map(|queue| u32::try_from(queue).ok()).collect();
            }
            ETHTOOL_A_RSS_HKEY => rss.key = value.to_vec(),
            ETHTOOL_A_RSS_INPUT_XFRM => rss.is_symmetric = unsigned(value) != Some(0),
            ETHTOOL_A_RSS_FLOW_HASH => {
                rss.hashes_four_tuple = decode(value)
                    .filter(|(flow, _)| matches!(*flow, ETHTOOL_A_FLOW_TCP4 | ETHTOOL_A_FLOW_TCP6))
                    .all(|(_, fields)| unsigned(fields) == Some(FOUR_TUPLE));
            }
            _ => {}
        }
    }
    rss
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable as _;

    use super::*;

    fn bytes_of(attributes: &[DefaultNla]) -> Vec<u8> {
        let mut bytes = vec![0; attributes.buffer_len()];
        attributes.emit(&mut bytes);
        bytes
    }

    fn number(kind: u16, value: u32) -> DefaultNla {
        DefaultNla::new(kind, value.to_ne_bytes().to_vec())
    }

    #[test]
    fn an_rss_answer_gives_function_key_and_table() {
        let table = [0u32, 1, 2, 3].iter().flat_map(|queue| queue.to_ne_bytes()).collect();
        let rss = parse_rss(&bytes_of(&[
            number(ETHTOOL_A_RSS_HFUNC, 1),
            DefaultNla::new(ETHTOOL_A_RSS_INDIR, table),
            DefaultNla::new(ETHTOOL_A_RSS_HKEY, vec![7; 40]),
        ]));
        let expected = Rss {
            is_toeplitz: true,
            is_symmetric: false,
            hashes_four_tuple: true,
            key: vec![7; 40],
            table: vec![0, 1, 2, 3],
        };
        assert_eq!(rss, expected);
    }

    #[test]
    fn xor_is_not_toeplitz_and_two_fields_are_not_four() {
        let fields = nested(ETHTOOL_A_RSS_FLOW_HASH, &[number(ETHTOOL_A_FLOW_TCP4, 0x30)]);
        let rss = parse_rss(&bytes_of(&[
            number(ETHTOOL_A_RSS_HFUNC, 2),
            fields,
            number(ETHTOOL_A_RSS_INPUT_XFRM, 1),
        ]));
        assert!(!rss.is_toeplitz && !rss.hashes_four_tuple && rss.is_symmetric);
        let fields = nested(
            ETHTOOL_A_RSS_FLOW_HASH,
            &[number(ETHTOOL_A_FLOW_TCP4, 0xf0), number(ETHTOOL_A_FLOW_TCP6, 0xf0), number(6, 0x30)],
        );
        assert!(parse_rss(&bytes_of(&[fields])).hashes_four_tuple);
    }

    #[test]
    fn channels_are_counted_by_what_they_do() {
        let answer = bytes_of(&[
            number(ETHTOOL_A_CHANNELS_RX_COUNT, 1),
            number(ETHTOOL_A_CHANNELS_TX_COUNT, 2),
            number(ETHTOOL_A_CHANNELS_COMBINED_COUNT, 4),
        ]);
        let channels = parse_channels(&answer);
        assert_eq!(channels, Channels { receive_only: 1, transmit_only: 2, combined: 4 });
        assert_eq!(channels.receive_queues(), 5);
    }
}
