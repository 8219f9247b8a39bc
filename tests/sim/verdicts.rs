//! The witness's opinion of what the engine reports: who was admitted, who was not and why, how a session
//! ended and when.

use std::net::SocketAddr;
use std::time::Duration;

use mtproxy_core::config::{Config, Timeouts};
use mtproxy_core::credentials::SecretId;
use mtproxy_core::error::{DropReason, PeerMisbehaved};
use mtproxy_core::event::{DialError, Event, What};
use mtproxy_core::stream::Leg;
use mtproxy_core::transport::Transport;

use crate::character::{Character, Kind, Vice};
use crate::simulation::LATENESS_MAX;
use crate::violation::{Checker, Violation, require, violation};
use crate::witness::{StreamEnd, Witness};

impl Witness {
    pub(crate) fn reports(&mut self, client: usize, event: &Event, now: Duration) -> Result<(), Violation> {
        let session = &mut self.sessions[client];
        if let Some(outcome) = session.ended {
            return violation(Checker::Events, format!("client {client}: {event:?} behind {outcome:?}"));
        }
        match event.what {
            What::Opened => {
                self.tally.sessions += 1;
                let number = self.accepted.len() as u64;
                return require(event.session.0 == number, Checker::Events, || {
                    format!("session {number} was opened as {:?}", event.session)
                });
            }
            What::Greeted { .. } => session.is_greeted = true,
            What::Authenticated { dc, transport, fake_tls, .. } => {
                session.authenticated = Some(dc);
                let kind = match transport {
                    _ if fake_tls => "fake TLS",
                    Transport::Abridged => "abridged",
                    Transport::Intermediate => "intermediate",
                    Transport::PaddedIntermediate => "padded intermediate",
                };
                self.tally.count("admitted", kind);
            }
            What::Fronted(why) => {
                self.tally.count("fronted", why.name());
                session.fronted = Some(why);
            }
            What::Discarding(why) => {
                self.tally.count("met with silence", why.name());
                session.discarding = Some(why);
            }
            What::Misbehaved(why) => {
                self.tally.count("misbehaved", why.name());
                session.misbehaved = Some(why);
            }
            What::DialFailed { address, why } => {
                self.tally.count("dials failed", describe(why));
                session.dials_failed += 1;
                return self.dial_ended(client, address);
            }
            What::Connected { address } => {
                session.is_connected = true;
                session.last_byte_at = now;
                session.last_activity_at = now;
                return self.dial_ended(client, address);
            }
            What::Ended { outcome, from_client_bytes, from_upstream_bytes, lasted } => {
                session.ended = Some(outcome);
                self.tally.count("ended", outcome.map_or_else(DropReason::name, |()| "ok"));
                let counted = [from_client_bytes, from_upstream_bytes].map(|bytes| bytes as usize);
                let lasts = now - session.opened_at.unwrap_or_default();
                let what = || format!("client {client}: {event:?}, counted {counted:?} in {lasts:?}");
                require(session.received == counted && lasted == lasts, Checker::Events, what)?;
                return self.ended(client, outcome, now);
            }
        }
        self.judge(self.is_decided_in_time(client, now))?;
        self.admits(client, event.what)
    }

    /// However slowly a client talks, what it is has been decided when its first timeouts are over.
    fn is_decided_in_time(&self, client: usize, now: Duration) -> Result<(), Violation> {
        let session = &self.sessions[client];
        let (since, patience) = match session.first_byte_at {
            None => (session.opened_at.unwrap_or_default(), self.longest(|timeouts| timeouts.first_byte)),
            Some(at) => (at, self.longest(|timeouts| timeouts.handshake)),
        };
        let is_relaying = session.is_connected;
        require(is_relaying || now - since <= patience + LATENESS_MAX, Checker::Timeouts, || {
            format!("client {client} was undecided for {:?}", now - since)
        })
    }

    /// The longest of one timeout under any configuration: a wait may begin under one and end under another.
    fn longest(&self, of: fn(&Timeouts) -> Duration) -> Duration {
        self.configs.iter().map(|config| of(&config.timeouts)).max().unwrap_or_default()
    }

    fn dial_ended(&self, client: usize, address: SocketAddr) -> Result<(), Violation> {
        let stream = self.sessions[client].streams[Leg::Upstream as usize];
        let book = stream.and_then(|stream| self.streams.get(&stream));
        let last = book.and_then(|book| book.dialled.last());
        require(last == Some(&address), Checker::Dials, || format!("{address} reported, {last:?} dialled"))
    }

    /// Who may be admitted, and for what the others may be turned away.
    fn admits(&self, client: usize, what: What) -> Result<(), Violation> {
        let character = &self.characters[client];
        let is_right = match (what, &character.kind) {
            (What::Greeted { secret }, Kind::Member(member)) => {
                member.options.is_fake_tls() && self.is_secret_of(secret, &member.name)
            }
            (What::Authenticated { secret, transport, fake_tls, dc }, Kind::Member(member)) => {
                let options = &member.options;
                let is_let_in = matches!(member.vice, None | Some(Vice::EndsWithBadRecord));
                self.is_secret_of(secret, &member.name)
                    && is_let_in
                    && (transport, dc, fake_tls) == (options.transport, options.dc, options.is_fake_tls())
            }
            (What::Fronted(why) | What::Discarding(why), _) => character.may_be_turned_away_for(why),
            (What::Misbehaved(why), Kind::Member(member)) => {
                member.vice.is_some_and(|vice| vice.expected() == why)
                    || matches!(why, PeerMisbehaved::EndedBeforeHandshake | PeerMisbehaved::HandshakeTooSlow)
            }
            _ => false,
        };
        require(is_right, Checker::Admission, || format!("client {client}: {what:?} for {character:?}"))
    }

    /// Each session that was accepted has reported its end.
    pub(crate) fn check_ends(&self) -> Result<(), Violation> {
        let endless = self.accepted.iter().find(|client| self.sessions[**client].ended.is_none());
        let what = || format!("client {endless:?} was accepted, and its end never reported");
        self.judge(require(endless.is_none(), Checker::Events, what))
    }

    fn is_secret_of(&self, secret: SecretId, name: &str) -> bool {
        let in_force = self.configs.last().expect("there is always a configuration");
        in_force.credentials.names().nth(secret.0 as usize) == Some(name)
    }

    /// The ending is the one that docs/session.md has for what happened.
    fn ended(&self, client: usize, outcome: Result<(), DropReason>, now: Duration) -> Result<(), Violation> {
        let session = &self.sessions[client];
        let books = session.streams.map(|stream| stream.and_then(|stream| self.streams.get(&stream)));
        let ends = books.map(|book| book.and_then(|book| book.end));
        let fins = books.map(|book| book.is_some_and(|book| book.has_sent_fin));
        let [client_end, upstream_end] = ends;
        let shortest = |of: fn(&Config) -> Duration| self.configs.iter().map(|config| of(config)).min();
        let linger = shortest(|config| config.timeouts.linger).unwrap_or_default();
        let has_lingered = |since: Option<Duration>| since.is_some_and(|since| now - since >= linger);
        let passed_on = |end: Option<StreamEnd>, reset_at: Option<Duration>| match end {
            None => !session.is_connected,
            Some(StreamEnd::Aborted) => {
                !session.is_connected || session.is_fronted() || has_lingered(reset_at)
            }
            Some(StreamEnd::Closed) => !session.is_fronted(),
            Some(StreamEnd::Lost) => session.reset_at.iter().all(Option::is_some),
        };
        let is_right = match outcome {
            Ok(()) if session.is_connected => fins == [true; 2] && ends == [Some(StreamEnd::Closed); 2],
            Ok(()) => fins[0] && session.received == [0; 2] && ends == [Some(StreamEnd::Closed), None],
            Err(DropReason::ClientReset) => {
                client_end == Some(StreamEnd::Lost) && passed_on(upstream_end, session.reset_at[0])
            }
            Err(DropReason::UpstreamReset) => {
                upstream_end == Some(StreamEnd::Lost) && passed_on(client_end, session.reset_at[1])
            }
            Err(DropReason::Idle) => session.is_connected,
            Err(DropReason::Unflushed) => fins == [true; 2] && ends != [Some(StreamEnd::Closed); 2],
            Err(DropReason::UpstreamUnreachable) => !session.is_connected && session.dials_failed > 0,
            Err(DropReason::NoFront) => session.discarding.is_some() && upstream_end.is_none(),
            Err(DropReason::DiscardLimit) => session.received[0] > 1 << 28,
            Err(DropReason::Misbehaved) => session.misbehaved.is_some(),
            Err(DropReason::Stopping) => self.is_stopping,
            // Nobody goes by a middle proxy here.
            Err(DropReason::MiddleProxyLost | DropReason::SlowReader | DropReason::MemoryPressure) => false,
        };
        require(is_right, Checker::Endings, || {
            let kind = if session.is_fronted() { "fronted" } else { "not fronted" };
            format!("client {client}, {kind}: {outcome:?} with FINs {fins:?} and ends {ends:?}")
        })?;
        let are_all_ended =
            session.streams.iter().zip(ends).all(|(stream, end)| stream.is_none() || end.is_some());
        let what = || format!("client {client}: session ended, streams {ends:?}");
        self.judge(require(are_all_ended, Checker::Streams, what))?;
        self.judge(self.is_in_time(client, outcome, now))
    }

    /// Idle sessions end for idleness, and no session outlives all its timeouts.
    fn is_in_time(
        &self,
        client: usize,
        outcome: Result<(), DropReason>,
        now: Duration,
    ) -> Result<(), Violation> {
        let session = &self.sessions[client];
        if outcome == Err(DropReason::Idle) {
            let shortest = self.configs.iter().map(|config| config.timeouts.idle).min().unwrap_or_default();
            let silent_for = now - session.last_byte_at;
            require(silent_for >= shortest, Checker::Timeouts, || {
                format!("client {client} was idle for {silent_for:?} only")
            })?;
        }
        let idle = self.longest(|timeouts| timeouts.idle) * 9 / 8;
        let waits = [
            self.longest(|timeouts| timeouts.first_byte),
            self.longest(|timeouts| timeouts.handshake),
            self.longest(|timeouts| timeouts.dial),
        ];
        let linger = self.longest(|timeouts| timeouts.linger);
        let longest = waits.into_iter().fold(idle, Duration::max) + linger;
        let quiet_for = now - session.last_activity_at;
        require(quiet_for <= longest + LATENESS_MAX, Checker::Timeouts, || {
            format!("client {client}: nothing happened for {quiet_for:?} before the end")
        })
    }
}

fn describe(why: DialError) -> &'static str {
    match why {
        DialError::Refused => "refused",
        DialError::Unreachable => "unreachable",
        DialError::TimedOut => "timed_out",
        DialError::NoResources => "no_resources",
        DialError::Other => "other",
    }
}

impl Character {
    /// Before authentication: slowness counts for anybody, everything else for those who deserve it.
    fn may_be_turned_away_for(&self, why: PeerMisbehaved) -> bool {
        let is_slow = matches!(
            why,
            PeerMisbehaved::SilentTooLong
                | PeerMisbehaved::HandshakeTooSlow
                | PeerMisbehaved::EndedBeforeHandshake
        );
        is_slow
            || match &self.kind {
                Kind::Member(member) => member.may_be_fronted_for.contains(&why),
                Kind::Stranger(stranger) => stranger.expected.contains(&why),
                Kind::Replayer => matches!(
                    why,
                    PeerMisbehaved::ReplayedHello
                        | PeerMisbehaved::ClockBehind
                        | PeerMisbehaved::TrailingData
                        | PeerMisbehaved::UnknownInitFrame
                ),
            }
    }

    /// The fronts that it may be connected to if it is turned away for `why`: only somebody who greeted a
    /// domain of ours is that domain's.
    pub(crate) fn fronts_for(&self, why: PeerMisbehaved) -> &'static [usize] {
        let has_greeted = matches!(
            why,
            PeerMisbehaved::TrailingData
                | PeerMisbehaved::UnauthenticHello
                | PeerMisbehaved::ReplayedHello
                | PeerMisbehaved::ClockAhead
                | PeerMisbehaved::ClockBehind
                | PeerMisbehaved::NoCommonCipherSuite
        );
        let domain = match &self.kind {
            _ if !has_greeted => 0,
            Kind::Member(member) => member.domain,
            Kind::Stranger(stranger) => stranger.domain,
            Kind::Replayer => return &[0, 1],
        };
        [&[0], &[1]][domain]
    }
}
