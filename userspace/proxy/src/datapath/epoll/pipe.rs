//! splice(2): bytes that nobody has to look at go from socket to socket without entering this process.
//!
//! It pays for bulk only: a small message costs two calls either way, and a pipe besides. So a socket
//! is spliced from when its last read filled the whole buffer, and read again once a splice was short.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Room asked for. A download needs few calls with it. Unprivileged users may have 64 MiB in all
/// (fs.pipe-user-pages-soft); pipes beyond that keep the kernel's smaller default.
const ROOM_BYTES: usize = 256 * 1024;
/// A splice shorter than this was not bulk.
pub(super) const BULK_BYTES_MIN: usize = 16 * 1024;
/// Pipes of one worker at a time, in use or kept for the next bulk transfer: two descriptors each. Beyond
/// them, bulk is read and written.
pub(crate) const PIPES_MAX: usize = 8;

/// A pipe and what is in it, on its way to one socket.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    filled: usize,
    /// Something is left in it that belongs to nobody.
    is_spoilt: bool,
}

impl Pipe {
    fn open() -> Result<Self, Errno> {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // Refused beyond the user's limit; the default size is only slower.
        let _ = fcntl_setpipe_size(&writer, ROOM_BYTES);
        Ok(Self { reader, writer, filled: 0, is_spoilt: false })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Moves what `from` has into the pipe. Zero is the end of the stream.
    pub(super) fn fill(&mut self, from: &OwnedFd) -> Result<usize, Errno> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = splice(from, None, &self.writer, None, ROOM_BYTES, flags)?;
        self.filled += moved;
        Ok(moved)
    }

    /// Gives up what is in the pipe, whose receiver is gone. The pipe is not used again.
    pub(super) fn forget(&mut self) -> usize {
        self.is_spoilt = true;
        std::mem::take(&mut self.filled)
    }

    /// Moves what is in the pipe to `to`.
    pub(super) fn drain(&mut self, to: &OwnedFd) -> Result<usize, Errno> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = splice(&self.reader, None, to, None, self.filled, flags)?;
        self.filled -= moved;
        Ok(moved)
    }
}

/// The pipes of one worker.
#[derive(Debug, Default)]
pub(super) struct PipePool {
    /// Those that are empty now.
    spare: Vec<Pipe>,
    in_use: usize,
}

impl PipePool {
    /// An empty pipe; none if there are enough, or no descriptors left.
    pub(super) fn take(&mut self) -> Option<Pipe> {
        if self.in_use == PIPES_MAX {
            return None;
        }
        let pipe = self.spare.pop().or_else(|| Pipe::open().ok())?;
        self.in_use += 1;
        Some(pipe)
    }

    /// Keeps an empty pipe. One with something in it is closed: its bytes are another socket's.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        self.in_use -= 1;
        if pipe.is_empty() && !pipe.is_spoilt {
            self.spare.push(pipe);
        }
    }
}
