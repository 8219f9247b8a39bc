//! The keys of a link, from both nonces, both addresses and the shared secret (protocol.md section 7.3).
//!
//! ```text
//!   S = Ns ‖ Nc ‖ time ‖ ME's IPv4 ‖ proxy's port ‖ "CLIENT" or "SERVER" ‖ proxy's IPv4 ‖ ME's port
//!       ‖ secret ‖ Ns ‖ [ proxy's IPv6 ‖ ME's IPv6 ] ‖ Nc
//!   key = MD5(S[1..])[0..12] ‖ SHA1(S)      iv = MD5(S[2..])
//! ```
//! IPv4 addresses stand as little-endian numbers, so backwards; over IPv6 they are zero. The hashes are what the wire
//! wants; what protects a link is the secret.

use std::net::{IpAddr, SocketAddr};

use md5::{Digest as _, Md5};
use sha1::Sha1;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::nonce::Nonce;
use super::secret::ProxySecret;

/// Both ends of a link as the middle proxy sees them: behind NAT, our address outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkEnds {
    /// Ours.
    pub proxy: SocketAddr,
    /// The middle proxy's.
    pub middle_proxy: SocketAddr,
}

/// Which direction a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// From the proxy to the middle proxy.
    Client,
    /// From the middle proxy to the proxy.
    Server,
}

/// Key and first chaining value of one direction: AES-256 in CBC mode.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct CbcKey {
    /// The key.
    pub key: [u8; 32],
    /// The chaining value before the first block.
    pub iv: [u8; 16],
}

impl std::fmt::Debug for CbcKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CbcKey(..)")
    }
}

/// The key of one direction. `proxy_unix` is the time in our own nonce; the peer's does not count.
#[must_use]
pub fn derive(
    purpose: Purpose,
    server_nonce: &Nonce,
    client_nonce: &Nonce,
    proxy_unix: i32,
    ends: &LinkEnds,
    secret: &ProxySecret,
) -> CbcKey {
    let purpose: &[u8; 6] = match purpose {
        Purpose::Client => b"CLIENT",
        Purpose::Server => b"SERVER",
    };
    let mut text = Zeroizing::new(Vec::with_capacity(TEXT_LEN_MAX));
    text.extend_from_slice(server_nonce);
    text.extend_from_slice(client_nonce);
    text.extend_from_slice(&proxy_unix.to_le_bytes());
    text.extend_from_slice(&ipv4(ends.middle_proxy));
    text.extend_from_slice(&ends.proxy.port().to_le_bytes());
    text.extend_from_slice(purpose);
    text.extend_from_slice(&ipv4(ends.proxy));
    text.extend_from_slice(&ends.middle_proxy.port().to_le_bytes());
    text.extend_from_slice(secret.bytes());
    text.extend_from_slice(server_nonce);
    if let (IpAddr::V6(proxy), IpAddr::V6(middle_proxy)) = (ends.proxy.ip(), ends.middle_proxy.ip()) {
        text.extend_from_slice(&proxy.octets());
        text.extend_from_slice(&middle_proxy.octets());
    }
    text.extend_from_slice(client_nonce);
    let mut key = [0; 32];
    key[..12].copy_from_slice(&Md5::digest(&text[1..])[..12]);
    key[12..].copy_from_slice(&Sha1::digest(&*text));
    CbcKey { key, iv: Md5::digest(&text[2..]).into() }
}

/// Everything with the longest secret and IPv6 addresses.
const TEXT_LEN_MAX: usize = 4 * 16 + 4 + 2 * 4 + 2 * 2 + 6 + 256 + 2 * 16;

/// The address as a little-endian number; zero for an IPv6 one.
fn ipv4(address: SocketAddr) -> [u8; 4] {
    match address.ip() {
        IpAddr::V4(ip) => ip.to_bits().to_le_bytes(),
        IpAddr::V6(_) => [0; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// protocol.md section 7.3: Ns = 10..1f, Nc = 20..2f, time 0x5f000001, secret s[i] = 3i + 5 (128 bytes).
    fn derived(purpose: Purpose, proxy: &str, middle_proxy: &str) -> (String, String) {
        let from = |first: u8| std::array::from_fn(|i| first + i.to_le_bytes()[0]);
        let secret: Vec<u8> = (0..128_u8).map(|i| i.wrapping_mul(3).wrapping_add(5)).collect();
        let ends = LinkEnds { proxy: proxy.parse().unwrap(), middle_proxy: middle_proxy.parse().unwrap() };
        let secret = ProxySecret::new(&secret).unwrap();
        let key = derive(purpose, &from(0x10), &from(0x20), 0x5f00_0001, &ends, &secret);
        (data_encoding::HEXLOWER.encode(&key.key), data_encoding::HEXLOWER.encode(&key.iv))
    }

    #[test]
    fn the_known_keys_of_an_ipv4_link_are_derived() {
        let ends = ("10.0.0.2:40000", "127.0.0.1:8888");
        let client = derived(Purpose::Client, ends.0, ends.1);
        assert_eq!(client.0, "a154e065e6cc3abbf2ad5880b5c2c5df58089a11db04179fad991bbb230376ca");
        assert_eq!(client.1, "4b101d367bf060805f3fbe9de7abf69e");
        let server = derived(Purpose::Server, ends.0, ends.1);
        assert_eq!(server.0, "9e184fe9d86b1503edfecf4732941d8b113ba4294f3e5507c9d184a9d4ac759e");
        assert_eq!(server.1, "d17b1ae74bb4bf381af0d3aed50034b5");
    }

    #[test]
    fn the_known_keys_of_an_ipv6_link_are_derived() {
        let ends = ("[2001:db8::2]:40000", "[2001:db8::1]:8888");
        let client = derived(Purpose::Client, ends.0, ends.1);
        assert_eq!(client.0, "f3dc7af3cc032ca090343d1ddb5b4d09d744b8a0b51d544bca2bdab7655d9026");
        assert_eq!(client.1, "fc84643e1dd06f1aae5d42b8229b6f27");
        let server = derived(Purpose::Server, ends.0, ends.1);
        assert_eq!(server.0, "8e04cdafdc41cfb5e70ea4e5a7183486e908c98ef9ce91e4165ce00a52cfca1c");
        assert_eq!(server.1, "3568363757fee3aa28de910d4499f410");
    }

    #[test]
    fn debug_says_nothing() {
        assert_eq!(format!("{:?}", CbcKey { key: [1; 32], iv: [2; 16] }), "CbcKey(..)");
    }
}
