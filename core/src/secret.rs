//! Client secrets: what an operator configures and a proxy link carries.
//!
//! ```text
//! plain      K                16 bytes          obfuscated2, any transport
//! dd         dd ‖ K           17 bytes          obfuscated2, padded intermediate only
//! ee         ee ‖ K ‖ domain  18 bytes or more  padded intermediate inside fake TLS
//! ```
//! A secret is written as hex, base64url or base64, and read in that order (protocol.md section 2).
//! It has no `Display` and a redacted `Debug`: text that contains the key is produced only by
//! [`Secret::reveal`], a name that shows up in review.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::random::Random;

/// Longest domain a client keeps when it parses a link (protocol.md section 2.1).
pub const DOMAIN_LEN_MAX: usize = 182;

const DD: u8 = 0xdd;
const EE: u8 = 0xee;

/// The 16 bytes that every derivation uses, whatever the prefix.
pub type Key = [u8; 16];

/// A client secret.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    key: Key,
    #[zeroize(skip)]
    kind: SecretKind,
}

/// What the prefix of a secret says about the client's transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// No prefix: every mode is admitted.
    Plain,
    /// `dd`: padded intermediate, without TLS.
    Padded,
    /// `ee`: padded intermediate inside TLS records, greeting this domain.
    FakeTls(DomainName),
}

impl Secret {
    /// A secret of the given kind.
    #[must_use]
    pub fn new(key: Key, kind: SecretKind) -> Self {
        Self { key, kind }
    }

    /// A new secret from `random`, never one that would be read as another kind.
    #[must_use]
    pub fn generate(random: &mut Random, kind: SecretKind) -> Self {
        Self { key: random.bytes(), kind }
    }

    /// The key of every derivation.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What the prefix says.
    #[must_use]
    pub fn kind(&self) -> &SecretKind {
        &self.kind
    }

    /// The secret as lower-case hex, prefix included: the form every client understands.
    /// Whoever reads it can use the proxy, so it goes to the operator and nowhere else.
    #[must_use]
    pub fn reveal(&self) -> String {
        let key = HEXLOWER.encode(&self.key);
        match &self.kind {
            SecretKind::Plain => key,
            SecretKind::Padded => format!("dd{key}"),
            SecretKind::FakeTls(domain) => {
                format!("ee{key}{}", HEXLOWER.encode(domain.as_str().as_bytes()))
            }
        }
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, SecretError> {
        let (kind, key) = match (bytes.len(), bytes.first()) {
            (16, _) => (SecretKind::Plain, bytes),
            (17, Some(&DD)) => (SecretKind::Padded, &bytes[1..]),
            (18.., Some(&EE)) => {
                let domain = std::str::from_utf8(&bytes[17..]).map_err(|_| DomainError::NotAHostName)?;
                (SecretKind::FakeTls(domain.parse()?), &bytes[1..17])
            }
            (17.., Some(&prefix)) => return Err(SecretError::UnknownPrefix { prefix, length: bytes.len() }),
            (length, _) => return Err(SecretError::TooShort { length }),
        };
        Ok(Self { key: key.try_into().map_err(|_| SecretError::TooShort { length: key.len() })?, kind })
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let unpadded = text.trim_end_matches('=');
        let mut bytes = HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .or_else(|_| BASE64URL_NOPAD.decode(unpadded.as_bytes()))
            .or_else(|_| BASE64_NOPAD.decode(unpadded.as_bytes()))
            .map_err(|_| SecretError::NotHexNorBase64)?;
        let secret = Self::from_bytes(&bytes);
        bytes.zeroize();
        secret
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Why a text is not a secret. Never contains the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretError {
    /// Neither hexadecimal nor base64url nor base64.
    NotHexNorBase64,
    /// Fewer than 16 bytes.
    TooShort {
        /// Bytes found.
        length: usize,
    },
    /// 17 bytes or more that begin with neither `dd` (exactly 17) nor `ee` (18 or more).
    UnknownPrefix {
        /// First byte found.
        prefix: u8,
        /// Bytes found.
        length: usize,
    },
    /// The domain of an `ee` secret is not one.
    Domain(DomainError),
}

impl From<DomainError> for SecretError {
    fn from(error: DomainError) -> Self {
        Self::Domain(error)
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHexNorBase64 => f.write_str(
                "found a text that is neither hexadecimal nor base64; \
                 expected 32 hexadecimal digits, optionally behind dd, or ee…domain; \
                 `mtproxy secret` makes one",
            ),
            Self::TooShort { length } => {
                write!(f, "found {length} bytes; expected 16 (32 hexadecimal digits)")
            }
            Self::UnknownPrefix { prefix, length } => write!(
                f,
                "found {length} bytes that begin with {prefix:02x}; expected 16 bytes, \
                 17 that begin with dd, or 18 and more that begin with ee"
            ),
            Self::Domain(error) => write!(f, "the domain behind the ee secret: {error}"),
        }
    }
}

impl std::error::Error for SecretError {}

/// A host name as it may stand in an `ee` secret and in the SNI of its hello.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(Box<str>);

impl DomainName {
    /// The name, as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        if text.len() > DOMAIN_LEN_MAX {
            return Err(DomainError::TooLong { length: text.len() });
        }
        let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let labels_are_filled = text.trim_end_matches('.').split('.').all(|label| !label.is_empty());
        if !text.bytes().all(is_host_byte) || !labels_are_filled {
            return Err(DomainError::NotAHostName);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainError {
    /// No characters at all.
    Empty,
    /// More than [`DOMAIN_LEN_MAX`] characters.
    TooLong {
        /// Characters found.
        length: usize,
    },
    /// Something else than letters, digits, `-`, `_` and filled labels between dots.
    NotAHostName,
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("found nothing; expected a host name such as example.com"),
            Self::TooLong { length } => {
                write!(f, "found a name of {length} characters; clients keep at most {DOMAIN_LEN_MAX}")
            }
            Self::NotAHostName => f.write_str(
                "found something that is not a host name; expected letters, digits, dots and hyphens",
            ),
        }
    }
}

impl std::error::Error for DomainError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY_HEX: &str = "000102030405060708090a0b0c0d0e0f";

    fn parse(text: &str) -> Result<Secret, SecretError> {
        text.parse()
    }

    #[test]
    fn the_prefix_decides_the_kind_and_never_the_key() {
        let key: Key = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let domain: DomainName = "example.com".parse().unwrap();
        for (text, kind) in [
            (KEY_HEX.to_owned(), SecretKind::Plain),
            (format!("dd{KEY_HEX}"), SecretKind::Padded),
            (format!("ee{KEY_HEX}6578616d706c652e636f6d"), SecretKind::FakeTls(domain)),
        ] {
            let secret = parse(&text).unwrap();
            assert_eq!((secret.key(), secret.kind()), (&key, &kind));
            assert_eq!(secret.reveal(), text);
        }
    }

    #[test]
    fn sixteen_bytes_that_begin_with_dd_or_ee_are_still_plain() {
        for prefix in ["dd", "ee"] {
            let text = format!("{prefix}{}", "11".repeat(15));
            assert_eq!(parse(&text).unwrap().kind(), &SecretKind::Plain);
        }
    }

    #[test]
    fn base64_forms_with_and_without_padding_are_understood() {
        let hex = parse(&format!("dd{}", "fb".repeat(16))).unwrap();
        for text in ["3fv7-_v7-_v7-_v7-_v7-_s", "3fv7-_v7-_v7-_v7-_v7-_s=", "3fv7+/v7+/v7+/v7+/v7+/s="] {
            assert_eq!(parse(text).unwrap(), hex, "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_with_what_was_found() {
        assert_eq!(parse("zz").unwrap_err(), SecretError::NotHexNorBase64);
        assert_eq!(parse(&KEY_HEX[2..]).unwrap_err(), SecretError::TooShort { length: 15 });
        let seventeen = format!("aa{KEY_HEX}");
        assert_eq!(parse(&seventeen).unwrap_err(), SecretError::UnknownPrefix { prefix: 0xaa, length: 17 });
        let ee_without_domain = format!("ee{KEY_HEX}");
        assert!(matches!(parse(&ee_without_domain), Err(SecretError::UnknownPrefix { prefix: 0xee, .. })));
        let domain_of = |len: usize| parse(&format!("ee{KEY_HEX}{}", "61".repeat(len)));
        assert!(domain_of(DOMAIN_LEN_MAX).is_ok());
        assert!(matches!(
            domain_of(DOMAIN_LEN_MAX + 1),
            Err(SecretError::Domain(DomainError::TooLong { .. }))
        ));
    }

    #[test]
    fn debug_and_errors_never_show_the_key() {
        let secret = parse(KEY_HEX).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret { kind: Plain, .. }");
        let message = parse("not a secret, but private").unwrap_err().to_string();
        assert!(!message.contains("private"));
    }

    #[test]
    fn domains_are_host_names() {
        for good in ["example.com", "a", "xn--e1afmkfd.xn--p1ai", "a_b.example", "example.com."] {
            assert!(good.parse::<DomainName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "a..b", ".a", "a b", "exämple.com", "a/b", "a\0b"] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_parses_comes_back(text in "\\PC{0,80}") {
            if let Ok(secret) = parse(&text) {
                prop_assert_eq!(parse(&secret.reveal()).unwrap(), secret);
            }
        }
    }
}
