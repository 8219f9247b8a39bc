//! What a phase may use while it handles one input: the engine less its sessions.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use crate::action::{Action, Actions};
use crate::config::{Config, Route};
use crate::credentials::{RecentSecrets, SecretId};
use crate::deadline::{Deadline, Deadlines};
use crate::error::PeerMisbehaved;
use crate::event::{Event, SessionNumber, What};
use crate::fake_tls::KeyShares;
use crate::middle_proxy::links::Links;
use crate::packet_buffers::PacketBuffers;
use crate::policy::address_memory::AddressMemory;
use crate::policy::replay::HelloAdmission;
use crate::random::Random;
use crate::session::{AfterDial, Closing, Dialing, Discarding, Farewell, Legs, Outcome, Phase};
use crate::session_key::SessionKey;
use crate::stream::{Leg, Owner, StreamId, Streams};
use crate::time::Now;

/// The parts of an engine that its sessions share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) random: Random,
    pub(crate) key_shares: KeyShares,
    pub(crate) admission: Box<dyn HelloAdmission + Send>,
    pub(crate) recent_secrets: RecentSecrets,
    pub(crate) address_memory: AddressMemory,
    pub(crate) streams: Streams,
    pub(crate) deadlines: Deadlines,
    pub(crate) links: Links,
    /// For what clients of middle proxies have said and nobody has taken yet.
    pub(crate) buffers: PacketBuffers,
    /// Bytes in them.
    pub(crate) held_bytes: usize,
    /// Bytes received so far, by the [`Leg`] they came from.
    pub(crate) received_bytes: [u64; 2],
}

/// One session's access to them, for one input.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    pub(crate) session: SessionKey,
    pub(crate) number: SessionNumber,
    pub(crate) shared: &'a mut Shared,
    pub(crate) actions: &'a mut Actions,
}

impl Turn<'_> {
    pub(crate) fn report(&mut self, what: What) {
        self.actions.push(Action::Report(Event { session: self.number, what }));
    }

    pub(crate) fn arm(&mut self, deadline: Deadline) {
        self.shared.deadlines.arm(self.session, deadline, self.now.instant);
    }

    /// Queues whatever `compose` appends.
    pub(crate) fn write_with(&mut self, to: StreamId, compose: impl FnOnce(&mut Vec<u8>)) {
        let len = self.actions.write_with(to, compose);
        self.add_backlog(to, len);
    }

    /// Queues what `compose` appends with the help of key shares and randomness.
    pub(crate) fn greet_with(
        &mut self,
        to: StreamId,
        compose: impl FnOnce(&mut Vec<u8>, &mut KeyShares, &mut Random),
    ) {
        let Shared { key_shares, random, .. } = &mut *self.shared;
        let len = self.actions.write_with(to, |out| compose(out, key_shares, random));
        self.add_backlog(to, len);
    }

    /// Queues a part of the input.
    pub(crate) fn relay(&mut self, to: StreamId, range: Range<usize>) {
        self.add_backlog(to, range.len());
        self.actions.push(Action::Relay { to, range });
    }

    /// So many more bytes wait for `to`.
    pub(crate) fn add_backlog(&mut self, to: StreamId, len: usize) {
        self.shared.streams.add_backlog(to, len);
    }

    /// Lets the driver read a stream again whose credit has risen.
    pub(crate) fn resume(&mut self, stream: StreamId) {
        self.actions.push(Action::Resume(stream));
    }

    /// Queues FIN, once.
    pub(crate) fn shut_down(&mut self, to: StreamId) {
        if let Some(stream) = self.shared.streams.get_mut(to)
            && !stream.shut_down
        {
            stream.shut_down = true;
            self.actions.push(Action::Shutdown(to));
        }
    }

    pub(crate) fn close(&mut self, stream: StreamId) {
        self.shared.streams.remove(stream);
        self.actions.push(Action::Close(stream));
    }

    pub(crate) fn abort(&mut self, stream: StreamId) {
        self.shared.streams.remove(stream);
        self.actions.push(Action::Abort(stream));
    }

    /// Forgets a stream that the driver has already lost.
    pub(crate) fn forget(&mut self, stream: StreamId) {
        self.shared.streams.remove(stream);
    }

    pub(crate) fn has_ended(&self, stream: StreamId) -> bool {
        self.shared.streams.get(stream).is_some_and(|stream| stream.ended)
    }

    pub(crate) fn remember_secret(&mut self, source: IpAddr, secret: SecretId) {
        self.shared.recent_secrets.remember(source, secret);
    }

    /// True if clients with this secret go by middle proxies.
    pub(crate) fn goes_by_middle_proxy(&self, secret: SecretId) -> bool {
        let config = &self.shared.config;
        config.middle_proxies.is_some() && config.credentials.route(secret) == Route::MiddleProxies
    }

    /// Connects the client to one of `addresses`; `after` says what for.
    pub(crate) fn dial(&mut self, client: StreamId, addresses: &[SocketAddr], after: AfterDial) -> Phase {
        let upstream = self.shared.streams.open(Owner::Session(self.session, Leg::Upstream));
        Dialing::begin(self, Legs { client, upstream }, addresses, after)
    }

    /// A stranger: connects it to the real site, with every byte it has sent; or meets it with silence.
    pub(crate) fn front(
        &mut self,
        client: StreamId,
        why: PeerMisbehaved,
        front: usize,
        received: &[u8],
    ) -> Phase {
        let config = Arc::clone(&self.shared.config);
        let Some(front) = config.fronts.get(front) else {
            return Discarding::begin(self, client, why);
        };
        self.report(What::Fronted(why));
        let phase = self.dial(client, &front.addresses, AfterDial::Front);
        if let Phase::Dialing(dialing) = &phase {
            let upstream = dialing.legs.upstream;
            self.write_with(upstream, |out| out.extend_from_slice(received));
            if self.has_ended(client) {
                self.shut_down(upstream);
            }
        }
        phase
    }

    /// Ends the session as soon as what is queued for its peers is sent.
    pub(crate) fn leave(&mut self, farewells: &[(StreamId, Farewell)], outcome: Outcome) -> Phase {
        Closing::begin(self, farewells, outcome)
    }
}
