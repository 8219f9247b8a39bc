//! Captures of packets that were never on a wire, from a shard's tap to the bytes of the file.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use etherparse::{PacketBuilder, VlanId};
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use proptest::prelude::*;

use super::client::{Tally, copy};
use super::request::Request;
use super::tap::{Capture, Direction, Tap};
use super::{Selection, server};
use crate::local::Door;

const CLIENT: [u8; 4] = [192, 0, 2, 7];
const PROXY: [u8; 4] = [198, 51, 100, 1];
/// Ethernet, IPv4 and TCP without options.
const HEADERS: usize = 14 + 20 + 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// A segment of a client's, to us or from us, with so much payload.
fn segment(client_port: u16, is_to_us: bool, payload: usize) -> Vec<u8> {
    let [from, to] = if is_to_us { [CLIENT, PROXY] } else { [PROXY, CLIENT] };
    let [from_port, to_port] = if is_to_us { [client_port, 443] } else { [443, client_port] };
    let builder =
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from, to, 64).tcp(from_port, to_port, 7, 1000);
    let mut frame = Vec::new();
    builder.write(&mut frame, &vec![0x70; payload]).unwrap();
    frame
}

#[test]
fn payload_is_left_out_but_for_the_bytes_that_were_asked_for() {
    let frame = segment(50000, true, 1000);
    for (payload_bytes, kept) in
        [(0, HEADERS), (1, HEADERS + 1), (999, HEADERS + 999), (1400, HEADERS + 1000)]
    {
        let selection = Selection { payload_bytes, ..Selection::default() };
        assert_eq!(selection.kept(&frame, 1), Some(kept));
    }
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).single_vlan(VlanId::try_new(5).unwrap());
    let builder = builder.ipv6([0xfd; 16], [0xfe; 16], 64).tcp(443, 50000, 7, 1000).options_raw(&[1; 12]);
    builder.unwrap().write(&mut frame, &[0x70; 900]).unwrap();
    assert_eq!(Selection::default().kept(&frame, 1), Some(18 + 40 + 20 + 12), "a tag, IPv6, options of TCP");
}

/// An ICMP error quotes a packet of ours, and may quote its payload.
#[test]
fn of_an_icmp_error_the_quoted_headers_are_kept_and_no_more() {
    let quoted = &segment(50000, false, 500)[14..];
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([203, 0, 113, 1], PROXY, 64);
    builder.icmpv4_raw(3, 4, [0, 0, 5, 0]).write(&mut frame, quoted).unwrap();
    let kept = Selection::default().kept(&frame, 1).unwrap();
    assert_eq!(kept, 14 + 20 + 8 + 20 + 8, "the quoted IP header, and ports and number of TCP's");
}

#[test]
fn packets_are_selected_by_either_end_and_what_is_no_packet_of_an_address_only_without_a_wish() {
    let frame = segment(50000, true, 10);
    let arp = [vec![0xff; 12], vec![8, 6], vec![0; 28]].concat();
    let everything = Selection::default();
    let port = |port| Selection { port: Some(port), ..everything };
    let network = |text: &str| Selection { address: Some(text.parse().unwrap()), ..everything };
    for (selection, takes_segment, takes_arp) in [
        (everything, true, true),
        (port(443), true, false),
        (port(50000), true, false),
        (port(444), false, false),
        (network("192.0.2.0/24"), true, false),
        (network("198.51.100.1/32"), true, false),
        (network("198.51.100.2/32"), false, false),
        (network("2001:db8::/32"), false, false),
        (Selection { port: Some(444), ..network("192.0.2.0/24") }, false, false),
    ] {
        let takes = |frame: &[u8]| selection.kept(frame, 1).is_some();
        assert_eq!((takes(&frame), takes(&arp)), (takes_segment, takes_arp), "{selection:?}");
    }
}

#[test]
fn one_connection_in_four_is_chosen_whole_and_by_a_key_that_nobody_knows() {
    let selection = Selection { one_in: 4, ..Selection::default() };
    let chosen = |key: u64| -> Vec<u16> {
        let is_chosen = |port: &u16, is_to_us| selection.kept(&segment(*port, is_to_us, 0), key).is_some();
        let ports = 40000..42000;
        assert!(ports.clone().all(|port| is_chosen(&port, true) == is_chosen(&port, false)));
        ports.filter(|port| is_chosen(port, true)).collect()
    };
    let (one, other) = (chosen(1), chosen(2));
    assert!((400..=600).contains(&one.len()) && (400..=600).contains(&other.len()));
    assert_ne!(one, other);
}

proptest! {
    /// Whatever comes from the network: no panic, no more than there is, no more than there is room for.
    #[test]
    fn of_any_frame_no_more_is_kept_than_there_is(
        frame in prop::collection::vec(any::<u8>(), 0..1600),
        damaged in (any::<prop::sample::Index>(), any::<u8>()),
        payload_bytes in 0u16..2000,
    ) {
        let selection = Selection { payload_bytes, ..Selection::default() };
        let mut almost = segment(50000, true, frame.len().min(1400));
        let at = damaged.0.index(almost.len());
        almost[at] = damaged.1;
        for frame in [&frame, &almost] {
            let kept = selection.kept(frame, 1).unwrap();
            prop_assert!(kept <= frame.len() && kept <= selection.kept_bytes_max());
        }
        let cut = damaged.0.index(almost.len());
        prop_assert!(selection.kept(&almost[..cut], 1).unwrap() <= cut);
    }

    #[test]
    fn a_request_is_read_as_it_was_written(
        payload_bytes: u16, one_in in 1u32.., port: Option<u16>, packets: Option<u64>, millis: Option<u32>,
        address: Option<([u8; 4], bool)>,
    ) {
        let address = address.map(|(ip, is_net)| {
            if is_net { format!("{}.0.0.0/8", ip[0]) } else { format!("{}/32", std::net::Ipv4Addr::from(ip)) }
        });
        let address = address.map(|text| text.parse().unwrap());
        let request = Request {
            selection: Selection { payload_bytes, one_in, address, port },
            packets,
            time: millis.map(|millis| Duration::from_millis(millis.into())),
        };
        prop_assert_eq!(Request::parse(&request.line()), Ok(request));
    }

    #[test]
    fn any_line_is_a_request_or_refused(line: String) {
        let _ = Request::parse(&line);
        let line = format!("mtproxy-capture/1 one_in={line}x");
        prop_assert!(Request::parse(&line).is_err());
    }
}

#[test]
fn a_request_of_another_version_or_for_nothing_is_refused_with_what_was_expected() {
    for (line, expected) in [
        ("", "another version"),
        ("mtproxy-capture/2 payload=0", "another version"),
        ("mtproxy-capture/1 one_in=0", "1 or more"),
        ("mtproxy-capture/1 payload", "found \"payload\""),
        ("mtproxy-capture/1 payload=65536", "found \"payload=65536\""),
        ("mtproxy-capture/1 colour=red", "found \"colour=red\""),
    ] {
        let why = Request::parse(line).unwrap_err();
        assert!(why.contains(expected) && why.contains("expected"), "{line}: {why}");
    }
}

#[test]
fn without_a_capture_nothing_is_kept_and_a_full_ring_loses_packets_of_the_file_alone() {
    let capture = Arc::new(Capture::default());
    capture.renew_shards(1);
    let mut tap = capture.tap(0);
    let frame = segment(50000, true, 0);
    tap.begin_turn();
    tap.note(Direction::Received, &frame);
    let run = capture.begin(Selection::default(), 1);
    tap.note(Direction::Received, &frame);
    assert_eq!(run.counts().collect::<Vec<_>>(), [(0, 0)], "the turn began before the capture");
    tap.begin_turn();
    for _ in 0..5000 {
        tap.note(Direction::Sent, &frame);
    }
    assert_eq!(run.counts().collect::<Vec<_>>(), [(5000, 904)]);
    assert_eq!(run.drain(1000, |_, _| {}), 1000, "of one ring");
    tap.note(Direction::Sent, &frame);
    assert_eq!(run.counts().collect::<Vec<_>>(), [(5001, 904)], "there is room again");
    assert_eq!(run.drain(usize::MAX, |_, _| {}), 3097);
    capture.end();
    tap.begin_turn();
    tap.note(Direction::Sent, &frame);
    assert_eq!(run.counts().collect::<Vec<_>>(), [(5001, 904)]);
    assert_eq!(Arc::strong_count(&run), 1, "the shard has let go of it");
}

#[test]
fn packets_of_several_shards_come_in_the_order_of_their_times() {
    let capture = Arc::new(Capture::default());
    capture.renew_shards(2);
    let run = capture.begin(Selection::default(), 1);
    let mut taps = [capture.tap(0), capture.tap(1)];
    for port in 50000..50100 {
        let tap = &mut taps[usize::from(port % 2)];
        tap.begin_turn();
        tap.note(Direction::Received, &segment(port, true, 0));
    }
    let mut ports = Vec::new();
    run.drain(usize::MAX, |shard, record| {
        let port = u16::from_be_bytes(record.bytes()[34..36].try_into().unwrap());
        assert_eq!(shard, usize::from(port % 2));
        ports.push(port);
    });
    assert!(ports.is_sorted() && ports.len() == 100);
}

#[test]
fn a_ring_that_is_always_full_leaves_the_others_their_share() {
    let capture = Arc::new(Capture::default());
    capture.renew_shards(3);
    let run = capture.begin(Selection::default(), 1);
    for shard in 0..3 {
        let mut tap = capture.tap(shard);
        tap.begin_turn();
        (0..4096).for_each(|_| tap.note(Direction::Received, &segment(50000, true, 0)));
    }
    let mut taken = [0; 3];
    run.drain(4096, |shard, _| taken[shard] += 1);
    assert_eq!(taken, [1365; 3]);
    run.drain(2, |shard, _| taken[shard] += 1);
    assert_eq!(taken, [1366, 1366, 1365], "no more than was asked for");
}

/// A server of shards that are not there, on an interface of this name alone.
struct Bench {
    interface: String,
    capture: Arc<Capture>,
}

impl Bench {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let interface = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let capture = Arc::new(Capture::default());
        capture.renew_shards(2);
        server::start(&interface, Arc::clone(&capture)).unwrap();
        Self { interface, capture }
    }

    fn ask(&self, line: &str) -> (UnixStream, BufReader<UnixStream>, String) {
        let mut stream = Door::Capture(self.interface.clone()).enter().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{line}").unwrap();
        let mut answer = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        (stream, answer, line)
    }

    /// The tap of a shard that sees the capture.
    fn tap(&self, shard: usize) -> Tap {
        let mut tap = self.capture.tap(shard);
        tap.begin_turn();
        tap
    }
}

#[test]
fn a_capture_is_a_file_of_packets_with_times_directions_queues_and_counts() {
    let bench = Bench::new();
    let (stream, mut answer, granted) = bench.ask("mtproxy-capture/1 payload=2");
    assert_eq!(granted, "ok\n");
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    bench.tap(0).note(Direction::Received, &segment(50000, true, 100));
    bench.tap(1).note(Direction::Sent, &segment(50001, false, 0));
    stream.shutdown(Shutdown::Write).unwrap();
    let mut file = Vec::new();
    let tally = copy(&mut answer, &mut file, |_| {}).unwrap();
    assert_eq!(tally, Tally { packets: 2, bytes: file.len() as u64, lost: 0 });

    let mut reader = PcapNgReader::new(file.as_slice()).unwrap();
    let (mut packets, mut counts) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::EnhancedPacket(packet) => packets.push(packet.into_owned()),
            Block::InterfaceStatistics(count) => counts.push(count.into_owned()),
            _ => {}
        }
    }
    let [received, sent] = packets.as_slice() else { panic!("{packets:?}") };
    assert_eq!((received.interface_id, sent.interface_id), (0, 1));
    assert_eq!((received.original_len as usize, received.data.len()), (HEADERS + 100, HEADERS + 2));
    assert_eq!(&received.data[..], &segment(50000, true, 100)[..HEADERS + 2]);
    assert_eq!((sent.original_len as usize, sent.data.len()), (HEADERS, HEADERS));
    assert_eq!(received.options[0], EnhancedPacketOption::Flags(1));
    assert_eq!(sent.options[0], EnhancedPacketOption::Flags(2));
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(before <= received.timestamp && received.timestamp <= sent.timestamp && sent.timestamp <= after);
    assert!(reader.interfaces().iter().all(|interface| interface.linktype == DataLink::ETHERNET));
    assert_eq!(reader.interfaces().len(), 2);
    let is_all = |block: &&pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsBlock<'_>| {
        block.options[0] == InterfaceStatisticsOption::IsbIfRecv(1)
            && block.options[1] == InterfaceStatisticsOption::IsbIfDrop(0)
    };
    assert_eq!(counts.iter().filter(is_all).count(), 2, "{counts:?}");
    // In nanoseconds, the more significant half first.
    let time = Duration::from_nanos(counts[0].timestamp.rotate_right(32));
    assert!(before <= time && time <= after, "{time:?}");
}

/// As many as fit a ring, and more than are written at once.
#[test]
fn what_came_before_the_client_had_enough_is_in_the_file() {
    let bench = Bench::new();
    let (stream, mut answer, _) = bench.ask("mtproxy-capture/1");
    let taps = [bench.tap(0), bench.tap(1)];
    for index in 0..8000 {
        taps[index % 2].note(Direction::Sent, &segment(50000, false, 0));
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let tally = copy(&mut answer, std::io::sink(), |_| {}).unwrap();
    assert_eq!((tally.packets, tally.lost), (8000, 0));
}

#[test]
fn a_capture_ends_by_itself_after_so_many_packets_or_so_long_or_with_its_shards() {
    let bench = Bench::new();
    let (_stream, mut answer, _) = bench.ask("mtproxy-capture/1 packets=3");
    let tap = bench.tap(0);
    (0..5).for_each(|_| tap.note(Direction::Sent, &segment(50000, false, 0)));
    drop(tap);
    assert_eq!(copy(&mut answer, std::io::sink(), |_| {}).unwrap().packets, 3);

    let began = Instant::now();
    let (_stream, mut answer, granted) = bench.ask("mtproxy-capture/1 milliseconds=50");
    assert_eq!(granted, "ok\n", "the one before is over");
    copy(&mut answer, std::io::sink(), |_| {}).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(50));

    let (_stream, mut answer, _) = bench.ask("mtproxy-capture/1");
    bench.tap(1).note(Direction::Sent, &segment(50000, false, 0));
    let mut first = [0; 1];
    answer.read_exact(&mut first).unwrap();
    bench.capture.renew_shards(2);
    let mut rest = Vec::new();
    assert!(answer.read_to_end(&mut rest).is_ok(), "the file has an end");

    bench.capture.renew_shards(0);
    let (_, _, refused) = bench.ask("mtproxy-capture/1");
    assert!(refused.starts_with("error: found AF_XDP lost"), "{refused}");
    bench.capture.renew_shards(1);
    assert_eq!(bench.ask("mtproxy-capture/1").2, "ok\n");
}

#[test]
fn there_is_one_capture_at_a_time_and_a_client_that_vanishes_leaves_its_place() {
    let bench = Bench::new();
    let (first, answer, granted) = bench.ask("mtproxy-capture/1");
    assert_eq!(granted, "ok\n");
    let (_, _, refused) = bench.ask("mtproxy-capture/1");
    assert!(refused.starts_with("error: found another capture"), "{refused}");
    drop((first, answer));
    let deadline = Instant::now() + PATIENCE;
    while bench.ask("mtproxy-capture/1").2 != "ok\n" {
        assert!(Instant::now() < deadline, "awaiting the place");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (_, _, refused) = bench.ask("what is this");
    assert!(refused.starts_with("error: found another"), "{refused}");
    assert!(server::start(&bench.interface, Arc::default()).is_err(), "one server at a time");
}

#[test]
fn a_file_that_is_cut_off_is_said_and_what_came_is_kept() {
    let bench = Bench::new();
    let (_stream, mut answer, _) = bench.ask("mtproxy-capture/1 packets=1");
    bench.tap(0).note(Direction::Sent, &segment(50000, false, 0));
    let mut file = Vec::new();
    copy(&mut answer, &mut file, |_| {}).unwrap();
    let mut kept = Vec::new();
    let complaint = copy(&file[..file.len() - 3], &mut kept, |_| {}).unwrap_err();
    assert!(complaint.to_string().contains("cut off"), "{complaint}");
    assert_eq!(kept, file[..file.len() - 3]);
}
