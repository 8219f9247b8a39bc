//! `mtproxy top` beside a proxy over AF_XDP.

use std::process::Command;

use mtproxy_tests::cast::Mode;
use mtproxy_tests::proxy_process::binary;
use mtproxy_tests::test_client::TestClient;

use crate::afxdp_scene::{AfxdpScene, Setting};

/// The screen, of the only proxy of its namespace.
fn screen(scene: &AfxdpScene) -> String {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", scene.lab.proxy.name()]).arg(binary()).args(["top", "--once"]);
    let output = command.output().expect("ip runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The cells of the row that begins with these.
fn row<'a>(screen: &'a str, beginning: &[&str]) -> Vec<&'a str> {
    let rows = screen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter()
        .find(|cells| cells.starts_with(beginning))
        .unwrap_or_else(|| panic!("{beginning:?} in\n{screen}"))
}

#[test]
fn top_shows_each_queue_with_its_mode_packets_connections_and_frames() {
    let Some(scene) = Setting::queues(2).start() else { return };
    let mut clients: Vec<TestClient> = (0..24).map(|i| scene.client(Mode::ALL[i % 4], false)).collect();
    clients.iter_mut().for_each(TestClient::ask_for_pq);
    let screen = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            for _ in 0..3 {
                clients.iter_mut().for_each(|client| client.download(200_000));
            }
        });
        let screen = screen(&scene);
        busy.join().expect("clients get what they ask for");
        screen
    });
    assert!(screen.contains("AF_XDP serves 2 queues; never lost"), "{screen}");
    for queue in ["0", "1"] {
        let cells = row(&screen, &[queue, "copy"]);
        // queue, mode, packets, bytes, connections by state, resent, dropped, busy turns, wake-ups
        assert!(cells[2] != "0" && cells[3] != "0" && cells[4] != "0" && cells[5] != "0", "{screen}");
        let open: u64 = cells[6].parse().expect("fewer than ten thousand");
        assert!((1..=48).contains(&open), "{screen}");
        let frames: Vec<&str> = screen.lines().skip_while(|line| !line.contains("fill ring")).collect();
        let frames = row(&frames.join("\n"), &[queue]).join(" ");
        assert!(frames.contains("2048"), "{frames}");
    }
    assert!(row(&screen, &["shard-0"]).len() == 8 && row(&screen, &["worker-0"]).len() == 8, "{screen}");
    assert!(screen.contains("\nredirected"), "{screen}");
    drop(clients);
    scene.finish();
}
