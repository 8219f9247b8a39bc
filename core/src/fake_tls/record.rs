//! Application-data records, read and written as a stream.
//!
//! ```text
//!  0    1       3       5
//!  ├ 17 ┼ 03 03 ┼ len ──┼ body: len bytes of the obfuscated2 stream ┤   len is big-endian
//! ```
//! Record boundaries mean nothing to MTProto, so a record is passed on while it is still arriving.

use std::ops::Range;

use crate::error::PeerMisbehaved;

/// Bytes in front of a record's body.
pub const RECORD_HEADER_LEN: usize = 5;

/// The whole ChangeCipherSpec record, which both sides send once (TLS 1.3 middlebox compatibility).
pub const CHANGE_CIPHER_SPEC: [u8; 6] = [0x14, 0x03, 0x03, 0x00, 0x01, 0x01];

const APPLICATION_DATA: [u8; 3] = [0x17, 0x03, 0x03];

/// Finds the bodies in a stream of application-data records, split anywhere.
#[derive(Debug, Default)]
pub struct RecordReader {
    header: [u8; RECORD_HEADER_LEN],
    header_len: u8,
    body_left: u16,
}

impl RecordReader {
    /// The next stretch of body in `bytes` from `*at`, at most `len_max` long; `*at` moves behind it.
    /// `None` when `bytes` is used up. Empty records are passed over.
    ///
    /// # Errors
    /// [`PeerMisbehaved::ExpectedApplicationData`] as soon as a header cannot be one. A receiver accepts
    /// any length (spec 6.8).
    pub fn next_body(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        len_max: usize,
    ) -> Result<Option<Range<usize>>, PeerMisbehaved> {
        while self.body_left == 0 {
            let Some(&byte) = bytes.get(*at) else { return Ok(None) };
            *at += 1;
            let position = usize::from(self.header_len);
            if APPLICATION_DATA.get(position).is_some_and(|&expected| expected != byte) {
                return Err(PeerMisbehaved::ExpectedApplicationData);
            }
            self.header[position] = byte;
            self.header_len += 1;
            if usize::from(self.header_len) == RECORD_HEADER_LEN {
                self.body_left = u16::from_be_bytes([self.header[3], self.header[4]]);
                self.header_len = 0;
            }
        }
        let len = usize::from(self.body_left).min(bytes.len() - *at).min(len_max);
        if len == 0 {
            return Ok(None);
        }
        let body = *at..*at + len;
        *at = body.end;
        self.body_left -= u16::try_from(len).unwrap_or(u16::MAX);
        Ok(Some(body))
    }
}

/// Decides where records begin in a stream to be written.
///
/// The first records are small, so that the first answer of a connection is readable segment by segment
/// whatever is lost; later ones are as large as TLS allows, which costs a bulk transfer one header in
/// 16 KiB. Real servers with dynamic record sizes do the same.
#[derive(Debug, Default)]
pub struct RecordWriter {
    small_records_sent: u8,
}

/// Body of an early record: with its header it fits the segments of common paths. The official proxy's
/// only size (spec 6.8).
const SMALL_BODY_LEN: usize = 1425;
/// How many early records are small: about the initial congestion window of a connection (RFC 6928).
const SMALL_RECORDS: u8 = 10;
/// Largest body: 2¹⁴ bytes of content, its type byte and the authentication tag (RFC 8446 section 5.2).
const LARGE_BODY_LEN: usize = (1 << 14) + 1 + 16;

impl RecordWriter {
    /// The header of the next record and the length of its body, for `pending` bytes still to be sent.
    ///
    /// # Panics
    /// If `pending` is zero: empty records are never sent.
    #[must_use]
    pub fn next_record(&mut self, pending: usize) -> ([u8; RECORD_HEADER_LEN], usize) {
        assert!(pending > 0, "a record without a body");
        let body_len_max = if self.small_records_sent < SMALL_RECORDS {
            self.small_records_sent += 1;
            SMALL_BODY_LEN
        } else {
            LARGE_BODY_LEN
        };
        let body_len = pending.min(body_len_max);
        (application_data_header(body_len), body_len)
    }
}

/// The header of a record with a body of `body_len` bytes, which must fit 16 bits.
pub(super) fn application_data_header(body_len: usize) -> [u8; RECORD_HEADER_LEN] {
    let length = u16::try_from(body_len).expect("record bodies are bounded by LARGE_BODY_LEN");
    let [high, low] = length.to_be_bytes();
    let [kind, major, minor] = APPLICATION_DATA;
    [kind, major, minor, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(pieces: &[&[u8]]) -> Result<Vec<u8>, PeerMisbehaved> {
        let mut reader = RecordReader::default();
        let mut bodies = Vec::new();
        for piece in pieces {
            let mut at = 0;
            while let Some(body) = reader.next_body(piece, &mut at, usize::MAX)? {
                bodies.extend_from_slice(&piece[body]);
            }
            assert_eq!(at, piece.len());
        }
        Ok(bodies)
    }

    #[test]
    fn every_byte_of_a_header_is_checked_when_it_arrives() {
        for wrong in [&[0x15][..], &[0x17, 0x02], &[0x17, 0x03, 0x01]] {
            assert_eq!(read_all(&[wrong]), Err(PeerMisbehaved::ExpectedApplicationData), "{wrong:02x?}");
        }
        assert_eq!(read_all(&[&[0x17, 0x03, 0x03]]), Ok(vec![]));
    }

    #[test]
    fn empty_records_are_harmless_and_the_largest_is_accepted() {
        let mut wire = vec![0x17, 3, 3, 0, 0, 0x17, 3, 3, 0xff, 0xff];
        wire.extend([7; 65535]);
        assert_eq!(read_all(&[&wire]).unwrap().len(), 65535);
    }

    #[test]
    fn a_body_is_handed_out_in_pieces_no_longer_than_asked() {
        let wire = [0x17, 3, 3, 0, 4, 1, 2, 3, 4];
        let mut reader = RecordReader::default();
        let mut at = 0;
        assert_eq!(reader.next_body(&wire, &mut at, 3), Ok(Some(5..8)));
        assert_eq!(reader.next_body(&wire, &mut at, 3), Ok(Some(8..9)));
        assert_eq!(reader.next_body(&wire, &mut at, 3), Ok(None));
    }

    #[test]
    fn early_records_are_small_and_later_ones_as_large_as_tls_allows() {
        let mut writer = RecordWriter::default();
        for _ in 0..SMALL_RECORDS {
            assert_eq!(writer.next_record(100_000).1, SMALL_BODY_LEN);
        }
        assert_eq!(writer.next_record(100_000), ([0x17, 3, 3, 0x40, 0x11], LARGE_BODY_LEN));
        assert_eq!(writer.next_record(1), ([0x17, 3, 3, 0, 1], 1));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_whatever_the_split(
            lengths in proptest::collection::vec(1usize..5000, 1..20), piece_len in 1usize..700,
        ) {
            let mut writer = RecordWriter::default();
            let (mut wire, mut sent) = (Vec::new(), Vec::new());
            for mut pending in lengths {
                while pending > 0 {
                    let (header, len) = writer.next_record(pending);
                    wire.extend(header);
                    let body: Vec<u8> = (0..len).map(|i| (i % 251).to_le_bytes()[0]).collect();
                    wire.extend(&body);
                    sent.extend(body);
                    pending -= len;
                }
            }
            let pieces: Vec<&[u8]> = wire.chunks(piece_len).collect();
            prop_assert_eq!(read_all(&pieces).unwrap(), sent);
        }

        #[test]
        fn no_input_makes_the_reader_panic(bytes: Vec<u8>, len_max in 0usize..40) {
            let mut reader = RecordReader::default();
            let mut at = 0;
            while let Ok(Some(body)) = reader.next_body(&bytes, &mut at, len_max) {
                prop_assert!(!body.is_empty() && body.end <= bytes.len());
            }
        }
    }
}
