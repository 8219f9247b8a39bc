//! What a middle proxy does wrong on a link that is ready.

use super::codec::{MiddleProxyCodec, Outgoing};
use super::frames::{FILLER, Flaw};
use super::keys::BLOCK_LEN;
use super::manner::{DataFault, Malformed, Misbehaviour, Telegram};
use super::record::Phase;
use super::wire::{Message, op};
use crate::pattern;

impl MiddleProxyCodec {
    /// Does something wrong now. A link that is not ready is none of its business.
    pub fn commit(&mut self, fault: &DataFault) {
        if self.report.phase != Phase::Ready {
            self.report.counters.orders_lost += 1;
            return;
        }
        self.report.counters.faults += 1;
        let flags = self.options.answer_flags;
        // A pong that nobody waits for: without its flaw it would be ignored.
        let flawed = |flaw| Outgoing::Frame { payload: Message::Pong(0).payload(), flaw: Some(flaw) };
        let outgoing = match *fault {
            DataFault::Checksum => flawed(Flaw::Checksum),
            DataFault::Sequence(offset) => flawed(Flaw::Sequence(offset)),
            DataFault::SequenceGap(offset) => flawed(Flaw::SequenceGap(offset)),
            DataFault::FrameLength(len) => flawed(Flaw::Length(len)),
            DataFault::Noise(len) => Outgoing::Raw(pattern::bytes(1 << 41, len.next_multiple_of(BLOCK_LEN))),
            DataFault::AnswerTo(connection) => {
                Outgoing::Message(Message::Answer { flags, connection, packet: vec![0x99; 56] })
            }
            DataFault::SimpleAckTo(connection) => {
                Outgoing::Message(Message::SimpleAck { connection, token: 0x8000_0001 })
            }
            DataFault::CloseExtOf(connection) => Outgoing::Message(Message::CloseExt(connection)),
            DataFault::Malformed(kind) => Outgoing::Frame { payload: malformed(kind), flaw: None },
            DataFault::Op(op) => Outgoing::Frame { payload: op.to_le_bytes().to_vec(), flaw: None },
            DataFault::Fillers(count) => Outgoing::Words(FILLER.repeat(count)),
            DataFault::Stall => return self.stall(),
            DataFault::Silence => {
                self.options.telegram = Telegram::Silent;
                self.answers_pings = false;
                self.clients.hush();
                return;
            }
            DataFault::NoPongs => {
                self.answers_pings = false;
                return;
            }
            DataFault::End(ending) => {
                self.ending = Some(ending);
                return;
            }
            DataFault::CloseExt => {
                return self.last_connection.into_iter().for_each(|last| self.close_client(last));
            }
            DataFault::AnswerOf(len) => {
                let packet = pattern::bytes(0, len);
                return self.last_connection.into_iter().for_each(|last| self.push(last, &packet));
            }
        };
        self.outbox.push_back(outgoing);
    }

    /// Does what it was told to do wrong, if this is when.
    pub(super) fn misbehave_if_due(&mut self) {
        let due = match &self.options.misbehaviour {
            Some(Misbehaviour::After { requests, fault }) if *requests == self.report.counters.requests => {
                Some(fault.clone())
            }
            _ => None,
        };
        due.into_iter().for_each(|fault| self.commit(&fault));
    }
}

fn malformed(kind: Malformed) -> Vec<u8> {
    let (op, len) = match kind {
        Malformed::Answer => (op::PROXY_ANS, 12),
        Malformed::SimpleAckShort => (op::SIMPLE_ACK, 12),
        Malformed::SimpleAckLong => (op::SIMPLE_ACK, 20),
        Malformed::CloseExt => (op::CLOSE_EXT, 16),
        Malformed::Ping => (op::PING, 8),
    };
    let mut payload = op.to_le_bytes().to_vec();
    payload.resize(len, 0x55);
    payload
}
