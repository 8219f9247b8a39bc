//! How a peer speaks and hears: the codecs of the cast behind one face.

use mtproxy_core::aes_ctr::AesCtr;
use mtproxy_core::obfuscated2::{INIT_FRAME_LEN, InitFrame};
use mtproxy_core::random::Random;
use mtproxy_tests::ClientCodec;

use crate::script::Kind;

/// A peer's side of the wire.
pub(crate) enum Voice {
    /// A stranger, or a front.
    Raw,
    Client(Box<ClientCodec>),
    /// A data centre, which opens what is said to it with the init frame that comes first.
    Dc(Dc),
}

pub(crate) enum Dc {
    Awaiting(Vec<u8>),
    Open { up: AesCtr, down: AesCtr },
}

/// What came of bytes from the wire.
#[derive(Default)]
pub(crate) struct Understood {
    pub(crate) payload: Vec<u8>,
    /// To be sent now.
    pub(crate) answer: Vec<u8>,
    /// What is to be told besides payload.
    pub(crate) notes: Vec<String>,
}

/// The codec of such a client. Same kind, same bytes.
pub(crate) fn client_codec(kind: Kind, unix_seconds: u32) -> ClientCodec {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&kind.seed.to_le_bytes());
    ClientCodec::new(kind.options(unix_seconds), Random::from_seed(seed))
}

impl Voice {
    pub(crate) fn dc() -> Self {
        Self::Dc(Dc::Awaiting(Vec::new()))
    }

    pub(crate) fn opening(&mut self) -> Vec<u8> {
        match self {
            Self::Client(codec) => codec.opening(),
            Self::Raw | Self::Dc(_) => panic!("only clients open"),
        }
    }

    pub(crate) fn is_established(&self) -> bool {
        match self {
            Self::Raw => true,
            Self::Client(codec) => codec.is_established(),
            Self::Dc(dc) => matches!(dc, Dc::Open { .. }),
        }
    }

    pub(crate) fn encode(&mut self, payload: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Raw => payload,
            Self::Client(codec) => codec.encode(&payload),
            Self::Dc(Dc::Open { down, .. }) => {
                let mut wire = payload;
                down.apply(&mut wire);
                wire
            }
            Self::Dc(Dc::Awaiting(_)) => panic!("a data centre speaks when it has been spoken to"),
        }
    }

    pub(crate) fn understand(&mut self, bytes: Vec<u8>) -> Understood {
        match self {
            Self::Raw => Understood { payload: bytes, ..Understood::default() },
            Self::Client(codec) => {
                let was_established = codec.is_established();
                match codec.receive(&bytes) {
                    Ok(progress) => {
                        let is_greeted = codec.is_established() && !was_established;
                        let notes = is_greeted.then(|| "an authentic server's flight".to_owned());
                        let notes = notes.into_iter().collect();
                        Understood { payload: progress.payload, answer: progress.to_send, notes }
                    }
                    Err(error) => Understood {
                        notes: vec![format!("what breaks the protocol: {error}")],
                        ..Understood::default()
                    },
                }
            }
            Self::Dc(dc) => dc.understand(bytes),
        }
    }

    /// True if the connection must not end here: in the middle of a record.
    pub(crate) fn is_inside_a_record(&self) -> bool {
        match self {
            Self::Client(codec) => codec.records().is_some_and(|records| !records.is_between_records()),
            Self::Raw | Self::Dc(_) => false,
        }
    }
}

impl Dc {
    fn understand(&mut self, bytes: Vec<u8>) -> Understood {
        let mut notes = Vec::new();
        let mut payload = bytes;
        if let Self::Awaiting(received) = self {
            received.append(&mut payload);
            let Some(frame) = received.first_chunk::<INIT_FRAME_LEN>() else { return Understood::default() };
            let Some(init) = InitFrame::open(frame, None) else {
                let notes = vec!["an init frame without a known tag".to_owned()];
                return Understood { notes, ..Understood::default() };
            };
            notes.push(format!("an init frame: DC {}, {:?}", init.dc.0, init.transport));
            payload = received.split_off(INIT_FRAME_LEN);
            *self = Self::Open { up: init.streams.forward, down: init.streams.backward.stream() };
        }
        if let Self::Open { up, .. } = self {
            up.apply(&mut payload);
        }
        Understood { payload, answer: Vec::new(), notes }
    }
}
