//! The user's calls (RFC 9293 §3.10.1 to 3.10.6) as far as one connection goes; the stack's methods of these
//! names lead here.

use std::ops::Range;
use std::time::Duration;

use crate::congestion::Controller;
use crate::connection::{Connection, Shared};
use crate::event::{ConnectFailure, Event, Read, ResetReason};
use crate::four_tuple::FourTuple;
use crate::link::{Link, VlanTag};
use crate::receive_queue::Text;
use crate::receive_window::{INITIAL_ALLOTMENT, shift_for};
use crate::rto::RttEstimator;
use crate::seq::SeqNumber;
use crate::shed::{LEAST_BYTES_PER_SECOND, Pace};
use crate::tcb::{Deadlines, Flags, ReceiveSequence, SendSequence, State, Tcb, millis};
use crate::time::Instant;
use crate::time_wait::{Closed, ClosedTimestamps, WAIT};

/// Segments acknowledged at once before acknowledgements are delayed: Linux's `TCP_MAX_QUICKACKS`.
const QUICK_ACKS: u8 = 16;

/// Where the link header of a segment ends if the way is not known yet: Ethernet without a tag. A wrong guess
/// costs one copy.
const LINK_HEADER_GUESS: u16 = 14;

impl<F> Tcb<F> {
    /// OPEN: a record in the state that its SYN leaves it in. Options are those that we offer.
    pub(crate) fn open(
        shared: &Shared<F>,
        now: Instant,
        tuple: FourTuple,
        state: State,
        iss: SeqNumber,
        vlan: Option<VlanTag>,
    ) -> Self {
        let settings = &shared.settings;
        let (local, remote) = (tuple.local(), tuple.remote());
        let timeout =
            if state == State::SynSent { settings.connect_timeout } else { settings.accept_timeout };
        let rtt = RttEstimator::new();
        let mut deadlines = Deadlines::NONE;
        deadlines.retransmit = now.plus(rtt.rto());
        deadlines.life = now.plus(timeout);
        Self {
            tuple,
            state,
            snd_wnd_shift: 0,
            rcv_wnd_shift: shift_for(settings.receive_buffer_max_bytes),
            timestamps: true,
            sack: true,
            flags: Flags { syn_due: true, passive: state == State::SynReceived, ..Flags::default() },
            snd: SendSequence { una: iss, nxt: iss + 1, ..SendSequence::default() },
            rcv: ReceiveSequence { wnd: INITIAL_ALLOTMENT, ..ReceiveSequence::default() },
            peer_mss: u16::MAX,
            path_mtu: u16::MAX,
            hop: None,
            hop_epoch: shared.hop_epoch,
            vlan,
            ts_recent: 0,
            ts_recent_at_ms: 0,
            ts_offset: shared.secrets.timestamp_offset(local, remote),
            last_ack_sent: SeqNumber(0),
            rtt,
            congestion: Controller::new(settings.congestion, 536),
            deadlines,
            receive_allotment: INITIAL_ALLOTMENT,
            drained: 0,
            drained_since_ms: millis(now),
            quick_acks: QUICK_ACKS,
            unacked_segments: 0,
            retries: 0,
            last_sent_ms: millis(now),
            challenged_at_ms: millis(now).wrapping_sub(crate::answer_limit::PER_CONNECTION_MS),
            queues: None,
        }
    }

    /// RECEIVE: the oldest text, then the peer's FIN, once.
    pub(crate) fn read(&mut self) -> Read<F> {
        if let Some(Text { frame, range }) = self.queues.as_mut().and_then(|queues| queues.receive.pop()) {
            self.drained = self.drained.saturating_add(u32::try_from(range.len()).unwrap_or(u32::MAX));
            self.flags.window_moved = true;
            return Read::Text { frame, range };
        }
        if self.flags.fin_received && !self.flags.end_read {
            self.flags.end_read = true;
            return Read::End;
        }
        self.flags.readable_told = false;
        Read::Nothing
    }

    /// Takes text back that the user could not use now.
    pub(crate) fn unread(&mut self, text: Text<F>) {
        self.drained = self.drained.saturating_sub(u32::try_from(text.range.len()).unwrap_or(u32::MAX));
        if let Some(queues) = &mut self.queues {
            queues.receive.unpop(text);
        }
    }
}

impl<L: Link> Connection<'_, L> {
    /// SEND: queues text, and answers how much of all that is queued has come within the send buffer.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> usize {
        self.queue_text(bytes.len(), |link, frame, at, range| {
            link.bytes_mut(frame)[at..at + range.len()].copy_from_slice(&bytes[range]);
        })
    }

    /// SEND from another frame: the relay's one copy.
    pub(crate) fn send_from(&mut self, from: &L::Frame, text: Range<usize>) -> usize {
        self.queue_text(text.len(), |link, frame, at, range| {
            link.copy(from, text.start + range.start..text.start + range.end, frame, at);
        })
    }

    /// Lays `len` bytes out in frames. `fill` copies a part of them to an offset of a frame.
    fn queue_text(&mut self, len: usize, fill: impl Fn(&mut L, &mut L::Frame, usize, Range<usize>)) -> usize {
        if !self.tcb.state.may_send() || self.tcb.flags.fin_queued || len == 0 {
            return 0;
        }
        let now_ms = millis(self.now);
        let queues = self.queues();
        if queues.send.is_empty() {
            queues.pace = Pace::from(now_ms);
        }
        let mut done = self.fill_last(len, &fill);
        let at = self.text_offset();
        let smss = usize::from(self.tcb.smss());
        while done < len {
            let Some(mut frame) = self.link.allocate() else {
                self.out_of_frames();
                return 0;
            };
            let room = self.link.bytes(&frame).len().saturating_sub(usize::from(at));
            let part = (len - done).min(smss).min(room);
            fill(self.link, &mut frame, usize::from(at), done..done + part);
            done += part;
            let seq = self.tcb.queued_end();
            self.queues().send.push(seq, frame, at, u32::try_from(part).expect("a part of a frame"));
        }
        let queued = u32::try_from(len).expect("the driver sends what a few frames hold");
        self.queues().send.unreported += queued;
        self.ready();
        self.take_sent_report()
    }

    /// Text joins the last segment while that waits and is not full. Answers how much did.
    fn fill_last(&mut self, len: usize, fill: &impl Fn(&mut L, &mut L::Frame, usize, Range<usize>)) -> usize {
        let smss = usize::from(self.tcb.smss());
        let Some(queues) = &mut self.tcb.queues else { return 0 };
        let Some(last) = queues.send.growing() else { return 0 };
        let Some(frame) = &mut last.frame else { return 0 };
        if self.link.is_in_flight(frame) {
            return 0;
        }
        let end = usize::from(last.at) + last.len as usize;
        let room =
            self.link.bytes(frame).len().saturating_sub(end).min(smss.saturating_sub(last.len as usize));
        let part = len.min(room);
        fill(self.link, frame, end, 0..part);
        let grown = u32::try_from(part).expect("a part of a frame");
        last.len += grown;
        queues.send.grew(grown);
        part
    }

    /// Where text begins in a frame.
    fn text_offset(&mut self) -> u16 {
        let link_header = self.hop().map_or(LINK_HEADER_GUESS, |hop| u16::from(hop.header_len));
        link_header + self.tcb.header_len()
    }

    /// The driver has queued more than there was memory for. Bytes are missing, so that the stream is over.
    fn out_of_frames(&mut self) {
        self.shared.counters.no_frame += 1;
        if self.tcb.state.is_synchronized() {
            self.send_reset(self.tcb.snd.nxt);
        }
        self.break_off(ResetReason::OutOfFrames, ConnectFailure::TimedOut);
    }

    /// CLOSE by a user that will not read either. What is queued and FIN are still delivered; unread text is
    /// not, and that the peer must learn (SHLD-3).
    pub(crate) fn close(&mut self) {
        self.tcb.flags.orphan = true;
        match self.tcb.state {
            State::Closed | State::SynSent => {
                self.enter_closed();
                return;
            }
            _ if self.tcb.queues.as_ref().is_some_and(|queues| queues.receive.frames() > 0) => {
                self.abort();
                return;
            }
            _ => {}
        }
        if !self.tcb.flags.fin_queued {
            self.shared.queue_fin(self.slot(), self.tcb);
        }
        if self.tcb.state != State::TimeWait {
            let queued = self.tcb.queues.as_ref().map_or(0, |queues| queues.send.text_bytes());
            // Much text is given time, so that a slow client gets all of it.
            let allowance = Duration::from_secs(u64::from(queued / LEAST_BYTES_PER_SECOND));
            self.tcb.deadlines.life = self.now.plus(self.shared.settings.orphan_timeout + allowance);
        }
        self.retire();
    }

    /// ABORT.
    pub(crate) fn abort(&mut self) {
        let tells_peer = matches!(
            self.tcb.state,
            State::SynReceived
                | State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck
        );
        if tells_peer {
            self.send_reset(self.tcb.snd.nxt);
        }
        self.tcb.flags.orphan = true;
        self.enter_closed();
    }

    /// Both FINs are acknowledged.
    pub(crate) fn enter_time_wait(&mut self) {
        self.tcb.state = State::TimeWait;
        self.tcb.deadlines.retransmit = crate::tcb::NEVER;
        self.tcb.deadlines.life = self.now.plus(WAIT);
    }

    /// A connection in TIME-WAIT that nobody reads and that owes nothing becomes a record of 64 bytes.
    pub(crate) fn retire(&mut self) {
        let flags = self.tcb.flags;
        if self.tcb.state != State::TimeWait || !flags.orphan || flags.ack_due || flags.forget {
            return;
        }
        let timestamps = self
            .tcb
            .timestamps
            .then_some(ClosedTimestamps { recent: self.tcb.ts_recent, offset: self.tcb.ts_offset });
        let closed = Closed {
            local: self.tcb.tuple.local(),
            remote: self.tcb.tuple.remote(),
            snd_nxt: self.tcb.snd.nxt,
            rcv_nxt: self.tcb.rcv.nxt,
            window: u16::try_from(self.tcb.rcv.wnd >> self.tcb.rcv_wnd_shift).unwrap_or(u16::MAX),
            timestamps,
            vlan: self.tcb.vlan,
        };
        self.shared.time_wait.insert(self.now, &closed);
        self.enter_closed();
    }

    /// Fails a connection that a router says cannot come about.
    pub(crate) fn unreachable(&mut self) {
        if !self.tcb.flags.orphan {
            self.event(Event::ConnectFailed(self.id, ConnectFailure::Unreachable));
        }
        self.enter_closed();
    }
}
