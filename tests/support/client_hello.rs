//! A fake-TLS ClientHello as today's clients compose it (protocol.md sections 6.1 to 6.3 and 6.11).
//!
//! Looks like a browser's: GREASE, extensions in random order, a post-quantum key share of 1216 bytes
//! where there is room, padding up to exactly the length asked for. What makes it ours is the random:
//!
//! ```text
//!  random = D[0..28] ‖ (D[28..32] XOR clock)     D = HMAC-SHA256(key, hello with a zeroed random)
//! ```
//! Every way to be refused is an option here too.

use hmac::{Hmac, KeyInit, Mac};
use mtproxy_core::random::Random;
use mtproxy_core::secret::Key;
use sha2::Sha256;

use crate::tls_record::RECORD_HEADER_LEN;

/// The length of the classic template of clients and browsers: a body of 512 bytes.
pub const CLASSIC_LEN: usize = 517;

/// Where the random stands in the record.
const RANDOM_AT: usize = 11;
/// Everything of the record that is not extensions, with the cipher suites below.
const FIXED_LEN: usize = 82 + 2 * CIPHER_SUITES.len();

/// X25519MLKEM768, as IANA's registry of TLS supported groups numbers it.
const GROUP_X25519_MLKEM768: u16 = 0x11ec;
const MLKEM_SHARE_LEN: usize = 1216;
const GROUP_X25519: u16 = 0x001d;

/// GREASE first, then what Chrome offers. Its place in the list is taken by a random GREASE value.
const CIPHER_SUITES: [u16; 16] = [
    0x0a0a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c,
    0x009d, 0x002f, 0x0035,
];

/// What is wrong with a hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HelloFault {
    /// Nothing.
    #[default]
    None,
    /// One bit of the HMAC.
    WrongHmac,
    /// The first cipher suite behind GREASE is of TLS 1.2: authentic, but there is nothing to echo.
    NoTls13Suite,
    /// No HMAC at all: what a browser sends.
    Browser,
}

/// How a hello is composed.
#[derive(Clone, Debug)]
pub struct HelloOptions {
    /// Bytes of the whole record, header included.
    pub record_len: usize,
    /// The name in the SNI extension; `None` leaves the extension out.
    pub server_name: Option<String>,
    /// The client's clock.
    pub unix_seconds: u32,
    /// TLS records to cut the composed hello into, as software on the path of a client does. The HMAC is
    /// that of the hello in one record: whoever cuts does not know the secret.
    pub records: usize,
    /// What is wrong with it.
    pub fault: HelloFault,
}

impl HelloOptions {
    /// A flawless hello of [`CLASSIC_LEN`] bytes.
    #[must_use]
    pub fn new(server_name: &str, unix_seconds: u32) -> Self {
        Self {
            record_len: CLASSIC_LEN,
            server_name: Some(server_name.to_owned()),
            unix_seconds,
            records: 1,
            fault: HelloFault::None,
        }
    }
}

/// A hello, and what its answer must refer to.
#[derive(Clone, Debug)]
pub struct ClientHello {
    /// The bytes to send.
    pub wire: Vec<u8>,
    /// The random as sent.
    pub random: [u8; 32],
    /// To be echoed.
    pub session_id: [u8; 32],
    /// To be echoed: the first suite that is not GREASE.
    pub cipher_suite: [u8; 2],
}

/// Composes a hello that is authentic under `key`, unless its options say otherwise.
///
/// # Panics
/// If the length asked for cannot be reached: it is below what the extensions need (about 310 bytes), or
/// leaves 1 to 3 bytes for a padding extension, whose header takes four.
#[must_use]
pub fn compose(options: &HelloOptions, key: &Key, random: &mut Random) -> ClientHello {
    let session_id: [u8; 32] = random.bytes();
    let mut suites = CIPHER_SUITES;
    suites[0] = grease(random);
    if options.fault == HelloFault::NoTls13Suite {
        suites.swap(1, 4);
    }
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend(be16(options.record_len - RECORD_HEADER_LEN));
    record.push(1);
    record.extend(&be32(options.record_len - RECORD_HEADER_LEN - 4)[1..]);
    record.extend([0x03, 0x03]);
    record.extend(random.bytes::<32>());
    record.push(32);
    record.extend(session_id);
    record.extend(be16(2 * suites.len()));
    record.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    record.extend([1, 0]);
    let extensions = extensions(options, options.record_len - FIXED_LEN, random);
    record.extend(be16(extensions.len()));
    record.extend(extensions);
    assert_eq!(record.len(), options.record_len, "the parts of the hello add up");

    if options.fault != HelloFault::Browser {
        let mut authentication = authentication(&record, key, options.unix_seconds);
        if options.fault == HelloFault::WrongHmac {
            authentication[13] ^= 0x10;
        }
        record[RANDOM_AT..RANDOM_AT + 32].copy_from_slice(&authentication);
    }
    let sent_random = *record[RANDOM_AT..].first_chunk().expect("the record is longer");
    let wire = if options.records > 1 { cut_into_records(&record, options.records) } else { record };
    ClientHello { wire, random: sent_random, session_id, cipher_suite: suites[1].to_be_bytes() }
}

/// The random of protocol.md section 6.3.
fn authentication(record: &[u8], key: &Key, unix_seconds: u32) -> [u8; 32] {
    let mut zeroed = record.to_vec();
    zeroed[RANDOM_AT..RANDOM_AT + 32].fill(0);
    let mut digest = hmac_sha256(key, &[&zeroed]);
    for (byte, clock) in digest[28..].iter_mut().zip(unix_seconds.to_le_bytes()) {
        *byte ^= clock;
    }
    digest
}

/// HMAC-SHA256 of the concatenated `parts`.
pub(crate) fn hmac_sha256(key: &Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        hmac.update(part);
    }
    hmac.finalize().into_bytes().into()
}

/// The same handshake message in `count` records of nearly equal size.
fn cut_into_records(record: &[u8], count: usize) -> Vec<u8> {
    let message = &record[RECORD_HEADER_LEN..];
    let mut wire = Vec::with_capacity(record.len() + count * RECORD_HEADER_LEN);
    for part in message.chunks(message.len().div_ceil(count)) {
        wire.extend([0x16, 0x03, 0x01]);
        wire.extend(be16(part.len()));
        wire.extend_from_slice(part);
    }
    wire
}

/// Extensions of exactly `len` bytes, without the length in front of them.
fn extensions(options: &HelloOptions, len: usize, random: &mut Random) -> Vec<u8> {
    let small = chrome_extensions(options.server_name.as_deref(), false, random);
    let room = len.checked_sub(small.iter().map(Vec::len).sum());
    let room = room.unwrap_or_else(|| panic!("a hello of {} bytes is too short", options.record_len));
    // The post-quantum share if it fits and what is left can be padded.
    let with_mlkem = room.checked_sub(MLKEM_SHARE_LEN + 4).is_some_and(|rest| rest == 0 || rest >= 4);
    let mut all =
        if with_mlkem { chrome_extensions(options.server_name.as_deref(), true, random) } else { small };
    shuffle(&mut all, random);
    let mut extensions = all.concat();
    let padding = len - extensions.len();
    if padding > 0 {
        assert!(padding >= 4, "a hello of {} bytes leaves {padding} for padding", options.record_len);
        append_extension(&mut extensions, 0x0015, &vec![0; padding - 4]);
    }
    extensions
}

fn chrome_extensions(server_name: Option<&str>, with_mlkem: bool, random: &mut Random) -> Vec<Vec<u8>> {
    let group_grease = grease(random);
    let mut groups = vec![group_grease];
    let mut shares = share(group_grease, &[0]);
    if with_mlkem {
        let mut mlkem = vec![0; MLKEM_SHARE_LEN];
        random.fill(&mut mlkem);
        shares.extend(share(GROUP_X25519_MLKEM768, &mlkem));
    }
    groups.extend([GROUP_X25519_MLKEM768, GROUP_X25519, 0x0017, 0x0018]);
    shares.extend(share(GROUP_X25519, &random.bytes::<32>()));
    let versions = [grease(random), 0x0304, 0x0303];
    let algorithms = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];
    let list16 =
        |values: &[u16]| prefixed16(&values.iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<_>>());
    let mut versions_list = vec![6];
    versions_list.extend(versions.iter().flat_map(|version| version.to_be_bytes()));

    let mut all = vec![
        extension(grease(random), &[]),
        extension(0x0017, &[]),
        extension(0xff01, &[0]),
        extension(0x000a, &list16(&groups)),
        extension(0x000b, &[1, 0]),
        extension(0x0023, &[]),
        extension(0x0010, &prefixed16(b"\x02h2\x08http/1.1")),
        extension(0x0005, &[1, 0, 0, 0, 0]),
        extension(0x000d, &list16(&algorithms)),
        extension(0x0012, &[]),
        extension(0x0033, &prefixed16(&shares)),
        extension(0x002d, &[1, 1]),
        extension(0x002b, &versions_list),
        extension(0x001b, &[2, 0, 2]),
    ];
    if let Some(name) = server_name {
        let mut entry = vec![0];
        entry.extend(prefixed16(name.as_bytes()));
        all.push(extension(0x0000, &prefixed16(&entry)));
    }
    all
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + data.len());
    append_extension(&mut bytes, kind, data);
    bytes
}

fn append_extension(to: &mut Vec<u8>, kind: u16, data: &[u8]) {
    to.extend(kind.to_be_bytes());
    to.extend(prefixed16(data));
}

fn share(group: u16, key: &[u8]) -> Vec<u8> {
    let mut bytes = group.to_be_bytes().to_vec();
    bytes.extend(prefixed16(key));
    bytes
}

fn prefixed16(data: &[u8]) -> Vec<u8> {
    let mut bytes = be16(data.len()).to_vec();
    bytes.extend_from_slice(data);
    bytes
}

/// One of the sixteen values of RFC 8701.
fn grease(random: &mut Random) -> u16 {
    let nibble = random.below(16) as u16;
    nibble << 12 | 0x0a00 | nibble << 4 | 0x000a
}

fn shuffle(items: &mut [Vec<u8>], random: &mut Random) {
    for last in (1..items.len()).rev() {
        let bound = u32::try_from(last + 1).expect("a hello has few extensions");
        items.swap(last, random.below(bound) as usize);
    }
}

fn be16(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("lengths in a hello fit 16 bits").to_be_bytes()
}

fn be32(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a hello is shorter than 4 GiB").to_be_bytes()
}

/// Key material of a hello for the unit tests of other files: whether it is authentic, and its clock.
#[cfg(test)]
pub(crate) fn verify(record: &[u8], key: &Key) -> Option<u32> {
    let mut zeroed = record.to_vec();
    zeroed[RANDOM_AT..RANDOM_AT + 32].fill(0);
    let digest = hmac_sha256(key, &[&zeroed]);
    let random = &record[RANDOM_AT..RANDOM_AT + 32];
    (digest[..28] == random[..28])
        .then(|| u32::from_le_bytes(std::array::from_fn(|i| digest[28 + i] ^ random[28 + i])))
}

/// The session id in a hello, for the unit tests of other files.
#[cfg(test)]
pub(crate) fn session_id(record: &[u8]) -> [u8; 32] {
    *record[44..].first_chunk().expect("a hello is longer than its fixed part")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 16];

    fn hello(options: &HelloOptions) -> ClientHello {
        compose(options, &KEY, &mut Random::from_seed([1; 32]))
    }

    fn of_len(record_len: usize) -> HelloOptions {
        HelloOptions { record_len, ..HelloOptions::new("front.example", 1_700_000_000) }
    }

    #[test]
    fn every_length_asked_for_is_reached_to_the_byte() {
        for record_len in [400, 516, 517, 518, 1799, 1800, 4096, 4097, 16_000, 16_389] {
            let hello = hello(&of_len(record_len));
            assert_eq!(hello.wire.len(), record_len);
            assert_eq!(verify(&hello.wire, &KEY), Some(1_700_000_000));
            assert_eq!(session_id(&hello.wire), hello.session_id);
        }
    }

    #[test]
    fn a_modern_length_carries_a_post_quantum_share_and_the_classic_one_does_not() {
        let has_share = |wire: &[u8]| wire.windows(4).any(|w| w == [0x11, 0xec, 0x04, 0xc0]);
        assert!(has_share(&hello(&of_len(1800)).wire));
        assert!(!has_share(&hello(&of_len(CLASSIC_LEN)).wire));
    }

    #[test]
    fn the_extensions_parse_to_the_end_and_hold_the_name_once() {
        let wire = hello(&of_len(1800)).wire;
        let mut rest = &wire[FIXED_LEN..];
        let mut names = 0;
        while !rest.is_empty() {
            let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            if rest[..2] == [0, 0] {
                names += 1;
                assert_eq!(&rest[4..4 + length], b"\0\x10\0\0\x0dfront.example");
            }
            rest = &rest[4 + length..];
        }
        assert_eq!(names, 1);
    }

    #[test]
    fn faults_break_what_they_say_and_nothing_else() {
        let with = |fault| hello(&HelloOptions { fault, ..of_len(CLASSIC_LEN) });
        assert!(verify(&with(HelloFault::WrongHmac).wire, &KEY).is_none());
        assert!(verify(&with(HelloFault::Browser).wire, &KEY).is_none());
        let without_suite = with(HelloFault::NoTls13Suite);
        assert_eq!(without_suite.cipher_suite, [0xc0, 0x2b]);
        assert!(verify(&without_suite.wire, &KEY).is_some());
        let nameless = hello(&HelloOptions { server_name: None, ..of_len(CLASSIC_LEN) });
        assert!(!nameless.wire.windows(13).any(|w| w == b"front.example"));
    }

    #[test]
    fn a_hello_cut_into_records_holds_the_same_message() {
        let whole = hello(&of_len(1800)).wire;
        let mut cut = &hello(&HelloOptions { records: 5, ..of_len(1800) }).wire[..];
        let mut message = Vec::new();
        let mut records = 0;
        while !cut.is_empty() {
            let length = usize::from(u16::from_be_bytes([cut[3], cut[4]]));
            assert_eq!(cut[..3], [0x16, 3, 1]);
            message.extend_from_slice(&cut[5..5 + length]);
            cut = &cut[5 + length..];
            records += 1;
        }
        assert_eq!((records, &message[..]), (5, &whole[5..]));
    }
}
