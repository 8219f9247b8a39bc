//! Where scripts are performed: a proxy, a network around it, a clock.

use std::time::Duration;

use crate::script::Scene;

/// Whom the proxy has dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    Dc,
    Front,
}

/// What one read gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes(Vec<u8>),
    Fin,
    Rst,
    Nothing,
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// So many bytes are taken.
    Took(usize),
    /// The connection is broken.
    Broken,
}

/// Bytes of one read.
pub(crate) const READ_MAX: usize = 64 * 1024;

/// Peers' connections by index, in the order in which they came about.
pub(crate) trait Stage {
    /// A stage for the scene.
    fn set(scene: Scene, unix_seconds: u32) -> Self
    where
        Self: Sized;

    /// A client's connection to the proxy.
    fn connect(&mut self, is_v6: bool) -> usize;

    /// The next connection that the proxy has dialled.
    fn accept(&mut self) -> Option<(Upstream, usize)>;

    fn send(&mut self, connection: usize, bytes: &[u8]) -> Sent;

    /// Reads what is there. After FIN it still tells of RST.
    fn receive(&mut self, connection: usize) -> Received;

    fn finish(&mut self, connection: usize);

    fn reset(&mut self, connection: usize);

    /// The peer is gone, as when its program ends.
    fn let_go(&mut self, connection: usize);

    /// Lets everything happen that can. If `is_waiting`, nobody has anything to do, and a moment passes.
    fn pass(&mut self, is_waiting: bool);

    /// Since the stage was set.
    fn elapsed(&self) -> Duration;

    /// Checks that what has been performed went the way that the stage is about.
    fn check_way(&self) {}
}
