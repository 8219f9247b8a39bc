//! AF_XDP as TCP-lite's link: frames of the socket, and next hops of the host's routes.

use std::net::IpAddr;
use std::ops::Range;

use mtproxy_core::time::Instant;
use mtproxy_tcp::link::{Full, Hop, Link, VlanTag};
use mtproxy_xsk::{Frame, Socket};

use super::hops::{Hops, Parked, Routes};
use crate::capture::tap::{Direction, Tap};

/// What happened to packets below TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkCounters {
    /// Packets that waited for a neighbour.
    pub parked: u64,
    /// Packets lost because their neighbour was not found in time, or too many waited.
    pub unresolved: u64,
    /// Packets sent.
    pub sent: u64,
    /// Bytes of them, link headers included.
    pub sent_bytes: u64,
}

/// One queue of the interface.
pub struct XskLink<R> {
    /// The socket and its frames.
    pub socket: Socket,
    /// Who may want a copy of every packet.
    pub tap: Tap,
    hops: Hops<R, Frame>,
    /// What happened so far.
    pub counters: LinkCounters,
}

impl<R: Routes> XskLink<R> {
    /// A link over `socket`.
    pub fn new(socket: Socket, routes: R, tap: Tap) -> Self {
        Self { socket, tap, hops: Hops::new(routes), counters: LinkCounters::default() }
    }

    /// A turn begins: follows the host's routes, and sends what waited for a neighbour, or gives it up. True if
    /// connections should ask for their hops again.
    pub fn follow_routes(&mut self, now: Instant) -> bool {
        let is_new = self.hops.follow_routes(now);
        while let Some(expired) = self.hops.take_expired() {
            self.counters.unresolved += 1;
            self.socket.release(expired.frame);
        }
        while let Some(Parked { hop, mut frame, len }) = self.hops.take_ready() {
            if self.send(&mut frame, len, hop).is_err() {
                self.counters.unresolved += 1;
            }
            self.socket.release(frame);
        }
        is_new
    }

    /// Tells the kernel which neighbours are in use.
    pub fn confirm_neighbours(&mut self) {
        self.hops.confirm();
    }

    /// Frames that wait for a neighbour.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.hops.parked()
    }

    /// Gives up what waits for a neighbour.
    pub fn unpark(&mut self) {
        for parked in self.hops.take_all() {
            self.socket.release(parked.frame);
            self.counters.unresolved += 1;
        }
    }

    /// Answers an error also if the neighbour is not known.
    fn send(&mut self, frame: &mut Frame, len: usize, hop: u32) -> Result<(), Full> {
        let header = self.hops.header(hop).ok_or(Full)?;
        self.socket.bytes_mut(frame)[..header.len()].copy_from_slice(header);
        self.socket.transmit(frame, len).map_err(|_| Full)?;
        self.tap.note(Direction::Sent, &self.socket.bytes(frame)[..len]);
        self.counters.sent += 1;
        self.counters.sent_bytes += len as u64;
        Ok(())
    }

    /// Parks a copy, so that the caller's frame is at once what it would be after its transmission.
    fn park(&mut self, frame: &Frame, len: usize, hop: u32) {
        let Some(mut copy) = self.socket.allocate() else {
            self.counters.unresolved += 1;
            return;
        };
        self.socket.copy(frame, 0..len, &mut copy, 0);
        match self.hops.park(Parked { hop, frame: copy, len }) {
            Ok(()) => self.counters.parked += 1,
            Err((_, copy)) => {
                self.socket.release(copy);
                self.counters.unresolved += 1;
            }
        }
    }
}

impl<R: Routes> Link for XskLink<R> {
    type Frame = Frame;

    fn allocate(&mut self) -> Option<Frame> {
        self.socket.allocate()
    }

    fn release(&mut self, frame: Frame) {
        self.socket.release(frame);
    }

    fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.socket.bytes(frame)
    }

    fn bytes_mut<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.socket.bytes_mut(frame)
    }

    fn copy(&mut self, from: &Frame, range: Range<usize>, to: &mut Frame, at: usize) {
        self.socket.copy(from, range, to, at);
    }

    fn is_in_flight(&self, frame: &Frame) -> bool {
        self.socket.is_in_flight(frame)
    }

    fn transmit(&mut self, frame: &mut Frame, len: usize, hop: Hop) -> Result<(), Full> {
        if self.hops.header(hop.id).is_some() {
            return self.send(frame, len, hop.id);
        }
        self.park(frame, len, hop.id);
        Ok(())
    }

    fn hop(&mut self, local: IpAddr, remote: IpAddr, vlan: Option<VlanTag>) -> Option<Hop> {
        self.hops.find(local, remote, vlan)
    }

    fn frames_free(&self) -> usize {
        self.socket.frames_free().saturating_sub(self.socket.fill_deficit())
    }

    fn frames_total(&self) -> usize {
        self.socket.frames_total()
    }
}
