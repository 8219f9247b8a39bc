//! The language of the scripts: what a client does, what whoever the proxy dials does, and how it must end.
//!
//! A script says nothing of sockets, segments or time. Where one peer has to wait for the other it says for
//! what, so that its outcome is the same however fast anybody is.

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::SecretKind;
use mtproxy_core::transport::Transport;
use mtproxy_tests::cast::{DOMAIN, KEY, fake_tls};
use mtproxy_tests::{ClientOptions, HelloFault};

/// How the proxy is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scene {
    /// A secret, and a front for strangers.
    Fronted,
    /// A secret and no front.
    Frontless,
    /// A front, and no patience: silence ends after a second or two.
    Hasty,
}

impl Scene {
    pub(crate) const ALL: [Self; 3] = [Self::Fronted, Self::Frontless, Self::Hasty];
}

/// The data centres of every scene, by what becomes of a dial.
pub(crate) const DC_V4: DcId = DcId(2);
pub(crate) const DC_AFTER_REFUSAL: DcId = DcId(3);
pub(crate) const DC_V6: DcId = DcId(4);
pub(crate) const DC_REFUSING: DcId = DcId(5);

/// One script.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) scene: Scene,
    /// The family of the clients' connections.
    pub(crate) is_v6: bool,
    /// Clients one after the other, each from its first packet to its last.
    pub(crate) acts: Vec<Act>,
}

/// One client, and whoever the proxy dials for it.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(crate) client: Ear,
    pub(crate) client_steps: Vec<Step>,
    /// Of the data centre or front, if there will be one.
    pub(crate) upstream_steps: Vec<Step>,
    /// How the client's and the upstream's connections end, by docs/session.md.
    pub(crate) ends: [Told; 2],
    /// For whom bytes are under way when one of both resets. It hears a beginning of what was said, of a
    /// length that nobody promises: what a reset overtakes is lost here and kept there.
    pub(crate) cut_short: Option<Role>,
}

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Upstream,
}

/// How a client hears.
#[derive(Clone, Debug)]
pub(crate) enum Ear {
    /// Through the codec of this kind of client.
    Codec(Kind),
    /// Raw bytes.
    Stranger,
}

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) dress: Dress,
    pub(crate) transport: Transport,
    pub(crate) dc: DcId,
    /// TLS records that the hello comes in.
    pub(crate) hello_records: usize,
    pub(crate) fault: HelloFault,
    /// Clients with the same number draw the same random bytes.
    pub(crate) seed: u64,
    /// Of another proxy.
    pub(crate) has_other_secret: bool,
}

/// What the client's bytes are dressed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dress {
    Plain,
    Dd,
    Ee,
}

impl Kind {
    pub(crate) const PLAIN: Self = Self::new(Dress::Plain, Transport::Intermediate);
    pub(crate) const ABRIDGED: Self = Self::new(Dress::Plain, Transport::Abridged);
    pub(crate) const PADDED: Self = Self::new(Dress::Plain, Transport::PaddedIntermediate);
    pub(crate) const DD: Self = Self::new(Dress::Dd, Transport::PaddedIntermediate);
    pub(crate) const EE: Self = Self::new(Dress::Ee, Transport::PaddedIntermediate);
    /// Every kind that is let in.
    pub(crate) const ALL: [Self; 5] = [Self::PLAIN, Self::ABRIDGED, Self::PADDED, Self::DD, Self::EE];
    /// One for each way through the proxy: opaque toward the client, and framed.
    pub(crate) const BOTH_WAYS: [Self; 2] = [Self::ABRIDGED, Self::EE];

    const fn new(dress: Dress, transport: Transport) -> Self {
        let fault = HelloFault::None;
        Self { dress, transport, dc: DC_V4, hello_records: 1, fault, seed: 0, has_other_secret: false }
    }

    pub(crate) fn name(self) -> String {
        format!("{:?} {:?}", self.dress, self.transport).to_lowercase()
    }

    /// The options of such a client, whose clock is `unix_seconds`.
    pub(crate) fn options(self, unix_seconds: u32) -> ClientOptions {
        let kind = match self.dress {
            Dress::Plain => SecretKind::Plain,
            Dress::Dd => SecretKind::Padded,
            Dress::Ee => fake_tls(DOMAIN),
        };
        let key = if self.has_other_secret { *b"another 16 bytes" } else { KEY };
        let secret = mtproxy_core::secret::Secret::new(key, kind);
        let mut options = ClientOptions::new(secret, self.dc, unix_seconds).with_transport(self.transport);
        options.hello.records = self.hello_records;
        options.hello.fault = self.fault;
        options
    }
}

/// How bytes are cut. Each piece is given to TCP apart, and pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Whole,
    /// Pieces of this length.
    Pieces(usize),
    /// So many bytes first, then the rest.
    Head(usize),
}

/// One thing that a peer does, once the one before is done.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Cuts everything that follows like this.
    Cut(Cut),
    /// The client's first bytes, with so many bytes of payload in the same write. The rest of its handshake
    /// then takes care of itself.
    Open(usize),
    /// Keeps the rest of the handshake to itself.
    Withhold,
    /// Waits until payload can flow.
    Greeted,
    /// So many bytes more of the pattern.
    Say(u64),
    /// Goes on saying the pattern behind everything else, until the connection breaks.
    SayOn,
    /// Bytes as they are, past the codec.
    Raw(Vec<u8>),
    /// The first bytes of a client of this kind, as they are: so many of them.
    RawOpening(Kind, usize),
    /// Waits until so many bytes of payload have been heard in all.
    Hear(u64),
    /// Waits for FIN or RST.
    HearEnd,
    /// Waits until the connection is broken, FIN or not.
    HearReset,
    /// Reads nothing from now on.
    Deaf,
    /// Reads again.
    Listen,
    /// Waits for the other peer.
    Await(Sign),
    /// Waits until nothing moves anywhere: every buffer on the way is full, or empty.
    Rest,
    Fin,
    Reset,
}

/// Something about the other peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Payload can flow to it: the proxy knows of the connection, too.
    Greeted,
    /// It has heard so many bytes of payload.
    Heard(u64),
    /// It has heard the end.
    HeardEnd,
    /// It has ended its side.
    Ended,
    /// It has done everything, and what it said is out of its hands.
    Done,
}

/// What a peer has been told in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It was never there.
    Absent,
    /// Nothing: it ended the connection itself.
    Nothing,
    Fin,
    Rst,
    /// FIN, and RST when it talked on.
    FinThenRst,
}
