//! One link: a TCP connection to a middle proxy, from its dial to its loss.
//!
//! ```text
//!   Dialing ── connected: nonce ──► AwaitingNonce ── nonce: keys, handshake ──► AwaitingHandshake ── handshake ──► Ready
//!      └────────────── not ready within 3 s, or anything wrong: lost, and dialled again after a while ──────────────┘
//! ```
//! Many clients share a link. What they say is gathered in its [`Outbox`]; those who must wait for room stand in
//! its `waiting` ring, and are served in turn by `links/sharing.rs`.
//!
//! Decisions are those of [`policy::tcp_rpc_client`](crate::policy::tcp_rpc_client). Read protocol.md section 7 first.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use slotmap::new_key_type;

use super::cbc::{CbcDecryptor, CbcEncryptor};
use super::frame::Checksum;
use super::handshake::{CAN_CRC32C, HandshakeError, HandshakeMessage, ProcessId};
use super::inbound::Inbound;
use super::key_derivation::{self, LinkEnds, Purpose};
use super::nonce::{Nonce, NonceMessage};
use super::outbox::Outbox;
use super::settings::{MiddleProxies, MiddleProxyLimits};
use super::target::TargetKey;
use super::{LinkLoss, message};
use crate::policy::tcp_rpc_client::{self as policy, Liveness, LivenessInput, Progress, Readiness};
use crate::random::Random;
use crate::session_key::SessionKey;
use crate::stream::{StreamId, Streams};
use crate::time::{Instant, Now};

new_key_type! {
    /// Name of a link within its engine. Never means another link while the engine lives.
    pub(crate) struct LinkKey;
}

/// Bytes of a link that may be on their way to the kernel or the wire; clients with more wait for their turn. What a
/// link carries in 50 ms at 5 MB/s: less would slow it down, more would make small packets wait behind large ones.
const WINDOW_BYTES: usize = 256 * 1024;

/// A connection to a middle proxy.
pub(crate) struct Link {
    pub(crate) stream: StreamId,
    pub(crate) target: TargetKey,
    pub(crate) address: SocketAddr,
    started_at: Instant,
    phase: Phase,
    pub(crate) inbound: Inbound,
    pub(crate) outbox: Outbox,
    /// Clients with packets that wait for room, in the order in which they are served.
    pub(crate) waiting: VecDeque<SessionKey>,
    /// Clients whose packets go this way.
    pub(crate) clients: usize,
    last_received_at: Instant,
    last_forwarded_at: Option<Instant>,
    pinged_at: Option<Instant>,
    has_ponged: bool,
    clock_skew_seconds: i64,
}

enum Phase {
    Dialing,
    AwaitingNonce { ours: NonceMessage, ends: LinkEnds, secret: super::ProxySecret },
    AwaitingHandshake { us: ProcessId },
    Ready,
}

/// What a link has to do about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing before then.
    Nothing(Instant),
    /// Give it up.
    Lost(LinkLoss),
}

impl Link {
    /// A link whose stream is being dialled.
    pub(crate) fn dialing(stream: StreamId, target: TargetKey, address: SocketAddr, now: Instant) -> Self {
        Self {
            stream,
            target,
            address,
            started_at: now,
            phase: Phase::Dialing,
            inbound: Inbound::default(),
            outbox: Outbox::default(),
            waiting: VecDeque::new(),
            clients: 0,
            last_received_at: now,
            last_forwarded_at: None,
            pinged_at: None,
            has_ponged: false,
            clock_skew_seconds: 0,
        }
    }

    pub(crate) fn is_dialing(&self) -> bool {
        matches!(self.phase, Phase::Dialing)
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// How it stands with its pool.
    pub(crate) fn readiness(&self, now: Instant) -> Readiness {
        let progress = match self.phase {
            Phase::Ready => Progress::Working,
            _ => Progress::Beginning(now.since(self.started_at)),
        };
        policy::readiness(progress)
    }

    /// How much later the peer's clock is than ours.
    pub(crate) fn clock_skew_seconds(&self) -> i64 {
        self.clock_skew_seconds
    }

    /// Until then it must be ready.
    pub(crate) fn ready_until(&self) -> Instant {
        self.started_at.plus(policy::READY_WITHIN)
    }

    /// The connection is there: says our nonce.
    pub(crate) fn connected(
        &mut self,
        local: SocketAddr,
        now: Now,
        settings: &MiddleProxies,
        random: &mut Random,
    ) {
        let permissions = policy::permissions_toward_middle_proxy();
        let policy::StartOfCrypto::SendNonce { schema } = policy::start_of_crypto(permissions) else {
            unreachable!("what we permit toward middle proxies is encryption");
        };
        let seconds = i32::from_le_bytes((now.unix.0 as u32).to_le_bytes());
        let ours = NonceMessage {
            selector: settings.secret.selector(),
            schema,
            unix: seconds,
            nonce: random.bytes(),
        };
        let proxy = SocketAddr::new(settings.nat.global(local.ip()), local.port());
        let ends = LinkEnds { proxy, middle_proxy: self.address };
        self.outbox.append(&[&ours.payload()]);
        self.phase = Phase::AwaitingNonce { ours, ends, secret: settings.secret.clone() };
        self.last_received_at = now.instant;
    }

    /// A frame of a link that is not ready yet, with `unread_len` bytes behind it. True if the link is ready now.
    pub(crate) fn shake_hands(
        &mut self,
        payload: &[u8],
        unread_len: usize,
        inbound: &mut Inbound,
        settings: &MiddleProxies,
    ) -> Result<bool, LinkLoss> {
        match std::mem::replace(&mut self.phase, Phase::Dialing) {
            Phase::AwaitingNonce { ours, ends, secret } => {
                if unread_len > 0 {
                    return Err(LinkLoss::BytesBehindNonce);
                }
                let theirs = NonceMessage::parse(payload).map_err(LinkLoss::Nonce)?;
                let sent = policy::NonceSent { selector: ours.selector, unix: ours.unix };
                let answer = policy::NonceAnswer {
                    selector: theirs.selector,
                    schema: theirs.schema,
                    unix: theirs.unix,
                };
                policy::check_nonce(&answer, &sent).map_err(LinkLoss::NonceRefused)?;
                self.clock_skew_seconds = i64::from(theirs.unix) - i64::from(ours.unix);
                self.start_cipher(&ours, theirs.nonce, &ends, &secret, inbound);
                let us = our_process(settings, ends.proxy);
                let hello =
                    HandshakeMessage { flags: CAN_CRC32C, sender: us, peer: process_at(self.address) };
                self.outbox.append(&[&hello.payload()]);
                self.phase = Phase::AwaitingHandshake { us };
                Ok(false)
            }
            Phase::AwaitingHandshake { us } => {
                if let Some(error) = HandshakeError::parse(payload) {
                    return Err(LinkLoss::HandshakeError(error.code));
                }
                let theirs = HandshakeMessage::parse(payload).map_err(LinkLoss::Handshake)?;
                let answer =
                    policy::HandshakeAnswer { is_for_us: us.matches(&theirs.peer), flags: theirs.flags };
                let accepted =
                    policy::check_handshake(&answer, CAN_CRC32C).map_err(LinkLoss::HandshakeRefused)?;
                if accepted.use_crc32c {
                    self.outbox.set_checksum(Checksum::Crc32c);
                    inbound.set_checksum(Checksum::Crc32c);
                }
                self.phase = Phase::Ready;
                Ok(true)
            }
            phase @ (Phase::Dialing | Phase::Ready) => {
                self.phase = phase;
                Ok(false)
            }
        }
    }

    fn start_cipher(
        &mut self,
        ours: &NonceMessage,
        theirs: Nonce,
        ends: &LinkEnds,
        secret: &super::ProxySecret,
        inbound: &mut Inbound,
    ) {
        let derive = |purpose| key_derivation::derive(purpose, &theirs, &ours.nonce, ours.unix, ends, secret);
        self.outbox.start_cipher(CbcEncryptor::new(&derive(Purpose::Client)));
        inbound.start_cipher(CbcDecryptor::new(&derive(Purpose::Server)));
    }

    /// Bytes have come.
    pub(crate) fn note_received(&mut self, now: Instant) {
        self.last_received_at = now;
        self.pinged_at = None;
    }

    /// True if the link takes more of clients' packets.
    pub(crate) fn has_room(&self, streams: &Streams) -> bool {
        self.is_ready() && self.outbox.len() + streams.backlog_bytes(self.stream) < WINDOW_BYTES
    }

    /// A client's packet was gathered.
    pub(crate) fn note_forwarded(&mut self, now: Instant) {
        self.last_forwarded_at = Some(now);
    }

    pub(crate) fn note_pong(&mut self) {
        self.has_ponged = true;
    }

    /// What is due by now; a ping is gathered.
    pub(crate) fn look_after(&mut self, now: Instant, limits: &MiddleProxyLimits) -> Due {
        match self.readiness(now) {
            Readiness::Ok => {}
            Readiness::Failed(_) => return Due::Lost(LinkLoss::NotReady),
            Readiness::NotYet | Readiness::Stopped | Readiness::Busy => {
                return Due::Nothing(self.ready_until());
            }
        }
        match policy::liveness(self.standing(now, limits)) {
            Liveness::Alive => {}
            Liveness::Ping => {
                let id = i64::from_le_bytes(self.stream.to_u64().to_le_bytes());
                self.outbox.append(&[&message::ping(id)]);
                self.pinged_at = Some(now);
            }
            Liveness::Stalled => return Due::Lost(LinkLoss::Stalled),
        }
        Due::Nothing(match self.pinged_at {
            Some(at) => at.plus(limits.stalled_after).max(now.plus(LOOK_AGAIN)),
            None => self.last_received_at.plus(limits.ping_after),
        })
    }

    fn standing(&self, now: Instant, limits: &MiddleProxyLimits) -> LivenessInput {
        LivenessInput {
            since_received: now.since(self.last_received_at),
            since_ping: self.pinged_at.map(|at| now.since(at)),
            has_ponged: self.has_ponged,
            has_unanswered: self.last_forwarded_at.is_some_and(|at| at > self.last_received_at),
            ping_after: limits.ping_after,
            stalled_after: limits.stalled_after,
        }
    }
}

/// Distance of two looks at a link whose peer may not know pings: until something else is unanswered, too.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Who we are on a link from `local`.
fn our_process(settings: &MiddleProxies, local: SocketAddr) -> ProcessId {
    ProcessId { ip: process_at(local).ip, ..settings.process }
}

/// What the peer at `address` is expected to be: loopback and IPv6 addresses have no number (protocol.md section 7.4).
fn process_at(address: SocketAddr) -> ProcessId {
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) if !ip.is_loopback() => ip.to_bits(),
        _ => 0,
    };
    ProcessId { ip, port: address.port(), pid: 0, start_unix: 0 }
}
