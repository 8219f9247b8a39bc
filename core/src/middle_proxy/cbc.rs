//! AES-256 in CBC mode: one chain a direction for as long as a link lives (protocol.md sections 7.3 and 7.5).
//!
//! ```text
//!   encrypting  c1 = E(p1 ^ iv), c2 = E(p2 ^ c1), …     each block waits for the one before: one chain uses a small part
//!   decrypting  p1 = D(c1) ^ iv, p2 = D(c2) ^ c1, …     of the CPU's AES units, several chains side by side all of them
//! ```
//! Links are few, so that their schedules are kept.

use aes::cipher::{Array, BlockCipherEncrypt, BlockModeDecrypt, KeyInit, KeyIvInit};
use aes::{Aes256Dec, Aes256Enc};
use zeroize::Zeroize;

use super::key_derivation::CbcKey;

/// Size of a block.
const BLOCK_LEN: usize = 16;

/// The chain toward a middle proxy.
pub struct CbcEncryptor {
    cipher: Aes256Enc,
    chain: [u8; BLOCK_LEN],
}

impl CbcEncryptor {
    /// A chain at its beginning.
    #[must_use]
    pub fn new(key: &CbcKey) -> Self {
        Self { cipher: Aes256Enc::new(&key.key.into()), chain: key.iv }
    }

    /// Encrypts whole blocks.
    ///
    /// # Panics
    /// If they are not whole.
    pub fn encrypt(&mut self, blocks: &mut [u8]) {
        assert!(blocks.len().is_multiple_of(BLOCK_LEN), "{} bytes are not whole blocks", blocks.len());
        for block in blocks.as_chunks_mut::<BLOCK_LEN>().0 {
            self.encrypt_block(block);
        }
    }

    #[inline]
    fn encrypt_block(&mut self, block: &mut [u8; BLOCK_LEN]) {
        let mixed = u128::from_ne_bytes(*block) ^ u128::from_ne_bytes(self.chain);
        self.chain = mixed.to_ne_bytes();
        self.cipher.encrypt_block((&mut self.chain).into());
        *block = self.chain;
    }
}

impl Drop for CbcEncryptor {
    fn drop(&mut self) {
        // The schedule wipes itself (feature `zeroize` of aes).
        self.chain.zeroize();
    }
}

/// The chain from a middle proxy.
pub struct CbcDecryptor {
    chain: cbc::Decryptor<Aes256Dec>,
}

impl CbcDecryptor {
    /// A chain at its beginning.
    #[must_use]
    pub fn new(key: &CbcKey) -> Self {
        Self { chain: cbc::Decryptor::new(&key.key.into(), &key.iv.into()) }
    }

    /// Decrypts whole blocks.
    ///
    /// # Panics
    /// If they are not whole.
    pub fn decrypt(&mut self, blocks: &mut [u8]) {
        let (blocks, rest) = Array::slice_as_chunks_mut(blocks);
        assert!(rest.is_empty(), "{} bytes are left of whole blocks", rest.len());
        self.chain.decrypt_blocks(blocks);
    }
}

impl std::fmt::Debug for CbcEncryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CbcEncryptor(..)")
    }
}

impl std::fmt::Debug for CbcDecryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CbcDecryptor(..)")
    }
}

/// Whole blocks, and the chain that they go on.
pub type Chain<'a> = (&'a mut CbcEncryptor, &'a mut [u8]);

/// Encrypts independent chains side by side, a block of each in turn, so that the CPU works on all of them at once. What
/// a longer chain has more than the others is encrypted with those that are as long.
///
/// # Panics
/// If some chain's bytes are not whole blocks.
pub fn encrypt_interleaved(chains: &mut [Option<Chain<'_>>]) {
    let mut done = 0;
    loop {
        let left = |chain: &Option<Chain<'_>>| {
            chain.as_ref().map_or(0, |(_, blocks)| blocks.len().saturating_sub(done))
        };
        let Some(shortest) = chains.iter().map(left).filter(|&left| left > 0).min() else { return };
        let end = done + shortest;
        let mut running = chains.iter_mut().flatten().filter(|(_, blocks)| blocks.len() >= end);
        // In fours: so many chains of blocks fit the CPU's window, and the compiler keeps them in registers.
        loop {
            match [running.next(), running.next(), running.next(), running.next()] {
                [Some(a), Some(b), Some(c), Some(d)] => run([a, b, c, d], done..end),
                [Some(a), Some(b), Some(c), None] => run([a, b, c], done..end),
                [Some(a), Some(b), None, None] => run([a, b], done..end),
                [Some(a), None, None, None] => run([a], done..end),
                _ => break,
            }
        }
        done = end;
    }
}

/// Encrypts the same range of each chain.
fn run<const N: usize>(chains: [&mut Chain<'_>; N], range: std::ops::Range<usize>) {
    assert!(range.len().is_multiple_of(BLOCK_LEN), "{} bytes are not whole blocks", range.len());
    let mut parts =
        chains.map(|(cipher, blocks)| (cipher, blocks[range.clone()].as_chunks_mut::<BLOCK_LEN>().0));
    for at in 0..range.len() / BLOCK_LEN {
        for (cipher, blocks) in &mut parts {
            cipher.encrypt_block(&mut blocks[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn nist_sp_800_38a_f_2_5_cbc_aes256() {
        // NIST SP 800-38A, appendices F.2.5 and F.2.6 (CBC-AES256), first two blocks.
        let key = CbcKey {
            key: hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
            iv: hex("000102030405060708090a0b0c0d0e0f"),
        };
        let plain: [u8; 32] = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let mut text = plain;
        let mut encryptor = CbcEncryptor::new(&key);
        encryptor.encrypt(&mut text[..16]);
        encryptor.encrypt(&mut text[16..]);
        assert_eq!(text, hex("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"));
        let mut decryptor = CbcDecryptor::new(&key);
        decryptor.decrypt(&mut text[..16]);
        decryptor.decrypt(&mut text[16..]);
        assert_eq!(text, plain);
    }

    #[test]
    #[should_panic(expected = "not whole blocks")]
    fn a_part_of_a_block_is_refused() {
        CbcEncryptor::new(&CbcKey { key: [0; 32], iv: [0; 16] }).encrypt(&mut [0; 17]);
    }

    proptest! {
        #[test]
        fn side_by_side_is_as_one_after_the_other(
            blocks in proptest::collection::vec(0_usize..40, 1..12),
            absent in 0_usize..12,
        ) {
            let text = |index: usize, len: usize| vec![index.to_le_bytes()[0]; 16 * len];
            let cipher = |index: usize| {
                CbcEncryptor::new(&CbcKey { key: [index.to_le_bytes()[0]; 32], iv: [7; 16] })
            };
            let mut expected: Vec<Vec<u8>> = blocks.iter().enumerate().map(|(i, len)| text(i, *len)).collect();
            let mut found = expected.clone();
            let mut ciphers: Vec<CbcEncryptor> = (0..blocks.len()).map(cipher).collect();
            for (index, text) in expected.iter_mut().enumerate().filter(|(index, _)| *index != absent) {
                cipher(index).encrypt(text);
            }
            let chains = ciphers.iter_mut().zip(found.iter_mut().map(Vec::as_mut_slice)).enumerate();
            let mut chains: Vec<Option<Chain<'_>>> =
                chains.map(|(index, chain)| (index != absent).then_some(chain)).collect();
            encrypt_interleaved(&mut chains);
            drop(chains);
            prop_assert_eq!(&found, &expected);
            // And the chains go on where they are.
            for index in (0..blocks.len()).filter(|index| *index != absent) {
                let mut serial = cipher(index);
                serial.encrypt(&mut text(index, blocks[index]));
                prop_assert_eq!(serial.chain, ciphers[index].chain);
            }
        }
    }
}
