//! Hellos: the most complicated thing that strangers may send.

use std::sync::LazyLock;

use hmac::{Hmac, KeyInit, Mac};
use mtproxy_core::fake_tls::{ClientHello, HelloProgress, HelloReassembly, MESSAGE_LEN_MAX};
use mtproxy_core::random::Random;
use mtproxy_core::secret::Key;
use mtproxy_tests::client_hello::{HelloFault, HelloOptions, compose};
use sha2::Sha256;

use crate::script::{Script, behind};

const KEY: Key = *b"sixteen byte key";
const CLOCK: u32 = 1_700_000_000;
/// Where the random stands in a hello that is one record.
const RANDOM: std::ops::Range<usize> = 11..43;

fn good() -> Vec<Vec<u8>> {
    let classic = HelloOptions::new("front.example", CLOCK);
    let variants = [
        classic.clone(),
        HelloOptions { record_len: 1800, ..classic.clone() },
        HelloOptions { record_len: 16_000, ..classic.clone() },
        HelloOptions { records: 5, ..classic.clone() },
        HelloOptions { server_name: None, ..classic.clone() },
        HelloOptions { fault: HelloFault::NoTls13Suite, ..classic.clone() },
        HelloOptions { fault: HelloFault::Browser, ..classic },
    ];
    let mut random = Random::from_seed([6; 32]);
    variants.iter().map(|options| compose(options, &KEY, &mut random).wire).collect()
}

static GOOD: LazyLock<Vec<Vec<u8>>> = LazyLock::new(good);

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let signed = behind(&[1, 100, 0, 0], &GOOD);
    signed.into_iter().chain(behind(&[0, 0, 0, 0], &GOOD)).collect()
}

pub(crate) fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let sign_again = script.byte() % 2 == 1;
    let piece_len = script.number() + 1;
    let mut wire = script.text(&GOOD);
    if sign_again {
        sign(&mut wire);
    }
    let whole = collect(&wire, wire.len().max(1));
    assert!(collect(&wire, piece_len) == whole, "pieces of {piece_len} make another hello");
    if let Some(message) = whole {
        read(&message, sign_again && message == wire);
    }
}

/// The hello that has come when `wire` has come in pieces; `None` if it never does.
fn collect(wire: &[u8], piece_len: usize) -> Option<Vec<u8>> {
    let mut reassembly = HelloReassembly::default();
    let ends = (piece_len..wire.len()).step_by(piece_len).chain([wire.len()]);
    for end in ends {
        match reassembly.advance(&wire[..end]) {
            HelloProgress::Incomplete => {}
            HelloProgress::NotAHello => return None,
            HelloProgress::Complete { trailing_len } => {
                let message = reassembly.message(&wire[..end]).into_owned();
                assert!(message.len() <= MESSAGE_LEN_MAX + 5 && trailing_len < end);
                return Some(message);
            }
        }
    }
    None
}

fn read(message: &[u8], is_signed: bool) {
    let hmac = Hmac::<Sha256>::new_from_slice(&KEY).expect("HMAC takes a key of any length");
    let Ok(hello) = ClientHello::parse(message) else { return };
    assert_eq!((&hello.random()[..], hello.session_id().len()), (&message[RANDOM], 32));
    assert_eq!(hello.id()[..], message[RANDOM][..16]);
    if let Some(name) = hello.server_name() {
        let len =
            |more: usize| u16::try_from(name.len() + more).expect("bounded by the message").to_be_bytes();
        let extension = [&[0, 0][..], &len(5), &len(3), &[0], &len(0), name].concat();
        assert!(message.windows(extension.len()).any(|window| window == extension), "one name that fills it");
    }
    if let Ok(suite) = hello.cipher_suite() {
        assert!(matches!(suite, [0x13, 1..=3]));
    }
    let digest = digest(message);
    let is_authentic = digest[..28] == message[RANDOM][..28];
    assert_eq!(hello.verify(hmac).is_some(), is_authentic);
    assert!(is_authentic || !is_signed);
}

/// HMAC of the hello with a zeroed random.
fn digest(message: &[u8]) -> [u8; 32] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(&KEY).expect("HMAC takes a key of any length");
    hmac.update(&message[..RANDOM.start]);
    hmac.update(&[0; 32]);
    hmac.update(&message[RANDOM.end..]);
    hmac.finalize().into_bytes().into()
}

/// Makes a spoiled hello authentic, so that what lies behind the HMAC is reached.
fn sign(wire: &mut [u8]) {
    if wire.len() >= RANDOM.end {
        let digest = digest(wire);
        wire[RANDOM].copy_from_slice(&digest);
    }
}
