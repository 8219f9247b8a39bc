//! One connection: its descriptor, what epoll last said about it, and what waits to be sent.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mtproxy_core::action::Action;
use mtproxy_core::policy::net_connections::connection::{
    AfterRead, AfterWrite, Io, ReadContext, after_read, after_write,
};
use mtproxy_core::policy::net_events::{Interest, from_epoll, to_epoll};
use mtproxy_core::stream::StreamId;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, socket_error};
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::READ_BUFFER_BYTES;
use super::listener::local_address;
use super::pipe::{BULK_BYTES_MIN, Pipe, PipePool};
use crate::datapath::buffers::{BufferPool, OutputQueue};
use crate::datapath::{UNKNOWN_ADDRESS, Waiting};

/// Slices of one gathered write. A full read buffer of fake TLS is ten small records and four large ones,
/// two slices each.
const SLICES_MAX: usize = 32;

/// A connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: StreamId,
    /// `None` between a failed dial and the next.
    fd: Option<OwnedFd>,
    /// Spliced bytes, which leave before those in `queue`. Only a bulk transfer has one.
    pipe: Option<Pipe>,
    queue: OutputQueue,
    /// The stream that is not read until all this is sent.
    waiting: Option<StreamId>,
    is_client: bool,
    /// The last read filled the whole buffer, or the last splice was worth it.
    is_bulk: bool,
    state: State,
    /// epoll has reported input that no read has exhausted yet.
    readable: bool,
    /// No write has met a full socket buffer since epoll last reported room.
    writable: bool,
    /// FIN, an error or urgent data has been reported. Then a short read does not mean that the socket is
    /// empty, and reads go on until one says so.
    short_reads_mislead: bool,
    /// The peer's FIN has been read.
    has_ended: bool,
    /// The peer is gone: a write has failed, or epoll has reported an error. What it sent before is still to
    /// be read; then it is broken.
    has_failed: bool,
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
    /// Moved into the pipe of the socket they go to.
    Piped {
        to: StreamId,
        len: usize,
    },
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
            pipe: None,
            queue: OutputQueue::default(),
            waiting: None,
            is_client: false,
            is_bulk: false,
            state: State::Dialing,
            readable: false,
            writable: false,
            short_reads_mislead: false,
            has_ended: false,
            has_failed: false,
            is_queued_to_read: false,
            fin: Fin::NotYet,
        }
    }

    /// The same, with what already waits for it.
    pub(super) fn dialing_with(stream: StreamId, waiting: Waiting) -> Self {
        let fin = if waiting.fin { Fin::BehindQueue } else { Fin::NotYet };
        Self { queue: waiting.queue, fin, ..Self::dialing(stream) }
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
        self.writable && (self.has_pending() || self.fin == Fin::BehindQueue)
    }

    pub(super) fn is_bulk(&self) -> bool {
        self.is_bulk
    }

    /// True, and remembered, if `reader` must not be read because this socket is behind.
    pub(super) fn keeps_waiting(&mut self, reader: StreamId) -> bool {
        let is_behind = self.has_pending();
        if is_behind {
            self.waiting = Some(reader);
        }
        is_behind
    }

    /// Who waited for this socket, once it has caught up.
    pub(super) fn reader_to_release(&mut self) -> Option<StreamId> {
        if self.has_pending() { None } else { self.waiting.take() }
    }

    fn has_pending(&self) -> bool {
        self.pipe.is_some() || !self.queue.is_empty()
    }

    /// Closes the descriptor and gives back what the socket held.
    pub(super) fn dismantle(self, spare: &mut BufferPool, pipes: &mut PipePool) {
        spare.give_back(self.queue);
        if let Some(pipe) = self.pipe {
            pipes.give_back(pipe);
        }
    }

    /// Registers with epoll once and for all.
    pub(super) fn register(&self, epoll: &OwnedFd) -> Result<(), Errno> {
        let Some(fd) = &self.fd else { return Err(Errno::BADF) };
        let interest = EventFlags::from_bits_retain(to_epoll(Interest::CONNECTION));
        epoll::add(epoll, fd, EventData::new_u64(self.stream.to_u64()), interest)
    }

    /// Dials over `fd`, giving up an earlier attempt.
    pub(super) fn dial_over(&mut self, fd: OwnedFd, epoll: &OwnedFd) -> Result<(), Errno> {
        self.fd = Some(fd);
        self.state = State::Dialing;
        // What was reported was about the descriptor before.
        self.readable = false;
        self.writable = false;
        self.short_reads_mislead = false;
        self.register(epoll)
    }

    /// The end of the dial that `flags` may be about, with our address if it went well; `None` if it is still on its
    /// way.
    pub(super) fn dial_result(&mut self, flags: EventFlags) -> Option<Result<SocketAddr, Errno>> {
        let reported = from_epoll(flags.bits());
        if reported.failed || reported.hung_up {
            let error =
                self.fd.as_ref().map_or(Err(Errno::BADF), |fd| socket_error(fd).and_then(|result| result));
            // HUP without an error: the peer was gone again before we looked.
            return Some(Err(error.err().unwrap_or(Errno::CONNRESET)));
        }
        if !reported.writable {
            return None;
        }
        self.state = State::Open;
        self.writable = true;
        Some(Ok(self.fd.as_ref().map_or(UNKNOWN_ADDRESS, local_address)))
    }

    pub(super) fn notice(&mut self, flags: EventFlags) {
        let reported = from_epoll(flags.bits());
        // Once its FIN is read, a peer is not worth reading any more.
        self.readable |= !self.has_ended && reported.readable;
        self.writable |= reported.writable;
        self.short_reads_mislead |= reported.more_behind;
        if reported.failed {
            // To be remembered: behind a FIN, tcp_recvmsg() says "end" and not what became of the peer since.
            self.fail();
        }
    }

    /// True if nothing that the peer said is left to be read, and it is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.has_ended && self.has_failed
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        let Some(fd) = &self.fd else { return Received::Broken };
        let room = buffer.len();
        let (read, len) = match rustix::net::recv(fd, buffer, RecvFlags::empty()) {
            Ok((_, 0)) => (Io::End, 0),
            Ok((_, len)) => (Io::Moved(len, room), len),
            Err(error) => (failure(error), 0),
        };
        let context = ReadContext { has_failed: self.has_failed, more_behind: self.short_reads_mislead };
        match after_read(read, context) {
            AfterRead::Bytes { may_have_more } => {
                self.readable = may_have_more;
                self.is_bulk = len == READ_BUFFER_BYTES;
                Received::Bytes(len)
            }
            AfterRead::Wait => {
                self.readable = false;
                Received::Nothing
            }
            AfterRead::Retry => Received::Nothing,
            AfterRead::End => self.end(),
            AfterRead::Broken => Received::Broken,
        }
    }

    fn end(&mut self) -> Received {
        self.readable = false;
        if std::mem::replace(&mut self.has_ended, true) { Received::Nothing } else { Received::Eof }
    }

    /// The pipe through which this socket is reached; `None` if bytes are queued, which come first.
    pub(super) fn take_pipe(&mut self, pipes: &mut PipePool) -> Option<Pipe> {
        if !self.queue.is_empty() || self.state != State::Open {
            return None;
        }
        self.pipe.take().or_else(|| pipes.take())
    }

    pub(super) fn put_pipe(&mut self, pipe: Pipe, pipes: &mut PipePool) {
        if pipe.is_empty() {
            pipes.give_back(pipe);
        } else {
            self.pipe = Some(pipe);
        }
    }

    /// Moves what this socket has received into `pipe`, which leads to `to`. `None`: read it instead.
    pub(super) fn splice_into(&mut self, pipe: &mut Pipe, to: StreamId) -> Option<Received> {
        match pipe.fill(self.fd.as_ref()?) {
            Ok(0) if self.has_failed => Some(Received::Broken),
            Ok(0) => Some(self.end()),
            Ok(len) => {
                self.is_bulk = len >= BULK_BYTES_MIN;
                Some(Received::Piped { to, len })
            }
            Err(Errno::INTR) => Some(Received::Nothing),
            Err(Errno::AGAIN | Errno::INVAL) => {
                // Nothing there, no room in the pipe, or not a socket that can be spliced: reading tells.
                self.is_bulk = false;
                None
            }
            // splice has consumed the error: a read would take it for the end.
            Err(_) => Some(Received::Broken),
        }
    }

    /// Sends `outputs`, all to this socket; queues what the kernel does not take. Answers how many bytes
    /// need no more thought: they are sent, or the peer is gone.
    pub(super) fn send(
        &mut self,
        outputs: &[Action],
        bytes: &[u8],
        input: &[u8],
        spare: &mut BufferPool,
    ) -> usize {
        let mut done = 0;
        for chunk in outputs.chunks(SLICES_MAX) {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            for (slice, output) in slices.iter_mut().zip(chunk) {
                *slice = IoSlice::new(slice_of(output, bytes, input));
            }
            let slices = &mut slices[..chunk.len()];
            let mut left = &mut *slices;
            if self.has_failed || (self.writable && !self.has_pending()) {
                let sent = self.write(left);
                done += sent;
                IoSlice::advance_slices(&mut left, sent);
            }
            for slice in left {
                self.queue.append(slice, spare);
            }
        }
        done
    }

    /// Sends what is queued. Answers how many bytes need no more thought.
    pub(super) fn flush(&mut self, spare: &mut BufferPool, pipes: &mut PipePool) -> usize {
        let mut done = self.drain_pipe(pipes);
        while self.pipe.is_none() && self.writable && !self.queue.is_empty() {
            let queue = std::mem::take(&mut self.queue);
            let sent = self.write(&[IoSlice::new(queue.pending())]);
            self.queue = queue;
            self.queue.advance(sent, spare);
            done += sent;
        }
        self.send_fin_if_due();
        done
    }

    fn drain_pipe(&mut self, pipes: &mut PipePool) -> usize {
        let mut done = 0;
        while self.writable
            && let (Some(pipe), Some(fd)) = (&mut self.pipe, &self.fd)
        {
            match pipe.drain(fd) {
                Ok(sent) => done += sent,
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(_) => {
                    done += pipe.forget();
                    self.fail();
                }
            }
            if self.pipe.as_ref().is_some_and(Pipe::is_empty)
                && let Some(pipe) = self.pipe.take()
            {
                pipes.give_back(pipe);
            }
        }
        done
    }

    /// Remembers that the peer is gone. Reading on delivers what it had sent, and then finds the end.
    fn fail(&mut self) {
        self.has_failed = true;
        self.readable = true;
        self.short_reads_mislead = true;
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
            && !self.has_pending()
            && self.state == State::Open
            && let Some(fd) = &self.fd
        {
            // Fails only if the peer has reset the connection, which a read will find.
            let _ = rustix::net::shutdown(fd, Shutdown::Write);
            self.fin = Fin::Sent;
        }
    }

    /// Writes once, remembers a full socket buffer. To a peer that is gone, everything counts as written.
    fn write(&mut self, slices: &[IoSlice<'_>]) -> usize {
        let total = slices.iter().map(|slice| slice.len()).sum();
        let Some(fd) = &self.fd else { return 0 };
        if self.has_failed {
            return total;
        }
        let result = match slices {
            [one] => rustix::net::send(fd, one, SendFlags::NOSIGNAL),
            many => rustix::io::writev(fd, many),
        };
        let written = result.map_or_else(failure, |sent| Io::Moved(sent, total));
        match after_write(written) {
            AfterWrite::Goes { has_room } => {
                self.writable = has_room;
                result.unwrap_or(0)
            }
            AfterWrite::Wait => {
                self.writable = false;
                0
            }
            AfterWrite::Retry => 0,
            AfterWrite::Failed => {
                self.fail();
                total
            }
        }
    }
}

fn failure(error: Errno) -> Io {
    match error {
        Errno::AGAIN => Io::Again,
        Errno::INTR => Io::Interrupted,
        _ => Io::Failed,
    }
}

pub(in crate::datapath) fn slice_of<'a>(output: &Action, bytes: &'a [u8], input: &'a [u8]) -> &'a [u8] {
    let of = |whole: &'a [u8], range: &Range<usize>| &whole[range.clone()];
    match output {
        Action::Write { range, .. } => of(bytes, range),
        Action::Relay { range, .. } => of(input, range),
        _ => &[],
    }
}
