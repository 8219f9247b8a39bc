//! The client's side: what is on the command line, and the file as it comes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::request::Request;
use super::selection::{KEPT_BYTES_MAX, Selection};
use super::server::{GRANTED, REFUSED};
use crate::complaint::{Complaint, Complaints};
use crate::local::Door;
use crate::settings::cidr::Cidr;

/// Longest answer to a request.
const ANSWER_BYTES_MAX: u64 = 1024;

/// Options of `mtproxy capture`.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// Interface that a proxy of this host serves over AF_XDP
    #[arg(value_name = "INTERFACE")]
    pub interface: String,

    /// Where to write it [default: standard output, for a pipe into tshark or wireshark]
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,

    /// Bytes of payload to keep of each packet
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=KEPT_BYTES_MAX as i64))]
    pub payload: u16,

    /// Capture one connection in so many, whole
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub one_in: u32,

    /// Only packets from or to this network, such as 192.0.2.7/32
    #[arg(long, value_name = "NETWORK")]
    pub address: Option<Cidr>,

    /// Only packets from or to this port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// End after so many packets [default: when interrupted]
    #[arg(long, value_name = "N")]
    pub packets: Option<u64>,

    /// End after so many seconds
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
}

impl CaptureArgs {
    fn request(&self) -> Request {
        let Self { payload: payload_bytes, one_in, address, port, packets, seconds, .. } = *self;
        let selection = Selection { payload_bytes, one_in, address, port };
        Request { selection, packets, time: seconds.map(Duration::from_secs) }
    }
}

/// Captures until there is enough, or until SIGINT or SIGTERM.
///
/// # Errors
/// If nobody serves the interface, or the file cannot be written.
pub fn run(args: &CaptureArgs) -> Result<ExitCode, Complaints> {
    let mut stream = connect(&args.interface)?;
    let mut out: Box<dyn Write> = match &args.write {
        Some(path) => Box::new(File::create(path).map_err(|error| unwritable(&path.display(), &error))?),
        None if io::stdout().is_terminal() => {
            return Err(Complaint::about_host(
                "found a terminal; expected a file, which is binary; name one with --write, or pipe the capture into tshark -r -",
            )
            .into());
        }
        None => Box::new(io::stdout()),
    };
    writeln!(stream, "{}", args.request().line()).map_err(|error| cut_off(&error))?;
    end_on_signal(&stream)?;
    let mut answer = BufReader::new(stream);
    read_answer(&mut answer)?;
    let mut display = Display::new();
    let tally = copy(&mut answer, &mut out, |tally| display.show(tally))?;
    display.end(&tally);
    Ok(ExitCode::SUCCESS)
}

fn connect(interface: &str) -> Result<UnixStream, Complaint> {
    Door::Capture(interface.to_owned()).enter().map_err(|error| {
        Complaint::about_host(format!(
            "found no proxy that serves {interface:?} over AF_XDP ({error}); expected one in this network namespace; its log says \
            \"datapath xdp\" with the interface's name; packets of the datapath epoll are the kernel's, use tcpdump for them"
        ))
    })
}

fn read_answer(stream: &mut impl BufRead) -> Result<(), Complaint> {
    let mut line = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line).map_err(|error| cut_off(&error))?;
    if line == GRANTED {
        return Ok(());
    }
    // Whoever has the name may be somebody else: what it says must not speak to the terminal.
    let text: String = String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).collect();
    let why = text.trim_end().strip_prefix(REFUSED).unwrap_or("found no answer of the proxy; expected one");
    Err(Complaint::about_host(why.to_owned()))
}

/// The proxy then sends what it still has, and ends the file as it should be.
fn end_on_signal(stream: &UnixStream) -> Result<(), Complaint> {
    let watched = stream.try_clone().and_then(|stream| Ok((stream, Signals::new([SIGINT, SIGTERM])?)));
    let (stream, mut signals) = watched.map_err(|error| cut_off(&error))?;
    let body = move || {
        for (index, _) in signals.forever().enumerate() {
            if index > 0 {
                // Whoever asks twice does not want to wait for the rest.
                std::process::exit(1);
            }
            // Fails only if the proxy has ended: then so has the file.
            let _ = stream.shutdown(Shutdown::Write);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(body).map(drop).map_err(|error| cut_off(&error))
}

/// What has come so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) packets: u64,
    /// Bytes of the file.
    pub(super) bytes: u64,
    /// Packets that the shards could not hand over in time.
    pub(super) lost: u64,
}

/// Writes everything that it reads.
struct Tee<R, W> {
    from: R,
    to: W,
    bytes: u64,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.to.write_all(&buffer[..count])?;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Copies a file to its end, and counts what is in it.
pub(super) fn copy(
    from: impl Read,
    to: impl Write,
    mut show: impl FnMut(&Tally),
) -> Result<Tally, Complaint> {
    let broken = |error: &dyn std::fmt::Display| {
        Complaint::about_host(format!(
            "found the capture cut off ({error}); expected a whole file; what has come is kept"
        ))
    };
    // Unbuffered, for whoever looks on while it comes.
    let mut tee = Tee { from, to, bytes: 0 };
    let mut tally = Tally::default();
    let mut lost_by_queue = BTreeMap::new();
    {
        let mut blocks = PcapNgReader::new(&mut tee).map_err(|error| broken(&error))?;
        while let Some(block) = blocks.next_block() {
            match block.map_err(|error| broken(&error))? {
                Block::EnhancedPacket(_) => tally.packets += 1,
                Block::InterfaceStatistics(counts) => {
                    for option in &counts.options {
                        if let InterfaceStatisticsOption::IsbIfDrop(lost) = option {
                            lost_by_queue.insert(counts.interface_id, *lost);
                        }
                    }
                    tally.lost = lost_by_queue.values().sum();
                    show(&tally);
                }
                _ => {}
            }
        }
    }
    tally.bytes = tee.bytes;
    tee.to.flush().map_err(|error| unwritable(&"the capture", &error))?;
    Ok(tally)
}

/// One line on the terminal, again and again.
struct Display {
    began: Instant,
    is_terminal: bool,
}

impl Display {
    fn new() -> Self {
        Self { began: Instant::now(), is_terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, tally: &Tally) {
        if self.is_terminal {
            let seconds = self.began.elapsed().as_secs();
            eprint!("\r{} packets, {} lost, {seconds} s; end with ^C  ", tally.packets, tally.lost);
        }
    }

    fn end(&self, tally: &Tally) {
        let Tally { packets, bytes, lost } = tally;
        let start = if self.is_terminal { "\r" } else { "" };
        eprintln!(
            "{start}{packets} packets in {bytes} bytes, {lost} lost, {:.1} s        ",
            self.began.elapsed().as_secs_f64()
        );
        if *lost > 0 {
            eprintln!(
                "packets are lost when they come faster than they can be written: choose fewer with --one-in, --address or --port"
            );
        }
    }
}

fn unwritable(what: &dyn std::fmt::Display, error: &io::Error) -> Complaint {
    Complaint::about_host(format!(
        "found no way to write {what} ({error}); expected a place with room; name another with --write"
    ))
}

fn cut_off(error: &io::Error) -> Complaint {
    Complaint::about_host(format!("found the proxy gone ({error}); expected it to run; see its log"))
}
