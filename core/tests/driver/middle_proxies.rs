//! Clients, an engine, and the middle proxies between which it chooses: all in memory, under a clock that moves when
//! told to. The middle proxies are those of the tests, which share no code with core's links.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mtproxy_core::config::Config;
use mtproxy_core::dc::DcId;
use mtproxy_core::middle_proxy::settings::{MiddleProxies, MiddleProxyLimits};
use mtproxy_core::middle_proxy::{
    Clusters, LinkEvent, NatRules, ProcessId, ProxySecret, ProxyTag, TargetConfig,
};
use mtproxy_core::random::Random;
use mtproxy_core::secret::Secret;
use mtproxy_core::stream::StreamId;
use mtproxy_core::time::Instant;
use mtproxy_core::transport::Transport;
use mtproxy_tests::dc_codec::Ending;
use mtproxy_tests::framing::{Packet, PacketOptions, PacketReader, Reader, frame_packet};
use mtproxy_tests::middle_proxy::Ends;
use mtproxy_tests::{ClientCodec, ClientOptions, Command, MiddleProxyCodec, MiddleProxyOptions};

use super::{DC, OUR_ADDRESS, UNIX_SECONDS, World, address, config};

/// What both ends of every link know.
pub(crate) const PROXY_SECRET: [u8; 128] = [0x5a; 128];
/// The middle proxies of every client that does not care.
pub(crate) const MIDDLE_PROXY: &str = "192.0.2.88:8888";
/// Turns after which a test has gone wrong.
const TURNS_MAX: usize = 100_000;

/// Middle proxies in use: one target with so many links.
pub(crate) fn middle_proxies(links: u16) -> MiddleProxies {
    let target =
        TargetConfig { address: address(MIDDLE_PROXY), min_connections: links, max_connections: links };
    MiddleProxies {
        secret: ProxySecret::new(&PROXY_SECRET).unwrap(),
        clusters: Clusters::new(DC, [(DC, vec![target])]),
        proxy_tag: None,
        nat: NatRules::default(),
        process: ProcessId { ip: 0, port: 0xffff, pid: 77, start_unix: UNIX_SECONDS },
        limits: MiddleProxyLimits::default(),
    }
}

/// The usual configuration, where everybody goes by middle proxies.
pub(crate) fn config_with(middle_proxies: MiddleProxies) -> Config {
    Config { middle_proxies: Some(Arc::new(middle_proxies)), ..config() }
}

/// A middle proxy's end of a link.
struct Link {
    codec: MiddleProxyCodec,
    heard_to: usize,
    is_over: bool,
}

/// A Telegram app.
pub(crate) struct Client {
    pub(crate) stream: StreamId,
    codec: ClientCodec,
    heard_to: usize,
    packets: PacketReader,
    /// What it has received, in order.
    pub(crate) received: Vec<Packet>,
}

/// Everybody.
pub(crate) struct Lab {
    pub(crate) world: World,
    options: MiddleProxyOptions,
    /// False: nobody answers at any middle proxy's address.
    pub(crate) is_up: bool,
    links: BTreeMap<StreamId, Link>,
    pub(crate) clients: Vec<Client>,
    pub(crate) events: Vec<LinkEvent>,
}

impl Lab {
    pub(crate) fn new(config: Config) -> Self {
        Self::with(config, MiddleProxyOptions::new(&PROXY_SECRET))
    }

    pub(crate) fn with(config: Config, options: MiddleProxyOptions) -> Self {
        let world = World::new(config);
        let (links, clients, events) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { world, options, is_up: true, links, clients, events }
    }

    /// For links to come.
    pub(crate) fn set_options(&mut self, options: MiddleProxyOptions) {
        self.options = options;
    }

    /// A client with `secret` that has shaken hands.
    pub(crate) fn client(&mut self, secret: Secret, transport: Transport) -> usize {
        self.client_of(secret, transport, DC)
    }

    pub(crate) fn client_of(&mut self, secret: Secret, transport: Transport, dc: DcId) -> usize {
        let number = self.clients.len();
        let options = ClientOptions::new(secret, dc, UNIX_SECONDS).with_transport(transport);
        let seed = [number.to_le_bytes()[0]; 32];
        let mut codec = ClientCodec::new(options, Random::from_seed(seed));
        let stream = self.world.connect_from(source_of(number));
        let opening = codec.opening();
        let packets = PacketReader::new(transport, Reader::Client);
        self.clients.push(Client { stream, codec, heard_to: 0, packets, received: Vec::new() });
        self.world.say(stream, &opening);
        self.settle();
        number
    }

    /// The client sends a packet.
    pub(crate) fn sends(&mut self, client: usize, body: &[u8], wants_quick_ack: bool) {
        let wire = self.encoded(client, body, wants_quick_ack);
        let stream = self.clients[client].stream;
        self.world.say(stream, &wire);
    }

    /// A packet as it is on the client's wire.
    pub(crate) fn encoded(&mut self, client: usize, body: &[u8], wants_quick_ack: bool) -> Vec<u8> {
        let client = &mut self.clients[client];
        let mut framed = Vec::new();
        let options = PacketOptions { wants_quick_ack, padding: &[] };
        frame_packet(client.codec.transport(), body, options, &mut framed);
        client.codec.encode(&framed)
    }

    /// The client asks for an echo of `payload`, and gets it.
    pub(crate) fn exchanges(&mut self, client: usize, payload: &[u8]) {
        let before = self.clients[client].received.len();
        let body = Command::Echo(payload.to_vec()).body();
        self.sends(client, &body, false);
        self.settle();
        let received = &self.clients[client].received[before..];
        let [Packet::Message { body: answer, .. }] = received else { panic!("{} packets", received.len()) };
        assert_eq!(Command::parse(answer), Some(Command::Echo(payload.to_vec())));
    }

    /// Lets everybody act until nobody has anything more to do at this moment.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.turn() {
                return;
            }
        }
        panic!("this never ends");
    }

    /// Time passes, and everybody acts meanwhile.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.world.elapsed + time;
        self.settle();
        while let Some(at) = self.world.engine.next_timeout().map(|at| at.since(Instant::ORIGIN)) {
            if at > until {
                break;
            }
            self.world.elapsed = self.world.elapsed.max(at);
            self.world.time_out();
            self.settle();
        }
        self.world.elapsed = until;
    }

    fn turn(&mut self) -> bool {
        let mut is_busy = self.answer_dials();
        if self.world.is_due() {
            self.world.time_out();
            is_busy = true;
        }
        self.events.extend(self.world.engine.drain_link_events());
        is_busy |= self.middle_proxies_act();
        is_busy | self.clients_listen()
    }

    fn answer_dials(&mut self) -> bool {
        let dialing = self.world.dialing();
        for &(stream, at) in &dialing {
            if self.is_up {
                let ends = Ends { proxy: address(OUR_ADDRESS), middle_proxy: at };
                let unix = i32::try_from(self.world.now().unix.0).unwrap();
                let random = Random::from_seed([self.links.len().to_le_bytes()[0]; 32]);
                let codec = MiddleProxyCodec::new(self.options.clone(), ends, unix, random);
                self.links.insert(stream, Link { codec, heard_to: 0, is_over: false });
                self.world.answer(stream);
            } else {
                self.world.refuse(stream);
            }
        }
        !dialing.is_empty()
    }

    fn middle_proxies_act(&mut self) -> bool {
        let mut is_busy = false;
        for (&stream, link) in self.links.iter_mut().filter(|(_, link)| !link.is_over) {
            if !matches!(self.world.told(stream), super::Told::Nothing) {
                link.is_over = true;
                continue;
            }
            let fresh = &self.world.heard(stream)[link.heard_to..];
            if !fresh.is_empty() && link.codec.is_reading() {
                link.heard_to += fresh.len();
                link.codec.receive(fresh).expect("the proxy keeps to the protocol");
                is_busy = true;
            }
            let mut wire = Vec::new();
            if link.codec.has_output() {
                link.codec.fill(&mut wire, 16 * 1024);
                self.world.say(stream, &wire);
                is_busy = true;
            }
            match link.codec.take_abrupt_ending().or_else(|| link.codec.take_ending()) {
                Some(Ending::Reset) => self.world.reset(stream),
                Some(_) => self.world.fin(stream),
                None => continue,
            }
            (link.is_over, is_busy) = (true, true);
        }
        is_busy
    }

    fn clients_listen(&mut self) -> bool {
        let mut is_busy = false;
        for client in &mut self.clients {
            let fresh = self.world.heard(client.stream)[client.heard_to..].to_vec();
            if fresh.is_empty() {
                continue;
            }
            is_busy = true;
            client.heard_to += fresh.len();
            let progress = client.codec.receive(&fresh).expect("the proxy is in order");
            client.packets.push(&progress.payload);
            while let Some(packet) = client.packets.next_packet().expect("packets in order") {
                client.received.push(packet);
            }
            if !progress.to_send.is_empty() {
                self.world.say(client.stream, &progress.to_send);
            }
        }
        is_busy
    }

    /// Links that are ready and not over, in order of their names.
    pub(crate) fn ready_links(&self) -> Vec<StreamId> {
        let is_ready = |link: &&Link| !link.is_over && link.codec.report().is_ready();
        self.links.iter().filter(|(_, link)| is_ready(link)).map(|(stream, _)| *stream).collect()
    }

    /// The middle proxy's end of a link.
    pub(crate) fn link(&mut self, stream: StreamId) -> &mut MiddleProxyCodec {
        &mut self.links.get_mut(&stream).unwrap().codec
    }

    /// The link by which a client's packets went, and its name there.
    pub(crate) fn link_of(&self, client: usize) -> (StreamId, i64) {
        let at = SocketAddr::new(source_of(client), super::CLIENT_PORT);
        let name_on = |link: &Link| {
            let requests = &link.codec.report().requests;
            requests.iter().find(|request| request.client == at).map(|request| request.connection)
        };
        let found = |is_over: bool| {
            let mut links = self.links.iter().filter(|(_, link)| link.is_over == is_over);
            links.find_map(|(stream, link)| Some((*stream, name_on(link)?)))
        };
        // One that lives, if there is one: a client may have had several.
        found(false).or_else(|| found(true)).expect("a request of this client has come")
    }
}

/// Every client has an address of its own, by which a middle proxy tells them apart.
fn source_of(client: usize) -> IpAddr {
    let number = u32::try_from(client).unwrap();
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + number))
}

/// The tag of the tests.
pub(crate) fn proxy_tag() -> ProxyTag {
    "00112233445566778899aabbccddeeff".parse().unwrap()
}
