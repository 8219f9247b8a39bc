//! A middle proxy and its counterpart over real sockets.

use std::time::{Duration, Instant};

use super::*;
use crate::command::{self, Command};
use crate::dc_codec::quick_ack_token;
use crate::middle_proxy::request::flag;
use crate::middle_proxy::{LinkFault, Message, ProxyLinkCodec, ProxyLinkOptions, Telegram};
use crate::mtproto;
use crate::pattern;
use crate::server::InputEnd;
use crate::socket::{Interest, PATIENCE, Pace, Read1, ReadEnd, Socket};

const SECRET: [u8; 128] = [0x5a; 128];

/// A proxy's end of a link, on a real socket.
struct Proxy {
    socket: Socket,
    codec: ProxyLinkCodec,
    heard: VecDeque<Message>,
    end: Option<Result<ReadEnd, LinkFault>>,
}

impl Proxy {
    /// Connects and sends its nonce.
    fn connect(middle_proxy: SocketAddr) -> Self {
        let socket = Socket::connect(middle_proxy);
        let ends = Ends { proxy: socket.local_address(), middle_proxy };
        let options = ProxyLinkOptions::new(&SECRET, ends, unix_seconds().cast_signed());
        let codec = ProxyLinkCodec::new(options, fresh_random());
        let mut proxy = Self { socket, codec, heard: VecDeque::new(), end: None };
        proxy.flush();
        proxy
    }

    fn ready(middle_proxy: SocketAddr) -> Self {
        let mut proxy = Self::connect(middle_proxy);
        proxy.pump("a ready link", |proxy| proxy.codec.is_ready());
        proxy
    }

    fn flush(&mut self) {
        let output = self.codec.take_output();
        self.socket.send(&output, Pace::WHOLE);
    }

    /// Reads and answers until `is_done`, or to the end.
    #[track_caller]
    fn pump(&mut self, what: &str, is_done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 64 * 1024];
        while !is_done(self) && self.end.is_none() {
            match self.socket.read_some(&mut buffer) {
                Read1::WouldBlock => {
                    assert!(self.socket.is_ready(Interest::Read, deadline), "awaiting {what} in vain");
                }
                Read1::End(end) => self.end = Some(Ok(end)),
                Read1::Bytes(count) => match self.codec.receive(&buffer[..count]) {
                    Ok(messages) => {
                        self.heard.extend(messages);
                        self.flush();
                    }
                    Err(fault) => self.end = Some(Err(fault)),
                },
            }
        }
    }

    #[track_caller]
    fn hear(&mut self) -> Message {
        self.pump("a message", |proxy| !proxy.heard.is_empty());
        self.heard.pop_front().unwrap_or_else(|| panic!("awaiting a message: found {:?}", self.end))
    }

    #[track_caller]
    fn hear_end(&mut self) -> Result<ReadEnd, LinkFault> {
        self.pump("the end of the link", |_| false);
        self.end.clone().expect("pumped until then")
    }

    fn ask(&mut self, connection: i64, packet: &[u8]) {
        let is_plain = packet.starts_with(&[0; 8]);
        let request = ProxyRequest {
            flags: flag::TCP
                | flag::OBFUSCATED2
                | flag::ABRIDGED
                | if is_plain { flag::UNENCRYPTED } else { 0 },
            connection,
            client: "192.0.2.1:50000".parse().unwrap(),
            ours: "192.0.2.2:443".parse().unwrap(),
            proxy_tag: None,
            packet: packet.to_vec(),
        };
        self.codec.send(&Message::Request(request));
        self.flush();
    }
}

fn answer(connection: i64, packet: Vec<u8>) -> Message {
    Message::Answer { flags: 0, connection, packet }
}

fn echo(byte: u8) -> Vec<u8> {
    Command::Echo(vec![byte; 100]).body()
}

#[test]
fn links_in_both_families_and_with_both_checksums_carry_packets() {
    for accepts_crc32c in [true, false] {
        let options = MiddleProxyOptions { accepts_crc32c, ..MiddleProxyOptions::new(&SECRET) };
        let both_families = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let any = FakeMiddleProxy::start_on(both_families, options.clone());
        let disguised = SocketAddr::from((Ipv4Addr::LOCALHOST, any.address().port()));
        for (middle_proxy, address) in [
            (&FakeMiddleProxy::start(options.clone()), None),
            (&FakeMiddleProxy::start_v6(options), None),
            (&any, Some(disguised)),
        ] {
            let mut proxy = Proxy::ready(address.unwrap_or(middle_proxy.address()));
            proxy.ask(7, &echo(1));
            assert_eq!(proxy.hear(), answer(7, echo(1)));
            let session = middle_proxy.sessions().remove(0);
            assert_eq!((session.report.is_ready(), session.report.uses_crc32c), (true, accepts_crc32c));
            assert_eq!(middle_proxy.requests()[0].packet, echo(1));
        }
    }
}

#[test]
fn questions_are_answered_and_quick_acks_given() {
    let middle_proxy = FakeMiddleProxy::start(MiddleProxyOptions::new(&SECRET));
    let mut proxy = Proxy::ready(middle_proxy.address());
    for question in [mtproto::req_pq(4, &[3; 16]), mtproto::req_pq_multi(4, &[3; 16])] {
        proxy.ask(1, &question);
        let Message::Answer { connection: 1, packet, .. } = proxy.hear() else { panic!("no answer") };
        assert_eq!(mtproto::parse_res_pq(&packet).unwrap().0, [3; 16]);
    }
    let (_, mut request) = middle_proxy.wait_for_request("a question", |_| true);
    request.flags = request.flags & !flag::UNENCRYPTED | flag::QUICK_ACK;
    request.packet = echo(5);
    proxy.codec.send(&Message::Request(request));
    proxy.flush();
    assert_eq!(proxy.hear(), Message::SimpleAck { connection: 1, token: quick_ack_token(&echo(5)) });
    assert_eq!(proxy.hear(), answer(1, echo(5)));
}

#[test]
fn a_bulk_answer_does_not_hold_up_the_other_clients_of_the_link() {
    const LEN: u64 = 8_000_001;
    let middle_proxy = FakeMiddleProxy::start(MiddleProxyOptions::new(&SECRET));
    let mut proxy = Proxy::ready(middle_proxy.address());
    proxy.ask(1, &Command::Bulk { len: LEN }.body());
    middle_proxy.wait_until_counted("the bulk request", |links| links[0].requests == 1);
    proxy.ask(2, &echo(9));
    let (mut position, mut echoed_at) = (0, None);
    while position < LEN || echoed_at.is_none() {
        match proxy.hear() {
            Message::Answer { connection: 1, packet, .. } => {
                let (at, bytes) = command::parse_bulk(&packet, LEN).unwrap();
                assert_eq!((at, pattern::first_difference(at, bytes)), (position, None));
                position += bytes.len() as u64;
            }
            Message::Answer { connection: 2, packet, .. } if packet == echo(9) => echoed_at = Some(position),
            other => panic!("found {other:?}"),
        }
    }
    assert!(echoed_at.unwrap() < LEN, "{echoed_at:?}");
}

#[test]
fn ten_thousand_clients_over_four_links_are_served_by_one_thread() {
    const LINKS: i64 = 4;
    const CLIENTS: i64 = 10_000;
    let options = MiddleProxyOptions { recorded_requests_max: 10, ..MiddleProxyOptions::new(&SECRET) };
    let middle_proxy = FakeMiddleProxy::start(options);
    let mut proxies: Vec<Proxy> = (0..LINKS).map(|_| Proxy::ready(middle_proxy.address())).collect();
    for (link, proxy) in (0..).zip(&mut proxies) {
        for client in (link..CLIENTS).step_by(4) {
            proxy.ask(client, &echo(client.to_le_bytes()[0]));
        }
        for client in (link..CLIENTS).step_by(4) {
            assert_eq!(proxy.hear(), answer(client, echo(client.to_le_bytes()[0])));
        }
    }
    let counters = middle_proxy.counters();
    assert!(
        counters.iter().all(|link| link.connections_open == 2500 && link.answers == 2500),
        "{counters:?}"
    );
    assert_eq!(middle_proxy.requests().len(), 40);
}

#[test]
fn orders_reach_the_link_they_are_for() {
    let middle_proxy = FakeMiddleProxy::start(MiddleProxyOptions::new(&SECRET));
    let mut first = Proxy::ready(middle_proxy.address());
    let mut second = Proxy::ready(middle_proxy.address());
    assert_eq!(middle_proxy.wait_for_links(2), [0, 1]);
    second.ask(5, &echo(1));
    assert_eq!(second.hear(), answer(5, echo(1)));
    middle_proxy.push(1, 5, &(-404i32).to_le_bytes());
    assert_eq!(second.hear(), answer(5, (-404i32).to_le_bytes().to_vec()));
    middle_proxy.order(1, LinkOrder::Acknowledge { connection: 5, token: 1 << 31 });
    assert_eq!(second.hear(), Message::SimpleAck { connection: 5, token: 1 << 31 });
    second.ask(-3, &echo(2));
    assert_eq!(second.hear(), answer(-3, echo(2)));
    middle_proxy.order(1, LinkOrder::PushToAll(echo(7)));
    assert_eq!((second.hear(), second.hear()), (answer(-3, echo(7)), answer(5, echo(7))));
    middle_proxy.order(0, LinkOrder::Ping(77));
    assert_eq!(first.hear(), Message::Ping(77));
    middle_proxy.wait_until("the pong", |sessions| sessions[0].report.pongs == [77]);
    middle_proxy.order(1, LinkOrder::CloseClient(5));
    assert_eq!(second.hear(), Message::CloseExt(5));
    middle_proxy.push(1, 5, &[0; 4]);
    middle_proxy.order(1, LinkOrder::Commit(DataFault::AnswerTo(99)));
    assert_eq!(second.hear(), answer(99, vec![0x99; 56]));
    second.codec.send(&Message::CloseConn(99));
    second.flush();
    let sessions = middle_proxy.wait_until("the close", |sessions| sessions[1].report.closed == [99]);
    assert_eq!(sessions[1].report.counters.close_conns_unknown, 1);
    assert_eq!(sessions[1].report.counters.orders_lost, 1);
}

#[test]
fn a_killed_link_ends_and_the_others_stay() {
    let middle_proxy = FakeMiddleProxy::start(MiddleProxyOptions::new(&SECRET));
    let mut proxies: Vec<Proxy> = (0..3).map(|_| Proxy::ready(middle_proxy.address())).collect();
    middle_proxy.kill_link(0);
    middle_proxy.reset_link(1);
    assert_eq!(proxies[0].hear_end(), Ok(ReadEnd::Eof));
    assert_eq!(proxies[1].hear_end(), Ok(ReadEnd::Reset));
    proxies[2].ask(1, &echo(2));
    assert_eq!(proxies[2].hear(), answer(1, echo(2)));
    assert_eq!(middle_proxy.wait_for_links(1), [2]);
    drop(proxies);
    middle_proxy.wait_until("the end of all links", |sessions| sessions.iter().all(|s| s.closed));
}

#[test]
fn a_stalled_link_takes_nothing_until_it_is_resumed() {
    let middle_proxy = FakeMiddleProxy::start(MiddleProxyOptions::new(&SECRET));
    let mut proxy = Proxy::ready(middle_proxy.address());
    middle_proxy.stall_link(0);
    // Orders are taken in the same thread that reads: once this one has an effect, so had the other.
    let mut other = Proxy::ready(middle_proxy.address());
    middle_proxy.order(1, LinkOrder::Ping(1));
    assert_eq!(other.hear(), Message::Ping(1));
    proxy.ask(1, &echo(3));
    let (silence, end) = proxy.socket.listen_for(Duration::from_millis(50));
    assert_eq!((silence.len(), end, middle_proxy.counters()[0].requests), (0, None, 0));
    middle_proxy.resume_link(0);
    assert_eq!(proxy.hear(), answer(1, echo(3)));
}

#[test]
fn misbehaviour_can_change_from_link_to_link() {
    let options = MiddleProxyOptions::new(&SECRET).misbehaving(Misbehaviour::EndsAtOnce(Ending::Close));
    let middle_proxy = FakeMiddleProxy::start(options);
    // Its nonce may come to a socket that is closed already.
    assert!(Proxy::connect(middle_proxy.address()).hear_end().is_ok());
    middle_proxy.set_misbehaviour(None);
    let mut proxy = Proxy::ready(middle_proxy.address());
    proxy.ask(1, &echo(4));
    assert_eq!(proxy.hear(), answer(1, echo(4)));
    middle_proxy.set_options(MiddleProxyOptions::new(&SECRET).with_telegram(Telegram::Silent));
    let mut silent = Proxy::ready(middle_proxy.address());
    silent.ask(1, &echo(4));
    middle_proxy.wait_until_counted("the request", |links| links[2].requests == 1);
    let (silence, _) = silent.socket.listen_for(Duration::from_millis(50));
    assert!(silence.is_empty());
}

#[test]
fn a_link_is_closed_when_the_proxy_misbehaves() {
    let middle_proxy = FakeMiddleProxy::start(MiddleProxyOptions::new(&SECRET));
    let mut proxy = Proxy::ready(middle_proxy.address());
    proxy.codec.send_payload(&[1, 0, 0, 0], None);
    proxy.flush();
    assert!(proxy.hear_end().is_ok());
    let fault = LinkFault::UnexpectedMessage { op: 1 };
    let sessions = middle_proxy.wait_until("the end of the link", |sessions| sessions[0].closed);
    assert_eq!(sessions[0].input_end, Some(InputEnd::Misbehaved(PeerError::Link(fault.clone()))));
    assert_eq!(sessions[0].report.fault, Some(fault));
}
