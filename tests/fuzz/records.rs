//! Application-data records from a client, cut anywhere.

use mtproxy_core::fake_tls::{RECORD_HEADER_LEN, RecordReader, RecordWriter};

use crate::script::{Script, behind};

fn good() -> Vec<Vec<u8>> {
    let record = |len: u16| [&[0x17, 3, 3], &len.to_be_bytes()[..], &vec![0xaa; len.into()]].concat();
    vec![
        record(5),
        [record(1), record(0), record(300)].concat(),
        record(16_384),
        [record(10), vec![0x15, 3, 3, 0, 2, 1, 0]].concat(),
    ]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    behind(&[3, 0, 0xff, 0xff, 0], &good())
}

pub(crate) fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let (piece_len, body_len_max) = (script.number() + 1, script.number() + 1);
    let stream = script.text(&good());
    let (expected, is_good) = bodies(&stream);
    let mut found = Vec::new();
    let mut reader = RecordReader::default();
    let read = stream.chunks(piece_len).try_for_each(|piece| {
        let mut at = 0;
        while let Some(body) = reader.next_body(piece, &mut at, body_len_max)? {
            assert!(!body.is_empty() && body.len() <= body_len_max && body.end == at);
            found.extend_from_slice(&piece[body]);
        }
        assert_eq!(at, piece.len(), "all is used up");
        Ok::<_, mtproxy_core::error::PeerMisbehaved>(())
    });
    assert_eq!((found == expected, read.is_ok()), (true, is_good), "pieces of {piece_len}");
    write_and_read(&stream, piece_len);
}

/// All bodies up to the first byte that no header has, and whether there was none: byte by byte, as the
/// specification has it.
fn bodies(stream: &[u8]) -> (Vec<u8>, bool) {
    let (mut bodies, mut rest) = (Vec::new(), stream);
    while !rest.is_empty() {
        if rest.iter().zip([0x17, 3, 3]).any(|(&found, expected)| found != expected) {
            return (bodies, false);
        }
        let Some((header, behind)) = rest.split_first_chunk::<RECORD_HEADER_LEN>() else { break };
        let len = usize::from(u16::from_be_bytes([header[3], header[4]])).min(behind.len());
        bodies.extend_from_slice(&behind[..len]);
        rest = &behind[len..];
    }
    (bodies, true)
}

/// What we put into records comes out of them.
fn write_and_read(payload: &[u8], piece_len: usize) {
    let mut writer = RecordWriter::default();
    let mut stream = Vec::new();
    for mut piece in payload.chunks(piece_len) {
        while !piece.is_empty() {
            let (header, body_len) = writer.next_record(piece.len());
            let (body, rest) = piece.split_at(body_len);
            stream.extend([&header[..], body].concat());
            piece = rest;
        }
    }
    let (read, is_good) = bodies(&stream);
    assert!(read == payload && is_good);
}
