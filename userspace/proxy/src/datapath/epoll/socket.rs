//! One connection: its descriptor, what epoll last said about it, and what waits to be sent.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mtproxy_core::action::Action;
use mtproxy_core::stream::StreamId;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, socket_error};
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::buffers::{BufferPool, OutputQueue};

/// Slices of one gathered write. A full read buffer of fake TLS is ten small records and four large ones,
/// two slices each.
const SLICES_MAX: usize = 32;

/// A connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: StreamId,
    /// `None` between a failed dial and the next.
    fd: Option<OwnedFd>,
    queue: OutputQueue,
    is_client: bool,
    state: State,
    /// epoll has reported input that no read has exhausted yet.
    readable: bool,
    /// No write has met a full socket buffer since epoll last reported room.
    writable: bool,
    /// FIN or an error has been reported: reads go on until one says so, even behind a short one.
    hung_up: bool,
    /// The datapath is going to read this socket without a new event.
    pub(super) is_queued_to_read: bool,
    fin: Fin,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Dialing,
    Open,
}

/// Our own FIN.
#[derive(Debug, PartialEq, Eq)]
enum Fin {
    NotYet,
    BehindQueue,
    Sent,
}

/// What a read brought.
pub(super) enum Received {
    Bytes(usize),
    Eof,
    Nothing,
    Broken,
}

impl Socket {
    pub(super) fn accepted(stream: StreamId, fd: OwnedFd) -> Self {
        Self { fd: Some(fd), is_client: true, state: State::Open, ..Self::dialing(stream) }
    }

    pub(super) fn dialing(stream: StreamId) -> Self {
        Self {
            stream,
            fd: None,
            queue: OutputQueue::default(),
            is_client: false,
            state: State::Dialing,
            readable: false,
            writable: false,
            hung_up: false,
            is_queued_to_read: false,
            fin: Fin::NotYet,
        }
    }

    pub(super) fn stream(&self) -> StreamId {
        self.stream
    }

    pub(super) fn is_client(&self) -> bool {
        self.is_client
    }

    pub(super) fn is_dialing(&self) -> bool {
        self.state == State::Dialing
    }

    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    pub(super) fn can_flush(&self) -> bool {
        self.writable && (!self.queue.is_empty() || self.fin == Fin::BehindQueue)
    }

    pub(super) fn into_queue(self) -> OutputQueue {
        self.queue
    }

    /// Registers with epoll once and for all.
    pub(super) fn register(&self, epoll: &OwnedFd) -> Result<(), Errno> {
        let Some(fd) = &self.fd else { return Err(Errno::BADF) };
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, fd, EventData::new_u64(self.stream.to_u64()), interest)
    }

    /// Dials over `fd`, giving up an earlier attempt.
    pub(super) fn dial_over(&mut self, fd: OwnedFd, epoll: &OwnedFd) -> Result<(), Errno> {
        self.fd = Some(fd);
        self.state = State::Dialing;
        self.register(epoll)
    }

    /// The end of the dial that `flags` may be about; `None` if it is still on its way.
    pub(super) fn dial_result(&mut self, flags: EventFlags) -> Option<Result<(), Errno>> {
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            let error =
                self.fd.as_ref().map_or(Err(Errno::BADF), |fd| socket_error(fd).and_then(|result| result));
            // HUP without an error: the peer was gone again before we looked.
            return Some(Err(error.err().unwrap_or(Errno::CONNRESET)));
        }
        if !flags.contains(EventFlags::OUT) {
            return None;
        }
        self.state = State::Open;
        self.writable = true;
        Some(Ok(()))
    }

    pub(super) fn notice(&mut self, flags: EventFlags) {
        let end = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.readable |= flags.intersects(EventFlags::IN | end);
        self.writable |= flags.contains(EventFlags::OUT);
        self.hung_up |= flags.intersects(end);
    }

    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        let Some(fd) = &self.fd else { return Received::Broken };
        let room = buffer.len();
        match rustix::net::recv(fd, buffer, RecvFlags::empty()) {
            Ok((_, 0)) => {
                self.readable = false;
                Received::Eof
            }
            Ok((_, len)) => {
                // A short read has emptied the socket (epoll(7)); what comes later is a new event.
                self.readable = len == room || self.hung_up;
                Received::Bytes(len)
            }
            Err(Errno::INTR) => Received::Nothing,
            Err(Errno::AGAIN) => {
                self.readable = false;
                Received::Nothing
            }
            Err(_) => Received::Broken,
        }
    }

    /// Sends `outputs`, all to this socket; queues what the kernel does not take. Answers how many bytes
    /// it took.
    pub(super) fn send(
        &mut self,
        outputs: &[Action],
        bytes: &[u8],
        input: &[u8],
        spare: &mut BufferPool,
    ) -> Result<usize, Errno> {
        let mut sent_total = 0;
        for chunk in outputs.chunks(SLICES_MAX) {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            for (slice, output) in slices.iter_mut().zip(chunk) {
                *slice = IoSlice::new(slice_of(output, bytes, input));
            }
            let slices = &mut slices[..chunk.len()];
            let mut left = &mut *slices;
            if self.writable && self.queue.is_empty() {
                let sent = self.write(left)?;
                sent_total += sent;
                IoSlice::advance_slices(&mut left, sent);
            }
            for slice in left {
                self.queue.append(slice, spare);
            }
        }
        Ok(sent_total)
    }

    /// Sends what is queued. Answers how many bytes the kernel took.
    pub(super) fn flush(&mut self, spare: &mut BufferPool) -> Result<usize, Errno> {
        let mut sent_total = 0;
        while self.writable && !self.queue.is_empty() {
            let queue = std::mem::take(&mut self.queue);
            let result = self.write(&[IoSlice::new(queue.pending())]);
            self.queue = queue;
            let sent = result?;
            self.queue.advance(sent, spare);
            sent_total += sent;
        }
        self.send_fin_if_due();
        Ok(sent_total)
    }

    /// FIN behind what is queued.
    pub(super) fn shut_down(&mut self) {
        if self.fin == Fin::NotYet {
            self.fin = Fin::BehindQueue;
        }
        self.send_fin_if_due();
    }

    /// Makes closing this socket send RST.
    pub(super) fn prepare_reset(&self) {
        if let Some(fd) = &self.fd {
            // Fails only for a socket that is already gone.
            let _ = set_socket_linger(fd, Some(Duration::ZERO));
        }
    }

    fn send_fin_if_due(&mut self) {
        if self.fin == Fin::BehindQueue
            && self.queue.is_empty()
            && self.state == State::Open
            && let Some(fd) = &self.fd
        {
            // Fails only if the peer has reset the connection, which a read will find.
            let _ = rustix::net::shutdown(fd, Shutdown::Write);
            self.fin = Fin::Sent;
        }
    }

    /// Writes once, remembers a full socket buffer.
    fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let Some(fd) = &self.fd else { return Ok(0) };
        let result = match slices {
            [one] => rustix::net::send(fd, one, SendFlags::NOSIGNAL),
            many => rustix::io::writev(fd, many),
        };
        match result {
            Ok(sent) => {
                self.writable = sent == slices.iter().map(|slice| slice.len()).sum::<usize>();
                Ok(sent)
            }
            Err(Errno::AGAIN) => {
                self.writable = false;
                Ok(0)
            }
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

fn slice_of<'a>(output: &Action, bytes: &'a [u8], input: &'a [u8]) -> &'a [u8] {
    let of = |whole: &'a [u8], range: &Range<usize>| &whole[range.clone()];
    match output {
        Action::Write { range, .. } => of(bytes, range),
        Action::Relay { range, .. } => of(input, range),
        _ => &[],
    }
}
