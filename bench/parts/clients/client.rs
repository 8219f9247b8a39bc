//! One client on its connection.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use mtproxy_tests::client_codec::{ClientCodec, ClientOptions};
use mtproxy_tests::pattern;
use mtproxy_tests::test_client::fresh_random;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_nodelay};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};

use super::sources::Sources;
use crate::data_centre::{SINK_PROOF_LEN, SOURCE_PROOF_LEN};
use crate::socket_buffers::set_socket_buffers;
use crate::work::{REQUEST_LEN, Work};

/// What a client did with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    /// Nothing that counts: it is still getting ready, or there was nothing to do.
    Nothing,
    /// It is ready: handshake and proof are done.
    GotReady,
    /// It has its answer.
    Finished {
        /// When the operation was begun.
        begun: Instant,
    },
    /// It received or sent this much of the bulk.
    Moved {
        /// Bytes on its socket.
        wire_bytes: usize,
    },
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    codec: ClientCodec,
    work: Work,
    stage: Stage,
    /// When it connected or sent its last request.
    begun: Instant,
    unsent: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Handshake, and the answer to the first request.
    Opening { answer_left: usize },
    /// Waits for the next request to be made.
    Ready,
    /// Waits for the rest of an answer.
    Asking { answer_left: usize },
    /// Checks the beginning of a download.
    Checking { position: usize },
    /// Counts the rest, without copying it.
    Counting,
    /// Waits for the data centre to confirm the beginning of an upload.
    AwaitingSink,
    /// Sends noise.
    Pouring { position: usize },
}

impl Client {
    /// Connects and sends all that can be sent without an answer.
    pub(super) fn dial(
        address: SocketAddr,
        options: ClientOptions,
        work: Work,
        bulk_buffer: u32,
        sources: Option<&Sources>,
    ) -> Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).context("a socket")?;
        set_tcp_nodelay(&socket, true).context("TCP_NODELAY")?;
        if work.is_bulk() {
            set_socket_buffers(&socket, bulk_buffer)?;
        }
        if let Some(sources) = sources {
            set_socket_reuseaddr(&socket, true).context("SO_REUSEADDR")?;
            let own = sources.next();
            rustix::net::bind(&socket, &own).with_context(|| format!("binding to {own}"))?;
        }
        let begun = Instant::now();
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error).with_context(|| format!("connecting to {address}")),
        }
        let mut codec = ClientCodec::new(options, fresh_random());
        let mut unsent = codec.opening();
        let (first, stage) = match work {
            Work::RequestAnswer | Work::RequestAnswerAlone | Work::Connect => {
                (request(), Stage::Opening { answer_left: REQUEST_LEN })
            }
            Work::Download => (Vec::new(), Stage::Checking { position: 0 }),
            Work::Upload => (pattern::bytes(0, SINK_PROOF_LEN), Stage::AwaitingSink),
        };
        unsent.extend(codec.encode(&first));
        let mut client = Self { socket, codec, work, stage, begun, unsent };
        client.flush()?;
        Ok(client)
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> EventFlags {
        if matches!(self.stage, Stage::Pouring { .. }) {
            EventFlags::OUT
        } else if self.unsent.is_empty() {
            EventFlags::IN
        } else {
            EventFlags::IN | EventFlags::OUT
        }
    }

    /// Asks again. Only for a client that is ready.
    pub(super) fn ask(&mut self) -> Result<()> {
        ensure!(matches!(self.stage, Stage::Ready), "asked a client that is not ready");
        self.begun = Instant::now();
        self.stage = Stage::Asking { answer_left: REQUEST_LEN };
        let wire = self.codec.encode(&request());
        self.unsent.extend(wire);
        self.flush()
    }

    /// Does what `flags` allow.
    pub(super) fn proceed(&mut self, flags: EventFlags, buffer: &mut [u8], noise: &[u8]) -> Result<Did> {
        if flags.contains(EventFlags::OUT) {
            self.flush()?;
            if let Stage::Pouring { position } = &mut self.stage
                && self.unsent.is_empty()
            {
                let sent = match send(&self.socket, &noise[*position..], SendFlags::NOSIGNAL) {
                    Err(Errno::AGAIN) => return Ok(Did::Nothing),
                    outcome => outcome.context("sending the upload")?,
                };
                *position = (*position + sent) % noise.len();
                return Ok(Did::Moved { wire_bytes: sent });
            }
        }
        if flags.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP) {
            return self.receive(buffer);
        }
        Ok(Did::Nothing)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Did> {
        // With MSG_TRUNC, TCP drops the bytes without copying them (tcp(7)): a client that costs next to
        // nothing leaves the machine to the relays.
        let is_counting = matches!(self.stage, Stage::Counting);
        let how = if is_counting { RecvFlags::TRUNC } else { RecvFlags::empty() };
        let count = match recv(&self.socket, &mut *buffer, how) {
            Err(Errno::AGAIN) => return Ok(Did::Nothing),
            outcome => outcome.with_context(|| format!("receiving while {:?}", self.stage))?.1,
        };
        ensure!(count > 0, "the connection was closed while {:?}", self.stage);
        if is_counting {
            return Ok(Did::Moved { wire_bytes: count });
        }
        let progress = self.codec.receive(&buffer[..count]).context("the relay broke the protocol")?;
        if !progress.to_send.is_empty() {
            self.unsent.extend(progress.to_send);
            self.flush()?;
        }
        if progress.payload.is_empty() { Ok(Did::Nothing) } else { self.take(&progress.payload) }
    }

    fn take(&mut self, payload: &[u8]) -> Result<Did> {
        match &mut self.stage {
            Stage::Opening { answer_left } | Stage::Asking { answer_left } => {
                let from = REQUEST_LEN - *answer_left;
                let expected = request();
                ensure!(expected[from..].starts_with(payload), "the answer is not what was asked for");
                *answer_left -= payload.len();
                if *answer_left > 0 {
                    return Ok(Did::Nothing);
                }
                let is_first = matches!(self.stage, Stage::Opening { .. });
                self.stage = Stage::Ready;
                let did = if is_first && self.work != Work::Connect {
                    Did::GotReady
                } else {
                    Did::Finished { begun: self.begun }
                };
                Ok(did)
            }
            Stage::Checking { position } => {
                let left = SOURCE_PROOF_LEN - *position;
                let proof = &payload[..payload.len().min(left)];
                let difference = pattern::first_difference(*position as u64, proof);
                ensure!(difference.is_none(), "byte {difference:?} of the download is wrong");
                *position += proof.len();
                if *position < SOURCE_PROOF_LEN {
                    return Ok(Did::Nothing);
                }
                self.stage = Stage::Counting;
                Ok(Did::GotReady)
            }
            Stage::AwaitingSink => {
                self.stage = Stage::Pouring { position: 0 };
                Ok(Did::GotReady)
            }
            Stage::Ready | Stage::Counting | Stage::Pouring { .. } => {
                bail!("{} bytes came that nobody asked for", payload.len())
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        match send(&self.socket, &self.unsent, SendFlags::NOSIGNAL) {
            // Not connected yet, or its window is full: epoll says when to go on.
            Err(Errno::AGAIN) => {}
            Ok(sent) => {
                self.unsent.drain(..sent);
            }
            Err(error) => return Err(error).context("sending"),
        }
        Ok(())
    }
}

/// The same bytes each time; on the wire no two are alike.
fn request() -> Vec<u8> {
    pattern::bytes(0, REQUEST_LEN)
}
