//! Sound segments, in and out.

use etherparse::TransportSlice;
use etherparse::{
    IpNumber, Ipv6RawExtHeader, Ipv6RoutingExtensions, NetSlice, SlicedPacket, TcpOptionElement,
};
use proptest::prelude::*;

use super::*;
use crate::link::VlanTag;
use crate::seq::SeqNumber;
use crate::wire::{Flags, Options, Outgoing, SackBlock, SackBlocks, Timestamps};

#[test]
fn every_field_of_a_segment_is_read() {
    let mut header = tcp();
    header.psh = true;
    header.urg = true;
    header.urgent_pointer = 7;
    for (ip, local, remote) in [
        (ipv4(PEER_V4, OURS_V4), IpAddr::from(OURS_V4), IpAddr::from(PEER_V4)),
        (ipv6(PEER_V6, OURS_V6), IpAddr::from(OURS_V6), IpAddr::from(PEER_V6)),
    ] {
        let frame = frame(ip, header.clone(), b"text");
        let packet = parse(&frame, Checksums::Verify).unwrap();
        assert_eq!((packet.local, packet.remote), (local, remote));
        assert_eq!((packet.link_header_len, packet.vlan, packet.source_mac), (LINK, None, PEER_MAC));
        assert_eq!(packet.ecn, 0);
        let Body::Segment(segment) = packet.body else { panic!("a segment") };
        assert_eq!((segment.remote_port, segment.local_port), (40000, 443));
        assert_eq!((segment.seq, segment.ack), (SeqNumber(0x0102_0304), SeqNumber(0xfffe_fdfc)));
        assert_eq!(segment.flags, Flags::ACK | Flags::PSH | Flags::URG);
        assert_eq!((segment.window, segment.urgent), (512, 7));
        assert_eq!(segment.options, Options::default());
        assert_eq!(&frame[segment.payload.clone()], b"text");
        assert_eq!(segment.len(), 4);
    }
}

#[test]
fn syn_and_fin_occupy_sequence_space() {
    let mut header = tcp();
    assert!(segment_of(&frame(ipv4(PEER_V4, OURS_V4), header.clone(), b"")).is_empty());
    header.syn = true;
    header.fin = true;
    assert_eq!(segment_of(&frame(ipv4(PEER_V4, OURS_V4), header, b"abc")).len(), 5);
}

#[test]
fn padding_of_a_short_frame_is_not_text() {
    for sound in [v4_frame(b""), v4_frame(b"x"), v6_frame(b"x")] {
        let mut padded = sound.clone();
        padded.extend([0xee; 20]);
        assert_eq!(parse(&padded, Checksums::Verify), parse(&sound, Checksums::Verify));
    }
}

#[test]
fn the_inner_tag_is_the_vlan() {
    let customer = [0x81, 0x00, 0x20, 0x05];
    let service = [0x88, 0xa8, 0x00, 0x64];
    let double = [service, customer].concat();
    for (tags, vlan) in
        [(&[][..], None), (&customer, Some(0x2005)), (&service, Some(100)), (&double, Some(0x2005))]
    {
        let frame = with_tags(v4_frame(b"text"), tags);
        let packet = parse(&frame, Checksums::Verify).unwrap();
        assert_eq!(packet.vlan, vlan.map(VlanTag));
        assert_eq!(packet.link_header_len, LINK + tags.len());
        assert_eq!(&frame[segment_of(&frame).payload], b"text");
    }
}

#[test]
fn congestion_marks_are_read_from_both_headers() {
    let mut v4 = v4_frame(b"");
    v4[LINK + 1] = 0xab;
    repair_ip_checksum(&mut v4);
    assert_eq!(parse(&v4, Checksums::Verify).unwrap().ecn, 0b11);
    let mut v6 = v6_frame(b"");
    v6[LINK] = 0x6f;
    v6[LINK + 1] = 0xdf;
    assert_eq!(parse(&v6, Checksums::Verify).unwrap().ecn, 0b01);
}

#[test]
fn unknown_ip_options_are_ignored() {
    // NOP, router alert (RFC 2113), end of list, and what lies behind it.
    let options = [1, 148, 4, 0, 0, 0, 131, 3];
    let IpHeaders::Ipv4(mut header, extensions) = ipv4(PEER_V4, OURS_V4) else { unreachable!() };
    header.options = options.into();
    let frame = frame(IpHeaders::Ipv4(header, extensions), tcp(), b"text");
    assert_eq!(&frame[segment_of(&frame).payload], b"text");
}

#[test]
fn extension_headers_are_walked() {
    let raw = |len| Ipv6RawExtHeader::new_raw(IpNumber::TCP, &vec![0; len]).unwrap();
    let mut routing = raw(6);
    routing = Ipv6RawExtHeader::new_raw(routing.next_header, &[4, 0, 0, 0, 0, 0]).unwrap();
    let extensions = Ipv6Extensions {
        hop_by_hop_options: Some(raw(6)),
        destination_options: Some(raw(14)),
        routing: Some(Ipv6RoutingExtensions { routing, final_destination_options: Some(raw(22)) }),
        ..Ipv6Extensions::default()
    };
    let frame = frame(ipv6_with(PEER_V6, OURS_V6, extensions), tcp(), b"text");
    assert_eq!(&frame[segment_of(&frame).payload], b"text");
}

#[test]
fn the_options_of_a_linux_syn_are_read() {
    let mut header = tcp();
    header.syn = true;
    header
        .set_options(&[
            TcpOptionElement::MaximumSegmentSize(1460),
            TcpOptionElement::SelectiveAcknowledgementPermitted,
            TcpOptionElement::Timestamp(0x1111_2222, 0x3333_4444),
            TcpOptionElement::Noop,
            TcpOptionElement::WindowScale(7),
        ])
        .unwrap();
    let options = segment_of(&frame(ipv4(PEER_V4, OURS_V4), header, b"")).options;
    assert_eq!(
        options,
        Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 0x1111_2222, echo: 0x3333_4444 }),
            sack: SackBlocks::default(),
        }
    );
}

#[test]
fn text_of_every_length_and_alignment_sums_up() {
    for len in 0..70 {
        let text: Vec<u8> = (0..len).map(|n: u8| n.wrapping_mul(37)).collect();
        assert_eq!(segment_of(&v4_frame(&text)).payload.len(), text.len());
        assert_eq!(segment_of(&v6_frame(&text)).payload.len(), text.len());
    }
}

#[test]
fn a_partial_checksum_passes_only_if_it_is_trusted() {
    for (mut frame, pseudo, at) in [
        (v4_frame(b"text"), Sum::pseudo_v4(PEER_V4, OURS_V4, 6, 24), LINK + IPV4 + 16),
        (v6_frame(b"text"), Sum::pseudo_v6(PEER_V6, OURS_V6, 6, 24), LINK + IPV6 + 16),
    ] {
        frame[at..at + 2].copy_from_slice(&pseudo.folded().to_be_bytes());
        assert_eq!(refusal(&frame), DropReason::PartialTcpChecksum);
        assert!(parse(&frame, Checksums::TrustPartial).is_ok());
        frame[at] ^= 1;
        assert_eq!(refusal(&frame), DropReason::BadTcpChecksum);
        assert_eq!(parse(&frame, Checksums::TrustPartial), Err(DropReason::BadTcpChecksum));
    }
}

fn endpoints() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = (1_u8..=126, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| IpAddr::from([a, b, c, d]));
    let v6 = any::<[u8; 14]>().prop_map(|tail| {
        let mut octets = [0x20; 16];
        octets[2..].copy_from_slice(&tail);
        IpAddr::from(octets)
    });
    let pair = prop_oneof![(v4.clone(), v4), (v6.clone(), v6)];
    (pair, any::<[u16; 2]>()).prop_map(|((local, remote), [local_port, remote_port])| {
        (SocketAddr::new(local, local_port), SocketAddr::new(remote, remote_port))
    })
}

prop_compose! {
    fn options(syn: bool)(
        mss in proptest::option::of(1_u16..), window_scale in proptest::option::of(0_u8..=14), sack_permitted in any::<bool>(),
        timestamps in any::<Option<(u32, u32)>>(), blocks in proptest::collection::vec(any::<(u32, u32)>(), 0..=4),
    ) -> Options {
        let timestamps = timestamps.map(|(value, echo)| Timestamps { value, echo });
        let mut sack = SackBlocks::default();
        // Three fit beside timestamps.
        let blocks_max = if timestamps.is_some() { 3 } else { 4 };
        for (left, right) in blocks.into_iter().take(blocks_max) {
            sack.push(SackBlock { left: SeqNumber(left), right: SeqNumber(right) });
        }
        if syn {
            Options { mss, window_scale, sack_permitted, timestamps, sack: SackBlocks::default() }
        } else {
            Options { timestamps, sack, ..Options::default() }
        }
    }
}

prop_compose! {
    fn outgoing()(flags in any::<u8>())(
        flags in Just(Flags(flags)), options in options(Flags(flags).contains(Flags::SYN)),
        (local, remote) in endpoints().prop_filter("land", |(local, remote)| local != remote),
        (seq, ack) in any::<(u32, u32)>(), (window, urgent) in any::<(u16, u16)>(),
    ) -> Outgoing {
        let ack = SeqNumber(if flags.contains(Flags::ACK) { ack } else { 0 });
        Outgoing { local, remote, seq: SeqNumber(seq), ack, flags, window, urgent, options }
    }
}

/// A frame of `outgoing` before `text`, as the peer receives it.
fn written(outgoing: &Outgoing, text: &[u8]) -> Vec<u8> {
    let headers_end = LINK + outgoing.header_len();
    // What the frame held before must not matter.
    let mut frame = vec![0xa5; headers_end + text.len() + 9];
    let ethertype: u16 = if outgoing.local.is_ipv4() { 0x0800 } else { 0x86dd };
    frame[..6].copy_from_slice(&OUR_MAC);
    frame[6..12].copy_from_slice(&PEER_MAC);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
    frame[headers_end..headers_end + text.len()].copy_from_slice(text);
    let len = outgoing.write(&mut frame, LINK, text.len());
    assert_eq!(len, headers_end + text.len());
    frame.truncate(len);
    frame
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(outgoing in outgoing(), text in proptest::collection::vec(any::<u8>(), 0..100)) {
        let frame = written(&outgoing, &text);
        let packet = parse(&frame, Checksums::Verify).unwrap();
        prop_assert_eq!((packet.local, packet.remote), (outgoing.remote.ip(), outgoing.local.ip()));
        let Body::Segment(segment) = packet.body else { panic!("a segment") };
        prop_assert_eq!((segment.local_port, segment.remote_port), (outgoing.remote.port(), outgoing.local.port()));
        prop_assert_eq!((segment.seq, segment.ack, segment.flags), (outgoing.seq, outgoing.ack, outgoing.flags));
        prop_assert_eq!((segment.window, segment.urgent), (outgoing.window, outgoing.urgent));
        prop_assert_eq!(segment.options, outgoing.options);
        prop_assert_eq!(&frame[segment.payload], &text[..]);
    }

    #[test]
    fn what_is_written_is_sound_to_others(outgoing in outgoing(), text in proptest::collection::vec(any::<u8>(), 0..100)) {
        let frame = written(&outgoing, &text);
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("TCP") };
        prop_assert_eq!(tcp.payload(), &text[..]);
        prop_assert_eq!(tcp.sequence_number(), outgoing.seq.0);
        prop_assert!(tcp.options_iterator().all(|option| option.is_ok()));
        match packet.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header().to_header();
                prop_assert_eq!(header.calc_header_checksum(), header.header_checksum);
                prop_assert!(header.dont_fragment && header.identification == 0 && header.time_to_live == 64);
                prop_assert_eq!(tcp.calc_checksum_ipv4(header.source, header.destination).unwrap(), tcp.checksum());
            }
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header().to_header();
                prop_assert_eq!((header.hop_limit, header.flow_label.value()), (64, 0));
                prop_assert_eq!(tcp.calc_checksum_ipv6(header.source, header.destination).unwrap(), tcp.checksum());
            }
            _ => panic!("IP"),
        }
    }
}
