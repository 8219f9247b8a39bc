//! The scenes as configuration: of an engine, and of the program.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mtproxy_core::config::{Config, Front, Fronts, RELAY_WINDOW_BYTES_DEFAULT, Timeouts};
use mtproxy_core::credentials::Credentials;
use mtproxy_core::dc::{DcTable, PreferIp};
use mtproxy_core::engine::Engine;
use mtproxy_core::keyed_hash::KeyedHash;
use mtproxy_core::policy::replay::{ENTRIES_DEFAULT, ReplayCache};
use mtproxy_core::random::Random;
use mtproxy_core::secret::SecretKind;
use mtproxy_core::time::{Instant, Now, UnixSeconds};
use mtproxy_tests::Lab3;
use mtproxy_tests::cast::{DOMAIN, secret};

use crate::script::{DC_AFTER_REFUSAL, DC_REFUSING, DC_V4, DC_V6, Scene};
use crate::stage::Upstream;

/// Where clients find the proxy.
pub(crate) fn proxy_address(is_v6: bool) -> SocketAddr {
    SocketAddr::new(Lab3::proxy_ip(is_v6), 443)
}

/// Where clients come from.
pub(crate) fn client_address(is_v6: bool, port: u16) -> SocketAddr {
    if is_v6 {
        SocketAddr::new("fd77:0:0:1::2".parse().expect("an address"), port)
    } else {
        SocketAddr::new(Ipv4Addr::new(10, 77, 1, 2).into(), port)
    }
}

/// Where servers listen, and who answers there.
pub(crate) fn servers() -> [(Upstream, SocketAddr); 3] {
    [
        (Upstream::Dc, SocketAddr::new(Lab3::dc_ip(false), 4430)),
        (Upstream::Dc, SocketAddr::new(Lab3::dc_ip(true), 4430)),
        (Upstream::Front, SocketAddr::new(Lab3::dc_ip(false), 4431)),
    ]
}

/// Where nobody listens.
pub(crate) fn refusing_address() -> SocketAddr {
    SocketAddr::new(Lab3::dc_ip(false), 4432)
}

/// Every data centre's addresses, in the order tried.
pub(crate) fn data_centres() -> Vec<(i16, Vec<SocketAddr>)> {
    let [(_, v4), (_, v6), _] = servers();
    vec![
        (DC_V4.0, vec![v4]),
        (DC_AFTER_REFUSAL.0, vec![refusing_address(), v4]),
        (DC_V6.0, vec![v6]),
        (DC_REFUSING.0, vec![refusing_address()]),
    ]
}

pub(crate) fn front_address() -> SocketAddr {
    servers()[2].1
}

/// Timeouts of a scene in seconds: first byte, handshake, idle, linger.
pub(crate) fn timeouts(scene: Scene) -> [u64; 4] {
    match scene {
        Scene::Fronted | Scene::Frontless => [10, 10, 300, 1],
        Scene::Hasty => [1, 2, 2, 1],
    }
}

/// An engine for the scene.
pub(crate) fn engine(scene: Scene) -> Engine {
    let mut dc_table = DcTable::builtin(PreferIp::V4);
    for (id, addresses) in data_centres() {
        dc_table.set(mtproxy_core::dc::DcId(id), addresses);
    }
    let front = Front {
        domain: DOMAIN.parse().expect("a domain"),
        addresses: vec![front_address()],
        flight_len: 2000,
    };
    let fronts = if scene == Scene::Frontless { Fronts::default() } else { Fronts::new([front]) };
    let [first_byte, handshake, idle, linger] = timeouts(scene).map(Duration::from_secs);
    let config = Config {
        credentials: Credentials::new([("everybody".to_owned(), secret(SecretKind::Plain))]),
        fronts,
        dc_table,
        middle_proxies: None,
        timeouts: Timeouts { first_byte, handshake, idle, linger, ..Timeouts::default() },
        relay_window_bytes: RELAY_WINDOW_BYTES_DEFAULT,
    };
    let mut random = Random::from_seed([9; 32]);
    let admission = Box::new(ReplayCache::new(ENTRIES_DEFAULT, KeyedHash::new(&mut random)));
    Engine::new(config.into(), random.bytes(), admission)
}

/// The engine's clock, when virtual time stands at `elapsed`.
pub(crate) fn now(elapsed: Duration, unix_seconds: u32) -> Now {
    let unix = UnixSeconds(u64::from(unix_seconds) + elapsed.as_secs());
    Now { instant: Instant::after_origin(elapsed), unix }
}
