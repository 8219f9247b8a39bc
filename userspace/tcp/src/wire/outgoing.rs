//! The way out: a segment's headers, written before text that lies in its frame already.

use std::net::{IpAddr, SocketAddr};

use super::checksum::Sum;
use super::options::Options;
use super::tcp::{self, Flags};
use super::{ip, ipv4, ipv6};
use crate::seq::SeqNumber;

/// Headers of a segment that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Source.
    pub local: SocketAddr,
    /// Destination, of the same family.
    pub remote: SocketAddr,
    /// SEG.SEQ.
    pub seq: SeqNumber,
    /// SEG.ACK: written as zero without [`Flags::ACK`].
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND, scaled already.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options.
    pub options: Options,
}

impl Outgoing {
    /// Bytes of the IP and TCP headers.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.ip_header_len() + tcp::HEADER_LEN + self.options.encoded_len()
    }

    fn ip_header_len(&self) -> usize {
        match self.local {
            SocketAddr::V4(_) => ipv4::HEADER_LEN,
            SocketAddr::V6(_) => ipv6::HEADER_LEN,
        }
    }

    /// Writes the headers into `frame`, from `link_header_len` on, before the `payload_len` bytes that
    /// lie right behind them. Answers the frame's length.
    ///
    /// # Panics
    /// If the frame is too short, or the addresses are of two families.
    pub fn write(&self, frame: &mut [u8], link_header_len: usize, payload_len: usize) -> usize {
        let packet_len = self.header_len() + payload_len;
        let packet = &mut frame[link_header_len..link_header_len + packet_len];
        let (ip_header, segment) = packet.split_at_mut(self.ip_header_len());
        self.write_tcp_header(segment);
        let pseudo = self.write_ip_header(ip_header, segment.len());
        let checksum = pseudo.bytes(segment).checksum();
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        link_header_len + packet_len
    }

    /// Answers the sum of the pseudo-header.
    fn write_ip_header(&self, header: &mut [u8], segment_len: usize) -> Sum {
        let len = u16::try_from(segment_len).expect("a packet fits its frame");
        match (self.local.ip(), self.remote.ip()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let header = header.first_chunk_mut().expect("cut to this length");
                ipv4::write(header, local, remote, ip::TCP, segment_len);
                Sum::pseudo_v4(local, remote, ip::TCP, len)
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                let header = header.first_chunk_mut().expect("cut to this length");
                ipv6::write(header, local, remote, ip::TCP, segment_len);
                Sum::pseudo_v6(local, remote, ip::TCP, len)
            }
            _ => panic!("a segment between two families of addresses"),
        }
    }

    /// With a checksum of zero.
    fn write_tcp_header(&self, segment: &mut [u8]) {
        let options_len = self.options.encoded_len();
        let words = u8::try_from((tcp::HEADER_LEN + options_len) / 4).expect("at most 60 bytes of header");
        let ack = if self.flags.contains(Flags::ACK) { self.ack } else { SeqNumber(0) };
        segment[0..2].copy_from_slice(&self.local.port().to_be_bytes());
        segment[2..4].copy_from_slice(&self.remote.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.seq.0.to_be_bytes());
        segment[8..12].copy_from_slice(&ack.0.to_be_bytes());
        segment[12] = words << 4;
        segment[13] = self.flags.0;
        segment[14..16].copy_from_slice(&self.window.to_be_bytes());
        segment[16..18].fill(0);
        segment[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        self.options.write(&mut segment[tcp::HEADER_LEN..]);
    }
}
