//! Whole frames, built and read by `etherparse`, an implementation that is not ours.

mod icmp;
mod refusals;
mod segments;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header};
use etherparse::{PacketBuilder, TcpHeader};

use super::checksum::Sum;
use super::{Body, Checksums, Segment, parse};
use crate::drop_reason::DropReason;

const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];
const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];

const PEER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const OURS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const OURS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

const LINK: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr) -> IpHeaders {
    let mut header = Ipv4Header::new(0, 64, IpNumber::TCP, source.octets(), destination.octets()).unwrap();
    header.fragment_offset = IpFragOffset::ZERO;
    IpHeaders::Ipv4(header, Ipv4Extensions::default())
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr) -> IpHeaders {
    ipv6_with(source, destination, Ipv6Extensions::default())
}

fn ipv6_with(source: Ipv6Addr, destination: Ipv6Addr, extensions: Ipv6Extensions) -> IpHeaders {
    let header = Ipv6Header {
        hop_limit: 64,
        source: source.octets(),
        destination: destination.octets(),
        next_header: IpNumber::TCP,
        ..Ipv6Header::default()
    };
    IpHeaders::Ipv6(header, extensions)
}

fn tcp() -> TcpHeader {
    let mut header = TcpHeader::new(40000, 443, 0x0102_0304, 512);
    header.ack = true;
    header.acknowledgment_number = 0xfffe_fdfc;
    header
}

fn frame(ip: IpHeaders, tcp: TcpHeader, text: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(PEER_MAC, OUR_MAC)
        .ip(ip)
        .tcp_header(tcp)
        .write_to_vec(&mut frame, text)
        .unwrap();
    frame
}

fn v4_frame(text: &[u8]) -> Vec<u8> {
    frame(ipv4(PEER_V4, OURS_V4), tcp(), text)
}

fn v6_frame(text: &[u8]) -> Vec<u8> {
    frame(ipv6(PEER_V6, OURS_V6), tcp(), text)
}

/// Inserts bytes behind the MAC addresses.
fn with_tags(mut frame: Vec<u8>, tags: &[u8]) -> Vec<u8> {
    frame.splice(12..12, tags.iter().copied());
    frame
}

fn repair_ip_checksum(frame: &mut [u8]) {
    let header_len = usize::from(frame[LINK] & 0x0f) * 4;
    frame[LINK + 10..LINK + 12].fill(0);
    let checksum = Sum::default().bytes(&frame[LINK..LINK + header_len]).checksum();
    frame[LINK + 10..LINK + 12].copy_from_slice(&checksum.to_be_bytes());
}

/// Of a segment over IPv4 without options of IP.
fn repair_tcp_checksum(frame: &mut [u8]) {
    let end = LINK + usize::from(u16::from_be_bytes([frame[LINK + 2], frame[LINK + 3]]));
    let at = LINK + IPV4 + 16;
    frame[at..at + 2].fill(0);
    let segment = &frame[LINK + IPV4..end];
    let pseudo = Sum::pseudo_v4(PEER_V4, OURS_V4, 6, u16::try_from(segment.len()).unwrap());
    let checksum = pseudo.bytes(segment).checksum();
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn segment_of(frame: &[u8]) -> Segment {
    match parse(frame, Checksums::Verify).expect("parses").body {
        Body::Segment(segment) => segment,
        Body::Icmp(_) => panic!("a segment"),
    }
}

fn refusal(frame: &[u8]) -> DropReason {
    parse(frame, Checksums::Verify).expect_err("is refused")
}

fn endpoint(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}
