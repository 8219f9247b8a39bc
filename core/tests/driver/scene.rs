//! One session, brought to the phase in which a test begins: the client at one end, the data centre or
//! front at the other, and the world between them.

use std::time::Duration;

use mtproxy_core::aes_ctr::AesCtr;
use mtproxy_core::config::Config;
use mtproxy_core::error::DropReason;
use mtproxy_core::obfuscated2::{INIT_FRAME_LEN, InitFrame};
use mtproxy_core::random::Random;
use mtproxy_core::secret::{Secret, SecretKind};
use mtproxy_core::stream::StreamId;
use mtproxy_tests::{ClientCodec, ClientOptions};

use super::{DC, FRONT_DOMAIN, Told, UNIX_SECONDS, World, config, fake_tls, frontless};

/// What the strangers of these tests begin with: 64 bytes that no secret opens.
pub(crate) const STRANGE: [u8; INIT_FRAME_LEN] = [0x41; INIT_FRAME_LEN];

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) client: StreamId,
    /// The Telegram app; `None`: a stranger.
    codec: Option<ClientCodec>,
    client_decoded: Vec<u8>,
    client_decoded_to: usize,
    dc: Option<Dc>,
}

/// The data centre's ciphers, from the init frame it received.
struct Dc {
    from_proxy: AesCtr,
    to_client: AesCtr,
    decoded: Vec<u8>,
    decoded_to: usize,
}

impl Scene {
    /// A client that has connected and said nothing.
    pub(crate) fn silent(config: Config) -> Self {
        let mut world = World::new(config);
        let client = world.connect();
        Self { world, client, codec: None, client_decoded: Vec::new(), client_decoded_to: 0, dc: None }
    }

    /// A stranger that has said `first`.
    pub(crate) fn stranger(config: Config, first: &[u8]) -> Self {
        let mut scene = Self::silent(config);
        scene.world.say(scene.client, first);
        scene
    }

    /// A stranger and the front that answers it.
    pub(crate) fn fronting() -> Self {
        let mut scene = Self::stranger(config(), &STRANGE);
        scene.world.answer(scene.upstream());
        scene
    }

    /// A stranger that is met with silence.
    pub(crate) fn discarding() -> Self {
        Self::stranger(frontless(), &STRANGE)
    }

    /// An app that has connected and said nothing; the first bytes are [`opening`](Self::opening).
    pub(crate) fn member_with(config: Config, options: ClientOptions) -> Self {
        let codec = ClientCodec::new(options, Random::from_seed([4; 32]));
        Self { codec: Some(codec), ..Self::silent(config) }
    }

    /// Whoever has the link with `secret`.
    pub(crate) fn member(config: Config, secret: Secret) -> Self {
        Self::member_with(config, ClientOptions::new(secret, DC, UNIX_SECONDS))
    }

    /// A fake-TLS client whose hello was answered: the scene, and what it would say next.
    pub(crate) fn greeted_with(options: ClientOptions) -> (Self, Vec<u8>) {
        let mut scene = Self::member_with(config(), options);
        let hello = scene.opening();
        scene.world.say(scene.client, &hello);
        let answer = scene.answer_of_handshake();
        (scene, answer)
    }

    pub(crate) fn greeted() -> (Self, Vec<u8>) {
        Self::greeted_with(ClientOptions::new(fake_tls(FRONT_DOMAIN), DC, UNIX_SECONDS))
    }

    /// An app that is authentic, and its data centre that is being dialled.
    pub(crate) fn dialing_with(config: Config, secret: Secret) -> Self {
        let is_fake_tls = matches!(secret.kind(), SecretKind::FakeTls(_));
        let mut scene = Self::member(config, secret);
        let opening = scene.opening();
        scene.world.say(scene.client, &opening);
        if is_fake_tls {
            let answer = scene.answer_of_handshake();
            scene.world.say(scene.client, &answer);
        }
        scene
    }

    pub(crate) fn dialing(secret: Secret) -> Self {
        Self::dialing_with(config(), secret)
    }

    /// An app and its data centre.
    pub(crate) fn relaying_with(config: Config, secret: Secret) -> Self {
        let mut scene = Self::dialing_with(config, secret);
        scene.world.answer(scene.upstream());
        scene
    }

    pub(crate) fn relaying(secret: Secret) -> Self {
        Self::relaying_with(config(), secret)
    }

    pub(crate) fn upstream(&self) -> StreamId {
        self.world.upstream().expect("an upstream was dialled")
    }

    /// What a fake-TLS client says once it has received our flight.
    pub(crate) fn answer_of_handshake(&mut self) -> Vec<u8> {
        self.decode_client()
    }

    pub(crate) fn opening(&mut self) -> Vec<u8> {
        self.codec.as_mut().expect("a member").opening()
    }

    /// Payload of an app as it is on the wire.
    pub(crate) fn encode(&mut self, payload: &[u8]) -> Vec<u8> {
        self.codec.as_mut().expect("a member").encode(payload)
    }

    /// The client sends payload: encrypted if it is an app, as it is if it is a stranger.
    pub(crate) fn client_says(&mut self, payload: &[u8]) {
        let wire = self.codec.as_mut().map_or_else(|| payload.to_vec(), |codec| codec.encode(payload));
        self.world.say(self.client, &wire);
    }

    /// The data centre or the front sends payload.
    pub(crate) fn upstream_says(&mut self, payload: &[u8]) {
        let wire = self.upstream_encode(payload);
        self.world.say(self.upstream(), &wire);
    }

    /// Payload of the data centre or front as it is on the wire.
    pub(crate) fn upstream_encode(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut wire = payload.to_vec();
        if self.codec.is_some() {
            self.decode_upstream();
            self.dc.as_mut().expect("the init frame has come").to_client.apply(&mut wire);
        }
        wire
    }

    /// All payload that the client has received.
    pub(crate) fn client_heard(&mut self) -> Vec<u8> {
        if self.codec.is_none() {
            return self.world.heard(self.client).to_vec();
        }
        let to_send = self.decode_client();
        assert!(to_send.is_empty(), "a handshake in the middle of a relay");
        self.client_decoded.clone()
    }

    /// All payload that the data centre has received, or all bytes that the front has.
    pub(crate) fn upstream_heard(&mut self) -> Vec<u8> {
        if self.codec.is_none() {
            return self.world.heard(self.upstream()).to_vec();
        }
        self.decode_upstream();
        self.dc.as_ref().map(|dc| dc.decoded.clone()).unwrap_or_default()
    }

    pub(crate) fn client_told(&self) -> Told {
        self.world.told(self.client)
    }

    pub(crate) fn upstream_told(&self) -> Told {
        self.world.upstream().map_or(Told::Absent, |upstream| self.world.told(upstream))
    }

    /// Waits for the next deadline; it must come after `after`.
    pub(crate) fn times_out_after(&mut self, after: Duration) {
        assert_eq!(self.world.wait_for_timeout(), after);
    }

    /// The session is over with this outcome, and nothing of it is left.
    pub(crate) fn ended(&mut self, outcome: Result<(), DropReason>) {
        self.world.answer_farewells();
        assert_eq!(self.world.outcome(), Some(outcome));
        self.world.assert_empty();
    }

    /// The session goes on.
    pub(crate) fn goes_on(&self) {
        assert_eq!(self.world.outcome(), None);
        assert_eq!(self.world.engine.session_count(), 1);
    }

    /// Decrypts what has come to the app since the last time. Answers what its handshake sends.
    fn decode_client(&mut self) -> Vec<u8> {
        let heard = self.world.heard(self.client)[self.client_decoded_to..].to_vec();
        self.client_decoded_to += heard.len();
        let progress = self.codec.as_mut().expect("a member").receive(&heard).expect("the proxy is in order");
        self.client_decoded.extend(progress.payload);
        progress.to_send
    }

    fn decode_upstream(&mut self) {
        let heard = self.world.heard(self.upstream());
        if self.dc.is_none() {
            let Some(frame) = heard.first_chunk() else { return };
            let streams = InitFrame::open(frame, None).expect("a data centre opens our init frame").streams;
            self.dc = Some(Dc {
                from_proxy: streams.forward,
                to_client: streams.backward.stream(),
                decoded: Vec::new(),
                decoded_to: INIT_FRAME_LEN,
            });
        }
        let dc = self.dc.as_mut().expect("set above");
        let mut fresh = heard[dc.decoded_to..].to_vec();
        dc.decoded_to += fresh.len();
        dc.from_proxy.apply(&mut fresh);
        dc.decoded.extend(fresh);
    }
}
