//! Many clients on one link: nobody waits for long, nobody fills the memory.

use mtproxy_core::config::Config;
use mtproxy_core::error::DropReason;
use mtproxy_core::event::What;
use mtproxy_core::middle_proxy::settings::{MiddleProxies, MiddleProxyLimits};
use mtproxy_core::transport::Transport;
use mtproxy_tests::Command;

use super::driver::middle_proxies::{Lab, config_with, middle_proxies};
use super::driver::{Told, plain};

#[test]
fn a_small_packet_does_not_wait_behind_all_that_a_bulk_client_has_to_say() {
    let config = Config { relay_window_bytes: 1 << 20, ..config_with(middle_proxies(1)) };
    let mut lab = Lab::new(config);
    let bulk = lab.client(plain(), Transport::Intermediate);
    let small = lab.client(plain(), Transport::Intermediate);
    lab.exchanges(bulk, b"to choose a link");
    let link = lab.ready_links()[0];
    lab.world.stall(link);
    // Two megabytes: the link takes a quarter of one.
    for _ in 0..32 {
        lab.sends(bulk, &Command::Sink(vec![7; 64_000]).body(), false);
        while lab.world.is_due() {
            lab.world.time_out();
        }
    }
    lab.sends(small, &Command::Echo(b"me too".to_vec()).body(), false);
    let queued = lab.world.queued_len(link);
    assert!(queued < 400_000, "{queued} bytes are on their way, and the rest waits at the client");
    lab.world.unstall(link);
    lab.settle();
    let requests = &lab.link(link).report().requests;
    let of_small =
        requests.iter().position(|request| request.packet.len() < 1000 && request.packet.len() > 40);
    let position = of_small.expect("the small packet has come");
    assert!(position < 10, "it came as number {position} of {}", requests.len());
    assert_eq!(requests.len(), 1 + 32 + 1, "and all the others came, too");
}

#[test]
fn a_client_whose_packets_wait_is_not_read_beyond_its_window() {
    let config = Config { relay_window_bytes: 64 * 1024, ..config_with(middle_proxies(1)) };
    let mut lab = Lab::new(config);
    let client = lab.client(plain(), Transport::Intermediate);
    lab.exchanges(client, b"to choose a link");
    let (link, stream) = (lab.ready_links()[0], lab.clients[client].stream);
    lab.world.stall(link);
    let mut said = 0;
    while lab.world.engine.credit(stream) > 0 {
        lab.sends(client, &Command::Sink(vec![7; 16_000]).body(), false);
        while lab.world.is_due() {
            lab.world.time_out();
        }
        said += 1;
        assert!(said < 100, "never stopped");
    }
    lab.world.resumed.clear();
    lab.world.unstall(link);
    lab.settle();
    assert!(lab.world.resumed.contains(&stream) && lab.world.engine.credit(stream) > 0);
    assert_eq!(lab.link(link).report().counters.requests, 1 + said);
}

#[test]
fn a_client_that_does_not_take_its_answers_is_closed_and_the_others_notice_nothing() {
    let limits = MiddleProxyLimits { client_buffer_bytes: 300_000, ..MiddleProxyLimits::default() };
    let mut lab = Lab::new(config_with(MiddleProxies { limits, ..middle_proxies(1) }));
    let slow = lab.client(plain(), Transport::Intermediate);
    let other = lab.client(plain(), Transport::Intermediate);
    let stream = lab.clients[slow].stream;
    lab.world.stall(stream);
    lab.sends(slow, &Command::Bulk { len: 2_000_000 }.body(), false);
    lab.settle();
    assert_eq!(lab.world.told(stream), Told::Rst);
    let ended = lab.world.reported().filter_map(|what| match what {
        What::Ended { outcome, .. } => Some(outcome),
        _ => None,
    });
    assert_eq!(ended.collect::<Vec<_>>(), [Err(DropReason::SlowReader)]);
    lab.exchanges(other, b"still there");
    assert_eq!(lab.world.engine.buffered_bytes(), 0);
    let (link, name) = lab.link_of(slow);
    assert!(lab.link(link).report().closed.contains(&name), "the middle proxy was told");
}

#[test]
fn when_memory_is_short_those_who_were_quiet_longest_go_first() {
    let limits = MiddleProxyLimits { buffer_bytes: 1_000_000, ..MiddleProxyLimits::default() };
    let mut lab = Lab::new(config_with(MiddleProxies { limits, ..middle_proxies(1) }));
    let clients: Vec<usize> = (0..4).map(|_| lab.client(plain(), Transport::Intermediate)).collect();
    for &client in &clients {
        let stream = lab.clients[client].stream;
        lab.world.stall(stream);
        lab.sends(client, &Command::Bulk { len: 250_000 }.body(), false);
        lab.pass(std::time::Duration::from_secs(1));
    }
    let told: Vec<Told> = clients.iter().map(|&client| lab.world.told(lab.clients[client].stream)).collect();
    assert_eq!(told, [Told::Rst, Told::Nothing, Told::Nothing, Told::Nothing]);
    assert!(lab.world.has_ended_with(DropReason::MemoryPressure));
    assert!(lab.world.engine.buffered_bytes() <= 760_000);
}
