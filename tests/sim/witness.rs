//! Sees everything that passes between driver and engine, and objects.
//!
//! It keeps its own books of streams and sessions, made from inputs and orders alone, and compares them
//! with the plan (who may be admitted), with the engine (credit) and with docs/session.md (endings).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mtproxy_core::config::Config;
use mtproxy_core::dc::DcId;
use mtproxy_core::engine::{Direction, Engine};
use mtproxy_core::error::{DropReason, PeerMisbehaved};
use mtproxy_core::event::{Event, What};
use mtproxy_core::fake_tls::RECEIVED_LEN_MAX;
use mtproxy_core::obfuscated2::INIT_FRAME_LEN;
use mtproxy_core::stream::{Leg, StreamId};

use crate::character::{Character, Kind};
use crate::order::Order;
use crate::tally::Tally;
use crate::violation::{Checker, Violation, require, violation};

/// How a stream ended, from the proxy's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    Closed,
    Aborted,
    /// The peer reset it.
    Lost,
}

/// What is known of a stream.
pub(crate) struct StreamBook {
    pub(crate) session: usize,
    leg: Leg,
    dialled: Vec<SocketAddr>,
    is_shut_down: bool,
    has_sent_fin: bool,
    pub(crate) end: Option<StreamEnd>,
}

/// What is known of a session; its index is its client's.
#[derive(Default)]
pub(crate) struct SessionBook {
    pub(crate) streams: [Option<StreamId>; 2],
    opened_at: Option<Duration>,
    pub(crate) ended: Option<Result<(), DropReason>>,
    pub(crate) fronted: Option<PeerMisbehaved>,
    discarding: Option<PeerMisbehaved>,
    misbehaved: Option<PeerMisbehaved>,
    pub(crate) is_greeted: bool,
    pub(crate) authenticated: Option<DcId>,
    pub(crate) is_connected: bool,
    dials_failed: usize,
    /// Bytes handed in or passed on, by leg.
    pub(crate) received: [usize; 2],
    reset_at: [Option<Duration>; 2],
    last_byte_at: Duration,
    last_activity_at: Duration,
}

impl SessionBook {
    pub(crate) fn is_fronted(&self) -> bool {
        self.fronted.is_some()
    }
}

pub(crate) struct Witness {
    /// Only this checker objects; `None`: all.
    armed: Option<Checker>,
    characters: Vec<Character>,
    pub(crate) sessions: Vec<SessionBook>,
    pub(crate) streams: BTreeMap<StreamId, StreamBook>,
    /// Every configuration so far, the present one last.
    configs: Vec<Arc<Config>>,
    /// Clients in the order of acceptance: a session's number is its place, from 1.
    accepted: Vec<usize>,
    is_stopping: bool,
    pub(crate) tally: Tally,
}

impl Witness {
    pub(crate) fn new(armed: Option<Checker>, characters: Vec<Character>, config: Arc<Config>) -> Self {
        let sessions = characters.iter().map(|_| SessionBook::default()).collect();
        Self {
            armed,
            characters,
            sessions,
            streams: BTreeMap::new(),
            configs: vec![config],
            accepted: Vec::new(),
            is_stopping: false,
            tally: Tally::default(),
        }
    }

    /// Lets a violation pass if its checker is not armed.
    pub(crate) fn judge(&self, result: Result<(), Violation>) -> Result<(), Violation> {
        match result {
            Err(found) if self.armed.is_some_and(|armed| armed != found.checker) => Ok(()),
            other => other,
        }
    }

    pub(crate) fn reloaded(&mut self, config: Arc<Config>) {
        self.configs.push(config);
    }

    pub(crate) fn stopping(&mut self) {
        self.is_stopping = true;
    }

    /// The window now in force.
    pub(crate) fn window(&self) -> usize {
        self.configs.last().expect("there is always a configuration").relay_window_bytes
    }

    pub(crate) fn accepts(&mut self, client: usize, now: Duration) {
        self.accepted.push(client);
        self.sessions[client].opened_at = Some(now);
        self.sessions[client].last_activity_at = now;
    }

    pub(crate) fn accepted(&mut self, client: usize, stream: StreamId) -> Result<(), Violation> {
        self.sessions[client].streams[Leg::Client as usize] = Some(stream);
        self.open(stream, client, Leg::Client)
    }

    fn open(&mut self, stream: StreamId, session: usize, leg: Leg) -> Result<(), Violation> {
        let book = StreamBook {
            session,
            leg,
            dialled: Vec::new(),
            is_shut_down: false,
            has_sent_fin: false,
            end: None,
        };
        let before = self.streams.insert(stream, book);
        self.judge(require(before.is_none(), Checker::Streams, || format!("{stream:?} was named twice")))
    }

    /// Bytes are about to be handed in, or have been passed on.
    pub(crate) fn hands_in(&mut self, stream: StreamId, len: usize, now: Duration) {
        self.tally.inputs += 1;
        if let Some(book) = self.streams.get(&stream) {
            let session = &mut self.sessions[book.session];
            session.received[book.leg as usize] += len;
            session.last_byte_at = now;
            session.last_activity_at = now;
        }
    }

    pub(crate) fn check_credit(
        &self,
        engine: &Engine,
        stream: StreamId,
        len: usize,
    ) -> Result<(), Violation> {
        let credit = engine.credit(stream);
        let what = || format!("{len} bytes of {stream:?} handed in with a credit of {credit}");
        self.judge(require(len <= credit, Checker::Credit, what))
    }

    pub(crate) fn peer_finished(&mut self, stream: StreamId, now: Duration) {
        if let Some(book) = self.streams.get_mut(&stream) {
            book.has_sent_fin = true;
            self.sessions[book.session].last_activity_at = now;
        }
    }

    pub(crate) fn peer_reset(&mut self, stream: StreamId, now: Duration) -> Result<(), Violation> {
        if let Some(book) = self.streams.get(&stream) {
            let session = &mut self.sessions[book.session];
            session.reset_at[book.leg as usize] = Some(now);
            session.last_activity_at = now;
        }
        self.ends(stream, StreamEnd::Lost)
    }

    /// The engine has ordered this while it handled `session`, or several. Answers the session it is for.
    pub(crate) fn orders(
        &mut self,
        order: &Order,
        session: Option<usize>,
        now: Duration,
    ) -> Result<Option<usize>, Violation> {
        let result = match order {
            Order::Report(event) => {
                let client = self.accepted.get((event.session.0 as usize).wrapping_sub(1)).copied();
                let Some(client) = client else {
                    return violation(Checker::Events, format!("an event of nobody: {event:?}"));
                };
                let result = self.reports(client, event, now);
                self.judge(result)?;
                return Ok(Some(client));
            }
            Order::Dial { stream, address } => self.dials(*stream, *address, session, now),
            Order::Send { to, bytes } => self.is_open(*to).and_then(|book| {
                require(!book.is_shut_down, Checker::Streams, || {
                    format!("{} bytes for {to:?} behind its FIN", bytes.len())
                })
            }),
            Order::Shutdown(stream) => self.is_open(*stream).and_then(|book| {
                let was_shut_down = std::mem::replace(&mut book.is_shut_down, true);
                require(!was_shut_down, Checker::Streams, || format!("{stream:?} is shut down twice"))
            }),
            Order::Close(stream) => self.ends(*stream, StreamEnd::Closed),
            Order::Abort(stream) => self.ends(*stream, StreamEnd::Aborted),
            Order::Resume(stream) => self.is_open(*stream).map(|_| ()),
        };
        self.judge(result)?;
        Ok(session)
    }

    fn is_open(&mut self, stream: StreamId) -> Result<&mut StreamBook, Violation> {
        match self.streams.get_mut(&stream) {
            Some(book) if book.end.is_none() => Ok(book),
            _ => violation(Checker::Streams, format!("an order for {stream:?}, which is not there")),
        }
    }

    fn ends(&mut self, stream: StreamId, end: StreamEnd) -> Result<(), Violation> {
        let book = self.is_open(stream).map_err(|_| Violation {
            checker: Checker::Streams,
            what: format!("{stream:?} ended twice, now {end:?}"),
        });
        let result = book.map(|book| book.end = Some(end));
        self.judge(result)
    }

    fn dials(
        &mut self,
        stream: StreamId,
        address: SocketAddr,
        session: Option<usize>,
        now: Duration,
    ) -> Result<(), Violation> {
        let Some(client) = session else {
            return violation(Checker::Dials, format!("{address} dialled for nobody"));
        };
        if !self.streams.contains_key(&stream) {
            self.sessions[client].streams[Leg::Upstream as usize] = Some(stream);
            self.open(stream, client, Leg::Upstream)?;
        }
        let session = &mut self.sessions[client];
        session.last_activity_at = now;
        let is_right = match (session.authenticated, session.fronted) {
            (Some(dc), None) => {
                self.configs.iter().any(|config| config.dc_table.addresses(dc).contains(&address))
            }
            (None, Some(why)) => {
                let fronts = self.characters[client].fronts_for(why);
                fronts.iter().any(|front| crate::plan::front_addresses(*front).contains(&address))
            }
            _ => false,
        };
        let book = self.streams.get_mut(&stream).expect("opened above");
        let is_new = !book.dialled.contains(&address);
        book.dialled.push(address);
        let what = || format!("{address} dialled for client {client}, first time: {is_new}");
        require(is_right && is_new && book.end.is_none(), Checker::Dials, what)
    }

    fn reports(&mut self, client: usize, event: &Event, now: Duration) -> Result<(), Violation> {
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
            What::Authenticated { dc, .. } => session.authenticated = Some(dc),
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
            What::DialFailed { address, .. } => {
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
        self.admits(client, event.what)
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
                self.is_secret_of(secret, &member.name)
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

    fn is_secret_of(&self, secret: mtproxy_core::credentials::SecretId, name: &str) -> bool {
        self.configs.iter().any(|config| config.credentials.name(secret) == Some(name))
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
        let longest = |config: &Arc<Config>| {
            let timeouts = &config.timeouts;
            let waits = [timeouts.first_byte, timeouts.handshake, timeouts.dial, timeouts.idle * 9 / 8];
            waits.into_iter().max().unwrap_or_default() + timeouts.linger
        };
        let longest = self.configs.iter().map(longest).max().unwrap_or_default();
        let quiet_for = now - session.last_activity_at;
        require(quiet_for <= longest + crate::simulation::LATENESS_MAX, Checker::Timeouts, || {
            format!("client {client}: nothing happened for {quiet_for:?} before the end")
        })
    }

    /// The longest that the other side's queue may be once `len` bytes of `from` are handled.
    pub(crate) fn queue_bound(&self, is_settled: bool, queued: usize, len: usize) -> usize {
        let headers = 5 * (len.div_ceil(1425) + 1);
        if is_settled {
            queued.max(self.window()) + headers
        } else {
            RECEIVED_LEN_MAX.max(self.window()) + INIT_FRAME_LEN + headers
        }
    }

    pub(crate) fn check_queue(&self, stream: StreamId, queued: usize, bound: usize) -> Result<(), Violation> {
        let what = || format!("{queued} bytes are queued for {stream:?}, at most {bound} may be");
        self.judge(require(queued <= bound, Checker::QueueBound, what))
    }

    /// Between two inputs: `queued` of each stream, and whether its reading has stopped for want of credit.
    pub(crate) fn check_session(
        &self,
        client: usize,
        engine: &Engine,
        driver: impl Fn(StreamId) -> (usize, bool),
    ) -> Result<(), Violation> {
        let session = &self.sessions[client];
        let [Some(client_stream), Some(upstream)] = session.streams else { return Ok(()) };
        if session.ended.is_some() {
            return Ok(());
        }
        for (from, to) in [(client_stream, upstream), (upstream, client_stream)] {
            let (queued, _) = driver(to);
            let (_, is_stopped) = driver(from);
            if engine.direction(from) != Direction::Unsettled {
                let (credit, window) = (engine.credit(from), self.window());
                let what = || format!("credit of {from:?} is {credit}, {queued} of {window} are queued");
                self.judge(require(credit == window.saturating_sub(queued), Checker::Backlog, what))?;
                let what = || format!("{from:?} was stopped and not resumed, though nothing is queued");
                self.judge(require(!is_stopped || queued > 0, Checker::Liveness, what))?;
            }
            let (from, to) = (&self.streams[&from], &self.streams[&to]);
            let has_passed_fin = !from.has_sent_fin || to.is_shut_down || to.end.is_some();
            let is_reset = session.reset_at.iter().any(Option::is_some);
            let what = || format!("client {client}: FIN was not passed on");
            self.judge(require(has_passed_fin || is_reset, Checker::Endings, what))?;
        }
        Ok(())
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
    fn fronts_for(&self, why: PeerMisbehaved) -> &'static [usize] {
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
