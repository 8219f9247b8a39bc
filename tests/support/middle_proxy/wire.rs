//! What frames of a link carry, read and written: protocol.md sections 7.2, 7.4, 7.7 and 7.8.
//!
//! [`request`](super::request) has RPC_PROXY_REQ, the one that is more than a few words.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::fault::LinkFault;
use super::keys::Nonce;
use super::request::ProxyRequest;

/// First words of the messages.
pub mod op {
    /// Seq −2, in clear.
    pub const NONCE: u32 = 0x7acb_87aa;
    /// Seq −1.
    pub const HANDSHAKE: u32 = 0x7682_eef5;
    /// Instead of a handshake.
    pub const HANDSHAKE_ERROR: u32 = 0x6a27_beda;
    /// A client's packet.
    pub const PROXY_REQ: u32 = 0x36ce_f1ee;
    /// A packet for a client.
    pub const PROXY_ANS: u32 = 0x4403_da0d;
    /// A quick ack for a client.
    pub const SIMPLE_ACK: u32 = 0x3bac_409b;
    /// A client is to be closed.
    pub const CLOSE_EXT: u32 = 0x5eb6_34a2;
    /// A client has closed.
    pub const CLOSE_CONN: u32 = 0x1fcf_425d;
    /// Are you there?
    pub const PING: u32 = 0x5730_a2df;
    /// I am.
    pub const PONG: u32 = 0x8430_eaa7;
}

/// Flag of a handshake: CRC-32C can be used.
pub const CAN_CRC32C: u32 = 0x800;
/// The crypto schema of every link: AES, no Diffie-Hellman.
pub const SCHEMA_AES: u32 = 1;

/// Integers and bytes in order, from the wire.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}

/// Each end's first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonceMessage {
    /// The first four bytes of the proxy secret.
    pub selector: [u8; 4],
    /// Crypto schema; 1 for AES.
    pub schema: u32,
    /// The sender's clock, in seconds.
    pub unix: i32,
    /// Random.
    pub nonce: Nonce,
}

impl NonceMessage {
    /// 32 bytes.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = op::NONCE.to_le_bytes().to_vec();
        payload.extend(self.selector);
        payload.extend(self.schema.to_le_bytes());
        payload.extend(self.unix.to_le_bytes());
        payload.extend(self.nonce);
        payload
    }

    /// Reads a payload of exactly 32 bytes: nobody sends the extras of other schemas.
    ///
    /// # Errors
    /// [`LinkFault::UnexpectedMessage`] or [`LinkFault::MessageLength`].
    pub fn parse(payload: &[u8]) -> Result<Self, LinkFault> {
        let op = expect_op(payload, op::NONCE, 32)?;
        let mut fields = Fields(&payload[4..]);
        let parsed = (|| {
            let (selector, schema) = (fields.array()?, fields.u32()?);
            Some(Self { selector, schema, unix: fields.i32()?, nonce: fields.array()? })
        })();
        parsed.ok_or(LinkFault::MessageLength { op, found: payload.len() })
    }
}

/// Twelve bytes that name a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessId {
    /// IPv4 address as a number; 0 where it is IPv6, 127.0.0.1 or not known.
    pub ip: u32,
    /// Of its listener.
    pub port: u16,
    /// Low half of the kernel's number.
    pub pid: u16,
    /// When it was started, in seconds.
    pub start_unix: u32,
}

impl ProcessId {
    /// A process that is known by its address alone.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip != Ipv4Addr::LOCALHOST => ip.to_bits(),
            IpAddr::V4(_) | IpAddr::V6(_) => 0,
        };
        Self { ip, port: address.port(), pid: 0, start_unix: 0 }
    }

    /// True if this process is the one meant by `pattern`, in which a zero stands for anything.
    #[must_use]
    pub fn is_meant_by(&self, pattern: &Self) -> bool {
        let fits = |pattern: u32, own: u32| pattern == 0 || pattern == own;
        fits(pattern.ip, self.ip)
            && fits(pattern.port.into(), self.port.into())
            && fits(pattern.pid.into(), self.pid.into())
            && fits(pattern.start_unix, self.start_unix)
    }

    fn append(&self, payload: &mut Vec<u8>) {
        payload.extend(self.ip.to_le_bytes());
        payload.extend(self.port.to_le_bytes());
        payload.extend(self.pid.to_le_bytes());
        payload.extend(self.start_unix.to_le_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (ip, port, pid) = (fields.u32()?, fields.u16()?, fields.u16()?);
        Some(Self { ip, port, pid, start_unix: fields.u32()? })
    }
}

/// Each end's second frame, or the refusal that the middle proxy sends instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeMessage {
    /// RPC_HANDSHAKE.
    Handshake {
        /// [`CAN_CRC32C`] or nothing.
        flags: u32,
        /// Who sends it.
        sender: ProcessId,
        /// Who is meant to receive it.
        peer: ProcessId,
    },
    /// The link will be closed.
    Error {
        /// Why (section 7.4).
        code: i32,
        /// Who says so.
        sender: ProcessId,
    },
}

impl HandshakeMessage {
    /// 32 bytes, or 20 of a refusal.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(32);
        match self {
            Self::Handshake { flags, sender, peer } => {
                payload.extend(op::HANDSHAKE.to_le_bytes());
                payload.extend(flags.to_le_bytes());
                sender.append(&mut payload);
                peer.append(&mut payload);
            }
            Self::Error { code, sender } => {
                payload.extend(op::HANDSHAKE_ERROR.to_le_bytes());
                payload.extend(code.to_le_bytes());
                sender.append(&mut payload);
            }
        }
        payload
    }

    /// Reads either.
    ///
    /// # Errors
    /// [`LinkFault::UnexpectedMessage`] or [`LinkFault::MessageLength`].
    pub fn parse(payload: &[u8]) -> Result<Self, LinkFault> {
        let mut fields = Fields(payload);
        let parsed = match fields.u32() {
            Some(op::HANDSHAKE_ERROR) => {
                expect_op(payload, op::HANDSHAKE_ERROR, 20)?;
                (|| Some(Self::Error { code: fields.i32()?, sender: ProcessId::read(&mut fields)? }))()
            }
            _ => {
                expect_op(payload, op::HANDSHAKE, 32)?;
                (|| {
                    let (flags, sender) = (fields.u32()?, ProcessId::read(&mut fields)?);
                    Some(Self::Handshake { flags, sender, peer: ProcessId::read(&mut fields)? })
                })()
            }
        };
        parsed.ok_or(LinkFault::MessageLength { op: op::HANDSHAKE, found: payload.len() })
    }
}

fn expect_op(payload: &[u8], expected: u32, len: usize) -> Result<u32, LinkFault> {
    let op = Fields(payload).u32().unwrap_or(0);
    if op != expected {
        return Err(LinkFault::UnexpectedMessage { op });
    }
    if payload.len() == len { Ok(op) } else { Err(LinkFault::MessageLength { op, found: payload.len() }) }
}

/// What is said on a link that is ready, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// RPC_PROXY_REQ, to the middle proxy.
    Request(ProxyRequest),
    /// RPC_PROXY_ANS, to the proxy.
    Answer {
        /// 16 marks a small error packet, 8 wants it sent on at once; both may be ignored.
        flags: u32,
        /// Whose packet it is.
        connection: i64,
        /// Whole words.
        packet: Vec<u8>,
    },
    /// RPC_SIMPLE_ACK, to the proxy.
    SimpleAck {
        /// Whose packet is confirmed.
        connection: i64,
        /// Bit 31 is set.
        token: u32,
    },
    /// RPC_CLOSE_EXT, to the proxy.
    CloseExt(i64),
    /// RPC_CLOSE_CONN, to the middle proxy.
    CloseConn(i64),
    /// RPC_PING, either way.
    Ping(i64),
    /// RPC_PONG, either way.
    Pong(i64),
}

impl Message {
    /// The payload of its frame.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let with_id = |op: u32, id: i64| [&op.to_le_bytes()[..], &id.to_le_bytes()].concat();
        match self {
            Self::Request(request) => request.payload(),
            Self::Answer { flags, connection, packet } => {
                let mut payload = Vec::with_capacity(16 + packet.len());
                payload.extend(op::PROXY_ANS.to_le_bytes());
                payload.extend(flags.to_le_bytes());
                payload.extend(connection.to_le_bytes());
                payload.extend_from_slice(packet);
                payload
            }
            Self::SimpleAck { connection, token } => {
                let mut payload = with_id(op::SIMPLE_ACK, *connection);
                payload.extend(token.to_le_bytes());
                payload
            }
            Self::CloseExt(connection) => with_id(op::CLOSE_EXT, *connection),
            Self::CloseConn(connection) => with_id(op::CLOSE_CONN, *connection),
            Self::Ping(id) => with_id(op::PING, *id),
            Self::Pong(id) => with_id(op::PONG, *id),
        }
    }

    /// Reads a payload of any kind that section 7 knows.
    ///
    /// # Errors
    /// [`LinkFault::UnexpectedMessage`], [`LinkFault::MessageLength`] or [`LinkFault::Request`].
    pub fn parse(payload: &[u8]) -> Result<Self, LinkFault> {
        let mut fields = Fields(payload);
        let op = fields.u32().unwrap_or(0);
        let length = LinkFault::MessageLength { op, found: payload.len() };
        let parsed = match op {
            op::PROXY_REQ => return ProxyRequest::parse(payload).map(Self::Request),
            op::PROXY_ANS => (|| {
                let (flags, connection) = (fields.u32()?, fields.i64()?);
                let packet = std::mem::take(&mut fields.0).to_vec();
                Some(Self::Answer { flags, connection, packet })
            })(),
            op::SIMPLE_ACK => {
                (|| Some(Self::SimpleAck { connection: fields.i64()?, token: fields.u32()? }))()
            }
            op::CLOSE_EXT => fields.i64().map(Self::CloseExt),
            op::CLOSE_CONN => fields.i64().map(Self::CloseConn),
            op::PING => fields.i64().map(Self::Ping),
            op::PONG => fields.i64().map(Self::Pong),
            _ => return Err(LinkFault::UnexpectedMessage { op }),
        };
        parsed.filter(|_| fields.0.is_empty()).ok_or(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middle_proxy::frames::FrameWriter;

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
    }

    #[test]
    fn the_known_nonce_frame_is_made_and_read() {
        // protocol.md section 7.2, the example.
        let wire = hex(concat!(
            "2c000000 feffffff aa87cb7a 05080b0e 01000000 0100005f",
            "202122232425262728292a2b2c2d2e2f c201564c",
        ));
        let message = NonceMessage {
            selector: [5, 8, 11, 14],
            schema: SCHEMA_AES,
            unix: 0x5f00_0001,
            nonce: std::array::from_fn(|i| 0x20 + i.to_le_bytes()[0]),
        };
        let mut framed = Vec::new();
        FrameWriter::default().append(&message.payload(), None, &mut framed);
        assert_eq!(framed, wire);
        assert_eq!(NonceMessage::parse(&wire[8..40]), Ok(message));
        assert!(NonceMessage::parse(&wire[8..36]).is_err());
        assert!(NonceMessage::parse(&wire[8..44]).is_err());
    }

    #[test]
    fn the_known_handshake_is_made_and_read() {
        // protocol.md section 7.4, recorded from the official proxy.
        let payload = hex("f5ee8276 00080000 020200c0 c849 6d23 1cc4036b 00000000 3a4a 0000 00000000");
        let message = HandshakeMessage::Handshake {
            flags: CAN_CRC32C,
            sender: ProcessId {
                ip: Ipv4Addr::new(192, 0, 2, 2).to_bits(),
                port: 0x49c8,
                pid: 0x236d,
                start_unix: 0x6b03_c41c,
            },
            peer: ProcessId::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0x4a3a))),
        };
        assert_eq!(message.payload(), payload);
        assert_eq!(HandshakeMessage::parse(&payload), Ok(message));
        let refusal = HandshakeMessage::Error { code: -7, sender: ProcessId::default() };
        assert_eq!(refusal.payload().len(), 20);
        assert_eq!(HandshakeMessage::parse(&refusal.payload()), Ok(refusal));
    }

    #[test]
    fn zeros_in_a_pattern_stand_for_anything() {
        let process = ProcessId { ip: 1, port: 2, pid: 3, start_unix: 4 };
        assert!(process.is_meant_by(&ProcessId::default()));
        assert!(process.is_meant_by(&process));
        for pattern in [
            ProcessId { ip: 9, ..process },
            ProcessId { port: 9, ..process },
            ProcessId { pid: 9, ..process },
            ProcessId { start_unix: 9, ..process },
        ] {
            assert!(!process.is_meant_by(&pattern));
        }
    }

    #[test]
    fn messages_survive_the_wire_and_not_with_a_word_more_or_less() {
        let messages = [
            Message::Answer { flags: 8, connection: -5, packet: vec![7; 12] },
            Message::SimpleAck { connection: i64::MIN, token: 0x8000_0001 },
            Message::CloseExt(3),
            Message::CloseConn(4),
            Message::Ping(5),
            Message::Pong(6),
        ];
        for message in messages {
            let payload = message.payload();
            assert_eq!(Message::parse(&payload), Ok(message.clone()));
            if matches!(message, Message::Answer { .. }) {
                assert!(Message::parse(&payload[..12]).is_err());
                continue;
            }
            assert!(Message::parse(&payload[..payload.len() - 4]).is_err());
            assert!(Message::parse(&[&payload[..], &[0; 4]].concat()).is_err());
        }
        assert_eq!(Message::parse(&[1, 0, 0, 0]), Err(LinkFault::UnexpectedMessage { op: 1 }));
        assert_eq!(Message::parse(&[]), Err(LinkFault::UnexpectedMessage { op: 0 }));
    }
}
