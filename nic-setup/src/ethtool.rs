//! What ethtool's netlink family says of an interface, and what it can be told: channels, rings, offloads, coalescing,
//! and how packets are spread over queues.
//!
//! Reference: `Documentation/networking/ethtool-netlink.rst` and `include/uapi/linux/ethtool_netlink*.h` of
//! Linux 6.18.

use std::collections::BTreeSet;
use std::io;

use netlink_packet_core::DefaultNla;
use rustix::io::Errno;

use crate::facts::{Channels, Rss};
use crate::generic::{Family, decode, nested, unsigned};
use crate::survey::{ChannelCounts, Coalescing, Feature, Rings};

const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_MSG_RINGS_GET: u8 = 15;
const ETHTOOL_MSG_RINGS_SET: u8 = 16;
const ETHTOOL_MSG_CHANNELS_GET: u8 = 17;
const ETHTOOL_MSG_CHANNELS_SET: u8 = 18;
const ETHTOOL_MSG_COALESCE_GET: u8 = 19;
const ETHTOOL_MSG_COALESCE_SET: u8 = 20;
const ETHTOOL_MSG_RSS_GET: u8 = 38;
/// Since Linux 6.17.
const ETHTOOL_MSG_RSS_SET: u8 = 48;

/// Which interface a request is about: in every family member the first attribute, nested.
const ETHTOOL_A_HEADER: u16 = 1;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;

const ETHTOOL_A_FEATURES_HW: u16 = 2;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_FEATURES_NOCHANGE: u16 = 5;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

const ETHTOOL_A_RINGS_RX_MAX: u16 = 2;
const ETHTOOL_A_RINGS_RX: u16 = 6;

const ETHTOOL_A_COALESCE_RX_USECS: u16 = 2;
const ETHTOOL_A_COALESCE_USE_ADAPTIVE_RX: u16 = 11;

const ETHTOOL_A_CHANNELS_COMBINED_MAX: u16 = 5;
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

    /// Combined channels, in use and most. `None`: the driver has no such notion.
    pub(crate) fn channel_counts(&mut self) -> io::Result<Option<ChannelCounts>> {
        let attributes = self.ask(ETHTOOL_MSG_CHANNELS_GET)?;
        Ok(attributes.map(|attributes| ChannelCounts {
            combined: number_of(&attributes, ETHTOOL_A_CHANNELS_COMBINED_COUNT).unwrap_or(0),
            combined_max: number_of(&attributes, ETHTOOL_A_CHANNELS_COMBINED_MAX).unwrap_or(0),
        }))
    }

    /// Sets the number of combined channels.
    pub(crate) fn set_combined_channels(&mut self, count: u32) -> io::Result<()> {
        self.tell(ETHTOOL_MSG_CHANNELS_SET, number(ETHTOOL_A_CHANNELS_COMBINED_COUNT, count))
    }

    /// Receive rings. `None`: the driver has no such notion.
    pub(crate) fn rings(&mut self) -> io::Result<Option<Rings>> {
        let attributes = self.ask(ETHTOOL_MSG_RINGS_GET)?;
        Ok(attributes.map(|attributes| Rings {
            receive: number_of(&attributes, ETHTOOL_A_RINGS_RX).unwrap_or(0),
            receive_max: number_of(&attributes, ETHTOOL_A_RINGS_RX_MAX).unwrap_or(0),
        }))
    }

    /// Sets the number of descriptors of each receive ring.
    pub(crate) fn set_receive_ring(&mut self, descriptors: u32) -> io::Result<()> {
        self.tell(ETHTOOL_MSG_RINGS_SET, number(ETHTOOL_A_RINGS_RX, descriptors))
    }

    /// How interrupts are held back. `None`: the driver has no such notion.
    pub(crate) fn coalescing(&mut self) -> io::Result<Option<Coalescing>> {
        Ok(self.ask(ETHTOOL_MSG_COALESCE_GET)?.map(|attributes| parse_coalescing(&attributes)))
    }

    /// Sets the longest wait before a receive interrupt.
    pub(crate) fn set_receive_coalescing(&mut self, us: u32) -> io::Result<()> {
        self.tell(ETHTOOL_MSG_COALESCE_SET, number(ETHTOOL_A_COALESCE_RX_USECS, us))
    }

    /// All offloads that are on or could be.
    pub(crate) fn features(&mut self) -> io::Result<Vec<Feature>> {
        Ok(self
            .ask(ETHTOOL_MSG_FEATURES_GET)?
            .map(|attributes| parse_features(&attributes))
            .unwrap_or_default())
    }

    /// Switches one offload.
    pub(crate) fn set_feature(&mut self, name: &str, is_on: bool) -> io::Result<()> {
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        let mut bit = vec![DefaultNla::new(ETHTOOL_A_BITSET_BIT_NAME, text)];
        if is_on {
            bit.push(DefaultNla::new(ETHTOOL_A_BITSET_BIT_VALUE, Vec::new()));
        }
        let bits = nested(ETHTOOL_A_BITSET_BITS, &[nested(ETHTOOL_A_BITSET_BITS_BIT, &bit)]);
        self.tell(ETHTOOL_MSG_FEATURES_SET, nested(ETHTOOL_A_FEATURES_WANTED, &[bits]))
    }

    /// Sets which queue each value of the hash's low bits leads to.
    pub(crate) fn set_rss_table(&mut self, table: &[u32]) -> io::Result<()> {
        let bytes = table.iter().flat_map(|queue| queue.to_ne_bytes()).collect();
        self.tell(ETHTOOL_MSG_RSS_SET, DefaultNla::new(ETHTOOL_A_RSS_INDIR, bytes))
    }

    fn header(&self) -> DefaultNla {
        let index = DefaultNla::new(ETHTOOL_A_HEADER_DEV_INDEX, self.index.to_ne_bytes().to_vec());
        nested(ETHTOOL_A_HEADER, &[index])
    }

    fn tell(&mut self, command: u8, what: DefaultNla) -> io::Result<()> {
        let header = self.header();
        self.family.tell(command, &[header, what])
    }

    fn ask(&mut self, command: u8) -> io::Result<Option<Vec<u8>>> {
        let header = self.header();
        match self.family.ask(command, &[header]) {
            Ok(attributes) => Ok(Some(attributes)),
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

fn number_of(attributes: &[u8], kind: u16) -> Option<u32> {
    let value = decode(attributes).find_map(|(found, value)| (found == kind).then_some(value))?;
    u32::try_from(unsigned(value)?).ok()
}

fn parse_coalescing(attributes: &[u8]) -> Coalescing {
    let adaptive = decode(attributes).find(|(kind, _)| *kind == ETHTOOL_A_COALESCE_USE_ADAPTIVE_RX);
    Coalescing {
        receive_us: number_of(attributes, ETHTOOL_A_COALESCE_RX_USECS),
        // `NLA_U8`.
        is_adaptive: adaptive.is_some_and(|(_, value)| value != [0]),
    }
}

fn parse_features(attributes: &[u8]) -> Vec<Feature> {
    let names = |wanted: u16| -> BTreeSet<String> {
        let set = decode(attributes).find_map(|(kind, value)| (kind == wanted).then_some(value));
        set.map(bit_names).unwrap_or_default()
    };
    let changeable = names(ETHTOOL_A_FEATURES_HW);
    let (active, never) = (names(ETHTOOL_A_FEATURES_ACTIVE), names(ETHTOOL_A_FEATURES_NOCHANGE));
    let feature = |name: &String| Feature {
        name: name.clone(),
        is_on: active.contains(name),
        is_fixed: !changeable.contains(name) || never.contains(name),
    };
    active.union(&changeable).map(feature).collect()
}

/// The names in a bitset: without a mask only bits that are set are in it.
fn bit_names(bitset: &[u8]) -> BTreeSet<String> {
    let bits =
        decode(bitset).filter(|(kind, _)| *kind == ETHTOOL_A_BITSET_BITS).flat_map(|(_, bits)| decode(bits));
    let name = |(_, bit): (u16, &[u8])| {
        let name =
            decode(bit).find_map(|(kind, value)| (kind == ETHTOOL_A_BITSET_BIT_NAME).then_some(value))?;
        Some(String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned())
    };
    bits.filter_map(name).collect()
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
    fn offloads_are_fixed_unless_the_driver_can_change_them_and_nobody_forbids_it() {
        let set = |kind: u16, names: &[&str]| {
            let bits: Vec<DefaultNla> = names
                .iter()
                .map(|name| {
                    let text = DefaultNla::new(ETHTOOL_A_BITSET_BIT_NAME, format!("{name}\0").into_bytes());
                    nested(ETHTOOL_A_BITSET_BITS_BIT, &[number(1, 5), text])
                })
                .collect();
            nested(kind, &[DefaultNla::new(1, vec![]), number(2, 64), nested(ETHTOOL_A_BITSET_BITS, &bits)])
        };
        let features = parse_features(&bytes_of(&[
            set(ETHTOOL_A_FEATURES_HW, &["rx-lro", "rx-gro", "netns-local"]),
            set(ETHTOOL_A_FEATURES_ACTIVE, &["rx-gro", "rx-gro-hw"]),
            set(ETHTOOL_A_FEATURES_NOCHANGE, &["netns-local"]),
        ]));
        let found: Vec<(&str, bool, bool)> =
            features.iter().map(|it| (it.name.as_str(), it.is_on, it.is_fixed)).collect();
        assert_eq!(
            found,
            [
                ("netns-local", false, true),
                ("rx-gro", true, false),
                ("rx-gro-hw", true, true),
                ("rx-lro", false, false)
            ]
        );
    }

    #[test]
    fn a_driver_may_choose_its_coalescing_itself() {
        let with = |adaptive| {
            let answer = [
                number(ETHTOOL_A_COALESCE_RX_USECS, 3),
                DefaultNla::new(ETHTOOL_A_COALESCE_USE_ADAPTIVE_RX, vec![adaptive]),
            ];
            parse_coalescing(&bytes_of(&answer))
        };
        assert_eq!(with(1), Coalescing { receive_us: Some(3), is_adaptive: true });
        assert_eq!(with(0), Coalescing { receive_us: Some(3), is_adaptive: false });
        assert_eq!(parse_coalescing(&[]), Coalescing::default());
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
