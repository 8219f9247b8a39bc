//! The answer to an authentic ClientHello, checked to the letter (protocol.md section 6.7).
//!
//! ```text
//!  16 03 03 00 7a  ServerHello │ 14 03 03 00 01 01 │ 17 03 03 len  random-looking body
//!  └──────────────── one HMAC, over the client's random and all of this ──────────────┘
//! ```

use mtproxy_core::secret::Key;

use crate::client_hello::{ClientHello, hmac_sha256};
use crate::error::PeerError;
use crate::tls_record::{CHANGE_CIPHER_SPEC, RECORD_HEADER_LEN};

/// ServerHello record and its header.
const HELLO_LEN: usize = 127;
const RANDOM_AT: usize = 11;
const SESSION_ID_AT: usize = 44;
const CIPHER_SUITE_AT: usize = 76;
const EXTENSIONS_AT: usize = 81;
/// Everything in front of the application record's body.
const FLIGHT_HEADERS_LEN: usize = HELLO_LEN + CHANGE_CIPHER_SPEC.len() + RECORD_HEADER_LEN;

/// What an authentic flight said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerFlight {
    /// Bytes of the whole flight.
    pub len: usize,
    /// Bytes in its one application record: the size that imitates the front's certificate.
    pub application_len: usize,
}

/// Checks the flight at the beginning of `received`. `None` until all of it is there; whatever is wrong
/// in what has come already is an error at once.
///
/// # Errors
/// [`PeerError::ServerFlight`] with what was expected, [`PeerError::ServerNotAuthentic`].
pub fn check(received: &[u8], hello: &ClientHello, key: &Key) -> Result<Option<ServerFlight>, PeerError> {
    check_fixed_bytes(received, hello)?;
    let Some(headers) = received.get(..FLIGHT_HEADERS_LEN) else { return Ok(None) };
    let application_len =
        usize::from(u16::from_be_bytes([headers[FLIGHT_HEADERS_LEN - 2], headers[FLIGHT_HEADERS_LEN - 1]]));
    let expect = |holds, expected| if holds { Ok(()) } else { Err(PeerError::ServerFlight { expected }) };
    expect(application_len > 0, "application data of at least one byte")?;
    expect(application_len <= (1 << 14) + 256, "an application record that TLS 1.3 allows")?;
    check_extensions(&headers[EXTENSIONS_AT..HELLO_LEN])?;
    let len = FLIGHT_HEADERS_LEN + application_len;
    let Some(flight) = received.get(..len) else { return Ok(None) };
    let mut zeroed = flight.to_vec();
    zeroed[RANDOM_AT..RANDOM_AT + 32].fill(0);
    if hmac_sha256(key, &[&hello.random, &zeroed]) != flight[RANDOM_AT..RANDOM_AT + 32] {
        return Err(PeerError::ServerNotAuthentic);
    }
    Ok(Some(ServerFlight { len, application_len }))
}

/// The bytes that can have one value only, as far as they have come.
fn check_fixed_bytes(received: &[u8], hello: &ClientHello) -> Result<(), PeerError> {
    let fixed: [(usize, &[u8], &'static str); 7] = [
        (0, &[0x16, 0x03, 0x03, 0x00, 0x7a], "a handshake record of 122 bytes"),
        (5, &[0x02, 0x00, 0x00, 0x76, 0x03, 0x03], "a ServerHello of 118 bytes"),
        (43, &[32], "a session id of 32 bytes"),
        (SESSION_ID_AT, &hello.session_id, "the session id of the client"),
        (CIPHER_SUITE_AT, &hello.cipher_suite, "the first cipher suite of the client"),
        (78, &[0x00, 0x00, 0x2e], "no compression and 46 bytes of extensions"),
        (
            HELLO_LEN,
            &[0x14, 0x03, 0x03, 0x00, 0x01, 0x01, 0x17, 0x03, 0x03],
            "CCS and one application record",
        ),
    ];
    for (at, bytes, expected) in fixed {
        let arrived = received.get(at..).unwrap_or_default();
        if arrived.iter().zip(bytes).any(|(found, wanted)| found != wanted) {
            return Err(PeerError::ServerFlight { expected });
        }
    }
    Ok(())
}

/// An x25519 key share and the choice of TLS 1.3, in either order.
fn check_extensions(extensions: &[u8]) -> Result<(), PeerError> {
    const KEY_SHARE: [u8; 8] = [0x00, 0x33, 0x00, 0x24, 0x00, 0x1d, 0x00, 0x20];
    const VERSION: [u8; 6] = [0x00, 0x2b, 0x00, 0x02, 0x03, 0x04];
    let key_share_first = extensions.starts_with(&KEY_SHARE) && extensions.ends_with(&VERSION);
    let version_first =
        extensions.starts_with(&VERSION) && extensions[VERSION.len()..].starts_with(&KEY_SHARE);
    if key_share_first || version_first {
        return Ok(());
    }
    Err(PeerError::ServerFlight { expected: "an x25519 key share and the choice of TLS 1.3" })
}

/// A server's side for unit tests: the flight that answers `hello` under `key`.
#[cfg(test)]
pub(crate) fn compose(hello: &[u8], cipher_suite: [u8; 2], application_len: u16, key: &Key) -> Vec<u8> {
    let client_random = &hello[RANDOM_AT..RANDOM_AT + 32];
    let mut flight = vec![0x16, 0x03, 0x03, 0x00, 0x7a, 0x02, 0x00, 0x00, 0x76, 0x03, 0x03];
    flight.extend([0; 32]);
    flight.push(32);
    flight.extend(crate::client_hello::session_id(hello));
    flight.extend(cipher_suite);
    flight.extend([0x00, 0x00, 0x2e, 0x00, 0x33, 0x00, 0x24, 0x00, 0x1d, 0x00, 0x20]);
    flight.extend([0x77; 32]);
    flight.extend([0x00, 0x2b, 0x00, 0x02, 0x03, 0x04]);
    flight.extend(CHANGE_CIPHER_SPEC);
    flight.extend([0x17, 0x03, 0x03]);
    flight.extend(application_len.to_be_bytes());
    flight.extend(crate::pattern::bytes(0, usize::from(application_len)));
    let random = hmac_sha256(key, &[client_random, &flight]);
    flight[RANDOM_AT..RANDOM_AT + 32].copy_from_slice(&random);
    flight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_hello::{self, HelloOptions};
    use mtproxy_core::random::Random;

    const KEY: Key = [3; 16];

    fn hello_and_flight() -> (ClientHello, Vec<u8>) {
        let options = HelloOptions::new("front.example", 1);
        let hello = client_hello::compose(&options, &KEY, &mut Random::from_seed([2; 32]));
        let flight = compose(&hello.wire, hello.cipher_suite, 2000, &KEY);
        (hello, flight)
    }

    #[test]
    fn a_flight_is_accepted_when_its_last_byte_has_come_and_not_before() {
        let (hello, flight) = hello_and_flight();
        for len in 0..flight.len() {
            assert_eq!(check(&flight[..len], &hello, &KEY), Ok(None), "{len}");
        }
        let accepted = ServerFlight { len: flight.len(), application_len: 2000 };
        assert_eq!(check(&flight, &hello, &KEY), Ok(Some(accepted)));
        let with_payload = [&flight[..], &[0x17, 3, 3, 0, 1, 0]].concat();
        assert_eq!(check(&with_payload, &hello, &KEY), Ok(Some(accepted)));
    }

    #[test]
    fn a_change_of_any_bit_is_noticed() {
        let (hello, flight) = hello_and_flight();
        for at in (0..flight.len()).filter(|&at| !(136..138).contains(&at)) {
            let mut changed = flight.clone();
            changed[at] ^= 1;
            assert!(check(&changed, &hello, &KEY).is_err(), "byte {at}");
        }
    }

    #[test]
    fn extensions_may_come_in_either_order() {
        let (hello, mut flight) = hello_and_flight();
        flight[EXTENSIONS_AT..HELLO_LEN].rotate_right(6);
        flight[RANDOM_AT..RANDOM_AT + 32].fill(0);
        let random = hmac_sha256(&KEY, &[&hello.random, &flight]);
        flight[RANDOM_AT..RANDOM_AT + 32].copy_from_slice(&random);
        assert!(matches!(check(&flight, &hello, &KEY), Ok(Some(_))));
    }
}
