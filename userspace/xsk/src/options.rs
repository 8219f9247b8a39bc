//! Socket options that neither xsk-rs nor rustix has.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::settings::{BindMode, BusyPoll};

/// `SO_PREFER_BUSY_POLL` and `SO_BUSY_POLL_BUDGET` (include/uapi/asm-generic/socket.h).
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;

/// The mode that the kernel really bound the socket in.
pub(crate) fn bind_mode(socket: BorrowedFd<'_>) -> io::Result<BindMode> {
    let mut options = libc::xdp_options { flags: 0 };
    let mut len = libc::socklen_t::try_from(size_of::<libc::xdp_options>()).expect("4 bytes");
    // SAFETY: the descriptor is open while it is borrowed; both pointers are to locals that outlive the
    // call, and len is the size of what the first points to.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_OPTIONS,
            (&raw mut options).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let zero_copy = options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
    Ok(if zero_copy { BindMode::ZeroCopy } else { BindMode::Copy })
}

/// Turns on preferred busy polling, all of it or an error.
pub(crate) fn prefer_busy_poll(socket: BorrowedFd<'_>, busy_poll: BusyPoll) -> io::Result<()> {
    set(socket, SO_PREFER_BUSY_POLL, 1)?;
    set(socket, libc::SO_BUSY_POLL, busy_poll.busy_us)?;
    set(socket, SO_BUSY_POLL_BUDGET, busy_poll.budget_packets)
}

fn set(socket: BorrowedFd<'_>, option: libc::c_int, value: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(value).map_err(|_| io::ErrorKind::InvalidInput)?;
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("4 bytes");
    // SAFETY: the descriptor is open while it is borrowed; the pointer is to a local that outlives the call,
    // and len is its size.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), len)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
