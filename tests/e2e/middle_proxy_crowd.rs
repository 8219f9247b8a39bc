//! Ten thousand clients over four links: everybody is served, in order, whatever one of them does and whatever becomes of
//! a link.

use std::time::{Duration, Instant};

use mtproxy_core::secret::SecretKind;
use mtproxy_tests::cast::Mode;
use mtproxy_tests::middle_proxy_files::PROXY_SECRET;
use mtproxy_tests::{
    Command, FakeMiddleProxy, MiddleProxyFiles, MiddleProxyOptions, PATIENCE, ProxyCommand, TestClient,
};

use crate::scene::secret;

const CLIENTS: usize = 10_000;
const LINKS: u16 = 4;
/// Packets of each client that are on their way at a time.
const IN_FLIGHT: u8 = 3;

fn echo(client: usize, number: u8) -> Command {
    Command::Echo([&client.to_le_bytes()[..], &[number]].concat())
}

/// Every client asks for a few echoes, and then every client reads them: in order, and its own.
fn everybody_exchanges(clients: &mut [(usize, TestClient)]) {
    for (name, client) in clients.iter_mut() {
        for number in 0..IN_FLIGHT {
            client.send_command(&echo(*name, number));
        }
    }
    for (name, client) in clients.iter_mut() {
        for number in 0..IN_FLIGHT {
            assert_eq!(Command::parse(&client.receive_body()), Some(echo(*name, number)), "client {name}");
        }
    }
}

/// The median time of an echo of some of the clients, one after the other.
fn median_echo(clients: &mut [(usize, TestClient)]) -> Duration {
    let mut times: Vec<Duration> = Vec::new();
    for (name, client) in clients.iter_mut().step_by(40) {
        let begun = Instant::now();
        client.send_command(&echo(*name, 9));
        assert_eq!(Command::parse(&client.receive_body()), Some(echo(*name, 9)));
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn ten_thousand_clients_share_four_links() {
    let options = MiddleProxyOptions { recorded_requests_max: 0, ..MiddleProxyOptions::new(&PROXY_SECRET) };
    let middle_proxy = FakeMiddleProxy::start(options);
    let files = MiddleProxyFiles::new(&[middle_proxy.address()], LINKS);
    // Half as many are the default where descriptors are few: a client that goes direct needs two.
    let config = format!("[limits]\nconnections = {}\n", CLIENTS + 100);
    let command =
        ProxyCommand::new().secret(&secret(SecretKind::Plain)).option("--workers", "1").config(&config);
    let proxy = files.told_to(command).start();
    let links = middle_proxy.wait_for_links(LINKS.into());
    let mut clients: Vec<(usize, TestClient)> = (0..CLIENTS)
        .map(|name| (name, TestClient::connect(proxy.address(), Mode::Intermediate.options())))
        .collect();
    everybody_exchanges(&mut clients);
    everybody_exchanges(&mut clients);
    for link in middle_proxy.counters() {
        let share = link.connections_open as usize;
        assert!((CLIENTS / 8..CLIENTS / 2).contains(&share), "{share} clients on one of {LINKS} links");
    }

    let alone = median_echo(&mut clients);
    let (bulk_name, mut bulk) = clients.pop().expect("there are thousands");
    let uploads = std::thread::spawn(move || {
        for part in 0..200 {
            bulk.send_command(&Command::Sink(vec![part; 500_000]));
        }
        bulk.send_command(&Command::Digest);
        let _ = bulk.receive_body();
        bulk
    });
    let beside_bulk = median_echo(&mut clients);
    let bulk = uploads.join().expect("the bulk client gets its answer");
    println!("median echo: {alone:?} alone, {beside_bulk:?} beside a client that uploads 100 MB");
    clients.push((bulk_name, bulk));

    // Everybody has a request on its way when a link is killed: its clients are closed, and nobody else.
    for (name, client) in &mut clients {
        client.send_command(&echo(*name, 0));
    }
    let victims = middle_proxy.counters()[links[0]].connections_open;
    middle_proxy.reset_link(links[0]);
    let mut unanswered = 0;
    for (name, client) in &mut clients {
        match client.try_receive_body() {
            Some(body) => assert_eq!(Command::parse(&body), Some(echo(*name, 0)), "client {name}"),
            None => unanswered += 1,
        }
    }
    println!("{victims} clients on the killed link, {unanswered} of them without their answer");
    assert!(unanswered <= victims, "{unanswered} without an answer, and {victims} went by the link");
    // Whoever has spoken in the last 15 seconds may have lost something, and is closed: all of the link's.
    let deadline = Instant::now() + PATIENCE;
    while clients.len() > CLIENTS - victims as usize {
        assert!(Instant::now() < deadline, "{} clients are left", clients.len());
        clients.retain_mut(|(_, client)| !client.hears_within(Duration::ZERO));
    }
    everybody_exchanges(&mut clients);
    assert!(middle_proxy.sessions().iter().all(|link| link.report.fault.is_none()));
}
