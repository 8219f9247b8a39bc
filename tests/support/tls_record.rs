//! TLS application-data records as a client reads and writes them (protocol.md section 6.8).

use crate::error::PeerError;

/// Bytes in front of a record's body.
pub const RECORD_HEADER_LEN: usize = 5;
/// The ChangeCipherSpec record that each side sends once.
pub const CHANGE_CIPHER_SPEC: [u8; 6] = [0x14, 0x03, 0x03, 0x00, 0x01, 0x01];
/// Longest body that the official client sends.
pub const CLIENT_BODY_LEN_MAX: usize = 2878;

const APPLICATION_DATA: [u8; 3] = [0x17, 0x03, 0x03];

/// Appends `body` to `wire` in records of at most `body_len_max` bytes each.
pub fn write_records(body: &[u8], body_len_max: usize, wire: &mut Vec<u8>) {
    for part in body.chunks(body_len_max) {
        let length = u16::try_from(part.len()).expect("record bodies are at most 65535 bytes");
        wire.extend(APPLICATION_DATA);
        wire.extend(length.to_be_bytes());
        wire.extend_from_slice(part);
    }
}

/// Takes the records off a stream that arrives in any pieces, and keeps what it saw of their sizes.
#[derive(Clone, Debug, Default)]
pub struct RecordStream {
    header: Vec<u8>,
    body_left: usize,
    records: u64,
    body_len_max: usize,
}

impl RecordStream {
    /// Appends to `bodies` what `bytes` holds of record bodies.
    ///
    /// # Errors
    /// [`PeerError::NotApplicationData`] at the first header byte that cannot be one.
    pub fn receive(&mut self, mut bytes: &[u8], bodies: &mut Vec<u8>) -> Result<(), PeerError> {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let (body, rest) = bytes.split_at(self.body_left.min(bytes.len()));
                bodies.extend_from_slice(body);
                self.body_left -= body.len();
                bytes = rest;
                continue;
            }
            let (&byte, rest) = bytes.split_first().expect("the loop ends when there is nothing left");
            bytes = rest;
            if APPLICATION_DATA.get(self.header.len()).is_some_and(|&expected| expected != byte) {
                return Err(PeerError::NotApplicationData { found: byte });
            }
            self.header.push(byte);
            if let [_, _, _, high, low] = self.header[..] {
                self.body_left = usize::from(u16::from_be_bytes([high, low]));
                self.records += 1;
                self.body_len_max = self.body_len_max.max(self.body_left);
                self.header.clear();
            }
        }
        Ok(())
    }

    /// True between two records: a peer that closes here has not cut one.
    #[must_use]
    pub fn is_between_records(&self) -> bool {
        self.header.is_empty() && self.body_left == 0
    }

    /// Records begun so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The longest body announced so far, in bytes.
    #[must_use]
    pub fn body_len_max(&self) -> usize {
        self.body_len_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn anything_but_application_data_is_an_error_at_its_first_byte() {
        let mut bodies = Vec::new();
        for wrong in [&[0x15][..], &[0x17, 0x03, 0x01]] {
            let found = *wrong.last().unwrap();
            let result = RecordStream::default().receive(wrong, &mut bodies);
            assert_eq!(result, Err(PeerError::NotApplicationData { found }));
        }
    }

    #[test]
    fn an_empty_record_is_harmless() {
        let mut bodies = Vec::new();
        let mut records = RecordStream::default();
        records.receive(&[0x17, 3, 3, 0, 0, 0x17, 3, 3, 0, 1, 9], &mut bodies).unwrap();
        assert_eq!((bodies, records.records(), records.is_between_records()), (vec![9], 2, true));
    }

    proptest! {
        #[test]
        fn records_written_are_read_whatever_the_split(
            len in 0usize..9000, body_len_max in 1usize..3000, piece_len in 1usize..500,
        ) {
            let body = crate::pattern::bytes(0, len);
            let mut wire = Vec::new();
            write_records(&body, body_len_max, &mut wire);
            let mut records = RecordStream::default();
            let mut bodies = Vec::new();
            for piece in wire.chunks(piece_len) {
                records.receive(piece, &mut bodies).unwrap();
            }
            prop_assert_eq!(&bodies, &body);
            prop_assert!(records.body_len_max() <= body_len_max);
            prop_assert!(records.is_between_records());
        }
    }
}
