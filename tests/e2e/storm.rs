//! Broken connections in great number: cut off anywhere, ended in every way. Nothing may stay behind.

use mtproxy_tests::framing::{PacketOptions, frame_packet};
use mtproxy_tests::test_client::fresh_random;
use mtproxy_tests::{ClientCodec, DcMode, FrontManner, Pace, mtproto};

use crate::scene::{Mode, Scene, secret, settled_descriptors};
use mtproxy_core::random::Random;
use mtproxy_core::secret::SecretKind;

const CONNECTIONS: usize = 600;
/// Every run repeats: what fails once fails again.
const SEED: [u8; 32] = [42; 32];

/// Some beginning of some client's first flight, some of it spoilt.
fn fragment(random: &mut Random) -> Vec<u8> {
    let mode = Mode::ALL[random.below(4) as usize];
    let mut codec = ClientCodec::new(mode.options(), fresh_random());
    let mut bytes = codec.opening();
    if mode != Mode::Ee {
        let mut packet = Vec::new();
        let body = mtproto::req_pq_multi(4, &random.bytes());
        frame_packet(codec.transport(), &body, PacketOptions::default(), &mut packet);
        bytes.extend(codec.encode(&packet));
    }
    let len = u32::try_from(bytes.len()).expect("an opening is short");
    bytes.truncate(random.below(len + 1) as usize);
    if random.below(4) == 0 && !bytes.is_empty() {
        let at = random.below(u32::try_from(bytes.len()).expect("an opening is short")) as usize;
        bytes[at] ^= 0x40;
    }
    bytes
}

#[test]
fn a_storm_of_broken_connections_leaves_nothing_behind() {
    let mut scene = Scene::with(DcMode::Packets, FrontManner::AnswersAndCloses, |command| {
        command
            .secret(&secret(SecretKind::Plain))
            .config("[timeouts]\nfirst_byte_seconds = 1\nhandshake_seconds = 1\nlinger_seconds = 1\n")
    });
    let mut random = Random::from_seed(SEED);
    scene.client(Mode::Ee).ask_for_pq();
    scene.dc.wait_until("the first session's end", |s| s[0].closed);
    let settled = settled_descriptors(&scene);
    let mut lingering = Vec::new();
    for _ in 0..CONNECTIONS {
        let bytes = fragment(&mut random);
        let mut socket = scene.stranger();
        let pace = Pace::pieces(1 + random.below(600) as usize);
        // The proxy may have closed on it already.
        let _ = socket.try_send(&bytes, pace);
        match random.below(4) {
            0 => socket.reset(),
            1 => drop(socket),
            2 => {
                socket.half_close();
                lingering.push(socket);
            }
            _ => lingering.push(socket),
        }
    }
    let mut survivor = scene.client(Mode::Dd);
    survivor.ask_for_pq();
    for mut socket in lingering {
        socket.half_close();
        // Whatever it is told, it is told an end: at the latest when its handshake has taken too long.
        let _ = socket.read_to_end();
    }
    survivor.ask_for_pq();
    drop(survivor);
    scene.dc.wait_until("the end of every session", |s| s.iter().all(|s| s.closed));
    assert_eq!(settled_descriptors(&scene), settled);
    assert!(scene.proxy.is_running());
    scene.client(Mode::Ee).ask_for_pq();
}
