//! A client library that we did not write, through the proxy: Telethon, from PyPI.
//!
//! `make interop` makes the Python environment that the variable `MTPROXY_INTEROP_PYTHON` names, and runs
//! this with `--ignored`. See telethon_client.py for what is said on each connection.

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mtproxy_core::dc::DcId;
use mtproxy_core::secret::SecretKind;
use mtproxy_core::transport::Transport;
use mtproxy_tests::lab3::PROXY_INTERFACE;
use mtproxy_tests::metrics_page::wait_for_sample;
use mtproxy_tests::middle_proxy_files::{PROXY_SECRET, PROXY_TAG};
use mtproxy_tests::{
    DcMode, FakeDc, FakeMiddleProxy, Lab3, Lab3Options, MiddleProxyFiles, MiddleProxyOptions, NamespaceScene,
    ProxyCommand, cast,
};

/// Telethon pauses for two seconds per connection, and all connections run at once.
const PATIENCE: Duration = Duration::from_secs(120);
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

#[test]
#[ignore = "needs Telethon, which `make interop` installs"]
fn telethon_gets_its_res_pq_over_each_of_its_mtproxy_connections() {
    let dc = FakeDc::start(DcMode::Packets);
    let proxy = ProxyCommand::new()
        .secret(&cast::secret(SecretKind::Plain))
        .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .listen(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)))
        .dc(2, dc.address())
        .start();
    converse(&[], proxy.addresses(), &dc);
}

#[test]
#[ignore = "needs Telethon, which `make interop` installs, and root"]
fn telethon_gets_its_res_pq_over_af_xdp_in_copy_mode() {
    converse_over_af_xdp("copy");
}

#[test]
#[ignore = "needs Telethon, which `make interop` installs, and root"]
fn telethon_gets_its_res_pq_over_af_xdp_in_generic_mode() {
    converse_over_af_xdp("generic");
}

/// On hosts of their own; without root it says that it skips.
fn converse_over_af_xdp(mode: &str) {
    let Some(lab) = Lab3::or_skip(Lab3Options::default()) else { return };
    let scene = NamespaceScene::start(lab, DcMode::Packets, false, |command| {
        command
            .option("--datapath", "xdp")
            .option("--interface", PROXY_INTERFACE)
            .option("--xdp-mode", mode)
            .option("--metrics", &METRICS.to_string())
    });
    converse(&scene.lab.client.command_prefix(), scene.proxy.addresses(), &scene.dc);
    let steered = "mtproxy_steering_total{exit=\"redirected_syn\"}";
    scene.lab.proxy.enter(|| wait_for_sample(METRICS, steered, scene.dc.accepted(), PATIENCE));
}

#[test]
#[ignore = "needs Telethon, which `make interop` installs"]
fn telethon_gets_its_res_pq_through_a_middle_proxy_with_and_without_a_proxy_tag() {
    for tag in [None, Some(PROXY_TAG)] {
        let middle_proxy = FakeMiddleProxy::start(MiddleProxyOptions::new(&PROXY_SECRET));
        let files = MiddleProxyFiles::new(&[middle_proxy.address()], 2);
        let command = ProxyCommand::new()
            .secret(&cast::secret(SecretKind::Plain))
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .listen(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
        let proxy = tagged(files.told_to(command), tag).start();
        speak(&[], proxy.addresses());
        assert_carried(&middle_proxy, tag);
    }
}

#[test]
#[ignore = "needs Telethon, which `make interop` installs, and root"]
fn telethon_gets_its_res_pq_through_a_middle_proxy_over_af_xdp() {
    for tag in [None, Some(PROXY_TAG)] {
        let Some(lab) = Lab3::or_skip(Lab3Options::default()) else { return };
        let at = SocketAddr::new(Lab3::dc_ip(false), 0);
        let options = MiddleProxyOptions::new(&PROXY_SECRET);
        let middle_proxy = lab.dc.enter(|| FakeMiddleProxy::start_on(at, options));
        let files = MiddleProxyFiles::new(&[middle_proxy.address()], 2);
        let scene = NamespaceScene::start(lab, DcMode::Packets, false, |command| {
            tagged(files.told_to(command), tag)
                .option("--datapath", "xdp")
                .option("--interface", PROXY_INTERFACE)
                .option("--xdp-mode", "copy")
                .option("--metrics", &METRICS.to_string())
        });
        speak(&scene.lab.client.command_prefix(), scene.proxy.addresses());
        assert_carried(&middle_proxy, tag);
        let steered = "mtproxy_steering_total{exit=\"redirected_syn\"}";
        scene.lab.proxy.enter(|| wait_for_sample(METRICS, steered, CONNECTIONS, PATIENCE));
    }
}

/// What the script opens: three classes and both families of the plain secret, one class of the padded one; each in two
/// variants of the data centre.
const CONNECTIONS: u64 = 2 * 2 * (3 + 1);

fn tagged(command: ProxyCommand, tag: Option<&str>) -> ProxyCommand {
    match tag {
        Some(tag) => command.option("--proxy-tag", tag),
        None => command,
    }
}

/// Every connection of the script reached the middle proxy, with the tag if there is one, and nothing was wrong.
#[track_caller]
fn assert_carried(middle_proxy: &FakeMiddleProxy, tag: Option<&str>) {
    let counters = middle_proxy.counters();
    let connections: u64 = counters.iter().map(|link| link.connections_opened).sum();
    assert_eq!(connections, CONNECTIONS);
    assert!(middle_proxy.requests().iter().all(|request| request.proxy_tag.is_some() == tag.is_some()));
    assert!(middle_proxy.sessions().iter().all(|link| link.report.fault.is_none()));
}

/// Has the script speak with the proxy, and checks what the data centre saw.
#[track_caller]
fn converse(prefix: &[String], proxy: &[SocketAddr], dc: &FakeDc) {
    speak(prefix, proxy);
    let sessions = dc.sessions();
    let count = |transport, id| {
        sessions.iter().filter(|session| session.report.init == Some((DcId(id), transport))).count()
    };
    for id in [2, -2] {
        // Two families; the padded transport with both forms of the secret.
        assert_eq!(count(Transport::Abridged, id), 2, "{sessions:?}");
        assert_eq!(count(Transport::Intermediate, id), 2, "{sessions:?}");
        assert_eq!(count(Transport::PaddedIntermediate, id), 4, "{sessions:?}");
    }
}

/// Has the script speak with the proxy from wherever `prefix` puts it.
#[track_caller]
fn speak(prefix: &[String], proxy: &[SocketAddr]) {
    let python = std::env::var("MTPROXY_INTEROP_PYTHON")
        .expect("MTPROXY_INTEROP_PYTHON names a Python with Telethon; `make interop` makes one");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/telethon_client.py");
    let plain = cast::secret(SecretKind::Plain).reveal();
    let dd = format!("dd{plain}");
    let words = [prefix, &[python]].concat();
    let mut client = Command::new(&words[0])
        .args(&words[1..])
        .arg(script)
        .args(proxy.iter().map(SocketAddr::to_string))
        .args(["--", &plain, &dd])
        .stdin(Stdio::null())
        .spawn()
        .expect("the Python that `make interop` made can be started");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = client.try_wait().expect("the script is a child of ours") {
            break status;
        }
        if Instant::now() > deadline {
            // It is gone already, or ends now.
            let _ = client.kill();
            let _ = client.wait();
            panic!("awaiting the end of the Telethon script for {PATIENCE:?} in vain");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "Telethon's lines above say what failed ({status})");
}
