//! Clients through middle proxies over AF_XDP: links are streams like any other, so this is the same engine over frames.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mtproxy_tests::cast::Mode;
use mtproxy_tests::lab3::PROXY_INTERFACE;
use mtproxy_tests::middle_proxy_files::{PROXY_SECRET, PROXY_TAG};
use mtproxy_tests::{
    DcMode, FakeMiddleProxy, Lab3, Lab3Options, MiddleProxyFiles, MiddleProxyOptions, NamespaceScene,
    PATIENCE, metrics_page,
};
use rustix::process::Signal;

use crate::afxdp_scene::Bound;

const MIB: u64 = 1 << 20;
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// A proxy over AF_XDP and a middle proxy on another host.
struct Scene {
    scene: NamespaceScene,
    middle_proxy: FakeMiddleProxy,
    _files: MiddleProxyFiles,
}

impl Scene {
    /// `None` without root, which is said.
    fn start(bound: Bound, v6: bool) -> Option<Self> {
        let lab = Lab3::or_skip(Lab3Options::default())?;
        let at = SocketAddr::new(Lab3::dc_ip(v6), 0);
        let options = MiddleProxyOptions::new(&PROXY_SECRET);
        let middle_proxy = lab.dc.enter(|| FakeMiddleProxy::start_on(at, options));
        let files = MiddleProxyFiles::new(&[middle_proxy.address()], 2);
        let scene = NamespaceScene::start(lab, DcMode::Packets, v6, |command| {
            files
                .told_to(command)
                .option("--proxy-tag", PROXY_TAG)
                .option("--workers", "1")
                .option("--datapath", "xdp")
                .option("--interface", PROXY_INTERFACE)
                .option("--xdp-mode", bound.name())
                .option("--metrics", &METRICS.to_string())
        });
        Some(Self { scene, middle_proxy, _files: files })
    }

    /// A shard shows its counts with its beats, a little later.
    #[track_caller]
    fn wait_for_sample(&self, name: &str, least: u64) {
        self.scene.lab.proxy.enter(|| metrics_page::wait_for_sample(METRICS, name, least, PATIENCE));
    }
}

#[test]
fn every_mode_is_carried_over_frames_in_both_families() {
    for bound in Bound::ALL {
        for v6 in [false, true] {
            let Some(mut scene) = Scene::start(bound, v6) else { return };
            scene.scene.lab.proxy.enter(|| {
                let shards_and_workers = "mtproxy_middle_proxy_targets{state=\"ready\"}";
                metrics_page::wait_for_sample(METRICS, shards_and_workers, 2, PATIENCE);
                // A shard shows its frames behind its first beat; before it, clients are the kernel's.
                metrics_page::wait_for_sample(METRICS, "mtproxy_xdp_frames{state=\"fill\"}", 1, PATIENCE);
            });
            for mode in Mode::ALL {
                let mut client = scene.scene.client(mode, v6);
                client.ask_for_pq();
                client.exchange_confirmed_echo(b"over frames");
                client.download(2 * MIB + 1);
            }
            let requests = scene.middle_proxy.requests();
            assert!(
                requests.iter().all(|request| request.proxy_tag.is_some() && request.client.is_ipv6() == v6)
            );
            let links = scene.middle_proxy.sessions();
            assert!(links.iter().all(|link| link.report.fault.is_none()), "{links:?}");
            scene.wait_for_sample("mtproxy_xdp_bytes_total{direction=\"received\"}", 3 * 2 * MIB);
            scene.scene.proxy.signal(Signal::TERM);
            assert!(scene.scene.proxy.wait_for_exit(PATIENCE).success());
        }
    }
}
