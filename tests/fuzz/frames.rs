//! Frames of a link to a middle proxy, and the messages in them: what somebody sends who has the proxy secret.

use mtproxy_core::middle_proxy::frame::{Checksum, FrameReader, FrameWriter, append_fillers};
use mtproxy_core::middle_proxy::handshake::{HandshakeError, HandshakeMessage};
use mtproxy_core::middle_proxy::message::{self, Message};
use mtproxy_core::middle_proxy::nonce::NonceMessage;

use crate::script::{Script, behind};

fn good() -> Vec<Vec<u8>> {
    let answer = [&0x4403_da0d_u32.to_le_bytes()[..], &[0; 4], &7_i64.to_le_bytes(), &[9; 64]].concat();
    let payloads =
        [answer, message::ping(5).to_vec(), message::pong(6).to_vec(), message::close_conn(7).to_vec()];
    let streams = [Checksum::Crc32, Checksum::Crc32c].map(|checksum| {
        let mut writer = FrameWriter::default();
        writer.set_checksum(checksum);
        let mut stream = Vec::new();
        for payload in &payloads {
            writer.append(&mut stream, &[payload]);
            append_fillers(&mut stream, 0);
        }
        stream
    });
    streams.to_vec()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [0, 1].into_iter().flat_map(|checksum| behind(&[checksum, 15, 0], &good())).collect()
}

pub(crate) fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let checksum = if script.byte().is_multiple_of(2) { Checksum::Crc32 } else { Checksum::Crc32c };
    let piece_len = script.number() + 1;
    let stream = script.text(&good());
    let whole = payloads(checksum, &stream, stream.len().max(1));
    assert_eq!(payloads(checksum, &stream, piece_len), whole, "{checksum:?} in pieces of {piece_len}");
    for payload in whole.0.iter().chain([&stream]) {
        let _ = (Message::parse(payload), message::parse_ping(payload));
        let _ =
            (NonceMessage::parse(payload), HandshakeMessage::parse(payload), HandshakeError::parse(payload));
    }
    read_again(checksum, &whole.0);
}

/// All payloads up to the first frame that cannot be one, and whether there was such.
fn payloads(checksum: Checksum, stream: &[u8], piece_len: usize) -> (Vec<Vec<u8>>, bool) {
    let mut reader = FrameReader::default();
    reader.set_checksum(checksum);
    let (mut found, mut at, mut arrived) = (Vec::new(), 0, 0);
    loop {
        match reader.next(&stream[..arrived], &mut at) {
            Err(_) => return (found, true),
            Ok(Some(frame)) => found.push(frame.payload.to_vec()),
            Ok(None) if arrived == stream.len() => return (found, false),
            Ok(None) => arrived = (arrived + piece_len).min(stream.len()),
        }
        assert!(at <= arrived);
    }
}

/// What was read can be written, and is read again.
fn read_again(checksum: Checksum, found: &[Vec<u8>]) {
    let mut writer = FrameWriter::default();
    writer.set_checksum(checksum);
    let mut stream = Vec::new();
    for payload in found {
        writer.append(&mut stream, &[payload]);
    }
    assert_eq!(payloads(checksum, &stream, stream.len().max(1)), (found.to_vec(), false));
}
