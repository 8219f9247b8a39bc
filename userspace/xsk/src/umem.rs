//! The memory behind the frames (`umem`), and who may look at it when.

use std::error::Error;
use std::io;
use std::num::NonZeroU32;
use std::ops::Range;
use std::slice;

use xsk_rs::FrameDesc;
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};

use crate::bind::{BindError, os_error};
use crate::frame::{Frame, FrameState};
use crate::pool::FramePool;
use crate::settings::{ChunkSize, Settings};

/// Memory that is shared with the kernel, with the states of its frames.
pub(crate) struct Umem {
    memory: xsk_rs::Umem,
    /// Descriptor of each whole frame, in order of their indices. A descriptor's address can be set by
    /// xsk-rs only: a packet is transmitted from its frame's first byte.
    whole: Box<[FrameDesc]>,
    pub(crate) pool: FramePool,
}

impl Umem {
    /// Maps and registers the memory. True if it lies in huge pages.
    pub(crate) fn new(settings: &Settings) -> Result<(Self, bool), BindError> {
        if settings.huge_pages
            && let Ok(umem) = Self::in_pages(settings, true)
        {
            return Ok((umem, true));
        }
        Ok((Self::in_pages(settings, false)?, false))
    }

    fn in_pages(settings: &Settings, huge: bool) -> Result<Self, BindError> {
        let chunk = settings.chunk;
        let frames = if huge { whole_huge_pages(settings.frames, chunk) } else { settings.frames };
        let config = umem_config(settings)?;
        let count = NonZeroU32::new(frames).ok_or(BindError::Settings("there must be frames"))?;
        let (memory, mut whole) = xsk_rs::Umem::new(config, count, huge)
            .map_err(|error| refused(&error, frames as usize * chunk.bytes()))?;
        for desc in &mut whole {
            // SAFETY: desc came with this memory, and neither the kernel nor anybody else uses it yet.
            let mut data = unsafe { memory.data_mut(desc) };
            data.cursor().set_pos(chunk.capacity());
        }
        Ok(Self { memory, whole: whole.into_boxed_slice(), pool: FramePool::new(frames, chunk) })
    }

    /// What xsk-rs needs to bind a socket.
    pub(crate) fn memory(&self) -> &xsk_rs::Umem {
        &self.memory
    }

    /// Descriptor of the whole frame.
    pub(crate) fn descriptor(&self, index: u32) -> FrameDesc {
        self.whole[index as usize]
    }

    /// Descriptor of the first `len` bytes of a frame that is ours.
    ///
    /// # Panics
    /// If `len` is 0 or larger than the frame: the kernel would drop it and never complete the frame.
    pub(crate) fn descriptor_of_first(&mut self, frame: &Frame, len: usize) -> FrameDesc {
        let mut desc = self.descriptor(frame.index);
        assert!((1..=desc.lengths().data()).contains(&len), "no packet has {len} bytes");
        assert_eq!(self.pool.state(frame), FrameState::Ours, "{frame:?} cannot be written");
        // SAFETY: the descriptor is of this memory (new); the kernel does not use its frame (asserted), nor
        // does anybody here, because self is borrowed exclusively.
        let mut data = unsafe { self.memory.data_mut(&mut desc) };
        data.cursor().set_pos(len);
        desc
    }

    /// All bytes of a frame.
    ///
    /// # Panics
    /// If the kernel may write it: then the token is of another pool.
    pub(crate) fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let state = self.pool.state(frame);
        assert!(matches!(state, FrameState::Ours | FrameState::InFlight), "{frame:?} is {state:?}");
        // SAFETY: the descriptor is of this memory (new). The kernel does not write the frame, because it
        // has it to read at most (asserted); nobody here does, because self is borrowed as long.
        let data = unsafe { self.memory.data(&self.whole[frame.index as usize]) };
        data.contents()
    }

    /// All bytes of a frame, to be written.
    ///
    /// # Panics
    /// If the frame is in flight, or the token is of another pool.
    pub(crate) fn bytes_mut<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        let state = self.pool.state(frame);
        assert_eq!(state, FrameState::Ours, "{frame:?} cannot be written");
        let mut desc = self.descriptor(frame.index);
        // SAFETY: the descriptor is of this memory (new); the kernel does not use the frame (asserted), nor
        // does anybody here, because self is borrowed exclusively for as long as the bytes are.
        let mut data = unsafe { self.memory.data_mut(&mut desc) };
        let (start, len) = (data.contents_mut().as_mut_ptr(), data.contents().len());
        // SAFETY: the same bytes as contents_mut() returned, whose lifetime xsk-rs ties to a local. They
        // live as long as the memory, and that as long as self, which stays borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(start, len) }
    }

    /// Copies a range of one frame to offset `at` of another.
    ///
    /// # Panics
    /// If a range is outside its frame, the target is in flight, or the two are the same.
    pub(crate) fn copy(&mut self, from: &Frame, range: Range<usize>, to: &mut Frame, at: usize) {
        assert_ne!(from, to, "a frame is copied to itself");
        let end = at + range.len();
        let source = {
            let bytes = &self.bytes(from)[range];
            (bytes.as_ptr(), bytes.len())
        };
        let target = &mut self.bytes_mut(to)[at..end];
        // SAFETY: the bytes that bytes() returned, which checked that the kernel does not write them. They
        // lie in another frame than the target (asserted, and frames do not overlap), so that the exclusive
        // borrow of the target does not reach them.
        let source = unsafe { slice::from_raw_parts(source.0, source.1) };
        target.copy_from_slice(source);
    }
}

/// Frames, rounded up to fill pages of 2 MiB: memory of another length could not be unmapped again (hugetlb,
/// munmap(2)).
fn whole_huge_pages(frames: u32, chunk: ChunkSize) -> u32 {
    let per_page = u32::try_from((2 << 20) / chunk.bytes()).expect("at most 1024");
    frames.next_multiple_of(per_page)
}

fn umem_config(settings: &Settings) -> Result<UmemConfig, BindError> {
    let chunk = u32::try_from(settings.chunk.bytes()).expect("at most 4096");
    let frame_size = FrameSize::new(chunk).map_err(|_| BindError::Settings("size of a chunk"))?;
    UmemConfig::builder()
        .frame_size(frame_size)
        .fill_queue_size(ring_size(settings.fill_ring)?)
        .comp_queue_size(ring_size(settings.completion_ring)?)
        .build()
        .map_err(|_| BindError::Settings("size of a chunk"))
}

/// Size of a ring, as xsk-rs wants it.
pub(crate) fn ring_size(descriptors: u32) -> Result<QueueSize, BindError> {
    QueueSize::new(descriptors)
        .map_err(|_| BindError::Settings("the sizes of the rings must be powers of two"))
}

/// Why the memory was not had. Pinned pages count against RLIMIT_MEMLOCK unless one has CAP_IPC_LOCK; the
/// kernel says ENOBUFS then (net/xdp/xdp_umem.c, xdp_umem_account_pages).
fn refused(error: &dyn Error, bytes: usize) -> BindError {
    let error = os_error(error);
    if error.raw_os_error() == Some(libc::ENOBUFS) {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        return BindError::MemoryLock { bytes_needed: bytes, bytes_allowed: limit };
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return BindError::Permission;
    }
    BindError::Memory { bytes, error }
}
