//! The drivers of both stacks: they do what the scripts say. How they read is in `reading.rs`.

use mtproxy_tcp::ConnectionId;
use mtproxy_tcp::drop_reason::DropReason;
use mtproxy_tcp::event::{ConnectError, ConnectFailure, Event};
use mtproxy_tcp::link::Link;
use mtproxy_tests::pattern;

use crate::app::{App, Gone};
use crate::host::Host;
use crate::plan::{FIRST_PORT, MILLISECOND, Opening, SECOND};
use crate::sabotage::Sabotage;
use crate::schedule::Moment;
use crate::script::Ending;
use crate::simulation::Simulation;
use crate::violation::{Checker, Violation};

/// Until a driver tries again what frames did not suffice for.
pub(crate) const RETRY: u64 = 5 * MILLISECOND;
/// So many packets that did not arrive may have kept a connection from coming about: five SYNs within 30 s.
const SYNS_EXCUSED: u64 = 4;
/// Chunks that are written at once.
const CHUNKS_MAX: usize = 16;

impl Simulation {
    /// Where in the pattern the stream of `end` begins.
    pub(crate) fn position(&self, conversation: usize, end: usize) -> u64 {
        let scripts = &self.plan.conversations[conversation].scripts;
        let source = if scripts[end].is_echo { 1 - end } else { end };
        (conversation as u64 * 2 + source as u64) << 40
    }

    pub(crate) fn host_of(&self, conversation: usize, end: usize) -> usize {
        self.plan.conversations[conversation].hosts[end]
    }

    pub(crate) fn connect(&mut self, conversation: usize) -> Result<(), Violation> {
        let planned = &self.plan.conversations[conversation];
        let [connector, acceptor] = planned.addresses;
        if self.is_stopped(planned.hosts[0]) || !self.may_reuse(planned.reuses) {
            self.apps[conversation][0].gone = Some(Gone::Failed);
            return Ok(());
        }
        let port = usize::from(connector.port() - FIRST_PORT);
        self.by_port[port] = conversation;
        self.open(conversation, 0, connector, acceptor)?;
        let planned = &self.plan.conversations[conversation];
        if planned.opening == Opening::Simultaneous && !self.is_stopped(planned.hosts[1]) {
            self.open(conversation, 1, acceptor, connector)?;
        }
        Ok(())
    }

    /// The earlier conversation is over, also on the wire.
    fn may_reuse(&self, earlier: Option<usize>) -> bool {
        earlier.is_none_or(|earlier| {
            (0..2).all(|end| {
                self.apps[earlier][end].gone == Some(Gone::Closed)
                    && !self.halves[earlier][end].has_unacknowledged()
            })
        })
    }

    fn open(
        &mut self,
        conversation: usize,
        end: usize,
        local: std::net::SocketAddr,
        remote: std::net::SocketAddr,
    ) -> Result<(), Violation> {
        let index = self.host_of(conversation, end);
        let now = self.instant();
        self.say(|| format!("host {index}: connects {local} to {remote}"));
        let Host { stack, link, whose, .. } = &mut self.hosts[index];
        let app = &mut self.apps[conversation][end];
        match stack.connect(now, local, remote, link) {
            Ok(id) => {
                whose.insert(id, (conversation, end));
                app.id = Some(id);
                if self.dice.percent(30) {
                    // It writes before the connection is established.
                    self.act_after(conversation, end, 0);
                }
            }
            Err(why) => {
                app.gone = Some(Gone::Failed);
                let is_excused = match why {
                    ConnectError::NoRoute => !link.is_routed,
                    // This end closed first, and is in TIME-WAIT.
                    ConnectError::InUse => self.plan.conversations[conversation].reuses.is_some(),
                    ConnectError::TooMany => false,
                };
                self.tally.count("connects refused", "by the stack itself");
                self.require(is_excused || self.plan.is_crowded(), Checker::Outcome, || {
                    format!("conversation {conversation} does not begin: {why:?}")
                })?;
            }
        }
        self.settle(index)
    }

    pub(crate) fn act_after(&mut self, conversation: usize, end: usize, delay: u64) {
        if !std::mem::replace(&mut self.apps[conversation][end].is_scheduled, true) {
            self.schedule.after(delay, Moment::Act { conversation, end });
        }
    }

    pub(crate) fn take_events(&mut self, host: usize) -> Result<(), Violation> {
        while let Some(event) = self.hosts[host].stack.next_event() {
            self.say(|| format!("host {host}: {event:?}"));
            self.take_event(host, event)?;
        }
        Ok(())
    }

    /// Whose connection an event is about, which lives.
    fn live(&self, host: usize, id: ConnectionId) -> Result<Option<(usize, usize)>, Violation> {
        if self.hosts[host].ghosts.contains(&id) {
            return Ok(None);
        }
        let whose = self.hosts[host].whose.get(&id).copied();
        let is_live =
            whose.is_some_and(|(conversation, end)| self.apps[conversation][end].live() == Some(id));
        self.require(is_live, Checker::Events, || format!("host {host}: an event of {id:?}, which is gone"))?;
        Ok(whose.filter(|_| is_live))
    }

    fn take_event(&mut self, host: usize, event: Event) -> Result<(), Violation> {
        if let Event::Accepted(id, remote) = event {
            return self.accepted(host, id, remote);
        }
        let id = event_id(&event);
        if matches!(event, Event::ConnectFailed(..) | Event::Reset(..)) {
            // What broke is the driver's to let go of. Its unread text goes with it.
            let now = self.instant();
            let Host { stack, link, .. } = &mut self.hosts[host];
            stack.close(now, id, link);
        }
        let Some((conversation, end)) = self.live(host, id)? else { return Ok(()) };
        let script = &self.plan.conversations[conversation].scripts[end];
        let app = &mut self.apps[conversation][end];
        match event {
            Event::Accepted(..) => {}
            Event::Connected(_) => {
                let was_established = std::mem::replace(&mut app.is_established, true);
                self.require(!was_established, Checker::Events, || "connected twice".to_owned())?;
                self.act_after(conversation, end, 0);
            }
            Event::ConnectFailed(_, why) => {
                app.gone = Some(Gone::Failed);
                self.failed(conversation, end, why)?;
            }
            Event::Readable(_) => {
                let delay = self.dice.word() % (script.read_pause_max + 1);
                self.act_after(conversation, end, delay);
            }
            Event::Sent(_, len) => {
                let len = len + usize::from(self.options.sabotage == Some(Sabotage::ReportsTooMuchSent));
                let is_true = len <= app.beyond;
                app.beyond = app.beyond.saturating_sub(len);
                let (beyond, is_again) = (app.beyond, app.beyond == 0);
                self.require(is_true, Checker::Events, || format!("{len} sent, {beyond} left"))?;
                if is_again {
                    self.act_after(conversation, end, 0);
                }
            }
            Event::Reset(..) => {
                app.gone = Some(Gone::Reset);
                self.release_held(conversation, end);
            }
        }
        Ok(())
    }

    fn accepted(
        &mut self,
        host: usize,
        id: ConnectionId,
        remote: std::net::SocketAddr,
    ) -> Result<(), Violation> {
        let port = usize::from(remote.port().wrapping_sub(FIRST_PORT));
        let conversation = self.by_port.get(port).copied().unwrap_or(usize::MAX);
        let planned = self.plan.conversations.get(conversation);
        let is_expected = planned.is_some_and(|planned| {
            planned.opening == Opening::Ordinary && planned.hosts[1] == host && planned.addresses[0] == remote
        });
        let acceptor = self.apps.get(conversation).map(|ends| (ends[1].id, ends[1].gone));
        if let (true, Some((Some(_), Some(_)))) = (self.plan.uses_cookies(), acceptor) {
            // A cookie is good for as long as it lasts: what was reset comes about again.
            self.tally.count("connects accepted", "twice, by a cookie");
            let now = self.instant();
            let Host { stack, link, .. } = &mut self.hosts[host];
            stack.abort(now, id, link);
            self.hosts[host].ghosts.insert(id);
            return Ok(());
        }
        let is_expected = is_expected && matches!(acceptor, Some((None, _)));
        self.require(is_expected, Checker::Events, || format!("host {host} accepts {remote}"))?;
        if is_expected {
            self.hosts[host].whose.insert(id, (conversation, 1));
            let app = &mut self.apps[conversation][1];
            (app.id, app.is_established) = (Some(id), true);
            self.act_after(conversation, 1, 0);
        }
        Ok(())
    }

    fn failed(&mut self, conversation: usize, end: usize, why: ConnectFailure) -> Result<(), Violation> {
        let opening = self.plan.conversations[conversation].opening;
        let (name, is_right) = match why {
            ConnectFailure::Refused => {
                let is_abandoned = self.apps[conversation][1 - end].gone.is_some();
                let is_stopped = self.plan.stop.is_some();
                ("refused", opening == Opening::Refused || is_abandoned || is_stopped)
            }
            ConnectFailure::TimedOut => {
                // A reset that meets a full ring is not sent later.
                let is_unanswered =
                    opening == Opening::Ignored || opening == Opening::Refused && self.plan.has_short_ring();
                // A host that is short of frames takes no new connections.
                let acceptor = &self.hosts[self.plan.conversations[conversation].hosts[1]];
                let is_turned_away = acceptor.stack.counters().dropped(DropReason::Pressure) > 0;
                let is_excused = self.is_excused(conversation)
                    || is_turned_away
                    || self.losses[conversation] >= SYNS_EXCUSED;
                ("timed out", is_unanswered || is_excused)
            }
            ConnectFailure::Unreachable => ("unreachable", false),
        };
        self.tally.count("connects failed", name);
        self.require(is_right || end == 1, Checker::Outcome, || {
            format!("conversation {conversation}, {opening:?}: {why:?}")
        })
    }

    pub(crate) fn release_held(&mut self, conversation: usize, end: usize) {
        let host = self.host_of(conversation, end);
        if let Some(frame) = self.apps[conversation][end].held.take() {
            self.hosts[host].driver_frames -= 1;
            self.hosts[host].link.release(frame);
        }
    }

    /// An end does what its script says next.
    pub(crate) fn act(&mut self, conversation: usize, end: usize) -> Result<(), Violation> {
        let host = self.host_of(conversation, end);
        self.apps[conversation][end].is_scheduled = false;
        self.release_held(conversation, end);
        let is_asleep = self.has_sabotage(Sabotage::LosesWakeUps) && self.schedule.now > SECOND;
        if let Some(id) = self.apps[conversation][end].live().filter(|_| !is_asleep) {
            self.read(conversation, end, id)?;
            self.write(conversation, end, id);
            self.end(conversation, end, id);
        }
        self.settle(host)
    }

    fn write(&mut self, conversation: usize, end: usize, id: ConnectionId) {
        let script = self.plan.conversations[conversation].scripts[end].clone();
        let host = self.host_of(conversation, end);
        if script.is_echo || self.apps[conversation][end].is_finished {
            return;
        }
        for _ in 0..CHUNKS_MAX {
            let app = &mut self.apps[conversation][end];
            let left = script.total - app.written;
            if left == 0 || app.beyond > 0 {
                return;
            }
            let Host { stack, link, .. } = &mut self.hosts[host];
            let mut len = self.dice.size(script.chunk_max).min(usize::try_from(left).unwrap_or(usize::MAX));
            while len > 1 && !stack.can_take(len, link) {
                len /= 2;
            }
            if !stack.can_take(len, link) {
                self.act_after(conversation, end, RETRY);
                return;
            }
            let written = app.written;
            let bytes = pattern::bytes(self.position(conversation, end) + written, len);
            let Host { stack, link, .. } = &mut self.hosts[host];
            let taken = stack.send(id, &bytes, link);
            let app = &mut self.apps[conversation][end];
            app.written += len as u64;
            app.beyond += len - taken;
            if script.write_pause_max > 0 {
                break;
            }
        }
        let delay = 1 + self.dice.word() % (script.write_pause_max + 1);
        self.act_after(conversation, end, delay);
    }

    /// Ends what is over.
    fn end(&mut self, conversation: usize, end: usize, id: ConnectionId) {
        let script = &self.plan.conversations[conversation].scripts[end];
        let app = &mut self.apps[conversation][end];
        let is_all_written = if script.is_echo { app.has_end } else { app.written == script.total };
        match script.ending {
            Ending::Aborts(at) if app.written + app.read >= at && app.is_established => {
                self.abort(conversation, end, id, Gone::Left);
                return;
            }
            Ending::StopsReading(at) if app.read >= at => {
                let closes_at = *app.closes_at.get_or_insert(self.schedule.now + 30 * SECOND);
                if self.schedule.now >= closes_at {
                    self.close(conversation, end, id, Gone::Left);
                } else if !app.is_scheduled {
                    app.is_scheduled = true;
                    self.schedule.at(closes_at, Moment::Act { conversation, end });
                }
                return;
            }
            Ending::Closes if is_all_written && app.is_established => {
                self.close(conversation, end, id, Gone::Closed);
                return;
            }
            _ => {}
        }
        let is_turn = script.ending != Ending::AfterPeer || app.has_end;
        if is_all_written && is_turn && app.is_established && !app.is_finished {
            app.is_finished = true;
            self.say(|| format!("conversation {conversation}, end {end} shuts down"));
            let host = self.host_of(conversation, end);
            self.hosts[host].stack.shut_down(id);
        }
        let app = &self.apps[conversation][end];
        if app.is_finished && app.has_end {
            if self.has_sabotage(Sabotage::ForgetsToClose) {
                return;
            }
            self.close(conversation, end, id, Gone::Closed);
        }
    }

    pub(crate) fn close(&mut self, conversation: usize, end: usize, id: ConnectionId, gone: Gone) {
        self.say(|| format!("conversation {conversation}, end {end} closes"));
        let (host, now) = (self.host_of(conversation, end), self.instant());
        self.release_held(conversation, end);
        let app: &mut App = &mut self.apps[conversation][end];
        (app.gone, app.is_finished) = (Some(gone), true);
        let Host { stack, link, .. } = &mut self.hosts[host];
        stack.close(now, id, link);
        if self.has_sabotage(Sabotage::ResetsQuietly) {
            self.apps[conversation][1 - end].gone = Some(Gone::Reset);
        }
    }

    pub(crate) fn abort(&mut self, conversation: usize, end: usize, id: ConnectionId, gone: Gone) {
        self.say(|| format!("conversation {conversation}, end {end} aborts"));
        let (host, now) = (self.host_of(conversation, end), self.instant());
        self.release_held(conversation, end);
        self.apps[conversation][end].gone = Some(gone);
        let Host { stack, link, .. } = &mut self.hosts[host];
        stack.abort(now, id, link);
    }
}

fn event_id(event: &Event) -> ConnectionId {
    match *event {
        Event::Accepted(id, _)
        | Event::Connected(id)
        | Event::ConnectFailed(id, _)
        | Event::Readable(id)
        | Event::Sent(id, _)
        | Event::Reset(id, ..) => id,
    }
}
