//! Frames of a link: made, right or wrong, and checked (protocol.md sections 7.1 and 7.5).
//!
//! ```text
//!  0         4      8             len−4     len
//!  ├ len ────┼ seq ─┼ payload ────┼ crc ────┤     or, inside the cipher only, a filler:  04 00 00 00
//! ```

use super::fault::LinkFault;

/// The sequence number of the first frame each way; the nonce has it.
pub const FIRST_SEQUENCE: i32 = -2;
/// Longest frame read. The protocol has no limit; this is the sane one of section 7.1.
pub const FRAME_LEN_MAX: u32 = 1 << 24;
/// Bytes around a payload.
const OVERHEAD: usize = 12;
/// One word that says nothing.
pub const FILLER: [u8; 4] = [4, 0, 0, 0];

/// Which checksum ends a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// IEEE.
    #[default]
    Crc32,
    /// Castagnoli.
    Crc32c,
}

impl Checksum {
    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> u32 {
        match self {
            Self::Crc32 => crc32fast::hash(bytes),
            Self::Crc32c => crc32c(bytes),
        }
    }
}

/// Eight tables, one for each byte of a word: table `k` moves a byte over `k` further zero bytes.
static CRC32C_TABLES: [[u32; 256]; 8] = crc32c_tables();

const fn crc32c_tables() -> [[u32; 256]; 8] {
    /// Castagnoli's polynomial, bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[table - 1][byte];
            tables[table][byte] = (crc >> 8) ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mixed = (u64::from_le_bytes(*word) ^ u64::from(crc)).to_le_bytes();
        crc = (0..8).fold(0, |crc, i| crc ^ CRC32C_TABLES[7 - i][usize::from(mixed[i])]);
    }
    for byte in rest {
        crc = (crc >> 8) ^ CRC32C_TABLES[0][usize::from(crc.to_le_bytes()[0] ^ byte)];
    }
    !crc
}

/// One thing wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A bit of the checksum is flipped.
    Checksum,
    /// The number is off by so many; the frames behind it count as if it were not.
    Sequence(i32),
    /// The number is off by so many, and the frames behind it count on from there.
    SequenceGap(i32),
    /// The length says this.
    Length(u32),
}

/// Makes frames.
#[derive(Debug)]
pub struct FrameWriter {
    sequence: i32,
    checksum: Checksum,
}

impl Default for FrameWriter {
    fn default() -> Self {
        Self { sequence: FIRST_SEQUENCE, checksum: Checksum::Crc32 }
    }
}

impl FrameWriter {
    /// From the next frame on.
    pub fn set_checksum(&mut self, checksum: Checksum) {
        self.checksum = checksum;
    }

    /// Appends a frame.
    ///
    /// # Panics
    /// If the payload is not whole words.
    pub fn append(&mut self, payload: &[u8], flaw: Option<Flaw>, out: &mut Vec<u8>) {
        assert!(payload.len().is_multiple_of(4), "a payload of {} bytes", payload.len());
        let start = out.len();
        let true_len = u32::try_from(payload.len() + OVERHEAD).expect("a frame is shorter than 4 GiB");
        let (len, sequence) = match flaw {
            Some(Flaw::Length(len)) => (len, self.sequence),
            Some(Flaw::Sequence(offset)) => (true_len, self.sequence.wrapping_add(offset)),
            Some(Flaw::SequenceGap(offset)) => {
                self.sequence = self.sequence.wrapping_add(offset);
                (true_len, self.sequence)
            }
            Some(Flaw::Checksum) | None => (true_len, self.sequence),
        };
        out.extend(len.to_le_bytes());
        out.extend(sequence.to_le_bytes());
        out.extend_from_slice(payload);
        let spoiled = if flaw == Some(Flaw::Checksum) { 1 << 7 } else { 0 };
        let checksum = self.checksum.of(&out[start..]) ^ spoiled;
        out.extend(checksum.to_le_bytes());
        self.sequence = self.sequence.wrapping_add(1);
    }
}

/// Fills what stands in `out` from `start` on up to whole cipher blocks.
pub fn append_fillers(out: &mut Vec<u8>, start: usize) {
    while !(out.len() - start).is_multiple_of(super::keys::BLOCK_LEN) {
        out.extend(FILLER);
    }
}

/// Finds and checks frames in a decrypted stream that arrives in any pieces.
#[derive(Debug)]
pub struct FrameReader {
    expected: i32,
    checksum: Checksum,
    buffer: Vec<u8>,
    /// Bytes of `buffer` already read.
    read: usize,
    /// Offset in the stream of the first byte of `buffer`.
    base: u64,
    /// Fillers since the last frame.
    fillers: u32,
    /// Fillers ever.
    fillers_total: u64,
    /// Fillers are only where a flush ends.
    is_strict: bool,
}

impl FrameReader {
    /// A reader at the beginning of a stream. `is_strict` refuses fillers that section 7.5 has no need of:
    /// more than three in a row, or such that do not end with a cipher block.
    #[must_use]
    pub fn new(is_strict: bool) -> Self {
        Self {
            expected: FIRST_SEQUENCE,
            checksum: Checksum::Crc32,
            buffer: Vec::new(),
            read: 0,
            base: 0,
            fillers: 0,
            fillers_total: 0,
            is_strict,
        }
    }

    /// From the next frame on.
    pub fn set_checksum(&mut self, checksum: Checksum) {
        self.checksum = checksum;
    }

    /// The stream is encrypted from here on: blocks count from this byte.
    pub fn begin_blocks(&mut self) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.base = 0;
    }

    /// Takes decrypted bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.base += self.read as u64;
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that have come and belong to no frame yet.
    #[must_use]
    pub fn buffered_len(&self) -> usize {
        self.buffer.len() - self.read
    }

    /// Filler words read so far.
    #[must_use]
    pub fn fillers(&self) -> u64 {
        self.fillers_total
    }

    /// The payload of the next whole frame; `None` until more bytes come.
    ///
    /// # Errors
    /// What is wrong with the frame. The stream is then lost.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, LinkFault> {
        while self.buffer[self.read..].starts_with(&FILLER) {
            self.read += FILLER.len();
            self.fillers += 1;
            self.fillers_total += 1;
            self.check_fillers(false)?;
        }
        let rest = &self.buffer[self.read..];
        let Some(&len) = rest.first_chunk::<4>() else { return Ok(None) };
        self.check_fillers(true)?;
        let found = u32::from_le_bytes(len);
        if !(16..=FRAME_LEN_MAX).contains(&found) || !found.is_multiple_of(4) {
            return Err(LinkFault::FrameLength { found });
        }
        let Some(frame) = rest.get(..found as usize) else { return Ok(None) };
        let (covered, checksum) = frame.split_at(frame.len() - 4);
        let sequence = i32::from_le_bytes([covered[4], covered[5], covered[6], covered[7]]);
        if checksum != self.checksum.of(covered).to_le_bytes() {
            return Err(LinkFault::Checksum { kind: self.checksum, sequence });
        }
        if sequence != self.expected {
            return Err(LinkFault::Sequence { found: sequence, expected: self.expected });
        }
        let payload = covered[8..].to_vec();
        self.expected = self.expected.wrapping_add(1);
        self.read += found as usize;
        self.fillers = 0;
        Ok(Some(payload))
    }

    /// Whether the fillers since the last frame are as a flush needs them.
    fn check_fillers(&self, is_run_over: bool) -> Result<(), LinkFault> {
        let end = self.base + self.read as u64;
        let is_aligned = end.is_multiple_of(super::keys::BLOCK_LEN as u64);
        let is_needed = self.fillers <= 3 && (is_aligned || !is_run_over);
        if self.is_strict && self.fillers > 0 && !is_needed {
            return Err(LinkFault::Fillers { count: self.fillers, end });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(payload: &[u8], flaw: Option<Flaw>) -> Vec<u8> {
        let mut wire = Vec::new();
        FrameWriter::default().append(payload, flaw, &mut wire);
        wire
    }

    fn read(wire: &[u8]) -> Result<Option<Vec<u8>>, LinkFault> {
        let mut reader = FrameReader::new(true);
        reader.push(wire);
        reader.next_frame()
    }

    #[test]
    fn the_checksums_have_their_check_values() {
        // protocol.md section 7.1; the same in the catalogue of parametrised CRC algorithms.
        assert_eq!(Checksum::Crc32.of(b"123456789"), 0xcbf4_3926);
        assert_eq!(Checksum::Crc32c.of(b"123456789"), 0xe306_9283);
        // RFC 3720, appendix B.4: 32 bytes of zeros, of ones, rising and falling.
        assert_eq!(Checksum::Crc32c.of(&[0; 32]), 0x8a91_36aa);
        assert_eq!(Checksum::Crc32c.of(&[0xff; 32]), 0x62a8_ab43);
        let rising: [u8; 32] = std::array::from_fn(|i| i.to_le_bytes()[0]);
        assert_eq!(Checksum::Crc32c.of(&rising), 0x46dd_794e);
    }

    #[test]
    fn lengths_at_the_edge_of_what_is_allowed() {
        for (len, is_allowed) in [
            (0, false),
            (8, false),
            (12, false),
            (15, false),
            (16, true),
            (17, false),
            (FRAME_LEN_MAX, true),
            (FRAME_LEN_MAX + 4, false),
            (1 << 31, false),
        ] {
            let found = read(&u32::to_le_bytes(len));
            let expected = if is_allowed { Ok(None) } else { Err(LinkFault::FrameLength { found: len }) };
            assert_eq!(found, expected, "{len}");
        }
    }

    #[test]
    fn each_flaw_is_found() {
        assert_eq!(read(&framed(&[1; 8], None)), Ok(Some(vec![1; 8])));
        let checksum = LinkFault::Checksum { kind: Checksum::Crc32, sequence: -2 };
        assert_eq!(read(&framed(&[1; 8], Some(Flaw::Checksum))), Err(checksum));
        let sequence = LinkFault::Sequence { found: 1, expected: -2 };
        assert_eq!(read(&framed(&[1; 8], Some(Flaw::Sequence(3)))), Err(sequence.clone()));
        assert_eq!(read(&framed(&[1; 8], Some(Flaw::SequenceGap(3)))), Err(sequence));
        let length = LinkFault::FrameLength { found: 12 };
        assert_eq!(read(&framed(&[1; 8], Some(Flaw::Length(12)))), Err(length));
    }

    #[test]
    fn a_gap_stays_and_a_wrong_number_does_not() {
        for (flaw, second) in [(Flaw::Sequence(5), -1), (Flaw::SequenceGap(5), 4)] {
            let mut wire = Vec::new();
            let mut writer = FrameWriter::default();
            writer.append(&[], Some(flaw), &mut wire);
            writer.append(&[], None, &mut wire);
            assert_eq!(wire[4..8], 3i32.to_le_bytes());
            assert_eq!(wire[16..20], i32::to_le_bytes(second));
        }
    }

    #[test]
    fn fillers_are_allowed_where_a_flush_ends_and_nowhere_else() {
        let frame = framed(&[1; 8], None);
        for (fillers, is_allowed) in [(0, true), (1, false), (3, false), (4, false)] {
            let wire = [FILLER.repeat(fillers), frame.clone()].concat();
            assert_eq!(read(&wire).is_ok(), is_allowed, "{fillers} at the beginning");
            let mut lenient = FrameReader::new(false);
            lenient.push(&wire);
            assert_eq!(lenient.next_frame(), Ok(Some(vec![1; 8])));
            assert_eq!(lenient.fillers(), fillers as u64);
        }
        // A frame of 20 bytes, and a flush that ends with a block.
        for (fillers, is_allowed) in [(2, false), (3, true), (4, false), (7, false)] {
            let mut wire = Vec::new();
            let mut writer = FrameWriter::default();
            writer.append(&[1; 8], None, &mut wire);
            wire.extend(FILLER.repeat(fillers));
            writer.append(&[2; 8], None, &mut wire);
            let mut reader = FrameReader::new(true);
            reader.push(&wire);
            assert_eq!(reader.next_frame(), Ok(Some(vec![1; 8])));
            assert_eq!(reader.next_frame().is_ok(), is_allowed, "{fillers}");
        }
    }

    proptest! {
        #[test]
        fn crc32c_is_that_of_single_bits(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bitwise = bytes.iter().fold(u32::MAX, |crc, &byte| {
                (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                    if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 }
                })
            });
            prop_assert_eq!(Checksum::Crc32c.of(&bytes), !bitwise);
        }

        #[test]
        fn what_is_framed_is_read_whatever_the_split(
            lengths in proptest::collection::vec(1usize..200, 1..8), piece_len in 1usize..100,
            flush_every in 1usize..4, switched_at in 0usize..8,
        ) {
            let mut wire = Vec::new();
            let mut writer = FrameWriter::default();
            let payloads: Vec<Vec<u8>> = lengths.iter().map(|&words| crate::pattern::bytes(0, words * 4)).collect();
            for (index, payload) in payloads.iter().enumerate() {
                if index == switched_at {
                    writer.set_checksum(Checksum::Crc32c);
                }
                writer.append(payload, None, &mut wire);
                if index % flush_every == 0 {
                    append_fillers(&mut wire, 0);
                }
            }
            let mut reader = FrameReader::new(true);
            let mut found = Vec::new();
            for piece in wire.chunks(piece_len) {
                reader.push(piece);
                loop {
                    if found.len() == switched_at {
                        reader.set_checksum(Checksum::Crc32c);
                    }
                    let Some(payload) = reader.next_frame().unwrap() else { break };
                    found.push(payload);
                }
            }
            prop_assert_eq!(found, payloads);
            prop_assert_eq!(reader.buffered_len(), 0);
        }
    }
}
