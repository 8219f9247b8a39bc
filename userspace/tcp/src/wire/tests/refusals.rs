//! What is dropped, and why.

use etherparse::{IpAuthHeader, IpNumber, Ipv6FragmentHeader, Ipv6RawExtHeader, Ipv6RoutingExtensions};
use proptest::prelude::*;

use super::*;

/// IPv4 with options of IP.
fn with_ip_options(options: &[u8; 4]) -> Vec<u8> {
    let IpHeaders::Ipv4(mut header, extensions) = ipv4(PEER_V4, OURS_V4) else { unreachable!() };
    header.options = (*options).into();
    frame(IpHeaders::Ipv4(header, extensions), tcp(), b"text")
}

/// IPv4 with one byte of the IP header changed, and its checksum right again.
fn with_ip_byte(at: usize, value: u8) -> Vec<u8> {
    let mut frame = v4_frame(b"text");
    frame[LINK + at] = value;
    repair_ip_checksum(&mut frame);
    frame
}

#[test]
fn no_truncation_of_a_frame_is_taken() {
    for sound in [v4_frame(b"text"), v6_frame(b"text"), with_tags(v4_frame(b""), &[0x81, 0, 0, 5])] {
        assert!(parse(&sound, Checksums::TrustPartial).is_ok());
        for len in 0..sound.len() {
            assert!(parse(&sound[..len], Checksums::TrustPartial).is_err(), "{len}");
        }
    }
}

#[test]
fn other_protocols_are_not_ours() {
    let mut arp = v4_frame(b"");
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(refusal(&arp), DropReason::NotIp);
    let mut length_field = v4_frame(b"");
    length_field[12..14].copy_from_slice(&[0x00, 0x28]);
    assert_eq!(refusal(&length_field), DropReason::NotIp);
    let three_tags = with_tags(v4_frame(b""), &[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3]);
    assert_eq!(refusal(&three_tags), DropReason::NotIp);
    let udp = with_ip_byte(9, 17);
    assert_eq!(refusal(&udp), DropReason::NotTcp);
    let mut no_next_header = v6_frame(b"");
    no_next_header[LINK + 6] = 59;
    assert_eq!(refusal(&no_next_header), DropReason::NotTcp);
    // ICMP of the other family.
    assert_eq!(refusal(&with_ip_byte(9, 58)), DropReason::NotTcp);
}

#[test]
fn ip_headers_that_make_no_sense_are_dropped() {
    let mut version = v4_frame(b"");
    version[LINK] = 0x55;
    assert_eq!(refusal(&version), DropReason::BadIpHeader);
    let mut short = v4_frame(b"");
    short[LINK] = 0x44;
    assert_eq!(refusal(&short), DropReason::BadIpHeader);
    let mut version = v6_frame(b"");
    version[LINK] = 0x40;
    assert_eq!(refusal(&version), DropReason::BadIpHeader);
    let mut damaged = v4_frame(b"");
    damaged[LINK + 8] ^= 1;
    assert_eq!(refusal(&damaged), DropReason::BadIpHeaderChecksum);
    assert_eq!(refusal(&with_ip_options(&[7, 1, 0, 0])), DropReason::BadIpHeader);
    assert_eq!(refusal(&with_ip_options(&[7, 5, 0, 0])), DropReason::BadIpHeader);
    assert_eq!(refusal(&with_ip_options(&[1, 1, 1, 7])), DropReason::BadIpHeader);
}

#[test]
fn lengths_must_fit_the_frame_and_the_headers() {
    // 20 + 20 + 4 bytes: total length 44.
    assert!(parse(&with_ip_byte(3, 44), Checksums::Verify).is_ok());
    assert_eq!(refusal(&with_ip_byte(3, 45)), DropReason::BadIpLength);
    assert_eq!(refusal(&with_ip_byte(3, 19)), DropReason::BadIpLength);
    assert_eq!(refusal(&with_ip_byte(3, 20)), DropReason::BadTcpHeader);
    assert_eq!(refusal(&with_ip_byte(3, 39)), DropReason::BadTcpHeader);
    assert_eq!(refusal(&with_ip_byte(3, 43)), DropReason::BadTcpChecksum);
    let mut long = v6_frame(b"text");
    long[LINK + 5] += 1;
    assert_eq!(refusal(&long), DropReason::BadIpLength);
    let mut jumbogram = v6_frame(b"text");
    jumbogram[LINK + 5] = 0;
    assert_eq!(refusal(&jumbogram), DropReason::BadTcpHeader);
}

#[test]
fn a_data_offset_outside_of_the_segment_is_dropped() {
    for (words, taken) in [(4, false), (5, true), (6, true), (7, false), (15, false)] {
        let mut frame = v4_frame(b"text");
        frame[LINK + IPV4 + 12] = words << 4;
        repair_tcp_checksum(&mut frame);
        let expected = if taken { None } else { Some(DropReason::BadTcpHeader) };
        assert_eq!(parse(&frame, Checksums::Verify).err(), expected, "{words}");
    }
}

#[test]
fn fragments_are_dropped_and_df_is_none() {
    assert!(parse(&with_ip_byte(6, 0x40), Checksums::Verify).is_ok());
    assert_eq!(refusal(&with_ip_byte(6, 0x20)), DropReason::Fragment);
    assert_eq!(refusal(&with_ip_byte(7, 0x01)), DropReason::Fragment);
    let fragment = Ipv6FragmentHeader::new(IpNumber::TCP, IpFragOffset::ZERO, true, 1);
    let extensions = Ipv6Extensions { fragment: Some(fragment), ..Ipv6Extensions::default() };
    let frame = frame(ipv6_with(PEER_V6, OURS_V6, extensions), tcp(), b"text");
    assert_eq!(refusal(&frame), DropReason::Fragment);
}

#[test]
fn source_routes_are_dropped() {
    assert_eq!(refusal(&with_ip_options(&[131, 3, 4, 0])), DropReason::SourceRoute);
    assert_eq!(refusal(&with_ip_options(&[1, 137, 3, 4])), DropReason::SourceRoute);
    // One segment left.
    let routing = Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[0, 1, 0, 0, 0, 0]).unwrap();
    let routing = Ipv6RoutingExtensions { routing, final_destination_options: None };
    let extensions = Ipv6Extensions { routing: Some(routing), ..Ipv6Extensions::default() };
    let frame = frame(ipv6_with(PEER_V6, OURS_V6, extensions), tcp(), b"text");
    assert_eq!(refusal(&frame), DropReason::SourceRoute);
}

#[test]
fn six_extension_headers_are_walked_and_a_seventh_is_not() {
    for (count, taken) in [(6, true), (7, false)] {
        let mut frame = v6_frame(b"text");
        for next in (0..count).map(|walked| if walked == 0 { 6 } else { 60 }) {
            frame.splice(LINK + IPV6..LINK + IPV6, [next, 0, 1, 4, 0, 0, 0, 0]);
            frame[LINK + 6] = 60;
            frame[LINK + 5] += 8;
        }
        let expected = if taken { None } else { Some(DropReason::TooManyExtensionHeaders) };
        assert_eq!(parse(&frame, Checksums::Verify).err(), expected);
    }
}

#[test]
fn extension_headers_out_of_place_or_bounds_are_dropped() {
    let mut second_hop_by_hop = v6_frame(b"text");
    second_hop_by_hop.splice(LINK + IPV6..LINK + IPV6, [0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0]);
    second_hop_by_hop[LINK + 6] = 60;
    second_hop_by_hop[LINK + 5] += 16;
    assert_eq!(refusal(&second_hop_by_hop), DropReason::BadIpHeader);
    let mut overlong = v6_frame(b"text");
    overlong[LINK + 6] = 60;
    overlong[LINK + IPV6 + 1] = 255;
    assert_eq!(refusal(&overlong), DropReason::Runt);
}

#[test]
fn an_authentication_header_counts_in_words() {
    let auth = IpAuthHeader::new(IpNumber::TCP, 1, 1, &[0; 12]).unwrap();
    let extensions = Ipv6Extensions { auth: Some(auth), ..Ipv6Extensions::default() };
    let frame = frame(ipv6_with(PEER_V6, OURS_V6, extensions), tcp(), b"text");
    assert_eq!(&frame[segment_of(&frame).payload], b"text");
}

#[test]
fn nobody_speaks_from_or_to_a_group() {
    for address in
        [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST, Ipv4Addr::new(224, 0, 0, 1)]
    {
        assert_eq!(refusal(&frame(ipv4(address, OURS_V4), tcp(), b"")), DropReason::Martian);
        assert_eq!(refusal(&frame(ipv4(PEER_V4, address), tcp(), b"")), DropReason::Martian);
    }
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    for address in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, group, PEER_V4.to_ipv6_mapped()] {
        assert_eq!(refusal(&frame(ipv6(address, OURS_V6), tcp(), b"")), DropReason::Martian);
        assert_eq!(refusal(&frame(ipv6(PEER_V6, address), tcp(), b"")), DropReason::Martian);
    }
    let mut broadcast = v4_frame(b"");
    broadcast[..6].fill(0xff);
    assert_eq!(refusal(&broadcast), DropReason::Martian);
}

#[test]
fn a_segment_from_its_own_destination_is_dropped() {
    for (source_port, taken) in [(443, false), (444, true)] {
        let mut header = tcp();
        header.source_port = source_port;
        let frame = frame(ipv4(OURS_V4, OURS_V4), header, b"");
        let expected = if taken { None } else { Some(DropReason::Land) };
        assert_eq!(parse(&frame, Checksums::Verify).err(), expected);
    }
}

#[test]
fn damage_of_any_bit_behind_the_link_header_is_noticed() {
    for sound in [v4_frame(b"text"), v6_frame(b"text")] {
        let before = parse(&sound, Checksums::Verify).unwrap();
        for bit in LINK * 8..sound.len() * 8 {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // Nothing guards the first 4 bytes and the hop limit of IPv6.
            if let Ok(after) = parse(&damaged, Checksums::Verify) {
                assert_eq!(
                    (after.local, after.remote, after.body),
                    (before.local, before.remote, before.body.clone())
                );
            }
        }
    }
}

/// What holds of every packet that is taken.
fn assert_sound(frame: &[u8]) {
    for checksums in [Checksums::Verify, Checksums::TrustPartial] {
        let Ok(packet) = parse(frame, checksums) else { continue };
        assert_eq!(packet.local.is_ipv4(), packet.remote.is_ipv4());
        assert!(packet.ecn <= 3 && packet.link_header_len >= LINK);
        let Body::Segment(segment) = packet.body else { continue };
        assert!(segment.payload.start >= packet.link_header_len + IPV4 + 20);
        assert!(segment.payload.start <= segment.payload.end && segment.payload.end <= frame.len());
        assert!(segment.options.window_scale.is_none_or(|shift| shift <= 14));
        assert!(segment.options.mss != Some(0) && segment.options.sack.len() <= 4);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        assert_sound(&bytes);
    }

    #[test]
    fn no_bytes_behind_a_link_header_make_the_parser_panic(
        v4: bool, tags in 0_usize..4, bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut frame = if v4 { v4_frame(b"") } else { v6_frame(b"") };
        frame.truncate(LINK + 1);
        frame.extend(bytes);
        assert_sound(&with_tags(frame, &[0x81, 0, 0, 1].repeat(tags)));
    }

    #[test]
    fn no_change_of_a_sound_frame_makes_the_parser_panic(
        kind in 0..4, text in proptest::collection::vec(any::<u8>(), 0..60),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), repair: bool,
    ) {
        let mut frame = match kind {
            0 => v4_frame(&text),
            1 => v6_frame(&text),
            2 => icmp::v4_error(3, 4, &v4_frame(&text)[LINK..]),
            _ => icmp::v6_error(2, 0, &v6_frame(&text)[LINK..]),
        };
        for (index, value) in changes {
            let at = LINK + index.index(frame.len() - LINK);
            frame[at] = value;
        }
        // Beyond the checksums, where damage alone seldom comes.
        let header_end = LINK + usize::from(frame[LINK] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([frame[LINK + 2], frame[LINK + 3]]));
        if repair && header_end <= frame.len() && header_end >= LINK + 12 && kind == 0 {
            repair_ip_checksum(&mut frame);
            if (40..=frame.len() - LINK).contains(&total_len) {
                repair_tcp_checksum(&mut frame);
            }
        }
        assert_sound(&frame);
    }
}
