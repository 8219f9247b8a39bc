//! Who may use the proxy: the configured secrets, and the two questions asked of them.
//!
//! The wire names no user. A fake-TLS hello or an init frame belongs to the secret under which it
//! verifies, so the secrets are tried one by one: each in constant time, the search ending at the match.
//! What keeps hundreds of them cheap is the order:
//!
//! * a hello is tried only under the secrets that serve the domain it greets;
//! * the secret that last matched for the same source address is tried first (`RecentSecrets`).
//!   Clients open several connections, so with many users nearly all searches end at the first try;
//! * the two hash states that HMAC derives from its key are prepared once per secret.
//!
//! docs/benchmarks.md has the cost for 1, 100 and 1000 secrets.

use std::net::IpAddr;

use hmac::{Hmac, KeyInit};
use sha2::Sha256;

use crate::config::Route;
use crate::fake_tls::ClientHello;
use crate::keyed_hash::KeyedHash;
use crate::obfuscated2::{INIT_FRAME_LEN, InitFrame};
use crate::secret::{Secret, SecretKind};
use crate::transport::Transport;

/// The configured secrets, prepared for authentication.
#[derive(Clone, Default)]
pub struct Credentials {
    entries: Vec<Credential>,
}

/// Index of a secret in [`Credentials`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretId(pub u32);

impl SecretId {
    /// Of a secret that a reload has removed after a client had shown it.
    pub const REMOVED: Self = Self(u32::MAX);
}

#[derive(Clone)]
struct Credential {
    name: String,
    secret: Secret,
    route: Route,
    /// HMAC-SHA256 with the key already absorbed.
    hmac: Hmac<Sha256>,
}

impl Credentials {
    /// Credentials in the order of configuration, each with the name that statistics show. Their clients go by middle
    /// proxies, if there are any.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = (String, Secret)>) -> Self {
        Self::routed(secrets.into_iter().map(|(name, secret)| (name, secret, Route::MiddleProxies)))
    }

    /// The same, where each secret has a route.
    #[must_use]
    pub fn routed(secrets: impl IntoIterator<Item = (String, Secret, Route)>) -> Self {
        let prepare = |(name, secret, route): (String, Secret, Route)| {
            let hmac = Hmac::new_from_slice(secret.key()).expect("HMAC takes a key of any length");
            Credential { name, secret, route, hmac }
        };
        Self { entries: secrets.into_iter().map(prepare).collect() }
    }

    /// How many secrets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if nobody may use the proxy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if some secret opens init frames that do not come inside TLS.
    #[must_use]
    pub fn admit_without_tls(&self) -> bool {
        self.entries.iter().any(|credential| !matches!(credential.secret.kind(), SecretKind::FakeTls(_)))
    }

    /// The names of all secrets, for statistics and logs, in the order of their [`SecretId`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|credential| credential.name.as_str())
    }

    /// Where clients with the secret `id` go. One that a reload has removed goes where all go unless told otherwise.
    pub(crate) fn route(&self, id: SecretId) -> Route {
        self.get(id).map_or(Route::MiddleProxies, |credential| credential.route)
    }

    /// The number that the secret `id` of `older` has here. A reload may number secrets anew; the name is
    /// what stays.
    pub(crate) fn renumbered(&self, id: SecretId, older: &Self) -> SecretId {
        let name = older.get(id).map(|credential| credential.name.as_str());
        let found = (0..).map(SecretId).zip(self.names()).find(|(_, other)| Some(*other) == name);
        found.map_or(SecretId::REMOVED, |(id, _)| id)
    }

    /// HMAC-SHA256 under the key of `id`, ready for data.
    pub(crate) fn hmac(&self, id: SecretId) -> Option<Hmac<Sha256>> {
        self.get(id).map(|credential| credential.hmac.clone())
    }

    /// The secret under which `hello` is authentic, and the client's clock in Unix seconds.
    #[must_use]
    pub fn authenticate_hello(
        &self,
        hello: &ClientHello<'_>,
        likely: Option<SecretId>,
    ) -> Option<(SecretId, u32)> {
        let server_name = hello.server_name()?;
        self.search(likely, |credential| {
            let serves = match credential.secret.kind() {
                SecretKind::Plain => true,
                SecretKind::Padded => false,
                SecretKind::FakeTls(domain) => domain.as_str().as_bytes() == server_name,
            };
            if serves { hello.verify(credential.hmac.clone()) } else { None }
        })
    }

    /// The secret that opens an init frame that did not come inside TLS, and what the frame says.
    #[must_use]
    pub fn authenticate_init_frame(
        &self,
        frame: &[u8; INIT_FRAME_LEN],
        likely: Option<SecretId>,
    ) -> Option<(SecretId, InitFrame)> {
        self.search(likely, |credential| {
            let opened = match credential.secret.kind() {
                SecretKind::FakeTls(_) => return None,
                SecretKind::Plain | SecretKind::Padded => {
                    InitFrame::open(frame, Some(credential.secret.key()))?
                }
            };
            let admitted = *credential.secret.kind() == SecretKind::Plain
                || opened.transport == Transport::PaddedIntermediate;
            admitted.then_some(opened)
        })
    }

    /// The init frame inside a fake-TLS stream, opened with the secret that authenticated its hello.
    #[must_use]
    pub fn open_inner_init_frame(&self, id: SecretId, frame: &[u8; INIT_FRAME_LEN]) -> Option<InitFrame> {
        self.get(id).and_then(|credential| InitFrame::open(frame, Some(credential.secret.key())))
    }

    fn get(&self, id: SecretId) -> Option<&Credential> {
        self.entries.get(id.0 as usize)
    }

    fn search<T>(
        &self,
        likely: Option<SecretId>,
        attempt: impl Fn(&Credential) -> Option<T>,
    ) -> Option<(SecretId, T)> {
        let at_first = likely.and_then(|id| Some((id, attempt(self.get(id)?)?)));
        at_first.or_else(|| {
            let in_order = (0..).map(SecretId).zip(&self.entries);
            in_order
                .filter(|(id, _)| Some(*id) != likely)
                .find_map(|(id, credential)| Some((id, attempt(credential)?)))
        })
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|credential| &credential.name)).finish()
    }
}

/// Slots of `RecentSecrets`: one cache line of source addresses in eight for a busy worker, 32 KiB.
const RECENT_SLOTS: usize = 4096;

/// Remembers which secret last matched for a source address. A hint about the order of the search,
/// never a decision: a wrong or forgotten hint only costs the time it would have saved.
pub(crate) struct RecentSecrets {
    hash: KeyedHash,
    /// Direct-mapped: high half of the address's hash, and the secret.
    slots: Box<[(u32, u32)]>,
}

impl RecentSecrets {
    pub(crate) fn new(hash: KeyedHash) -> Self {
        Self { hash, slots: vec![(0, u32::MAX); RECENT_SLOTS].into_boxed_slice() }
    }

    pub(crate) fn likely(&self, source: IpAddr) -> Option<SecretId> {
        let (slot, check) = self.place(source);
        let (found, secret) = self.slots[slot];
        (found == check && secret != u32::MAX).then_some(SecretId(secret))
    }

    pub(crate) fn remember(&mut self, source: IpAddr, secret: SecretId) {
        let (slot, check) = self.place(source);
        self.slots[slot] = (check, secret.0);
    }

    /// Secrets are about to be renumbered.
    pub(crate) fn forget_all(&mut self) {
        self.slots.fill((0, u32::MAX));
    }

    fn place(&self, source: IpAddr) -> (usize, u32) {
        let hash = self.hash.of(&source);
        (hash as usize % RECENT_SLOTS, (hash >> 32) as u32)
    }
}
