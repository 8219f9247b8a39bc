//! Frames, from the inside out: `eth(IP, ipv4(CLIENT, LISTEN).carrying(TCP, &tcp(40_000, 443, SYN)))`.
//!
//! Checksums are left at zero: the program reads none.

use std::net::IpAddr;

use super::ip;

pub const IP: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const ARP: u16 = 0x0806;
pub const VLAN: u16 = 0x8100;
pub const QINQ: u16 = 0x88a8;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION: u8 = 60;
pub const NO_NEXT: u8 = 59;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A client's port; the program does not care.
pub const EPHEMERAL: u16 = 40_000;

pub fn eth(protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(protocol.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A tag, to go behind an Ethernet header or another tag whose protocol says VLAN or QINQ.
pub fn tag(protocol: u16, payload: &[u8]) -> Vec<u8> {
    [&[0, 100], &protocol.to_be_bytes()[..], payload].concat()
}

/// An IP packet of either family, correct unless changed.
#[derive(Clone)]
pub struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// IPv4 options or IPv6 extension headers, and whether the length field counts them: always.
    extra: Vec<u8>,
    fragment: u16,
    payload: Vec<u8>,
    length_error: i32,
}

pub fn packet(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Packet {
    Packet {
        source: ip(source),
        destination: ip(destination),
        protocol,
        extra: Vec::new(),
        fragment: 0x4000,
        payload: payload.to_vec(),
        length_error: 0,
    }
}

impl Packet {
    /// IPv4 options, a multiple of 4 bytes.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.extra = options.to_vec();
        self
    }

    /// IPv4: offset in units of 8 bytes, more to come.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = offset | if more { 0x2000 } else { 0 };
        self
    }

    /// IPv6: puts an extension header of `8 * (1 + more)` bytes before all that there are.
    pub fn extension(mut self, kind: u8, more: u8) -> Self {
        let mut header = vec![0; 8 * (1 + usize::from(more))];
        header[0] = self.protocol;
        header[1] = more;
        self.extra.splice(0..0, header);
        self.protocol = kind;
        self
    }

    /// IPv6: puts a fragment header before all that there are.
    pub fn fragment_header(mut self, offset: u16, more: bool) -> Self {
        let field = (offset << 3 | u16::from(more)).to_be_bytes();
        self.extra.splice(0..0, [self.protocol, 0, field[0], field[1], 0, 0, 0, 1]);
        self.protocol = FRAGMENT;
        self
    }

    /// Lies about the length.
    pub fn length_error(mut self, error: i32) -> Self {
        self.length_error = error;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length =
            |bytes: usize| u16::try_from(bytes as i32 + self.length_error).expect("a length").to_be_bytes();
        let body = [self.extra.as_slice(), &self.payload].concat();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let [len0, len1] = length(20 + body.len());
                let [frag0, frag1] = self.fragment.to_be_bytes();
                let ihl = 0x45 + self.extra.len() as u8 / 4;
                let mut bytes = vec![ihl, 0, len0, len1, 0, 1, frag0, frag1, 64, self.protocol, 0, 0];
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(body);
                bytes
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let [len0, len1] = length(body.len());
                let mut bytes = vec![0x60, 0, 0, 0, len0, len1, self.protocol, 64];
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(body);
                bytes
            }
            _ => panic!("two families in one packet"),
        }
    }

    pub fn frame(&self) -> Vec<u8> {
        eth(if self.source.is_ipv4() { IP } else { IPV6 }, &self.bytes())
    }
}

pub fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&destination.to_be_bytes());
    header[12] = 0x50;
    header[13] = flags;
    header
}

/// A whole frame with TCP and nothing else.
pub fn tcp_frame(source: &str, destination: &str, port: u16, flags: u8) -> Vec<u8> {
    packet(source, destination, TCP, &tcp(EPHEMERAL, port, flags)).frame()
}

/// An ICMP error and what it quotes.
pub fn icmp(kind: u8, quote: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], quote].concat()
}
