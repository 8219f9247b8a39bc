//! Packets in a client's stream, in every transport, cut anywhere.

use mtproxy_core::random::Random;
use mtproxy_core::transport::packet_reader::{Next, PacketReader};
use mtproxy_core::transport::packet_writer::append_packet;
use mtproxy_core::transport::{PACKET_LEN_MAX, Transport};

use crate::script::{Script, behind};

const TRANSPORTS: [Transport; 3] =
    [Transport::Abridged, Transport::Intermediate, Transport::PaddedIntermediate];

fn good() -> Vec<Vec<u8>> {
    let streams = TRANSPORTS.map(|transport| {
        let mut stream = Vec::new();
        for words in [1, 10, 126, 127, 300] {
            append_packet(transport, &vec![0x5a; 4 * words], &mut stream, &mut Random::from_seed([1; 32]));
        }
        stream
    });
    streams.to_vec()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    (0..3).flat_map(|transport| behind(&[transport, 7, 0], &good())).collect()
}

pub(crate) fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let transport = TRANSPORTS[usize::from(script.byte()) % TRANSPORTS.len()];
    let piece_len = script.number() + 1;
    let stream = script.text(&good());
    let whole = packets(transport, &stream, stream.len().max(1));
    assert_eq!(packets(transport, &stream, piece_len), whole, "{transport:?} in pieces of {piece_len}");
}

/// All packets up to the first that cannot be one, and whether there was such, as a session reads a stream of which
/// more and more has come.
fn packets(transport: Transport, stream: &[u8], piece_len: usize) -> (Vec<(Vec<u8>, bool)>, bool) {
    let reader = PacketReader::new(transport);
    let (mut found, mut at, mut arrived) = (Vec::new(), 0, 0);
    loop {
        match reader.next(&stream[at..arrived]) {
            Err(_) => return (found, true),
            Ok(Next::Packet { body, consumed, quick_ack }) => {
                assert!(body.end <= consumed && body.len().is_multiple_of(4) && body.len() <= PACKET_LEN_MAX);
                found.push((stream[at..][body].to_vec(), quick_ack));
                at += consumed;
            }
            Ok(Next::NeedMore { at_least }) => {
                assert!(at_least > arrived - at, "it is there already");
                if arrived == stream.len() {
                    return (found, false);
                }
                arrived = (arrived + piece_len).min(stream.len());
            }
        }
    }
}
