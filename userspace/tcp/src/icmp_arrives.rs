//! ICMP errors about a connection (RFC 9293 §3.9.2.2): believed only if they quote a segment that is in
//! flight, since anybody may send them (RFC 5927).

use crate::connection::Connection;
use crate::drop_reason::DropReason;
use crate::link::Link;
use crate::tcb::State;
use crate::wire::{IcmpError, IcmpKind};

impl<L: Link> Connection<'_, L> {
    /// An ICMP error quotes this four-tuple.
    pub(crate) fn icmp_arrives(&mut self, error: &IcmpError) {
        let snd = self.tcb.snd;
        let is_in_flight = snd.una <= error.embedded_seq && error.embedded_seq < snd.nxt;
        if !is_in_flight {
            self.shared.counters.drop(DropReason::IcmpNotInFlight);
            return;
        }
        match error.kind {
            IcmpKind::PacketTooBig { mtu } => self.packet_too_big(mtu),
            IcmpKind::Unreachable { code } if self.tcb.state == State::SynSent && self.is_hard(code) => {
                self.unreachable();
            }
            // MUST-54 to 56: hints, not reasons. Timers decide.
            IcmpKind::Unreachable { .. } | IcmpKind::Other => self.shared.counters.soft_errors += 1,
        }
    }

    /// A connection that does not exist yet is given up for what cannot be meant to pass: protocol or port
    /// unreachable, or prohibited (SHLD-25 asks to note the soft ones). Codes of RFC 792/1812 and RFC 4443.
    fn is_hard(&self, code: u8) -> bool {
        if self.tcb.tuple.is_ipv4() { matches!(code, 2 | 3 | 9 | 10 | 13) } else { matches!(code, 1 | 4) }
    }

    /// The path takes less (RFC 1191, RFC 8201). What is out and too large is lost; it is cut when it is sent
    /// again. That is no congestion.
    fn packet_too_big(&mut self, mtu: u32) {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        if mtu >= self.tcb.path_mtu {
            self.shared.counters.drop(DropReason::IcmpNotInFlight);
            return;
        }
        self.shared.counters.path_mtu_lowered += 1;
        self.change_path_mtu(mtu);
        let smss = u32::from(self.tcb.smss());
        if let Some(queues) = &mut self.tcb.queues {
            queues.send.lose_longer_than(smss);
        }
        self.tcb.flags.retransmit_due = true;
        self.ready();
    }
}
