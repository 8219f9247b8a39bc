//! A hello while it arrives: collected from any number of segments and records (protocol.md 6.1).

use std::borrow::Cow;

use super::record::RECORD_HEADER_LEN;

/// Longest hello: what one TLS record may hold (RFC 8446 section 5.1).
pub const MESSAGE_LEN_MAX: usize = 1 << 14;
/// Shortest hello of a client of ours; shorter ones are strangers' (spec 6.1).
const MESSAGE_LEN_MIN: usize = 512;
/// Most bytes kept of a client that has not authenticated itself. Leaves room for the headers of a
/// hello that something on the path has cut into several thousand records.
pub const RECEIVED_LEN_MAX: usize = 2 * MESSAGE_LEN_MAX;

pub(super) const HANDSHAKE_RECORD: [u8; 3] = [0x16, 0x03, 0x01];
const HANDSHAKE_HEADER_LEN: usize = 4;
pub(super) const CLIENT_HELLO: u8 = 1;
/// Follows the records of a hello while they arrive. Looks at every header once.
#[derive(Debug, Default)]
pub struct HelloReassembly {
    /// Where the next record header begins.
    next_record: usize,
    /// Handshake bytes in the records before it.
    message_len: usize,
    records: usize,
}

/// How far a hello has come.
#[derive(Debug, PartialEq, Eq)]
pub enum HelloProgress {
    /// So far it may become a hello of ours.
    Incomplete,
    /// It cannot become one.
    NotAHello,
    /// All records are there.
    Complete {
        /// Bytes behind the hello.
        trailing_len: usize,
    },
}

impl HelloReassembly {
    /// Looks at `received`: everything from the client's first byte on.
    pub fn advance(&mut self, received: &[u8]) -> HelloProgress {
        if !HANDSHAKE_RECORD.iter().zip(received).all(|(expected, found)| expected == found) {
            return HelloProgress::NotAHello;
        }
        loop {
            let rest = &received[self.next_record.min(received.len())..];
            if rest.len() < RECORD_HEADER_LEN || self.next_record > received.len() {
                return self.if_plausible(received, HelloProgress::Incomplete);
            }
            let body_len = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
            // Records behind the first one may carry either version (RFC 8446 section 5.1).
            let is_handshake = rest[0] == 0x16 && rest[1] == 0x03 && matches!(rest[2], 0x01 | 0x03);
            if !is_handshake || body_len == 0 || self.message_len + body_len > MESSAGE_LEN_MAX {
                return HelloProgress::NotAHello;
            }
            if rest.len() < RECORD_HEADER_LEN + body_len {
                return self.if_plausible(received, HelloProgress::Incomplete);
            }
            self.next_record += RECORD_HEADER_LEN + body_len;
            self.message_len += body_len;
            self.records += 1;
            if let Some(announced) = self.announced_len(received) {
                if self.message_len == announced {
                    let complete =
                        HelloProgress::Complete { trailing_len: received.len() - self.next_record };
                    return self.if_plausible(received, complete);
                }
                if self.message_len > announced {
                    return HelloProgress::NotAHello;
                }
            }
        }
    }

    /// `otherwise`, unless what is known of the handshake header rules out a hello of ours.
    fn if_plausible(&self, received: &[u8], otherwise: HelloProgress) -> HelloProgress {
        let is_client_hello = received.get(RECORD_HEADER_LEN).is_none_or(|&kind| kind == CLIENT_HELLO);
        let len_fits =
            self.announced_len(received).is_none_or(|len| (MESSAGE_LEN_MIN..=MESSAGE_LEN_MAX).contains(&len));
        if is_client_hello && len_fits { otherwise } else { HelloProgress::NotAHello }
    }

    /// Length of the whole handshake message, header included; `None` until its header is there.
    fn announced_len(&self, received: &[u8]) -> Option<usize> {
        let mut header = Bodies::of(received).flatten();
        let _kind = header.next()?;
        let mut length = 0;
        for _ in 1..HANDSHAKE_HEADER_LEN {
            length = length << 8 | usize::from(*header.next()?);
        }
        Some(HANDSHAKE_HEADER_LEN + length)
    }

    /// The hello as the client composed it, in one record: what its HMAC was computed over.
    ///
    /// # Panics
    /// Unless [`advance`](Self::advance) has just found `received` complete.
    #[must_use]
    pub fn message<'a>(&self, received: &'a [u8]) -> Cow<'a, [u8]> {
        if self.records == 1 {
            return Cow::Borrowed(&received[..self.next_record]);
        }
        let mut whole = Vec::with_capacity(RECORD_HEADER_LEN + self.message_len);
        whole.extend_from_slice(&HANDSHAKE_RECORD);
        let length = u16::try_from(self.message_len).expect("advance bounds the message by 2^14");
        whole.extend_from_slice(&length.to_be_bytes());
        for body in Bodies::of(&received[..self.next_record]) {
            whole.extend_from_slice(body);
        }
        Cow::Owned(whole)
    }
}

/// The bodies of consecutive records; the last one may still be arriving.
struct Bodies<'a> {
    rest: &'a [u8],
}

impl<'a> Bodies<'a> {
    fn of(records: &'a [u8]) -> Self {
        Self { rest: records }
    }
}

impl<'a> Iterator for Bodies<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (header, rest) = self.rest.split_at_checked(RECORD_HEADER_LEN)?;
        let body_len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let (body, rest) = rest.split_at(body_len.min(rest.len()));
        self.rest = rest;
        Some(body)
    }
}
