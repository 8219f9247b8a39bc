//! AES-256-CTR streams that are cheap to keep and quick to resume.
//!
//! A relay holds two of these for as long as the client stays connected, and most clients are idle.
//! An expanded AES-256 schedule is 240 bytes; key, counter and position are 56. So the schedule is
//! expanded at each use ([`AesCtr::resume`], about 60 ns with VAES) and never stored.
//!
//! The counter is a big-endian 128-bit number, as obfuscated2 wants it.

use aes::Aes256Enc;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use zeroize::{Zeroize, ZeroizeOnDrop};

type Keystream = ctr::Ctr128BE<Aes256Enc>;

/// A position in one AES-256-CTR keystream.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AesCtr {
    key: [u8; 32],
    iv: [u8; 16],
    /// Bytes of keystream already used.
    position: u64,
}

impl AesCtr {
    /// The keystream of `key` whose first counter block is `iv`, at byte 0.
    #[must_use]
    pub fn new(key: [u8; 32], iv: [u8; 16]) -> Self {
        Self { key, iv, position: 0 }
    }

    /// XORs the next `bytes.len()` keystream bytes into `bytes`.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.resume().apply(bytes);
    }

    /// Moves `count` bytes ahead without using them.
    pub fn skip(&mut self, count: u64) {
        self.position += count;
    }

    /// Expands the key once for several [`ActiveAesCtr::apply`] calls.
    pub fn resume(&mut self) -> ActiveAesCtr<'_> {
        let mut keystream = Keystream::new(&self.key.into(), &self.iv.into());
        if self.position != 0 {
            keystream.seek(self.position);
        }
        ActiveAesCtr { keystream, position: &mut self.position }
    }
}

impl std::fmt::Debug for AesCtr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AesCtr").field("position", &self.position).finish_non_exhaustive()
    }
}

/// An [`AesCtr`] with its schedule expanded; what it applies counts in the stream it came from.
pub struct ActiveAesCtr<'a> {
    keystream: Keystream,
    position: &'a mut u64,
}

impl ActiveAesCtr<'_> {
    /// XORs the next `bytes.len()` keystream bytes into `bytes`.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.keystream.apply_keystream(bytes);
        *self.position += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nist_sp_800_38a_f_5_5_ctr_aes256() {
        // NIST SP 800-38A, appendix F.5.5 (CTR-AES256.Encrypt), first two blocks.
        let hex = |s: &str| data_encoding::HEXLOWER.decode(s.as_bytes()).unwrap();
        let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let iv = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
        let mut text = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        AesCtr::new(key.try_into().unwrap(), iv.try_into().unwrap()).apply(&mut text);
        assert_eq!(text, hex("601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"));
    }

    #[test]
    fn the_counter_carries_through_all_128_bits() {
        let mut across = AesCtr::new([1; 32], [0xff; 16]);
        let mut two_blocks = [0; 32];
        across.apply(&mut two_blocks);
        let mut zero = [0; 16];
        AesCtr::new([1; 32], [0; 16]).apply(&mut zero);
        assert_eq!(two_blocks[16..], zero);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_keystream(
            key: [u8; 32], iv: [u8; 16],
            cuts in proptest::collection::vec(0usize..70, 0..12),
        ) {
            let total = cuts.iter().sum();
            let mut whole = vec![0; total];
            AesCtr::new(key, iv).apply(&mut whole);
            let mut stream = AesCtr::new(key, iv);
            let mut pieces = Vec::new();
            for cut in cuts {
                let mut piece = vec![0; cut];
                stream.apply(&mut piece);
                pieces.extend(piece);
            }
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn skipping_equals_applying_to_bytes_that_are_thrown_away(skip in 0u64..300) {
            let mut skipped = AesCtr::new([3; 32], [4; 16]);
            skipped.skip(skip);
            let mut applied = AesCtr::new([3; 32], [4; 16]);
            applied.apply(&mut vec![0; usize::try_from(skip).unwrap()]);
            let (mut a, mut b) = ([0; 40], [0; 40]);
            skipped.apply(&mut a);
            applied.apply(&mut b);
            prop_assert_eq!(a, b);
        }
    }
}
