//! Our answer to an authentic hello: a flight that looks like the real site's (protocol.md 6.7).
//!
//! ```text
//!  record 16 03 03, 122 bytes     ServerHello: random, session id echoed, suite echoed,
//!                                 extensions key_share (x25519) and supported_versions (TLS 1.3)
//!  record 14 03 03, 1 byte        ChangeCipherSpec
//!  record 17 03 03, flight bytes  random: where a real server's encrypted certificate would be
//! ```
//! Its random is `HMAC-SHA256(key, client random ‖ all three records with a zeroed random)`; that is how
//! the client knows that it talks to a proxy which has the secret.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::client_hello::ClientHello;
use super::key_share::KeyShares;
use super::record::{CHANGE_CIPHER_SPEC, application_data_header};
use crate::random::Random;

/// Where the server random stands, from the start of the flight.
const RANDOM_AT: usize = 11;

/// Appends the flight that answers `hello` to `out`.
///
/// `hmac` carries the key of the secret that verified the hello; `body_len` is the size of the encrypted
/// part before the jitter of one byte that real certificates' signatures show.
pub(crate) fn append_server_flight(
    out: &mut Vec<u8>,
    hello: &ClientHello<'_>,
    cipher_suite: [u8; 2],
    mut hmac: Hmac<Sha256>,
    body_len: u16,
    key_shares: &mut KeyShares,
    random: &mut Random,
) {
    let start = out.len();
    out.extend_from_slice(&[0x16, 0x03, 0x03, 0x00, 0x7a]);
    out.extend_from_slice(&[0x02, 0x00, 0x00, 0x76, 0x03, 0x03]);
    out.extend_from_slice(&[0; 32]);
    out.push(0x20);
    out.extend_from_slice(hello.session_id());
    out.extend_from_slice(&cipher_suite);
    out.extend_from_slice(&[0x00, 0x00, 0x2e]);
    out.extend_from_slice(&[0x00, 0x33, 0x00, 0x24, 0x00, 0x1d, 0x00, 0x20]);
    // A point of the curve: a random number would be off it half the time, and that can be seen.
    out.extend_from_slice(&key_shares.next(random));
    out.extend_from_slice(&[0x00, 0x2b, 0x00, 0x02, 0x03, 0x04]);
    out.extend_from_slice(&CHANGE_CIPHER_SPEC);

    let body_len =
        usize::from(body_len) + usize::from(random.below(2) == 1) - usize::from(random.below(2) == 1);
    out.extend_from_slice(&application_data_header(body_len));
    let body_at = out.len();
    out.resize(body_at + body_len, 0);
    random.fill(&mut out[body_at..]);

    hmac.update(hello.random());
    hmac.update(&out[start..]);
    let digest: [u8; 32] = hmac.finalize().into_bytes().into();
    out[start + RANDOM_AT..][..32].copy_from_slice(&digest);
}
