//! Phase two of fake TLS: our flight is sent; ChangeCipherSpec and the init frame are still to come.
//!
//! The client has proved that it knows the secret, so it is no longer fronted: what it does wrong now
//! only closes its session (protocol.md 6.8).

use std::sync::Arc;

use super::{Authentic, Farewell, Phase, Proxied, Relaying, Turn};
use crate::config::Config;
use crate::credentials::SecretId;
use crate::error::{DropReason, PeerMisbehaved};
use crate::event::What;
use crate::fake_tls::{CHANGE_CIPHER_SPEC, RecordReader};
use crate::obfuscated2::INIT_FRAME_LEN;
use crate::stream::{Endpoints, StreamId};
use crate::transport::Transport;

/// A client whose hello was answered.
pub(crate) struct Greeted {
    client: StreamId,
    ends: Endpoints,
    /// The configuration under which the hello was answered: a reload may number secrets anew.
    config: Arc<Config>,
    secret: SecretId,
    change_cipher_spec_len: usize,
    records: RecordReader,
    frame: [u8; INIT_FRAME_LEN],
    frame_len: usize,
}

impl Greeted {
    pub(crate) fn begin(client: StreamId, ends: Endpoints, config: Arc<Config>, secret: SecretId) -> Self {
        Self {
            client,
            ends,
            config,
            secret,
            change_cipher_spec_len: 0,
            records: RecordReader::default(),
            frame: [0; INIT_FRAME_LEN],
            frame_len: 0,
        }
    }

    pub(crate) fn client(&self) -> StreamId {
        self.client
    }

    pub(crate) fn receive(mut self, bytes: &mut [u8], turn: &mut Turn<'_>) -> Phase {
        match self.collect_frame(bytes) {
            Ok(None) => Phase::Greeted(self),
            Ok(Some(behind_frame)) => self.authenticate(bytes, behind_frame, turn),
            Err(why) => self.misbehaved(why, turn),
        }
    }

    /// The client closes, or takes too long.
    pub(crate) fn misbehaved(self, why: PeerMisbehaved, turn: &mut Turn<'_>) -> Phase {
        turn.report(What::Misbehaved(why));
        turn.leave(&[(self.client, Farewell::Close)], Err(DropReason::Misbehaved))
    }

    /// Where the bytes behind the init frame begin, once it is complete.
    fn collect_frame(&mut self, bytes: &[u8]) -> Result<Option<usize>, PeerMisbehaved> {
        let mut at = 0;
        while self.change_cipher_spec_len < CHANGE_CIPHER_SPEC.len() {
            let Some(&byte) = bytes.get(at) else { return Ok(None) };
            if byte != CHANGE_CIPHER_SPEC[self.change_cipher_spec_len] {
                return Err(PeerMisbehaved::ExpectedChangeCipherSpec);
            }
            self.change_cipher_spec_len += 1;
            at += 1;
        }
        while self.frame_len < INIT_FRAME_LEN {
            let missing = INIT_FRAME_LEN - self.frame_len;
            let Some(body) = self.records.next_body(bytes, &mut at, missing)? else { return Ok(None) };
            self.frame[self.frame_len..][..body.len()].copy_from_slice(&bytes[body.clone()]);
            self.frame_len += body.len();
        }
        Ok(Some(at))
    }

    fn authenticate(self, bytes: &mut [u8], behind_frame: usize, turn: &mut Turn<'_>) -> Phase {
        let opened = self.config.credentials.open_inner_init_frame(self.secret, &self.frame);
        let Some(opened) = opened.filter(|frame| frame.transport == Transport::PaddedIntermediate) else {
            return self.misbehaved(PeerMisbehaved::UnknownInnerInitFrame, turn);
        };
        let config = &turn.shared.config;
        let secret = if Arc::ptr_eq(config, &self.config) {
            self.secret
        } else {
            config.credentials.renumbered(self.secret, &self.config.credentials)
        };
        let (client, ends) = (self.client, self.ends);
        let who = Authentic { client, ends, secret, opened, records: Some(self.records) };
        if turn.goes_by_middle_proxy(secret) {
            return Proxied::begin(turn, who, bytes, behind_frame);
        }
        let mut phase = Relaying::dial(turn, who);
        if let Phase::Dialing(dialing) = &mut phase
            && let Err(why) = dialing.relay_payload(bytes, behind_frame, turn)
        {
            turn.report(What::Misbehaved(why));
            turn.abort(dialing.legs.upstream);
            return turn.leave(&[(dialing.legs.client, Farewell::Close)], Err(DropReason::Misbehaved));
        }
        phase
    }
}
