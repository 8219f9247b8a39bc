//! The work this proxy exists for: an authentic client's bytes to its data centre, and back.
//!
//! Toward the data centre each byte is XORed with two keystreams, the client's and the data centre's.
//! Toward the client no cipher runs: our init frame made the data centre encrypt with the key that the
//! client expects (protocol.md section 8, item 3). With fake TLS, record headers are taken off on the way
//! up and put between the bytes on the way down.

use std::sync::Arc;

use super::{AfterDial, Authentic, Legs, Phase, Turn};
use crate::aes_ctr::AesCtr;
use crate::error::PeerMisbehaved;
use crate::event::What;
use crate::fake_tls::{RecordReader, RecordWriter};
use crate::obfuscated2::ComposedInitFrame;
use crate::stream::Leg;

/// An authentic client's two directions.
pub(crate) struct Relaying {
    /// Takes the client's cipher off.
    from_client: AesCtr,
    /// Puts the data centre's cipher on.
    to_dc: AesCtr,
    fake_tls: Option<FakeTls>,
}

struct FakeTls {
    from_client: RecordReader,
    to_client: RecordWriter,
}

impl Relaying {
    /// Dials the data centre that the client asks for and queues our init frame to it.
    pub(crate) fn dial(turn: &mut Turn<'_>, who: Authentic) -> Phase {
        let Authentic { client, secret, opened, records, .. } = who;
        let (transport, dc) = (opened.transport, opened.dc);
        turn.report(What::Authenticated { secret, transport, fake_tls: records.is_some(), dc });
        let ours = ComposedInitFrame::for_dc_speaking_to(
            &opened.streams.backward,
            &mut turn.shared.random,
            transport,
            dc,
        );
        let relaying = Self {
            from_client: opened.streams.forward,
            to_dc: ours.streams.forward,
            fake_tls: records.map(|from_client| FakeTls { from_client, to_client: RecordWriter::default() }),
        };
        let config = Arc::clone(&turn.shared.config);
        let phase = turn.dial(client, config.dc_table.addresses(dc), AfterDial::Relay(relaying));
        if let Phase::Dialing(dialing) = &phase {
            turn.write_with(dialing.legs.upstream, |out| out.extend_from_slice(&ours.wire));
        }
        phase
    }

    pub(crate) fn is_opaque(&self, from: Leg) -> bool {
        from == Leg::Upstream && self.fake_tls.is_none()
    }

    pub(crate) fn receive(
        &mut self,
        from: Leg,
        legs: Legs,
        bytes: &mut [u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), PeerMisbehaved> {
        match from {
            Leg::Client => self.relay_to_upstream(legs, bytes, 0, turn),
            Leg::Upstream => {
                self.relay_to_client(legs, bytes.len(), turn);
                Ok(())
            }
        }
    }

    /// Replaces the client's cipher by the data centre's.
    pub(crate) fn rekey(&mut self, bytes: &mut [u8]) {
        self.from_client.apply(bytes);
        self.to_dc.apply(bytes);
    }

    /// Relays the client's `bytes` from `at` on.
    pub(crate) fn relay_to_upstream(
        &mut self,
        legs: Legs,
        bytes: &mut [u8],
        mut at: usize,
        turn: &mut Turn<'_>,
    ) -> Result<(), PeerMisbehaved> {
        let Some(fake_tls) = &mut self.fake_tls else {
            let range = at..bytes.len();
            self.rekey(&mut bytes[range.clone()]);
            turn.relay(legs.upstream, range);
            return Ok(());
        };
        let mut from_client = self.from_client.resume();
        let mut to_dc = self.to_dc.resume();
        while let Some(body) = fake_tls.from_client.next_body(bytes, &mut at, usize::MAX)? {
            from_client.apply(&mut bytes[body.clone()]);
            to_dc.apply(&mut bytes[body.clone()]);
            turn.relay(legs.upstream, body);
        }
        Ok(())
    }

    fn relay_to_client(&mut self, legs: Legs, len: usize, turn: &mut Turn<'_>) {
        let Some(fake_tls) = &mut self.fake_tls else {
            turn.relay(legs.client, 0..len);
            return;
        };
        let mut at = 0;
        while at < len {
            let (header, body_len) = fake_tls.to_client.next_record(len - at);
            turn.write_with(legs.client, |out| out.extend_from_slice(&header));
            turn.relay(legs.client, at..at + body_len);
            at += body_len;
        }
    }
}
