//! Phase one: who is this?
//!
//! Three kinds of first bytes are told apart: a fake-TLS hello (only where a domain is configured), an
//! obfuscated2 init frame, and everything else. Until that is decided every byte is kept, because a
//! stranger's bytes belong to the real site (protocol.md sections 3.5 and 6).

use std::sync::Arc;

use super::{Authentic, Greeted, Phase, Proxied, Relaying, Turn};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{DropReason, PeerMisbehaved};
use crate::event::What;
use crate::fake_tls::{
    ClientHello, HelloProgress, HelloReassembly, RECEIVED_LEN_MAX, append_server_flight, awaits_name,
    greeted_name,
};
use crate::obfuscated2::{INIT_FRAME_LEN, is_surely_http};
use crate::session::Farewell;
use crate::stream::{Endpoints, StreamId};

/// The front of a stranger that greeted no domain of ours.
const DEFAULT_FRONT: usize = 0;

/// A client that is not yet known.
pub(crate) struct Handshaking {
    client: StreamId,
    ends: Endpoints,
    received: Vec<u8>,
    hello: HelloReassembly,
    /// No secret opens its first 64 bytes; if it is not fronted yet, its hello is not complete.
    is_stranger: bool,
}

/// What the bytes so far amount to.
enum Judgement {
    Wait,
    Hello { trailing_len: usize },
    InitFrame,
    Stranger(PeerMisbehaved),
}

impl Handshaking {
    pub(crate) fn begin(client: StreamId, ends: Endpoints) -> Self {
        Self { client, ends, received: Vec::new(), hello: HelloReassembly::default(), is_stranger: false }
    }

    pub(crate) fn credit(&self) -> usize {
        RECEIVED_LEN_MAX.saturating_sub(self.received.len())
    }

    pub(crate) fn client(&self) -> StreamId {
        self.client
    }

    pub(crate) fn receive(mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Phase {
        if self.received.is_empty() {
            turn.arm(Deadline::Handshake);
        }
        self.received.extend_from_slice(bytes);
        match self.judge(&turn.shared.config) {
            Judgement::Wait => Phase::Handshaking(self),
            Judgement::Hello { trailing_len } => self.greet(trailing_len, turn),
            Judgement::InitFrame => self.authenticate(turn),
            Judgement::Stranger(why) => self.front_greeted(why, turn),
        }
    }

    /// The client has sent FIN.
    pub(crate) fn ended(self, turn: &mut Turn<'_>) -> Phase {
        if self.received.is_empty() {
            // It came and went, like a health check; the real site would only close, too.
            return turn.leave(&[(self.client, Farewell::Close)], Ok(()));
        }
        self.front_or_close(PeerMisbehaved::EndedBeforeHandshake, turn)
    }

    pub(crate) fn timed_out(self, deadline: Deadline, turn: &mut Turn<'_>) -> Phase {
        let why = if deadline == Deadline::FirstByte {
            PeerMisbehaved::SilentTooLong
        } else {
            PeerMisbehaved::HandshakeTooSlow
        };
        self.front_or_close(why, turn)
    }

    fn judge(&mut self, config: &Config) -> Judgement {
        if !config.fronts.is_empty() {
            match self.hello.advance(&self.received) {
                HelloProgress::Complete { trailing_len } => return Judgement::Hello { trailing_len },
                HelloProgress::Incomplete if self.credit() == 0 => {
                    return Judgement::Stranger(PeerMisbehaved::MalformedHello);
                }
                HelloProgress::Incomplete => return Judgement::Wait,
                // Nobody else needs 64 bytes to be known, or has shown already that they open to nothing.
                HelloProgress::NotAHello if self.is_stranger || !config.credentials.admit_without_tls() => {
                    return self.judge_stranger();
                }
                HelloProgress::NotAHello => {}
            }
        }
        if self.received.len() >= INIT_FRAME_LEN {
            Judgement::InitFrame
        } else if is_surely_http(&self.received) {
            Judgement::Stranger(PeerMisbehaved::SpokeHttp)
        } else {
            Judgement::Wait
        }
    }

    /// Fronts a stranger, but not before the name that it greets is known: so that it gets the site it asks for.
    fn judge_stranger(&self) -> Judgement {
        if awaits_name(&self.received) && self.credit() > 0 {
            Judgement::Wait
        } else {
            Judgement::Stranger(PeerMisbehaved::UnknownInitFrame)
        }
    }

    /// A whole hello: answers it if it is authentic, new and timely. Whatever else is wrong with a hello
    /// to a domain of ours, it is that domain's (protocol.md 6.2).
    fn greet(self, trailing_len: usize, turn: &mut Turn<'_>) -> Phase {
        let config = Arc::clone(&turn.shared.config);
        let message = self.hello.message(&self.received);
        let hello = match ClientHello::parse(&message) {
            Ok(hello) => hello,
            Err(why) => return self.front_greeted(why, turn),
        };
        let Some(front) = hello.server_name().and_then(|name| config.fronts.find(name)) else {
            return self.front_greeted(PeerMisbehaved::UnknownServerName, turn);
        };
        if trailing_len > 0 {
            return self.front(front, PeerMisbehaved::TrailingData, turn);
        }
        let likely = turn.shared.recent_secrets.likely(self.ends.remote.ip());
        let Some((secret, clock)) = config.credentials.authenticate_hello(&hello, likely) else {
            return self.front(front, PeerMisbehaved::UnauthenticHello, turn);
        };
        let admitted = hello.cipher_suite().and_then(|suite| {
            turn.shared.admission.admit(hello.id(), clock, turn.now.unix)?;
            Ok(suite)
        });
        let suite = match admitted {
            Ok(suite) => suite,
            Err(why) => return self.front(front, why, turn),
        };
        turn.remember_secret(self.ends.remote.ip(), secret);
        let flight_len = config.fronts.get(front).map_or(0, |front| front.flight_len);
        let hmac = config.credentials.hmac(secret).expect("the secret was found in these credentials");
        turn.greet_with(self.client, |out, key_shares, random| {
            append_server_flight(out, &hello, suite, hmac, flight_len, key_shares, random);
        });
        turn.report(What::Greeted { secret });
        Phase::Greeted(Greeted::begin(self.client, self.ends, config, secret))
    }

    /// 64 bytes that are no hello: dials the data centre if some secret opens them.
    fn authenticate(mut self, turn: &mut Turn<'_>) -> Phase {
        let config = Arc::clone(&turn.shared.config);
        let frame = self.received.first_chunk().expect("judge saw a whole init frame");
        let likely = turn.shared.recent_secrets.likely(self.ends.remote.ip());
        let Some((secret, opened)) = config.credentials.authenticate_init_frame(frame, likely) else {
            self.is_stranger = true;
            if !config.fronts.is_empty() && matches!(self.judge_stranger(), Judgement::Wait) {
                return Phase::Handshaking(self);
            }
            // Only now: an authentic frame may begin like HTTP, however unlikely.
            let why = if is_surely_http(&self.received) {
                PeerMisbehaved::SpokeHttp
            } else {
                PeerMisbehaved::UnknownInitFrame
            };
            return self.front_greeted(why, turn);
        };
        turn.remember_secret(self.ends.remote.ip(), secret);
        let who = Authentic { client: self.client, ends: self.ends, secret, opened, records: None };
        if turn.goes_by_middle_proxy(secret) {
            return Proxied::begin(turn, who, &mut self.received, INIT_FRAME_LEN);
        }
        let mut phase = Relaying::dial(turn, who);
        if let Phase::Dialing(dialing) = &mut phase {
            let payload = &mut self.received[INIT_FRAME_LEN..];
            let upstream = dialing.legs.upstream;
            if let Some(relaying) = dialing.relaying_mut() {
                relaying.rekey(payload);
            }
            turn.write_with(upstream, |out| out.extend_from_slice(payload));
        }
        phase
    }

    /// The front whose name the stranger has given, if it has.
    fn front_greeted(&self, why: PeerMisbehaved, turn: &mut Turn<'_>) -> Phase {
        let named = greeted_name(&self.received).and_then(|name| turn.shared.config.fronts.find(name));
        self.front(named.unwrap_or(DEFAULT_FRONT), why, turn)
    }

    fn front(&self, front: usize, why: PeerMisbehaved, turn: &mut Turn<'_>) -> Phase {
        turn.front(self.client, why, front, &self.received)
    }

    /// For a client that will not say more: silence would be pointless without a front.
    fn front_or_close(&self, why: PeerMisbehaved, turn: &mut Turn<'_>) -> Phase {
        if turn.shared.config.fronts.is_empty() {
            turn.report(What::Discarding(why));
            return turn.leave(&[(self.client, Farewell::Close)], Err(DropReason::NoFront));
        }
        self.front_greeted(why, turn)
    }
}
