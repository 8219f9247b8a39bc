//! Whoever connects: an app with a secret, a replayer, a browser, a scanner.

use super::PAYLOAD_LEN_MAX;
use mtproxy_core::dc::DcId;
use mtproxy_core::random::Random;
use mtproxy_core::secret::{Key, Secret, SecretKind};
use mtproxy_core::transport::Transport;
use mtproxy_tests::client_hello::{CLASSIC_LEN, HelloFault};
use mtproxy_tests::{ClientCodec, ClientOptions};

pub(crate) const PLAIN_KEY: Key = [1; 16];
pub(crate) const PADDED_KEY: Key = [2; 16];
pub(crate) const FAKE_TLS_KEY: Key = [3; 16];
pub(crate) const DOMAIN: &str = "front.example";
pub(crate) const OTHER_DOMAIN: &str = "other.example";

/// One client.
pub(crate) struct Person {
    /// `None`: a stranger, or a client that was not itself.
    pub(crate) codec: Option<ClientCodec>,
    /// What it would say next.
    pending: Vec<u8>,
}

impl Person {
    /// How many kinds there are.
    pub(crate) const KINDS: usize = 12;

    /// The client number `number` of a world, whose clock says `unix_seconds`. `overheard` is what the
    /// client before it began with.
    pub(crate) fn new(kind: usize, number: u8, unix_seconds: u32, overheard: &[u8]) -> Self {
        let plain = |kind| Secret::new(PLAIN_KEY, kind);
        let fake_tls =
            |key, domain: &str| Secret::new(key, SecretKind::FakeTls(domain.parse().expect("a domain")));
        // Data centre 77 has no address.
        let dc = DcId(if number.is_multiple_of(8) { 77 } else { 2 });
        let app = |secret| ClientOptions::new(secret, dc, unix_seconds);
        let mut options = match kind % Self::KINDS {
            0 => app(plain(SecretKind::Plain)),
            1 => app(plain(SecretKind::Plain)).with_transport(Transport::Abridged),
            2 => app(Secret::new(PADDED_KEY, SecretKind::Padded)),
            3 => app(Secret::new(PADDED_KEY, SecretKind::Padded)).with_transport(Transport::Abridged),
            4 => app(fake_tls(FAKE_TLS_KEY, DOMAIN)),
            5 => app(fake_tls(PLAIN_KEY, OTHER_DOMAIN)),
            6 => app(fake_tls(PLAIN_KEY, DOMAIN)).with_hello_len(1800),
            7 => app(fake_tls(PLAIN_KEY, "unknown.example")),
            8 | 9 => app(fake_tls(PLAIN_KEY, DOMAIN)),
            10 => return Self { codec: None, pending: overheard.to_vec() },
            _ => return Self { codec: None, pending: b"GET / HTTP/1.1\r\nHost: front\r\n\r\n".repeat(4) },
        };
        match kind % Self::KINDS {
            8 => options.hello.records = 7,
            9 => {
                const FAULTS: [HelloFault; 3] =
                    [HelloFault::Browser, HelloFault::NoTls13Suite, HelloFault::WrongHmac];
                options.hello.fault = FAULTS[usize::from(number) % FAULTS.len()];
                options.hello.record_len = CLASSIC_LEN + 1;
            }
            _ => {}
        }
        let mut codec = ClientCodec::new(options, Random::from_seed([number; 32]));
        let pending = codec.opening();
        Self { codec: Some(codec), pending }
    }

    pub(crate) fn opening(&self) -> &[u8] {
        &self.pending
    }

    /// Flips a bit of what it would say next.
    pub(crate) fn garble(&mut self, number: usize) {
        let len = self.pending.len();
        if let Some(byte) = self.pending.get_mut(number % len.max(1)) {
            *byte ^= 1 << (number % 8);
        }
    }

    /// What it says next: all that is pending, or a part of it if `number` is odd. If nothing is: payload.
    pub(crate) fn speech(&mut self, number: usize) -> Vec<u8> {
        if self.pending.is_empty() {
            let payload_len = number / 2 % PAYLOAD_LEN_MAX;
            return match &mut self.codec {
                Some(codec) => codec.encode(&vec![0x55; payload_len]),
                None => vec![0x55; payload_len],
            };
        }
        let is_all = number.is_multiple_of(2);
        let len = if is_all { self.pending.len() } else { number / 2 % self.pending.len() + 1 };
        self.pending.drain(..len).collect()
    }

    /// What could not be said yet.
    pub(crate) fn keep(&mut self, unsaid: &[u8]) {
        self.pending.splice(0..0, unsaid.iter().copied());
    }

    /// Takes what a proxy sends to a client that it has authenticated. Answers how much payload it was.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> usize {
        let Some(codec) = &mut self.codec else { return bytes.len() };
        let progress = codec.receive(bytes).expect("an authentic client is answered in order");
        self.pending.extend(progress.to_send);
        progress.payload.len()
    }
}
