//! One connection of the data centre.

use std::net::TcpStream;

use mtproxy_core::aes_ctr::AesCtr;
use mtproxy_core::obfuscated2::{INIT_FRAME_LEN, InitFrame};
use mtproxy_tests::pattern;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{SINK_PROOF_LEN, Service};

/// Bytes per read.
const BUFFER_LEN: usize = 256 * 1024;

/// What all conversations share.
#[derive(Debug)]
pub(super) struct Supplies {
    buffer: Box<[u8]>,
    source_proof: Vec<u8>,
    noise: Vec<u8>,
}

impl Supplies {
    pub(super) fn new(source_proof: Vec<u8>, noise: Vec<u8>) -> Self {
        Self { buffer: vec![0; BUFFER_LEN].into_boxed_slice(), source_proof, noise }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conversation {
    socket: TcpStream,
    service: Service,
    phase: Phase,
    /// Made and not yet taken by the kernel. While there is any, nothing is read.
    unsent: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    /// The beginning of it may have come.
    AwaitingInitFrame(Vec<u8>),
    Echoing {
        up: AesCtr,
        down: AesCtr,
    },
    Pouring,
    Proving {
        up: AesCtr,
        down: AesCtr,
        position: usize,
    },
    Swallowing,
}

impl Conversation {
    pub(super) fn new(socket: TcpStream, service: Service) -> Self {
        let phase = Phase::AwaitingInitFrame(Vec::with_capacity(INIT_FRAME_LEN));
        Self { socket, service, phase, unsent: Vec::new() }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> EventFlags {
        let is_pouring = matches!(self.phase, Phase::Pouring);
        if is_pouring || !self.unsent.is_empty() { EventFlags::OUT } else { EventFlags::IN }
    }

    /// Does what `flags` allow; false when the connection is over.
    pub(super) fn proceed(&mut self, flags: EventFlags, supplies: &mut Supplies) -> bool {
        let outcome = if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            return false;
        } else if flags.contains(EventFlags::OUT) {
            self.write(supplies)
        } else {
            self.read(supplies)
        };
        match outcome {
            Ok(is_open) => is_open,
            Err(error) => error == Errno::AGAIN || error == Errno::INTR,
        }
    }

    fn write(&mut self, supplies: &Supplies) -> Result<bool, Errno> {
        if self.unsent.is_empty() {
            send(&self.socket, &supplies.noise, SendFlags::NOSIGNAL)?;
        } else {
            let sent = send(&self.socket, &self.unsent, SendFlags::NOSIGNAL)?;
            self.unsent.drain(..sent);
        }
        Ok(true)
    }

    fn read(&mut self, supplies: &mut Supplies) -> Result<bool, Errno> {
        if matches!(self.phase, Phase::Swallowing) {
            // With MSG_TRUNC, TCP drops the bytes without copying them (tcp(7)).
            let (_, count) = recv(&self.socket, &mut supplies.buffer[..], RecvFlags::TRUNC)?;
            return Ok(count > 0);
        }
        let (count, _) = recv(&self.socket, &mut supplies.buffer[..], RecvFlags::empty())?;
        let Some(received) = supplies.buffer.get_mut(..count).filter(|received| !received.is_empty()) else {
            return Ok(false);
        };
        let payload = match &mut self.phase {
            Phase::AwaitingInitFrame(frame) => {
                let (head, payload) = received.split_at_mut(count.min(INIT_FRAME_LEN - frame.len()));
                frame.extend_from_slice(head);
                let Some(frame) = frame.first_chunk() else { return Ok(true) };
                let Some(init) = InitFrame::open(frame, None) else { return Ok(false) };
                self.begin(init, &supplies.source_proof);
                payload
            }
            _ => received,
        };
        if payload.is_empty() { Ok(true) } else { self.take(payload) }
    }

    fn begin(&mut self, init: InitFrame, source_proof: &[u8]) {
        let up = init.streams.forward;
        let mut down = init.streams.backward.stream();
        self.phase = match self.service {
            Service::Echo => Phase::Echoing { up, down },
            Service::Sink => Phase::Proving { up, down, position: 0 },
            Service::Source => {
                self.unsent = source_proof.to_vec();
                down.apply(&mut self.unsent);
                Phase::Pouring
            }
        };
    }

    fn take(&mut self, payload: &mut [u8]) -> Result<bool, Errno> {
        match &mut self.phase {
            Phase::Echoing { up, down } => {
                up.apply(payload);
                down.apply(payload);
                let sent = match send(&self.socket, payload, SendFlags::NOSIGNAL) {
                    Err(Errno::AGAIN) => 0,
                    outcome => outcome?,
                };
                self.unsent.extend_from_slice(&payload[sent..]);
            }
            Phase::Proving { up, down, position } => {
                up.apply(payload);
                let left = SINK_PROOF_LEN - *position;
                let proof = &payload[..payload.len().min(left)];
                if pattern::first_difference(*position as u64, proof).is_some() {
                    return Ok(false);
                }
                *position += proof.len();
                if *position == SINK_PROOF_LEN {
                    self.unsent.push(0);
                    down.apply(&mut self.unsent);
                    self.phase = Phase::Swallowing;
                }
            }
            Phase::AwaitingInitFrame(_) | Phase::Pouring | Phase::Swallowing => {}
        }
        Ok(true)
    }
}
