//! The key material that proxies and middle proxies share: a file of 32 to 256 bytes without a format, which Telegram
//! hands out (protocol.md section 9.1). Its first four bytes name it on the wire; all of it goes into the derivation of
//! keys.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

/// Sizes that a secret may have.
pub const SECRET_LEN: RangeInclusive<usize> = 32..=256;

/// The shared secret. Shared by all workers, wiped when the last lets go of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxySecret(Arc<Zeroizing<Vec<u8>>>);

impl ProxySecret {
    /// The secret with these bytes.
    ///
    /// # Errors
    /// If there are too few or too many.
    pub fn new(bytes: &[u8]) -> Result<Self, ProxySecretError> {
        if !SECRET_LEN.contains(&bytes.len()) {
            return Err(ProxySecretError { len: bytes.len() });
        }
        Ok(Self(Arc::new(Zeroizing::new(bytes.to_vec()))))
    }

    /// The four bytes by which both sides name it.
    #[must_use]
    pub fn selector(&self) -> [u8; 4] {
        *self.0.first_chunk().expect("a secret has 32 bytes at least")
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its MD5 in hexadecimal: what the official proxy's statistics show, so that two operators may compare.
    #[must_use]
    pub fn md5_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&Md5::digest(self.bytes()))
    }
}

impl fmt::Debug for ProxySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxySecret(..)")
    }
}

/// Bytes that are no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxySecretError {
    len: usize,
}

impl fmt::Display for ProxySecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "found {} bytes; expected {} to {} bytes, as https://core.telegram.org/getProxySecret gives them; download \
             the file again",
            self.len,
            SECRET_LEN.start(),
            SECRET_LEN.end()
        )
    }
}

impl std::error::Error for ProxySecretError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_from_32_to_256_are_taken() {
        for (len, is_taken) in [(0, false), (31, false), (32, true), (128, true), (256, true), (257, false)] {
            assert_eq!(ProxySecret::new(&vec![7; len]).is_ok(), is_taken, "{len}");
        }
        let error = ProxySecret::new(&[0; 31]).unwrap_err().to_string();
        assert!(error.contains("found 31 bytes; expected 32 to 256"), "{error}");
    }

    #[test]
    fn the_selector_is_the_first_word_as_it_is() {
        let bytes: Vec<u8> = (0..128u8).map(|i| i.wrapping_mul(3).wrapping_add(5)).collect();
        assert_eq!(ProxySecret::new(&bytes).unwrap().selector(), [5, 8, 11, 14]);
    }

    #[test]
    fn the_digest_is_that_of_md5sum() {
        // `head -c 32 /dev/zero | md5sum`
        assert_eq!(ProxySecret::new(&[0; 32]).unwrap().md5_hex(), "70bc8f4b72a86921468bf8e8441dce51");
    }

    #[test]
    fn debug_says_nothing() {
        assert_eq!(format!("{:?}", ProxySecret::new(&[7; 32]).unwrap()), "ProxySecret(..)");
    }
}
