//! One run: many clients, their data centres and fronts, one proxy, under virtual time, from one seed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mtproxy_core::config::Config;
use mtproxy_core::credentials::Credentials;
use mtproxy_core::engine::Engine;
use mtproxy_core::event::DialError;
use mtproxy_core::keyed_hash::KeyedHash;
use mtproxy_core::policy::replay::ReplayCache;
use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_core::stream::{Leg, StreamId};
use mtproxy_core::time::Instant;

use crate::character::{Character, Ending, Kind, Manners};
use crate::driver::Driver;
use crate::ledger::Account;
use crate::network::Connection;
use crate::peer::{Peer, Turn};
use crate::plan::{Plan, STRANGE_KEY, users};
use crate::sabotage::Sabotage;
use crate::schedule::{End, Moment, Schedule};
use crate::tally::Tally;
use crate::violation::{Checker, Violation, require, violation};
use crate::witness::{StreamEnd, Witness};
use crate::world::World;
use mtproxy_tests::dice::Dice;

/// How much later than asked the driver may look at the engine's deadlines.
pub(crate) const LATENESS_MAX: Duration = Duration::from_millis(50);
/// More moments than any run needs.
const MOMENTS_MAX: u64 = 4_000_000;

/// What to run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) sabotage: Option<Sabotage>,
    /// The only checker that objects; `None`: all do.
    pub(crate) armed: Option<Checker>,
    /// Gives the engine other randomness than the seed does.
    pub(crate) is_unrepeatable: bool,
}

struct Simulation {
    world: World,
    driver: Driver,
    peers: Vec<Peer>,
    accounts: Vec<Account>,
    clients: Vec<(IpAddr, Character)>,
    /// The last one first.
    reloads: Vec<Config>,
    narrowest_window: usize,
    is_stopped: bool,
}

/// Runs to the end, or to the first violation.
pub(crate) fn run(options: Options) -> Result<Tally, Violation> {
    let mut simulation = Simulation::new(options);
    while simulation.step()? {
        if simulation.world.schedule.moments_passed() > MOMENTS_MAX {
            return violation(Checker::Progress, format!("no end after {MOMENTS_MAX} moments"));
        }
    }
    simulation.finish()
}

impl Simulation {
    fn new(options: Options) -> Self {
        let mut dice = Dice::new(options.seed);
        let mut plan = Plan::draw(&mut dice.fork());
        let mut random = dice.random();
        let admission = ReplayCache::new(plan.replay_entries_max, KeyedHash::new(&mut random));
        if options.sabotage == Some(Sabotage::AdmitsStrangers) {
            let nobody = ("nobody".to_owned(), Secret::new(STRANGE_KEY, SecretKind::Plain));
            plan.config.credentials = Credentials::new(users().into_iter().chain([nobody]));
        }
        let config = Arc::new(plan.config);
        let mut engine_seed = dice.seed();
        engine_seed[0] ^= u8::from(options.is_unrepeatable);
        let engine = Engine::new(Arc::clone(&config), engine_seed, Box::new(admission));

        let mut schedule = Schedule::default();
        for (peer, (at, ..)) in plan.clients.iter().enumerate() {
            schedule.at(*at, Moment::Connect { peer });
        }
        for (at, _) in plan.reloads.iter().rev() {
            schedule.at(*at, Moment::Reload);
        }
        if let Some(at) = plan.stop_at {
            schedule.at(at, Moment::Stop);
        }
        let clients: Vec<(IpAddr, Character)> =
            plan.clients.into_iter().map(|(_, source, character)| (source, character)).collect();
        let characters: Vec<Character> = clients.iter().map(|(_, character)| character.clone()).collect();
        let peers = (0..)
            .zip(&characters)
            .map(|(index, character)| Peer::client(index, character.clone(), &mut dice));
        Self {
            peers: peers.collect(),
            accounts: (0..characters.len()).map(Account::of_client).collect(),
            driver: Driver::new(engine, options.sabotage),
            world: World {
                schedule,
                witness: Witness::new(options.armed, characters, config),
                connections: Vec::new(),
                moods: plan.moods,
                waiting_for_room: Vec::new(),
                dice,
            },
            clients,
            reloads: plan.reloads.into_iter().map(|(_, config)| config).collect(),
            narrowest_window: plan.narrowest_window,
            is_stopped: false,
        }
    }

    /// One moment, or one look at the deadlines. False: nothing will ever happen again.
    fn step(&mut self) -> Result<bool, Violation> {
        let mut due = self.driver.engine.next_timeout().map(|at| at.since(Instant::ORIGIN));
        if self.driver.sabotage == Some(Sabotage::SleepsThroughDeadlines) {
            due = None;
        }
        let next = self.world.schedule.next_at();
        if let Some(due) = due {
            let is_first = next.is_none_or(|next| due <= next);
            let may_be_late = next.is_some_and(|next| next < due + LATENESS_MAX);
            if is_first && !(may_be_late && self.world.dice.percent(10)) {
                self.world.schedule.move_to(due);
                self.driver.time_out(&mut self.world)?;
                return Ok(true);
            }
        }
        if self.driver.engine.session_count() == 0 {
            self.world.check_leftovers(&self.driver)?;
        }
        let Some(moment) = self.world.schedule.pop() else { return Ok(false) };
        self.happens(moment)?;
        Ok(true)
    }

    fn happens(&mut self, moment: Moment) -> Result<(), Violation> {
        match moment {
            Moment::Connect { peer } => self.connect(peer),
            Moment::Speak { peer } => {
                self.speak(peer);
                Ok(())
            }
            Moment::Listen { peer } => self.listen(peer),
            Moment::Reset { peer } => {
                self.reset(peer);
                Ok(())
            }
            Moment::Arrive { connection, at } => {
                self.arrive(connection, at);
                Ok(())
            }
            Moment::Poll { stream } => self.driver.poll(stream, &mut self.world),
            Moment::Answer { stream, attempt, refused } => self.answer(stream, attempt, refused),
            Moment::Reload => {
                if let Some(config) = self.reloads.pop() {
                    self.driver.reload(Arc::new(config), &mut self.world);
                }
                Ok(())
            }
            Moment::Stop => {
                self.is_stopped = true;
                self.driver.stop(&mut self.world)
            }
        }
    }

    fn connect(&mut self, peer: usize) -> Result<(), Violation> {
        if self.is_stopped {
            return Ok(());
        }
        let source = self.clients[peer].0;
        if matches!(self.clients[peer].1.kind, Kind::Replayer) {
            let recorded = self.record();
            self.peers[peer].will_open_with(recorded);
        }
        let connection = self.join(peer);
        let stream = self.driver.accept(peer, source, connection, &mut self.world)?;
        self.world.connections[connection].stream = Some(stream);
        Ok(())
    }

    /// The hello of some client that was answered, or its whole wire as far as it has come.
    fn record(&mut self) -> Vec<u8> {
        let greeted =
            self.world.witness.sessions.iter().enumerate().filter(|(_, session)| session.is_greeted);
        let greeted: Vec<usize> = greeted.map(|(client, _)| client).collect();
        if greeted.is_empty() {
            return Vec::new();
        }
        let account = &self.accounts[*self.world.dice.pick(&greeted)];
        let is_whole = self.world.dice.percent(30);
        let len = if is_whole { account.client_wire.len() } else { account.opening_len };
        account.client_wire[..len].to_vec()
    }

    /// A connection for `peer`, who soon begins to speak.
    fn join(&mut self, peer: usize) -> usize {
        let dice = &mut self.world.dice;
        let window = dice.size(64 * 1024).max(300);
        let delay = dice.time(Duration::from_millis(100));
        let connection = self.world.connections.len();
        self.world.connections.push(Connection::new(peer, window, delay));
        self.peers[peer].connection = Some(connection);
        if let Some(after) = self.peers[peer].manners.resets_after {
            self.world.schedule.after(after, Moment::Reset { peer });
        }
        self.speak_later(peer);
        connection
    }

    fn speak_later(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if !std::mem::replace(&mut peer.is_speaking, true) {
            let is_dripping = peer.dripped < peer.manners.drip.0;
            let pause =
                if is_dripping { peer.manners.drip.1 } else { self.world.dice.time(peer.manners.pause_max) };
            self.world.schedule.after(pause, Moment::Speak { peer: index });
        }
    }

    fn speak(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let Some(connection) = peer.connection else { return };
        peer.is_speaking = false;
        let link = &mut self.world.connections[connection];
        peer.is_done |= link.is_left_by_proxy;
        if peer.is_done || peer.is_gone {
            return;
        }
        let account = &mut self.accounts[peer.client];
        let now = self.world.schedule.elapsed;
        match peer.take_turn(account, &mut self.world.dice) {
            Turn::Waits => {}
            Turn::Speaks => {
                let room = link.to_proxy.room();
                if room == 0 {
                    peer.is_speaking = true;
                    self.world.waiting_for_room.push(connection);
                    return;
                }
                let is_dripping = peer.dripped < peer.manners.drip.0;
                let len = if is_dripping { 1 } else { room.min(peer.outbox.len()) };
                peer.dripped += len;
                let bytes: Vec<u8> = peer.outbox.drain(..len).collect();
                if peer.is_client() {
                    account.client_wire.extend_from_slice(&bytes);
                } else {
                    account.upstream_wire_len += len;
                }
                let at = link.to_proxy.send(now, bytes);
                self.world.schedule.at(at, Moment::Arrive { connection, at: End::Proxy });
                self.speak_later(index);
            }
            Turn::Ends(Ending::FinAfterOther) if !peer.has_heard_fin => {}
            Turn::Ends(Ending::Fin | Ending::FinAfterOther) => {
                peer.is_done = true;
                if let Some(at) = link.to_proxy.finish(now) {
                    self.world.schedule.at(at, Moment::Arrive { connection, at: End::Proxy });
                }
            }
            Turn::Ends(Ending::Reset) => self.reset(index),
            Turn::Ends(Ending::Silence) => peer.is_done = true,
        }
    }

    fn reset(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let Some(connection) = peer.connection else { return };
        let link = &mut self.world.connections[connection];
        if peer.is_gone || link.is_left_by_proxy {
            return;
        }
        (peer.is_gone, peer.is_done) = (true, true);
        link.to_peer.spill();
        let at = link.to_proxy.reset(self.world.schedule.elapsed);
        self.world.schedule.at(at, Moment::Arrive { connection, at: End::Proxy });
    }

    fn arrive(&mut self, connection: usize, at: End) {
        let link = &mut self.world.connections[connection];
        let peer = &mut self.peers[link.peer];
        match at {
            End::Proxy => {
                link.to_proxy.arrive();
                if link.is_left_by_proxy {
                    link.to_proxy.spill();
                } else if let Some(stream) = link.stream {
                    self.driver.poll_later(stream, &mut self.world);
                }
            }
            End::Peer => {
                link.to_peer.arrive();
                if link.to_peer.is_reset() {
                    (peer.is_gone, peer.is_done) = (true, true);
                }
                if peer.is_gone {
                    link.to_peer.spill();
                } else if !std::mem::replace(&mut peer.is_listening, true) {
                    let delay = self.world.dice.time(peer.manners.takes_after);
                    self.world.schedule.after(delay, Moment::Listen { peer: link.peer });
                }
            }
        }
    }

    fn listen(&mut self, index: usize) -> Result<(), Violation> {
        let peer = &mut self.peers[index];
        let Some(connection) = peer.connection else { return Ok(()) };
        peer.is_listening = false;
        let pipe = &mut self.world.connections[connection].to_peer;
        if peer.is_gone || peer.manners.stalls_at.is_some_and(|at| peer.heard_len >= at) {
            return Ok(());
        }
        let len = pipe.available().min(peer.manners.takes_at_once);
        let bytes = pipe.take(len);
        let (is_more, is_at_end) = (pipe.available() > 0, pipe.is_at_end());
        let has_heard_fin = std::mem::replace(&mut peer.has_heard_fin, is_at_end);
        let is_answering = self.hear(index, &bytes)? || is_at_end && !has_heard_fin;
        let peer = &mut self.peers[index];
        if is_more {
            peer.is_listening = true;
            let delay = self.world.dice.time(peer.manners.takes_after);
            self.world.schedule.after(delay, Moment::Listen { peer: index });
        }
        if is_answering {
            self.speak_later(index);
        }
        if let Some(stream) = self.world.connections[connection].stream {
            self.driver.poll_later(stream, &mut self.world);
        }
        Ok(())
    }

    fn hear(&mut self, index: usize, bytes: &[u8]) -> Result<bool, Violation> {
        let peer = &mut self.peers[index];
        let is_fronted = self.world.witness.sessions[peer.client].is_fronted();
        match peer.hear(bytes, is_fronted, &mut self.accounts[peer.client]) {
            Ok(has_answer) => Ok(has_answer),
            Err(found) => self.world.witness.judge(Err(found)).map(|()| false),
        }
    }

    fn answer(
        &mut self,
        stream: StreamId,
        attempt: u32,
        refused: Option<DialError>,
    ) -> Result<(), Violation> {
        if !self.driver.awaits(stream, attempt) {
            return Ok(());
        }
        if let Some(why) = refused {
            return self.driver.dial_failed(stream, why, &mut self.world);
        }
        let client = self.world.witness.streams[&stream].session;
        let manners = Manners::draw(&mut self.world.dice, self.narrowest_window);
        let peer = match (&self.clients[client].1.kind, self.world.witness.sessions[client].is_fronted()) {
            (Kind::Member(member), false) => {
                Peer::data_centre(client, (member.options.transport, member.options.dc), manners)
            }
            _ => Peer::front(client, manners),
        };
        self.peers.push(peer);
        let connection = self.join(self.peers.len() - 1);
        self.world.connections[connection].stream = Some(stream);
        self.driver.connected(stream, connection, &mut self.world)
    }

    /// Whoever is still there hears what is still under way; then nothing may be left or missing.
    fn finish(mut self) -> Result<Tally, Violation> {
        for index in 0..self.peers.len() {
            let Some(connection) = self.peers[index].connection else { continue };
            let pipe = &mut self.world.connections[connection].to_peer;
            pipe.arrive_all();
            if !self.peers[index].is_gone && !pipe.is_reset() {
                let bytes = pipe.take(pipe.available());
                self.hear(index, &bytes)?;
            }
        }
        self.world.check_leftovers(&self.driver)?;
        self.world.witness.check_ends()?;
        for client in 0..self.accounts.len() {
            self.world.witness.judge(self.is_complete(client))?;
        }
        let mut tally = self.world.witness.tally;
        tally.moments = self.world.schedule.moments_passed();
        tally.virtual_time = self.world.schedule.elapsed;
        for account in &self.accounts {
            tally.bytes_to_upstream += (account.to_upstream.heard + account.front_heard) as u64;
            tally.bytes_to_client += account.to_client.heard as u64;
        }
        Ok(tally)
    }

    /// Whoever was told FIN has all that the proxy had received for it by then.
    fn is_complete(&self, client: usize) -> Result<(), Violation> {
        let session = &self.world.witness.sessions[client];
        let account = &self.accounts[client];
        if !session.is_connected {
            return Ok(());
        }
        let is_whole = |leg: Leg| {
            let Some(stream) = session.streams[leg as usize] else { return false };
            let stands_by = |peer: &Peer| {
                let of_stream = peer.connection.map(|connection| self.world.connections[connection].stream);
                of_stream == Some(Some(stream)) && !peer.is_gone
            };
            self.world.witness.streams[&stream].end == Some(StreamEnd::Closed)
                && self.peers.iter().any(stands_by)
        };
        let is_fronted = session.is_fronted();
        let is_over = session.ended == Some(Ok(()));
        if is_whole(Leg::Upstream) {
            let (least, heard) = if is_fronted {
                (session.to_be_relayed(Leg::Client), account.front_heard)
            } else if is_over {
                (account.to_upstream.said, account.to_upstream.heard)
            } else {
                (
                    account.to_upstream.payload_within(session.to_be_relayed(Leg::Client)),
                    account.to_upstream.heard,
                )
            };
            require(heard >= least, Checker::Completeness, || {
                format!("client {client} said {least} bytes, {heard} came to its upstream")
            })?;
        }
        if is_whole(Leg::Client) {
            let track = &account.to_client;
            let least =
                if is_over { track.said } else { track.payload_within(session.to_be_relayed(Leg::Upstream)) };
            require(track.heard >= least, Checker::Completeness, || {
                format!("client {client} was told {least} bytes, {} came", track.heard)
            })?;
        }
        Ok(())
    }
}
