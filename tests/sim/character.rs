//! What kind of client somebody is, what may therefore become of it, and in what manner it talks.

use std::time::Duration;

use mtproxy_core::dc::DcId;
use mtproxy_core::error::PeerMisbehaved;
use mtproxy_core::obfuscated2::ComposedInitFrame;
use mtproxy_core::random::Random;
use mtproxy_core::secret::{Key, Secret, SecretKind};
use mtproxy_core::transport::Transport;
use mtproxy_tests::client_hello::{HelloFault, compose};
use mtproxy_tests::{ClientOptions, HelloOptions};

use crate::plan::{DCS, DOMAINS, STRANGE_KEY, UNIX_SECONDS, users};
use mtproxy_tests::dice::Dice;

/// A client.
#[derive(Clone, Debug)]
pub(crate) struct Character {
    pub(crate) kind: Kind,
    pub(crate) manners: Manners,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Somebody with a link.
    Member(Member),
    /// Somebody else, and its first words.
    Stranger(Stranger),
    /// Somebody who has recorded a member's hello and sends it again.
    Replayer,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) options: ClientOptions,
    /// Whose secret it is.
    pub(crate) name: String,
    /// The domain that it greets.
    pub(crate) domain: usize,
    pub(crate) vice: Option<Vice>,
    /// Why the proxy may connect even this client to the front, apart from slowness.
    pub(crate) may_be_fronted_for: Vec<PeerMisbehaved>,
}

/// What an authentic fake-TLS client does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vice {
    SpoilsChangeCipherSpec,
    SpoilsInitFrame,
    IsNotPaddedInside,
    /// Behind all its payload.
    EndsWithBadRecord,
}

impl Vice {
    pub(crate) fn expected(self) -> PeerMisbehaved {
        match self {
            Self::SpoilsChangeCipherSpec => PeerMisbehaved::ExpectedChangeCipherSpec,
            Self::SpoilsInitFrame | Self::IsNotPaddedInside => PeerMisbehaved::UnknownInnerInitFrame,
            Self::EndsWithBadRecord => PeerMisbehaved::ExpectedApplicationData,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Stranger {
    pub(crate) opening: Vec<u8>,
    /// What it may be fronted or met with silence for, apart from slowness.
    pub(crate) expected: Vec<PeerMisbehaved>,
    /// The domain that it greets, if it is one of ours.
    pub(crate) domain: usize,
}

/// How a peer talks, listens and ends.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    /// Bytes to say behind the opening.
    pub(crate) payload_len: usize,
    pub(crate) chunk_len_max: usize,
    pub(crate) pause_max: Duration,
    /// The first so many bytes come one by one, each after so long.
    pub(crate) drip: (usize, Duration),
    pub(crate) takes_at_once: usize,
    pub(crate) takes_after: Duration,
    /// Takes no more behind so many bytes.
    pub(crate) stalls_at: Option<usize>,
    pub(crate) ending: Ending,
    /// Resets its connection so long after it began, whatever happens.
    pub(crate) resets_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// FIN when all is said.
    Fin,
    /// FIN when all is said and the other side has sent FIN.
    FinAfterOther,
    /// RST when all is said.
    Reset,
    /// Nothing.
    Silence,
}

impl Manners {
    /// Through a narrow relay window there is less to say: each input carries no more than that.
    pub(crate) fn draw(dice: &mut Dice, window: usize) -> Self {
        let is_bytewise = dice.percent(10);
        let (payload_len_max, chunk_len_max) = if is_bytewise {
            (3000, 3)
        } else if dice.percent(8) {
            (1_500_000, 64_000)
        } else {
            (60_000, dice.size(20_000).max(50))
        };
        let payload_len_max = payload_len_max.min(window * 300);
        let pause_max = if dice.percent(10) { 4000 } else { 40 };
        let takes_after = if dice.percent(15) { 800 } else { 10 };
        Self {
            payload_len: if dice.percent(10) { 0 } else { dice.size(payload_len_max) },
            chunk_len_max,
            pause_max: dice.time(Duration::from_millis(pause_max)),
            drip: (0, Duration::ZERO),
            takes_at_once: dice.size(40_000).max(200),
            takes_after: dice.time(Duration::from_millis(takes_after)),
            stalls_at: dice.percent(6).then(|| dice.size(50_000)),
            ending: match dice.below(10) {
                0..4 => Ending::Fin,
                4..7 => Ending::FinAfterOther,
                7 => Ending::Reset,
                _ => Ending::Silence,
            },
            resets_after: dice.percent(10).then(|| dice.time(Duration::from_secs(20))),
        }
    }
}

impl Character {
    pub(crate) fn draw(
        dice: &mut Dice,
        has_fronts: bool,
        connects_at: Duration,
        replay_cache_is_small: bool,
        window: usize,
    ) -> Self {
        let mut manners = Manners::draw(dice, window);
        if dice.percent(8) {
            let each = Duration::from_millis(dice.size(1000) as u64);
            manners.drip = (dice.size(600), each);
        }
        let clock = UNIX_SECONDS + u32::try_from(connects_at.as_secs()).expect("runs are short");
        let kind = match dice.below(100) {
            0..60 => {
                let mut member = Member::draw(dice, has_fronts, clock);
                if replay_cache_is_small {
                    member.may_be_fronted_for.push(PeerMisbehaved::ClockBehind);
                }
                Kind::Member(member)
            }
            60..70 if has_fronts => Kind::Replayer,
            _ => Kind::Stranger(Stranger::draw(dice, has_fronts, clock, &mut manners)),
        };
        Self { kind, manners }
    }
}

impl Member {
    fn draw(dice: &mut Dice, has_fronts: bool, clock: u32) -> Self {
        let user = if has_fronts { dice.below(5) } else { *dice.pick(&[0, 1, 3]) };
        let (name, secret) = users().swap_remove(user);
        let through_tls = match secret.kind() {
            SecretKind::Plain if has_fronts && dice.percent(40) => Some(dice.below(DOMAINS.len())),
            SecretKind::FakeTls(domain) => DOMAINS.iter().position(|known| *known == domain.as_str()),
            SecretKind::Plain | SecretKind::Padded => None,
        };
        let dc = *dice.pick(&DCS);
        let mut member = if let Some(domain) = through_tls {
            Self::through_tls(dice, *secret.key(), domain, dc, clock)
        } else {
            let transport = match secret.kind() {
                SecretKind::Plain => {
                    *dice.pick(&[Transport::Abridged, Transport::Intermediate, Transport::PaddedIntermediate])
                }
                _ => Transport::PaddedIntermediate,
            };
            let options = ClientOptions::new(secret, dc, clock).with_transport(transport);
            Self { options, name: String::new(), domain: 0, vice: None, may_be_fronted_for: Vec::new() }
        };
        member.name = name;
        member
    }

    fn through_tls(dice: &mut Dice, key: Key, domain: usize, dc: DcId, clock: u32) -> Self {
        let link = Secret::new(key, SecretKind::FakeTls(DOMAINS[domain].parse().expect("a host name")));
        // A client's clock is somewhat wrong, within what is admitted when it connects at once.
        let clock =
            if dice.percent(50) { clock + dice.below(4) as u32 } else { clock - dice.below(300) as u32 };
        let mut options = ClientOptions::new(link, dc, clock);
        options.hello.record_len = match dice.below(5) {
            0 => dice.between(517, 16_000),
            pick => [517, 1800, 4096, 16_000][pick - 1],
        };
        options.hello.records = if dice.percent(20) { dice.between(2, 40) } else { 1 };
        options.record_body_len_max = dice.between(1, 2878);
        let vice = dice.percent(15).then(|| {
            *dice.pick(&[
                Vice::SpoilsChangeCipherSpec,
                Vice::SpoilsInitFrame,
                Vice::IsNotPaddedInside,
                Vice::EndsWithBadRecord,
            ])
        });
        if vice == Some(Vice::IsNotPaddedInside) {
            options.transport = *dice.pick(&[Transport::Abridged, Transport::Intermediate]);
        }
        Self { options, name: String::new(), domain, vice, may_be_fronted_for: Vec::new() }
    }
}

impl Stranger {
    fn draw(dice: &mut Dice, has_fronts: bool, clock: u32, manners: &mut Manners) -> Self {
        let mut random = dice.random();
        let mut stranger = match dice.below(13) {
            0 => Self::saying(
                b"GET / HTTP/1.1\r\nHost: 198.51.100.1\r\n\r\n".to_vec(),
                PeerMisbehaved::SpokeHttp,
            ),
            1 => Self::saying(b"POST".to_vec(), PeerMisbehaved::SpokeHttp),
            2 | 3 => {
                // Nobody's key; or bob's or cleo's, who may not come like this.
                let [bob, cleo] = [1, 2].map(|user| *users()[user].1.key());
                let (key, transport) = *dice.pick(&[
                    (STRANGE_KEY, Transport::PaddedIntermediate),
                    (bob, Transport::Intermediate),
                    (bob, Transport::Abridged),
                    (cleo, Transport::PaddedIntermediate),
                ]);
                let frame = ComposedInitFrame::random(&mut random, Some(&key), transport, DcId(2));
                Self::saying(frame.wire.to_vec(), PeerMisbehaved::UnknownInitFrame)
            }
            4 => {
                let mut noise = vec![0; dice.between(64, 3000)];
                random.fill(&mut noise);
                noise[0] = 0x41;
                Self::saying(noise, PeerMisbehaved::UnknownInitFrame)
            }
            5 => {
                manners.payload_len = 0;
                let mut noise = vec![0; dice.between(0, 63)];
                noise.fill(0x42);
                Self { opening: noise, ..Self::default() }
            }
            _ => Self::greeting(dice, &mut random, clock, manners),
        };
        if !has_fronts && stranger.expected.iter().all(|why| *why != PeerMisbehaved::SpokeHttp) {
            stranger.expected = vec![PeerMisbehaved::UnknownInitFrame];
        }
        stranger
    }

    fn saying(opening: Vec<u8>, expected: PeerMisbehaved) -> Self {
        Self { opening, expected: vec![expected], domain: 0 }
    }

    /// Somebody who begins like a TLS client.
    fn greeting(dice: &mut Dice, random: &mut Random, clock: u32, manners: &mut Manners) -> Self {
        let domain = dice.below(DOMAINS.len());
        let mut options = HelloOptions::new(DOMAINS[domain], clock);
        options.record_len = *dice.pick(&[517, 700, 1800, 4096]);
        // What follows a hello at once may come together with it.
        let mut expected = if manners.payload_len > 0 { vec![PeerMisbehaved::TrailingData] } else { vec![] };
        let mut key = *users()[0].1.key();
        let mut is_cut = false;
        let mut is_malformed = false;
        expected.push(match dice.below(9) {
            0 => {
                // Nobody's key; or bob's, who may not come through TLS; or that of the other domain.
                let [bob, of_other_domain] = [1, [4, 2][domain]].map(|user| *users()[user].1.key());
                key = *dice.pick(&[STRANGE_KEY, bob, of_other_domain]);
                PeerMisbehaved::UnauthenticHello
            }
            1 => {
                options.fault = HelloFault::Browser;
                PeerMisbehaved::UnauthenticHello
            }
            2 => {
                options.fault = HelloFault::WrongHmac;
                PeerMisbehaved::UnauthenticHello
            }
            3 => {
                options.fault = HelloFault::NoTls13Suite;
                PeerMisbehaved::NoCommonCipherSuite
            }
            4 => {
                options.server_name = dice.percent(50).then(|| "unknown.example".to_owned());
                PeerMisbehaved::UnknownServerName
            }
            5 => {
                // Ahead however slowly it arrives; runs are shorter than this.
                options.unix_seconds = clock + 3600;
                PeerMisbehaved::ClockAhead
            }
            6 => {
                options.unix_seconds = UNIX_SECONDS - 700;
                PeerMisbehaved::ClockBehind
            }
            7 => {
                is_malformed = true;
                PeerMisbehaved::MalformedHello
            }
            _ => {
                is_cut = true;
                PeerMisbehaved::HandshakeTooSlow
            }
        });
        let mut opening = compose(&options, &key, random).wire;
        if is_malformed {
            opening[43] = 31;
        }
        if is_cut {
            manners.payload_len = 0;
            opening.truncate(dice.between(5, opening.len() - 1));
        }
        Self { opening, expected, domain }
    }
}
