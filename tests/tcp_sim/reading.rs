//! How drivers read: in pieces, slowly or not at all, and never without comparing.

use std::ops::Range;

use mtproxy_tcp::ConnectionId;
use mtproxy_tcp::event::Read;
use mtproxy_tcp::link::Link;
use mtproxy_tests::pattern;

use crate::driver::RETRY;
use crate::host::Host;
use crate::memory_link::Frame;
use crate::sabotage::Sabotage;
use crate::script::Ending;
use crate::simulation::Simulation;
use crate::violation::{Checker, Violation};

impl Simulation {
    /// How much it may still read before it stops for good.
    fn appetite(&self, conversation: usize, end: usize) -> u64 {
        match self.plan.conversations[conversation].scripts[end].ending {
            Ending::StopsReading(at) => at.saturating_sub(self.apps[conversation][end].read),
            _ => u64::MAX,
        }
    }

    pub(crate) fn read(
        &mut self,
        conversation: usize,
        end: usize,
        id: ConnectionId,
    ) -> Result<(), Violation> {
        let script = self.plan.conversations[conversation].scripts[end].clone();
        let host = self.host_of(conversation, end);
        let mut room = script.takes_at_once;
        loop {
            if self.appetite(conversation, end) == 0 {
                break;
            }
            room = room.min(usize::try_from(self.appetite(conversation, end)).unwrap_or(usize::MAX));
            if room == 0 {
                // Nobody tells again before `Nothing` was read.
                let delay = 1 + self.dice.word() % (script.read_pause_max + 1);
                self.act_after(conversation, end, delay);
                break;
            }
            match self.hosts[host].stack.read(id) {
                Read::Nothing => break,
                Read::End => self.read_end(conversation, end)?,
                Read::Text { frame, range } => {
                    let take = range.len().min(room);
                    self.compare(conversation, end, &frame, range.start..range.start + take)?;
                    if script.is_echo
                        && !self.echo(conversation, end, &frame, range.start..range.start + take)
                    {
                        let Host { stack, link, .. } = &mut self.hosts[host];
                        stack.unread(id, frame, range, link);
                        self.act_after(conversation, end, RETRY);
                        break;
                    }
                    self.apps[conversation][end].read += take as u64;
                    self.tally.bytes_read += take as u64;
                    self.tally.last_read_micros = self.schedule.now;
                    room -= take;
                    if take < range.len() {
                        let Host { stack, link, .. } = &mut self.hosts[host];
                        stack.unread(id, frame, range.start + take..range.end, link);
                    } else {
                        self.dispose(conversation, end, frame);
                    }
                }
            }
        }
        Ok(())
    }

    fn dispose(&mut self, conversation: usize, end: usize, frame: Frame) {
        if self.has_sabotage(Sabotage::LeaksOneFrame) {
            return;
        }
        let host = self.host_of(conversation, end);
        if self.plan.conversations[conversation].scripts[end].holds {
            self.release_held(conversation, end);
            self.apps[conversation][end].held = Some(frame);
            self.hosts[host].driver_frames += 1;
        } else {
            self.hosts[host].link.release(frame);
        }
    }

    fn compare(
        &self,
        conversation: usize,
        end: usize,
        frame: &Frame,
        range: Range<usize>,
    ) -> Result<(), Violation> {
        let app = &self.apps[conversation][end];
        let bytes = &self.hosts[self.host_of(conversation, end)].link.bytes(frame)[range];
        let position = self.position(conversation, 1 - end);
        let mut difference = pattern::first_difference(position + app.read, bytes);
        if self.has_sabotage(Sabotage::SpoilsOneByte) {
            difference = Some(position + app.read);
        }
        let what = || {
            let at = difference.unwrap_or_default() - position;
            format!("conversation {conversation}, end {end}: byte {at} is not what was written")
        };
        self.require(difference.is_none(), Checker::Delivery, what)?;
        self.require(!bytes.is_empty() && !app.has_end, Checker::End, || {
            format!("conversation {conversation}, end {end}: text behind the end, or none")
        })
    }

    fn read_end(&mut self, conversation: usize, end: usize) -> Result<(), Violation> {
        let peer = &self.apps[conversation][1 - end];
        let read = self.apps[conversation][end].read + u64::from(self.has_sabotage(Sabotage::LosesTheEnd));
        let is_right = peer.is_finished && read == peer.written && !self.apps[conversation][end].has_end;
        let written = peer.written;
        self.require(is_right, Checker::End, || {
            format!("conversation {conversation}, end {end}: the end at {read} of {written}")
        })?;
        self.apps[conversation][end].has_end = true;
        Ok(())
    }

    /// Writes what it reads, if there is room.
    fn echo(&mut self, conversation: usize, end: usize, frame: &Frame, range: Range<usize>) -> bool {
        let host = self.host_of(conversation, end);
        let app = &mut self.apps[conversation][end];
        let (Some(id), len) = (app.id, range.len()) else { return false };
        let Host { stack, link, .. } = &mut self.hosts[host];
        if app.is_finished || app.beyond > 0 || !stack.can_take(len, link) {
            return app.is_finished;
        }
        app.written += len as u64;
        app.beyond += len - stack.send_from(id, frame, range, link);
        true
    }
}
