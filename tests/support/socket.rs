//! A TCP connection whose every wait has a bound, and a reason.
//!
//! For strangers, who send raw bytes, and below [`TestClient`](crate::TestClient).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, connect, listen, socket_with};

/// How long a test waits for what must happen. Far above what any of it takes on a slow machine, so that
/// it is reached only by what never happens.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How the peer ended its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// FIN.
    Eof,
    /// RST.
    Reset,
}

/// What one read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read1 {
    /// So many bytes.
    Bytes(usize),
    /// Nothing more will come.
    End(ReadEnd),
    /// Nothing yet.
    WouldBlock,
}

/// How bytes are put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Bytes per write; Nagle's algorithm is off, so each becomes a segment if the window allows.
    pub piece_len: usize,
    /// Time between writes.
    pub pause: Duration,
}

impl Pace {
    /// Everything in as few writes as the socket takes.
    pub const WHOLE: Self = Self { piece_len: usize::MAX, pause: Duration::ZERO };

    /// Pieces of `piece_len` bytes, as fast as they go.
    #[must_use]
    pub fn pieces(piece_len: usize) -> Self {
        Self { piece_len, pause: Duration::ZERO }
    }
}

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
    Both,
}

/// One connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
}

impl Socket {
    /// Connects.
    ///
    /// # Panics
    /// If nobody accepts within [`PATIENCE`].
    #[must_use]
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        match TcpStream::connect_timeout(&address, PATIENCE).and_then(Self::from_stream) {
            Ok(socket) => socket,
            Err(error) => panic!("connecting to {address}: {error}"),
        }
    }

    /// Takes over a connection.
    ///
    /// # Errors
    /// Those of the socket options.
    pub fn from_stream(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream })
    }

    /// Our end's address.
    ///
    /// # Panics
    /// If the kernel does not know it, which a connected socket does not do.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket has an address")
    }

    /// Sends everything.
    ///
    /// # Panics
    /// If the peer takes nothing for [`PATIENCE`], or has closed.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8], pace: Pace) {
        if let Err(error) = self.try_send(bytes, pace) {
            panic!("sending {} bytes: {error}", bytes.len());
        }
    }

    /// Sends everything, or says why it could not: for strangers, whom the proxy may close at any time.
    ///
    /// # Errors
    /// Those of writing; [`ErrorKind::TimedOut`] if the peer takes nothing for [`PATIENCE`].
    pub fn try_send(&mut self, bytes: &[u8], pace: Pace) -> io::Result<()> {
        for piece in bytes.chunks(pace.piece_len) {
            let mut rest = piece;
            while !rest.is_empty() {
                match self.stream.write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if !self.is_ready(Interest::Write, Instant::now() + PATIENCE) {
                            return Err(ErrorKind::TimedOut.into());
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            if !pace.pause.is_zero() {
                std::thread::sleep(pace.pause);
            }
        }
        Ok(())
    }

    /// Sends until everything is gone or the peer takes nothing for `patience`, and says how many bytes
    /// are gone: for filling every buffer on the way.
    ///
    /// # Errors
    /// Those of writing.
    pub fn send_until_stuck(&mut self, bytes: &[u8], patience: Duration) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.write_some(&bytes[sent..])? {
                0 if !self.is_ready(Interest::Write, Instant::now() + patience) => break,
                count => sent += count,
            }
        }
        Ok(sent)
    }

    /// Sends one byte as TCP's urgent data.
    ///
    /// # Panics
    /// If the kernel does not take it at once.
    #[track_caller]
    pub fn send_urgent(&mut self, byte: u8) {
        let flags = SendFlags::OOB | SendFlags::NOSIGNAL;
        assert_eq!(rustix::net::send(&self.stream, &[byte], flags), Ok(1), "urgent data");
    }

    /// One write of what fits; zero if nothing does.
    pub(crate) fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// One read of what is there.
    ///
    /// # Panics
    /// On errors that no peer can cause.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Read1 {
        match self.stream.read(buffer) {
            Ok(0) => Read1::End(ReadEnd::Eof),
            Ok(count) => Read1::Bytes(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Read1::WouldBlock,
            Err(error) if is_reset(&error) => Read1::End(ReadEnd::Reset),
            Err(error) => panic!("reading: {error}"),
        }
    }

    /// Exactly `len` bytes.
    ///
    /// # Panics
    /// If they do not come within [`PATIENCE`], or the connection ends before.
    #[must_use]
    #[track_caller]
    pub fn receive(&mut self, len: usize) -> Vec<u8> {
        let (bytes, end) = self.receive_until(PATIENCE, |bytes| bytes.len() >= len, len);
        assert!(bytes.len() == len, "awaiting {len} bytes: found {} and {end:?}", bytes.len());
        bytes
    }

    /// Everything up to the end of the connection.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    #[must_use]
    #[track_caller]
    pub fn read_to_end(&mut self) -> (Vec<u8>, ReadEnd) {
        let (bytes, end) = self.receive_until(PATIENCE, |_| false, usize::MAX);
        let Some(end) = end else {
            panic!("awaiting the end of the connection: found {} bytes and no end", bytes.len())
        };
        (bytes, end)
    }

    /// What comes within `duration`, and the end if it came: for proving silence, which takes time.
    #[must_use]
    pub fn listen_for(&mut self, duration: Duration) -> (Vec<u8>, Option<ReadEnd>) {
        self.receive_until(duration, |_| false, usize::MAX)
    }

    fn receive_until(
        &mut self,
        patience: Duration,
        is_enough: impl Fn(&[u8]) -> bool,
        len_max: usize,
    ) -> (Vec<u8>, Option<ReadEnd>) {
        let deadline = Instant::now() + patience;
        let mut received = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        while !is_enough(&received) {
            let room = buffer.len().min(len_max - received.len());
            match self.read_some(&mut buffer[..room]) {
                Read1::Bytes(count) => received.extend_from_slice(&buffer[..count]),
                Read1::End(end) => return (received, Some(end)),
                Read1::WouldBlock if self.is_ready(Interest::Read, deadline) => {}
                Read1::WouldBlock => break,
            }
        }
        (received, None)
    }

    /// Sends FIN; reading goes on.
    pub fn half_close(&mut self) {
        // Fails only if the connection is gone already, which the next read tells.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Sends RST.
    ///
    /// # Panics
    /// If the kernel refuses the option.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Makes the window that the peer sees small: for slow readers.
    ///
    /// # Panics
    /// If the kernel refuses the option.
    pub fn shrink_receive_buffer(&mut self, bytes: usize) {
        rustix::net::sockopt::set_socket_recv_buffer_size(&self.stream, bytes).expect("SO_RCVBUF");
    }

    /// Waits until one of the directions asked for can go on; false at the deadline.
    pub(crate) fn is_ready(&self, interest: Interest, deadline: Instant) -> bool {
        let flags = match interest {
            Interest::Read => PollFlags::IN,
            Interest::Write => PollFlags::OUT,
            Interest::Both => PollFlags::IN | PollFlags::OUT,
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).expect("a test's patience fits a timespec");
            match poll(&mut [PollFd::new(&self.stream, flags)], Some(&timeout)) {
                Ok(count) => return count > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }
}

/// True if the peer reset the connection, or wrote into ours after it was closed.
pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
            | ErrorKind::TimedOut
    )
}

/// An address of this machine on which nobody listens.
///
/// # Panics
/// If there is no free port.
#[must_use]
pub fn refusing_address(like: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::new(like.ip(), 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// An address of this machine where a connection is neither accepted nor refused, until dropped: a
/// listener whose backlog is full. Linux drops what does not fit, as a dead host would.
#[derive(Debug)]
pub struct SilentAddress {
    address: SocketAddr,
    _listener: OwnedFd,
    _backlog: Vec<OwnedFd>,
}

impl SilentAddress {
    /// Such an address of 127.0.0.1.
    ///
    /// # Panics
    /// If the kernel has no socket for it.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it takes sockets and time")]
    pub fn new() -> Self {
        let socket = || {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket")
        };
        let listener = socket();
        bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        listen(&listener, 0).expect("a listener");
        let address = rustix::net::getsockname(&listener).expect("a bound socket has an address");
        let address = SocketAddr::try_from(address).expect("an IPv4 address");
        // A backlog of zero holds one; the others wait for an answer that does not come.
        let fill = || {
            let connection = socket();
            // In progress, which is what it stays.
            let _ = connect(&connection, &address);
            connection
        };
        let backlog: Vec<OwnedFd> = (0..4).map(|_| fill()).collect();
        // Loopback delivers within the call; the first one is established and fills the backlog.
        Self { address, _listener: listener, _backlog: backlog }
    }

    /// Where nobody answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
