//! How a test's middle proxy behaves: well, or wrong in exactly one way.

use crate::dc_codec::Ending;

/// What a test's middle proxy is told at the beginning of a link.
#[derive(Clone, Debug)]
pub struct MiddleProxyOptions {
    /// The proxy secret, which both ends know: a whole file of 32 to 256 bytes.
    pub secret: Vec<u8>,
    /// Says yes when the proxy offers CRC-32C.
    pub accepts_crc32c: bool,
    /// The flags in every RPC_PROXY_ANS.
    pub answer_flags: u32,
    /// Who answers the clients' packets.
    pub telegram: Telegram,
    /// What it does wrong, if anything.
    pub misbehaviour: Option<Misbehaviour>,
    /// Requests that are kept for a test to look at; later ones are counted only.
    pub recorded_requests_max: usize,
}

impl MiddleProxyOptions {
    /// A well-behaved middle proxy with Telegram behind it.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self {
            secret: secret.to_vec(),
            accepts_crc32c: true,
            answer_flags: 0,
            telegram: Telegram::Commands,
            misbehaviour: None,
            recorded_requests_max: 4096,
        }
    }

    /// The same without CRC-32C.
    #[must_use]
    pub fn without_crc32c(self) -> Self {
        Self { accepts_crc32c: false, ..self }
    }

    /// The same with another Telegram.
    #[must_use]
    pub fn with_telegram(self, telegram: Telegram) -> Self {
        Self { telegram, ..self }
    }

    /// The same, misbehaving.
    #[must_use]
    pub fn misbehaving(self, misbehaviour: Misbehaviour) -> Self {
        Self { misbehaviour: Some(misbehaviour), ..self }
    }
}

/// Who answers the clients' packets. All but the silent one confirm a packet whose client wants a quick ack with
/// [`quick_ack_token`](crate::dc_codec::quick_ack_token).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Telegram {
    /// Answers `req_pq`, `req_pq_multi` and the commands of [`Command`](crate::command::Command); close,
    /// reset and half-close all are RPC_CLOSE_EXT here. Counts everything else and says nothing.
    #[default]
    Commands,
    /// Sends every packet back.
    Echo,
    /// Says nothing, and confirms nothing.
    Silent,
}

/// One thing that a middle proxy does wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Ends the link as soon as it is there.
    EndsAtOnce(Ending),
    /// With its nonce.
    Nonce(NonceFault),
    /// With its handshake.
    Handshake(HandshakeFault),
    /// Once it has had so many requests; with 0, right behind its handshake. Everything before is as it
    /// should be.
    After {
        /// RPC_PROXY_REQ received. A wrong frame comes before the answer to the last of them.
        requests: u64,
        /// What is wrong then.
        fault: DataFault,
    },
}

/// What may be wrong with the middle proxy's nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceFault {
    /// It never comes.
    Never,
    /// It names another proxy secret.
    Selector,
    /// It wants this crypto schema.
    Schema(u32),
    /// Its clock is so many seconds ahead of the proxy's.
    ClockSkew(i32),
    /// Sixteen bytes stand right behind it: fillers, well encrypted.
    BytesBehind,
    /// Its checksum is wrong.
    Checksum,
    /// Its sequence number is off by this.
    Sequence(i32),
    /// It is a handshake, as far as its first word tells.
    Op,
    /// It is one word too short.
    Length,
}

/// What may be wrong with the middle proxy's handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFault {
    /// It never comes.
    Never,
    /// A refusal with this code comes instead, and the link ends.
    Refusal(i32),
    /// The process that it is meant for is not the one that introduced itself.
    Peer,
    /// These flags are set besides the right ones.
    Flags(u32),
    /// It takes up CRC-32C, which nobody has offered, and goes on with it.
    Crc32cUnasked,
    /// Its checksum is wrong.
    Checksum,
    /// Its sequence number is off by this.
    Sequence(i32),
    /// It is one word too short.
    Length,
    /// It is not encrypted.
    InClear,
}

/// What may go wrong on a link that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataFault {
    /// A frame with a wrong checksum. Its message would be ignored.
    Checksum,
    /// A frame with a sequence number that is off by this.
    Sequence(i32),
    /// So many sequence numbers are left out.
    SequenceGap(i32),
    /// A frame whose length field says this, followed by what would be a message of 12 bytes.
    FrameLength(u32),
    /// Whole blocks that are no ciphertext of anything.
    Noise(usize),
    /// Nothing is read and nothing said any more.
    Stall,
    /// Everything is read, and nothing said any more: no answers, no acks, no pongs.
    Silence,
    /// Pings are not answered any more. All else goes on.
    NoPongs,
    /// The link ends: [`Ending::Close`] and [`Ending::Reset`] when everything before is sent.
    End(Ending),
    /// A packet for a connection that nobody has: the proxy must say RPC_CLOSE_CONN.
    AnswerTo(i64),
    /// A quick ack for a connection that nobody has: likewise.
    SimpleAckTo(i64),
    /// A connection that nobody has is to be closed: the proxy must say nothing.
    CloseExtOf(i64),
    /// The connection of the last request is to be closed.
    CloseExt,
    /// A packet of so many bytes, whole words, for the connection of the last request.
    AnswerOf(usize),
    /// A message with a first word that is known and a length that its kind cannot have.
    Malformed(Malformed),
    /// A message with this first word and no more than that.
    Op(u32),
    /// Fillers in a row, so many words, whatever the blocks say; harmless to a receiver.
    Fillers(usize),
}

/// Kinds of message that may come cut or with a word too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// RPC_PROXY_ANS of 12 bytes.
    Answer,
    /// RPC_SIMPLE_ACK of 12 bytes.
    SimpleAckShort,
    /// RPC_SIMPLE_ACK of 20 bytes.
    SimpleAckLong,
    /// RPC_CLOSE_EXT of 16 bytes.
    CloseExt,
    /// RPC_PING of 8 bytes.
    Ping,
}
