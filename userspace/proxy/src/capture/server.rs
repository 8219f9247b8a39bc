//! The server's thread: hands packets from the shards' rings to whoever captures, as pcapng.
//!
//! It sleeps in `accept` until somebody asks. One capture at a time; whoever comes meanwhile is told so.

use std::borrow::Cow;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgBlock as _, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError};
use rustix::io::Errno;
use tracing::{info, warn};

use super::request::{LINE_BYTES_MAX, Request};
use super::tap::{Capture, Direction, Record, Run};
use crate::local::{self, Door};

/// For the request, and for a reader that stands still when all is over.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at rings that were empty.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Between two blocks of statistics.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Packets between two looks at everything else.
const BATCH: usize = 4096;
/// After a failed accept.
const ACCEPT_BREAK: Duration = Duration::from_secs(1);
/// A shard lets go of its ring with its next turn, which a beat makes every 40 ms.
const LET_GO_WITHIN: Duration = Duration::from_millis(500);

/// Before the file.
pub(super) const GRANTED: &[u8] = b"ok\n";
/// Before the reason why there is none.
pub(super) const REFUSED: &str = "error: ";

/// `epb_flags`: direction of a packet, in the two lowest bits.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// `if_tsresol`: nanoseconds.
const NANOSECONDS: u8 = 9;

/// Starts to serve captures of this interface, until the process ends.
///
/// # Errors
/// If another proxy of this network namespace serves the interface already, or there is no thread left.
pub fn start(interface: &str, capture: Arc<Capture>) -> io::Result<()> {
    let listener = Door::Capture(interface.to_owned()).open()?;
    let server = Server { interface: interface.to_owned(), listener, capture };
    thread::Builder::new().name("capture".to_owned()).spawn(move || server.serve()).map(drop)
}

struct Server {
    interface: String,
    listener: UnixListener,
    capture: Arc<Capture>,
}

impl Server {
    fn serve(&self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.answer(&stream),
                Err(error) => {
                    warn!(%error, "cannot accept requests to capture");
                    thread::sleep(ACCEPT_BREAK);
                }
            }
        }
    }

    fn answer(&self, stream: &UnixStream) {
        let request = match self.request(stream) {
            Ok(request) => request,
            Err(why) => return refuse(stream, &why),
        };
        // Not which addresses: those of clients are never logged.
        let payload_bytes = request.selection.payload_bytes;
        info!(interface = self.interface, payload_bytes, "a capture begins");
        let mut key = [0; 8];
        // Without randomness a peer could foresee which connections are chosen, and no more.
        let _ = getrandom::fill(&mut key);
        let run = self.capture.begin(request.selection, u64::from_ne_bytes(key));
        let outcome = self.stream_out(stream, &run, &request);
        self.capture.end();
        let (selected, lost) = run.counts().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        let reason = outcome.err().map_or("done".to_owned(), |error| error.to_string());
        info!(interface = self.interface, selected, lost, reason, "a capture has ended");
        await_shards(&run);
    }

    fn request(&self, stream: &UnixStream) -> Result<Request, String> {
        let unreadable = |error: io::Error| format!("found no request to capture ({error}); expected a line");
        local::admit(stream)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(unreadable)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(unreadable)?;
        let mut line = String::new();
        BufReader::new(stream.take(LINE_BYTES_MAX as u64)).read_line(&mut line).map_err(unreadable)?;
        if !self.capture.has_shards() {
            return Err("found AF_XDP lost on this interface; expected it to be back; the proxy's log says what is missing; \
                until then use tcpdump"
                .to_owned());
        }
        Request::parse(&line)
    }

    /// Until the client has enough or has gone, or the shards end.
    fn stream_out(&self, stream: &UnixStream, run: &Arc<Run>, request: &Request) -> Result<(), PcapError> {
        let mut out = stream;
        out.write_all(GRANTED).map_err(PcapError::IoError)?;
        let mut file = File::begin(&self.interface, run, request)?;
        let until = request.time.map(|time| Instant::now() + time);
        let mut next_count = Instant::now() + COUNT_EVERY;
        let mut left = request.packets.unwrap_or(u64::MAX);
        let has_had_enough = || until.is_some_and(|until| until <= Instant::now()) || has_hung_up(stream);
        loop {
            // Asked first, so that what came before the end is in the file.
            let is_over = has_had_enough() || !self.capture.is_under_way(run);
            let batch = usize::try_from(left).unwrap_or(BATCH).min(BATCH);
            if is_over {
                // Nothing more is added to the rings, so that they come to an end.
                self.capture.end();
            }
            let drained = file.packets(run, batch)?;
            left -= drained as u64;
            let has_all = left == 0 || (is_over && drained == 0);
            if has_all || next_count <= Instant::now() {
                next_count = Instant::now() + COUNT_EVERY;
                file.count(run)?;
            }
            file.send(stream, || is_over || has_had_enough()).map_err(PcapError::IoError)?;
            if has_all {
                return Ok(());
            }
            self.turn_others_away();
            if drained == 0 {
                thread::sleep(LOOK_EVERY);
            }
        }
    }

    fn turn_others_away(&self) {
        if self.listener.set_nonblocking(true).is_err() {
            return;
        }
        if let Ok((other, _)) = self.listener.accept() {
            refuse(
                &other,
                "found another capture of this interface under way; expected one at a time; end that one first",
            );
        }
        let _ = self.listener.set_nonblocking(false);
    }
}

/// The other end may have gone; then nobody needs to know.
fn refuse(mut stream: &UnixStream, why: &str) {
    let _ = stream.set_write_timeout(Some(PATIENCE));
    let _ = stream.write_all(format!("{REFUSED}{why}\n").as_bytes());
}

/// A client that wants to end closes its direction, and reads on until it has everything.
fn has_hung_up(stream: &UnixStream) -> bool {
    use rustix::net::{RecvFlags, recv};
    match recv(stream, &mut [0; 1][..], RecvFlags::DONTWAIT) {
        Ok((_, received)) => received == 0,
        Err(error) => error != Errno::AGAIN,
    }
}

/// So that the memory is given back here, and not by a shard.
fn await_shards(run: &Arc<Run>) {
    let began = Instant::now();
    while Arc::strong_count(run) > 1 && began.elapsed() < LET_GO_WITHIN {
        thread::sleep(LOOK_EVERY);
    }
}

/// The pcapng file on its way (draft-ietf-opsawg-pcapng): a section, an interface for each queue, then packets and counts.
struct File {
    /// What is to be sent next.
    blocks: PcapNgWriter<Vec<u8>>,
}

impl File {
    fn begin(name: &str, run: &Run, request: &Request) -> Result<Self, PcapError> {
        let program = format!("mtproxy {}", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(program.into())],
            ..SectionHeaderBlock::default()
        };
        let mut blocks = PcapNgWriter::with_section_header(Vec::new(), section)?;
        for (queue, _) in run.counts().enumerate() {
            let description = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: u32::try_from(request.selection.kept_bytes_max()).unwrap_or(0),
                options: vec![
                    InterfaceDescriptionOption::IfName(name.to_owned().into()),
                    InterfaceDescriptionOption::IfDescription(format!("AF_XDP, queue {queue}").into()),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ],
            };
            blocks.write_block(&description.into_block())?;
        }
        Ok(Self { blocks })
    }

    /// Writes up to `most` packets. Answers how many.
    fn packets(&mut self, run: &Run, most: usize) -> Result<usize, PcapError> {
        let mut outcome = Ok(());
        let drained = run.drain(most, |shard, record| {
            if outcome.is_ok() {
                outcome = self.packet(shard, record);
            }
        });
        outcome.map(|()| drained)
    }

    fn packet(&mut self, shard: usize, record: &Record) -> Result<(), PcapError> {
        let direction = match record.direction {
            Direction::Received => INBOUND,
            Direction::Sent => OUTBOUND,
        };
        let block = EnhancedPacketBlock {
            interface_id: u32::try_from(shard).unwrap_or(0),
            timestamp: record.at,
            original_len: u32::try_from(record.len).unwrap_or(u32::MAX),
            data: Cow::Borrowed(record.bytes()),
            options: vec![EnhancedPacketOption::Flags(direction)],
        };
        self.blocks.write_block(&block.into_block()).map(drop)
    }

    fn count(&mut self, run: &Run) -> Result<(), PcapError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        for (interface_id, (selected, lost)) in (0..).zip(run.counts()) {
            let block = InterfaceStatisticsBlock {
                interface_id,
                // The more significant half comes first, each in the section's byte order, which the library does not know.
                timestamp: timestamp.rotate_left(32),
                options: vec![
                    InterfaceStatisticsOption::IsbIfRecv(selected),
                    InterfaceStatisticsOption::IsbIfDrop(lost),
                ],
            };
            self.blocks.write_block(&block.into_block())?;
        }
        Ok(())
    }

    /// Sends whole blocks. A reader that stands still is waited for, while the rings fill and count what they lose, until
    /// `is_over`; then for as long as [`PATIENCE`], the write timeout.
    fn send(&mut self, mut stream: &UnixStream, is_over: impl Fn() -> bool) -> io::Result<()> {
        let blocks = self.blocks.get_mut();
        let mut sent = 0;
        while sent < blocks.len() {
            match stream.write(&blocks[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_over() => {}
                Err(error) => return Err(error),
            }
        }
        blocks.clear();
        Ok(())
    }
}
