//! Binding a socket: the ladder of modes, and what was obtained on it.
//!
//! ```text
//!   zero-copy ── EOPNOTSUPP, EINVAL ──► copy ── EOPNOTSUPP, EINVAL ──► Refused
//!       │ EBUSY: wait, again               │ EBUSY: wait, again
//!       └── for 1 s at most ──► Busy       └── for 1 s at most ──► Busy
//! ```
//! Drivers say "not in this mode" with either of the two errors; which mode it then was is asked of the
//! kernel, not remembered. The program that redirects is attached by somebody else, who says natively or
//! generically: that is another ladder.

use std::error::Error;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;
use std::{fmt, io, thread};

use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, RxQueue, TxQueue};

use crate::options;
use crate::settings::{BindMode, Settings};
use crate::umem::{Umem, ring_size};

/// Waits before another try when the queue is busy, in milliseconds: 1 s in sum. A closed socket leaves its
/// queue asynchronously; 3 of 10 immediate binds after an exit were refused (measured, veth, 6.18).
const BUSY_WAITS_MS: [u64; 7] = [8, 16, 32, 64, 128, 256, 512];

/// What a bound socket has got.
#[derive(Debug)]
pub struct Bound {
    /// The mode, as the kernel says.
    pub mode: BindMode,
    /// Modes that were tried before, and why they were refused.
    pub refused: Vec<(BindMode, io::Error)>,
    /// Times the queue was still busy.
    pub busy_retries: u32,
    /// The memory lies in huge pages.
    pub huge_pages: bool,
    /// Whether preferred busy polling is on, if it was asked for.
    pub busy_poll: Option<io::Result<()>>,
}

/// The four rings of a bound socket.
pub(crate) struct Rings {
    pub(crate) rx: RxQueue,
    pub(crate) tx: TxQueue,
    pub(crate) fill: FillQueue,
    pub(crate) completion: CompQueue,
}

impl Rings {
    /// The socket's descriptor.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the rings keep the socket open, and they are borrowed as long as the descriptor.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }
}

/// Climbs down the ladder until a mode works. Waits up to a second per mode; not for the packet path.
pub(crate) fn bind(settings: &Settings) -> Result<(Umem, Rings, Bound), BindError> {
    settings.check().map_err(BindError::Settings)?;
    let (umem, huge_pages) = Umem::new(settings)?;
    let mut busy_retries = 0;
    let mut refused = Vec::new();
    for &mode in settings.modes.rungs() {
        match bind_patiently(settings, &umem, mode, &mut busy_retries) {
            Ok(rings) => {
                let mode = options::bind_mode(rings.fd()).map_err(BindError::Other)?;
                let busy_poll = settings.busy_poll.map(|how| options::prefer_busy_poll(rings.fd(), how));
                return Ok((umem, rings, Bound { mode, refused, busy_retries, huge_pages, busy_poll }));
            }
            Err(error) if is_refusal(&error) => refused.push((mode, error)),
            Err(error) => return Err(explain(settings, error)),
        }
    }
    Err(BindError::Refused { interface: settings.interface.clone(), queue: settings.queue, refused })
}

fn bind_patiently(
    settings: &Settings,
    umem: &Umem,
    mode: BindMode,
    busy_retries: &mut u32,
) -> Result<Rings, io::Error> {
    for wait_ms in BUSY_WAITS_MS {
        match bind_once(settings, umem, mode) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                *busy_retries += 1;
                thread::sleep(Duration::from_millis(wait_ms));
            }
            result => return result,
        }
    }
    bind_once(settings, umem, mode)
}

fn bind_once(settings: &Settings, umem: &Umem, mode: BindMode) -> Result<Rings, io::Error> {
    let flag = match mode {
        BindMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        BindMode::Copy => BindFlags::XDP_COPY,
    };
    let size = |descriptors| ring_size(descriptors).map_err(io::Error::other);
    let config = SocketConfig::builder()
        .rx_queue_size(size(settings.rx_ring)?)
        .tx_queue_size(size(settings.tx_ring)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(flag | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let interface: Interface = settings.interface.parse().map_err(io::Error::other)?;
    // SAFETY: the contract is about sharing a umem on one queue without the flag that inhibits loading a
    // program. The flag is set, and each umem here is bound once.
    let bound = unsafe { xsk_rs::Socket::new(config, umem.memory(), &interface, settings.queue) };
    let (tx, rx, rings) = bound.map_err(|error| os_error(&error))?;
    let (fill, completion) = rings.ok_or_else(|| io::Error::other("the umem is bound already"))?;
    Ok(Rings { rx, tx, fill, completion })
}

/// True if another mode may work.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}

fn explain(settings: &Settings, error: io::Error) -> BindError {
    let interface = settings.interface.clone();
    match error.raw_os_error() {
        Some(libc::EBUSY) => BindError::Busy { interface, queue: settings.queue },
        Some(libc::ENODEV) => BindError::NoInterface { interface },
        Some(libc::EPERM | libc::EACCES) => BindError::Permission,
        _ => BindError::Other(error),
    }
}

/// The system's error below one of xsk-rs.
pub(crate) fn os_error(error: &dyn Error) -> io::Error {
    let code = error.source().and_then(|source| source.downcast_ref::<io::Error>()?.raw_os_error());
    code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

/// Why there is no socket.
#[derive(Debug)]
pub enum BindError {
    /// The settings contradict themselves.
    Settings(&'static str),
    /// The process may pin less memory than the frames need.
    MemoryLock {
        /// What the frames need.
        bytes_needed: usize,
        /// The limit; `None` is no limit.
        bytes_allowed: Option<u64>,
    },
    /// The memory was refused for another reason.
    Memory {
        /// What the frames need.
        bytes: usize,
        /// What the system said.
        error: io::Error,
    },
    /// The process may not open AF_XDP sockets.
    Permission,
    /// There is no such interface.
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// Somebody else holds the queue.
    Busy {
        /// Name of the interface.
        interface: String,
        /// Its queue.
        queue: u32,
    },
    /// No mode that was asked for works.
    Refused {
        /// Name of the interface.
        interface: String,
        /// Its queue.
        queue: u32,
        /// Each mode, and what the kernel said.
        refused: Vec<(BindMode, io::Error)>,
    },
    /// The system said something else.
    Other(io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(reason) => f.write_str(reason),
            Self::MemoryLock { bytes_needed, bytes_allowed } => {
                let allowed = bytes_allowed.unwrap_or(u64::MAX);
                write!(
                    f,
                    "packet memory of {bytes_needed} bytes is to be pinned, but RLIMIT_MEMLOCK allows \
                     {allowed}: raise it (LimitMEMLOCK=infinity in the unit, ulimit -l), give CAP_IPC_LOCK, \
                     or configure fewer frames"
                )
            }
            Self::Memory { bytes, error } => write!(f, "packet memory of {bytes} bytes: {error}"),
            Self::Permission => f.write_str("AF_XDP sockets need CAP_NET_RAW"),
            Self::NoInterface { interface } => write!(f, "there is no interface {interface}"),
            Self::Busy { interface, queue } => {
                write!(f, "queue {queue} of {interface} is held by another AF_XDP socket")
            }
            Self::Refused { interface, queue, refused } => {
                write!(f, "{interface} takes no AF_XDP socket on queue {queue}")?;
                for (mode, error) in refused {
                    write!(f, "; {mode}: {error}")?;
                }
                f.write_str(" (does the queue exist?)")
            }
            Self::Other(error) => write!(f, "{error}"),
        }
    }
}

impl Error for BindError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Memory { error, .. } | Self::Other(error) => Some(error),
            _ => None,
        }
    }
}
