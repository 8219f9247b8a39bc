//! RPC_PROXY_REQ: a client's packet on its way to a middle proxy (protocol.md section 7.6).
//!
//! ```text
//!  0      4       8         16              32       36             52       56
//!  ├ op ──┼ flags ┼ conn id ┼ client's IPv6 ┼ port ──┼ our IPv6 ────┼ port ──┤
//!                                                     only with a tag: ├ 18 00 00 00 ┼ ae 26 1e db ┼ 10 ┼ tag: 16 ┼ 0 0 0 ┤
//!                                                                                              then the packet as it came
//! ```
//! IPv4 addresses are IPv4-mapped ones, in network order; everything else is little-endian.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::transport::Transport;

/// RPC_PROXY_REQ.
const OP: u32 = 0x36ce_f1ee;
/// TL constructor of the tag.
const PROXY_TAG: u32 = 0xdb1e_26ae;
/// Constructor, length byte, tag and the zeros that make it whole words.
const EXTRA_LEN: u32 = 4 + 1 + 16 + 3;

/// Flags of a request.
pub mod flag {
    /// The packet belongs to the handshake of MTProto.
    pub const UNENCRYPTED: u32 = 0x2;
    /// The extra block has the proxy's tag.
    pub const PROXY_TAG: u32 = 0x8;
    /// The client came over TCP, obfuscated: all of ours do.
    pub const TCP_OBFUSCATED2: u32 = 0x0002_1000;
    /// An earlier packet of the client was lost.
    pub const WAS_DROPPED: u32 = 0x1000_0000;
    /// Intermediate transport, padded or not.
    pub const INTERMEDIATE: u32 = 0x2000_0000;
    /// Abridged transport.
    pub const ABRIDGED: u32 = 0x4000_0000;
    /// The client wants to hear when the packet has arrived.
    pub const QUICK_ACK: u32 = 0x8000_0000;
}

/// By which Telegram knows whose channel to show; from its bot @MTProxybot. Not a secret: every middle proxy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyTag(pub [u8; 16]);

impl FromStr for ProxyTag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(|| {
            // Not the text: it may be a secret that stands in the wrong place.
            format!(
                "found {} characters that are no tag; expected a proxy tag of 32 hexadecimal digits, as @MTProxybot gives \
                 it for a proxy",
                text.chars().count()
            )
        })
    }
}

impl fmt::Display for ProxyTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// Everything about a packet but the packet.
#[derive(Clone, Copy, Debug)]
pub struct ProxyReq<'a> {
    /// The client's name on its link.
    pub conn_id: i64,
    /// Where the client is.
    pub client: SocketAddr,
    /// Where it came to, as seen from outside.
    pub ours: SocketAddr,
    /// How it frames its packets.
    pub transport: Transport,
    /// It wants to hear when the packet has arrived.
    pub quick_ack: bool,
    /// The packet belongs to the handshake of MTProto.
    pub is_unencrypted: bool,
    /// An earlier packet was lost.
    pub was_dropped: bool,
    /// Whose channel to show.
    pub proxy_tag: Option<&'a ProxyTag>,
}

impl ProxyReq<'_> {
    /// Appends everything that stands before the packet.
    pub fn append_header(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&OP.to_le_bytes());
        out.extend_from_slice(&self.flags().to_le_bytes());
        out.extend_from_slice(&self.conn_id.to_le_bytes());
        append_address(self.client, out);
        append_address(self.ours, out);
        if let Some(tag) = self.proxy_tag {
            out.extend_from_slice(&EXTRA_LEN.to_le_bytes());
            out.extend_from_slice(&PROXY_TAG.to_le_bytes());
            out.push(16);
            out.extend_from_slice(&tag.0);
            out.extend_from_slice(&[0; 3]);
        }
    }

    fn flags(&self) -> u32 {
        let mut flags = flag::TCP_OBFUSCATED2;
        flags |= match self.transport {
            Transport::Abridged => flag::ABRIDGED,
            Transport::Intermediate | Transport::PaddedIntermediate => flag::INTERMEDIATE,
        };
        for (holds, bit) in [
            (self.is_unencrypted, flag::UNENCRYPTED),
            (self.proxy_tag.is_some(), flag::PROXY_TAG),
            (self.was_dropped, flag::WAS_DROPPED),
            (self.quick_ack, flag::QUICK_ACK),
        ] {
            if holds {
                flags |= bit;
            }
        }
        flags
    }
}

fn append_address(address: SocketAddr, out: &mut Vec<u8>) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&u32::from(address.port()).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ProxyReq<'static> {
        ProxyReq {
            conn_id: 0x40_0019,
            client: "192.0.2.1:50000".parse().unwrap(),
            ours: "[2001:db8::1]:443".parse().unwrap(),
            transport: Transport::Abridged,
            quick_ack: false,
            is_unencrypted: false,
            was_dropped: false,
            proxy_tag: None,
        }
    }

    #[test]
    fn flags_are_those_observed_of_the_official_proxy() {
        // protocol.md section 7.6, "Observed", with a tag.
        let tag = ProxyTag([7; 16]);
        let with_tag = ProxyReq { proxy_tag: Some(&tag), ..request() };
        for (request, flags) in [
            (with_tag, 0x4002_1008),
            (ProxyReq { is_unencrypted: true, ..with_tag }, 0x4002_100a),
            (ProxyReq { quick_ack: true, ..with_tag }, 0xc002_1008),
            (ProxyReq { transport: Transport::Intermediate, ..with_tag }, 0x2002_1008),
            (ProxyReq { transport: Transport::PaddedIntermediate, ..with_tag }, 0x2002_1008),
            (ProxyReq { was_dropped: true, ..request() }, 0x5002_1000),
        ] {
            assert_eq!(request.flags(), flags, "{request:?}");
        }
    }

    #[test]
    fn the_header_has_both_addresses_and_the_known_block_of_the_tag() {
        let tag = ProxyTag(std::array::from_fn(|i| i.to_le_bytes()[0]));
        let mut out = Vec::new();
        ProxyReq { proxy_tag: Some(&tag), ..request() }.append_header(&mut out);
        let expected = concat!(
            "eef1ce36",
            "08100240",
            "1900400000000000", //
            "00000000000000000000ffffc0000201",
            "50c30000", //
            "20010db8000000000000000000000001",
            "bb010000", //
            // protocol.md section 7.6: the extra block.
            "18000000",
            "ae261edb",
            "10",
            "000102030405060708090a0b0c0d0e0f",
            "000000",
        );
        assert_eq!(data_encoding::HEXLOWER.encode(&out), expected);
        out.clear();
        request().append_header(&mut out);
        assert_eq!(out.len(), 56);
    }

    #[test]
    fn a_tag_is_thirty_two_digits_and_nothing_else() {
        let text = "00112233445566778899aabbccddeeff";
        assert_eq!(text.parse::<ProxyTag>().unwrap().to_string(), text);
        assert!(text.to_uppercase().parse::<ProxyTag>().is_ok());
        for wrong in ["", &text[1..], &format!("{text}0"), &format!("{}x", &text[1..])] {
            let error = wrong.parse::<ProxyTag>().unwrap_err();
            assert!(error.contains("expected a proxy tag of 32 hexadecimal digits"), "{error}");
        }
    }
}
