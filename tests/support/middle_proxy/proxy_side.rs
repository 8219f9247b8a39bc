//! A proxy's side of one link, as a pure value: the counterpart of
//! [`MiddleProxyCodec`](super::codec::MiddleProxyCodec), to try it without a proxy.
//!
//! Stricter than a proxy has to be: it also refuses messages and fillers that a proxy ignores, so that
//! a test sees each misbehaviour arrive.

use std::net::SocketAddr;

use mtproxy_core::random::Random;

use super::fault::LinkFault;
use super::frames::{Checksum, Flaw, FrameReader, FrameWriter, append_fillers};
use super::greeting::{CLOCK_SKEW_MAX, selector};
use super::keys::{BLOCK_LEN, Decryptor, Encryptor, Ends, KeyMaterial, Nonce, Purpose};
use super::wire::{CAN_CRC32C, HandshakeMessage, Message, NonceMessage, ProcessId, SCHEMA_AES};

/// What a test's proxy is told at the beginning of a link.
#[derive(Clone, Debug)]
pub struct ProxyLinkOptions {
    /// The proxy secret.
    pub secret: Vec<u8>,
    /// Both ends, as the middle proxy sees them.
    pub ends: Ends,
    /// Who the proxy says it is.
    pub process: ProcessId,
    /// Its clock, in seconds.
    pub unix: i32,
    /// The flags of its handshake.
    pub flags: u32,
}

impl ProxyLinkOptions {
    /// A proxy that offers CRC-32C.
    #[must_use]
    pub fn new(secret: &[u8], ends: Ends, unix: i32) -> Self {
        let process = ProcessId { pid: 77, start_unix: 88, ..ProcessId::at(ends.proxy) };
        Self { secret: secret.to_vec(), ends, process, unix, flags: CAN_CRC32C }
    }

    /// The same without CRC-32C.
    #[must_use]
    pub fn without_crc32c(self) -> Self {
        Self { flags: 0, ..self }
    }
}

/// A proxy's side of one link.
#[derive(Debug)]
pub struct ProxyLinkCodec {
    options: ProxyLinkOptions,
    /// Whom its handshake is for.
    meant: ProcessId,
    nonce: Nonce,
    phase: Phase,
    reader: FrameReader,
    writer: FrameWriter,
    /// To be sent, whole and encrypted.
    output: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    AwaitingNonce,
    Encrypted {
        to_middle_proxy: Box<Encryptor>,
        from_middle_proxy: Box<Decryptor>,
        cut: Vec<u8>,
        is_ready: bool,
    },
}

impl ProxyLinkCodec {
    /// A proxy at the beginning of a link, with its nonce in the output.
    #[must_use]
    pub fn new(options: ProxyLinkOptions, mut random: Random) -> Self {
        let nonce = random.bytes();
        let ours = NonceMessage {
            selector: selector(&options.secret),
            schema: SCHEMA_AES,
            unix: options.unix,
            nonce,
        };
        let mut link = Self {
            meant: ProcessId::at(options.ends.middle_proxy),
            options,
            nonce,
            phase: Phase::AwaitingNonce,
            reader: FrameReader::new(true),
            writer: FrameWriter::default(),
            output: Vec::new(),
        };
        link.writer.append(&ours.payload(), None, &mut link.output);
        link
    }

    /// True once handshakes are exchanged.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Encrypted { is_ready: true, .. })
    }

    /// What is to be sent now.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Puts a message into the output.
    ///
    /// # Panics
    /// If the nonces are not exchanged yet.
    pub fn send(&mut self, message: &Message) {
        self.send_payload(&message.payload(), None);
    }

    /// Puts any payload into the output, with or without a flaw.
    ///
    /// # Panics
    /// If the nonces are not exchanged yet.
    pub fn send_payload(&mut self, payload: &[u8], flaw: Option<Flaw>) {
        let start = self.output.len();
        self.writer.append(payload, flaw, &mut self.output);
        append_fillers(&mut self.output, start);
        self.encrypt_from(start);
    }

    /// Puts words into the output that are no frame; whole blocks of them.
    ///
    /// # Panics
    /// If the nonces are not exchanged yet.
    pub fn send_words(&mut self, words: &[u8]) {
        let start = self.output.len();
        self.output.extend_from_slice(words);
        self.encrypt_from(start);
    }

    /// Its handshake will be meant for whoever is at `middle_proxy`; the keys stay those of the real ends.
    pub fn mean(&mut self, middle_proxy: SocketAddr) {
        self.meant = ProcessId::at(middle_proxy);
    }

    fn encrypt_from(&mut self, start: usize) {
        let Phase::Encrypted { to_middle_proxy, .. } = &mut self.phase else {
            panic!("a message before the nonces are exchanged");
        };
        to_middle_proxy.encrypt(&mut self.output[start..]);
    }

    /// Takes bytes from the wire, cut anywhere, and answers pings.
    ///
    /// # Errors
    /// What the middle proxy did wrong.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Message>, LinkFault> {
        match &mut self.phase {
            Phase::AwaitingNonce => self.reader.push(bytes),
            Phase::Encrypted { from_middle_proxy, cut, .. } => {
                cut.extend_from_slice(bytes);
                let whole_len = cut.len() / BLOCK_LEN * BLOCK_LEN;
                from_middle_proxy.decrypt(&mut cut[..whole_len]);
                self.reader.push(&cut[..whole_len]);
                cut.drain(..whole_len);
            }
        }
        let mut messages = Vec::new();
        while let Some(payload) = self.reader.next_frame()? {
            match &mut self.phase {
                Phase::AwaitingNonce => self.hear_nonce(&payload)?,
                Phase::Encrypted { is_ready: false, .. } => self.hear_handshake(&payload)?,
                Phase::Encrypted { is_ready: true, .. } => {
                    let message = hear_message(&payload)?;
                    if let Message::Ping(id) = message {
                        self.send(&Message::Pong(id));
                    }
                    messages.push(message);
                }
            }
        }
        Ok(messages)
    }

    fn hear_nonce(&mut self, payload: &[u8]) -> Result<(), LinkFault> {
        let theirs = NonceMessage::parse(payload)?;
        let options = &self.options;
        let found = self.reader.buffered_len();
        let skew = i64::from(theirs.unix) - i64::from(options.unix);
        if theirs.selector != selector(&options.secret) {
            return Err(LinkFault::Selector { found: theirs.selector });
        } else if theirs.schema != SCHEMA_AES {
            return Err(LinkFault::Schema { found: theirs.schema });
        } else if skew.abs() > CLOCK_SKEW_MAX {
            return Err(LinkFault::Clock { skew });
        } else if found > 0 {
            return Err(LinkFault::BytesBehindNonce { found });
        }
        let material = KeyMaterial {
            middle_proxy_nonce: &theirs.nonce,
            proxy_nonce: &self.nonce,
            proxy_unix: options.unix,
            ends: options.ends,
            secret: &options.secret,
        };
        self.phase = Phase::Encrypted {
            to_middle_proxy: Box::new(Encryptor::new(&material.derive(Purpose::ToMiddleProxy))),
            from_middle_proxy: Box::new(Decryptor::new(&material.derive(Purpose::ToProxy))),
            cut: Vec::new(),
            is_ready: false,
        };
        self.reader.begin_blocks();
        let handshake =
            HandshakeMessage::Handshake { flags: options.flags, sender: options.process, peer: self.meant };
        self.send_payload(&handshake.payload(), None);
        Ok(())
    }

    fn hear_handshake(&mut self, payload: &[u8]) -> Result<(), LinkFault> {
        let (flags, peer) = match HandshakeMessage::parse(payload)? {
            HandshakeMessage::Handshake { flags, peer, .. } => (flags, peer),
            HandshakeMessage::Error { code, .. } => return Err(LinkFault::Refused { code }),
        };
        if !self.options.process.is_meant_by(&peer) {
            return Err(LinkFault::Handshake { what: "it is meant for another process" });
        } else if flags & !CAN_CRC32C != 0 {
            return Err(LinkFault::Handshake { what: "it has unknown flags" });
        } else if flags & !self.options.flags != 0 {
            return Err(LinkFault::Handshake { what: "it takes up what was not offered" });
        }
        if flags & CAN_CRC32C != 0 {
            self.reader.set_checksum(Checksum::Crc32c);
            self.writer.set_checksum(Checksum::Crc32c);
        }
        if let Phase::Encrypted { is_ready, .. } = &mut self.phase {
            *is_ready = true;
        }
        Ok(())
    }
}

/// A message that only a middle proxy sends, or either end.
fn hear_message(payload: &[u8]) -> Result<Message, LinkFault> {
    let message = Message::parse(payload)?;
    if matches!(message, Message::Request(_) | Message::CloseConn(_)) {
        let op = payload.first_chunk().map_or(0, |&op| u32::from_le_bytes(op));
        return Err(LinkFault::UnexpectedMessage { op });
    }
    Ok(message)
}
