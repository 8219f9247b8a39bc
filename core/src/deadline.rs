//! One deadline a session, for any number of sessions, in constant time.
//!
//! There are few kinds of deadline, and all of one kind last equally long. So a queue a kind, in order of
//! arming, is always in order of expiry, and the next deadline of all is the least of the queues' heads.
//! The queues are linked lists through one table with a row a session: 32 bytes each, no allocation to
//! arm, move or disarm, and a sleeping proxy knows exactly when to wake.

use std::time::Duration;

use crate::config::Timeouts;
use crate::session_key::SessionKey;
use crate::time::Instant;

/// What a session is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    FirstByte,
    Handshake,
    Dial,
    Idle,
    Linger,
}

const KINDS: [Deadline; 5] =
    [Deadline::FirstByte, Deadline::Handshake, Deadline::Dial, Deadline::Idle, Deadline::Linger];

const NONE: u32 = u32::MAX;

/// The deadlines of one engine.
pub(crate) struct Deadlines {
    durations: [Duration; KINDS.len()],
    /// How much later than it was armed an idle deadline may have been touched: an eighth of the longest
    /// idle timeout so far, since a reload does not undo touches that were passed over before it.
    idle_slack: Duration,
    queues: [Queue; KINDS.len()],
    /// By slot of the session.
    rows: Vec<Row>,
    armed: usize,
}

#[derive(Clone, Copy)]
struct Queue {
    head: u32,
    tail: u32,
}

#[derive(Clone, Copy)]
struct Row {
    session: SessionKey,
    armed_at: Instant,
    previous: u32,
    next: u32,
    kind: Option<Deadline>,
}

impl Deadlines {
    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        let empty = Queue { head: NONE, tail: NONE };
        let mut deadlines = Self {
            durations: [Duration::ZERO; 5],
            idle_slack: Duration::ZERO,
            queues: [empty; 5],
            rows: Vec::new(),
            armed: 0,
        };
        deadlines.set_timeouts(timeouts);
        deadlines
    }

    /// New durations, for deadlines already armed too: what is stored is when they were armed.
    pub(crate) fn set_timeouts(&mut self, timeouts: &Timeouts) {
        self.durations = KINDS.map(|kind| match kind {
            Deadline::FirstByte => timeouts.first_byte,
            Deadline::Handshake => timeouts.handshake,
            Deadline::Dial => timeouts.dial,
            Deadline::Idle => timeouts.idle,
            Deadline::Linger => timeouts.linger,
        });
        self.idle_slack = self.idle_slack.max(timeouts.idle / 8);
    }

    /// Makes `kind` the one deadline of `session`, counted from `now`.
    pub(crate) fn arm(&mut self, session: SessionKey, kind: Deadline, now: Instant) {
        self.disarm(session);
        let slot = session.slot();
        if slot >= self.rows.len() {
            let vacant = Row { session, armed_at: now, previous: NONE, next: NONE, kind: None };
            self.rows.resize(slot + 1, vacant);
        }
        let index = slot as u32;
        let queue = &mut self.queues[kind as usize];
        self.rows[slot] = Row { session, armed_at: now, previous: queue.tail, next: NONE, kind: Some(kind) };
        match queue.tail {
            NONE => queue.head = index,
            tail => self.rows[tail as usize].next = index,
        }
        queue.tail = index;
        self.armed += 1;
    }

    /// Counts an idle deadline from `now`, unless it was armed so recently that it does not matter: then
    /// nothing is written. So a session goes idle after its timeout and at most an eighth of it more.
    pub(crate) fn touch_idle(&mut self, session: SessionKey, now: Instant) {
        let Some(row) = self.rows.get(session.slot()) else { return };
        if row.kind == Some(Deadline::Idle) && now.since(row.armed_at) > self.idle_slack {
            self.arm(session, Deadline::Idle, now);
        }
    }

    /// Removes the deadline of `session`, if it has one.
    pub(crate) fn disarm(&mut self, session: SessionKey) {
        let Some(row) = self.rows.get_mut(session.slot()) else { return };
        let Some(kind) = row.kind.take() else { return };
        let (previous, next) = (row.previous, row.next);
        let queue = &mut self.queues[kind as usize];
        match previous {
            NONE => queue.head = next,
            previous => self.rows[previous as usize].next = next,
        }
        match next {
            NONE => queue.tail = previous,
            next => self.rows[next as usize].previous = previous,
        }
        self.armed -= 1;
    }

    /// When the first deadline passes.
    pub(crate) fn next(&self) -> Option<Instant> {
        KINDS.into_iter().filter_map(|kind| self.head(kind)).map(|(_, at)| at).min()
    }

    /// Disarms one deadline that has passed.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<(SessionKey, Deadline)> {
        let expired = KINDS.into_iter().find_map(|kind| match self.head(kind) {
            Some((session, at)) if at <= now => Some((session, kind)),
            _ => None,
        })?;
        self.disarm(expired.0);
        Some(expired)
    }

    /// How many sessions have a deadline.
    pub(crate) fn armed(&self) -> usize {
        self.armed
    }

    fn head(&self, kind: Deadline) -> Option<(SessionKey, Instant)> {
        let row = self.rows.get(self.queues[kind as usize].head as usize)?;
        let duration = self.durations[kind as usize];
        let slack = if kind == Deadline::Idle { self.idle_slack } else { Duration::ZERO };
        Some((row.session, row.armed_at.plus(duration + slack)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session_key::tests::session_keys;

    fn at(milliseconds: u64) -> Instant {
        Instant::after_origin(Duration::from_millis(milliseconds))
    }

    fn deadlines() -> Deadlines {
        let second = Duration::from_secs;
        Deadlines::new(&Timeouts {
            first_byte: second(1),
            handshake: second(2),
            dial: second(3),
            idle: second(8),
            linger: second(5),
        })
    }

    #[test]
    fn deadlines_pass_in_order_and_never_early() {
        let mut deadlines = deadlines();
        let keys = session_keys(3);
        deadlines.arm(keys[0], Deadline::Handshake, at(0));
        deadlines.arm(keys[1], Deadline::FirstByte, at(500));
        deadlines.arm(keys[2], Deadline::Handshake, at(100));
        assert_eq!(deadlines.next(), Some(at(1500)));
        assert_eq!(deadlines.pop_expired(at(1499)), None);
        assert_eq!(deadlines.pop_expired(at(1500)), Some((keys[1], Deadline::FirstByte)));
        assert_eq!(deadlines.pop_expired(at(9999)), Some((keys[0], Deadline::Handshake)));
        assert_eq!(deadlines.pop_expired(at(9999)), Some((keys[2], Deadline::Handshake)));
        assert_eq!((deadlines.pop_expired(at(9999)), deadlines.next(), deadlines.armed()), (None, None, 0));
    }

    #[test]
    fn arming_again_replaces_and_disarming_twice_is_harmless() {
        let mut deadlines = deadlines();
        let key = session_keys(1)[0];
        deadlines.arm(key, Deadline::FirstByte, at(0));
        deadlines.arm(key, Deadline::Dial, at(10));
        assert_eq!((deadlines.next(), deadlines.armed()), (Some(at(3010)), 1));
        deadlines.disarm(key);
        deadlines.disarm(key);
        assert_eq!((deadlines.next(), deadlines.armed()), (None, 0));
    }

    #[test]
    fn removal_from_the_middle_keeps_the_rest_in_order() {
        let mut deadlines = deadlines();
        let keys = session_keys(4);
        for (key, when) in keys.iter().zip(0..) {
            deadlines.arm(*key, Deadline::Dial, at(when));
        }
        deadlines.disarm(keys[1]);
        deadlines.disarm(keys[3]);
        let mut left = Vec::new();
        while let Some((key, _)) = deadlines.pop_expired(at(60_000)) {
            left.push(key);
        }
        assert_eq!(left, [keys[0], keys[2]]);
    }

    #[test]
    fn a_busy_session_is_not_idle_and_one_that_stops_is_within_an_eighth() {
        let mut deadlines = deadlines();
        let key = session_keys(1)[0];
        deadlines.arm(key, Deadline::Idle, at(0));
        for when in (0..20_000).step_by(100) {
            deadlines.touch_idle(key, at(when));
            assert_eq!(deadlines.pop_expired(at(when)), None);
        }
        let idle_at = deadlines.next().unwrap();
        assert!(idle_at >= at(19_900 + 8000) && idle_at <= at(19_900 + 9000), "{idle_at:?}");
    }
    #[test]
    fn a_busy_session_is_not_idle_either_when_a_reload_shortens_the_timeout() {
        let mut deadlines = deadlines();
        let key = session_keys(1)[0];
        deadlines.arm(key, Deadline::Idle, at(0));
        deadlines.touch_idle(key, at(900));
        let timeouts = Timeouts { idle: Duration::from_millis(400), ..Timeouts::default() };
        deadlines.set_timeouts(&timeouts);
        assert_eq!(deadlines.pop_expired(at(1299)), None, "touched at 900");
        assert_eq!(deadlines.pop_expired(at(1400)), Some((key, Deadline::Idle)));
    }
}
