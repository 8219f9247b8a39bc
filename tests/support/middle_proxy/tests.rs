//! Both ends of a link against each other, byte for byte.

use mtproxy_core::random::Random;
use proptest::prelude::*;

use super::frames::{Checksum, FILLER, Flaw};
use super::request::flag;
use super::wire::op;
use super::*;
use crate::command::Command;
use crate::dc_codec::Ending;
use crate::pattern;

const SECRET: [u8; 128] = [0x5a; 128];
const UNIX: i32 = 1_700_000_000;
const ENDS: [(&str, &str); 2] =
    [("10.0.0.2:40000", "10.0.0.1:8888"), ("[2001:db8::2]:40000", "[2001:db8::1]:8888")];

/// Both ends of a link, and what the proxy has heard.
struct Link {
    proxy: ProxyLinkCodec,
    middle_proxy: MiddleProxyCodec,
    heard: Vec<Message>,
    /// Bytes sent to the proxy.
    to_proxy_len: usize,
}

impl Link {
    fn new(options: MiddleProxyOptions) -> Self {
        Self::with(options, ENDS[0], |proxy| proxy)
    }

    fn with(
        options: MiddleProxyOptions,
        ends: (&str, &str),
        change: impl FnOnce(ProxyLinkOptions) -> ProxyLinkOptions,
    ) -> Self {
        let ends = Ends { proxy: ends.0.parse().unwrap(), middle_proxy: ends.1.parse().unwrap() };
        let proxy = change(ProxyLinkOptions::new(&SECRET, ends, UNIX));
        Self {
            proxy: ProxyLinkCodec::new(proxy, Random::from_seed([1; 32])),
            middle_proxy: MiddleProxyCodec::new(options, ends, UNIX + 1, Random::from_seed([2; 32])),
            heard: Vec::new(),
            to_proxy_len: 0,
        }
    }

    /// A link on which this goes wrong.
    fn misbehaving(misbehaviour: Misbehaviour) -> Self {
        Self::new(MiddleProxyOptions::new(&SECRET).misbehaving(misbehaviour))
    }

    /// A link on which this goes wrong after one request, which asks for an echo.
    fn after_one(fault: DataFault) -> Self {
        let mut link = Self::misbehaving(Misbehaviour::After { requests: 1, fault });
        link.settle().unwrap();
        link.ask(5, &echo());
        link
    }

    /// Moves bytes both ways until nobody has any. What the middle proxy finds wrong is a panic.
    fn settle(&mut self) -> Result<(), LinkFault> {
        self.settle_in_pieces(usize::MAX, usize::MAX)
    }

    fn settle_in_pieces(&mut self, piece_len: usize, len_min: usize) -> Result<(), LinkFault> {
        loop {
            let up = self.proxy.take_output();
            up.chunks(piece_len).for_each(|piece| self.middle_proxy.receive(piece).unwrap());
            let mut down = Vec::new();
            self.middle_proxy.fill(&mut down, len_min);
            self.to_proxy_len += down.len();
            if up.is_empty() && down.is_empty() {
                assert!(!self.middle_proxy.has_output());
                return Ok(());
            }
            for piece in down.chunks(piece_len) {
                self.heard.extend(self.proxy.receive(piece)?);
            }
        }
    }

    fn ask(&mut self, connection: i64, packet: &[u8]) {
        self.proxy.send(&Message::Request(request(connection, packet)));
    }

    fn counters(&self) -> LinkCounters {
        self.middle_proxy.report().counters
    }
}

fn request(connection: i64, packet: &[u8]) -> ProxyRequest {
    let unencrypted = if packet.starts_with(&[0; 8]) { flag::UNENCRYPTED } else { 0 };
    ProxyRequest {
        flags: flag::TCP | flag::OBFUSCATED2 | flag::INTERMEDIATE | unencrypted,
        connection,
        client: "[2001:db8::7]:50000".parse().unwrap(),
        ours: "192.0.2.2:443".parse().unwrap(),
        proxy_tag: None,
        packet: packet.to_vec(),
    }
}

fn echo() -> Vec<u8> {
    Command::Echo(b"to be said twice".to_vec()).body()
}

fn echoed() -> Message {
    Message::Answer { flags: 0, connection: 5, packet: echo() }
}

#[test]
fn a_link_becomes_ready_in_both_families_with_and_without_crc32c() {
    for ends in ENDS {
        for (offers, accepts) in [(true, true), (true, false), (false, true), (false, false)] {
            let options = MiddleProxyOptions { accepts_crc32c: accepts, ..MiddleProxyOptions::new(&SECRET) };
            let change = |proxy: ProxyLinkOptions| if offers { proxy } else { proxy.without_crc32c() };
            let mut link = Link::with(options, ends, change);
            link.settle().unwrap();
            assert!(link.proxy.is_ready() && link.middle_proxy.report().is_ready());
            assert_eq!(link.middle_proxy.report().uses_crc32c, offers && accepts);
            link.ask(5, &echo());
            link.settle().unwrap();
            assert_eq!(link.heard, [echoed()]);
            assert_eq!(link.middle_proxy.report().requests, [request(5, &echo())]);
        }
    }
}

#[test]
fn the_nonce_is_answered_in_clear_unpadded_and_not_before_it_has_come() {
    let mut link = Link::new(MiddleProxyOptions::new(&SECRET));
    let nonce = link.proxy.take_output();
    assert_eq!(nonce.len(), 44);
    for byte in &nonce {
        assert!(!link.middle_proxy.has_output());
        link.middle_proxy.receive(&[*byte]).unwrap();
    }
    let mut answer = Vec::new();
    link.middle_proxy.fill(&mut answer, usize::MAX);
    assert_eq!(answer.len(), 44);
    assert_eq!(answer[..16], *b"\x2c\0\0\0\xfe\xff\xff\xff\xaa\x87\xcb\x7a\x5a\x5a\x5a\x5a");
    assert_eq!(answer[16..24], [1u32.to_le_bytes(), (UNIX + 1).to_le_bytes()].concat());
    link.proxy.receive(&answer).unwrap();
    assert_eq!(link.proxy.take_output().len(), 48, "a frame of 44 bytes and one filler");
}

#[test]
fn equal_seeds_and_inputs_make_equal_bytes() {
    let transcript = |seed: u8| {
        let mut link = Link::new(MiddleProxyOptions::new(&SECRET));
        let ends = link.middle_proxy.report().ends.unwrap();
        let (options, random) = (MiddleProxyOptions::new(&SECRET), Random::from_seed([seed; 32]));
        link.middle_proxy = MiddleProxyCodec::new(options, ends, UNIX, random);
        let mut wire = Vec::new();
        for round in 0..6 {
            link.middle_proxy.receive(&link.proxy.take_output()).unwrap();
            if round == 2 {
                (0..50).for_each(|connection| link.ask(connection, &echo()));
                (0..50).for_each(|connection| link.ask(connection, &Command::Bulk { len: 50_000 }.body()));
                link.ask(1, &crate::mtproto::req_pq_multi(4, &[1; 16]));
            }
            let start = wire.len();
            link.middle_proxy.fill(&mut wire, usize::MAX);
            link.proxy.receive(&wire[start..]).unwrap();
        }
        wire
    };
    assert!(transcript(1).len() > 2_500_000);
    assert!(transcript(1) == transcript(1));
    assert!(transcript(1) != transcript(2));
}

#[test]
fn what_a_proxy_does_wrong_with_its_nonce_is_found() {
    let greet = |change: fn(ProxyLinkOptions) -> ProxyLinkOptions| {
        let mut link = Link::with(MiddleProxyOptions::new(&SECRET), ENDS[0], change);
        link.middle_proxy.receive(&link.proxy.take_output())
    };
    assert_eq!(greet(|proxy| ProxyLinkOptions { unix: UNIX + 31, ..proxy }), Ok(()));
    let late = greet(|proxy| ProxyLinkOptions { unix: UNIX + 32, ..proxy });
    assert_eq!(late, Err(LinkFault::Clock { skew: 31 }));
    let other = greet(|proxy| ProxyLinkOptions { secret: vec![7; 32], ..proxy });
    assert_eq!(other, Err(LinkFault::Selector { found: [7; 4] }));
    let nonce = || Link::new(MiddleProxyOptions::new(&SECRET)).proxy.take_output();
    let hears = |bytes: &[u8]| Link::new(MiddleProxyOptions::new(&SECRET)).middle_proxy.receive(bytes);
    let early = hears(&[&nonce()[..], &[1]].concat());
    assert_eq!(early, Err(LinkFault::BytesBehindNonce { found: 1 }));
    let mut spoiled = nonce();
    spoiled[43] ^= 1;
    assert_eq!(hears(&spoiled), Err(LinkFault::Checksum { kind: Checksum::Crc32, sequence: -2 }));
    let again = hears(&nonce()[..40]);
    assert_eq!(again, Ok(()));
}

#[test]
fn what_a_proxy_does_wrong_with_its_handshake_is_refused() {
    let flagged = Link::with(MiddleProxyOptions::new(&SECRET), ENDS[0], |proxy| ProxyLinkOptions {
        flags: 0x801,
        ..proxy
    });
    let mut astray = Link::new(MiddleProxyOptions::new(&SECRET));
    astray.proxy.mean("10.0.0.1:9999".parse().unwrap());
    for (mut link, code) in [(flagged, -7), (astray, -4)] {
        assert_eq!(link.settle(), Err(LinkFault::Refused { code }));
        assert_eq!(link.middle_proxy.take_ending(), Some(Ending::Close));
        assert!(matches!(link.middle_proxy.report().fault, Some(LinkFault::Handshake { .. })));
    }
}

#[test]
fn what_a_proxy_does_wrong_on_a_ready_link_is_found() {
    let fault = |act: &dyn Fn(&mut ProxyLinkCodec)| {
        let mut link = Link::new(MiddleProxyOptions::new(&SECRET));
        link.settle().unwrap();
        act(&mut link.proxy);
        let found = link.middle_proxy.receive(&link.proxy.take_output()).unwrap_err();
        assert_eq!(link.middle_proxy.report().fault, Some(found.clone()));
        found
    };
    let ping = Message::Ping(1).payload();
    let checksum = LinkFault::Checksum { kind: Checksum::Crc32c, sequence: 0 };
    assert_eq!(fault(&|proxy| proxy.send_payload(&ping, Some(Flaw::Checksum))), checksum);
    let sequence = LinkFault::Sequence { found: 1, expected: 0 };
    assert_eq!(fault(&|proxy| proxy.send_payload(&ping, Some(Flaw::SequenceGap(1)))), sequence);
    let length = LinkFault::FrameLength { found: 12 };
    assert_eq!(fault(&|proxy| proxy.send_payload(&ping, Some(Flaw::Length(12)))), length);
    let fillers = fault(&|proxy| proxy.send_words(&FILLER.repeat(4)));
    assert!(matches!(fillers, LinkFault::Fillers { count: 4, .. }));
    assert_eq!(fault(&|proxy| proxy.send(&Message::Pong(3))), LinkFault::UnaskedPong { id: 3 });
    let answer = LinkFault::UnexpectedMessage { op: op::CLOSE_EXT };
    assert_eq!(fault(&|proxy| proxy.send(&Message::CloseExt(3))), answer);
    let moved = fault(&|proxy| {
        let request = request(1, &echo());
        proxy.send(&Message::Request(request.clone()));
        proxy.send(&Message::Request(ProxyRequest { client: request.ours, ..request }));
    });
    assert!(matches!(moved, LinkFault::Request { .. }));
}

#[test]
fn a_stream_that_ends_inside_a_block_is_noticed() {
    let mut link = Link::new(MiddleProxyOptions::new(&SECRET));
    link.settle().unwrap();
    link.proxy.send(&Message::Ping(1));
    link.middle_proxy.receive(&link.proxy.take_output()[..17]).unwrap();
    link.middle_proxy.end_of_input();
    assert_eq!(link.middle_proxy.report().fault, Some(LinkFault::CutBlock { found: 1 }));
    assert_eq!(link.middle_proxy.take_ending(), Some(Ending::Close));
}

#[test]
fn connections_are_counted_closed_and_not_reopened_by_what_was_on_its_way() {
    let mut link = Link::new(MiddleProxyOptions::new(&SECRET));
    link.settle().unwrap();
    link.ask(5, &echo());
    link.ask(6, &Command::Close.body());
    link.ask(7, &[1; 56]);
    link.settle().unwrap();
    assert_eq!(link.heard, [echoed(), Message::CloseExt(6)]);
    link.ask(6, &echo());
    link.proxy.send(&Message::CloseConn(5));
    link.proxy.send(&Message::CloseConn(5));
    link.proxy.send(&Message::Ping(8));
    link.settle().unwrap();
    assert_eq!(link.heard[2..], [Message::Pong(8)]);
    let counters = link.counters();
    assert_eq!((counters.requests, counters.requests_unknown, counters.requests_late), (4, 1, 1));
    assert_eq!((counters.connections_opened, counters.connections_open), (3, 1));
    assert_eq!((counters.close_conns, counters.close_conns_unknown), (2, 1));
    assert_eq!((counters.answers, counters.close_exts, counters.pongs_sent), (1, 1, 1));
    assert_eq!(link.middle_proxy.report().closed, [5, 5]);
    assert_eq!(link.middle_proxy.connections(), [7]);
}

#[test]
fn a_wrong_nonce_arrives_as_it_is_meant() {
    let cases = [
        (NonceFault::Selector, LinkFault::Selector { found: [0x5b, 0x5a, 0x5a, 0x5a] }),
        (NonceFault::Schema(3), LinkFault::Schema { found: 3 }),
        (NonceFault::ClockSkew(31), LinkFault::Clock { skew: 31 }),
        (NonceFault::ClockSkew(-31), LinkFault::Clock { skew: -31 }),
        (NonceFault::BytesBehind, LinkFault::BytesBehindNonce { found: 16 }),
        (NonceFault::Checksum, LinkFault::Checksum { kind: Checksum::Crc32, sequence: -2 }),
        (NonceFault::Sequence(2), LinkFault::Sequence { found: 0, expected: -2 }),
        (NonceFault::Op, LinkFault::UnexpectedMessage { op: op::HANDSHAKE }),
        (NonceFault::Length, LinkFault::MessageLength { op: op::NONCE, found: 28 }),
    ];
    for (fault, found) in cases {
        assert_eq!(Link::misbehaving(Misbehaviour::Nonce(fault)).settle(), Err(found), "{fault:?}");
    }
    for skew in [30, -30] {
        let mut link = Link::misbehaving(Misbehaviour::Nonce(NonceFault::ClockSkew(skew)));
        assert_eq!(link.settle(), Ok(()));
    }
    let mut silent = Link::misbehaving(Misbehaviour::Nonce(NonceFault::Never));
    silent.settle().unwrap();
    assert_eq!((silent.to_proxy_len, silent.proxy.is_ready()), (0, false));
}

#[test]
fn a_wrong_handshake_arrives_as_it_is_meant() {
    let handshake = |what| LinkFault::Handshake { what };
    let cases = [
        (HandshakeFault::Refusal(-8), LinkFault::Refused { code: -8 }),
        (HandshakeFault::Peer, handshake("it is meant for another process")),
        (HandshakeFault::Flags(0x1000), handshake("it has unknown flags")),
        (HandshakeFault::Checksum, LinkFault::Checksum { kind: Checksum::Crc32, sequence: -1 }),
        (HandshakeFault::Sequence(1), LinkFault::Sequence { found: 0, expected: -1 }),
        (HandshakeFault::Length, LinkFault::MessageLength { op: op::HANDSHAKE, found: 28 }),
    ];
    for (fault, found) in cases {
        assert_eq!(Link::misbehaving(Misbehaviour::Handshake(fault)).settle(), Err(found), "{fault:?}");
    }
    let unasked = Misbehaviour::Handshake(HandshakeFault::Crc32cUnasked);
    let options = MiddleProxyOptions::new(&SECRET).without_crc32c().misbehaving(unasked);
    let found = Link::with(options, ENDS[0], ProxyLinkOptions::without_crc32c).settle();
    assert_eq!(found, Err(handshake("it takes up what was not offered")));
    let mut in_clear = Link::misbehaving(Misbehaviour::Handshake(HandshakeFault::InClear));
    assert!(in_clear.settle().is_err());
    let mut silent = Link::misbehaving(Misbehaviour::Handshake(HandshakeFault::Never));
    silent.settle().unwrap();
    assert_eq!((silent.to_proxy_len, silent.proxy.is_ready()), (44, false));
}

#[test]
fn a_wrong_frame_arrives_as_it_is_meant_and_before_the_answer() {
    let checksum = LinkFault::Checksum { kind: Checksum::Crc32c, sequence: 0 };
    let cases = [
        (DataFault::Checksum, checksum),
        (DataFault::Sequence(7), LinkFault::Sequence { found: 7, expected: 0 }),
        (DataFault::SequenceGap(-1), LinkFault::Sequence { found: -1, expected: 0 }),
        (DataFault::FrameLength(0), LinkFault::FrameLength { found: 0 }),
        (DataFault::FrameLength(8), LinkFault::FrameLength { found: 8 }),
        (DataFault::FrameLength(12), LinkFault::FrameLength { found: 12 }),
        (DataFault::FrameLength(18), LinkFault::FrameLength { found: 18 }),
        (DataFault::FrameLength(1 << 31), LinkFault::FrameLength { found: 1 << 31 }),
        (DataFault::Malformed(Malformed::Answer), LinkFault::MessageLength { op: op::PROXY_ANS, found: 12 }),
        (
            DataFault::Malformed(Malformed::SimpleAckShort),
            LinkFault::MessageLength { op: op::SIMPLE_ACK, found: 12 },
        ),
        (
            DataFault::Malformed(Malformed::SimpleAckLong),
            LinkFault::MessageLength { op: op::SIMPLE_ACK, found: 20 },
        ),
        (
            DataFault::Malformed(Malformed::CloseExt),
            LinkFault::MessageLength { op: op::CLOSE_EXT, found: 16 },
        ),
        (DataFault::Malformed(Malformed::Ping), LinkFault::MessageLength { op: op::PING, found: 8 }),
        (DataFault::Op(0x1234_5678), LinkFault::UnexpectedMessage { op: 0x1234_5678 }),
        (DataFault::Fillers(5), LinkFault::Fillers { count: 4, end: 60 }),
    ];
    for (fault, found) in cases {
        let mut link = Link::after_one(fault.clone());
        assert_eq!(link.settle(), Err(found), "{fault:?}");
        assert_eq!((link.heard.len(), link.counters().faults), (0, 1), "{fault:?}");
    }
    assert!(Link::after_one(DataFault::Noise(64)).settle().is_err());
    // With 0 requests, right behind the handshake.
    let at_once = Misbehaviour::After { requests: 0, fault: DataFault::FrameLength(0) };
    let mut link = Link::misbehaving(at_once);
    assert_eq!(link.settle(), Err(LinkFault::FrameLength { found: 0 }));
    assert!(link.proxy.is_ready());
}

#[test]
fn messages_for_nobody_and_of_any_length_arrive() {
    let heard = |fault| {
        let mut link = Link::after_one(fault);
        link.settle().unwrap();
        link.heard
    };
    let answer = |connection, packet| Message::Answer { flags: 0, connection, packet };
    assert_eq!(heard(DataFault::AnswerTo(9)), [answer(9, vec![0x99; 56]), echoed()]);
    let ack = Message::SimpleAck { connection: 9, token: 0x8000_0001 };
    assert_eq!(heard(DataFault::SimpleAckTo(9)), [ack, echoed()]);
    assert_eq!(heard(DataFault::CloseExtOf(9)), [Message::CloseExt(9), echoed()]);
    assert_eq!(heard(DataFault::CloseExt), [echoed(), Message::CloseExt(5)]);
    for len in [0, 4, 1_044_484] {
        assert_eq!(heard(DataFault::AnswerOf(len)), [echoed(), answer(5, pattern::bytes(0, len))]);
    }
}

#[test]
fn a_link_that_stalls_or_says_nothing_does_so() {
    let mut stalled = Link::after_one(DataFault::Stall);
    stalled.settle().unwrap();
    assert!(!stalled.middle_proxy.is_reading() && !stalled.middle_proxy.has_output());
    assert_eq!(stalled.heard, []);
    stalled.middle_proxy.resume().unwrap();
    stalled.settle().unwrap();
    assert_eq!(stalled.heard, [echoed()]);
    for (fault, heard) in [(DataFault::Silence, vec![]), (DataFault::NoPongs, vec![echoed(), echoed()])] {
        let mut link = Link::after_one(fault);
        link.settle().unwrap();
        link.proxy.send(&Message::Ping(1));
        link.ask(5, &echo());
        link.settle().unwrap();
        assert_eq!((link.counters().requests, link.counters().pings_received), (2, 1));
        assert!(link.middle_proxy.is_reading());
        assert_eq!(link.heard, heard);
    }
}

#[test]
fn endings_come_when_they_are_due() {
    for ending in [Ending::Close, Ending::Reset, Ending::HalfClose] {
        let mut at_once = Link::misbehaving(Misbehaviour::EndsAtOnce(ending));
        assert_eq!(at_once.middle_proxy.take_ending(), Some(ending));
        at_once.settle().unwrap_or_else(|fault| panic!("{fault}"));
        let mut later = Link::after_one(DataFault::End(ending));
        later.middle_proxy.receive(&later.proxy.take_output()).unwrap();
        assert_eq!(later.middle_proxy.take_ending(), None, "the answer is still to be sent");
        later.settle().unwrap();
        assert_eq!(later.heard, [echoed()]);
        assert_eq!(later.middle_proxy.take_ending(), Some(ending));
        assert_eq!(later.middle_proxy.take_ending(), None);
    }
}

proptest! {
    #[test]
    fn packets_come_back_whatever_the_pieces_and_flushes(
        lengths in proptest::collection::vec((0i64..5, 14usize..400), 1..30),
        piece_len in 1usize..200, len_min in 1usize..3000, accepts_crc32c: bool,
    ) {
        let options = MiddleProxyOptions { accepts_crc32c, ..MiddleProxyOptions::new(&SECRET) };
        let mut link = Link::new(options.with_telegram(Telegram::Echo));
        let mut expected = vec![Vec::new(); 5];
        link.settle_in_pieces(piece_len, len_min).unwrap();
        for (connection, words) in lengths {
            let packet = pattern::bytes(8, words * 4);
            expected[usize::try_from(connection).unwrap()].push(packet.clone());
            link.ask(connection, &packet);
        }
        link.settle_in_pieces(piece_len, len_min).unwrap();
        prop_assert_eq!((link.to_proxy_len - 44) % 16, 0);
        for (connection, expected) in (0i64..).zip(expected) {
            let of_it = |message: &Message| match message {
                Message::Answer { connection: found, packet, .. } if *found == connection => Some(packet.clone()),
                _ => None,
            };
            prop_assert_eq!(link.heard.iter().filter_map(of_it).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn nothing_that_a_proxy_may_send_makes_it_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..300), payload in proptest::collection::vec(any::<u32>(), 0..40),
        op in proptest::sample::select(vec![op::PROXY_REQ, op::CLOSE_CONN, op::PING, op::PONG, op::HANDSHAKE]),
    ) {
        let mut link = Link::new(MiddleProxyOptions::new(&SECRET));
        link.settle().unwrap();
        let words = std::iter::once(op).chain(payload).flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
        link.proxy.send_payload(&words, None);
        let _ = link.middle_proxy.receive(&link.proxy.take_output());
        let mut deaf = Link::new(MiddleProxyOptions::new(&SECRET));
        let _ = deaf.middle_proxy.receive(&noise);
    }
}
