//! What a client says reaches a middle proxy as one request a packet, and what that answers reaches the client.

use mtproxy_core::config::{Config, Route};
use mtproxy_core::credentials::Credentials;
use mtproxy_core::middle_proxy::settings::MiddleProxies;
use mtproxy_core::transport::Transport;
use mtproxy_tests::dc_codec::quick_ack_token;
use mtproxy_tests::framing::Packet;
use mtproxy_tests::middle_proxy::request::flag;
use mtproxy_tests::mtproto;
use mtproxy_tests::{Command, MiddleProxyOptions};

use super::driver::middle_proxies::{Lab, PROXY_SECRET, config_with, middle_proxies, proxy_tag};
use super::driver::{DC_ADDRESSES, FRONT_DOMAIN, OUR_ADDRESS, address, fake_tls, padded, plain};

/// Every kind of client.
fn kinds() -> [(mtproxy_core::secret::Secret, Transport); 4] {
    [
        (plain(), Transport::Abridged),
        (plain(), Transport::Intermediate),
        (padded(), Transport::PaddedIntermediate),
        (fake_tls(FRONT_DOMAIN), Transport::PaddedIntermediate),
    ]
}

#[test]
fn packets_of_every_transport_arrive_and_are_answered() {
    for options in
        [MiddleProxyOptions::new(&PROXY_SECRET), MiddleProxyOptions::new(&PROXY_SECRET).without_crc32c()]
    {
        for (secret, transport) in kinds() {
            let mut lab = Lab::with(config_with(middle_proxies(1)), options.clone());
            let client = lab.client(secret, transport);
            for len in [1_usize, 100, 488, 500, 4000, 70_000, 1_000_000] {
                lab.exchanges(client, &vec![len.to_le_bytes()[0]; len]);
            }
            let link = lab.link_of(client).0;
            assert_eq!(lab.link(link).report().uses_crc32c, options.accepts_crc32c);
        }
    }
}

#[test]
fn a_request_says_who_the_client_is_where_it_came_and_how() {
    for (secret, transport) in kinds() {
        let settings = MiddleProxies { proxy_tag: Some(proxy_tag()), ..middle_proxies(1) };
        let mut lab = Lab::new(config_with(settings));
        let client = lab.client(secret, transport);
        let hello = mtproto::req_pq_multi(1 << 32, &[7; 16]);
        lab.sends(client, &hello, true);
        lab.settle();
        let (link, _) = lab.link_of(client);
        let request = &lab.link(link).report().requests[0];
        assert_eq!(request.client, address("10.0.0.1:50000"));
        assert_eq!(request.ours, address(OUR_ADDRESS));
        assert_eq!(request.proxy_tag.map(|tag| tag.to_vec()), Some(proxy_tag().0.to_vec()));
        assert_eq!(request.packet, hello);
        let form = if transport == Transport::Abridged { flag::ABRIDGED } else { flag::INTERMEDIATE };
        let unencrypted_and_acknowledged = flag::UNENCRYPTED | flag::QUICK_ACK;
        assert_eq!(
            request.flags & (form | unencrypted_and_acknowledged),
            form | unencrypted_and_acknowledged
        );
        let token = quick_ack_token(&hello);
        assert!(lab.clients[client].received.contains(&Packet::QuickAck(token)), "the token of the packet");
        assert!(lab.clients[client].received.iter().any(|packet| matches!(packet, Packet::Message { .. })));
    }
}

#[test]
fn packets_cut_anywhere_arrive_once_and_in_order() {
    for (secret, transport) in kinds() {
        let mut lab = Lab::new(config_with(middle_proxies(1)));
        let client = lab.client(secret, transport);
        let mut wire = Vec::new();
        for number in 0..40_u8 {
            let payload = vec![number; 20 * usize::from(number) + 1];
            wire.extend(lab.encoded(client, &Command::Echo(payload).body(), false));
        }
        let stream = lab.clients[client].stream;
        for (index, piece) in wire.chunks(7).enumerate() {
            lab.world.say(stream, piece);
            if index % 50 == 0 {
                lab.settle();
            }
        }
        lab.settle();
        let echoed: Vec<u8> = lab.clients[client]
            .received
            .iter()
            .map(|packet| match packet {
                Packet::Message { body, .. } => match Command::parse(body) {
                    Some(Command::Echo(payload)) => payload[0],
                    other => panic!("{other:?}"),
                },
                Packet::QuickAck(_) => panic!("nobody asked for one"),
            })
            .collect();
        assert_eq!(echoed, (0..40).collect::<Vec<u8>>());
    }
}

#[test]
fn what_is_no_mtproto_message_is_passed_over_and_the_client_stays() {
    let mut lab = Lab::new(config_with(middle_proxies(1)));
    let client = lab.client(plain(), Transport::Intermediate);
    // Too short; a key but no room for its message; no key and no function of the handshake.
    for body in [vec![1; 24], vec![1; 52], vec![0; 60]] {
        lab.sends(client, &body, false);
    }
    lab.exchanges(client, b"and this one is");
    assert_eq!(lab.world.engine.forwarded().ignored, 3);
    assert_eq!(lab.world.engine.forwarded().requests, 1);
}

#[test]
fn a_ping_of_the_old_rpc_layer_is_answered_by_the_proxy() {
    let mut lab = Lab::new(config_with(middle_proxies(1)));
    let client = lab.client(plain(), Transport::Intermediate);
    let mut ping = 0x5730_a2df_u32.to_le_bytes().to_vec();
    ping.extend(7_i64.to_le_bytes());
    lab.sends(client, &ping, false);
    lab.settle();
    let mut pong = 0x8430_eaa7_u32.to_le_bytes().to_vec();
    pong.extend(7_i64.to_le_bytes());
    let [Packet::Message { body, .. }] = &lab.clients[client].received[..] else { panic!("no answer") };
    assert_eq!(*body, pong);
}

#[test]
fn a_secret_may_go_direct_while_others_go_by_middle_proxies() {
    let mixed = Credentials::routed([
        ("direct".to_owned(), plain(), Route::Direct),
        ("promoted".to_owned(), padded(), Route::MiddleProxies),
    ]);
    let config = Config { credentials: mixed, ..config_with(middle_proxies(1)) };
    let mut lab = Lab::new(config);
    let promoted = lab.client(padded(), Transport::PaddedIntermediate);
    lab.exchanges(promoted, b"by a middle proxy");
    lab.is_up = false;
    let before = lab.world.dialing().len();
    let options = mtproxy_tests::ClientOptions::new(plain(), super::driver::DC, super::driver::UNIX_SECONDS);
    let mut direct =
        mtproxy_tests::ClientCodec::new(options, mtproxy_core::random::Random::from_seed([9; 32]));
    let stream = lab.world.connect();
    let opening = direct.opening();
    lab.world.say(stream, &opening);
    let dialled: Vec<_> = lab.world.dialing().into_iter().map(|(_, at)| at).collect();
    assert_eq!(dialled[before..], [address(DC_ADDRESSES[0])]);
}
