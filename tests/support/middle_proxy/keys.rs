//! Keys and ciphers of a link: protocol.md section 7.3.

use std::net::{IpAddr, SocketAddr};

use aes::{Aes256, Block};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use md5::Md5;
use sha1::{Digest, Sha1};

/// Bytes of a cipher block.
pub const BLOCK_LEN: usize = 16;

/// The random number with which each end begins.
pub type Nonce = [u8; 16];

/// Both ends of a link, as the middle proxy sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Where the proxy comes from, behind every NAT.
    pub proxy: SocketAddr,
    /// Where the middle proxy was found.
    pub middle_proxy: SocketAddr,
}

/// Which way a key encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// From the proxy to the middle proxy.
    ToMiddleProxy,
    /// From the middle proxy to the proxy.
    ToProxy,
}

/// A key and where its chain begins.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey {
    /// Of AES-256.
    pub key: [u8; 32],
    /// Of CBC.
    pub iv: [u8; 16],
}

impl std::fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkKey(..)")
    }
}

/// What the key of one direction is made from, besides the direction.
#[derive(Clone, Copy, Debug)]
pub struct KeyMaterial<'a> {
    /// The middle proxy's nonce.
    pub middle_proxy_nonce: &'a Nonce,
    /// The proxy's.
    pub proxy_nonce: &'a Nonce,
    /// The clock in the proxy's nonce message; the middle proxy's own plays no part.
    pub proxy_unix: i32,
    /// Both ends.
    pub ends: Ends,
    /// The whole file.
    pub secret: &'a [u8],
}

impl KeyMaterial<'_> {
    /// The key for one direction.
    #[must_use]
    pub fn derive(&self, purpose: Purpose) -> LinkKey {
        let text = self.text(purpose);
        let mut key = [0; 32];
        key[..12].copy_from_slice(&Md5::digest(&text[1..])[..12]);
        key[12..].copy_from_slice(&Sha1::digest(&text));
        LinkKey { key, iv: Md5::digest(&text[2..]).into() }
    }

    /// What is hashed.
    fn text(&self, purpose: Purpose) -> Vec<u8> {
        let Ends { proxy, middle_proxy } = self.ends;
        let mut text = Vec::with_capacity(86 + self.secret.len() + 32);
        text.extend(self.middle_proxy_nonce);
        text.extend(self.proxy_nonce);
        text.extend(self.proxy_unix.to_le_bytes());
        text.extend(reversed_v4(middle_proxy.ip()));
        text.extend(proxy.port().to_le_bytes());
        text.extend(match purpose {
            Purpose::ToMiddleProxy => b"CLIENT",
            Purpose::ToProxy => b"SERVER",
        });
        text.extend(reversed_v4(proxy.ip()));
        text.extend(middle_proxy.port().to_le_bytes());
        text.extend(self.secret);
        text.extend(self.middle_proxy_nonce);
        if let (IpAddr::V6(proxy), IpAddr::V6(middle_proxy)) = (proxy.ip(), middle_proxy.ip()) {
            text.extend(proxy.octets());
            text.extend(middle_proxy.octets());
        }
        text.extend(self.proxy_nonce);
        text
    }
}

/// The octets of an IPv4 address from the last to the first; zeros for IPv6.
fn reversed_v4(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [d, c, b, a]
        }
        IpAddr::V6(_) => [0; 4],
    }
}

/// One direction on its way out: a CBC chain that never ends.
pub struct Encryptor(cbc::Encryptor<Aes256>);

/// One direction on its way in.
pub struct Decryptor(cbc::Decryptor<Aes256>);

impl Encryptor {
    /// The beginning of the chain.
    #[must_use]
    pub fn new(key: &LinkKey) -> Self {
        Self(cbc::Encryptor::new(&key.key.into(), &key.iv.into()))
    }

    /// Encrypts whole blocks in place.
    ///
    /// # Panics
    /// If the last one is not whole.
    pub fn encrypt(&mut self, bytes: &mut [u8]) {
        self.0.encrypt_blocks(whole_blocks(bytes));
    }
}

impl Decryptor {
    /// The beginning of the chain.
    #[must_use]
    pub fn new(key: &LinkKey) -> Self {
        Self(cbc::Decryptor::new(&key.key.into(), &key.iv.into()))
    }

    /// Decrypts whole blocks in place.
    ///
    /// # Panics
    /// If the last one is not whole.
    pub fn decrypt(&mut self, bytes: &mut [u8]) {
        self.0.decrypt_blocks(whole_blocks(bytes));
    }
}

fn whole_blocks(bytes: &mut [u8]) -> &mut [Block] {
    let (blocks, rest) = Block::slice_as_chunks_mut(bytes);
    assert!(rest.is_empty(), "{} bytes behind the last whole block", rest.len());
    blocks
}

impl std::fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encryptor(..)")
    }
}

impl std::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decryptor(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    /// The inputs that all vectors of protocol.md section 7.3 share.
    fn derived(purpose: Purpose, proxy: &str, middle_proxy: &str) -> (usize, LinkKey) {
        let secret: Vec<u8> = (0..128u32).map(|i| (3 * i + 5).to_le_bytes()[0]).collect();
        let material = KeyMaterial {
            middle_proxy_nonce: &std::array::from_fn(|i| 0x10 + i.to_le_bytes()[0]),
            proxy_nonce: &std::array::from_fn(|i| 0x20 + i.to_le_bytes()[0]),
            proxy_unix: 0x5f00_0001,
            ends: Ends { proxy: proxy.parse().unwrap(), middle_proxy: middle_proxy.parse().unwrap() },
            secret: &secret,
        };
        (material.text(purpose).len(), material.derive(purpose))
    }

    #[test]
    fn the_vectors_for_ipv4_are_met() {
        // protocol.md section 7.3, first block of vectors.
        let to_middle_proxy = LinkKey {
            key: hex("a154e065e6cc3abbf2ad5880b5c2c5df58089a11db04179fad991bbb230376ca"),
            iv: hex("4b101d367bf060805f3fbe9de7abf69e"),
        };
        let to_proxy = LinkKey {
            key: hex("9e184fe9d86b1503edfecf4732941d8b113ba4294f3e5507c9d184a9d4ac759e"),
            iv: hex("d17b1ae74bb4bf381af0d3aed50034b5"),
        };
        let ends = ("10.0.0.2:40000", "127.0.0.1:8888");
        let same = |purpose, key| assert!(derived(purpose, ends.0, ends.1) == (214, key), "{purpose:?}");
        same(Purpose::ToMiddleProxy, to_middle_proxy);
        same(Purpose::ToProxy, to_proxy);
    }

    #[test]
    fn the_vectors_for_ipv6_are_met() {
        // protocol.md section 7.3, second block of vectors.
        let to_middle_proxy = LinkKey {
            key: hex("f3dc7af3cc032ca090343d1ddb5b4d09d744b8a0b51d544bca2bdab7655d9026"),
            iv: hex("fc84643e1dd06f1aae5d42b8229b6f27"),
        };
        let to_proxy = LinkKey {
            key: hex("8e04cdafdc41cfb5e70ea4e5a7183486e908c98ef9ce91e4165ce00a52cfca1c"),
            iv: hex("3568363757fee3aa28de910d4499f410"),
        };
        let ends = ("[2001:db8::2]:40000", "[2001:db8::1]:8888");
        let same = |purpose, key| assert!(derived(purpose, ends.0, ends.1) == (246, key), "{purpose:?}");
        same(Purpose::ToMiddleProxy, to_middle_proxy);
        same(Purpose::ToProxy, to_proxy);
    }

    #[test]
    fn nist_sp_800_38a_f_2_5_cbc_aes256() {
        // NIST SP 800-38A, appendix F.2.5 (CBC-AES256.Encrypt), first two blocks.
        let key = LinkKey {
            key: hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
            iv: hex("000102030405060708090a0b0c0d0e0f"),
        };
        let plain: [u8; 32] = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let cipher: [u8; 32] = hex("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d");
        let mut whole = plain;
        Encryptor::new(&key).encrypt(&mut whole);
        assert_eq!(whole, cipher);
        let mut blockwise = cipher;
        let mut decryptor = Decryptor::new(&key);
        blockwise.chunks_mut(BLOCK_LEN).for_each(|block| decryptor.decrypt(block));
        assert_eq!(blockwise, plain);
    }
}
