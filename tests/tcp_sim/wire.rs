//! A packet as an independent reader sees it: written from RFC 791, 8200, 9293, 7323 and 2018, not from
//! the stack's own parser, so that a mistake is not made twice alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// One TCP segment in its packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: Options,
    /// Where the TCP header begins.
    pub(crate) tcp_at: usize,
    pub(crate) tcp_header_len: usize,
    pub(crate) payload_at: usize,
    pub(crate) payload_len: usize,
    pub(crate) ttl: u8,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) mss: Option<u16>,
    pub(crate) shift: Option<u8>,
    pub(crate) is_sack_permitted: bool,
    pub(crate) timestamps: Option<(u32, u32)>,
    sack: [(u32, u32); 4],
    sack_len: usize,
}

impl Options {
    pub(crate) fn sack(&self) -> &[(u32, u32)] {
        &self.sack[..self.sack_len]
    }
}

impl View {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers it occupies.
    pub(crate) fn len(&self) -> u32 {
        self.payload_len as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }

    pub(crate) fn payload(&self) -> Range<usize> {
        self.payload_at..self.payload_at + self.payload_len
    }

    /// Bytes of the IP packet.
    pub(crate) fn ip_len(&self, link_header_len: usize) -> usize {
        self.payload_at + self.payload_len - link_header_len
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The ones' complement sum of 16-bit words (RFC 1071), not folded.
fn sum(bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(4);
    let words: u64 = chunks.by_ref().map(|word| u64::from(be32(word, 0))).sum();
    let rest = chunks.remainder();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words + u64::from(u32::from_be_bytes(last))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// The checksum that makes `bytes`, in which its field is zero, and the pseudo header sum to nothing.
fn pseudo_sum(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> u64 {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => sum(&source.octets()) + sum(&destination.octets()),
        (IpAddr::V6(source), IpAddr::V6(destination)) => sum(&source.octets()) + sum(&destination.octets()),
        _ => unreachable!("both addresses are of one family"),
    };
    addresses + u64::from(protocol) + len as u64
}

/// Where the transport header begins and ends, between whom, and the hop limit.
type Network = (Range<usize>, IpAddr, IpAddr, u8);

fn read_v4(packet: &[u8], at: usize, protocol: u8) -> Result<Network, &'static str> {
    let ip = &packet[at..];
    if ip.len() < 20 || ip[0] != 0x45 {
        return Err("no plain IPv4 header");
    }
    let total = usize::from(be16(ip, 2));
    if total > ip.len() || total < 20 {
        return Err("IP length exceeds the packet");
    }
    if fold(sum(&ip[..20])) != 0xffff {
        return Err("bad IP checksum");
    }
    if be16(ip, 6) != 0x4000 {
        return Err("DF alone is expected");
    }
    if ip[9] != protocol {
        return Err("another protocol");
    }
    let address = |at: usize| IpAddr::V4(Ipv4Addr::from(be32(ip, at)));
    Ok((at + 20..at + total, address(12), address(16), ip[8]))
}

fn read_v6(packet: &[u8], at: usize, protocol: u8) -> Result<Network, &'static str> {
    let ip = &packet[at..];
    if ip.len() < 40 || ip[0] >> 4 != 6 {
        return Err("no IPv6 header");
    }
    let len = usize::from(be16(ip, 4));
    if 40 + len > ip.len() {
        return Err("IP length exceeds the packet");
    }
    if ip[6] != protocol {
        return Err("another protocol");
    }
    let address = |at: usize| {
        let octets: [u8; 16] = ip[at..at + 16].try_into().expect("16 bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    Ok((at + 40..at + 40 + len, address(8), address(24), ip[7]))
}

fn read_options(mut bytes: &[u8]) -> Result<Options, &'static str> {
    let mut options = Options::default();
    while let Some((&kind, rest)) = bytes.split_first() {
        match kind {
            0 => {
                return if rest.iter().all(|byte| *byte == 0) {
                    Ok(options)
                } else {
                    Err("bytes behind EOL")
                };
            }
            1 => bytes = rest,
            _ => {
                let len = usize::from(*rest.first().ok_or("an option without length")?);
                if len < 2 || len > bytes.len() {
                    return Err("an option's length");
                }
                let body = &bytes[2..len];
                match (kind, body.len()) {
                    (2, 2) => options.mss = Some(be16(body, 0)),
                    (3, 1) => options.shift = Some(body[0]),
                    (4, 0) => options.is_sack_permitted = true,
                    (5, 8 | 16 | 24 | 32) => {
                        for block in body.chunks_exact(8) {
                            options.sack[options.sack_len] = (be32(block, 0), be32(block, 4));
                            options.sack_len += 1;
                        }
                    }
                    (8, 8) => options.timestamps = Some((be32(body, 0), be32(body, 4))),
                    _ => return Err("an option that nobody sends here"),
                }
                bytes = &bytes[len..];
            }
        }
    }
    Ok(options)
}

/// Reads a packet behind a link header, and verifies every length and checksum.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn view(packet: &[u8], link_header_len: usize) -> Result<View, &'static str> {
    let version = packet.get(link_header_len).ok_or("nothing there")? >> 4;
    let (range, source, destination, ttl) = match version {
        4 => read_v4(packet, link_header_len, 6)?,
        _ => read_v6(packet, link_header_len, 6)?,
    };
    let tcp = &packet[range.clone()];
    if tcp.len() < 20 {
        return Err("no TCP header");
    }
    if fold(pseudo_sum(source, destination, 6, tcp.len()) + sum(tcp)) != 0xffff {
        return Err("bad TCP checksum");
    }
    let tcp_header_len = usize::from(tcp[12] >> 4) * 4;
    if tcp_header_len < 20 || tcp_header_len > tcp.len() {
        return Err("data offset");
    }
    Ok(View {
        source: SocketAddr::new(source, be16(tcp, 0)),
        destination: SocketAddr::new(destination, be16(tcp, 2)),
        seq: be32(tcp, 4),
        ack: be32(tcp, 8),
        flags: tcp[13],
        window: be16(tcp, 14),
        options: read_options(&tcp[20..tcp_header_len])?,
        tcp_at: range.start,
        tcp_header_len,
        payload_at: range.start + tcp_header_len,
        payload_len: tcp.len() - tcp_header_len,
        ttl,
    })
}

/// Writes a bare segment's packet: link header untouched, no options.
pub(crate) fn bare_segment(
    link_header_len: usize,
    [source, destination]: [SocketAddr; 2],
    (seq, ack, flags): (u32, u32, u8),
) -> Vec<u8> {
    let mut tcp = vec![0; 20];
    tcp[..2].copy_from_slice(&source.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&destination.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12..16].copy_from_slice(&[5 << 4, flags, 0x20, 0x00]);
    ip_packet(link_header_len, [source.ip(), destination.ip()], 6, &mut tcp, 16)
}

/// An IP packet around `body`, whose checksum over the pseudo header goes to `checksum_at`.
fn ip_packet(
    link_header_len: usize,
    [source, destination]: [IpAddr; 2],
    protocol: u8,
    body: &mut [u8],
    checksum_at: usize,
) -> Vec<u8> {
    // ICMP for IPv4 alone has no pseudo header (RFC 792).
    let pseudo = if protocol == 1 { 0 } else { pseudo_sum(source, destination, protocol, body.len()) };
    let checksum = !fold(pseudo + sum(body));
    body[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = vec![0; link_header_len];
    let len = body.len() as u16;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut ip = [0; 20];
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
            ip[6] = 0x40;
            (ip[8], ip[9]) = (64, protocol);
            ip[12..16].copy_from_slice(&source.octets());
            ip[16..20].copy_from_slice(&destination.octets());
            let checksum = !fold(sum(&ip));
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            packet.extend_from_slice(&ip);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend_from_slice(&[0x60, 0, 0, 0]);
            packet.extend_from_slice(&len.to_be_bytes());
            packet.extend_from_slice(&[protocol, 64]);
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
        }
        _ => unreachable!("both addresses are of one family"),
    }
    packet.extend_from_slice(body);
    packet
}

/// The ICMP error of a router that could not forward `packet` (RFC 1191, RFC 4443): it quotes its beginning.
pub(crate) fn packet_too_big(packet: &[u8], link_header_len: usize, view: &View, mtu: u16) -> Vec<u8> {
    let quoted = &packet[link_header_len..(view.tcp_at + 8)];
    let mut body = vec![0; 8];
    let (router, protocol): (IpAddr, u8) = match view.source {
        SocketAddr::V4(_) => {
            (body[0], body[1]) = (3, 4);
            body[6..8].copy_from_slice(&mtu.to_be_bytes());
            (Ipv4Addr::new(192, 0, 2, 254).into(), 1)
        }
        SocketAddr::V6(_) => {
            body[0] = 2;
            body[6..8].copy_from_slice(&mtu.to_be_bytes());
            (Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into(), 58)
        }
    };
    body.extend_from_slice(quoted);
    ip_packet(link_header_len, [router, view.source.ip()], protocol, &mut body, 2)
}

/// Writes the checksum of the segment that `view` describes.
fn mend_checksum(packet: &mut [u8], view: &View) {
    let tcp = view.tcp_at..view.payload_at + view.payload_len;
    let at = view.tcp_at + 16;
    packet[at..at + 2].fill(0);
    let pseudo = pseudo_sum(view.source.ip(), view.destination.ip(), 6, tcp.len());
    let checksum = !fold(pseudo + sum(&packet[tcp]));
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Where each option begins, and its kind, but for EOL.
fn option_starts(options: &[u8]) -> Vec<(usize, u8)> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at < options.len() && options[at] != 0 {
        starts.push((at, options[at]));
        at += if options[at] == 1 { 1 } else { usize::from(options[at + 1]) };
    }
    starts
}

/// Kinds of options, in order.
pub(crate) fn option_kinds(options: &[u8]) -> Vec<u8> {
    option_starts(options).into_iter().map(|(_, kind)| kind).collect()
}

/// Makes a segment acknowledge `ack`, selectively what is as far from that as before, and echo the
/// timestamp `echo`.
pub(crate) fn move_acknowledgement(packet: &mut [u8], view: &View, ack: u32, echo: u32) {
    let tcp_at = view.tcp_at;
    packet[tcp_at + 8..tcp_at + 12].copy_from_slice(&ack.to_be_bytes());
    let options = tcp_at + 20..view.payload_at;
    for (at, kind) in option_starts(&packet[options.clone()]) {
        let body = options.start + at + 2;
        if kind == 8 {
            packet[body + 4..body + 8].copy_from_slice(&echo.to_be_bytes());
        }
        if kind == 5 {
            let len = usize::from(packet[body - 1]) - 2;
            for edge in packet[body..body + len].chunks_exact_mut(4) {
                let moved = be32(edge, 0).wrapping_add(ack).wrapping_sub(view.ack);
                edge.copy_from_slice(&moved.to_be_bytes());
            }
        }
    }
    mend_checksum(packet, view);
}

/// What a middlebox does to options: each of `kinds` becomes NOPs, and the checksum is mended.
pub(crate) fn strip_options(packet: &mut [u8], view: &mut View, kinds: &[u8]) {
    let options = view.tcp_at + 20..view.payload_at;
    for (at, kind) in option_starts(&packet[options.clone()]) {
        if kinds.contains(&kind) {
            let at = options.start + at;
            let len = usize::from(packet[at + 1]);
            packet[at..at + len].fill(1);
        }
    }
    view.options = read_options(&packet[options]).expect("it was read before");
    mend_checksum(packet, view);
}

/// As tcpdump writes it, with sequence numbers as they are.
impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}: Flags [", self.source, self.destination)?;
        for (flag, letter) in [(SYN, "S"), (FIN, "F"), (RST, "R"), (0x08, "P"), (0x20, "U"), (ACK, ".")] {
            if self.has(flag) {
                f.write_str(letter)?;
            }
        }
        write!(f, "], seq {}", self.seq)?;
        if self.payload_len > 0 {
            write!(f, ":{}", self.seq.wrapping_add(self.payload_len as u32))?;
        }
        if self.has(ACK) {
            write!(f, ", ack {}", self.ack)?;
        }
        write!(f, ", win {}", self.window)?;
        let options = &self.options;
        if let Some(mss) = options.mss {
            write!(f, ", mss {mss}")?;
        }
        if options.is_sack_permitted {
            f.write_str(", sackOK")?;
        }
        if let Some((value, echo)) = options.timestamps {
            write!(f, ", TS val {value} ecr {echo}")?;
        }
        if let Some(shift) = options.shift {
            write!(f, ", wscale {shift}")?;
        }
        for (left, right) in options.sack() {
            write!(f, ", sack {left}:{right}")?;
        }
        write!(f, ", length {}", self.payload_len)
    }
}
