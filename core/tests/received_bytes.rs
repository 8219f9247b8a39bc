//! The engine's count of bytes: what an operator sees of traffic while sessions are still open.

mod driver;

use driver::scene::Scene;
use driver::{FRONT_DOMAIN, World};
use driver::{fake_tls, plain};
use mtproxy_core::stream::Leg;

fn received(world: &World) -> (u64, u64) {
    (world.engine.received_bytes(Leg::Client), world.engine.received_bytes(Leg::Upstream))
}

#[test]
fn bytes_are_counted_when_they_come_not_when_their_session_ends() {
    let mut scene = Scene::relaying(plain());
    let (from_client, from_upstream) = received(&scene.world);
    assert!(from_client >= 64 && from_upstream == 0, "an init frame: {from_client}, {from_upstream}");
    scene.client_says(&[1; 1000]);
    scene.upstream_says(&[2; 300]);
    assert_eq!(received(&scene.world), (from_client + 1000, 300));
    scene.world.pass_on(scene.upstream(), &[3; 50]);
    assert_eq!(received(&scene.world), (from_client + 1000, 350));
    scene.world.stop();
    assert_eq!(received(&scene.world), (from_client + 1000, 350));
}

#[test]
fn a_strangers_bytes_and_the_framing_of_fake_tls_count_too() {
    let mut stranger = Scene::fronting();
    let before = received(&stranger.world);
    stranger.client_says(&[1; 10]);
    stranger.upstream_says(&[1; 20]);
    assert_eq!(received(&stranger.world), (before.0 + 10, before.1 + 20));

    let mut member = Scene::relaying(fake_tls(FRONT_DOMAIN));
    let before = received(&member.world);
    member.client_says(&[1; 10]);
    assert_eq!(received(&member.world), (before.0 + 15, before.1), "a record header of 5 bytes");
}
