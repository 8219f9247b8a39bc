//! The other ends of every flow, as little as will do: sequence numbers, and packets that say what the script
//! wants. They lose nothing, and twelve bytes an end let a million relays fit beside what is measured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mtproxy_tcp::link::Link as _;
use mtproxy_tcp::seq::SeqNumber;
use mtproxy_tcp::wire::{self, Body, Checksums, Flags, Options, Outgoing, Packet, Timestamps};

use super::umem::{Frame, LINK_HEADER, Umem};

/// Where clients connect to.
pub(super) const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443);
/// Client 0; the others follow, one address each.
const FIRST_CLIENT: u32 = 0x0b00_0000;
const CLIENT_PORT: u16 = 50_000;
/// The relay dials from here on, `PORTS` ports an address.
const FIRST_LOCAL: u32 = 0x0c00_0000;
const FIRST_PORT: u16 = 1024;
const PORTS: u32 = 60_000;

/// A side of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The data centre.
    DataCentre,
}

impl Side {
    /// The opposite side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::DataCentre,
            Self::DataCentre => Self::Client,
        }
    }
}

/// One end of a flow, named by its side and the number of its relay.
pub type End = (Side, u32);

/// What an end knows of its flow.
#[derive(Clone, Copy, Debug)]
struct Known {
    snd_nxt: SeqNumber,
    rcv_nxt: SeqNumber,
    echo: u32,
}

/// What a packet of the relay told an end.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Whom.
    pub end: End,
    /// Control bits.
    pub flags: Flags,
    /// Bytes of text.
    pub text_len: usize,
}

/// All ends.
pub struct Peers {
    clients: Box<[Known]>,
    data_centres: Box<[Known]>,
    data_centre: SocketAddr,
}

impl Peers {
    /// Ends of `relays` relays that dial `data_centre`.
    pub(super) fn new(relays: usize, data_centre: SocketAddr) -> Self {
        // Not zero, so that this memory is resident from the beginning.
        let unborn = Known { snd_nxt: SeqNumber(1000), rcv_nxt: SeqNumber(1), echo: 1 };
        Self { clients: vec![unborn; relays].into(), data_centres: vec![unborn; relays].into(), data_centre }
    }

    /// The addresses of an end's flow as the relay sees them: its own first.
    #[must_use]
    pub fn addresses(&self, (side, relay): End) -> (SocketAddr, SocketAddr) {
        match side {
            Side::Client => {
                let client = Ipv4Addr::from_bits(FIRST_CLIENT + relay);
                (LISTENER, SocketAddr::new(client.into(), CLIENT_PORT))
            }
            Side::DataCentre => (local_of(relay), self.data_centre),
        }
    }

    fn known(&mut self, (side, relay): End) -> &mut Known {
        match side {
            Side::Client => &mut self.clients[relay as usize],
            Side::DataCentre => &mut self.data_centres[relay as usize],
        }
    }

    /// A packet from an end, with `text` as `fill` writes it. Answers the frame and its used length.
    pub(super) fn say(
        &mut self,
        end: End,
        flags: Flags,
        text_len: usize,
        now_ms: u32,
        umem: &mut Umem,
        fill: impl FnOnce(&mut [u8]),
    ) -> (Frame, usize) {
        let (relay, peer) = self.addresses(end);
        let known = self.known(end);
        let is_syn = flags.contains(Flags::SYN);
        let outgoing = Outgoing {
            local: peer,
            remote: relay,
            seq: known.snd_nxt,
            ack: known.rcv_nxt,
            flags,
            window: u16::MAX,
            urgent: 0,
            options: Options {
                mss: is_syn.then_some(1460),
                window_scale: is_syn.then_some(7),
                sack_permitted: is_syn,
                timestamps: Some(Timestamps { value: now_ms, echo: known.echo }),
                ..Options::default()
            },
        };
        let space = u32::try_from(text_len).expect("text fits a frame") + u32::from(is_syn);
        known.snd_nxt += space;
        let mut frame = umem.allocate().expect("peers speak when there are frames");
        let bytes = umem.bytes_mut(&mut frame);
        bytes[..LINK_HEADER.len()].copy_from_slice(&LINK_HEADER);
        let at = LINK_HEADER.len() + outgoing.header_len();
        fill(&mut bytes[at..at + text_len]);
        let len = outgoing.write(bytes, LINK_HEADER.len(), text_len);
        (frame, len)
    }

    /// Takes a packet of the relay.
    pub(super) fn hear(&mut self, packet: &[u8]) -> Heard {
        let parsed = wire::parse(packet, Checksums::Verify).expect("the relay sends sound packets");
        let Packet { local, remote, body: Body::Segment(segment), .. } = parsed else {
            panic!("the relay sends TCP only")
        };
        let end = if local == self.data_centre.ip() {
            (Side::DataCentre, relay_of(remote, segment.remote_port))
        } else {
            (Side::Client, bits(local) - FIRST_CLIENT)
        };
        assert!(!segment.flags.contains(Flags::RST), "the relay gave {end:?} up");
        let known = self.known(end);
        let is_next = segment.flags.contains(Flags::SYN) || segment.seq == known.rcv_nxt;
        assert!(is_next, "nothing is lost here, so that nothing comes out of order or twice");
        known.rcv_nxt = segment.seq + segment.len();
        known.echo = segment.options.timestamps.map_or(known.echo, |timestamps| timestamps.value);
        Heard { end, flags: segment.flags, text_len: segment.payload.len() }
    }
}

/// Where relay number `relay` dials from.
pub(super) fn local_of(relay: u32) -> SocketAddr {
    let port = FIRST_PORT + u16::try_from(relay % PORTS).expect("below PORTS");
    SocketAddr::new(Ipv4Addr::from_bits(FIRST_LOCAL + relay / PORTS).into(), port)
}

fn relay_of(local: IpAddr, port: u16) -> u32 {
    (bits(local) - FIRST_LOCAL) * PORTS + u32::from(port - FIRST_PORT)
}

fn bits(address: IpAddr) -> u32 {
    let IpAddr::V4(address) = address else { panic!("everybody here has IPv4") };
    address.to_bits()
}
