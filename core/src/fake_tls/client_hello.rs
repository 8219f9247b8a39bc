//! The client's hello, once it is complete: parsed and verified.
//!
//! ```text
//!   0   record header 16 03 01 len      43  session id length, 32
//!   5   handshake header 01 len(3)      44  session id
//!   9   version 03 03                   76  cipher suites: length(2), suites
//!  11   random, 32 bytes                 …  compression methods: length(1), methods
//!                                        …  extensions: length(2), { type(2) length(2) data }
//! ```
//! The random holds `HMAC-SHA256(key, hello with a zeroed random)`, its last four bytes XORed with the
//! client's clock (protocol.md 6.3).

use std::ops::Range;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::reassembly::{CLIENT_HELLO, HANDSHAKE_RECORD};
use super::record::RECORD_HEADER_LEN;
use crate::error::PeerMisbehaved;
use crate::policy::replay::HelloId;

const RANDOM: Range<usize> = 11..43;
const SESSION_ID: Range<usize> = 44..76;
const SERVER_NAME_EXTENSION: u16 = 0;

/// A well-formed hello, borrowed from its one record.
#[derive(Debug)]
pub struct ClientHello<'a> {
    record: &'a [u8],
    cipher_suites: Range<usize>,
    server_name: Option<Range<usize>>,
}

impl<'a> ClientHello<'a> {
    /// Parses one record that holds one whole hello.
    ///
    /// # Errors
    /// [`PeerMisbehaved::MalformedHello`] if the layout is not the one above.
    pub fn parse(record: &'a [u8]) -> Result<Self, PeerMisbehaved> {
        Self::parse_fields(record).ok_or(PeerMisbehaved::MalformedHello)
    }

    fn parse_fields(record: &'a [u8]) -> Option<Self> {
        let fields = Fields::parse(record)?;
        let is_laid_out_as_ours = record[9..11] == [0x03, 0x03]
            && fields.session_id == SESSION_ID
            && fields.extensions.end == record.len()
            && fields.cipher_suites.len() % 2 == 0;
        if !is_laid_out_as_ours {
            return None;
        }
        let server_name = find_server_name(record, fields.extensions)?;
        Some(Self { record, cipher_suites: fields.cipher_suites, server_name })
    }

    /// The name the hello greets, if it greets one.
    #[must_use]
    pub fn server_name(&self) -> Option<&'a [u8]> {
        self.server_name.clone().map(|range| &self.record[range])
    }

    /// The 32 bytes that hold the authentication.
    #[must_use]
    pub fn random(&self) -> &'a [u8; 32] {
        self.record[RANDOM].try_into().expect("parse checked the fixed part")
    }

    /// The part of the random by which replays are recognised.
    #[must_use]
    pub fn id(&self) -> HelloId {
        self.random()[..16].try_into().expect("16 of 32 bytes")
    }

    /// The session id, to be echoed.
    #[must_use]
    pub fn session_id(&self) -> &'a [u8] {
        &self.record[SESSION_ID]
    }

    /// The cipher suite to answer with: the first one behind GREASE, if it is one of TLS 1.3
    /// (protocol.md 6.6).
    ///
    /// # Errors
    /// [`PeerMisbehaved::NoCommonCipherSuite`].
    pub fn cipher_suite(&self) -> Result<[u8; 2], PeerMisbehaved> {
        let is_grease = |suite: &[u8]| suite[0] & 0x0f == 0x0a && suite[1] & 0x0f == 0x0a;
        let mut suites = self.record[self.cipher_suites.clone()].chunks_exact(2);
        match suites.find(|suite| !is_grease(suite)) {
            Some(&[0x13, suite @ 1..=3]) => Ok([0x13, suite]),
            _ => Err(PeerMisbehaved::NoCommonCipherSuite),
        }
    }

    /// The client's clock in Unix seconds, if the hello is authentic under the key that `hmac` was
    /// made with. The comparison takes the same time wherever it fails.
    #[must_use]
    pub fn verify(&self, mut hmac: Hmac<Sha256>) -> Option<u32> {
        hmac.update(&self.record[..RANDOM.start]);
        hmac.update(&[0; 32]);
        hmac.update(&self.record[RANDOM.end..]);
        let digest: [u8; 32] = hmac.finalize().into_bytes().into();
        let random = self.random();
        if !bool::from(digest[..28].ct_eq(&random[..28])) {
            return None;
        }
        Some(u32::from_le_bytes(std::array::from_fn(|i| digest[28 + i] ^ random[28 + i])))
    }
}

/// The name that a stranger's hello greets, whatever else there is wrong with it: so that each gets the site
/// it asked for. Hellos in more than one record, which no browser sends, greet nobody.
#[must_use]
pub fn greeted_name(received: &[u8]) -> Option<&[u8]> {
    let record_len =
        RECORD_HEADER_LEN + usize::from(u16::from_be_bytes([*received.get(3)?, *received.get(4)?]));
    let record = received.get(..record_len)?;
    if record[..2] != HANDSHAKE_RECORD[..2] || record.get(RECORD_HEADER_LEN) != Some(&CLIENT_HELLO) {
        return None;
    }
    let name = find_server_name(record, Fields::parse(record)?.extensions)??;
    Some(&record[name])
}

/// True while `received` is the beginning of a record with a hello, of whatever kind, that is still arriving.
#[must_use]
pub fn awaits_name(received: &[u8]) -> bool {
    let expected = [Some(0x16), Some(0x03), None, None, None, Some(CLIENT_HELLO)];
    let may_be_hello =
        expected.iter().zip(received).all(|(byte, found)| byte.is_none_or(|byte| byte == *found));
    let is_whole = received.len() >= RECORD_HEADER_LEN
        && received.len() >= RECORD_HEADER_LEN + usize::from(u16::from_be_bytes([received[3], received[4]]));
    may_be_hello && !is_whole
}

/// Where the parts of a hello stand in its record.
struct Fields {
    session_id: Range<usize>,
    cipher_suites: Range<usize>,
    extensions: Range<usize>,
}

impl Fields {
    fn parse(record: &[u8]) -> Option<Self> {
        let mut cursor = Cursor { bytes: record, at: RANDOM.end };
        let session_id_len = usize::from(cursor.byte()?);
        let session_id = cursor.take(session_id_len)?;
        let cipher_suites = cursor.take_prefixed_u16()?;
        let compression_methods_len = usize::from(cursor.byte()?);
        let _compression_methods = cursor.take(compression_methods_len)?;
        let extensions = cursor.take_prefixed_u16()?;
        Some(Self { session_id, cipher_suites, extensions })
    }
}

/// Walks the extensions. The outer `None` is a malformed hello, the inner one a hello without a name.
fn find_server_name(record: &[u8], extensions: Range<usize>) -> Option<Option<Range<usize>>> {
    let mut cursor = Cursor { bytes: &record[..extensions.end], at: extensions.start };
    while cursor.at < extensions.end {
        let kind = cursor.u16()?;
        let data = cursor.take_prefixed_u16()?;
        if kind == SERVER_NAME_EXTENSION {
            return parse_server_name(record, data).map(Some);
        }
    }
    Some(None)
}

/// One list with one host name that fills it (protocol.md 6.2).
fn parse_server_name(record: &[u8], data: Range<usize>) -> Option<Range<usize>> {
    let mut cursor = Cursor { bytes: &record[..data.end], at: data.start };
    let list = cursor.take_prefixed_u16()?;
    let mut entries = Cursor { bytes: &record[..list.end], at: list.start };
    let kind = entries.byte()?;
    let name = entries.take_prefixed_u16()?;
    let is_one_host_name = list.end == data.end && kind == 0 && name.end == list.end;
    (is_one_host_name && !record[name.clone()].contains(&0)).then_some(name)
}

/// Reads forward and never past the end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let range = self.at..self.at.checked_add(len)?;
        self.bytes.get(range.clone())?;
        self.at = range.end;
        Some(range)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|range| self.bytes[range.start])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|range| u16::from_be_bytes([self.bytes[range.start], self.bytes[range.start + 1]]))
    }

    fn take_prefixed_u16(&mut self) -> Option<Range<usize>> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reassembly::{HelloProgress, HelloReassembly, MESSAGE_LEN_MAX};
    use super::*;
    use hmac::KeyInit;
    use proptest::prelude::*;

    const KEY: [u8; 16] = *b"0123456789abcdef";
    const CLOCK: u32 = 1_700_000_000;

    fn hmac() -> Hmac<Sha256> {
        Hmac::new_from_slice(&KEY).unwrap()
    }

    fn prefixed(body: &[u8]) -> Vec<u8> {
        let mut out = u16::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        out.extend(body);
        out
    }

    /// An unauthenticated hello with these suites and extensions.
    fn compose(suites: &[u8], extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![0x03, 0x03];
        body.extend([0x55; 32]);
        body.push(32);
        body.extend([0x66; 32]);
        body.extend(prefixed(suites));
        body.extend([1, 0]);
        body.extend(prefixed(extensions));
        let mut record = vec![0x16, 0x03, 0x01];
        record.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
        record.extend([1, 0]);
        record.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        record.extend(body);
        record
    }

    fn server_name(name: &[u8]) -> Vec<u8> {
        let mut entry = vec![0];
        entry.extend(prefixed(name));
        let mut extension = vec![0, 0];
        extension.extend(prefixed(&prefixed(&entry)));
        extension
    }

    fn padding_to(record_len: usize, others: &[u8]) -> Vec<u8> {
        let empty = compose(&[0x13, 0x01], others).len() + 4;
        let mut extension = vec![0, 21];
        extension.extend(prefixed(&vec![0; record_len - empty]));
        extension
    }

    /// An authentic hello of exactly `record_len` bytes.
    fn authentic(record_len: usize) -> Vec<u8> {
        let mut extensions = server_name(b"example.com");
        extensions.extend(padding_to(record_len, &extensions));
        let mut record = compose(&[0x13, 0x01], &extensions);
        record[RANDOM].fill(0);
        let mut digest: [u8; 32] = hmac().chain_update(&record).finalize().into_bytes().into();
        for (byte, clock) in digest[28..].iter_mut().zip(CLOCK.to_le_bytes()) {
            *byte ^= clock;
        }
        record[RANDOM].copy_from_slice(&digest);
        record
    }

    /// The same handshake message in records of at most `body_len` bytes.
    fn split_into_records(record: &[u8], body_len: usize) -> Vec<u8> {
        let cut = |body: &[u8]| [&[0x16, 0x03, 0x01][..], &prefixed(body)].concat();
        record[5..].chunks(body_len).flat_map(cut).collect()
    }

    fn advance_whole(received: &[u8]) -> HelloProgress {
        HelloReassembly::default().advance(received)
    }

    #[test]
    fn an_authentic_hello_verifies_and_gives_the_clients_clock() {
        for record_len in [517, 1800, 4096, 16_000, 5 + MESSAGE_LEN_MAX] {
            let record = authentic(record_len);
            assert_eq!(record.len(), record_len);
            assert_eq!(advance_whole(&record), HelloProgress::Complete { trailing_len: 0 });
            let hello = ClientHello::parse(&record).unwrap();
            assert_eq!(hello.server_name(), Some(&b"example.com"[..]));
            assert_eq!(hello.verify(hmac()), Some(CLOCK));
        }
    }

    #[test]
    fn one_changed_bit_anywhere_makes_it_unauthentic() {
        let record = authentic(517);
        for at in 0..record.len() {
            // The four bytes that carry the clock are XORed with it, so they only change the clock.
            if (RANDOM.end - 4..RANDOM.end).contains(&at) {
                continue;
            }
            let mut changed = record.clone();
            changed[at] ^= 1;
            if let Ok(hello) = ClientHello::parse(&changed) {
                assert_eq!(hello.verify(hmac()), None, "byte {at}");
            }
        }
    }

    #[test]
    fn hellos_shorter_than_512_or_longer_than_a_record_are_not_ours() {
        assert_eq!(advance_whole(&authentic(5 + 512)), HelloProgress::Complete { trailing_len: 0 });
        assert_eq!(advance_whole(&authentic(5 + 511)), HelloProgress::NotAHello);
        assert_eq!(advance_whole(&authentic(5 + MESSAGE_LEN_MAX + 1)), HelloProgress::NotAHello);
    }

    #[test]
    fn trailing_bytes_are_counted() {
        let mut record = authentic(517);
        record.extend([1, 2, 3]);
        assert_eq!(advance_whole(&record), HelloProgress::Complete { trailing_len: 3 });
    }

    #[test]
    fn other_records_and_other_handshakes_are_not_hellos() {
        let record = authentic(517);
        for (at, value) in [(0, 0x17), (1, 0x02), (2, 0x03), (5, 0x02)] {
            let mut changed = record.clone();
            changed[at] = value;
            assert_eq!(advance_whole(&changed), HelloProgress::NotAHello, "byte {at}");
        }
        let mut split = split_into_records(&record, 100);
        split[105] = 0x17;
        assert_eq!(advance_whole(&split), HelloProgress::NotAHello);
        let with_empty_record = [&[0x16, 3, 1, 0, 0][..], &record].concat();
        assert_eq!(advance_whole(&with_empty_record), HelloProgress::NotAHello);
    }

    #[test]
    fn a_hello_that_ends_inside_a_record_is_not_ours() {
        let mut record = authentic(700);
        record[8] -= 1; // the message ends one byte before its record does
        assert_eq!(advance_whole(&record), HelloProgress::NotAHello);
    }

    #[test]
    fn the_first_suite_behind_grease_decides() {
        let suite = |suites: &[u8]| {
            let record = compose(suites, &server_name(b"a"));
            ClientHello::parse(&record).unwrap().cipher_suite()
        };
        assert_eq!(suite(&[0x1a, 0x1a, 0x13, 0x02, 0x13, 0x01]), Ok([0x13, 0x02]));
        assert_eq!(suite(&[0x13, 0x03]), Ok([0x13, 0x03]));
        for bad in [&[0x13, 0x04][..], &[0x13, 0x00], &[0xc0, 0x2b, 0x13, 0x01], &[0x0a, 0x0a], &[]] {
            assert_eq!(suite(bad), Err(PeerMisbehaved::NoCommonCipherSuite), "{bad:02x?}");
        }
    }

    #[test]
    fn a_hello_may_have_no_name_but_not_a_malformed_one() {
        let name_of = |extensions: &[u8]| {
            ClientHello::parse(&compose(&[0x13, 1], extensions)).map(|h| h.server_name().map(<[u8]>::to_vec))
        };
        assert_eq!(name_of(&[]), Ok(None));
        assert_eq!(name_of(&server_name(b"x")), Ok(Some(b"x".to_vec())));
        let malformed: [&[u8]; 6] = [
            &[0, 0, 0, 0],                         // no list
            &[0, 0, 0, 2, 0, 0],                   // an empty list
            &[0, 0, 0, 6, 0, 4, 1, 0, 1, b'x'],    // not a host name
            &[0, 0, 0, 6, 0, 4, 0, 0, 1, 0],       // a NUL in the name
            &[0, 0, 0, 7, 0, 4, 0, 0, 1, b'x', 9], // a byte behind the list
            &[0, 0, 0, 9],                         // longer than the hello
        ];
        for extension in malformed {
            assert_eq!(name_of(extension), Err(PeerMisbehaved::MalformedHello), "{extension:02x?}");
        }
    }

    #[test]
    fn a_strangers_name_is_found_whatever_else_is_wrong_with_its_hello() {
        let short = compose(&[0xc0, 0x2b], &server_name(b"example.com"));
        assert_eq!(greeted_name(&short), Some(&b"example.com"[..]), "shorter than ours");
        let mut without_session_id = short.clone();
        without_session_id.drain(SESSION_ID);
        without_session_id[SESSION_ID.start - 1] = 0;
        for at in [4, 8] {
            without_session_id[at] -= 32;
        }
        assert_eq!(greeted_name(&without_session_id), Some(&b"example.com"[..]), "TLS 1.2");
        assert!(ClientHello::parse(&without_session_id).is_err());
        assert_eq!(greeted_name(&short[..short.len() - 1]), None, "incomplete");
        assert_eq!(greeted_name(&compose(&[0x13, 1], &[])), None, "no name");
        assert_eq!(greeted_name(b"GET / HTTP/1.1"), None);
        assert!((0..short.len()).all(|len| awaits_name(&short[..len])) && !awaits_name(&short));
        assert!(!awaits_name(b"GET") && !awaits_name(&[0x16, 3, 1, 2, 0, 2]));
    }

    proptest! {
        #[test]
        fn any_split_into_segments_and_records_gives_the_same_hello(
            record_len in 517usize..6000, body_len in 1usize..3000, segment_len in 1usize..3000,
        ) {
            let record = authentic(record_len);
            let wire = split_into_records(&record, body_len);
            let mut reassembly = HelloReassembly::default();
            let mut received_len = 0;
            while received_len < wire.len() {
                received_len = wire.len().min(received_len + segment_len);
                let progress = reassembly.advance(&wire[..received_len]);
                let expected = if received_len == wire.len() {
                    HelloProgress::Complete { trailing_len: 0 }
                } else {
                    HelloProgress::Incomplete
                };
                prop_assert_eq!(progress, expected);
            }
            let message = reassembly.message(&wire);
            prop_assert_eq!(&*message, &record[..]);
        }

        #[test]
        fn no_input_makes_parser_or_reassembly_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..700), cut in 0usize..700, like_tls: bool,
        ) {
            if like_tls {
                for (byte, header) in bytes.iter_mut().zip([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]) {
                    *byte = header;
                }
            }
            let mut reassembly = HelloReassembly::default();
            let first = reassembly.advance(&bytes[..cut.min(bytes.len())]);
            if first == HelloProgress::Incomplete
                && matches!(reassembly.advance(&bytes), HelloProgress::Complete { .. }) {
                let _ = ClientHello::parse(&reassembly.message(&bytes)).map(|hello| hello.verify(hmac()));
            }
            let _ = ClientHello::parse(&bytes);
            prop_assert!(greeted_name(&bytes).is_none() || !awaits_name(&bytes));
        }
    }
}
