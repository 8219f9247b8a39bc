//! Peers that are Linux kernels with their default offloads, on a veth that has no hardware to offload to.

use mtproxy_tests::cast::Mode;
use mtproxy_tests::veth_pair::Offloads;
use mtproxy_tests::{Lab3Options, Socket};
use std::net::TcpStream;
use std::time::Duration;

use crate::afxdp_scene::{AfxdpScene, Bound, Setting};

fn kernel_offloads(bound: Bound) -> Setting {
    let lab = Lab3Options {
        offloads: Offloads::Kernel,
        proxy_offloads: Offloads::Kernel,
        ..Lab3Options::default()
    };
    Setting { lab, ..Setting::bound(bound) }
}

fn warnings<'a>(said: &'a [String], what: &str) -> Vec<&'a String> {
    said.iter().filter(|line| line.contains("WARN") && line.contains(what)).collect()
}

/// A connection that may not come about.
fn try_connect(scene: &AfxdpScene, timeout: Duration) -> Option<Socket> {
    let address = scene.address(false);
    let stream = scene.lab.client.enter(|| TcpStream::connect_timeout(&address, timeout)).ok()?;
    Socket::from_stream(stream).ok()
}

/// The driver's program keeps the peer from leaving segmentation to it (`veth_xdp_set`); checksums are ours to
/// bear with.
#[test]
fn kernels_with_their_default_offloads_are_served_where_partial_checksums_are_trusted() {
    let trusting = |command: mtproxy_tests::ProxyCommand| command.flag("--trust-partial-checksums");
    let Some(scene) = kernel_offloads(Bound::Copy).start_with(trusting) else { return };
    for mode in Mode::ALL {
        for v6 in [false, true] {
            let mut client = scene.client(mode, v6);
            client.ask_for_pq();
            client.download(2 << 20);
        }
    }
    assert_eq!(scene.sample("mtproxy_tcp_dropped_total{reason=\"partial_tcp_checksum\"}"), 0);
    scene.finish();
}

#[test]
fn partial_checksums_that_are_not_trusted_are_counted_and_explained_once() {
    for bound in Bound::ALL {
        let Some(scene) = kernel_offloads(bound).start() else { return };
        assert!(try_connect(&scene, Duration::from_millis(300)).is_none());
        scene.wait_for_sample("mtproxy_tcp_dropped_total{reason=\"partial_tcp_checksum\"}", 1);
        let _ = scene.proxy.wait_for_line("advice", |line| line.contains("TCP checksum"));
        // The watch looks every second: twice more it finds the same, and says nothing.
        assert!(try_connect(&scene, Duration::from_millis(2300)).is_none());
        let said = scene.proxy.stderr();
        let warned = warnings(&said, "TCP checksum");
        assert_eq!(warned.len(), 1, "{said:#?}");
        assert!(
            warned[0].contains("ethtool -K IF tx off") && warned[0].contains("xdp.trust_partial_checksums")
        );
        scene.finish();
    }
}

/// With trusted checksums a handshake comes about; what the sender leaves to segmentation does not fit a frame.
#[test]
fn segments_larger_than_a_frame_are_explained_once_in_generic_mode() {
    let trusting = |command: mtproxy_tests::ProxyCommand| command.flag("--trust-partial-checksums");
    let Some(scene) = kernel_offloads(Bound::Generic).start_with(trusting) else { return };
    let mut client = scene.client(Mode::Dd, false);
    client.ask_for_pq();
    client.send_command(&mtproxy_tests::Command::Bulk { len: 1 << 20 });
    scene.wait_for_sample("mtproxy_xdp_kernel_total{event=\"rx_dropped\"}", 1);
    let _ = scene.proxy.wait_for_line("advice", |line| line.contains("larger than a packet buffer"));
    drop(client);
    scene.lab.client.run("sleep 2.2").expect("sleep");
    let said = scene.proxy.stderr();
    assert_eq!(warnings(&said, "larger than a packet buffer").len(), 1, "{said:#?}");
    scene.finish();
}
