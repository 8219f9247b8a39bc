//! How conversations end: half-closes, data together with FIN, resets.

use std::time::Duration;

use mtproxy_core::secret::SecretKind;
use mtproxy_tests::command::Command;
use mtproxy_tests::framing::{PacketOptions, PacketReader, Reader, frame_packet};
use mtproxy_tests::metrics_page::wait_for_sample;
use mtproxy_tests::server::InputEnd;
use mtproxy_tests::socket::refusing_address;
use mtproxy_tests::test_client::fresh_random;
use mtproxy_tests::{
    ClientCodec, DcMode, FrontManner, PATIENCE, Pace, ReadEnd, TestClient, mtproto, pattern,
};

use crate::back_pressure::wait_for_standstill;
use crate::scene::{Mode, Scene, loopback_v4, secret, settled_descriptors};

#[test]
fn a_client_that_half_closes_gets_everything_it_asked_for() {
    let scene = Scene::start(DcMode::EchoBytes);
    for mode in Mode::ALL {
        let mut client = scene.client(mode);
        let payload = pattern::bytes(0, 200_000);
        client.send(&payload, Pace::WHOLE);
        client.half_close();
        let (echoed, end) = client.read_to_end();
        assert_eq!((echoed == payload, end), (true, ReadEnd::Eof), "{mode:?}: {} bytes", echoed.len());
    }
    let sessions = scene.dc.wait_until("four ends", |s| s.len() == 4 && s.iter().all(|s| s.closed));
    assert!(sessions.iter().all(|s| s.input_end == Some(InputEnd::Eof)), "{sessions:?}");
}

#[test]
fn a_data_centre_that_half_closes_still_hears_the_client() {
    let scene = Scene::start(DcMode::Packets);
    for (index, mode) in Mode::ALL.into_iter().enumerate() {
        let mut client = scene.client(mode);
        client.send_command(&Command::HalfClose);
        assert_eq!(client.read_to_end(), (vec![], ReadEnd::Eof), "{mode:?}");
        client.send_command(&Command::Sink(pattern::bytes(0, 100_000)));
        client.half_close();
        let sessions = scene.dc.wait_until("the client's end", |s| s.len() > index && s[index].closed);
        assert!(sessions[index].report.payload_len > 100_000, "{mode:?}: {sessions:?}");
        assert_eq!(sessions[index].input_end, Some(InputEnd::Eof));
    }
}

#[test]
fn nothing_is_lost_when_a_data_centres_last_bytes_and_its_fin_arrive_together() {
    let scene = Scene::start(DcMode::Packets);
    for round in 0..40 {
        let mode = Mode::ALL[round % 4];
        let mut client = scene.client(mode);
        let len = [1, 1400, 70_000, 400_000][round / 4 % 4];
        client.send_command(&Command::Bulk { len });
        client.send_command(&Command::Close);
        client.receive_bulk(len);
        assert_eq!(client.read_to_end(), (vec![], ReadEnd::Eof), "{mode:?}");
    }
}

#[test]
fn nothing_is_lost_when_a_clients_whole_life_arrives_at_once() {
    let scene = Scene::start(DcMode::Packets);
    for round in 0..40u8 {
        // Init frame, question and FIN in one segment: there is a half-close before there is a session.
        let mut codec = ClientCodec::new(Mode::Dd.options(), fresh_random());
        let mut question = Vec::new();
        let nonce = [round; 16];
        let body = mtproto::req_pq_multi(4, &nonce);
        frame_packet(codec.transport(), &body, PacketOptions::default(), &mut question);
        let mut wire = codec.opening();
        wire.extend(codec.encode(&question));
        let transport = codec.transport();
        let mut socket = scene.stranger();
        socket.send(&wire, Pace::WHOLE);
        socket.half_close();
        let (payload, end) = TestClient::adopt(socket, codec).read_to_end();
        let mut packets = PacketReader::new(transport, Reader::Client);
        packets.push(&payload);
        let Ok(Some(mtproxy_tests::framing::Packet::Message { body, .. })) = packets.next_packet() else {
            panic!("round {round}: no answer in {} bytes", payload.len());
        };
        assert_eq!(mtproto::parse_res_pq(&body).map(|(nonce, _)| nonce), Some(nonce));
        assert_eq!(end, ReadEnd::Eof);
    }
}

#[test]
fn payload_in_the_record_of_the_init_frame_is_relayed() {
    let scene = Scene::start(DcMode::Packets);
    let mut client =
        TestClient::adopt(scene.stranger(), ClientCodec::new(Mode::Ee.options(), fresh_random()));
    let opening = client.codec_mut().opening();
    client.socket().send(&opening, Pace::WHOLE);
    // Nothing leaves yet: the question waits to travel behind the init frame.
    client.send_packet(&mtproto::req_pq_multi(4, &[5; 16]), PacketOptions::default());
    client.complete_handshake(Pace::WHOLE);
    client.half_close();
    let answer = client.receive_body();
    assert_eq!(mtproto::parse_res_pq(&answer).map(|(nonce, _)| nonce), Some([5; 16]));
    assert_eq!(client.read_to_end(), (vec![], ReadEnd::Eof));
}

#[test]
fn a_clients_reset_ends_its_data_centre_connection() {
    let scene = Scene::start(DcMode::EchoBytes);
    for (index, mode) in Mode::ALL.into_iter().enumerate() {
        let mut client = scene.client(mode);
        client.exchange_echo(0, 100, 100);
        client.reset();
        scene.dc.wait_until("the end at the data centre", |s| s[index].closed);
    }
}

#[test]
fn a_client_that_has_ended_its_side_may_still_reset() {
    let metrics = refusing_address(loopback_v4());
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command
            .secret(&secret(SecretKind::Plain))
            .option("--metrics", &metrics.to_string())
            .config("[timeouts]\nlinger_seconds = 1\n")
    });
    let dropped = "mtproxy_sessions_dropped_total{reason=\"client_reset\"}";
    for (index, mode) in Mode::ALL.into_iter().enumerate() {
        // A data centre that hears nothing says nothing either, by which the reset would be found.
        scene.dc.resume_reading();
        let mut client = scene.client(mode);
        client.ask_for_pq();
        scene.dc.pause_reading();
        client.half_close();
        wait_for_standstill("the proxy", || scene.proxy.cost().cpu_ns / 1_000_000);
        client.reset();
        wait_for_sample(metrics, dropped, index as u64 + 1, PATIENCE);
    }
}

#[test]
fn a_data_centres_reset_ends_the_clients_connection() {
    let scene = Scene::start(DcMode::Packets);
    for mode in Mode::ALL {
        let mut client = scene.client(mode);
        client.ask_for_pq();
        client.send_command(&Command::Reset);
        let (payload, end) = client.read_to_end();
        assert!(payload.is_empty() && matches!(end, ReadEnd::Eof | ReadEnd::Reset), "{mode:?}");
    }
}

#[test]
fn a_slow_client_that_talks_on_still_gets_what_came_before_its_data_centres_reset() {
    // More than the client's window, little enough for the kernel to take it all on the way to there.
    const LEN: u64 = 200_000;
    let scene = Scene::start(DcMode::Packets);
    for (index, mode) in Mode::ALL.into_iter().enumerate() {
        let mut client = scene.client(mode);
        client.send_command(&Command::Bulk { len: LEN });
        scene.dc.wait_until("the whole answer to be sent", |s| s.len() > index && s[index].sent > LEN);
        // Sent is not received: what the proxy has not taken yet, the reset would destroy.
        std::thread::sleep(Duration::from_millis(200));
        client.send_command(&Command::Reset);
        scene.dc.wait_until("the data centre's reset", |s| s[index].closed);
        let talk = Pace { piece_len: 100, pause: Duration::from_millis(5) };
        let _ = client.try_send(&[0; 2000], talk);
        client.receive_bulk(LEN);
        assert!(client.read_to_end().0.is_empty(), "{mode:?}");
    }
}

#[test]
fn a_late_reader_that_uploads_still_gets_what_came_before_its_data_centres_reset() {
    const LEN: u64 = 100_000;
    /// More than a proxy is ready to throw away for a client that is being closed.
    const UPLOAD_LEN: usize = 400_000;
    let metrics = refusing_address(loopback_v4());
    let scene = Scene::with(DcMode::Packets, FrontManner::AnswersAtOnce, |command| {
        command.secret(&secret(SecretKind::Plain)).option("--metrics", &metrics.to_string())
    });
    for (index, mode) in Mode::ALL.into_iter().enumerate() {
        let mut client = scene.client(mode);
        client.socket().shrink_receive_buffer(16 * 1024);
        client.send_command(&Command::Bulk { len: LEN });
        // Sent is not received: what the proxy has not taken yet, the reset would destroy.
        let received = "mtproxy_received_bytes_total{from=\"upstream\"}";
        wait_for_sample(metrics, received, (index as u64 + 1) * LEN, PATIENCE);
        client.send_command(&Command::Reset);
        scene.dc.wait_until("the data centre's reset", |s| s.len() > index && s[index].closed);
        let upload = client.codec_mut().encode(&[0; UPLOAD_LEN]);
        let sent = client.socket().send_until_stuck(&upload, Duration::from_millis(300));
        assert!(sent.is_ok(), "{mode:?}: {sent:?}: closed before all was read");
        client.receive_bulk(LEN);
        assert!(client.read_to_end().0.is_empty(), "{mode:?}");
    }
}

#[test]
fn ended_sessions_leave_no_descriptor_behind() {
    let scene = Scene::start(DcMode::Packets);
    scene.client(Mode::Ee).ask_for_pq();
    scene.dc.wait_until("the first session's end", |s| s[0].closed);
    let settled = settled_descriptors(&scene);
    for round in 0..40 {
        let mut client = scene.client(Mode::ALL[round % 4]);
        client.ask_for_pq();
        if round % 3 == 0 {
            client.reset();
        }
    }
    let mut stranger = scene.stranger();
    stranger.send(b"GET / HTTP/1.1\r\n\r\n", Pace::WHOLE);
    let _ = stranger.receive(1);
    drop(stranger);
    scene.dc.wait_until("every session's end", |s| s.len() == 41 && s.iter().all(|s| s.closed));
    assert_eq!(settled_descriptors(&scene), settled);
}
