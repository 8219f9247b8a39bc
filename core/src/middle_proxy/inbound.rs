//! What comes in from a middle proxy: ciphertext split anywhere, to frames in order.
//!
//! ```text
//!   input    ├─ frame ─┼─ frame ─┼─ frame's beg│  decrypted where it lies, frames read from there
//!   rest                         ├─────────────┤  what is left over is kept, and continued by the next input
//!                                 clear │ < 16 bytes of ciphertext
//! ```
//! Bounded by the longest frame, [`FRAME_LEN_MAX`](super::frame::FRAME_LEN_MAX), and one input.

use super::cbc::CbcDecryptor;
use super::frame::{Checksum, Frame, FrameError, FrameReader};

/// Size of an AES block.
const BLOCK_LEN: usize = 16;
/// Memory that is kept while nothing is left over.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// The incoming half of a link.
#[derive(Default)]
pub(crate) struct Inbound {
    reader: FrameReader,
    cipher: Option<CbcDecryptor>,
    rest: Vec<u8>,
    /// So many bytes of `rest` are decrypted; less than a block behind them is not.
    clear_len: usize,
}

/// Where the frames of an input are.
#[derive(Clone, Copy)]
pub(crate) enum Clear {
    /// At the front of the input.
    Input(usize),
    /// In `rest`.
    Rest,
}

impl Inbound {
    /// From the next byte on everything is encrypted.
    pub(crate) fn start_cipher(&mut self, cipher: CbcDecryptor) {
        self.cipher = Some(cipher);
    }

    pub(crate) fn set_checksum(&mut self, checksum: Checksum) {
        self.reader.set_checksum(checksum);
    }

    /// Decrypts `input`, in place if nothing was left over from the one before.
    pub(crate) fn decrypt(&mut self, input: &mut [u8]) -> Clear {
        if self.rest.is_empty() {
            let clear_len = whole_blocks(input.len(), self.cipher.is_some());
            if let Some(cipher) = &mut self.cipher {
                cipher.decrypt(&mut input[..clear_len]);
            }
            return Clear::Input(clear_len);
        }
        self.rest.extend_from_slice(input);
        let encrypted_len = self.rest.len() - self.clear_len;
        let len = whole_blocks(encrypted_len, self.cipher.is_some());
        let blocks = &mut self.rest[self.clear_len..][..len];
        if let Some(cipher) = &mut self.cipher {
            cipher.decrypt(blocks);
        }
        self.clear_len += len;
        Clear::Rest
    }

    /// The next whole frame from `*at` on.
    pub(crate) fn next<'a>(
        &'a mut self,
        input: &'a [u8],
        clear: Clear,
        at: &mut usize,
    ) -> Result<Option<Frame<'a>>, FrameError> {
        let bytes = match clear {
            Clear::Input(len) => &input[..len],
            Clear::Rest => &self.rest[..self.clear_len],
        };
        self.reader.next(bytes, at)
    }

    /// How many bytes there are from `at` on.
    pub(crate) fn unread_len(&self, input: &[u8], clear: Clear, at: usize) -> usize {
        match clear {
            Clear::Input(_) => input.len() - at,
            Clear::Rest => self.rest.len() - at,
        }
    }

    /// Keeps what no frame has used.
    pub(crate) fn keep(&mut self, input: &[u8], clear: Clear, used: usize) {
        match clear {
            Clear::Input(clear_len) => {
                self.rest.extend_from_slice(&input[used..]);
                self.clear_len = clear_len - used;
            }
            Clear::Rest => {
                self.rest.drain(..used);
                self.clear_len -= used;
            }
        }
        if self.rest.is_empty() && self.rest.capacity() > KEPT_BYTES_MAX {
            self.rest = Vec::new();
        }
    }
}

/// How much of `len` bytes can be read in the clear.
fn whole_blocks(len: usize, is_encrypted: bool) -> usize {
    if is_encrypted { len - len % BLOCK_LEN } else { len }
}
