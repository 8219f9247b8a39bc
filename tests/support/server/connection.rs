//! One connection of a server: what is read, written and ended, one step at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{BUFFER_LEN, Conversation, InputEnd, Session, Shared};
use crate::dc_codec::Ending;
use crate::socket::is_reset;

/// One connection, and the conversation on it.
pub(super) struct Connection<C> {
    pub(super) stream: TcpStream,
    pub(super) conversation: C,
    /// Output made and not yet written.
    pub(super) pending: Vec<u8>,
    pub(super) written: usize,
    pub(super) input_open: bool,
    pub(super) output_open: bool,
    /// The conversation is to attend.
    pub(super) is_called: bool,
    /// Index in the ledger; `None` beyond [`RECORDED_SESSIONS_MAX`].
    pub(super) record: Option<usize>,
}

/// What a step of a connection came to.
pub(super) enum Step {
    Progress,
    Blocked,
    Finished,
}

impl<C: Conversation> Connection<C> {
    /// Writes what there is; with nothing left, ends if told to; else reads. A duplex conversation reads
    /// in any case.
    pub(super) fn step(&mut self, shared: &Shared<C::Report>, buffer: &mut [u8]) -> Step {
        if std::mem::take(&mut self.is_called)
            && let Err(error) = self.conversation.attend()
        {
            self.record(shared, |_, session| session.input_end = Some(InputEnd::Misbehaved(error)));
            return Step::Finished;
        }
        if let Some(ending) = self.conversation.take_abrupt_ending() {
            return self.end(ending);
        }
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
            self.conversation.fill(&mut self.pending, BUFFER_LEN);
        }
        if !self.output_open || self.pending.is_empty() {
            self.pending.clear();
            return match self.conversation.take_ending() {
                Some(ending) => self.end(ending),
                None => self.read(shared, buffer),
            };
        }
        let written = self.write(shared);
        if matches!(written, Step::Finished) || !self.conversation.is_duplex() {
            return written;
        }
        match self.read(shared, buffer) {
            Step::Blocked => written,
            read => read,
        }
    }

    fn end(&mut self, ending: Ending) -> Step {
        match ending {
            Ending::Close => Step::Finished,
            Ending::Reset => {
                let zero = Some(Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(&self.stream, zero).expect("SO_LINGER");
                Step::Finished
            }
            Ending::HalfClose => {
                // Fails only if the connection is gone, which the next read tells.
                let _ = self.stream.shutdown(Shutdown::Write);
                self.output_open = false;
                Step::Progress
            }
        }
    }

    fn write(&mut self, shared: &Shared<C::Report>) -> Step {
        match self.stream.write(&self.pending[self.written..]) {
            Ok(count) => {
                self.written += count;
                self.record(shared, |conversation, session| {
                    session.sent += count as u64;
                    conversation.report(&mut session.report);
                });
                Step::Progress
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Step::Blocked,
            Err(error) => self.broken(shared, &error),
        }
    }

    fn read(&mut self, shared: &Shared<C::Report>, buffer: &mut [u8]) -> Step {
        let is_reading = shared.reading.load(Ordering::SeqCst) && self.conversation.is_reading();
        if !self.input_open || !is_reading {
            return Step::Blocked;
        }
        match self.stream.read(buffer) {
            Ok(0) => {
                self.input_open = false;
                self.conversation.end_of_input();
                self.record(shared, |conversation, session| {
                    session.input_end = Some(InputEnd::Eof);
                    conversation.report(&mut session.report);
                });
                Step::Progress
            }
            Ok(count) => self.received(shared, &buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Step::Blocked,
            Err(error) => self.broken(shared, &error),
        }
    }

    fn received(&mut self, shared: &Shared<C::Report>, bytes: &[u8]) -> Step {
        let mut ledger = shared.lock();
        let mut unrecorded = C::Report::default();
        let mut session = self.record.and_then(|record| ledger.sessions.get_mut(record));
        let report = session.as_mut().map_or(&mut unrecorded, |session| &mut session.report);
        let result = self.conversation.receive(bytes, report);
        if let Some(session) = session {
            session.received += bytes.len() as u64;
            session.input_end = result.clone().err().map(InputEnd::Misbehaved);
        }
        if result.is_ok() { Step::Progress } else { Step::Finished }
    }

    fn broken(&mut self, shared: &Shared<C::Report>, error: &std::io::Error) -> Step {
        assert!(is_reset(error), "a server's connection: {error}");
        self.record(shared, |_, session| session.input_end = Some(InputEnd::Reset));
        Step::Finished
    }

    fn record(&mut self, shared: &Shared<C::Report>, change: impl FnOnce(&mut C, &mut Session<C::Report>)) {
        if let Some(record) = self.record {
            change(&mut self.conversation, &mut shared.lock().sessions[record]);
        }
    }
}
