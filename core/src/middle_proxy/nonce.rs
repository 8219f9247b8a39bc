//! The nonces that begin a link, in the clear (protocol.md section 7.2).
//!
//! ```text
//!  0       4          8        12          16                32
//!  ├ op ───┼ selector ┼ schema ┼ unix time ┼ nonce ──────────┤   schema 0: no cipher, 1: AES
//!                                                            ├ count ┼ selectors ─┤ and more: schemas 2 and 3
//! ```
//! We ask for AES and take nothing else: what only a general server would need is recognised, so that it can be named,
//! and refused.

/// RPC_NONCE.
const OP: u32 = 0x7acb_87aa;
/// Bytes of a message of schemas 0 and 1, and of the first part of the others.
const LEN: usize = 32;
/// Most further selectors in schemas 2 and 3.
const SELECTORS_MAX: u32 = 8;
/// What schema 3 has behind its selectors: the number of the group, and a public value of 2048 bits.
const DH_LEN: usize = 4 + 256;

/// Sixteen bytes that nobody has used before.
pub type Nonce = [u8; 16];

/// What both sides say first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceMessage {
    /// Which secret: its first four bytes.
    pub selector: [u8; 4],
    /// Which cipher.
    pub schema: u32,
    /// The sender's clock.
    pub unix: i32,
    /// The sender's nonce.
    pub nonce: Nonce,
}

/// Why a payload is no nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceError {
    /// Another operation.
    Op(u32),
    /// This many bytes, which its schema cannot have.
    Length(usize),
    /// A schema that nobody knows.
    Schema(u32),
}

impl NonceMessage {
    /// As it is sent.
    #[must_use]
    pub fn payload(&self) -> [u8; LEN] {
        let mut payload = [0; LEN];
        payload[..4].copy_from_slice(&OP.to_le_bytes());
        payload[4..8].copy_from_slice(&self.selector);
        payload[8..12].copy_from_slice(&self.schema.to_le_bytes());
        payload[12..16].copy_from_slice(&self.unix.to_le_bytes());
        payload[16..].copy_from_slice(&self.nonce);
        payload
    }

    /// Reads what a peer says. Further selectors and Diffie-Hellman values are checked for their size and left alone.
    ///
    /// # Errors
    /// If it is no nonce, or not as long as its schema wants.
    pub fn parse(payload: &[u8]) -> Result<Self, NonceError> {
        let wrong_length = NonceError::Length(payload.len());
        let (head, rest) = payload.split_first_chunk::<LEN>().ok_or(wrong_length)?;
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let op = u32::from_le_bytes(word(0));
        if op != OP {
            return Err(NonceError::Op(op));
        }
        let schema = u32::from_le_bytes(word(8));
        let expected_len = match schema {
            0 | 1 => Some(0),
            2 => selectors_len(rest),
            3 => selectors_len(rest).map(|len| len + DH_LEN),
            unknown => return Err(NonceError::Schema(unknown)),
        };
        if expected_len != Some(rest.len()) {
            return Err(wrong_length);
        }
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&head[16..]);
        Ok(Self { selector: word(4), schema, unix: i32::from_le_bytes(word(12)), nonce })
    }
}

/// Bytes of the list of selectors at the front of `rest`, its count included.
fn selectors_len(rest: &[u8]) -> Option<usize> {
    let count = u32::from_le_bytes(*rest.first_chunk()?);
    (count <= SELECTORS_MAX).then_some(4 + 4 * count as usize)
}

#[cfg(test)]
mod tests {
    use super::super::frame::FrameWriter;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_known_nonce_frame_is_composed() {
        // protocol.md section 7.2: secret bytes s[i] = 3i + 5, time 0x5f000001, nonce 20..2f.
        let nonce = std::array::from_fn(|i| 0x20 + i.to_le_bytes()[0]);
        let message = NonceMessage { selector: [5, 8, 0x0b, 0x0e], schema: 1, unix: 0x5f00_0001, nonce };
        let mut frame = Vec::new();
        FrameWriter::default().append(&mut frame, &[&message.payload()]);
        let expected =
            "2c000000feffffffaa87cb7a05080b0e010000000100005f202122232425262728292a2b2c2d2e2fc201564c";
        assert_eq!(data_encoding::HEXLOWER.encode(&frame), expected);
        assert_eq!(NonceMessage::parse(&message.payload()), Ok(message));
    }

    fn long(schema: u32, count: u32, tail_len: usize) -> Vec<u8> {
        let message = NonceMessage { selector: [1; 4], schema, unix: 7, nonce: [2; 16] };
        let mut payload = message.payload().to_vec();
        payload.extend(count.to_le_bytes());
        payload.resize(payload.len() + tail_len, 9);
        payload
    }

    #[test]
    fn schemas_of_general_servers_are_recognised_by_their_exact_length() {
        for (count, len) in [(0, 0), (1, 4), (8, 32)] {
            assert_eq!(NonceMessage::parse(&long(2, count, len)).map(|message| message.schema), Ok(2));
            assert_eq!(NonceMessage::parse(&long(3, count, len + 260)).map(|message| message.schema), Ok(3));
            assert!(NonceMessage::parse(&long(2, count, len + 4)).is_err());
            assert!(NonceMessage::parse(&long(3, count, len + 256)).is_err());
        }
        assert_eq!(NonceMessage::parse(&long(2, 9, 36)), Err(NonceError::Length(72)));
    }

    #[test]
    fn what_is_no_nonce_is_named() {
        let good = NonceMessage { selector: [1; 4], schema: 1, unix: 7, nonce: [2; 16] }.payload();
        assert_eq!(NonceMessage::parse(&good[..28]), Err(NonceError::Length(28)));
        assert_eq!(NonceMessage::parse(&[&good[..], &[0; 4]].concat()), Err(NonceError::Length(36)));
        let mut other_op = good;
        other_op[0] ^= 1;
        assert_eq!(NonceMessage::parse(&other_op), Err(NonceError::Op(0x7acb_87ab)));
        let mut other_schema = good;
        other_schema[8] = 4;
        assert_eq!(NonceMessage::parse(&other_schema), Err(NonceError::Schema(4)));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(payload: Vec<u8>) {
            let _ = NonceMessage::parse(&payload);
        }
    }
}
