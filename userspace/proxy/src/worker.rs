//! A worker: one thread, one engine, one datapath, one loop.
//!
//! Workers share nothing but the replay cache and the client limit; a client stays with the worker that
//! accepted it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};
use mtproxy_core::config::Config;
use mtproxy_core::engine::Engine;
use mtproxy_core::policy::net_events::{IdleDecay, wait_for};
use mtproxy_core::stream::Leg;
use mtproxy_core::time::{Instant, Now};
use rustix::event::{EventfdFlags, eventfd};

use crate::clock::Clock;
use crate::datapath::Datapath;
use crate::telemetry::events::Recorder;

/// How long a drained worker without sessions stays for what it has still to deliver: a segment is sent four times
/// at the least. A peer that acknowledges nothing for so long is not worth a slow restart.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What the control thread may ask of a worker.
#[derive(Debug)]
pub enum Command {
    /// Use this configuration from now on.
    Configure(Arc<Config>),
    /// Accept nobody, and end when the last client leaves or this much time has passed.
    Drain(Duration),
    /// Do nothing at all for this long: what a hang looks like from outside. For tests only.
    Hold(Duration),
}

/// The control thread's end of a worker.
#[derive(Debug)]
pub struct WorkerHandle {
    commands: Sender<Command>,
    wake: OwnedFd,
}

impl WorkerHandle {
    /// The eventfd by which the worker is woken.
    ///
    /// # Errors
    /// When the host has no descriptor for us.
    pub fn try_clone_wake(&self) -> io::Result<OwnedFd> {
        self.wake.try_clone()
    }

    /// Hands `command` over and wakes the worker. Commands to a worker that has ended are lost.
    pub fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // Fails only if the counter is at its maximum; then the worker is awake anyway.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// The worker's end: what reaches it from outside.
#[derive(Debug)]
pub struct Mailbox {
    commands: Receiver<Command>,
}

/// A pair of ends, and the descriptor that becomes readable when a command was sent.
///
/// # Errors
/// When the kernel has no eventfd for us.
pub fn mailbox() -> io::Result<(WorkerHandle, Mailbox, OwnedFd)> {
    let (sender, receiver) = unbounded();
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let reader = wake.try_clone()?;
    Ok((WorkerHandle { commands: sender, wake }, Mailbox { commands: receiver }, reader))
}

/// One engine and its datapath.
pub struct Worker<D> {
    clock: Clock,
    engine: Engine,
    datapath: D,
    mailbox: Mailbox,
    recorder: Recorder,
    draining_until: Option<Instant>,
    /// Links and targets are to be counted anew.
    has_new_config: bool,
    idle: IdleDecay,
    /// Time that was not slept. What is slept is known only when the worker wakes, which may be never.
    awake: Duration,
    /// When the last turn began.
    woken_at: Instant,
    /// While draining without sessions: when [`LAST_WORDS`] are over.
    delivering_until: Option<Instant>,
}

impl<D: Datapath> Worker<D> {
    /// A worker that is ready to run.
    #[must_use]
    pub fn new(clock: Clock, engine: Engine, datapath: D, mailbox: Mailbox, recorder: Recorder) -> Self {
        let woken_at = clock.now().instant;
        let idle = IdleDecay::default();
        let (draining_until, delivering_until) = (None, None);
        Self {
            clock,
            engine,
            datapath,
            mailbox,
            recorder,
            draining_until,
            has_new_config: true,
            idle,
            awake: Duration::ZERO,
            woken_at,
            delivering_until,
        }
    }

    /// Serves clients until drained. However it ends, every session is over then, and recorded.
    ///
    /// # Errors
    /// Only for a broken datapath.
    pub fn run(mut self) -> io::Result<()> {
        let outcome = loop {
            let timeout = self.time_to_sleep();
            // A wait that cannot sleep is not worth a reading of the clock.
            let asleep_at = (timeout != Some(Duration::ZERO)).then(|| self.clock.now().instant);
            if let Err(error) = self.datapath.wait(timeout) {
                break Err(error);
            }
            let now = self.clock.now();
            self.note_sleep(asleep_at, now.instant);
            self.datapath.receive(now, &mut self.engine);
            // Behind receive, which takes the wake-up: a command that comes in between wakes us again.
            self.obey(now);
            self.datapath.time_out(now, &mut self.engine);
            self.datapath.transmit(now, &mut self.engine);
            self.record();
            if self.is_over(now) {
                break Ok(());
            }
        };
        self.datapath.stop(self.clock.now(), &mut self.engine);
        self.record();
        outcome
    }

    fn note_sleep(&mut self, asleep_at: Option<Instant>, now: Instant) {
        let slept = asleep_at.map_or(Duration::ZERO, |since| now.since(since));
        let turn = now.since(self.woken_at);
        self.idle.turned(turn, slept);
        self.awake += turn.saturating_sub(slept);
        self.woken_at = now;
    }

    fn time_to_sleep(&self) -> Option<Duration> {
        let deadlines = [self.engine.next_timeout(), self.datapath.next_timeout(), self.draining_until];
        let next_due = deadlines.into_iter().flatten().min().map(|deadline| self.clock.until(deadline));
        wait_for(next_due).timeout()
    }

    fn obey(&mut self, now: Now) {
        while let Ok(command) = self.mailbox.commands.try_recv() {
            match command {
                Command::Configure(config) => {
                    self.recorder.configure(&config.credentials);
                    self.engine.set_config(config);
                    self.has_new_config = true;
                }
                Command::Drain(grace) => {
                    self.datapath.stop_accepting();
                    self.engine.drain();
                    self.draining_until = Some(now.instant.plus(grace));
                }
                Command::Hold(time) => std::thread::sleep(time),
            }
        }
    }

    fn record(&mut self) {
        for event in self.datapath.drain_reports() {
            self.recorder.record(&event);
        }
        let mut links_changed = std::mem::take(&mut self.has_new_config);
        for event in self.engine.drain_link_events() {
            self.recorder.record_link(&event);
            links_changed = true;
        }
        let counters = self.recorder.counters();
        if links_changed {
            counters.middle_proxy.publish_links(&self.engine);
        }
        counters.middle_proxy.publish(&self.engine);
        counters.idle_milliseconds.publish((self.idle.total_idle_seconds() * 1000.0) as u64);
        counters.awake_microseconds.publish(self.awake.as_micros() as u64);
        counters.recent_idle_permille.set((self.idle.recent_idle_percent() * 10.0) as u64);
        counters.received_bytes[0].publish(self.engine.received_bytes(Leg::Client));
        counters.received_bytes[1].publish(self.engine.received_bytes(Leg::Upstream));
        self.datapath.publish(counters);
    }

    /// Without sessions there may still be bytes to deliver, and shards whose packets come here.
    fn is_over(&mut self, now: Now) -> bool {
        let Some(until) = self.draining_until else { return false };
        if self.engine.session_count() > 0 {
            self.delivering_until = None;
            return until <= now.instant;
        }
        let delivering_until = *self.delivering_until.get_or_insert(now.instant.plus(LAST_WORDS));
        let has_delivered = delivering_until <= now.instant || !self.datapath.has_last_words();
        until <= now.instant || (has_delivered && self.datapath.may_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy_core::action::{Action, Actions};
    use mtproxy_core::config::{Fronts, RELAY_WINDOW_BYTES_DEFAULT, Timeouts};
    use mtproxy_core::credentials::Credentials;
    use mtproxy_core::dc::{DcTable, PreferIp};
    use mtproxy_core::event::Event;
    use mtproxy_core::keyed_hash::KeyedHash;
    use mtproxy_core::policy::replay::ReplayCache;
    use mtproxy_core::random::Random;
    use mtproxy_core::secret::{Secret, SecretKind};
    use mtproxy_core::stream::Endpoints;

    use crate::telemetry::metrics::{Metrics, Shards, WorkerCounters};

    /// Accepts one client, then breaks or has nothing more to do.
    struct Scripted {
        turns: usize,
        breaks_in_turn: usize,
        /// Turns that it is still needed for when the last session is gone.
        needed_for: usize,
        delivers_until_turn: usize,
        actions: Actions,
        reports: Vec<Event>,
        client_leaves: bool,
    }

    impl Scripted {
        fn new(breaks_in_turn: usize, needed_for: usize, client_leaves: bool) -> Self {
            let actions = Actions::new();
            Self {
                turns: 0,
                breaks_in_turn,
                needed_for,
                delivers_until_turn: 0,
                actions,
                reports: Vec::new(),
                client_leaves,
            }
        }

        fn gather_reports(&mut self) {
            for action in self.actions.as_slice() {
                if let Action::Report(event) = action {
                    self.reports.push(*event);
                }
            }
            self.actions.clear();
        }
    }

    impl Datapath for &mut Scripted {
        fn wait(&mut self, _: Option<Duration>) -> io::Result<()> {
            self.turns += 1;
            if self.turns == self.breaks_in_turn {
                return Err(io::Error::other("the interface is gone"));
            }
            Ok(())
        }

        fn receive(&mut self, now: Now, engine: &mut Engine) {
            if self.turns == 1 {
                let at = |text: &str| text.parse().unwrap();
                let ends = Endpoints { local: at("192.0.2.2:443"), remote: at("192.0.2.1:50000") };
                engine.accept(now, ends, &mut self.actions);
            }
            if self.turns == 2 && self.client_leaves {
                engine.stop(now, &mut self.actions);
            }
            self.gather_reports();
        }

        fn time_out(&mut self, _: Now, _: &mut Engine) {}

        fn next_timeout(&self) -> Option<Instant> {
            None
        }

        fn stop_accepting(&mut self) {}

        fn has_last_words(&self) -> bool {
            self.turns < self.delivers_until_turn
        }

        fn may_end(&mut self) -> bool {
            assert!(!self.has_last_words());
            self.needed_for = self.needed_for.saturating_sub(1);
            self.needed_for == 0
        }

        fn stop(&mut self, now: Now, engine: &mut Engine) {
            engine.stop(now, &mut self.actions);
            self.gather_reports();
        }

        fn drain_reports(&mut self) -> std::vec::Drain<'_, Event> {
            self.reports.drain(..)
        }

        fn publish(&self, _: &WorkerCounters) {}
    }

    fn run(datapath: &mut Scripted, drain: Option<Duration>) -> (io::Result<()>, Arc<Metrics>) {
        let secret = Secret::new([1; 16], SecretKind::Plain);
        let config = Arc::new(Config {
            credentials: Credentials::new([("a".to_owned(), secret)]),
            fronts: Fronts::default(),
            dc_table: DcTable::builtin(PreferIp::V4),
            middle_proxies: None,
            timeouts: Timeouts::default(),
            relay_window_bytes: RELAY_WINDOW_BYTES_DEFAULT,
        });
        let metrics = Arc::new(Metrics::new(1, Shards::NONE, 10));
        let recorder = Recorder::new(0, Arc::clone(&metrics), &config.credentials);
        let replay_cache = ReplayCache::new(10, KeyedHash::new(&mut Random::from_seed([1; 32])));
        let engine = Engine::new(config, [2; 32], Box::new(replay_cache));
        let (handle, mailbox, _wake) = mailbox().unwrap();
        if let Some(grace) = drain {
            handle.send(Command::Drain(grace));
        }
        let outcome = Worker::new(Clock::start(), engine, datapath, mailbox, recorder).run();
        (outcome, metrics)
    }

    #[test]
    fn a_datapath_that_breaks_is_stopped_and_its_sessions_are_counted_as_ended() {
        let mut datapath = Scripted::new(2, 0, false);
        let (outcome, metrics) = run(&mut datapath, None);
        assert_eq!(outcome.unwrap_err().to_string(), "the interface is gone");
        assert_eq!((metrics.worker(0).sessions_opened.get(), metrics.sessions_open()), (1, 0));
    }

    #[test]
    fn a_drained_worker_ends_when_its_datapath_is_needed_no_more() {
        let mut datapath = Scripted::new(usize::MAX, 5, true);
        let (outcome, _) = run(&mut datapath, Some(Duration::from_secs(3600)));
        assert!(outcome.is_ok());
        assert_eq!(datapath.turns, 2 + 4, "the session ended in the second turn");
    }

    #[test]
    fn a_drained_worker_delivers_what_its_sessions_left_behind() {
        let mut datapath = Scripted::new(usize::MAX, 1, true);
        datapath.delivers_until_turn = 9;
        let (outcome, _) = run(&mut datapath, Some(Duration::from_secs(3600)));
        assert!(outcome.is_ok());
        assert_eq!(datapath.turns, 9);
    }

    #[test]
    fn a_drained_worker_ends_after_its_grace_whoever_needs_it() {
        let mut datapath = Scripted::new(usize::MAX, usize::MAX, true);
        let (outcome, metrics) = run(&mut datapath, Some(Duration::from_millis(20)));
        assert!(outcome.is_ok());
        assert_eq!(metrics.sessions_open(), 0);
    }
}
