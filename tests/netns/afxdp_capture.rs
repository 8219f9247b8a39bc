//! `mtproxy capture` beside a proxy at work: every packet of the datapath is in the file, with its headers and no more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etherparse::{LaxSlicedPacket, SlicedPacket, TransportSlice};
use mtproxy_tests::PATIENCE;
use mtproxy_tests::cast::Mode;
use mtproxy_tests::lab3::PROXY_INTERFACE;
use mtproxy_tests::proxy_process::binary;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::{Block, PcapNgReader};
use rustix::process::{Pid, Signal, kill_process};

use crate::afxdp_scene::{AfxdpScene, Setting};

/// A shard sees that somebody captures when its next turn begins.
const SEEN_WITHIN: Duration = Duration::from_millis(100);
const BULK_BYTES: u64 = 300_000;

/// A capture into a file.
struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    fn start(scene: &AfxdpScene, words: &[&str]) -> Self {
        let file = std::env::temp_dir().join(format!("mtproxy-capture-{}", scene.lab.proxy.name()));
        let _ = fs::remove_file(&file);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", scene.lab.proxy.name()]).arg(binary());
        command.args(["capture", PROXY_INTERFACE, "--write"]).arg(&file).args(words);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("ip runs");
        std::thread::sleep(SEEN_WITHIN);
        let capture = Self { child, file };
        let began = scene.proxy.wait_for_line("the capture", |line| line.contains("a capture begins"));
        assert!(began.contains(PROXY_INTERFACE), "{began}");
        std::thread::sleep(SEEN_WITHIN);
        capture
    }

    /// The packets; the file is whole, and none was lost.
    fn end(self) -> Vec<EnhancedPacketBlock<'static>> {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a process id")).expect("not zero");
        kill_process(pid, Signal::INT).expect("it runs");
        let output = self.child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(", 0 lost"), "{said}");
        let packets = read(&self.file);
        assert!(said.contains(&format!("{} packets", packets.len())), "{said}");
        fs::remove_file(&self.file).expect("the file is there");
        packets
    }
}

fn read(file: &Path) -> Vec<EnhancedPacketBlock<'static>> {
    let mut reader = PcapNgReader::new(fs::File::open(file).expect("a file")).expect("a section");
    let mut packets = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.expect("a whole file") {
            packets.push(packet.into_owned());
        }
    }
    packets
}

fn is_inbound(packet: &EnhancedPacketBlock<'_>) -> bool {
    packet.options.contains(&EnhancedPacketOption::Flags(1))
}

fn packets_so_far(scene: &AfxdpScene) -> [u64; 2] {
    ["received", "sent"]
        .map(|direction| scene.sample(&format!("mtproxy_xdp_packets_total{{direction=\"{direction}\"}}")))
}

#[test]
fn every_packet_of_the_datapath_is_in_the_file_with_its_headers_and_without_payload() {
    let Some(scene) = Setting::queues(2).start() else { return };
    let capture = Capture::start(&scene, &[]);
    for index in 0..6 {
        let mut client = scene.client(Mode::ALL[index % Mode::ALL.len()], index % 2 == 1);
        client.ask_for_pq();
        client.download(BULK_BYTES);
    }
    // Both ends have closed when nothing has come for a while; the numbers of a shard are shown with its beats.
    let mut before = packets_so_far(&scene);
    let deadline = Instant::now() + PATIENCE;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = packets_so_far(&scene);
        if now == before {
            break;
        }
        before = now;
        assert!(Instant::now() < deadline, "awaiting silence");
    }
    let packets = capture.end();
    let count = |inbound| packets.iter().filter(|packet| is_inbound(packet) == inbound).count() as u64;
    assert_eq!([count(true), count(false)], before, "captured, and counted by the shards");
    assert!(packets.iter().any(|packet| packet.interface_id == 0));
    assert!(packets.iter().any(|packet| packet.interface_id == 1), "both queues carry");
    assert!(packets.iter().any(|packet| packet.original_len > 1400));
    for packet in &packets {
        // Lax, since the length of the IP packet speaks of payload that is not there.
        let sliced = LaxSlicedPacket::from_ethernet(&packet.data).expect("an Ethernet header");
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("not TCP: {packet:?}") };
        assert!(tcp.payload().is_empty(), "{packet:?}");
    }
    let mut last = Duration::ZERO;
    let mut disorder = Duration::ZERO;
    for packet in &packets {
        disorder = disorder.max(last.saturating_sub(packet.timestamp));
        last = packet.timestamp;
    }
    assert!(disorder < Duration::from_millis(50), "{disorder:?}");
    scene.finish();
}

#[test]
fn what_is_asked_for_is_captured_and_nothing_else() {
    let Some(scene) = Setting::default().start() else { return };
    let mut wanted = scene.client(Mode::Dd, false);
    let mut other = scene.client(Mode::Dd, false);
    let port = wanted.local_address().port().to_string();
    let capture = Capture::start(&scene, &["--payload", "1600", "--port", &port]);
    other.download(BULK_BYTES);
    wanted.download(BULK_BYTES);
    let packets = capture.end();
    assert!(packets.iter().all(|packet| packet.data.len() == packet.original_len as usize));
    let (mut sent_bytes, mut ports) = (0, Vec::new());
    for packet in &packets {
        let sliced = SlicedPacket::from_ethernet(&packet.data).expect("a whole packet");
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("not TCP: {packet:?}") };
        ports.push(if is_inbound(packet) { tcp.source_port() } else { tcp.destination_port() });
        if !is_inbound(packet) {
            sent_bytes += tcp.payload().len() as u64;
        }
    }
    assert!(ports.iter().all(|found| found.to_string() == port));
    assert!(sent_bytes > BULK_BYTES, "{sent_bytes} bytes, with padding and frames around them");
    drop((wanted, other));
    scene.finish();
}
