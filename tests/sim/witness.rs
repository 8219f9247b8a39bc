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
use mtproxy_core::fake_tls::RECEIVED_LEN_MAX;
use mtproxy_core::obfuscated2::INIT_FRAME_LEN;
use mtproxy_core::stream::{Leg, StreamId};

use crate::character::Character;
use crate::order::Order;
use crate::tally::Tally;
use crate::violation::{Checker, Violation, require, violation};

/// What a peer may say in vain before its session is closed regardless (docs/session.md).
const PATIENCE_BYTES: usize = 256 * 1024;

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
    pub(crate) leg: Leg,
    pub(crate) dialled: Vec<SocketAddr>,
    /// When the proxy sent FIN, or meant to.
    pub(crate) shut_down_at: Option<Duration>,
    pub(crate) has_sent_fin: bool,
    pub(crate) end: Option<StreamEnd>,
}

/// What is known of a session; its index is its client's.
#[derive(Default)]
pub(crate) struct SessionBook {
    pub(crate) streams: [Option<StreamId>; 2],
    pub(crate) opened_at: Option<Duration>,
    pub(crate) ended: Option<Result<(), DropReason>>,
    pub(crate) fronted: Option<PeerMisbehaved>,
    pub(crate) discarding: Option<PeerMisbehaved>,
    pub(crate) misbehaved: Option<PeerMisbehaved>,
    pub(crate) is_greeted: bool,
    pub(crate) authenticated: Option<DcId>,
    pub(crate) is_connected: bool,
    pub(crate) dials_failed: usize,
    /// Bytes handed in or passed on, by leg.
    pub(crate) received: [usize; 2],
    /// Those of them that came when the session was over: read only so as not to answer them with RST.
    pub(crate) received_in_vain: [usize; 2],
    pub(crate) reset_at: [Option<Duration>; 2],
    pub(crate) first_byte_at: Option<Duration>,
    pub(crate) last_byte_at: Duration,
    pub(crate) last_activity_at: Duration,
}

impl SessionBook {
    /// Bytes of `leg` that the other side must get.
    pub(crate) fn to_be_relayed(&self, leg: Leg) -> usize {
        self.received[leg as usize] - self.received_in_vain[leg as usize]
    }

    pub(crate) fn is_fronted(&self) -> bool {
        self.fronted.is_some()
    }
}

pub(crate) struct Witness {
    /// Only this checker objects; `None`: all.
    pub(crate) armed: Option<Checker>,
    pub(crate) characters: Vec<Character>,
    pub(crate) sessions: Vec<SessionBook>,
    pub(crate) streams: BTreeMap<StreamId, StreamBook>,
    /// Every configuration so far, the present one last.
    pub(crate) configs: Vec<Arc<Config>>,
    /// Clients in the order of acceptance: a session's number is its place, from 1.
    pub(crate) accepted: Vec<usize>,
    pub(crate) is_stopping: bool,
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
            shut_down_at: None,
            has_sent_fin: false,
            end: None,
        };
        let before = self.streams.insert(stream, book);
        self.judge(require(before.is_none(), Checker::Streams, || format!("{stream:?} was named twice")))
    }

    /// Bytes are about to be handed in, or have been passed on.
    pub(crate) fn hands_in(&mut self, engine: &Engine, stream: StreamId, len: usize, now: Duration) {
        self.tally.inputs += 1;
        if let Some(book) = self.streams.get(&stream) {
            let session = &mut self.sessions[book.session];
            session.received[book.leg as usize] += len;
            session.first_byte_at.get_or_insert(now);
            let may_be_over = session.is_connected || book.shut_down_at.is_some();
            if may_be_over && engine.direction(stream) == Direction::Unsettled {
                session.received_in_vain[book.leg as usize] += len;
            } else {
                session.last_byte_at = now;
            }
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
                require(book.shut_down_at.is_none(), Checker::Streams, || {
                    format!("{} bytes for {to:?} behind its FIN", bytes.len())
                })
            }),
            Order::Shutdown(stream) => self.is_open(*stream).and_then(|book| {
                let before = book.shut_down_at.replace(now);
                require(before.is_none(), Checker::Streams, || format!("{stream:?} is shut down twice"))
            }),
            Order::Close(stream) => {
                self.judge(self.is_closed_in_good_order(*stream, now))?;
                self.ends(*stream, StreamEnd::Closed)
            }
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

    /// A socket that is closed while its peer talks on answers with RST, and the peer loses what it has not
    /// read yet. So the peer's own FIN is awaited, within reason.
    fn is_closed_in_good_order(&self, stream: StreamId, now: Duration) -> Result<(), Violation> {
        let Some(book) = self.streams.get(&stream) else { return Ok(()) };
        let talked_in_vain: usize = self.sessions[book.session].received_in_vain.iter().sum();
        let linger = self.configs.iter().map(|config| config.timeouts.linger).min().unwrap_or_default();
        let has_lingered = book.shut_down_at.is_some_and(|at| now - at >= linger);
        let is_in_order = book.has_sent_fin || talked_in_vain >= PATIENCE_BYTES || has_lingered;
        require(is_in_order, Checker::Endings, || format!("{stream:?} was closed before its peer's FIN"))
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

    /// The longest that the other side's queue may be once `len` bytes of `from` are handled.
    pub(crate) fn queue_bound(&self, is_settled: bool, queued: usize, len: usize) -> usize {
        let headers = 5 * (len.div_ceil(1425) + 1);
        if is_settled {
            queued.max(self.window()) + headers
        } else {
            queued.max(RECEIVED_LEN_MAX).max(self.window()) + INIT_FRAME_LEN + headers
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
        if session.ended.is_some() {
            return Ok(());
        }
        for stream in session.streams.into_iter().flatten() {
            self.judge(self.check_stream(stream, engine, driver(stream)))?;
        }
        let [Some(client_stream), Some(upstream)] = session.streams else { return Ok(()) };
        for (from, to) in [(client_stream, upstream), (upstream, client_stream)] {
            self.judge(self.check_direction(from, to, engine, driver(from).1, driver(to).0))?;
            let (from, to) = (&self.streams[&from], &self.streams[&to]);
            let has_passed_fin = !from.has_sent_fin || to.shut_down_at.is_some() || to.end.is_some();
            let is_reset = session.reset_at.iter().any(Option::is_some);
            let what = || format!("client {client}: FIN was not passed on");
            self.judge(require(has_passed_fin || is_reset, Checker::Endings, what))?;
        }
        Ok(())
    }

    fn check_stream(
        &self,
        stream: StreamId,
        engine: &Engine,
        (queued, is_stopped): (usize, bool),
    ) -> Result<(), Violation> {
        let book = &self.streams[&stream];
        if book.end.is_some() || book.shut_down_at.is_none() {
            return Ok(());
        }
        require(!book.has_sent_fin || queued > 0, Checker::Liveness, || {
            format!("{stream:?} has had FIN both ways and is not closed")
        })?;
        let is_over = engine.direction(stream) == Direction::Unsettled;
        require(!(is_over && is_stopped && engine.credit(stream) > 0), Checker::Liveness, || {
            format!("{stream:?} is waited for, and was not resumed")
        })
    }

    fn check_direction(
        &self,
        from: StreamId,
        to: StreamId,
        engine: &Engine,
        is_stopped: bool,
        queued: usize,
    ) -> Result<(), Violation> {
        if engine.direction(from).to() != Some(to) {
            return Ok(());
        }
        let (credit, window) = (engine.credit(from), self.window());
        self.judge(require(credit == window.saturating_sub(queued), Checker::Backlog, || {
            format!("credit of {from:?} is {credit}, {queued} of {window} are queued")
        }))?;
        require(!is_stopped || queued > 0, Checker::Liveness, || {
            format!("{from:?} was stopped and not resumed, though nothing is queued")
        })
    }
}
