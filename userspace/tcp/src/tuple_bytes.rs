//! A connection's four-tuple as bytes, to be hashed.

use std::net::{IpAddr, SocketAddr};

/// A label and two IPv6 endpoints.
const LEN_MAX: usize = 1 + 2 * 18;

/// `label ∙ local address ∙ local port ∙ remote address ∙ remote port`. Tuples of the two families differ
/// in length, which SipHash hashes too.
#[derive(Clone, Copy)]
pub(crate) struct TupleBytes {
    bytes: [u8; LEN_MAX],
    len: usize,
}

impl TupleBytes {
    pub(crate) fn new(label: u8, local: SocketAddr, remote: SocketAddr) -> Self {
        let mut tuple = Self { bytes: [0; LEN_MAX], len: 0 };
        tuple.put(&[label]);
        for endpoint in [local, remote] {
            match endpoint.ip() {
                IpAddr::V4(ip) => tuple.put(&ip.octets()),
                IpAddr::V6(ip) => tuple.put(&ip.octets()),
            }
            tuple.put(&endpoint.port().to_be_bytes());
        }
        tuple
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
