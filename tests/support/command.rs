//! Commands that a test client gives a [`FakeDc`](crate::fake_dc::FakeDc), disguised as MTProto.
//!
//! ```text
//!  0               8          12             20
//!  ├ auth key id ──┼ command ─┼ argument ────┼ payload, zeros up to 56 bytes and whole words ┤
//! ```
//! The auth key id is not zero and the packet is at least 56 bytes long, so every proxy takes it for an
//! encrypted message (protocol.md section 5). Lengths are in the argument: the padded transport may
//! append words that look like payload.
//!
//! Answers begin with the same 20 bytes:
//!
//! | command | argument | answer |
//! |---|---|---|
//! | echo | length of payload | the same packet |
//! | bulk | bytes wanted | packets of at most [`BULK_CHUNK_LEN`] bytes of [`pattern`](crate::pattern); argument: position of the first |
//! | sink | length of payload | none; the payload is counted and hashed |
//! | digest | 0 | argument: bytes sunk so far; payload: their SHA-256 |
//! | close, reset, half-close | 0 | once everything before is sent: FIN and close; RST; FIN and keep reading |

/// Not zero, and readable in a dump.
const AUTH_KEY_ID: [u8; 8] = *b"mtptests";
/// Bytes in front of the payload.
pub const COMMAND_HEADER_LEN: usize = 20;
/// What a proxy wants of an encrypted message at least (protocol.md section 5).
const PACKET_LEN_MIN: usize = 56;
/// Payload of a full packet of a bulk answer. Several make one large read, none exceeds a pipe.
pub const BULK_CHUNK_LEN: usize = 16 * 1024;

/// What a data centre is told to do, or its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send this back.
    Echo(Vec<u8>),
    /// Send so many bytes of the pattern.
    Bulk {
        /// Bytes wanted.
        len: u64,
    },
    /// Count and hash this.
    Sink(Vec<u8>),
    /// Say what was sunk.
    Digest,
    /// Close the connection.
    Close,
    /// Reset the connection.
    Reset,
    /// Send no more, keep receiving.
    HalfClose,
}

const ECHO: u32 = 1;
const BULK: u32 = 2;
const SINK: u32 = 3;
const DIGEST: u32 = 4;
const CLOSE: u32 = 5;
const RESET: u32 = 6;
const HALF_CLOSE: u32 = 7;

impl Command {
    /// The packet body that says this.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let (code, argument, payload): (u32, u64, &[u8]) = match self {
            Self::Echo(payload) => (ECHO, payload.len() as u64, payload),
            Self::Bulk { len } => (BULK, *len, &[]),
            Self::Sink(payload) => (SINK, payload.len() as u64, payload),
            Self::Digest => (DIGEST, 0, &[]),
            Self::Close => (CLOSE, 0, &[]),
            Self::Reset => (RESET, 0, &[]),
            Self::HalfClose => (HALF_CLOSE, 0, &[]),
        };
        let mut body = header(code, argument).to_vec();
        body.extend_from_slice(payload);
        body.resize(body.len().max(PACKET_LEN_MIN).next_multiple_of(4), 0);
        body
    }

    /// The command in `body`, padded or not; `None` if it is something else.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let (code, argument, rest) = parse_header(body)?;
        let payload = || Some(rest.get(..usize::try_from(argument).ok()?)?.to_vec());
        match code {
            ECHO => payload().map(Self::Echo),
            BULK => Some(Self::Bulk { len: argument }),
            SINK => payload().map(Self::Sink),
            DIGEST => Some(Self::Digest),
            CLOSE => Some(Self::Close),
            RESET => Some(Self::Reset),
            HALF_CLOSE => Some(Self::HalfClose),
            _ => None,
        }
    }
}

/// The header of one packet of a bulk answer.
#[must_use]
pub fn bulk_header(position: u64) -> [u8; COMMAND_HEADER_LEN] {
    header(BULK, position)
}

/// Position and bytes of one packet of an answer to [`Command::Bulk`] with `len`, padding removed.
#[must_use]
pub fn parse_bulk(body: &[u8], len: u64) -> Option<(u64, &[u8])> {
    let (BULK, position, rest) = parse_header(body)? else { return None };
    let left = usize::try_from(len.checked_sub(position)?).unwrap_or(usize::MAX);
    Some((position, rest.get(..left.min(BULK_CHUNK_LEN))?))
}

/// The answer to [`Command::Digest`].
#[must_use]
pub fn digest_answer(count: u64, sha256: &[u8; 32]) -> Vec<u8> {
    let mut body = header(DIGEST, count).to_vec();
    body.extend(sha256);
    body
}

/// Count and SHA-256 in the answer to [`Command::Digest`].
#[must_use]
pub fn parse_digest(body: &[u8]) -> Option<(u64, [u8; 32])> {
    let (DIGEST, count, rest) = parse_header(body)? else { return None };
    Some((count, *rest.first_chunk()?))
}

fn header(code: u32, argument: u64) -> [u8; COMMAND_HEADER_LEN] {
    let mut header = [0; COMMAND_HEADER_LEN];
    header[..8].copy_from_slice(&AUTH_KEY_ID);
    header[8..12].copy_from_slice(&code.to_le_bytes());
    header[12..].copy_from_slice(&argument.to_le_bytes());
    header
}

fn parse_header(body: &[u8]) -> Option<(u32, u64, &[u8])> {
    let (auth_key_id, rest) = body.split_first_chunk::<8>()?;
    let (code, rest) = rest.split_first_chunk::<4>()?;
    let (argument, rest) = rest.split_first_chunk::<8>()?;
    (*auth_key_id == AUTH_KEY_ID).then_some((u32::from_le_bytes(*code), u64::from_le_bytes(*argument), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_survives_the_wire_with_and_without_padding() {
        let commands = [
            Command::Echo(vec![]),
            Command::Echo(vec![5; 1001]),
            Command::Bulk { len: 1 << 40 },
            Command::Sink(vec![6; 77]),
            Command::Digest,
            Command::Close,
            Command::Reset,
            Command::HalfClose,
        ];
        for command in commands {
            let mut body = command.body();
            assert!(body.len() >= PACKET_LEN_MIN && body.len() % 4 == 0);
            assert_eq!(Command::parse(&body).as_ref(), Some(&command));
            body.extend([0xaa; 12]);
            assert_eq!(Command::parse(&body).as_ref(), Some(&command));
        }
    }

    #[test]
    fn other_packets_are_no_commands() {
        assert_eq!(Command::parse(&crate::mtproto::req_pq_multi(1, &[0; 16])), None);
        assert_eq!(Command::parse(&header(99, 0)), None);
        assert_eq!(Command::parse(&header(ECHO, 1)), None);
        assert_eq!(Command::parse(&AUTH_KEY_ID), None);
    }

    #[test]
    fn a_bulk_packet_gives_its_bytes_without_the_padding() {
        let mut body = bulk_header(100).to_vec();
        body.extend([1; 8]);
        assert_eq!(parse_bulk(&body, 105), Some((100, &[1; 5][..])));
        assert_eq!(parse_bulk(&body, 99), None);
    }
}
