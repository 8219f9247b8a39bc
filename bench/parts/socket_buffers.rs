//! How much a socket at either end of a bulk transfer may hold.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

/// Bounds both directions; zero leaves them to the kernel. The kernel doubles the number for its own
/// accounting (socket(7)).
pub(crate) fn set_socket_buffers(socket: impl AsFd, bytes: u32) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let len = usize::try_from(bytes)?;
    set_socket_recv_buffer_size(&socket, len).context("SO_RCVBUF")?;
    set_socket_send_buffer_size(&socket, len).context("SO_SNDBUF")
}
