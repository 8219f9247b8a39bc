//! What routers say, and routes that change (RFC 1191, 5927, 8201; RFC 9293 §3.9.2).

use super::*;
use crate::event::ConnectFailure;
use crate::link::Hop;
use crate::memory_link::ETHERNET;

/// An ICMPv4 error that quotes the last segment we sent.
fn icmp(t: &Trace, kind: u8, code: u8, mtu: u16, seq: u32) -> Vec<u8> {
    let [local, remote] = [t.local, t.remote].map(|at| match at.ip() {
        std::net::IpAddr::V4(ip) => ip.octets(),
        std::net::IpAddr::V6(_) => panic!("IPv4 only"),
    });
    let mut quote = vec![0x45, 0, 5, 220, 0, 0, 0x40, 0, 64, 6, 0, 0];
    quote.extend_from_slice(&local);
    quote.extend_from_slice(&remote);
    quote.extend_from_slice(&t.local.port().to_be_bytes());
    quote.extend_from_slice(&t.remote.port().to_be_bytes());
    quote.extend_from_slice(&(t.iss.unwrap() + seq).0.to_be_bytes());
    let mut message = vec![kind, code, 0, 0, 0, 0];
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(&quote);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    let mut packet = vec![0; 12];
    packet.extend_from_slice(&[0x08, 0x00]);
    let len = u16::try_from(20 + message.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, 1, 0, 0, 203, 0, 113, 1];
    header.extend_from_slice(&local);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    packet.extend_from_slice(&header);
    packet.extend_from_slice(&message);
    packet
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

impl Trace {
    fn recv_icmp(&mut self, kind: u8, code: u8, mtu: u16, seq: u32) {
        let packet = icmp(self, kind, code, mtu, seq);
        let (frame, range) = self.link.received(&packet).unwrap();
        assert!(self.stack.receive(self.now, frame, range, &mut self.link).is_none());
        self.transmit();
    }
}

#[test]
fn packet_too_big_cuts_what_is_out_and_what_follows() {
    let mut t = Trace::accepted();
    t.send(1..2897);
    t.sent("A 1:1449 ack 1");
    t.sent("PA 1449:2897 ack 1");
    let cwnd = t.stack.info(t.id()).unwrap().cwnd;
    t.recv_icmp(3, 4, 1000, 1);
    t.sent("A 1:949 ack 1");
    t.sent("A 949:1449 ack 1");
    t.sent("A 1449:2397 ack 1");
    t.sent("PA 2397:2897 ack 1");
    t.quiet();
    assert_eq!(t.stack.info(t.id()).unwrap().smss, 948);
    assert!(t.stack.info(t.id()).unwrap().cwnd >= cwnd * 9 / 10, "that is no congestion");
    t.recv("A 1:1 ack 2897 win 1000");
    t.send(2897..4000);
    t.sent("A 2897:3845 ack 1");
    t.sent("PA 3845:4000 ack 1");
}

#[test]
fn packet_too_big_about_nothing_in_flight_is_not_believed() {
    let mut t = Trace::accepted();
    t.send(1..1449);
    t.sent("PA 1:1449 ack 1");
    for seq in [0, 1449, 100_000] {
        t.recv_icmp(3, 4, 1000, seq);
    }
    t.quiet();
    assert_eq!(t.stack.info(t.id()).unwrap().smss, 1448);
    assert_eq!(t.dropped(DropReason::IcmpNotInFlight), 3);
    // In flight, but no lower than what we use.
    t.recv_icmp(3, 4, 1500, 1);
    assert_eq!(t.dropped(DropReason::IcmpNotInFlight), 4);
}

#[test]
fn a_tiny_mtu_is_not_believed_below_the_floor() {
    let mut t = Trace::accepted();
    t.send(1..1449);
    t.sent_any();
    t.recv_icmp(3, 4, 68, 1);
    assert_eq!(t.stack.info(t.id()).unwrap().smss, 552 - 52);
}

#[test]
fn unreachable_is_a_hint_for_a_connection_and_the_end_of_a_dial() {
    let mut t = Trace::accepted();
    t.send(1..1449);
    t.sent_any();
    for code in 0..16 {
        if code != 4 {
            t.recv_icmp(3, code, 0, 1);
        }
    }
    assert_eq!(t.state(), State::Established);
    assert_eq!(t.stack.counters().soft_errors, 15);

    let mut t = Trace::dialling();
    t.recv_icmp(3, 1, 0, 0);
    assert_eq!(t.state(), State::SynSent);
    t.recv_icmp(3, 3, 0, 0);
    assert_eq!(t.events, [Event::ConnectFailed(t.id(), ConnectFailure::Unreachable)]);
    t.gone();
}

#[test]
fn an_icmp_error_of_nobody_comes_back() {
    let mut t = Trace::accepted();
    let packet = icmp(&t, 3, 4, 1000, 1);
    t.stack.abort(t.now, t.id(), &mut t.link);
    let (frame, range) = t.link.received(&packet).unwrap();
    let unknown = t.stack.receive(t.now, frame, range, &mut t.link).expect("it is unknown");
    assert_eq!((unknown.local, unknown.remote), (t.local, t.remote));
    t.link.release(unknown.frame);
}

#[test]
fn after_three_timeouts_in_a_row_smaller_segments_are_tried() {
    let mut t = Trace::accepted();
    t.send(1..1449);
    t.sent("PA 1:1449 ack 1");
    for _ in 0..2 {
        t.pass_ms(u64::try_from(t.stack.info(t.id()).unwrap().rto.as_millis()).unwrap());
        t.sent("PA 1:1449 ack 1");
    }
    t.pass_ms(u64::try_from(t.stack.info(t.id()).unwrap().rto.as_millis()).unwrap());
    t.sent("A 1:1013 ack 1");
}

#[test]
fn routes_that_change_are_asked_for_again_and_text_moves_behind_longer_headers() {
    let mut t = Trace::accepted();
    t.queue(1..101);
    let tagged = Hop { id: 7, header_len: 18, mtu_bytes: 1400 };
    t.link.set_hop(Some(tagged));
    t.stack.forget_hops();
    t.transmit();
    t.sent("PA 1:101 ack 1");
    assert_eq!(t.stack.info(t.id()).unwrap().smss, 1348);
    assert_eq!(t.stack.counters().copies, 1);
}

#[test]
fn without_a_route_text_waits_for_one() {
    let mut t = Trace::accepted();
    t.link.set_hop(None);
    t.stack.forget_hops();
    t.send(1..101);
    t.quiet();
    assert_eq!(t.stack.counters().no_route, 1);
    t.link.set_hop(Some(ETHERNET));
    t.pass_ms(1000);
    t.sent("PA 1:101 ack 1");
}
