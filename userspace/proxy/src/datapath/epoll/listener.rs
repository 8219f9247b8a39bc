//! Listening sockets, and when not to accept.
//!
//! A proxy that is out of descriptors, or at its limit of clients, stops accepting and lets new ones wait
//! in the kernel's backlog. It never exits for it, and it does not spin: accepting is tried again after
//! [`PAUSE`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mtproxy_core::stream::Endpoints;
use mtproxy_core::time::Instant;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, set_socket_reuseport, set_tcp_nodelay};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, acceptfrom_with, bind as bind_socket, getsockname, ipproto,
    listen, socket_with,
};

use super::NOT_A_STREAM;
use crate::datapath::UNKNOWN_ADDRESS;

/// How long accepting pauses. Long enough not to burn the CPU, short enough not to be felt.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 8192;

/// A listening socket at `address`, one of several workers' (SO_REUSEPORT: the kernel spreads clients).
///
/// An IPv6 address accepts IPv6 only: both families can be listened to on one port, separately.
///
/// # Errors
/// The port is in use by another program or not permitted, or the address is not this host's.
pub fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    open(address, true)
}

/// As [`bind`], but fails also if another of our own processes listens there.
///
/// # Errors
/// Those of [`bind`].
pub fn bind_alone(address: SocketAddr) -> io::Result<OwnedFd> {
    open(address, false)
}

fn open(address: SocketAddr, shares_port: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    set_socket_reuseaddr(&fd, true)?;
    set_socket_reuseport(&fd, shares_port)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&fd, true)?;
    }
    // Accepted sockets inherit it: one call here instead of one for each client. Keep-alive is left off on
    // both sides: the idle timeout finds dead peers sooner.
    set_tcp_nodelay(&fd, true)?;
    bind_socket(&fd, &address)?;
    listen(&fd, BACKLOG)?;
    Ok(fd)
}

/// Our end of a connection. A kernel that does not tell has lost it already.
pub(super) fn local_address(fd: &OwnedFd) -> SocketAddr {
    getsockname(fd).ok().and_then(|any| SocketAddr::try_from(any).ok()).unwrap_or(UNKNOWN_ADDRESS)
}

/// How many clients there may be, over all workers.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    open: Arc<AtomicUsize>,
    max: usize,
}

impl ConnectionLimit {
    /// At most `max` clients at a time.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { open: Arc::default(), max }
    }

    /// Takes a place, if one is left.
    pub(in crate::datapath) fn try_take(&self) -> bool {
        let taken = self.open.fetch_add(1, Ordering::Relaxed);
        if taken >= self.max {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        taken < self.max
    }

    /// Gives a place back.
    pub(in crate::datapath) fn release(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The listening sockets of one worker.
#[derive(Debug)]
pub(super) struct Listeners {
    fds: Vec<OwnedFd>,
    limit: ConnectionLimit,
    resume_at: Option<Instant>,
    pauses: u64,
}

impl Listeners {
    pub(super) fn register(epoll: &OwnedFd, fds: Vec<OwnedFd>, limit: ConnectionLimit) -> io::Result<Self> {
        for (index, fd) in (1u64..).zip(&fds) {
            epoll::add(epoll, fd, user_data(index), EventFlags::IN)?;
        }
        Ok(Self { fds, limit, resume_at: None, pauses: 0 })
    }

    /// The next client waiting at `listener`; `None` if there is none, or no place for it.
    pub(super) fn accept(
        &mut self,
        epoll: &OwnedFd,
        listener: usize,
        now: Instant,
    ) -> Option<(OwnedFd, Endpoints)> {
        loop {
            let fd = self.fds.get(listener)?;
            if self.resume_at.is_some() {
                return None;
            }
            if !self.limit.try_take() {
                self.pause(epoll, now);
                return None;
            }
            match acceptfrom_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((client, address)) => {
                    let remote = address.and_then(|any| SocketAddr::try_from(any).ok());
                    let remote = remote.unwrap_or(UNKNOWN_ADDRESS);
                    let local = local_address(&client);
                    return Some((client, Endpoints { local, remote }));
                }
                Err(Errno::AGAIN) => {
                    self.limit.release();
                    return None;
                }
                // The client was gone before it was accepted, or the network failed it (accept(2)).
                Err(
                    Errno::CONNABORTED
                    | Errno::INTR
                    | Errno::PROTO
                    | Errno::NETDOWN
                    | Errno::NETUNREACH
                    | Errno::HOSTDOWN
                    | Errno::HOSTUNREACH
                    | Errno::OPNOTSUPP,
                ) => self.limit.release(),
                // Out of descriptors or memory; or something that trying again at once would only repeat.
                Err(_) => {
                    self.limit.release();
                    self.pause(epoll, now);
                    return None;
                }
            }
        }
    }

    /// A connection is closed.
    pub(super) fn release(&self, was_client: bool) {
        if was_client {
            self.limit.release();
        }
    }

    pub(super) fn resume_at(&self) -> Option<Instant> {
        self.resume_at
    }

    pub(super) fn pauses(&self) -> u64 {
        self.pauses
    }

    pub(super) fn resume_if_due(&mut self, epoll: &OwnedFd, now: Instant) {
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
            self.set_interest(epoll, EventFlags::IN);
        }
    }

    /// Closing takes them out of epoll, too.
    pub(super) fn close(&mut self) {
        self.fds.clear();
        self.resume_at = None;
    }

    pub(super) fn pause(&mut self, epoll: &OwnedFd, now: Instant) {
        if self.resume_at.is_some() || self.fds.is_empty() {
            return;
        }
        self.pauses += 1;
        self.resume_at = Some(now.plus(PAUSE));
        self.set_interest(epoll, EventFlags::empty());
    }

    fn set_interest(&self, epoll: &OwnedFd, interest: EventFlags) {
        for (index, fd) in (1u64..).zip(&self.fds) {
            // Cannot fail for a descriptor that was added; if it did, the pause would merely be shorter.
            let _ = epoll::modify(epoll, fd, user_data(index), interest);
        }
    }
}

fn user_data(index: u64) -> EventData {
    EventData::new_u64(index << 32 | NOT_A_STREAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(fds: Vec<OwnedFd>) -> Option<Instant> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut listeners = Listeners::register(&epoll, fds, ConnectionLimit::new(1)).unwrap();
        listeners.pause(&epoll, Instant::ORIGIN);
        listeners.resume_at()
    }

    #[test]
    fn accepting_is_paused_for_a_while_and_only_where_somebody_accepts() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(pause(vec![listener]), Some(Instant::ORIGIN.plus(PAUSE)));
        assert_eq!(pause(Vec::new()), None);
    }
}
