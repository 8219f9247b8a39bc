//! The decisions of the steering program, as tables: what it is, the packet, the way out.
//!
//! The kernel runs the program on each (BPF_PROG_TEST_RUN); nothing is sent. These tests need root.
#![forbid(unsafe_code)]

mod common;

use std::num::NonZeroU32;
use std::time::Duration;

use common::packet::*;
use common::{
    CLIENT, CLIENT6, DENIED, DENIED6, ELSEWHERE, ELSEWHERE6, FIRST, LAST, LISTEN, LISTEN6, PORT, STALE_AFTER,
    UPSTREAM, UPSTREAM6, World, ip, settings,
};
use mtproxy_xdp::{Exit, Settings, SynLimit, Verdict, monotonic_ns};

fn syn() -> Packet {
    packet(CLIENT, LISTEN, TCP, &tcp(EPHEMERAL, PORT, SYN))
}

fn syn6() -> Packet {
    packet(CLIENT6, LISTEN6, TCP, &tcp(EPHEMERAL, PORT, SYN))
}

#[test]
fn frames_are_read_through_two_vlan_tags_and_no_more() {
    let inner = syn().bytes();
    let inner6 = syn6().bytes();
    let qinq = |protocol, payload: &[u8]| eth(QINQ, &tag(VLAN, &tag(protocol, payload)));
    let mut group = syn().frame();
    group[0] |= 1;
    World::new().expect_all(&[
        ("ARP", eth(ARP, &[0; 46]), Exit::NotIp),
        ("an Ethernet header and nothing else", eth(IP, &[]), Exit::IpMalformed),
        ("one tag", eth(VLAN, &tag(IP, &inner)), Exit::RedirectedSyn),
        ("one tag, IPv6", eth(VLAN, &tag(IPV6, &inner6)), Exit::RedirectedSyn),
        ("one tag of a provider", eth(QINQ, &tag(IP, &inner)), Exit::RedirectedSyn),
        ("two tags", qinq(IP, &inner), Exit::RedirectedSyn),
        ("two tags, IPv6", qinq(IPV6, &inner6), Exit::RedirectedSyn),
        ("three tags", eth(QINQ, &tag(VLAN, &tag(VLAN, &tag(IP, &inner)))), Exit::VlanDepth),
        ("a tag that is cut short", eth(VLAN, &[0, 100, 8]), Exit::NotIp),
        ("a tag around ARP", eth(VLAN, &tag(ARP, &[0; 46])), Exit::NotIp),
        ("a frame for a group", group, Exit::GroupFrame),
    ]);
}

#[test]
fn ipv4_is_read_with_options_and_not_when_it_contradicts_itself() {
    let cut = |bytes: usize| eth(IP, &syn().bytes()[..bytes]);
    let changed = |at: usize, value: u8| {
        let mut frame = syn().frame();
        frame[14 + at] = value;
        frame
    };
    let mut padded = packet(CLIENT, LISTEN, TCP, &[]).frame();
    padded.extend(tcp(EPHEMERAL, PORT, SYN));
    World::new().expect_all(&[
        ("a plain SYN", syn().frame(), Exit::RedirectedSyn),
        ("4 bytes of options", syn().options(&[1; 4]).frame(), Exit::RedirectedSyn),
        ("40 bytes of options, the most", syn().options(&[1; 40]).frame(), Exit::RedirectedSyn),
        ("a header of 4 words", changed(0, 0x44), Exit::IpMalformed),
        ("version 5", changed(0, 0x55), Exit::IpMalformed),
        ("version 6 in a frame of IPv4", changed(0, 0x65), Exit::IpMalformed),
        ("19 bytes", cut(19), Exit::IpMalformed),
        ("a length that is less than the header", syn().length_error(-21).frame(), Exit::IpMalformed),
        ("an IP header alone", cut(20), Exit::TcpTruncated),
        ("TCP without its last byte", cut(39), Exit::TcpTruncated),
        ("TCP to its last byte", cut(40), Exit::RedirectedSyn),
        ("a length without TCP's last byte", syn().length_error(-1).frame(), Exit::TcpTruncated),
        ("options that reach beyond the frame", changed(0, 0x4f), Exit::IpMalformed),
        ("padding that looks like TCP", padded, Exit::TcpTruncated),
    ]);
}

#[test]
fn ipv6_is_walked_through_six_extension_headers_and_no_more() {
    let walk =
        |headers: usize| (0..headers).fold(syn6(), |packet, _| packet.extension(DESTINATION, 0)).frame();
    let cut = |bytes: usize| eth(IPV6, &syn6().bytes()[..bytes]);
    let cut_extension = eth(IPV6, &syn6().extension(HOP_BY_HOP, 0).bytes()[..47]);
    let mut version = syn6().frame();
    version[14] = 0x40;
    World::new().expect_all(&[
        ("a plain SYN", syn6().frame(), Exit::RedirectedSyn),
        ("39 bytes", cut(39), Exit::IpMalformed),
        ("version 4 in a frame of IPv6", version, Exit::IpMalformed),
        ("an IP header alone", cut(40), Exit::TcpTruncated),
        ("TCP without its last byte", cut(59), Exit::TcpTruncated),
        ("a length without TCP's last byte", syn6().length_error(-1).frame(), Exit::TcpTruncated),
        ("hop by hop", syn6().extension(HOP_BY_HOP, 0).frame(), Exit::RedirectedSyn),
        ("routing", syn6().extension(ROUTING, 2).frame(), Exit::RedirectedSyn),
        (
            "a destination header of 2048 bytes",
            syn6().extension(DESTINATION, 255).frame(),
            Exit::RedirectedSyn,
        ),
        (
            "hop by hop, routing, destination",
            { syn6().extension(DESTINATION, 1).extension(ROUTING, 0).extension(HOP_BY_HOP, 0).frame() },
            Exit::RedirectedSyn,
        ),
        ("six headers", walk(6), Exit::RedirectedSyn),
        ("seven headers", walk(7), Exit::Ipv6Chain),
        ("an extension header that is cut short", cut_extension, Exit::Ipv6Chain),
        (
            "a length that ends within an extension header",
            { syn6().extension(HOP_BY_HOP, 0).length_error(-21).frame() },
            Exit::Ipv6Chain,
        ),
        ("nothing next", packet(CLIENT6, LISTEN6, NO_NEXT, &[]).frame(), Exit::NotTcp),
        (
            "IPv4 mapped, as source",
            packet("::ffff:198.51.100.7", LISTEN6, TCP, &tcp(1, PORT, SYN)).frame(),
            Exit::IpMalformed,
        ),
        (
            "IPv4 mapped, as our own listener",
            { packet(CLIENT6, "::ffff:192.0.2.1", TCP, &tcp(1, PORT, SYN)).frame() },
            Exit::IpMalformed,
        ),
    ]);
}

#[test]
fn only_our_addresses_and_ports_are_ours() {
    World::new().expect_all(&[
        ("a SYN to the listener", tcp_frame(CLIENT, LISTEN, PORT, SYN), Exit::RedirectedSyn),
        ("data to the listener", tcp_frame(CLIENT, LISTEN, PORT, ACK), Exit::RedirectedSegment),
        ("data to the listener, IPv6", tcp_frame(CLIENT6, LISTEN6, PORT, ACK), Exit::RedirectedSegment),
        (
            "a SYN-ACK to the listener is no SYN",
            tcp_frame(CLIENT, LISTEN, PORT, SYN | ACK),
            Exit::RedirectedSegment,
        ),
        ("an RST to the listener", tcp_frame(CLIENT, LISTEN, PORT, RST), Exit::RedirectedSegment),
        ("ssh", tcp_frame(CLIENT, LISTEN, 22, SYN), Exit::ForeignPort),
        ("ssh, IPv6", tcp_frame(CLIENT6, LISTEN6, 22, ACK), Exit::ForeignPort),
        ("the port below", tcp_frame(CLIENT, LISTEN, PORT - 1, SYN), Exit::ForeignPort),
        ("the port above", tcp_frame(CLIENT, LISTEN, PORT + 1, SYN), Exit::ForeignPort),
        ("port 0", tcp_frame(CLIENT, LISTEN, 0, SYN), Exit::ForeignPort),
        ("port 1, where no range is", tcp_frame(CLIENT, LISTEN, 1, SYN), Exit::ForeignPort),
        (
            "the listener's port at another address of ours",
            tcp_frame(CLIENT, UPSTREAM, PORT, SYN),
            Exit::ForeignPort,
        ),
        ("somebody else's address", tcp_frame(CLIENT, ELSEWHERE, PORT, SYN), Exit::NotLocal),
        ("somebody else's address, IPv6", tcp_frame(CLIENT6, ELSEWHERE6, PORT, SYN), Exit::NotLocal),
        ("UDP", packet(CLIENT, LISTEN, UDP, &tcp(EPHEMERAL, PORT, SYN)).frame(), Exit::NotTcp),
        ("UDP, IPv6", packet(CLIENT6, LISTEN6, UDP, &tcp(EPHEMERAL, PORT, SYN)).frame(), Exit::NotTcp),
    ]);
}

#[test]
fn upstream_ports_are_a_range_with_both_its_ends() {
    let at = |address, port| {
        let peer = if ip(address).is_ipv4() { CLIENT } else { CLIENT6 };
        packet(peer, address, TCP, &tcp(443, port, ACK)).frame()
    };
    World::new().expect_all(&[
        ("below", at(UPSTREAM, FIRST - 1), Exit::ForeignPort),
        ("the first", at(UPSTREAM, FIRST), Exit::RedirectedUpstream),
        ("the last", at(UPSTREAM, LAST), Exit::RedirectedUpstream),
        ("above", at(UPSTREAM, LAST + 1), Exit::ForeignPort),
        ("below, IPv6", at(UPSTREAM6, FIRST - 1), Exit::ForeignPort),
        ("the first, IPv6", at(UPSTREAM6, FIRST), Exit::RedirectedUpstream),
        ("the last, IPv6", at(UPSTREAM6, LAST), Exit::RedirectedUpstream),
        ("above, IPv6", at(UPSTREAM6, LAST + 1), Exit::ForeignPort),
        ("a SYN, which the shard refuses", tcp_frame(CLIENT, UPSTREAM, FIRST, SYN), Exit::RedirectedUpstream),
        ("the range's ports at the listener's address", at(LISTEN, FIRST), Exit::ForeignPort),
    ]);
}

#[test]
fn fragments_of_our_flows_are_dropped_and_others_are_not() {
    let v4 = |address, port| packet(CLIENT, address, TCP, &tcp(EPHEMERAL, port, ACK));
    let v6 = |address, port| packet(CLIENT6, address, TCP, &tcp(EPHEMERAL, port, ACK));
    let icmp6 = packet(CLIENT6, LISTEN6, ICMPV6, &icmp(128, &[]));
    let udp = packet(CLIENT, UPSTREAM, UDP, &tcp(EPHEMERAL, FIRST, 0));
    World::new().expect_all(&[
        ("first, of a listener", v4(LISTEN, PORT).fragment(0, true).frame(), Exit::FragmentDropped),
        ("first, of an upstream flow", v4(UPSTREAM, FIRST).fragment(0, true).frame(), Exit::FragmentDropped),
        ("first, of ssh", v4(LISTEN, 22).fragment(0, true).frame(), Exit::FragmentPassed),
        (
            "first, with ports alone",
            { packet(CLIENT, LISTEN, TCP, &tcp(1, PORT, 0)[..8]).fragment(0, true).frame() },
            Exit::FragmentDropped,
        ),
        (
            "first, without its ports",
            packet(CLIENT, LISTEN, TCP, &[0; 7]).fragment(0, true).frame(),
            Exit::FragmentPassed,
        ),
        (
            "first, without its ports, dedicated",
            { packet(CLIENT, UPSTREAM, TCP, &[0; 7]).fragment(0, true).frame() },
            Exit::FragmentDropped,
        ),
        (
            "later, at an address with other services",
            v4(LISTEN, PORT).fragment(1, true).frame(),
            Exit::FragmentPassed,
        ),
        ("later, dedicated", v4(UPSTREAM, 0).fragment(1, true).frame(), Exit::FragmentDropped),
        ("last, dedicated", v4(UPSTREAM, 0).fragment(0x1fff, false).frame(), Exit::FragmentDropped),
        ("later, UDP, dedicated", udp.clone().fragment(3, false).frame(), Exit::FragmentPassed),
        ("first, UDP, dedicated", udp.fragment(0, true).frame(), Exit::FragmentPassed),
        ("somebody else's", v4(ELSEWHERE, PORT).fragment(0, true).frame(), Exit::NotLocal),
        (
            "IPv6, first, of a listener",
            v6(LISTEN6, PORT).fragment_header(0, true).frame(),
            Exit::FragmentDropped,
        ),
        (
            "IPv6, first, behind other headers",
            {
                v6(LISTEN6, PORT)
                    .extension(DESTINATION, 0)
                    .fragment_header(0, true)
                    .extension(HOP_BY_HOP, 0)
                    .frame()
            },
            Exit::FragmentDropped,
        ),
        ("IPv6, first, of ssh", v6(LISTEN6, 22).fragment_header(0, true).frame(), Exit::FragmentPassed),
        ("IPv6, later", v6(LISTEN6, PORT).fragment_header(1, true).frame(), Exit::FragmentPassed),
        ("IPv6, later, dedicated", v6(UPSTREAM6, 0).fragment_header(1, false).frame(), Exit::FragmentDropped),
        (
            "IPv6, a fragment that is the whole",
            v6(LISTEN6, PORT).fragment_header(0, false).frame(),
            Exit::RedirectedSegment,
        ),
        ("IPv6, of ICMP", icmp6.fragment_header(0, true).frame(), Exit::FragmentPassed),
    ]);
}

#[test]
fn icmp_errors_are_ours_if_what_they_quote_came_from_us() {
    let sent = |source, port| packet(source, CLIENT, TCP, &tcp(port, EPHEMERAL, ACK));
    let about =
        |kind, quoted: &Packet| packet("198.51.100.1", LISTEN, ICMP, &icmp(kind, &quoted.bytes())).frame();
    let cut = |bytes: usize| {
        packet("198.51.100.1", LISTEN, ICMP, &icmp(3, &sent(LISTEN, PORT).bytes()[..bytes])).frame()
    };
    let upstream =
        |port| packet("198.51.100.1", UPSTREAM, ICMP, &icmp(11, &sent(UPSTREAM, port).bytes())).frame();
    let udp = packet(LISTEN, CLIENT, UDP, &tcp(PORT, EPHEMERAL, 0));
    World::new().expect_all(&[
        ("unreachable", about(3, &sent(LISTEN, PORT)), Exit::RedirectedIcmp),
        ("source quench", about(4, &sent(LISTEN, PORT)), Exit::RedirectedIcmp),
        ("time exceeded", about(11, &sent(LISTEN, PORT)), Exit::RedirectedIcmp),
        ("parameter problem", about(12, &sent(LISTEN, PORT)), Exit::RedirectedIcmp),
        ("a redirect is no error", about(5, &sent(LISTEN, PORT)), Exit::IcmpOther),
        ("an echo request", about(8, &sent(LISTEN, PORT)), Exit::IcmpOther),
        ("of ssh", about(3, &sent(LISTEN, 22)), Exit::IcmpOther),
        ("of another address than it came to", about(3, &sent(UPSTREAM, FIRST)), Exit::IcmpOther),
        ("of UDP", about(3, &udp), Exit::IcmpOther),
        (
            "of a fragment, which we never send",
            about(3, &sent(LISTEN, PORT).fragment(0, true)),
            Exit::IcmpOther,
        ),
        (
            "of a packet with options, which we never send",
            { about(3, &sent(LISTEN, PORT).options(&[1; 4])) },
            Exit::IcmpOther,
        ),
        ("with 8 bytes of TCP, the least", cut(28), Exit::RedirectedIcmp),
        ("with 7 bytes of TCP", cut(27), Exit::IcmpOther),
        ("with nothing", packet(CLIENT, LISTEN, ICMP, &[3]).frame(), Exit::IcmpOther),
        ("of our first upstream port", upstream(FIRST), Exit::RedirectedIcmp),
        ("of our last upstream port", upstream(LAST), Exit::RedirectedIcmp),
        ("of a port above", upstream(LAST + 1), Exit::IcmpOther),
        (
            "in a fragment",
            { packet(CLIENT, LISTEN, ICMP, &icmp(3, &sent(LISTEN, PORT).bytes())).fragment(0, true).frame() },
            Exit::FragmentPassed,
        ),
        (
            "to somebody else",
            { packet(CLIENT, ELSEWHERE, ICMP, &icmp(3, &sent(LISTEN, PORT).bytes())).frame() },
            Exit::NotLocal,
        ),
    ]);
}

#[test]
fn icmpv6_errors_are_ours_if_what_they_quote_came_from_us() {
    let sent = |source, port| packet(source, CLIENT6, TCP, &tcp(port, EPHEMERAL, ACK));
    let about = |kind, quoted: &Packet| {
        packet("2001:db8:f::1", LISTEN6, ICMPV6, &icmp(kind, &quoted.bytes())).frame()
    };
    let cut = |bytes: usize| {
        packet(CLIENT6, LISTEN6, ICMPV6, &icmp(2, &sent(LISTEN6, PORT).bytes()[..bytes])).frame()
    };
    World::new().expect_all(&[
        ("type 0 is reserved", about(0, &sent(LISTEN6, PORT)), Exit::IcmpOther),
        ("unreachable", about(1, &sent(LISTEN6, PORT)), Exit::RedirectedIcmp),
        ("packet too big", about(2, &sent(LISTEN6, PORT)), Exit::RedirectedIcmp),
        ("time exceeded", about(3, &sent(LISTEN6, PORT)), Exit::RedirectedIcmp),
        ("parameter problem", about(4, &sent(LISTEN6, PORT)), Exit::RedirectedIcmp),
        ("type 5 is not assigned", about(5, &sent(LISTEN6, PORT)), Exit::IcmpOther),
        ("an echo request", about(128, &sent(LISTEN6, PORT)), Exit::IcmpOther),
        (
            "neighbour solicitation",
            packet(CLIENT6, LISTEN6, ICMPV6, &icmp(135, &[0; 16])).frame(),
            Exit::IcmpOther,
        ),
        ("of ssh", about(2, &sent(LISTEN6, 22)), Exit::IcmpOther),
        (
            "of a packet with extension headers, which we never send",
            { about(2, &sent(LISTEN6, PORT).extension(DESTINATION, 0)) },
            Exit::IcmpOther,
        ),
        ("with 8 bytes of TCP", cut(48), Exit::RedirectedIcmp),
        ("with 7 bytes of TCP", cut(47), Exit::IcmpOther),
        ("ICMP of IPv4 in IPv6", packet(CLIENT6, LISTEN6, ICMP, &icmp(3, &[0; 48])).frame(), Exit::NotTcp),
    ]);
}

#[test]
fn denied_sources_are_dropped_where_we_are_and_nowhere_else() {
    let mut world = World::new();
    world.expect_all(&[
        ("a SYN", tcp_frame(DENIED, LISTEN, PORT, SYN), Exit::Denied),
        ("data", tcp_frame(DENIED, LISTEN, PORT, ACK), Exit::Denied),
        ("upstream", tcp_frame(DENIED, UPSTREAM, FIRST, ACK), Exit::Denied),
        ("IPv6", tcp_frame(DENIED6, LISTEN6, PORT, SYN), Exit::Denied),
        ("the prefix's first address", tcp_frame("203.0.113.0", LISTEN, PORT, SYN), Exit::Denied),
        ("the prefix's last address", tcp_frame("203.0.113.255", LISTEN, PORT, SYN), Exit::Denied),
        ("the address below", tcp_frame("203.0.112.255", LISTEN, PORT, SYN), Exit::RedirectedSyn),
        ("the address above", tcp_frame("203.0.114.0", LISTEN, PORT, SYN), Exit::RedirectedSyn),
        ("the /48 above", tcp_frame("2001:db8:deae::9", LISTEN6, PORT, SYN), Exit::RedirectedSyn),
        ("ssh", tcp_frame(DENIED, LISTEN, 22, SYN), Exit::ForeignPort),
        ("somebody else's address", tcp_frame(DENIED, ELSEWHERE, PORT, SYN), Exit::NotLocal),
    ]);
    world.steering.remove_deny(ip("203.0.113.0"), 24).expect("it is there");
    world.expect("forgiven", &tcp_frame(DENIED, LISTEN, PORT, SYN), Exit::RedirectedSyn);
    world.steering.add_deny(ip("0.0.0.0"), 0).expect("all of IPv4");
    world.expect("all of IPv4", &tcp_frame(CLIENT, LISTEN, PORT, SYN), Exit::Denied);
    world.expect("is not IPv6", &tcp_frame(CLIENT6, LISTEN6, PORT, SYN), Exit::RedirectedSyn);
}

/// Tokens come back after an hour, which is after the test.
fn limited(burst: u32) -> Settings {
    let burst = NonZeroU32::new(burst).expect("a burst");
    Settings { syn_limit: Some(SynLimit { interval: Duration::from_secs(3600), burst }), ..settings() }
}

#[test]
fn a_source_may_send_a_burst_of_syns_and_not_one_more() {
    let mut world = World::new();
    world.steering.set_settings(&limited(3)).expect("settings");
    for (burst, source, listener) in [(3, CLIENT, LISTEN), (3, CLIENT6, LISTEN6)] {
        for n in 1..=burst {
            world.expect(&format!("SYN {n}"), &tcp_frame(source, listener, PORT, SYN), Exit::RedirectedSyn);
        }
        world.expect("one more", &tcp_frame(source, listener, PORT, SYN), Exit::SynLimited);
        world.expect("data is not limited", &tcp_frame(source, listener, PORT, ACK), Exit::RedirectedSegment);
        world.expect("ssh is not limited", &tcp_frame(source, listener, 22, SYN), Exit::ForeignPort);
    }
    world.expect(
        "the neighbour has its own",
        &tcp_frame("198.51.100.8", LISTEN, PORT, SYN),
        Exit::RedirectedSyn,
    );
    world.expect("the /64 has one", &tcp_frame("2001:db8:c::8", LISTEN6, PORT, SYN), Exit::SynLimited);
    world.expect("the /64 above", &tcp_frame("2001:db8:c:1::7", LISTEN6, PORT, SYN), Exit::RedirectedSyn);
    world.steering.set_settings(&settings()).expect("settings");
    world.expect("without a limit", &tcp_frame(CLIENT, LISTEN, PORT, SYN), Exit::RedirectedSyn);
}

#[test]
fn a_burst_of_one_is_one() {
    let mut world = World::new();
    world.steering.set_settings(&limited(1)).expect("settings");
    world.expect("the first", &syn().frame(), Exit::RedirectedSyn);
    world.expect("the second", &syn().frame(), Exit::SynLimited);
}

#[test]
fn new_connections_go_to_the_kernel_unless_the_heartbeat_is_fresh() {
    let minute = Duration::from_secs(60);
    let ago = |age: Duration| monotonic_ns().saturating_sub(age.as_nanos() as u64).max(1);
    let mut world = World::new();
    // This machine may have been up for less than an hour; a shorter one then tells the same.
    let uptime = Duration::from_nanos(monotonic_ns());
    let stale_after = STALE_AFTER.min(uptime / 2);
    world.steering.set_settings(&Settings { stale_after, ..settings() }).expect("settings");
    let margin = minute.min(stale_after / 4);

    for (what, beat, exit) in [
        ("now", monotonic_ns(), Exit::RedirectedSyn),
        ("ahead of the program's clock", monotonic_ns() + minute.as_nanos() as u64, Exit::RedirectedSyn),
        ("just fresh", ago(stale_after - margin), Exit::RedirectedSyn),
        ("just stale", ago(stale_after + margin), Exit::KernelStale),
        ("never", 0, Exit::KernelNoBeat),
    ] {
        world.beat.beat(beat).expect("a beat");
        world.expect(what, &syn().frame(), exit);
        world.expect(what, &syn6().frame(), exit);
        world.expect("data", &tcp_frame(CLIENT, LISTEN, PORT, ACK), Exit::RedirectedSegment);
        world.expect("upstream", &tcp_frame(CLIENT, UPSTREAM, FIRST, ACK), Exit::RedirectedUpstream);
    }
    world.beat.beat(monotonic_ns()).expect("a beat");
    world.steering.set_draining(true).expect("settings");
    world.expect("draining", &syn().frame(), Exit::KernelDraining);
    world.expect("data while draining", &tcp_frame(CLIENT, LISTEN, PORT, FIN | ACK), Exit::RedirectedSegment);
    world.expect(
        "upstream while draining",
        &tcp_frame(CLIENT, UPSTREAM, FIRST, ACK),
        Exit::RedirectedUpstream,
    );
    world.steering.set_draining(false).expect("settings");
    world.expect("no longer", &syn().frame(), Exit::RedirectedSyn);
}

#[test]
fn without_a_socket_everything_of_ours_goes_to_the_kernel() {
    let mut world = World::new();
    world.close_socket();
    for frame in [
        syn().frame(),
        tcp_frame(CLIENT, LISTEN, PORT, ACK),
        tcp_frame(CLIENT6, UPSTREAM6, LAST, ACK),
        packet(
            CLIENT,
            UPSTREAM,
            ICMP,
            &icmp(3, &packet(UPSTREAM, CLIENT, TCP, &tcp(FIRST, 443, ACK)).bytes()),
        )
        .frame(),
    ] {
        assert_eq!(world.judge(&frame), (Verdict::Pass, Exit::NoSocket));
    }
    assert!(world.steering.kernel_flows().expect("a map").is_some(), "the SYN is now the kernel's");
    world.serve();
    world.expect("a new socket", &syn().frame(), Exit::RedirectedSyn);
}

#[test]
fn what_is_removed_is_the_kernels_again() {
    let mut world = World::new();
    let at = std::net::SocketAddr::new(ip(LISTEN), PORT);
    world.steering.remove_listener(at).expect("it is there");
    world.expect("no listener", &syn().frame(), Exit::ForeignPort);
    world.steering.add_listener(at).expect("a listener");
    world.expect("again", &syn().frame(), Exit::RedirectedSyn);
    world.steering.remove_local(ip(LISTEN)).expect("it is there");
    world.expect("no address", &syn().frame(), Exit::NotLocal);
    world.steering.remove_socket(0).expect("it is there");
    assert_eq!(world.judge(&syn6().frame()), (Verdict::Pass, Exit::NoSocket));
}
