//! ICMP errors about our segments.

use super::*;
use crate::seq::SeqNumber;
use crate::wire::icmp::{MTU_MIN_V4, MTU_MIN_V6};
use crate::wire::{IcmpError, IcmpKind};

const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);

/// An ICMPv4 error with 1400 in its MTU field.
pub(super) fn v4_error(kind: u8, code: u8, quote: &[u8]) -> Vec<u8> {
    v4_error_with(kind, code, 1400, quote)
}

fn v4_error_with(kind: u8, code: u8, mtu: u16, quote: &[u8]) -> Vec<u8> {
    let [high, low] = mtu.to_be_bytes();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(PEER_MAC, OUR_MAC)
        .ipv4(ROUTER_V4.octets(), OURS_V4.octets(), 64)
        .icmpv4_raw(kind, code, [0, 0, high, low])
        .write_to_vec(&mut frame, quote)
        .unwrap();
    frame
}

/// An ICMPv6 error with 1400 in its MTU field.
pub(super) fn v6_error(kind: u8, code: u8, quote: &[u8]) -> Vec<u8> {
    v6_error_with(kind, code, 1400, quote)
}

fn v6_error_with(kind: u8, code: u8, mtu: u32, quote: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(PEER_MAC, OUR_MAC)
        .ipv6(ROUTER_V6.octets(), OURS_V6.octets(), 64)
        .icmpv6_raw(kind, code, mtu.to_be_bytes())
        .write_to_vec(&mut frame, quote)
        .unwrap();
    frame
}

/// A packet that we sent: from port 40000, sequence number 0x01020304.
fn quoted_v4() -> Vec<u8> {
    frame(ipv4(OURS_V4, PEER_V4), tcp(), b"text").split_off(LINK)
}

fn quoted_v6() -> Vec<u8> {
    frame(ipv6(OURS_V6, PEER_V6), tcp(), b"text").split_off(LINK)
}

fn error_of(frame: &[u8]) -> IcmpError {
    match parse(frame, Checksums::Verify).expect("parses").body {
        Body::Icmp(error) => error,
        Body::Segment(_) => panic!("an ICMP error"),
    }
}

#[test]
fn the_quoted_segment_is_read() {
    let packet = parse(&v4_error(3, 4, &quoted_v4()), Checksums::Verify).unwrap();
    assert_eq!((packet.local, packet.remote), (OURS_V4.into(), ROUTER_V4.into()));
    let v4 = error_of(&v4_error(3, 4, &quoted_v4()));
    assert_eq!(
        v4,
        IcmpError {
            kind: IcmpKind::PacketTooBig { mtu: 1400 },
            embedded_local: endpoint(OURS_V4, 40000),
            embedded_remote: endpoint(PEER_V4, 443),
            embedded_seq: SeqNumber(0x0102_0304),
        }
    );
    let v6 = error_of(&v6_error(2, 0, &quoted_v6()));
    assert_eq!(
        v6,
        IcmpError {
            kind: IcmpKind::PacketTooBig { mtu: 1400 },
            embedded_local: endpoint(OURS_V6, 40000),
            embedded_remote: endpoint(PEER_V6, 443),
            embedded_seq: SeqNumber(0x0102_0304),
        }
    );
}

#[test]
fn eight_bytes_of_tcp_are_enough_and_seven_are_not() {
    assert_eq!(error_of(&v4_error(3, 1, &quoted_v4()[..28])).embedded_seq, SeqNumber(0x0102_0304));
    assert_eq!(refusal(&v4_error(3, 1, &quoted_v4()[..27])), DropReason::BadIcmp);
    assert_eq!(error_of(&v6_error(1, 4, &quoted_v6()[..48])).embedded_seq, SeqNumber(0x0102_0304));
    assert_eq!(refusal(&v6_error(1, 4, &quoted_v6()[..47])), DropReason::BadIcmp);
}

#[test]
fn kinds_are_told_apart() {
    let v4 =
        |kind, code| parse(&v4_error(kind, code, &quoted_v4()), Checksums::Verify).map(|packet| packet.body);
    let kind_of = |body| match body {
        Ok(Body::Icmp(error)) => Ok(error.kind),
        Ok(Body::Segment(_)) => panic!("an ICMP error"),
        Err(reason) => Err(reason),
    };
    assert_eq!(kind_of(v4(3, 1)), Ok(IcmpKind::Unreachable { code: 1 }));
    for other in [4, 5, 11, 12] {
        assert_eq!(kind_of(v4(other, 0)), Ok(IcmpKind::Other));
    }
    // Echo request.
    assert_eq!(kind_of(v4(8, 0)), Err(DropReason::NotTcp));
    let v6 =
        |kind, code| parse(&v6_error(kind, code, &quoted_v6()), Checksums::Verify).map(|packet| packet.body);
    assert_eq!(kind_of(v6(1, 4)), Ok(IcmpKind::Unreachable { code: 4 }));
    assert_eq!(kind_of(v6(3, 0)), Ok(IcmpKind::Other));
    assert_eq!(kind_of(v6(4, 0)), Ok(IcmpKind::Other));
    // Neighbour solicitation.
    assert_eq!(kind_of(v6(135, 0)), Err(DropReason::NotTcp));
}

#[test]
fn an_mtu_has_a_floor_and_a_silent_router_means_the_next_plateau() {
    let mtu = |stated, quoted_len: u16| {
        let mut quote = quoted_v4();
        quote[2..4].copy_from_slice(&quoted_len.to_be_bytes());
        error_of(&v4_error_with(3, 4, stated, &quote)).kind
    };
    for (stated, quoted_len, expected) in [
        (MTU_MIN_V4 as u16, 1500, MTU_MIN_V4),
        (MTU_MIN_V4 as u16 - 1, 1500, MTU_MIN_V4),
        (1, 1500, MTU_MIN_V4),
        (0, 1500, 1492),
        (0, 1492, 1006),
        (0, 9000, 8166),
        (0, 60, MTU_MIN_V4),
    ] {
        assert_eq!(mtu(stated, quoted_len), IcmpKind::PacketTooBig { mtu: expected });
    }
}

#[test]
fn an_ipv6_mtu_below_the_minimum_is_discarded() {
    let smallest = error_of(&v6_error_with(2, 0, MTU_MIN_V6, &quoted_v6()));
    assert_eq!(smallest.kind, IcmpKind::PacketTooBig { mtu: MTU_MIN_V6 });
    assert_eq!(refusal(&v6_error_with(2, 0, MTU_MIN_V6 - 1, &quoted_v6())), DropReason::BadIcmp);
}

#[test]
fn a_quotation_that_is_not_ours_is_refused() {
    // From the peer, to us: we did not send that.
    assert_eq!(refusal(&v4_error(3, 1, &v4_frame(b"")[LINK..])), DropReason::BadIcmp);
    assert_eq!(refusal(&v6_error(1, 1, &v6_frame(b"")[LINK..])), DropReason::BadIcmp);
    for (at, value, reason) in [
        (0, 0x65, DropReason::BadIcmp),
        (0, 0x44, DropReason::BadIcmp),
        (7, 1, DropReason::BadIcmp),
        (9, 17, DropReason::NotTcp),
    ] {
        let mut quote = quoted_v4();
        quote[at] = value;
        assert_eq!(refusal(&v4_error(3, 1, &quote)), reason);
    }
    let mut quote = quoted_v6();
    quote[6] = 17;
    assert_eq!(refusal(&v6_error(1, 1, &quote)), DropReason::NotTcp);
    quote[0] = 0x40;
    assert_eq!(refusal(&v6_error(1, 1, &quote)), DropReason::BadIcmp);
}

#[test]
fn damaged_errors_are_dropped() {
    for mut frame in [v4_error(3, 1, &quoted_v4()), v6_error(1, 1, &quoted_v6())] {
        let last = frame.len() - 1;
        frame[last] ^= 1;
        assert_eq!(refusal(&frame), DropReason::BadIcmpChecksum);
    }
    let mut short = v6_error(1, 1, &quoted_v6());
    short[LINK + 5] = 7;
    assert_eq!(refusal(&short), DropReason::Runt);
}
