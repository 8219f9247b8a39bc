//! A row of bytes, read as decisions.
//!
//! Random bytes would never get past the first check of a hello or an init frame. So most inputs are
//! instructions how to spoil something good: the number of a seed, then edits.

/// The bytes not read yet. Behind the end all decisions are zero.
pub(crate) struct Script<'a> {
    rest: &'a [u8],
}

/// Longest text that edits make: more than any target reads at once.
const TEXT_LEN_MAX: usize = 1 << 16;

impl<'a> Script<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// The next `len` bytes, or as many as there are.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// All that is left: behind a zero as it is, behind another byte as edits of one of `seeds`.
    pub(crate) fn text(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let Some(choice) = usize::from(self.byte()).checked_sub(1) else {
            return self.bytes(usize::MAX).to_vec();
        };
        let mut text = seeds[choice % seeds.len()].clone();
        while !self.is_over() {
            self.edit(&mut text, seeds);
            text.truncate(TEXT_LEN_MAX);
        }
        text
    }

    fn edit(&mut self, text: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let kind = self.byte() % 8;
        let at = self.number() % (text.len() + 1);
        let behind = text.len() - at;
        match kind {
            0 => text.truncate(at),
            1 => drop(text.drain(at..at + self.number() % (behind + 1))),
            2 => insert(text, at, &[self.byte()].repeat(self.number() % 2048)),
            3 => {
                let len = usize::from(self.byte() % 16);
                insert(text, at, self.bytes(len));
            }
            4 => {
                let len = usize::from(self.byte() % 16).min(behind);
                let bytes = self.bytes(len);
                text[at..at + bytes.len()].copy_from_slice(bytes);
            }
            5 => {
                let bit = 1 << (self.byte() % 8);
                text.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bit);
            }
            6 => {
                let copy = text[at..at + self.number() % (behind + 1)].to_vec();
                let to = self.number() % (text.len() + 1);
                insert(text, to, &copy);
            }
            _ => {
                let other = &seeds[usize::from(self.byte()) % seeds.len()];
                let from = self.number() % (other.len() + 1);
                let len = self.number() % (other.len() - from + 1);
                insert(text, at, &other[from..from + len]);
            }
        }
    }
}

fn insert(text: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    text.splice(at..at, bytes.iter().copied());
}

/// For targets that read nothing else: each of `texts` as it is, for a fuzzer to change as it likes.
pub(crate) fn verbatim(texts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    behind(&[0], texts)
}

/// Each of `texts` behind `prefix`.
pub(crate) fn behind(prefix: &[u8], texts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| [prefix, text].concat()).collect()
}
