//! The driver: the engine, one socket a stream, and the contract between them.
//!
//! It is edge-triggered in spirit: a stream that was stopped for want of credit is not looked at again
//! until the engine resumes it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mtproxy_core::action::Actions;
use mtproxy_core::config::Config;
use mtproxy_core::engine::{Direction, Engine, Input};
use mtproxy_core::event::DialError;
use mtproxy_core::stream::StreamId;

use crate::order::{Order, take_orders};
use crate::sabotage::Sabotage;
use crate::schedule::{End, Moment};
use crate::violation::Violation;
use crate::world::World;
use mtproxy_tests::cast::{ends_in_memory, proxy_in_memory};
use mtproxy_tests::dice::Dice;

/// The driver's end of a stream.
#[derive(Default)]
struct Socket {
    /// Index of its connection, once there is one.
    connection: Option<usize>,
    queue: VecDeque<u8>,
    is_fin_queued: bool,
    has_read_fin: bool,
    is_stopped: bool,
    is_polled: bool,
    attempts: u32,
    /// Longest piece that one read gives, once it has read `bytewise` bytes one by one.
    reads_at_once: usize,
    bytewise: usize,
    splices: bool,
}

pub(crate) struct Driver {
    pub(crate) engine: Engine,
    actions: Actions,
    sockets: BTreeMap<StreamId, Socket>,
    pub(crate) sabotage: Option<Sabotage>,
}

impl Driver {
    pub(crate) fn new(engine: Engine, sabotage: Option<Sabotage>) -> Self {
        Self { engine, actions: Actions::new(), sockets: BTreeMap::new(), sabotage }
    }

    pub(crate) fn accept(
        &mut self,
        client: usize,
        source: IpAddr,
        connection: usize,
        world: &mut World,
    ) -> Result<StreamId, Violation> {
        let now = world.schedule.now();
        world.witness.accepts(client, world.schedule.elapsed);
        let stream = self.engine.accept(now, ends_in_memory(source), &mut self.actions);
        world.witness.accepted(client, stream)?;
        let socket = self.sockets.entry(stream).or_default();
        socket.connection = Some(connection);
        socket.draw_habits(&mut world.dice);
        self.carry_out(&[], Some(client), world)?;
        Ok(stream)
    }

    /// A dial of this stream has been answered by a connection of this index.
    pub(crate) fn connected(
        &mut self,
        stream: StreamId,
        connection: usize,
        world: &mut World,
    ) -> Result<(), Violation> {
        if let Some(socket) = self.sockets.get_mut(&stream) {
            socket.connection = Some(connection);
            socket.draw_habits(&mut world.dice);
        }
        self.hand_in(stream, Input::Connected(stream, proxy_in_memory()), world)?;
        self.flush(stream, world)
    }

    pub(crate) fn dial_failed(
        &mut self,
        stream: StreamId,
        why: DialError,
        world: &mut World,
    ) -> Result<(), Violation> {
        self.hand_in(stream, Input::DialFailed(stream, why), world)
    }

    /// True if this attempt is the one that counts.
    pub(crate) fn awaits(&self, stream: StreamId, attempt: u32) -> bool {
        self.sockets
            .get(&stream)
            .is_some_and(|socket| socket.attempts == attempt && socket.connection.is_none())
    }

    pub(crate) fn time_out(&mut self, world: &mut World) -> Result<(), Violation> {
        let mut now = world.schedule.now();
        if self.sabotage == Some(Sabotage::HurriesTheClock) {
            now.instant = now.instant.plus(Duration::from_secs(3600));
        }
        self.engine.time_out(now, &mut self.actions);
        self.carry_out(&[], None, world)
    }

    pub(crate) fn stop(&mut self, world: &mut World) -> Result<(), Violation> {
        world.witness.stopping();
        self.engine.stop(world.schedule.now(), &mut self.actions);
        self.carry_out(&[], None, world)
    }

    pub(crate) fn reload(&mut self, config: Arc<Config>, world: &mut World) {
        world.witness.reloaded(Arc::clone(&config));
        self.engine.set_config(config);
    }

    /// Streams that the driver still knows.
    pub(crate) fn sockets_left(&self) -> usize {
        self.sockets.len()
    }

    /// Reads and writes whatever is possible.
    pub(crate) fn poll(&mut self, stream: StreamId, world: &mut World) -> Result<(), Violation> {
        let Some(socket) = self.sockets.get_mut(&stream) else { return Ok(()) };
        socket.is_polled = false;
        let Some(connection) = socket.connection else { return Ok(()) };
        if self.sabotage == Some(Sabotage::SpinsForEver) {
            self.poll_later(stream, world);
        }
        if world.connections[connection].to_proxy.is_reset() {
            return self.lose(stream, connection, world);
        }
        self.flush(stream, world)?;
        for _ in 0..world.dice.between(1, 8) {
            if !self.read(stream, connection, world)? {
                return Ok(());
            }
        }
        self.poll_later(stream, world);
        Ok(())
    }

    fn lose(&mut self, stream: StreamId, connection: usize, world: &mut World) -> Result<(), Violation> {
        self.sockets.remove(&stream);
        world.connections[connection].is_left_by_proxy = true;
        world.witness.peer_reset(stream, world.schedule.elapsed)?;
        self.hand_in(stream, Input::Reset(stream), world)
    }

    /// One read. False: there is nothing more to do for now.
    fn read(&mut self, stream: StreamId, connection: usize, world: &mut World) -> Result<bool, Violation> {
        let Some(socket) = self.sockets.get_mut(&stream) else { return Ok(false) };
        let pipe = &mut world.connections[connection].to_proxy;
        if socket.is_stopped {
            return Ok(false);
        }
        if pipe.is_at_end() && !socket.has_read_fin {
            socket.has_read_fin = true;
            world.witness.peer_finished(stream, world.schedule.elapsed);
            self.hand_in(stream, Input::Eof(stream), world)?;
            return Ok(false);
        }
        if pipe.available() == 0 {
            return Ok(false);
        }
        let mut credit = self.engine.credit(stream);
        if self.sabotage == Some(Sabotage::IgnoresCredit) {
            credit += 1;
        }
        if credit == 0 {
            socket.is_stopped = true;
            return Ok(false);
        }
        let reads_at_once = if socket.bytewise > 0 { 1 } else { socket.reads_at_once };
        let piece_len = world.dice.between(1, reads_at_once);
        socket.bytewise = socket.bytewise.saturating_sub(1);
        let len = pipe.available().min(credit).min(piece_len);
        let splices = socket.splices;
        let mut bytes = pipe.take(len);
        world.wake_speaker(connection);
        world.witness.check_credit(&self.engine, stream, len)?;
        world.witness.hands_in(&self.engine, stream, len, world.schedule.elapsed);
        if let (true, Direction::Opaque { to }) = (splices, self.engine.direction(stream)) {
            let bound = world.witness.queue_bound(true, self.queued(to), 0);
            if let Some(socket) = self.sockets.get_mut(&to) {
                socket.queue.extend(bytes);
            }
            world.witness.check_queue(to, self.queued(to), bound)?;
            self.hand_in(stream, Input::PassedOn(stream, len), world)?;
            self.flush(to, world)?;
            return Ok(true);
        }
        self.hand_in_bytes(stream, &mut bytes, world)?;
        Ok(true)
    }

    fn hand_in_bytes(
        &mut self,
        stream: StreamId,
        bytes: &mut [u8],
        world: &mut World,
    ) -> Result<(), Violation> {
        let client = world.witness.streams.get(&stream).map(|book| book.session);
        let other = client.and_then(|client| {
            let streams = world.witness.sessions[client].streams;
            streams.into_iter().flatten().find(|other| *other != stream)
        });
        let is_settled = self.engine.direction(stream) != Direction::Unsettled;
        let queued_before = other.map_or(0, |other| self.queued(other));
        let bound = world.witness.queue_bound(is_settled, queued_before, bytes.len());
        world.witness.tally.fingerprint.add(bytes);
        self.engine.handle(world.schedule.now(), Input::Bytes(stream, bytes), &mut self.actions);
        let to = self.carry_out_first(bytes, client, world)?;
        for stream in to.iter().chain(&other) {
            world.witness.check_queue(*stream, self.queued(*stream), bound)?;
        }
        self.look_after(to, client, world)
    }

    fn hand_in(&mut self, stream: StreamId, input: Input<'_>, world: &mut World) -> Result<(), Violation> {
        let client = world.witness.streams.get(&stream).map(|book| book.session);
        world.witness.tally.fingerprint.add_word(stream.to_u64());
        self.engine.handle(world.schedule.now(), input, &mut self.actions);
        self.carry_out(&[], client, world)
    }

    fn carry_out(&mut self, input: &[u8], client: Option<usize>, world: &mut World) -> Result<(), Violation> {
        let touched = self.carry_out_first(input, client, world)?;
        self.look_after(touched, client, world)
    }

    /// Does what the engine has ordered. Answers the streams that have something to send now.
    fn carry_out_first(
        &mut self,
        input: &[u8],
        client: Option<usize>,
        world: &mut World,
    ) -> Result<Vec<StreamId>, Violation> {
        let mut orders = take_orders(&mut self.actions, input);
        if let Some(sabotage) = self.sabotage
            && world.dice.percent(20)
        {
            let of_somebody_else = |stream: &&StreamId| {
                client.is_some_and(|client| world.witness.streams[*stream].session != client)
            };
            sabotage.tamper(&mut orders, self.sockets.keys().find(of_somebody_else).copied());
        }
        let mut session = client;
        let mut touched = Vec::new();
        for order in orders {
            session = world.witness.orders(&order, session, world.schedule.elapsed)?;
            if let Some(stream) = self.obey(order, world) {
                touched.push(stream);
            }
        }
        Ok(touched)
    }

    /// Sends what there is to send, and lets the witness look at the session.
    fn look_after(
        &mut self,
        touched: Vec<StreamId>,
        client: Option<usize>,
        world: &mut World,
    ) -> Result<(), Violation> {
        for stream in touched {
            if self.sabotage == Some(Sabotage::AcknowledgesTooEarly) {
                self.engine.sent(world.schedule.now(), stream, self.queued(stream), &mut self.actions);
                self.carry_out(&[], client, world)?;
            }
            if world.dice.percent(70) {
                self.flush(stream, world)?;
            } else {
                self.poll_later(stream, world);
            }
        }
        let Some(client) = client else { return Ok(()) };
        world.witness.check_session(client, &self.engine, |stream| {
            self.sockets.get(&stream).map_or((0, false), |socket| (socket.queue.len(), socket.is_stopped))
        })
    }

    fn obey(&mut self, order: Order, world: &mut World) -> Option<StreamId> {
        let now = world.schedule.elapsed;
        let fingerprint = &mut world.witness.tally.fingerprint;
        match order {
            Order::Dial { stream, address } => {
                fingerprint.add_word(u64::from(address.port()) ^ stream.to_u64());
                let socket = self.sockets.entry(stream).or_default();
                socket.attempts += 1;
                world.dial(stream, socket.attempts, address);
                None
            }
            Order::Send { to, bytes } => {
                fingerprint.add(&bytes);
                self.sockets.get_mut(&to)?.queue.extend(bytes);
                Some(to)
            }
            Order::Shutdown(stream) => {
                self.sockets.get_mut(&stream)?.is_fin_queued = true;
                Some(stream)
            }
            Order::Close(stream) | Order::Abort(stream) => {
                fingerprint.add_word(stream.to_u64());
                let socket = self.sockets.remove(&stream)?;
                let connection = socket.connection?;
                let pipe = &mut world.connections[connection].to_peer;
                let arrives = match order {
                    Order::Close(_) => pipe.finish(now),
                    _ => Some(pipe.reset(now)),
                };
                if let Some(at) = arrives {
                    world.schedule.at(at, Moment::Arrive { connection, at: End::Peer });
                }
                world.connections[connection].is_left_by_proxy = true;
                world.connections[connection].to_proxy.spill();
                None
            }
            Order::Resume(stream) => {
                self.sockets.get_mut(&stream)?.is_stopped = false;
                self.poll_later(stream, world);
                None
            }
            Order::Report(_) => None,
        }
    }

    /// Moves what the peer's window has room for out of the queue, and tells the engine.
    fn flush(&mut self, stream: StreamId, world: &mut World) -> Result<(), Violation> {
        let Some(socket) = self.sockets.get_mut(&stream) else { return Ok(()) };
        let Some(connection) = socket.connection else { return Ok(()) };
        let now = world.schedule.elapsed;
        let pipe = &mut world.connections[connection].to_peer;
        if pipe.is_ended() {
            return Ok(());
        }
        let len = socket.queue.len().min(pipe.room());
        if len > 0 {
            let mut bytes: Vec<u8> = socket.queue.drain(..len).collect();
            if self.sabotage == Some(Sabotage::CutsOffTheEnd) && socket.queue.is_empty() {
                bytes.pop();
            }
            let at = pipe.send(now, bytes);
            world.schedule.at(at, Moment::Arrive { connection, at: End::Peer });
        }
        if socket.queue.is_empty()
            && socket.is_fin_queued
            && let Some(at) = pipe.finish(now)
        {
            world.schedule.at(at, Moment::Arrive { connection, at: End::Peer });
        }
        if len == 0 {
            return Ok(());
        }
        let mut acknowledged = len;
        if self.sabotage == Some(Sabotage::AcknowledgesTooLittle) {
            acknowledged -= 1;
        }
        let client = world.witness.streams.get(&stream).map(|book| book.session);
        world.witness.peer_took(stream, world.schedule.elapsed);
        self.engine.sent(world.schedule.now(), stream, acknowledged, &mut self.actions);
        self.carry_out(&[], client, world)
    }

    pub(crate) fn poll_later(&mut self, stream: StreamId, world: &mut World) {
        if let Some(socket) = self.sockets.get_mut(&stream)
            && !std::mem::replace(&mut socket.is_polled, true)
        {
            let delay = world.dice.time(Duration::from_micros(300));
            world.schedule.after(delay, Moment::Poll { stream });
        }
    }

    fn queued(&self, stream: StreamId) -> usize {
        self.sockets.get(&stream).map_or(0, |socket| socket.queue.len())
    }
}

impl Socket {
    fn draw_habits(&mut self, dice: &mut Dice) {
        self.bytewise = if dice.percent(15) { dice.size(3000) } else { 0 };
        self.reads_at_once = dice.size(64 * 1024).max(100);
        self.splices = dice.percent(30);
    }
}
