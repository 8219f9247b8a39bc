//! One client's side of the wire, as a pure value: bytes in, bytes out.
//!
//! ```text
//!             plain and dd                     ee
//!   opening   init frame                       ClientHello
//!   receive                                    server's flight ─▶ to_send: CCS ‖ record(init frame …)
//!             payload                          records of payload
//!   encode    payload                          payload in records
//! ```
//! Which of them it is follows from the kind of the secret. Wherever a call takes bytes from the wire,
//! they may be cut anywhere.

use mtproxy_core::aes_ctr::AesCtr;
use mtproxy_core::dc::DcId;
use mtproxy_core::obfuscated2::{ComposedInitFrame, INIT_FRAME_LEN};
use mtproxy_core::random::Random;
use mtproxy_core::secret::{Key, Secret, SecretKind};
use mtproxy_core::transport::Transport;

use crate::client_hello::{self, ClientHello, HelloOptions};
use crate::error::PeerError;
use crate::server_hello;
use crate::tls_record::{CHANGE_CIPHER_SPEC, CLIENT_BODY_LEN_MAX, RecordStream, write_records};

/// Who the client is and what it wants.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Its kind decides between plain, dd and ee. `None` is a client that speaks with a data centre
    /// itself, without a proxy: plain, with unhashed keys.
    pub secret: Option<Secret>,
    /// The framing announced in the init frame. Real clients with dd and ee secrets know only padded
    /// intermediate; a test may try another.
    pub transport: Transport,
    /// The data centre asked for.
    pub dc: DcId,
    /// The hello of an ee client; unused otherwise.
    pub hello: HelloOptions,
    /// Longest body of the records that an ee client sends, in bytes.
    pub record_body_len_max: usize,
}

impl ClientOptions {
    /// What a current client does with this secret: intermediate for a bare one, padded intermediate
    /// for the others, and a classic hello to the secret's domain at `unix_seconds`.
    #[must_use]
    pub fn new(secret: Secret, dc: DcId, unix_seconds: u32) -> Self {
        let (transport, server_name) = match secret.kind() {
            SecretKind::Plain => (Transport::Intermediate, ""),
            SecretKind::Padded => (Transport::PaddedIntermediate, ""),
            SecretKind::FakeTls(domain) => (Transport::PaddedIntermediate, domain.as_str()),
        };
        let hello = HelloOptions::new(server_name, unix_seconds);
        Self { secret: Some(secret), transport, dc, hello, record_body_len_max: CLIENT_BODY_LEN_MAX }
    }

    /// A client that speaks with a data centre itself.
    #[must_use]
    pub fn without_proxy(transport: Transport, dc: DcId) -> Self {
        let hello = HelloOptions::new("", 0);
        Self { secret: None, transport, dc, hello, record_body_len_max: CLIENT_BODY_LEN_MAX }
    }

    /// The same client with another transport.
    #[must_use]
    pub fn with_transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// The same client with a hello of `record_len` bytes, header included.
    #[must_use]
    pub fn with_hello_len(mut self, record_len: usize) -> Self {
        self.hello.record_len = record_len;
        self
    }

    /// True if the client speaks inside TLS records.
    #[must_use]
    pub fn is_fake_tls(&self) -> bool {
        self.hello_key().is_some()
    }

    /// The key under which the client's hello is authentic, if it sends one.
    fn hello_key(&self) -> Option<Key> {
        let secret = self.secret.as_ref()?;
        matches!(secret.kind(), SecretKind::FakeTls(_)).then(|| *secret.key())
    }
}

/// What came of received bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// To be sent now. Empty unless this was the end of an ee client's handshake.
    pub to_send: Vec<u8>,
    /// Decrypted payload.
    pub payload: Vec<u8>,
}

/// One client's side of the wire.
#[derive(Debug)]
pub struct ClientCodec {
    options: ClientOptions,
    random: Random,
    init_frame: [u8; INIT_FRAME_LEN],
    up: AesCtr,
    down: AesCtr,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Unopened,
    /// Fake TLS only.
    AwaitingServerFlight {
        key: Key,
        hello: ClientHello,
        received: Vec<u8>,
        /// Encrypted payload that will follow the init frame in its record.
        early: Vec<u8>,
    },
    Relaying(Wrapping),
}

#[derive(Debug)]
enum Wrapping {
    None,
    Records { from_server: RecordStream, application_len: usize },
}

impl ClientCodec {
    /// A client at the beginning of a connection. Equal options and seeds make equal bytes.
    #[must_use]
    pub fn new(options: ClientOptions, mut random: Random) -> Self {
        let key = options.secret.as_ref().map(Secret::key);
        let init = ComposedInitFrame::random(&mut random, key, options.transport, options.dc);
        Self {
            options,
            random,
            init_frame: init.wire,
            up: init.streams.forward,
            down: init.streams.backward.stream(),
            phase: Phase::Unopened,
        }
    }

    /// The first bytes to send.
    ///
    /// # Panics
    /// If called twice.
    pub fn opening(&mut self) -> Vec<u8> {
        assert!(matches!(self.phase, Phase::Unopened), "a client opens once");
        let Some(key) = self.options.hello_key() else {
            self.phase = Phase::Relaying(Wrapping::None);
            return self.init_frame.to_vec();
        };
        let hello = client_hello::compose(&self.options.hello, &key, &mut self.random);
        let wire = hello.wire.clone();
        self.phase = Phase::AwaitingServerFlight { key, hello, received: Vec::new(), early: Vec::new() };
        wire
    }

    /// True once payload may flow both ways.
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Relaying(_))
    }

    /// The transport announced.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.options.transport
    }

    /// Size of the application record in the server's flight; `None` outside fake TLS and before it came.
    #[must_use]
    pub fn flight_application_len(&self) -> Option<usize> {
        match &self.phase {
            Phase::Relaying(Wrapping::Records { application_len, .. }) => Some(*application_len),
            _ => None,
        }
    }

    /// The records received so far; `None` outside fake TLS.
    #[must_use]
    pub fn records(&self) -> Option<&RecordStream> {
        match &self.phase {
            Phase::Relaying(Wrapping::Records { from_server, .. }) => Some(from_server),
            _ => None,
        }
    }

    /// Takes bytes from the wire.
    ///
    /// # Errors
    /// Whatever protocol.md sections 6.7 and 6.8 do not allow the server.
    ///
    /// # Panics
    /// If called before [`opening`](Self::opening).
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Progress, PeerError> {
        let mut progress = Progress::default();
        match &mut self.phase {
            Phase::Unopened => panic!("the client has sent nothing that could be answered"),
            Phase::AwaitingServerFlight { key, hello, received, early } => {
                received.extend_from_slice(bytes);
                let Some(flight) = server_hello::check(received, hello, key)? else { return Ok(progress) };
                let behind_flight = received.split_off(flight.len);
                let early = std::mem::take(early);
                progress.to_send = self.first_records(&early);
                let application_len = flight.application_len;
                let from_server = RecordStream::default();
                self.phase = Phase::Relaying(Wrapping::Records { from_server, application_len });
                self.receive_payload(&behind_flight, &mut progress.payload)?;
            }
            Phase::Relaying(_) => self.receive_payload(bytes, &mut progress.payload)?,
        }
        Ok(progress)
    }

    /// Encrypts payload for the wire. Before an ee client is established nothing comes out: the payload
    /// travels behind the init frame in [`Progress::to_send`].
    ///
    /// # Panics
    /// If called before [`opening`](Self::opening).
    pub fn encode(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut encrypted = payload.to_vec();
        self.up.apply(&mut encrypted);
        match &mut self.phase {
            Phase::Unopened => panic!("payload before the opening"),
            Phase::AwaitingServerFlight { early, .. } => {
                early.extend(encrypted);
                Vec::new()
            }
            Phase::Relaying(Wrapping::None) => encrypted,
            Phase::Relaying(Wrapping::Records { .. }) => {
                let headers_len = encrypted.len().div_ceil(self.options.record_body_len_max) * 5;
                let mut wire = Vec::with_capacity(encrypted.len() + headers_len);
                write_records(&encrypted, self.options.record_body_len_max, &mut wire);
                wire
            }
        }
    }

    /// CCS and the record that begins with the init frame.
    fn first_records(&self, early: &[u8]) -> Vec<u8> {
        let mut wire = CHANGE_CIPHER_SPEC.to_vec();
        let body = [&self.init_frame[..], early].concat();
        write_records(&body, self.options.record_body_len_max.max(INIT_FRAME_LEN), &mut wire);
        wire
    }

    fn receive_payload(&mut self, bytes: &[u8], payload: &mut Vec<u8>) -> Result<(), PeerError> {
        let start = payload.len();
        match &mut self.phase {
            Phase::Relaying(Wrapping::Records { from_server, .. }) => from_server.receive(bytes, payload)?,
            _ => payload.extend_from_slice(bytes),
        }
        self.down.apply(&mut payload[start..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::dc_codec::{DcCodec, DcMode};
    use crate::framing::{Packet, PacketOptions, PacketReader, Reader, frame_packet};
    use mtproxy_core::obfuscated2::InitFrame;
    use proptest::prelude::*;

    const KEY: Key = [5; 16];
    const CLOCK: u32 = 1_700_000_000;

    fn secret(kind: &str) -> Secret {
        Secret::new(
            KEY,
            match kind {
                "plain" => SecretKind::Plain,
                "dd" => SecretKind::Padded,
                _ => SecretKind::FakeTls("front.example".parse().unwrap()),
            },
        )
    }

    fn random(seed: u8) -> Random {
        Random::from_seed([seed; 32])
    }

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    /// A proxy for these tests: opens what the client sends under [`KEY`].
    struct Server {
        options: ClientOptions,
        /// Not yet understood.
        received: Vec<u8>,
        flight_sent: bool,
        ccs_seen: bool,
        from_client: RecordStream,
        /// Record bodies, or the plain stream, until the init frame is complete.
        stream: Vec<u8>,
        link: Option<InitFrame>,
    }

    impl Server {
        fn new(options: &ClientOptions) -> Self {
            Self {
                options: options.clone(),
                received: Vec::new(),
                flight_sent: false,
                ccs_seen: false,
                from_client: RecordStream::default(),
                stream: Vec::new(),
                link: None,
            }
        }

        /// What to answer, and decrypted payload.
        fn receive(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
            self.received.extend_from_slice(bytes);
            let mut flight = Vec::new();
            let hello_len = self.options.hello.record_len;
            if !self.options.is_fake_tls() {
                self.stream.append(&mut self.received);
            } else if !self.flight_sent && self.received.len() >= hello_len {
                let hello: Vec<u8> = self.received.drain(..hello_len).collect();
                assert_eq!(client_hello::verify(&hello, &KEY), Some(CLOCK));
                flight = server_hello::compose(&hello, [0x13, 0x01], 1500, &KEY);
                self.flight_sent = true;
            }
            if self.flight_sent && !self.ccs_seen && self.received.len() >= CHANGE_CIPHER_SPEC.len() {
                let ccs: Vec<u8> = self.received.drain(..CHANGE_CIPHER_SPEC.len()).collect();
                assert_eq!(ccs, CHANGE_CIPHER_SPEC);
                self.ccs_seen = true;
            }
            if self.ccs_seen {
                self.from_client.receive(&std::mem::take(&mut self.received), &mut self.stream).unwrap();
            }
            if self.link.is_none() && self.stream.len() >= INIT_FRAME_LEN {
                self.link = InitFrame::open(self.stream.first_chunk().unwrap(), Some(&KEY));
                assert!(self.link.is_some(), "the init frame is authentic");
                self.stream.drain(..INIT_FRAME_LEN);
            }
            let Some(link) = &mut self.link else { return (flight, Vec::new()) };
            let mut payload = std::mem::take(&mut self.stream);
            link.streams.forward.apply(&mut payload);
            (flight, payload)
        }
    }

    #[test]
    fn the_known_init_frame_has_the_known_keystreams() {
        // protocol.md section 3.3: the vector's key, and the frame as it is on the wire.
        let wire = hex(concat!(
            "01080f161d242b323940474e555c636a71787f868d949ba2a9b0b7bec5ccd3da",
            "e1e8eff6fd040b121920272e353c434a51585f666d747b8257db92e7c36fc806",
        ));
        let key: Key = std::array::from_fn(|i| i.to_le_bytes()[0]);
        let frame = InitFrame::open(wire.first_chunk().unwrap(), Some(&key)).unwrap();
        assert_eq!((frame.transport, frame.dc), (Transport::PaddedIntermediate, DcId(-2)));
        let options = ClientOptions::new(Secret::new(key, SecretKind::Padded), DcId(-2), CLOCK);
        let mut client = ClientCodec::new(options, random(0));
        client.init_frame = *wire.first_chunk().unwrap();
        client.up = frame.streams.forward;
        client.down = frame.streams.backward.stream();
        assert_eq!(client.opening(), wire);
        assert_eq!(client.encode(&[0; 8]), hex("e5f31a766433c5a9"));
        assert_eq!(client.receive(&[0; 8]).unwrap().payload, hex("bdcbcc1c8d9e4a37"));
    }

    #[test]
    fn equal_seeds_make_equal_hellos_and_others_do_not() {
        let opening = |seed| {
            let options = ClientOptions::new(secret("ee"), DcId(2), CLOCK);
            ClientCodec::new(options, random(seed)).opening()
        };
        assert_eq!(opening(1), opening(1));
        assert_ne!(opening(1), opening(2));
    }

    #[test]
    fn payload_before_the_flight_travels_behind_the_init_frame() {
        let options = ClientOptions::new(secret("ee"), DcId(2), CLOCK);
        let mut server = Server::new(&options);
        let mut client = ClientCodec::new(options, random(1));
        let (flight, _) = server.receive(&client.opening());
        assert!(client.encode(b"early payload").is_empty());
        let progress = client.receive(&flight).unwrap();
        assert_eq!(progress.to_send[6..11], [0x17, 3, 3, 0, 64 + 13]);
        assert_eq!(server.receive(&progress.to_send).1, b"early payload");
        assert_eq!(client.flight_application_len(), Some(1500));
    }

    #[test]
    fn a_flight_under_another_key_is_refused() {
        let options = ClientOptions::new(secret("ee"), DcId(2), CLOCK);
        let mut client = ClientCodec::new(options, random(1));
        let flight = server_hello::compose(&client.opening(), [0x13, 0x01], 900, &[6; 16]);
        assert_eq!(client.receive(&flight), Err(PeerError::ServerNotAuthentic));
    }

    #[test]
    fn an_alert_record_is_not_taken_for_payload() {
        let options = ClientOptions::new(secret("ee"), DcId(2), CLOCK);
        let mut client = ClientCodec::new(options, random(1));
        let flight = server_hello::compose(&client.opening(), [0x13, 0x01], 900, &KEY);
        client.receive(&flight).unwrap();
        assert_eq!(client.receive(&[0x15]), Err(PeerError::NotApplicationData { found: 0x15 }));
    }

    /// The other half of a proxy in direct mode: what the client sent is encrypted anew for the data
    /// centre, whose answers need no cipher (protocol.md section 8, item 3).
    struct ToDc {
        up: AesCtr,
        dc: DcCodec,
    }

    impl ToDc {
        fn new(link: &InitFrame, mode: DcMode) -> Self {
            let ours = ComposedInitFrame::for_dc_speaking_to(
                &link.streams.backward,
                &mut random(9),
                link.transport,
                link.dc,
            );
            let mut dc = DcCodec::new(mode, random(8));
            dc.receive(&ours.wire).unwrap();
            Self { up: ours.streams.forward, dc }
        }

        fn exchange(&mut self, mut payload: Vec<u8>) -> Vec<u8> {
            self.up.apply(&mut payload);
            self.dc.receive(&payload).unwrap();
            let mut answer = Vec::new();
            self.dc.fill(&mut answer, usize::MAX);
            answer
        }
    }

    proptest! {
        #[test]
        fn client_and_data_centre_understand_each_other_whatever_the_split(
            kind in proptest::sample::select(&["plain", "dd", "ee"][..]),
            hello_len in proptest::sample::select(&[517usize, 1800, 4096, 16_000][..]),
            payload in proptest::collection::vec(any::<u8>(), 0..9000),
            up_piece in 1usize..4000, down_piece in 1usize..4000,
        ) {
            let options = ClientOptions::new(secret(kind), DcId(-3), CLOCK).with_hello_len(hello_len);
            let transport = options.transport;
            let mut server = Server::new(&options);
            let mut client = ClientCodec::new(options, random(1));
            let mut question = Vec::new();
            let body = Command::Echo(payload.clone()).body();
            frame_packet(transport, &body, PacketOptions::default(), &mut question);

            let mut to_server = client.opening();
            to_server.extend(client.encode(&question));
            let mut to_dc: Option<ToDc> = None;
            let mut answers = PacketReader::new(transport, Reader::Client);
            while !to_server.is_empty() {
                let mut to_client = Vec::new();
                for piece in std::mem::take(&mut to_server).chunks(up_piece) {
                    let (flight, plain) = server.receive(piece);
                    to_client.extend(flight);
                    let Some(link) = &server.link else { continue };
                    let dc = to_dc.get_or_insert_with(|| ToDc::new(link, DcMode::Packets));
                    let answer = dc.exchange(plain);
                    if server.options.is_fake_tls() {
                        write_records(&answer, 1425, &mut to_client);
                    } else {
                        to_client.extend(answer);
                    }
                }
                for piece in to_client.chunks(down_piece) {
                    let progress = client.receive(piece).unwrap();
                    to_server.extend(progress.to_send);
                    answers.push(&progress.payload);
                }
            }
            prop_assert!(client.is_established());
            prop_assert_eq!(to_dc.unwrap().dc.init(), Some((DcId(-3), transport)));
            let Some(Packet::Message { body: answer, .. }) = answers.next_packet().unwrap() else {
                panic!("no answer");
            };
            prop_assert_eq!(Command::parse(&answer), Some(Command::Echo(payload)));
        }
    }
}
