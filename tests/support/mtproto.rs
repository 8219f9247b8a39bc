//! The first exchange of every MTProto connection: `req_pq_multi`, or `req_pq` of old clients, and `resPQ`,
//! composed and parsed.
//!
//! All are unencrypted messages:
//!
//! ```text
//!  0           8              16            20            24
//!  ├ 0 (i64) ──┼ message id ──┼ length ─────┼ constructor ┼ arguments ┤   length counts from byte 20
//! ```
//! Constructors and layouts: core.telegram.org/mtproto/auth_key and its TL schema.

const REQ_PQ: u32 = 0x6046_9778;
const REQ_PQ_MULTI: u32 = 0xbe7e_8ef1;
const RES_PQ: u32 = 0x0516_2463;
const VECTOR: u32 = 0x1cb5_c415;
const HEADER_LEN: usize = 20;

/// The product of two primes of Telegram's own worked example (core.telegram.org/mtproto/samples-auth_key).
const PQ: [u8; 8] = [0x17, 0xed, 0x48, 0x94, 0x1a, 0x08, 0xf9, 0x81];
/// Fingerprint of a server key that clients have known for years; a client that knows none of the
/// fingerprints in a `resPQ` gives up before it answers.
const SERVER_KEY_FINGERPRINT: u64 = 0xc3b4_2b02_6ce8_6b21;

/// The 128-bit number by which a client knows the answer to its own question.
pub type Nonce = [u8; 16];

/// A client's question: a 40-byte packet body.
#[must_use]
pub fn req_pq_multi(message_id: u64, nonce: &Nonce) -> Vec<u8> {
    unencrypted(message_id, REQ_PQ_MULTI, nonce)
}

/// Message id and nonce, if `body` is a `req_pq_multi`, padded or not.
#[must_use]
pub fn parse_req_pq_multi(body: &[u8]) -> Option<(u64, Nonce)> {
    let (message_id, arguments) = parse_unencrypted(body, REQ_PQ_MULTI)?;
    Some((message_id, *arguments.first_chunk()?))
}

/// An old client's question: a 40-byte packet body.
#[must_use]
pub fn req_pq(message_id: u64, nonce: &Nonce) -> Vec<u8> {
    unencrypted(message_id, REQ_PQ, nonce)
}

/// Message id and nonce, if `body` is a `req_pq` or a `req_pq_multi`, padded or not.
#[must_use]
pub fn parse_req_pq(body: &[u8]) -> Option<(u64, Nonce)> {
    let old = || parse_unencrypted(body, REQ_PQ);
    let (message_id, arguments) = parse_unencrypted(body, REQ_PQ_MULTI).or_else(old)?;
    Some((message_id, *arguments.first_chunk()?))
}

/// A data centre's answer: an 84-byte packet body.
#[must_use]
pub fn res_pq(message_id: u64, nonce: &Nonce, server_nonce: &Nonce) -> Vec<u8> {
    let mut arguments = Vec::with_capacity(64);
    arguments.extend(nonce);
    arguments.extend(server_nonce);
    // A TL string: length, bytes, zeros up to a multiple of four.
    arguments.push(8);
    arguments.extend(PQ);
    arguments.extend([0; 3]);
    arguments.extend(VECTOR.to_le_bytes());
    arguments.extend(1u32.to_le_bytes());
    arguments.extend(SERVER_KEY_FINGERPRINT.to_le_bytes());
    unencrypted(message_id, RES_PQ, &arguments)
}

/// The client's nonce and the server's, if `body` is a `resPQ`, padded or not.
#[must_use]
pub fn parse_res_pq(body: &[u8]) -> Option<(Nonce, Nonce)> {
    let (_, arguments) = parse_unencrypted(body, RES_PQ)?;
    let (nonce, rest) = arguments.split_first_chunk()?;
    let (server_nonce, _) = rest.split_first_chunk()?;
    Some((*nonce, *server_nonce))
}

fn unencrypted(message_id: u64, constructor: u32, arguments: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEADER_LEN + 4 + arguments.len());
    let length = u32::try_from(4 + arguments.len()).expect("messages of the key exchange are short");
    body.extend([0; 8]);
    body.extend(message_id.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(constructor.to_le_bytes());
    body.extend_from_slice(arguments);
    body
}

fn parse_unencrypted(body: &[u8], constructor: u32) -> Option<(u64, &[u8])> {
    let (auth_key_id, rest) = body.split_first_chunk::<8>()?;
    let (message_id, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let message = rest.get(..u32::from_le_bytes(*length) as usize)?;
    let (found, arguments) = message.split_first_chunk::<4>()?;
    let is_expected = *auth_key_id == [0; 8] && u32::from_le_bytes(*found) == constructor;
    is_expected.then_some((u64::from_le_bytes(*message_id), arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_forty_bytes_and_the_answer_84() {
        assert_eq!(req_pq_multi(1, &[2; 16]).len(), 40);
        assert_eq!(res_pq(1, &[2; 16], &[3; 16]).len(), 84);
    }

    #[test]
    fn question_and_answer_parse_even_with_padding_behind_them() {
        let mut question = req_pq_multi(77, &[2; 16]);
        question.extend([9; 12]);
        assert_eq!(parse_req_pq_multi(&question), Some((77, [2; 16])));
        assert_eq!(parse_req_pq(&question), Some((77, [2; 16])));
        assert_eq!(parse_req_pq(&req_pq(79, &[4; 16])), Some((79, [4; 16])));
        assert_eq!(parse_req_pq_multi(&req_pq(79, &[4; 16])), None);
        let mut answer = res_pq(78, &[2; 16], &[3; 16]);
        answer.extend([9; 12]);
        assert_eq!(parse_res_pq(&answer), Some(([2; 16], [3; 16])));
    }

    #[test]
    fn neither_is_mistaken_for_the_other_nor_read_when_cut() {
        let question = req_pq_multi(77, &[2; 16]);
        assert_eq!(parse_res_pq(&question), None);
        assert_eq!(parse_req_pq_multi(&question[..39]), None);
        assert_eq!(parse_req_pq_multi(&res_pq(78, &[2; 16], &[3; 16])), None);
    }
}
