//! The beginning of a link, at the middle proxy: nonces and handshakes (protocol.md sections 7.2 to 7.4).

use super::codec::{Ciphers, MiddleProxyCodec, Outgoing};
use super::fault::LinkFault;
use super::frames::{Checksum, FILLER, Flaw};
use super::keys::{Decryptor, Encryptor, KeyMaterial, Nonce, Purpose};
use super::manner::{HandshakeFault, Misbehaviour, NonceFault};
use super::record::Phase;
use super::wire::{CAN_CRC32C, HandshakeMessage, NonceMessage, ProcessId, SCHEMA_AES, op};
use crate::dc_codec::Ending;

/// How far the clocks of both ends may be apart, in seconds (section 7.2).
pub(super) const CLOCK_SKEW_MAX: i64 = 30;

/// The first four bytes of a proxy secret: its name.
///
/// # Panics
/// If it is shorter.
pub(super) fn selector(secret: &[u8]) -> [u8; 4] {
    *secret.first_chunk().expect("a proxy secret has 32 bytes at least")
}

impl MiddleProxyCodec {
    pub(super) fn hear_nonce(&mut self, payload: &[u8]) -> Result<(), LinkFault> {
        let theirs = NonceMessage::parse(payload)?;
        let behind_len = self.reader.buffered_len();
        let skew = i64::from(theirs.unix) - i64::from(self.unix);
        let selector = selector(&self.options.secret);
        if self.reader.fillers() > 0 || behind_len > 0 {
            return Err(LinkFault::BytesBehindNonce { found: behind_len });
        } else if theirs.selector != selector {
            return Err(LinkFault::Selector { found: theirs.selector });
        } else if theirs.schema != SCHEMA_AES {
            return Err(LinkFault::Schema { found: theirs.schema });
        } else if skew.abs() > CLOCK_SKEW_MAX {
            return Err(LinkFault::Clock { skew });
        }
        let nonce: Nonce = self.random.bytes();
        let material = KeyMaterial {
            middle_proxy_nonce: &nonce,
            proxy_nonce: &theirs.nonce,
            proxy_unix: theirs.unix,
            ends: self.ends,
            secret: &self.options.secret,
        };
        self.ciphers = Some(Ciphers {
            from_proxy: Decryptor::new(&material.derive(Purpose::ToMiddleProxy)),
            to_proxy: Encryptor::new(&material.derive(Purpose::ToProxy)),
            cut: Vec::new(),
        });
        self.reader.begin_blocks();
        self.report.phase = Phase::AwaitingHandshake;
        let fault = match self.options.misbehaviour {
            Some(Misbehaviour::Nonce(fault)) => Some(fault),
            _ => None,
        };
        self.answer_nonce(
            NonceMessage { selector, schema: SCHEMA_AES, unix: self.unix, nonce },
            &theirs,
            fault,
        );
        Ok(())
    }

    fn answer_nonce(&mut self, mut ours: NonceMessage, theirs: &NonceMessage, fault: Option<NonceFault>) {
        let mut flaw = None;
        match fault {
            None | Some(NonceFault::Op | NonceFault::Length) => {}
            Some(NonceFault::Never) => return,
            Some(NonceFault::Selector) => ours.selector[0] ^= 1,
            Some(NonceFault::Schema(schema)) => ours.schema = schema,
            Some(NonceFault::ClockSkew(seconds)) => ours.unix = theirs.unix.wrapping_add(seconds),
            Some(NonceFault::BytesBehind) => self.outbox.push_back(Outgoing::Words(FILLER.repeat(4))),
            Some(NonceFault::Checksum) => flaw = Some(Flaw::Checksum),
            Some(NonceFault::Sequence(offset)) => flaw = Some(Flaw::Sequence(offset)),
        }
        let mut payload = ours.payload();
        match fault {
            Some(NonceFault::Op) => payload[..4].copy_from_slice(&op::HANDSHAKE.to_le_bytes()),
            Some(NonceFault::Length) => payload.truncate(28),
            _ => {}
        }
        self.report.counters.frames_sent += 1;
        self.writer.append(&payload, flaw, &mut self.clear);
    }

    pub(super) fn hear_handshake(&mut self, payload: &[u8]) -> Result<(), LinkFault> {
        let (theirs, offered, peer) = match HandshakeMessage::parse(payload) {
            Ok(HandshakeMessage::Handshake { flags, sender, peer }) => (sender, flags, peer),
            Ok(HandshakeMessage::Error { code, .. }) => return Err(LinkFault::Refused { code }),
            Err(LinkFault::MessageLength { op: op::HANDSHAKE, .. }) => {
                self.refuse(-3, "it has a wrong length");
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        self.report.proxy = theirs;
        self.report.handshake_flags = offered;
        let fault = match self.options.misbehaviour {
            Some(Misbehaviour::Handshake(fault)) => Some(fault),
            _ => None,
        };
        match fault {
            _ if offered & 0xff != 0 => self.refuse(-7, "it has unknown flags"),
            _ if !self.process().is_meant_by(&peer) => self.refuse(-4, "it is meant for another process"),
            Some(HandshakeFault::Refusal(code)) => {
                self.refuse(code, "");
                self.report.fault = None;
            }
            // The phase stays: whoever goes on without an answer is at fault.
            Some(HandshakeFault::Never) => {}
            _ => self.answer_handshake(theirs, offered, fault),
        }
        Ok(())
    }

    /// Refuses the proxy's handshake and ends the link.
    fn refuse(&mut self, code: i32, what: &'static str) {
        self.report.fault = Some(LinkFault::Handshake { what });
        let payload = HandshakeMessage::Error { code, sender: self.process() }.payload();
        self.outbox.push_back(Outgoing::Frame { payload, flaw: None });
        self.ending = Some(Ending::Close);
    }

    fn answer_handshake(&mut self, mut theirs: ProcessId, offered: u32, fault: Option<HandshakeFault>) {
        let mut uses_crc32c = self.options.accepts_crc32c && offered & CAN_CRC32C != 0;
        let mut further_flags = 0;
        let mut flaw = None;
        match fault {
            Some(HandshakeFault::Peer) => theirs.start_unix ^= 1,
            Some(HandshakeFault::Flags(flags)) => further_flags = flags,
            Some(HandshakeFault::Crc32cUnasked) => uses_crc32c = true,
            Some(HandshakeFault::Checksum) => flaw = Some(Flaw::Checksum),
            Some(HandshakeFault::Sequence(offset)) => flaw = Some(Flaw::Sequence(offset)),
            _ => {}
        }
        let flags = further_flags | if uses_crc32c { CAN_CRC32C } else { 0 };
        let message = HandshakeMessage::Handshake { flags, sender: self.process(), peer: theirs };
        let mut payload = message.payload();
        if fault == Some(HandshakeFault::Length) {
            payload.truncate(28);
        }
        if fault == Some(HandshakeFault::InClear) {
            let mut raw = Vec::new();
            self.writer.append(&payload, None, &mut raw);
            self.report.counters.frames_sent += 1;
            self.outbox.push_back(Outgoing::Raw(raw));
        } else {
            self.outbox.push_back(Outgoing::Frame { payload, flaw });
        }
        if uses_crc32c {
            self.outbox.push_back(Outgoing::Checksum(Checksum::Crc32c));
            self.reader.set_checksum(Checksum::Crc32c);
        }
        self.report.uses_crc32c = uses_crc32c;
        self.report.phase = Phase::Ready;
        self.misbehave_if_due();
    }
}
