//! The two kinds of files about middle proxies, checked once (protocol.md section 9).

use std::fmt;
use std::time::SystemTime;

use md5::{Digest as _, Md5};
use mtproxy_core::middle_proxy::cluster_file::{self, ClusterFile};
use mtproxy_core::middle_proxy::secret::ProxySecret;

/// What a file turned out to hold.
pub(super) trait Content: Clone + fmt::Debug + Send + Sized + 'static {
    /// Larger ones are refused unread.
    const BYTES_MAX: u64;
    /// What an operator calls it.
    const NAME: &'static str;

    /// Checks a file's bytes.
    fn read(bytes: &[u8]) -> Result<Self, Flaw>;

    /// Why `newer`, although it is whole, should not replace this one. Asked of downloads only.
    fn refuses(&self, newer: &Self) -> Option<String>;
}

/// Why a file is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// Line and column, counted from one; `None` for a file without lines.
    pub(super) position: Option<(usize, usize)>,
    /// What was found, what was expected, what to do.
    pub(super) message: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Content for ClusterFile {
    const BYTES_MAX: u64 = 16 << 20;
    const NAME: &'static str = "the file of middle proxies";

    fn read(bytes: &[u8]) -> Result<Self, Flaw> {
        cluster_file::parse(bytes)
            .map_err(|error| Flaw { position: Some((error.line, error.column)), message: error.message })
    }

    /// A file that has lost most data centres is more likely a fault at its source than the truth, and following
    /// it would cut most clients off.
    fn refuses(&self, newer: &Self) -> Option<String> {
        let has = |id| newer.clusters.iter().any(|cluster| cluster.id == id);
        let lost = self.clusters.iter().filter(|cluster| !has(cluster.id)).count();
        (2 * lost > self.clusters.len()).then(|| {
            format!("found {lost} of {} data centres gone; expected at most half", self.clusters.len())
        })
    }
}

impl Content for ProxySecret {
    // Longer than a secret may be, so that the complaint can name the size of nearly everything that is put here
    // by mistake.
    const BYTES_MAX: u64 = 1 << 20;
    const NAME: &'static str = "the middle proxies' secret";

    fn read(bytes: &[u8]) -> Result<Self, Flaw> {
        Self::new(bytes).map_err(|error| Flaw { position: None, message: error.to_string() })
    }

    /// Anything of a fitting size could be a secret, so at least what servers send instead of one is not taken.
    fn refuses(&self, newer: &Self) -> Option<String> {
        newer.bytes().starts_with(b"<").then(|| "found a page of HTML; expected a secret".to_owned())
    }
}

/// A checked file.
#[derive(Clone, Debug)]
pub(super) struct Document<T> {
    pub(super) content: T,
    pub(super) origin: Origin,
}

/// Where a document came from, for statistics and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// File name or URL.
    pub name: String,
    /// Size in bytes.
    pub bytes: usize,
    /// MD5 in hexadecimal: what the official proxy shows, and what two operators may compare.
    pub md5_hex: String,
    /// When it was read.
    pub loaded_at: SystemTime,
    /// When it was last known to be current: written, or found unchanged by a download.
    pub current_at: SystemTime,
}

impl<T: Content> Document<T> {
    /// The document that `bytes`, which came from `name`, are. `current_at` says of when they are.
    pub(super) fn read(name: &str, bytes: &[u8], current_at: SystemTime) -> Result<Self, Flaw> {
        let origin = Origin {
            name: name.to_owned(),
            bytes: bytes.len(),
            md5_hex: md5_hex(bytes),
            loaded_at: SystemTime::now(),
            current_at,
        };
        Ok(Self { content: T::read(bytes)?, origin })
    }

    /// True if both are of the same bytes.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        (self.origin.bytes, &self.origin.md5_hex) == (other.origin.bytes, &other.origin.md5_hex)
    }
}

fn md5_hex(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clusters(ids: &[i16]) -> ClusterFile {
        let lines: String = ids.iter().map(|id| format!("proxy_for {id} 192.0.2.1:8888;\n")).collect();
        ClusterFile::read(lines.as_bytes()).unwrap()
    }

    #[test]
    fn losing_half_of_the_data_centres_is_believed_and_more_is_not() {
        let four = clusters(&[1, 2, 3, 4]);
        assert_eq!(four.refuses(&clusters(&[3, 4])), None);
        assert_eq!(
            four.refuses(&clusters(&[4])).unwrap(),
            "found 3 of 4 data centres gone; expected at most half"
        );
        assert_eq!(four.refuses(&clusters(&[1, 2, 3, 4, 5, -5])), None);
        assert!(clusters(&[1]).refuses(&clusters(&[2])).is_some(), "new ones do not make up for lost ones");
    }

    #[test]
    fn a_page_of_html_is_no_secret_although_its_size_may_fit() {
        let secret = |bytes: &[u8]| ProxySecret::read(bytes).unwrap();
        let old = secret(&[7; 128]);
        assert!(old.refuses(&secret(b"<html><body>Too many requests</body></html>")).is_some());
        assert_eq!(old.refuses(&secret(&[8; 32])), None);
    }

    #[test]
    fn a_flaw_says_where_it_is() {
        let flaw = ClusterFile::read(b"default 2;\nproxy_for 2 192.0.2.1;\n").unwrap_err();
        assert_eq!(flaw.position.unwrap().0, 2, "{flaw}");
        assert!(flaw.to_string().starts_with("line 2, column "), "{flaw}");
        assert!(ProxySecret::read(&[0; 31]).unwrap_err().message.contains("31"));
        assert!(ProxySecret::read(&[0; 257]).unwrap_err().message.contains("257"));
        assert!(ProxySecret::read(&[0; 32]).is_ok() && ProxySecret::read(&[0; 256]).is_ok());
    }

    #[test]
    fn the_origin_has_size_and_md5() {
        // RFC 1321 appendix A.5: MD5 ("abc").
        assert_eq!(md5_hex(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        let read = |bytes: &[u8]| Document::<ProxySecret>::read("name", bytes, SystemTime::now()).unwrap();
        assert_eq!(read(&[1; 40]).origin.bytes, 40);
        assert!(read(&[1; 40]).is_same_as(&read(&[1; 40])) && !read(&[1; 40]).is_same_as(&read(&[2; 40])));
    }
}
