//! What a link is about to send: whole frames in the clear until the end of a turn, then one encryption and one write
//! for all of them.
//!
//! Gathering is what makes a link cheap: a turn in which a hundred clients speak costs one padding, one chain of CBC and
//! one system call. It also lets several links be encrypted side by side, which a single chain cannot use.

use super::cbc::CbcEncryptor;
use super::frame::{Checksum, FrameWriter, append_fillers};

/// The outgoing half of a link.
#[derive(Default)]
pub(crate) struct Outbox {
    writer: FrameWriter,
    cipher: Option<CbcEncryptor>,
    pending: Vec<u8>,
}

/// Memory that an empty outbox keeps; a larger one was an exception.
const KEPT_BYTES_MAX: usize = 512 * 1024;

impl Outbox {
    /// Appends one frame whose payload is these parts.
    pub(crate) fn append(&mut self, parts: &[&[u8]]) {
        self.writer.append(&mut self.pending, parts);
    }

    /// Bytes that wait to be sealed.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// From the next frame on everything is encrypted. Nothing may be pending: it was meant to go in the clear.
    pub(crate) fn start_cipher(&mut self, cipher: CbcEncryptor) {
        assert!(self.pending.is_empty(), "a frame in the clear must leave before the cipher starts");
        self.cipher = Some(cipher);
    }

    pub(crate) fn set_checksum(&mut self, checksum: Checksum) {
        self.writer.set_checksum(checksum);
    }

    /// Pads what is pending, and gives it out to be encrypted, with the cipher if it has started.
    pub(crate) fn seal(&mut self) -> (Option<&mut CbcEncryptor>, &mut [u8]) {
        if self.cipher.is_some() {
            append_fillers(&mut self.pending, 0);
        }
        (self.cipher.as_mut(), &mut self.pending)
    }

    /// What was sealed and encrypted.
    pub(crate) fn sealed(&self) -> &[u8] {
        &self.pending
    }

    /// What was sealed has been sent.
    pub(crate) fn clear(&mut self) {
        self.pending.clear();
        if self.pending.capacity() > KEPT_BYTES_MAX {
            self.pending = Vec::new();
        }
    }
}
