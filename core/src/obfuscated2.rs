//! obfuscated2, the transport obfuscation of Telegram (protocol.md sections 3 and 8).
//!
//! Each leg begins with a 64-byte *init frame*, from which both directions' AES-256-CTR streams follow.
//! As composed, before its own encryption:
//!
//! ```text
//!  0        8                                        40                56     60   62   64
//!  ├ random ┼ key seed ──────────────────────────────┼ counter block ──┼ tag ─┼ DC ─┼ rnd ┤
//!                └ toward the sender of the frame: the same 48 bytes, read backwards ┘
//! ```
//! The sender encrypts all 64 bytes with its own stream but replaces only bytes 56..64 on the wire. So
//! its stream continues at byte 64, and the other direction's starts at byte 0.

use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::aes_ctr::AesCtr;
use crate::dc::DcId;
use crate::random::Random;
use crate::secret::Key;
use crate::transport::Transport;

/// Size of the init frame.
pub const INIT_FRAME_LEN: usize = 64;

/// The two streams of one leg. Named by where the bytes go, seen from the sender of the init frame.
#[derive(Clone, Debug)]
pub struct Obfuscated2 {
    /// From the sender of the init frame (client, or us toward a DC).
    pub forward: AesCtr,
    /// Back to the sender of the init frame.
    pub backward: BackwardKey,
}

/// Key and first counter block of the stream that flows back to the sender of an init frame.
///
/// Kept apart from [`AesCtr`] because a proxy in direct mode never runs it: it passes these bytes on to
/// the DC inside its own init frame, and the DC encrypts for the client (protocol.md section 8).
#[derive(Clone, PartialEq, Eq, Zeroize, zeroize::ZeroizeOnDrop)]
pub struct BackwardKey {
    /// AES-256 key.
    pub key: [u8; 32],
    /// First counter block.
    pub iv: [u8; 16],
}

impl BackwardKey {
    /// The stream at its byte 0.
    #[must_use]
    pub fn stream(&self) -> AesCtr {
        AesCtr::new(self.key, self.iv)
    }
}

impl std::fmt::Debug for BackwardKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BackwardKey(..)")
    }
}

/// What an authentic init frame says.
#[derive(Debug)]
pub struct InitFrame {
    /// Framing inside the stream.
    pub transport: Transport,
    /// Data centre the client wants.
    pub dc: DcId,
    /// Both streams; `forward` stands at byte 64, behind the frame.
    pub streams: Obfuscated2,
}

impl InitFrame {
    /// Reads a received frame under `key` (`None`: no secret, keys unhashed, as toward a DC).
    /// `None` if it does not decrypt to a known protocol tag, which is the only check there is:
    /// a wrong key passes with probability 3·2⁻³².
    #[must_use]
    pub fn open(wire: &[u8; INIT_FRAME_LEN], key: Option<&Key>) -> Option<Self> {
        let mut forward = forward_stream(wire, key);
        // Only the last block is encrypted on the wire.
        forward.skip(48);
        let mut last_block: [u8; 16] = array_at(wire, 48);
        forward.apply(&mut last_block);
        let transport = Transport::from_tag(array_at(&last_block, 8))?;
        let dc = DcId(i16::from_le_bytes(array_at(&last_block, 12)));
        Some(Self { transport, dc, streams: Obfuscated2 { forward, backward: backward_key(wire, key) } })
    }
}

/// A frame to send, and the streams it starts.
#[derive(Debug)]
pub struct ComposedInitFrame {
    /// The 64 bytes for the wire.
    pub wire: [u8; INIT_FRAME_LEN],
    /// Both streams; `forward` stands at byte 64, behind the frame.
    pub streams: Obfuscated2,
}

impl ComposedInitFrame {
    /// A frame with random keys, as a client composes it.
    #[must_use]
    pub fn random(random: &mut Random, key: Option<&Key>, transport: Transport, dc: DcId) -> Self {
        let mut composed: [u8; INIT_FRAME_LEN] = random.bytes();
        while !is_allowed_on_the_wire(&composed) {
            random.fill(&mut composed[..8]);
        }
        Self::seal(composed, key, transport, dc)
    }

    /// A frame for a DC that makes it encrypt toward us with exactly `client`: the key its answers need
    /// for the client behind us, so that nobody has to touch them again (protocol.md section 8, item 3).
    #[must_use]
    pub fn for_dc_speaking_to(
        client: &BackwardKey,
        random: &mut Random,
        transport: Transport,
        dc: DcId,
    ) -> Self {
        let mut composed: [u8; INIT_FRAME_LEN] = random.bytes();
        // The DC reads bytes 8..56 backwards as key ‖ iv.
        for (to, from) in composed[8..56].iter_mut().rev().zip(client.key.iter().chain(&client.iv)) {
            *to = *from;
        }
        while !is_allowed_on_the_wire(&composed) {
            random.fill(&mut composed[..8]);
        }
        Self::seal(composed, None, transport, dc)
    }

    /// Completes `composed` (bytes 0..56 and 62..64 chosen by the caller) and encrypts its tail.
    fn seal(mut composed: [u8; INIT_FRAME_LEN], key: Option<&Key>, transport: Transport, dc: DcId) -> Self {
        composed[56..60].copy_from_slice(&transport.tag());
        composed[60..62].copy_from_slice(&dc.0.to_le_bytes());
        let mut forward = forward_stream(&composed, key);
        let backward = backward_key(&composed, key);
        forward.skip(48);
        let mut wire = composed;
        let mut last_block: [u8; 16] = array_at(&composed, 48);
        forward.apply(&mut last_block);
        wire[56..].copy_from_slice(&last_block[8..]);
        Self { wire, streams: Obfuscated2 { forward, backward } }
    }
}

/// First words that no init frame may have (protocol.md section 3.2): they belong to HTTP, to TLS and to
/// the transports without obfuscation.
const FORBIDDEN_FIRST_WORDS: [[u8; 4]; 7] =
    [*b"HEAD", *b"POST", *b"GET ", *b"OPTI", [0xee; 4], [0xdd; 4], [0x16, 0x03, 0x01, 0x02]];

/// True if the first eight bytes cannot be mistaken for another protocol (protocol.md section 3.2).
/// A rule for composers; an authentic frame that breaks it is still welcome.
fn is_allowed_on_the_wire(frame: &[u8; INIT_FRAME_LEN]) -> bool {
    frame[0] != 0xef && !FORBIDDEN_FIRST_WORDS.contains(&array_at(frame, 0)) && frame[4..8] != [0; 4]
}

/// True if `received` begins like an HTTP request that no client's init frame may begin like.
/// Such a stranger can be answered before 64 bytes have come.
#[must_use]
pub fn is_surely_http(received: &[u8]) -> bool {
    received.len() >= 4 && FORBIDDEN_FIRST_WORDS[..4].iter().any(|word| received.starts_with(word))
}

fn forward_stream(frame: &[u8; INIT_FRAME_LEN], key: Option<&Key>) -> AesCtr {
    AesCtr::new(derive(array_at(frame, 8), key), array_at(frame, 40))
}

fn backward_key(frame: &[u8; INIT_FRAME_LEN], key: Option<&Key>) -> BackwardKey {
    let mut reversed = *frame;
    reversed.reverse();
    BackwardKey { key: derive(array_at(&reversed, 8), key), iv: array_at(&reversed, 40) }
}

fn derive(seed: [u8; 32], key: Option<&Key>) -> [u8; 32] {
    match key {
        Some(key) => Sha256::new().chain_update(seed).chain_update(key).finalize().into(),
        None => seed,
    }
}

/// `N` bytes of `bytes` from `offset`; both are constants at every call.
fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[offset..offset + N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    fn keystream<const N: usize>(mut stream: AesCtr) -> [u8; N] {
        let mut bytes = [0; N];
        stream.apply(&mut bytes);
        bytes
    }

    /// protocol.md section 3.3, computed independently of this code: K = 00..0f, composed bytes
    /// h[i] = 7i + 1 for i < 56, tag dddddddd, DC −2, tail 55aa.
    fn vector() -> ([u8; INIT_FRAME_LEN], Key, [u8; INIT_FRAME_LEN]) {
        let mut composed: [u8; INIT_FRAME_LEN] = std::array::from_fn(|i| (7 * i + 1).to_le_bytes()[0]);
        composed[62..].copy_from_slice(&[0x55, 0xaa]);
        let key: Key = std::array::from_fn(|i| i.to_le_bytes()[0]);
        let wire = hex(concat!(
            "01080f161d242b323940474e555c636a71787f868d949ba2a9b0b7bec5ccd3da",
            "e1e8eff6fd040b121920272e353c434a51585f666d747b8257db92e7c36fc806",
        ));
        (composed, key, wire.try_into().unwrap())
    }

    #[test]
    fn the_known_init_frame_is_sealed_as_the_client_library_seals_it() {
        let (composed, key, wire) = vector();
        let sealed = ComposedInitFrame::seal(composed, Some(&key), Transport::PaddedIntermediate, DcId(-2));
        assert_eq!(sealed.wire, wire);
        assert_eq!(keystream::<8>(sealed.streams.forward).to_vec(), hex("e5f31a766433c5a9"));
    }

    #[test]
    fn the_known_init_frame_opens_to_its_tag_dc_and_keys() {
        let (_, key, wire) = vector();
        let opened = InitFrame::open(&wire, Some(&key)).unwrap();
        assert_eq!((opened.transport, opened.dc), (Transport::PaddedIntermediate, DcId(-2)));
        assert_eq!(keystream::<8>(opened.streams.forward).to_vec(), hex("e5f31a766433c5a9"));
        let backward = opened.streams.backward;
        assert_eq!(
            backward.key.to_vec(),
            hex("939d1082965bca2f9d6f2ca8d0b64639b11b05f35b4deab802d9cc2bba714b1f")
        );
        assert_eq!(backward.iv.to_vec(), hex("a29b948d867f78716a635c554e474039"));
        assert_eq!(keystream::<8>(backward.stream()).to_vec(), hex("bdcbcc1c8d9e4a37"));
    }

    #[test]
    fn a_wrong_key_does_not_open_the_frame() {
        let (_, mut key, wire) = vector();
        key[0] ^= 1;
        assert!(InitFrame::open(&wire, Some(&key)).is_none());
        assert!(InitFrame::open(&wire, None).is_none());
    }

    #[test]
    fn http_is_recognised_from_its_first_word_and_not_before() {
        for word in ["HEAD", "POST", "GET ", "OPTI"] {
            assert!(is_surely_http(word.as_bytes()));
            assert!(!is_surely_http(&word.as_bytes()[..3]));
        }
        assert!(!is_surely_http(b"GETX"));
        assert!(!is_surely_http(&[0xee; 4]));
    }

    #[test]
    fn frames_that_look_like_another_protocol_are_not_composed() {
        let mut frame = [1; INIT_FRAME_LEN];
        assert!(is_allowed_on_the_wire(&frame));
        for word in FORBIDDEN_FIRST_WORDS {
            frame[..4].copy_from_slice(&word);
            assert!(!is_allowed_on_the_wire(&frame), "{word:02x?}");
        }
        frame[..4].copy_from_slice(&[0xef, 1, 1, 1]);
        assert!(!is_allowed_on_the_wire(&frame));
        frame[0] = 1;
        frame[4..8].copy_from_slice(&[0; 4]);
        assert!(!is_allowed_on_the_wire(&frame));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_again(seed: [u8; 32], key: Option<Key>, dc: i16, tag in 0usize..3) {
            let transport = [Transport::Abridged, Transport::Intermediate, Transport::PaddedIntermediate][tag];
            let mut random = Random::from_seed(seed);
            let sealed = ComposedInitFrame::random(&mut random, key.as_ref(), transport, DcId(dc));
            let opened = InitFrame::open(&sealed.wire, key.as_ref()).unwrap();
            prop_assert_eq!((opened.transport, opened.dc), (transport, DcId(dc)));
            prop_assert_eq!(
                keystream::<40>(opened.streams.forward), keystream::<40>(sealed.streams.forward));
            prop_assert_eq!(opened.streams.backward, sealed.streams.backward);
        }

        #[test]
        fn a_dc_that_opens_our_frame_speaks_with_the_clients_own_key(seed: [u8; 32], key: Key) {
            let mut random = Random::from_seed(seed);
            let client = ComposedInitFrame::random(&mut random, Some(&key), Transport::Abridged, DcId(1));
            let at_proxy = InitFrame::open(&client.wire, Some(&key)).unwrap();
            let ours = ComposedInitFrame::for_dc_speaking_to(
                &at_proxy.streams.backward, &mut random, at_proxy.transport, at_proxy.dc);
            let at_dc = InitFrame::open(&ours.wire, None).unwrap();
            prop_assert_eq!(at_dc.streams.backward, client.streams.backward);
        }
    }
}
