//! RPC_PROXY_REQ: a client's packet on its way to Telegram (protocol.md section 7.6).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::fault::LinkFault;
use super::wire::{Fields, op};

/// Bits of [`ProxyRequest::flags`].
pub mod flag {
    /// The packet is not encrypted.
    pub const UNENCRYPTED: u32 = 0x2;
    /// The extra block has the proxy tag.
    pub const PROXY_TAG: u32 = 0x8;
    /// Came over TCP.
    pub const TCP: u32 = 0x1000;
    /// Came behind an obfuscated2 init frame.
    pub const OBFUSCATED2: u32 = 0x2_0000;
    /// The padded transport. The official proxy does not say so; others do.
    pub const PADDED: u32 = 0x800_0000;
    /// An earlier packet of this connection was dropped.
    pub const DROPPED: u32 = 0x1000_0000;
    /// The intermediate or the padded transport.
    pub const INTERMEDIATE: u32 = 0x2000_0000;
    /// The abridged transport.
    pub const ABRIDGED: u32 = 0x4000_0000;
    /// A quick ack is wanted.
    pub const QUICK_ACK: u32 = 0x8000_0000;

    /// Everything that a proxy for MTProto over TCP may set.
    pub(super) const KNOWN: u32 =
        UNENCRYPTED | PROXY_TAG | TCP | OBFUSCATED2 | PADDED | DROPPED | INTERMEDIATE | ABRIDGED | QUICK_ACK;
    /// There is an extra block.
    pub(super) const EXTRA: u32 = 0xc;
}

/// The TL object with the proxy tag.
const TL_PROXY_TAG: u32 = 0xdb1e_26ae;
/// Functions that an unencrypted packet may ask for (section 5): `req_pq`, `req_pq_multi`,
/// `req_DH_params`, `set_client_DH_params`.
const KEY_EXCHANGE: [u32; 4] = [0x6046_9778, 0xbe7e_8ef1, 0xd712_e4be, 0xf504_5f1f];
/// Longest extra block.
const EXTRA_LEN_MAX: usize = 16_384;

/// A client's packet, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyRequest {
    /// Bits of [`flag`].
    pub flags: u32,
    /// The proxy's number for the client's connection.
    pub connection: i64,
    /// Where the client comes from. IPv4 is IPv4 here, and mapped on the wire.
    pub client: SocketAddr,
    /// Where it found the proxy.
    pub ours: SocketAddr,
    /// The tag in the extra block.
    pub proxy_tag: Option<[u8; 16]>,
    /// As it came, without the up to three bytes of padding that its length gave away.
    pub packet: Vec<u8>,
}

impl ProxyRequest {
    /// The payload of its frame.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(84 + self.packet.len());
        payload.extend(op::PROXY_REQ.to_le_bytes());
        payload.extend(self.flags.to_le_bytes());
        payload.extend(self.connection.to_le_bytes());
        append_address(self.client, &mut payload);
        append_address(self.ours, &mut payload);
        if let Some(tag) = self.proxy_tag {
            payload.extend(0x18u32.to_le_bytes());
            payload.extend(TL_PROXY_TAG.to_le_bytes());
            payload.push(16);
            payload.extend(tag);
            payload.extend([0; 3]);
        }
        payload.extend_from_slice(&self.packet);
        payload
    }

    /// Reads a payload, and holds it against everything that sections 5 and 7.6 say.
    ///
    /// # Errors
    /// [`LinkFault::Request`].
    pub fn parse(payload: &[u8]) -> Result<Self, LinkFault> {
        let wrong = |what| LinkFault::Request { what };
        let mut fields = Fields(payload);
        if fields.u32() != Some(op::PROXY_REQ) {
            return Err(wrong("it begins with another word"));
        }
        let fixed = (|| {
            let (flags, connection) = (fields.u32()?, fields.i64()?);
            Some((flags, connection, read_address(&mut fields)?, read_address(&mut fields)?))
        })();
        let (flags, connection, client, ours) = fixed.ok_or(wrong("it is cut, or a port is too large"))?;
        check_flags(flags).map_err(wrong)?;
        let mut proxy_tag = None;
        if flags & flag::EXTRA != 0 {
            let len = fields.u32().map_or(usize::MAX, |len| len as usize);
            let is_allowed = len.is_multiple_of(4) && len <= EXTRA_LEN_MAX;
            let extra = fields.bytes(len).filter(|_| is_allowed);
            let extra = extra.ok_or(wrong("the length of the extra block is none"))?;
            proxy_tag = Some(parse_proxy_tag(extra).ok_or(wrong("the extra block is not a proxy tag"))?);
        }
        let packet = fields.0.to_vec();
        check_packet(&packet, flags).map_err(wrong)?;
        Ok(Self { flags, connection, client, ours, proxy_tag, packet })
    }

    /// True if the client wants a quick ack.
    #[must_use]
    pub fn wants_quick_ack(&self) -> bool {
        self.flags & flag::QUICK_ACK != 0
    }
}

fn append_address(address: SocketAddr, payload: &mut Vec<u8>) {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    payload.extend(octets);
    payload.extend(u32::from(address.port()).to_le_bytes());
}

fn read_address(fields: &mut Fields<'_>) -> Option<SocketAddr> {
    let ip = Ipv6Addr::from(fields.array::<16>()?).to_canonical();
    Some(SocketAddr::new(ip, u16::try_from(fields.u32()?).ok()?))
}

fn check_flags(flags: u32) -> Result<(), &'static str> {
    let has = |flag| flags & flag != 0;
    if flags & !flag::KNOWN != 0 {
        return Err("it has a flag that no MTProto proxy sets");
    }
    if !has(flag::TCP) || !has(flag::OBFUSCATED2) {
        return Err("it does not say TCP and obfuscated2");
    }
    if has(flag::INTERMEDIATE) == has(flag::ABRIDGED) {
        return Err("it says both transports or neither");
    }
    if has(flag::PADDED) && !has(flag::INTERMEDIATE) {
        return Err("it says padded but not intermediate");
    }
    Ok(())
}

/// The tag, if it is all that the block has.
fn parse_proxy_tag(extra: &[u8]) -> Option<[u8; 16]> {
    let mut fields = Fields(extra);
    let is_tag = fields.u32()? == TL_PROXY_TAG && fields.array()? == [16u8];
    let tag = fields.array()?;
    let is_whole = fields.array()? == [0u8; 3] && fields.0.is_empty();
    (is_tag && is_whole).then_some(tag)
}

/// A proxy keeps back what section 5 says it ignores.
fn check_packet(packet: &[u8], flags: u32) -> Result<(), &'static str> {
    let mut fields = Fields(packet);
    let auth_key_id = fields.i64().ok_or("the packet is shorter than an auth key id")?;
    if (auth_key_id == 0) != (flags & flag::UNENCRYPTED != 0) {
        return Err("the flag for unencrypted packets does not tell the truth");
    }
    if auth_key_id != 0 {
        return if packet.len() >= 56 { Ok(()) } else { Err("the encrypted packet is too short") };
    }
    let inner = (|| {
        fields.i64()?;
        Some((fields.u32()? as usize, fields.u32()?))
    })();
    let (inner_len, function) = inner.ok_or("the unencrypted packet is too short")?;
    if inner_len < 20 || inner_len > packet.len() - 20 {
        return Err("the unencrypted packet has a wrong length inside");
    }
    if KEY_EXCHANGE.contains(&function) { Ok(()) } else { Err("the packet asks for no key exchange") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mtproto;
    use proptest::prelude::*;

    const ABRIDGED: u32 = flag::TCP | flag::OBFUSCATED2 | flag::ABRIDGED;

    fn request() -> ProxyRequest {
        ProxyRequest {
            flags: ABRIDGED,
            connection: 0x40_0019,
            client: "192.0.2.1:50000".parse().unwrap(),
            ours: "[2001:db8::1]:443".parse().unwrap(),
            proxy_tag: None,
            packet: vec![9; 56],
        }
    }

    fn fault(payload: &[u8]) -> &'static str {
        match ProxyRequest::parse(payload) {
            Err(LinkFault::Request { what }) => what,
            other => panic!("found {other:?}"),
        }
    }

    fn with_flags(flags: u32) -> Vec<u8> {
        ProxyRequest { flags, ..request() }.payload()
    }

    #[test]
    fn the_layout_is_that_of_the_table() {
        // protocol.md section 7.6: offsets, the flags recorded from the official proxy, the tag's block.
        let packet = mtproto::req_pq_multi(4, &[3; 16]);
        let flags = 0x4002_100a;
        let request =
            ProxyRequest { flags, proxy_tag: Some([0xab; 16]), packet: packet.clone(), ..request() };
        let payload = request.payload();
        assert_eq!(payload[..16], *b"\xee\xf1\xce\x36\x0a\x10\x02\x40\x19\x00\x40\x00\x00\x00\x00\x00");
        assert_eq!(payload[16..32], *b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x01");
        assert_eq!(payload[32..36], 50_000u32.to_le_bytes());
        assert_eq!(payload[36..52], *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
        assert_eq!(payload[52..56], 443u32.to_le_bytes());
        assert_eq!(payload[56..65], *b"\x18\0\0\0\xae\x26\x1e\xdb\x10");
        assert_eq!(payload[65..84], [&[0xab; 16][..], &[0; 3]].concat());
        assert_eq!(payload[84..], packet);
        assert_eq!(ProxyRequest::parse(&payload), Ok(request));
    }

    #[test]
    fn the_flags_that_the_official_proxy_was_seen_to_set_are_accepted() {
        // protocol.md section 7.6, recorded; without their tag.
        for flags in [0x4002_1000, 0xc002_1000, 0x2002_1000, 0x2802_1000, 0x3002_1000] {
            assert!(ProxyRequest::parse(&with_flags(flags)).is_ok(), "{flags:x}");
        }
    }

    #[test]
    fn flags_that_cannot_be_are_refused() {
        assert!(fault(&with_flags(ABRIDGED | 1)).contains("no MTProto proxy sets"));
        assert!(fault(&with_flags(ABRIDGED | 4)).contains("no MTProto proxy sets"));
        assert!(fault(&with_flags(ABRIDGED & !flag::TCP)).contains("TCP"));
        assert!(fault(&with_flags(ABRIDGED | flag::INTERMEDIATE)).contains("both transports"));
        assert!(fault(&with_flags(flag::TCP | flag::OBFUSCATED2)).contains("neither"));
        assert!(fault(&with_flags(ABRIDGED | flag::PADDED)).contains("padded"));
        assert!(fault(&with_flags(ABRIDGED | flag::UNENCRYPTED)).contains("the truth"));
        assert!(fault(&with_flags(ABRIDGED | flag::PROXY_TAG)).contains("extra block"));
    }

    #[test]
    fn packets_that_a_proxy_keeps_back_are_refused() {
        let carrying = |packet: &[u8], flags| {
            fault(&ProxyRequest { flags, packet: packet.to_vec(), ..request() }.payload())
        };
        assert!(carrying(&[9; 52], ABRIDGED).contains("too short"));
        assert!(carrying(&[9; 4], ABRIDGED).contains("shorter"));
        let unencrypted = ABRIDGED | flag::UNENCRYPTED;
        let question = mtproto::req_pq_multi(4, &[3; 16]);
        assert!(carrying(&question[..36], unencrypted).contains("length inside"));
        assert!(carrying(&question, ABRIDGED).contains("the truth"));
        assert!(carrying(&mtproto::res_pq(1, &[0; 16], &[0; 16]), unencrypted).contains("no key exchange"));
    }

    #[test]
    fn ports_beyond_sixteen_bits_are_refused() {
        let mut payload = request().payload();
        payload[34] = 1;
        assert!(fault(&payload).contains("port"));
    }

    proptest! {
        #[test]
        fn nothing_that_is_cut_or_changed_makes_it_panic(
            cut in 0usize..140, at in 0usize..140, change: u8, has_tag: bool,
        ) {
            let flags = ABRIDGED | if has_tag { flag::PROXY_TAG } else { 0 };
            let mut payload =
                ProxyRequest { flags, proxy_tag: has_tag.then_some([1; 16]), ..request() }.payload();
            payload.truncate(cut.max(4));
            if let Some(byte) = payload.get_mut(at) {
                *byte ^= change;
            }
            if let Ok(request) = ProxyRequest::parse(&payload) {
                prop_assert_eq!(request.payload(), payload);
            }
        }
    }
}
