//! What must be true of a conversation when its time is over, and of everything in the end.

use mtproxy_tcp::drop_reason::DropReason;

use crate::app::Gone;
use crate::plan::Opening;
use crate::sabotage::Sabotage;
use crate::simulation::Simulation;
use crate::tally::Tally;
use crate::violation::{Checker, Violation};

/// So many packets that did not arrive may have cost a connection its life.
const LOSSES_EXCUSED: u64 = 8;

impl Simulation {
    /// The network or the lack of frames may have ended it.
    pub(crate) fn is_excused(&self, conversation: usize) -> bool {
        let uses_cookies = self.plan.uses_cookies();
        let is_unrouted = self.plan.devices.iter().any(|device| device.unrouted.is_some());
        let is_stopped = self.plan.stop.is_some();
        let is_again = self.plan.conversations[conversation].reuses.is_some();
        is_stopped
            || is_again
            || self.losses[conversation] >= LOSSES_EXCUSED
            || self.plan.is_crowded()
            || self.has_shed()
            || uses_cookies
            || is_unrouted
    }

    /// A host had to let a connection go for the others' sake.
    fn has_shed(&self) -> bool {
        self.hosts.iter().any(|host| host.stack.counters().shed > 0)
    }

    /// A conversation's time is over.
    pub(crate) fn judge(&mut self, conversation: usize) -> Result<(), Violation> {
        let planned = &self.plan.conversations[conversation];
        let is_peaceful = planned.is_peaceful();
        let opening = planned.opening;
        let gone = [0, 1].map(|end| self.apps[conversation][end].gone);
        if is_peaceful && gone != [Some(Gone::Closed); 2] {
            let is_torn = gone.iter().any(|gone| matches!(gone, Some(Gone::Reset | Gone::Failed)));
            if !is_torn && !self.is_excused(conversation) {
                let state = [0, 1].map(|end| self.describe(conversation, end));
                self.require(false, Checker::Progress, || {
                    format!("conversation {conversation} is not over: {} / {}", state[0], state[1])
                })?;
            }
            // A failure to connect was judged when it was told.
            let is_reset = gone.contains(&Some(Gone::Reset));
            self.require(!is_reset || self.is_excused(conversation), Checker::Outcome, || {
                format!("conversation {conversation} was torn down: {gone:?}")
            })?;
        }
        for end in [0, 1] {
            self.check_outcome(conversation, end, is_peaceful)?;
            let host = self.plan.conversations[conversation].hosts[end];
            if let Some(id) = self.apps[conversation][end].live() {
                self.tally.count("left to the judge", if is_peaceful { "in peace" } else { "in strife" });
                if !self.has_sabotage(Sabotage::ForgetsToClose) {
                    self.abort(conversation, end, id, Gone::Left);
                    self.settle(host)?;
                }
            }
        }
        let outcome = match (opening, gone) {
            (Opening::Refused | Opening::Ignored, _) => "never was",
            (_, [Some(Gone::Closed), Some(Gone::Closed)]) => "both closed",
            (_, [Some(Gone::Failed), _] | [_, Some(Gone::Failed)]) => "did not come about",
            (_, [Some(Gone::Reset), _] | [_, Some(Gone::Reset)]) => "one was reset",
            _ => "one left",
        };
        self.tally.count(if is_peaceful { "in peace" } else { "in strife" }, outcome);
        Ok(())
    }

    /// Who closed in peace has read everything.
    fn check_outcome(&self, conversation: usize, end: usize, is_peaceful: bool) -> Result<(), Violation> {
        let [app, peer] = [end, 1 - end].map(|end| &self.apps[conversation][end]);
        if !is_peaceful || app.gone != Some(Gone::Closed) || peer.gone != Some(Gone::Closed) {
            return Ok(());
        }
        let script = &self.plan.conversations[conversation].scripts[end];
        let is_reading = script.ending != crate::script::Ending::Closes;
        let is_whole = !is_reading || app.has_end && app.read == peer.written;
        self.require(is_whole, Checker::Outcome, || {
            format!("conversation {conversation}, end {end} has read {} of {}", app.read, peer.written)
        })
    }

    fn describe(&self, conversation: usize, end: usize) -> String {
        let app = &self.apps[conversation][end];
        let script = &self.plan.conversations[conversation].scripts[end];
        format!(
            "wrote {} of {} ({} beyond), read {}{}{}, {:?}, {:?}",
            app.written,
            script.total,
            app.beyond,
            app.read,
            if app.has_end { " to the end" } else { "" },
            if app.is_established { "" } else { ", not established" },
            app.gone,
            script.ending,
        )
    }

    /// Nothing will ever happen again: nothing may be left.
    pub(crate) fn finish(mut self) -> Result<Tally, Violation> {
        for index in 0..2 {
            let host = &self.hosts[index];
            let counts = [
                host.stack.connection_count(),
                host.stack.half_open_count(),
                host.stack.time_wait_count(),
                host.stack.frames_held(),
                host.driver_frames,
                host.link.held(),
            ];
            self.require(counts == [0; 6], Checker::Leftovers, || {
                format!("host {index}: connections, half-open, TIME-WAIT, frames of stack, driver, link {counts:?}")
            })?;
            let sums = host.link.check_sums();
            self.require(sums.is_ok(), Checker::Frames, || format!("host {index}: {sums:?}"))?;
            self.require(!host.stack.wants_transmit(), Checker::Leftovers, || {
                format!("host {index} still wants to send")
            })?;
            let (full, exhausted, no_frame) =
                (host.link.full_count, host.link.exhausted_count, host.no_frame_count);
            self.tally.count_many("device", "transmit ring full", full);
            self.tally.count_many("device", "no frame to write into", exhausted);
            self.tally.count_many("device", "no frame to receive into", no_frame);
            let counters = host.stack.counters();
            let over_budget = counters.dropped(DropReason::OverBudget);
            self.tally.count_many("frames", "text over budget", over_budget);
            self.tally.count_many("frames", "connections shed", counters.shed);
        }
        self.tally.virtual_micros = self.schedule.now;
        Ok(self.tally)
    }
}
