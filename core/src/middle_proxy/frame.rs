//! Frames: what a link carries in both directions (protocol.md section 7.1).
//!
//! ```text
//!  0         4       8                          len − 4      len
//!  ├ len LE ─┼ seq ──┼ payload: whole words ────┼ checksum ──┤   len counts all of it: 16 at least
//!  ├ 04 00 00 00 ┤   a filler: pads what is sent to whole blocks of the cipher, and counts as nothing
//! ```
//! `seq` counts frames from −2: the nonce, −1: the handshake, then what clients say. The checksum is over everything
//! before it: CRC-32, and behind the handshake CRC-32C if both sides know it.

use std::fmt;

/// Bytes around a payload.
const OVERHEAD_LEN: usize = 12;
/// Shortest frame: one word of payload.
const FRAME_LEN_MIN: usize = 16;
/// Longest frame that is read. The official proxy has no limit; the longest packet of a client is 1 MiB.
pub const FRAME_LEN_MAX: usize = 1 << 24;
/// Sequence number of the first frame.
const FIRST_SEQ: i32 = -2;
/// A filler as it is sent.
const FILLER: [u8; 4] = [4, 0, 0, 0];
/// Blocks of the cipher that fillers pad to.
const BLOCK_LEN: usize = 16;

/// Which checksum frames have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// CRC-32 of IEEE 802.3.
    #[default]
    Crc32,
    /// CRC-32C, Castagnoli's (RFC 3720 appendix B.4).
    Crc32c,
}

impl Checksum {
    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> u32 {
        match self {
            Self::Crc32 => crc32fast::hash(bytes),
            // A CRC of 32 bits in 64.
            Self::Crc32c => crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32,
        }
    }
}

/// What a frame cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// This length.
    BadLength(u32),
    /// Its checksum is another.
    Checksum,
    /// It is not the next one.
    Sequence {
        /// The number that it should have.
        expected: i32,
        /// The number that it has.
        found: i32,
    },
}

impl FrameError {
    /// The C proxy's code (policies.md section 4.5).
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::BadLength(len) if len >= 4 && len.is_multiple_of(4) && len < FRAME_LEN_MIN as u32 => -2,
            Self::BadLength(_) => -1,
            Self::Checksum => -3,
            Self::Sequence { found, .. } if found < FIRST_SEQ => -5,
            Self::Sequence { .. } => -4,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadLength(len) => write!(f, "found a frame of {len} bytes"),
            Self::Checksum => f.write_str("found a frame with a wrong checksum"),
            Self::Sequence { expected, found } => {
                write!(f, "found frame number {found}; expected number {expected}")
            }
        }
    }
}

/// Numbers and checks frames on their way out.
#[derive(Debug)]
pub struct FrameWriter {
    seq: i32,
    checksum: Checksum,
}

impl Default for FrameWriter {
    fn default() -> Self {
        Self { seq: FIRST_SEQ, checksum: Checksum::Crc32 }
    }
}

impl FrameWriter {
    /// Appends one frame, whose payload is `parts` one after the other: whole words together.
    ///
    /// # Panics
    /// If they are not, or longer than a frame may be.
    pub fn append(&mut self, out: &mut Vec<u8>, parts: &[&[u8]]) {
        let len = OVERHEAD_LEN + parts.iter().map(|part| part.len()).sum::<usize>();
        assert!(len.is_multiple_of(4) && len <= FRAME_LEN_MAX, "a frame of {len} bytes");
        let start = out.len();
        out.reserve(len);
        out.extend_from_slice(&(len as u32).to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        for part in parts {
            out.extend_from_slice(part);
        }
        let checksum = self.checksum.of(&out[start..]);
        out.extend_from_slice(&checksum.to_le_bytes());
        self.seq = self.seq.wrapping_add(1);
    }

    /// From the next frame on.
    pub fn set_checksum(&mut self, checksum: Checksum) {
        self.checksum = checksum;
    }
}

/// Appends fillers until `out[from..]` is whole blocks of the cipher.
///
/// # Panics
/// If it is not whole words: then no number of fillers helps.
pub fn append_fillers(out: &mut Vec<u8>, from: usize) {
    let len = out.len() - from;
    assert!(len.is_multiple_of(FILLER.len()), "{len} bytes of frames");
    for _ in 0..(len.next_multiple_of(BLOCK_LEN) - len) / FILLER.len() {
        out.extend_from_slice(&FILLER);
    }
}

/// A frame that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its number.
    pub seq: i32,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Finds frames, and insists on their order and their checksums.
#[derive(Debug)]
pub struct FrameReader {
    expected_seq: i32,
    checksum: Checksum,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self { expected_seq: FIRST_SEQ, checksum: Checksum::Crc32 }
    }
}

impl FrameReader {
    /// From the next frame on.
    pub fn set_checksum(&mut self, checksum: Checksum) {
        self.checksum = checksum;
    }

    /// The next frame in `bytes` from `*at` on, which moves behind it; fillers are passed over. `None` if it is not
    /// whole: then the bytes from `*at` on are to be given again, with more behind them.
    ///
    /// # Errors
    /// For what cannot be a frame, as soon as that shows.
    pub fn next<'a>(&mut self, bytes: &'a [u8], at: &mut usize) -> Result<Option<Frame<'a>>, FrameError> {
        loop {
            let rest = &bytes[*at..];
            let Some(header) = rest.first_chunk::<4>() else { return Ok(None) };
            if *header == FILLER {
                *at += FILLER.len();
                continue;
            }
            let len_on_wire = u32::from_le_bytes(*header);
            let len = len_on_wire as usize;
            if !(FRAME_LEN_MIN..=FRAME_LEN_MAX).contains(&len) || !len.is_multiple_of(4) {
                return Err(FrameError::BadLength(len_on_wire));
            }
            let Some(frame) = rest.get(..len) else { return Ok(None) };
            let payload = self.check(frame)?;
            *at += len;
            return Ok(Some(payload));
        }
    }

    fn check<'a>(&mut self, frame: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let (checked, checksum) = frame.split_last_chunk::<4>().expect("a frame has 16 bytes");
        if self.checksum.of(checked) != u32::from_le_bytes(*checksum) {
            return Err(FrameError::Checksum);
        }
        let seq = i32::from_le_bytes([checked[4], checked[5], checked[6], checked[7]]);
        if seq != self.expected_seq {
            return Err(FrameError::Sequence { expected: self.expected_seq, found: seq });
        }
        self.expected_seq = self.expected_seq.wrapping_add(1);
        Ok(Frame { seq, payload: &checked[8..] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The frames of `payloads`, with fillers behind each.
    fn wire(checksum: Checksum, payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut writer = FrameWriter::default();
        writer.set_checksum(checksum);
        let mut out = Vec::new();
        for payload in payloads {
            writer.append(&mut out, &[payload]);
            append_fillers(&mut out, 0);
        }
        out
    }

    #[test]
    fn checksums_have_the_check_values_of_the_catalogue() {
        // protocol.md section 7.1; CRC RevEng catalogue, CRC-32/ISO-HDLC and CRC-32/ISCSI.
        assert_eq!(Checksum::Crc32.of(b"123456789"), 0xcbf4_3926);
        assert_eq!(Checksum::Crc32c.of(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn the_parts_of_a_frame_are_one_payload() {
        let (mut split, mut whole) = (Vec::new(), Vec::new());
        FrameWriter::default().append(&mut split, &[b"ab", b"", b"cdefgh"]);
        FrameWriter::default().append(&mut whole, &[b"abcdefgh"]);
        assert_eq!(split, whole);
        assert_eq!(split.len(), 20);
    }

    #[test]
    fn fillers_pad_to_whole_blocks_and_none_are_added_to_those() {
        for (len, padded) in [(0, 0), (4, 16), (12, 16), (16, 16), (20, 32)] {
            let mut out = vec![1; 7 + len];
            append_fillers(&mut out, 7);
            assert_eq!(out.len() - 7, padded);
        }
    }

    #[test]
    fn lengths_that_no_frame_has_are_refused_with_the_codes_of_the_c_proxy() {
        let too_long = u32::try_from(FRAME_LEN_MAX + 4).unwrap();
        for (len, code) in [(0, -1), (3, -1), (8, -2), (12, -2), (17, -1), (u32::MAX, -1), (too_long, -1)] {
            let bytes = len.to_le_bytes();
            let found = FrameReader::default().next(&bytes, &mut 0);
            assert_eq!(found, Err(FrameError::BadLength(len)));
            assert_eq!(FrameError::BadLength(len).code(), code, "{len}");
        }
        for len in [16, u32::try_from(FRAME_LEN_MAX).unwrap()] {
            assert_eq!(FrameReader::default().next(&len.to_le_bytes(), &mut 0), Ok(None));
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed_and_a_gap_is() {
        let good = wire(Checksum::Crc32, &[vec![7; 4], vec![8; 4]]);
        let mut flipped = good.clone();
        flipped[9] ^= 1;
        assert_eq!(FrameReader::default().next(&flipped, &mut 0), Err(FrameError::Checksum));
        let second = &good[16..];
        let gap = FrameError::Sequence { expected: -2, found: -1 };
        assert_eq!(FrameReader::default().next(second, &mut 0), Err(gap));
        let before_the_first = FrameError::Sequence { expected: -2, found: -3 };
        assert_eq!((gap.code(), before_the_first.code(), FrameError::Checksum.code()), (-4, -5, -3));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_however_it_is_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 1..8),
            cuts in proptest::collection::vec(1_usize..50, 1..50),
            is_castagnoli: bool,
        ) {
            let words = |mut payload: Vec<u8>| { payload.resize(payload.len().next_multiple_of(4), 0); payload };
            let payloads: Vec<Vec<u8>> = payloads.into_iter().map(words).collect();
            let checksum = if is_castagnoli { Checksum::Crc32c } else { Checksum::Crc32 };
            let wire = wire(checksum, &payloads);
            let mut reader = FrameReader::default();
            reader.set_checksum(checksum);
            let (mut read, mut at, mut arrived) = (Vec::new(), 0, 0);
            for cut in cuts.into_iter().chain([wire.len()]) {
                arrived = (arrived + cut).min(wire.len());
                while let Some(frame) = reader.next(&wire[..arrived], &mut at).unwrap() {
                    read.push(frame.payload.to_vec());
                }
            }
            prop_assert_eq!((read, at), (payloads, wire.len()));
        }

        #[test]
        fn nothing_that_arrives_makes_it_panic(bytes: Vec<u8>) {
            let (mut reader, mut at) = (FrameReader::default(), 0);
            while let Ok(Some(_)) = reader.next(&bytes, &mut at) {}
            prop_assert!(at <= bytes.len());
        }
    }
}
