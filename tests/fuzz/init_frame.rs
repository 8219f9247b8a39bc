//! Init frames: 64 bytes from whoever connects.

use std::sync::LazyLock;

use mtproxy_core::credentials::{Credentials, SecretId};
use mtproxy_core::dc::DcId;
use mtproxy_core::obfuscated2::{ComposedInitFrame, INIT_FRAME_LEN, InitFrame};
use mtproxy_core::random::Random;
use mtproxy_core::secret::{Key, Secret, SecretKind};
use mtproxy_core::transport::Transport;

use crate::script::{Script, behind};

const KEYS: [Key; 4] = [[1; 16], [2; 16], [3; 16], [4; 16]];
const TRANSPORTS: [Transport; 3] =
    [Transport::Abridged, Transport::Intermediate, Transport::PaddedIntermediate];

fn kind_of(index: usize) -> SecretKind {
    match index {
        0 | 3 => SecretKind::Plain,
        1 => SecretKind::Padded,
        _ => SecretKind::FakeTls("front.example".parse().expect("a domain")),
    }
}

static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| {
    let named = |(index, key): (usize, &Key)| (index.to_string(), Secret::new(*key, kind_of(index)));
    Credentials::new(KEYS.iter().enumerate().map(named))
});

fn good() -> Vec<Vec<u8>> {
    let mut random = Random::from_seed([5; 32]);
    let mut frames = Vec::new();
    for key in KEYS.iter().map(Some).chain([None]) {
        for transport in TRANSPORTS {
            frames.push(ComposedInitFrame::random(&mut random, key, transport, DcId(-2)).wire.to_vec());
        }
    }
    frames
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    behind(&[1, 0x80, 0], &good())
}

pub(crate) fn run(input: &[u8]) {
    static GOOD: LazyLock<Vec<Vec<u8>>> = LazyLock::new(good);
    let mut script = Script::new(input);
    let likely = SecretId(script.byte().into());
    let flipped = script.byte();
    let mut frame = [0; INIT_FRAME_LEN];
    frame.iter_mut().zip(script.text(&GOOD)).for_each(|(to, from)| *to = from);
    let _ = InitFrame::open(&frame, None);

    let found = CREDENTIALS.authenticate_init_frame(&frame, None);
    let found_with_hint = CREDENTIALS.authenticate_init_frame(&frame, Some(likely));
    let essence = |found: &Option<(SecretId, InitFrame)>| {
        found.as_ref().map(|(id, frame)| (*id, frame.transport, frame.dc, frame.streams.backward.clone()))
    };
    assert!(essence(&found) == essence(&found_with_hint), "a hint changes who it is");
    let Some((SecretId(id), opened)) = found else { return };
    let index = id as usize;
    let is_admitted = match kind_of(index) {
        SecretKind::Plain => true,
        SecretKind::Padded => opened.transport == Transport::PaddedIntermediate,
        SecretKind::FakeTls(_) => false,
    };
    assert!(is_admitted, "secret {index} admits {:?}", opened.transport);

    // Under a stream cipher, a bit that is flipped on the wire is flipped in what it says.
    let mut other = frame;
    other[60] ^= flipped;
    let reopened = InitFrame::open(&other, Some(&KEYS[index])).expect("the protocol tag is untouched");
    assert_eq!(reopened.dc.0, opened.dc.0 ^ i16::from(flipped));
    other[57] ^= 1;
    assert!(InitFrame::open(&other, Some(&KEYS[index])).is_none(), "tags are four equal bytes");
}
