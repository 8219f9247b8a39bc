//! The other route: an authentic client's packets to a middle proxy, and its answers back.
//!
//! ```text
//!   client's bytes ─► cipher off ─► packets ─► requests in a link's outbox        many clients, one link
//!   client ◄── records ◄── cipher on ◄── packet ◄── answer, found by its connection id
//! ```
//! Unlike in direct mode the bytes are read here: a link carries whole packets (protocol.md sections 4, 5 and 7.6).
//! What is not forwarded yet is held as plain bytes: the beginning of a packet, or packets that wait for room in the
//! link, or for a link. The client is not read while more than a window of them waits.
//!
//! There is no half-close inside a link, and no flow control: a client that does not take its answers is closed
//! before it costs others their memory. docs/middle-proxies.md says what is promised.

use super::{Farewell, Phase, Turn};
use crate::aes_ctr::AesCtr;
use crate::credentials::SecretId;
use crate::dc::DcId;
use crate::deadline::Deadline;
use crate::error::{DropReason, PeerMisbehaved};
use crate::event::What;
use crate::fake_tls::{RecordReader, RecordWriter};
use crate::middle_proxy::link::LinkKey;
use crate::middle_proxy::message::pong;
use crate::middle_proxy::proxy_req::ProxyReq;
use crate::obfuscated2::InitFrame;
use crate::policy::forwarding::{
    Admission, ClientFate, LostLink, Mapping, MappingState, admit, mapping, on_link_lost, takes_answer,
};
use crate::session_key::SessionKey;
use crate::stream::{Endpoints, StreamId};
use crate::time::Instant;
use crate::transport::Transport;
use crate::transport::packet::classify;
use crate::transport::packet_reader::{Next, PacketReader};
use crate::transport::packet_writer::{append_packet, quick_ack};

/// Bytes that a client may send over a link before the next one is served.
const QUANTUM_BYTES: usize = 16 * 1024;

/// An authentic client whose packets go through a middle proxy.
pub(crate) struct Proxied {
    client: StreamId,
    ends: Endpoints,
    dc: DcId,
    from_client: AesCtr,
    to_client: AesCtr,
    fake_tls: Option<FakeTls>,
    packets: PacketReader,
    transport: Transport,
    /// Plain bytes of the client that are not forwarded yet.
    held: Vec<u8>,
    route: Route,
    /// A whole packet of `held` waits for a link, or for room in it.
    is_waiting: bool,
    /// The deadline is that for a link.
    awaits_link: bool,
    forwarded_at: Option<Instant>,
    answered_at: Option<Instant>,
}

/// What a client may send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// It has just spoken: as much as the link takes, unless somebody waits for it already.
    Passing,
    /// It has waited, and it is its turn: about [`QUANTUM_BYTES`].
    Quantum,
}

struct FakeTls {
    from_client: RecordReader,
    to_client: RecordWriter,
}

/// Where packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// No link has been chosen, or the one chosen is gone.
    None,
    /// To this link, until one of the two ends.
    Link(LinkKey),
}

/// What an authentic client has shown.
pub(crate) struct Authentic {
    pub(crate) client: StreamId,
    pub(crate) ends: Endpoints,
    pub(crate) secret: SecretId,
    pub(crate) opened: InitFrame,
    /// Where a fake-TLS client's records stand behind its init frame.
    pub(crate) records: Option<RecordReader>,
}

impl Proxied {
    /// Begins to serve a client; `payload` is what came together with its init frame, from `at` on.
    pub(crate) fn begin(turn: &mut Turn<'_>, who: Authentic, payload: &mut [u8], at: usize) -> Phase {
        let Authentic { client, ends, secret, opened, records } = who;
        let (transport, dc) = (opened.transport, opened.dc);
        turn.report(What::Authenticated { secret, transport, fake_tls: records.is_some(), dc });
        let mut proxied = Box::new(Self {
            client,
            ends,
            dc,
            to_client: opened.streams.backward.stream(),
            from_client: opened.streams.forward,
            fake_tls: records.map(|from_client| FakeTls { from_client, to_client: RecordWriter::default() }),
            packets: PacketReader::new(transport),
            transport,
            held: Vec::new(),
            route: Route::None,
            is_waiting: false,
            awaits_link: false,
            forwarded_at: None,
            answered_at: None,
        });
        if !turn.shared.links.serves(dc) {
            return proxied.leave(Err(DropReason::UpstreamUnreachable), turn);
        }
        turn.shared.streams.meter(client);
        turn.arm(Deadline::Idle);
        turn.resume(client);
        match proxied.receive(payload, at, turn) {
            Ok(()) => Phase::Proxied(proxied),
            Err(why) => proxied.misbehaved(why, turn),
        }
    }

    pub(crate) fn client(&self) -> StreamId {
        self.client
    }

    pub(crate) fn link(&self) -> Option<LinkKey> {
        match self.route {
            Route::None => None,
            Route::Link(link) => Some(link),
        }
    }

    /// Bytes of the client that are held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// When the client last spoke or was answered.
    pub(crate) fn active_at(&self) -> Option<Instant> {
        self.forwarded_at.max(self.answered_at)
    }

    /// How many more bytes may be handed in. The beginning of a packet does not count: its end must come.
    pub(crate) fn credit(&self, window_bytes: usize) -> usize {
        if self.is_waiting { window_bytes.saturating_sub(self.held.len()) } else { window_bytes }
    }

    /// The client has said something: `bytes` from `at` on.
    pub(crate) fn receive(
        &mut self,
        bytes: &mut [u8],
        mut at: usize,
        turn: &mut Turn<'_>,
    ) -> Result<(), PeerMisbehaved> {
        let Some(fake_tls) = &mut self.fake_tls else {
            self.from_client.apply(&mut bytes[at..]);
            return self.take(&bytes[at..], turn);
        };
        let mut bodies = std::mem::take(&mut fake_tls.from_client);
        let mut result = Ok(());
        while result.is_ok() {
            match bodies.next_body(bytes, &mut at, usize::MAX) {
                Ok(Some(body)) => {
                    self.from_client.apply(&mut bytes[body.clone()]);
                    result = self.take(&bytes[body], turn);
                }
                Ok(None) => break,
                Err(why) => result = Err(why),
            }
        }
        if let Some(fake_tls) = &mut self.fake_tls {
            fake_tls.from_client = bodies;
        }
        result
    }

    /// Plain bytes: forwards the packets that are whole, holds the rest.
    fn take(&mut self, plain: &[u8], turn: &mut Turn<'_>) -> Result<(), PeerMisbehaved> {
        if self.is_waiting {
            self.hold(plain, turn);
            return Ok(());
        }
        if !self.held.is_empty() {
            self.hold(plain, turn);
            return self.forward_held(Share::Passing, turn);
        }
        let used = self.forward(plain, Share::Passing, turn)?;
        self.hold(&plain[used..], turn);
        Ok(())
    }

    fn hold(&mut self, plain: &[u8], turn: &mut Turn<'_>) {
        if self.held.capacity() == 0 && !plain.is_empty() {
            // Not for the length that the packet claims: it costs a stranger nothing to claim a megabyte.
            self.held = turn.shared.buffers.take(plain.len());
        }
        self.held.extend_from_slice(plain);
        turn.shared.held_bytes += plain.len();
    }

    /// Forwards packets of what is held.
    fn forward_held(&mut self, share: Share, turn: &mut Turn<'_>) -> Result<(), PeerMisbehaved> {
        let mut held = std::mem::take(&mut self.held);
        let used = self.forward(&held, share, turn);
        let used_len = *used.as_ref().unwrap_or(&0);
        held.drain(..used_len);
        turn.shared.held_bytes -= used_len;
        if held.is_empty() {
            turn.shared.buffers.give_back(held);
        } else {
            self.held = held;
        }
        used.map(drop)
    }

    /// Forwards the whole packets at the front of `plain`, as far as the client's share of the link goes. Answers how
    /// many bytes are done with; a whole packet that is left waits from then on.
    fn forward(&mut self, plain: &[u8], share: Share, turn: &mut Turn<'_>) -> Result<usize, PeerMisbehaved> {
        let mut at = 0;
        loop {
            let Next::Packet { body, consumed, quick_ack } = self.packets.next(&plain[at..])? else {
                return Ok(at);
            };
            let packet = &plain[at..][body];
            match admit(classify(packet)) {
                Admission::Pong(id) => self.answer_ping(id, turn),
                Admission::Ignore => turn.shared.links.forwarded.ignored += 1,
                Admission::Forward { is_unencrypted } => {
                    if !self.may_forward(share, at, turn) {
                        self.wait(turn);
                        return Ok(at);
                    }
                    self.request(packet, is_unencrypted, quick_ack, turn);
                }
            }
            at += consumed;
        }
    }

    /// True if the link takes a packet now, behind `used_bytes` of this client. Chooses a link if there is none.
    fn may_forward(&mut self, share: Share, used_bytes: usize, turn: &mut Turn<'_>) -> bool {
        self.bind(turn);
        let links = &turn.shared.links;
        self.link().is_some_and(|link| {
            let is_ours = match share {
                Share::Quantum => used_bytes < QUANTUM_BYTES,
                Share::Passing => !links.is_waited_for(link),
            };
            is_ours && links.has_room(link, &turn.shared.streams)
        })
    }

    /// Stays on the link that there is, or chooses one.
    fn bind(&mut self, turn: &mut Turn<'_>) {
        let state = match self.link() {
            Some(_) => MappingState::Alive,
            None if self.forwarded_at.is_some() => MappingState::Lost,
            None => MappingState::None,
        };
        let chosen = match state {
            MappingState::Alive => None,
            _ => turn.shared.links.choose(self.dc, &mut turn.shared.random),
        };
        let (Mapping::Create, Some(link)) = (mapping(state, chosen.is_some()), chosen) else { return };
        self.route = Route::Link(link);
        turn.shared.links.forwarded.mappings += 1;
        if let Some(link) = turn.shared.links.get_mut(link) {
            link.clients += 1;
            let address = link.address;
            turn.report(What::Connected { address });
        }
        self.await_peers(turn);
    }

    /// Time counts for whoever is expected to speak next.
    fn await_peers(&mut self, turn: &mut Turn<'_>) {
        self.awaits_link = false;
        turn.arm(if turn.has_ended(self.client) { Deadline::Linger } else { Deadline::Idle });
    }

    fn await_link(&mut self, turn: &mut Turn<'_>) {
        turn.shared.links.wait_for_link(turn.session);
        // Every link that comes and is another cluster's would else start its time anew.
        if !std::mem::replace(&mut self.awaits_link, true) {
            turn.arm(Deadline::Dial);
        }
    }

    fn wait(&mut self, turn: &mut Turn<'_>) {
        self.is_waiting = true;
        match self.link() {
            Some(link) => turn.shared.links.wait_for_room(link, turn.session),
            None => self.await_link(turn),
        }
    }

    /// It is this client's turn: a link has room for a quantum, or one has become ready.
    pub(crate) fn serve(&mut self, turn: &mut Turn<'_>) -> Result<(), PeerMisbehaved> {
        self.is_waiting = false;
        let before = self.held.len();
        self.forward_held(Share::Quantum, turn)?;
        if self.held.len() < before {
            turn.resume(self.client);
        }
        Ok(())
    }

    fn request(&mut self, packet: &[u8], is_unencrypted: bool, quick_ack: bool, turn: &mut Turn<'_>) {
        let Some(key) = self.link() else { return };
        let links = &mut turn.shared.links;
        let Some(settings) = links.settings().cloned() else { return };
        let ours = self.ends.local;
        let mut header = std::mem::take(&mut links.header);
        header.clear();
        ProxyReq {
            conn_id: conn_id(turn.session),
            client: self.ends.remote,
            ours: std::net::SocketAddr::new(settings.nat.global(ours.ip()), ours.port()),
            transport: self.transport,
            quick_ack,
            is_unencrypted,
            was_dropped: false,
            proxy_tag: settings.proxy_tag.as_ref(),
        }
        .append_header(&mut header);
        if let Some(link) = links.get_mut(key) {
            link.outbox.append(&[&header, packet]);
            link.note_forwarded(turn.now.instant);
        }
        links.header = header;
        links.forwarded.requests += 1;
        links.note_work();
        self.forwarded_at = Some(turn.now.instant);
    }

    /// A packet for the client.
    pub(crate) fn deliver(&mut self, packet: &[u8], turn: &mut Turn<'_>) -> Result<(), DropReason> {
        self.answered_at = Some(turn.now.instant);
        turn.shared.links.forwarded.answers += 1;
        if turn.has_ended(self.client) {
            turn.arm(Deadline::Linger);
        }
        self.send(turn, |transport, out, random| append_packet(transport, packet, out, random))
    }

    /// The data centre has received what the client asked an acknowledgement for.
    pub(crate) fn acknowledge(&mut self, token: u32, turn: &mut Turn<'_>) -> Result<(), DropReason> {
        turn.shared.links.forwarded.acks += 1;
        self.send(turn, |transport, out, _| out.extend_from_slice(&quick_ack(transport, token)))
    }

    fn answer_ping(&mut self, id: i64, turn: &mut Turn<'_>) {
        // A client that pings faster than it reads finds answers missing.
        let _ = self.send(turn, |transport, out, random| append_packet(transport, &pong(id), out, random));
    }

    /// Encrypts what `compose` appends and queues it, in records if need be.
    fn send(
        &mut self,
        turn: &mut Turn<'_>,
        compose: impl FnOnce(Transport, &mut Vec<u8>, &mut crate::random::Random),
    ) -> Result<(), DropReason> {
        let mut answer = std::mem::take(&mut turn.shared.links.answer);
        answer.clear();
        compose(self.transport, &mut answer, &mut turn.shared.random);
        let backlog = turn.shared.streams.backlog_bytes(self.client);
        let limit = turn.shared.links.settings().map_or(0, |settings| settings.limits.client_buffer_bytes);
        let fits = takes_answer(backlog, answer.len(), limit);
        if fits {
            self.to_client.apply(&mut answer);
            let fake_tls = &mut self.fake_tls;
            turn.write_with(self.client, |out| match fake_tls {
                None => out.extend_from_slice(&answer),
                Some(fake_tls) => append_records(&answer, &mut fake_tls.to_client, out),
            });
        }
        turn.shared.links.answer = answer;
        if fits { Ok(()) } else { Err(DropReason::SlowReader) }
    }

    /// The link is gone: says what becomes of the client.
    pub(crate) fn link_lost(&mut self, turn: &mut Turn<'_>) -> Result<(), DropReason> {
        let lost = LostLink {
            since_forwarded: self.forwarded_at.map(|at| turn.now.instant.since(at)),
            is_answered: self.answered_at >= self.forwarded_at,
        };
        self.route = Route::None;
        match on_link_lost(lost) {
            ClientFate::Close(_) => return Err(DropReason::MiddleProxyLost),
            ClientFate::Keep => {}
        }
        if self.is_waiting {
            // It stood in the ring of the link that is gone.
            self.await_link(turn);
        }
        Ok(())
    }

    /// The client has sent FIN. What it has said is forwarded; an answer that is still to come has time for it.
    pub(crate) fn ended(self: Box<Self>, turn: &mut Turn<'_>) -> Phase {
        let awaits_answer = self.is_waiting || self.forwarded_at > self.answered_at;
        if !awaits_answer {
            return self.leave(Ok(()), turn);
        }
        turn.arm(Deadline::Linger);
        Phase::Proxied(self)
    }

    pub(crate) fn misbehaved(self: Box<Self>, why: PeerMisbehaved, turn: &mut Turn<'_>) -> Phase {
        turn.report(What::Misbehaved(why));
        self.leave(Err(DropReason::Misbehaved), turn)
    }

    pub(crate) fn timed_out(self: Box<Self>, deadline: Deadline, turn: &mut Turn<'_>) -> Phase {
        let outcome = match deadline {
            Deadline::Linger => Ok(()),
            Deadline::Dial => Err(DropReason::UpstreamUnreachable),
            _ => Err(DropReason::Idle),
        };
        self.leave(outcome, turn)
    }

    /// Closed for a reason of ours: who does not take what is queued is not waited for.
    pub(crate) fn drop_client(mut self: Box<Self>, why: DropReason, turn: &mut Turn<'_>) -> Phase {
        self.part(turn);
        let farewell = match why {
            DropReason::SlowReader | DropReason::MemoryPressure => Farewell::Abort,
            _ => Farewell::Close,
        };
        if farewell == Farewell::Abort {
            turn.abort(self.client);
            return turn.leave(&[], Err(why));
        }
        turn.leave(&[(self.client, farewell)], Err(why))
    }

    /// Takes leave of the client, and tells the middle proxy.
    pub(crate) fn leave(mut self: Box<Self>, outcome: super::Outcome, turn: &mut Turn<'_>) -> Phase {
        self.part(turn);
        turn.leave(&[(self.client, Farewell::Close)], outcome)
    }

    /// Tells the middle proxy that this client is gone, and lets go of what is held.
    pub(crate) fn part(&mut self, turn: &mut Turn<'_>) {
        if let Some(link) = self.link() {
            turn.shared.links.close_mapping(link, conn_id(turn.session));
        }
        self.route = Route::None;
        turn.shared.held_bytes -= self.held.len();
        turn.shared.buffers.give_back(std::mem::take(&mut self.held));
    }

    /// The middle proxy has already forgotten this client.
    pub(crate) fn unbind(&mut self, turn: &mut Turn<'_>) {
        if let Some(link) = self.link().and_then(|link| turn.shared.links.get_mut(link)) {
            link.clients -= 1;
        }
        self.route = Route::None;
    }
}

/// The name of a client on its link: its session's, which is never another's.
pub(crate) fn conn_id(session: SessionKey) -> i64 {
    i64::from_le_bytes(session.to_u64().to_le_bytes())
}

fn append_records(mut bytes: &[u8], writer: &mut RecordWriter, out: &mut Vec<u8>) {
    while !bytes.is_empty() {
        let (header, body_len) = writer.next_record(bytes.len());
        let (body, rest) = bytes.split_at(body_len);
        out.extend_from_slice(&header);
        out.extend_from_slice(body);
        bytes = rest;
    }
}
