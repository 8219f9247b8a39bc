//! The proxy's peers: what each says next, and what it makes of what it hears.

use std::collections::VecDeque;

use mtproxy_core::aes_ctr::AesCtr;
use mtproxy_core::dc::DcId;
use mtproxy_core::obfuscated2::{INIT_FRAME_LEN, InitFrame};
use mtproxy_core::transport::Transport;
use mtproxy_tests::ClientCodec;

use crate::character::{Character, Ending, Kind, Manners, Vice};
use crate::ledger::Account;
use crate::violation::{Checker, Violation, require, violation};
use mtproxy_tests::dice::Dice;

/// Somebody at the other end of a connection.
pub(crate) struct Peer {
    /// The client whose conversation this is; for a client, itself.
    pub(crate) client: usize,
    pub(crate) connection: Option<usize>,
    pub(crate) manners: Manners,
    role: Role,
    /// Composed, and not yet on the wire.
    pub(crate) outbox: VecDeque<u8>,
    has_opened: bool,
    payload_left: usize,
    pub(crate) dripped: usize,
    pub(crate) heard_len: usize,
    pub(crate) has_heard_fin: bool,
    /// It has sent FIN or RST, or means to say no more.
    pub(crate) is_done: bool,
    /// It has reset its connection, or been reset.
    pub(crate) is_gone: bool,
    pub(crate) is_listening: bool,
    pub(crate) is_speaking: bool,
}

enum Role {
    Member { codec: Box<ClientCodec>, vice: Option<Vice> },
    Stranger { opening: Vec<u8> },
    DataCentre { expected: (Transport, DcId), received: Vec<u8>, link: Option<Link> },
    Front,
}

/// A data centre's ciphers.
struct Link {
    from_proxy: AesCtr,
    to_client: AesCtr,
}

/// What a peer does when it is its turn to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The outbox holds something.
    Speaks,
    /// It has to hear something first.
    Waits,
    /// It has said everything.
    Ends(Ending),
}

impl Peer {
    pub(crate) fn client(index: usize, character: Character, dice: &mut Dice) -> Self {
        let role = match character.kind {
            Kind::Member(member) => Role::Member {
                codec: Box::new(ClientCodec::new(member.options, dice.random())),
                vice: member.vice,
            },
            Kind::Stranger(stranger) => Role::Stranger { opening: stranger.opening },
            Kind::Replayer => Role::Stranger { opening: Vec::new() },
        };
        Self::new(index, character.manners, role)
    }

    pub(crate) fn data_centre(client: usize, expected: (Transport, DcId), manners: Manners) -> Self {
        let role = Role::DataCentre { expected, received: Vec::new(), link: None };
        Self::new(client, manners, role)
    }

    pub(crate) fn front(client: usize, manners: Manners) -> Self {
        Self::new(client, manners, Role::Front)
    }

    fn new(client: usize, manners: Manners, role: Role) -> Self {
        Self {
            client,
            connection: None,
            payload_left: manners.payload_len,
            manners,
            role,
            outbox: VecDeque::new(),
            has_opened: false,
            dripped: 0,
            heard_len: 0,
            has_heard_fin: false,
            is_done: false,
            is_gone: false,
            is_listening: false,
            is_speaking: false,
        }
    }

    /// What a replayer has recorded and sends again.
    pub(crate) fn will_open_with(&mut self, recorded: Vec<u8>) {
        self.role = Role::Stranger { opening: recorded };
    }

    pub(crate) fn is_client(&self) -> bool {
        matches!(self.role, Role::Member { .. } | Role::Stranger { .. })
    }

    /// Composes what comes next.
    pub(crate) fn take_turn(&mut self, account: &mut Account, dice: &mut Dice) -> Turn {
        if self.outbox.is_empty() && !std::mem::replace(&mut self.has_opened, true) {
            self.open(account);
        }
        if !self.outbox.is_empty() {
            return Turn::Speaks;
        }
        let may_talk = match &self.role {
            Role::Member { codec, .. } => codec.is_established(),
            Role::DataCentre { link, .. } => link.is_some(),
            Role::Stranger { .. } | Role::Front => true,
        };
        if !may_talk {
            // An app may have payload ready that will travel behind its init frame.
            if self.is_client() && self.payload_left > 0 && dice.percent(20) {
                self.compose_payload(account, dice);
            }
            return if self.has_heard_fin { Turn::Ends(Ending::Fin) } else { Turn::Waits };
        }
        if self.payload_left > 0 {
            self.compose_payload(account, dice);
            return Turn::Speaks;
        }
        if let Role::Member { vice, .. } = &mut self.role
            && vice.take_if(|vice| *vice == Vice::EndsWithBadRecord).is_some()
        {
            self.outbox.extend([0x17, 0x03, 0x01, 0, 1, 0]);
            self.manners.ending = Ending::Silence;
            return Turn::Speaks;
        }
        Turn::Ends(self.manners.ending)
    }

    fn open(&mut self, account: &mut Account) {
        match &mut self.role {
            Role::Member { codec, .. } => self.outbox.extend(codec.opening()),
            Role::Stranger { opening } => self.outbox.extend(std::mem::take(opening)),
            Role::DataCentre { .. } | Role::Front => {}
        }
        if self.is_client() {
            account.opening_len = self.outbox.len();
            account.to_upstream.mark(self.outbox.len());
        }
    }

    fn compose_payload(&mut self, account: &mut Account, dice: &mut Dice) {
        let len = self.payload_left.min(dice.size(self.manners.chunk_len_max));
        self.payload_left -= len;
        let is_client = self.is_client();
        let track = if is_client { &mut account.to_upstream } else { &mut account.to_client };
        let mut bytes = track.say(len);
        match &mut self.role {
            Role::Member { codec, .. } => {
                bytes = codec.encode(&bytes);
                if bytes.is_empty() {
                    // It waits in the codec; the mark is made when it is on the wire.
                    return;
                }
            }
            Role::DataCentre { link, .. } => {
                link.as_mut().expect("a data centre talks when it has a link").to_client.apply(&mut bytes);
            }
            Role::Stranger { .. } | Role::Front => {}
        }
        self.outbox.extend(bytes);
        let wire_len = if is_client { account.client_wire.len() } else { account.upstream_wire_len };
        track.mark(wire_len + self.outbox.len());
    }

    /// Hears bytes. True if it has something to say to them.
    pub(crate) fn hear(
        &mut self,
        bytes: &[u8],
        is_fronted: bool,
        account: &mut Account,
    ) -> Result<bool, Violation> {
        if bytes.is_empty() {
            return Ok(false);
        }
        self.heard_len += bytes.len();
        let client = self.client;
        match &mut self.role {
            Role::Stranger { .. } => {
                account.to_client.hear(bytes, &format!("stranger {client}"))?;
                Ok(false)
            }
            Role::Member { .. } if is_fronted => {
                account.to_client.hear(bytes, &format!("fronted client {client}"))?;
                Ok(false)
            }
            Role::Front => {
                account.front_hears(bytes, &format!("the front of client {client}"))?;
                Ok(false)
            }
            Role::Member { codec, vice } => {
                let progress = match codec.receive(bytes) {
                    Ok(progress) => progress,
                    Err(error) => return violation(Checker::Content, format!("client {client}: {error}")),
                };
                account.to_client.hear(&progress.payload, &format!("client {client}"))?;
                let mut to_send = progress.to_send;
                if to_send.is_empty() {
                    return Ok(false);
                }
                spoil(&mut to_send, *vice, client);
                self.outbox.extend(to_send);
                account.to_upstream.mark(account.client_wire.len() + self.outbox.len());
                Ok(true)
            }
            Role::DataCentre { expected, received, link } => {
                let was_open = link.is_some();
                hear_as_data_centre(bytes, *expected, received, link, account, client)?;
                Ok(!was_open && link.is_some())
            }
        }
    }
}

/// Changes the records that hold ChangeCipherSpec and init frame as `vice` wants it.
fn spoil(to_send: &mut [u8], vice: Option<Vice>, client: usize) {
    const INIT_FRAME_AT: usize = 6 + 5;
    match vice {
        Some(Vice::SpoilsChangeCipherSpec) => to_send[client % 6] ^= 1,
        Some(Vice::SpoilsInitFrame) => to_send[INIT_FRAME_AT + 8 + client % 32] ^= 1,
        Some(Vice::IsNotPaddedInside | Vice::EndsWithBadRecord) | None => {}
    }
}

fn hear_as_data_centre(
    bytes: &[u8],
    expected: (Transport, DcId),
    received: &mut Vec<u8>,
    link: &mut Option<Link>,
    account: &mut Account,
    client: usize,
) -> Result<(), Violation> {
    let mut payload = bytes;
    if link.is_none() {
        let missing = INIT_FRAME_LEN - received.len();
        let (frame_part, rest) = bytes.split_at(missing.min(bytes.len()));
        received.extend_from_slice(frame_part);
        payload = rest;
        let Some(frame) = received.first_chunk() else { return Ok(()) };
        let Some(opened) = InitFrame::open(frame, None) else {
            return violation(Checker::Content, format!("client {client}'s data centre got no init frame"));
        };
        require((opened.transport, opened.dc) == expected, Checker::Content, || {
            format!("client {client} asked for {expected:?}, its data centre was told {opened:?}")
        })?;
        let streams = opened.streams;
        *link = Some(Link { from_proxy: streams.forward, to_client: streams.backward.stream() });
    }
    let link = link.as_mut().expect("opened above");
    let mut payload = payload.to_vec();
    link.from_proxy.apply(&mut payload);
    account.to_upstream.hear(&payload, &format!("the data centre of client {client}"))
}
