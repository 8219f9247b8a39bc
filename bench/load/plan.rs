//! How long and how often is measured.

use std::time::Duration;

use mtproxy_bench::work::{Route, Work};
use serde::Serialize;

/// Enough for 40 Mbit/s at a round trip of 50 ms. Left to itself, loopback fills megabytes: then a relay
/// that was kept waiting copies from cold memory, and what is measured is how often it was interrupted.
const BULK_BUFFER: u32 = 256 * 1024;

/// The size of our proxy's own buffer.
const NGINX_BUFFER: &str = "64k";

/// The extent of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) works: Vec<Work>,
    pub(crate) routes: Vec<Route>,
    /// Turns that each route has at each work. The routes take turns one after the other, so that
    /// whatever else the machine does falls on all of them.
    pub(crate) rounds: usize,
    /// Length of one turn.
    #[serde(serialize_with = "as_seconds")]
    pub(crate) window: Duration,
    /// Work before the turn that does not count: ciphers, caches and socket buffers settle.
    #[serde(serialize_with = "as_seconds")]
    pub(crate) warm_up: Duration,
    /// Socket buffers at both ends of a bulk transfer; zero leaves them to the kernel.
    pub(crate) bulk_buffer: u32,
    /// A turn of bulk lasts until this many bytes have moved.
    pub(crate) bulk_bytes_min: u64,
    /// Clients that do nothing, for memory and wake-ups. Zero: this is not measured.
    pub(crate) idle_clients: usize,
    /// How long they do nothing.
    #[serde(serialize_with = "as_seconds")]
    pub(crate) idle_window: Duration,
    /// Threads of the proxy, worker processes of nginx.
    pub(crate) workers: usize,
    /// nginx's `proxy_buffer_size`.
    pub(crate) nginx_buffer: String,
}

impl Plan {
    /// For numbers: about five minutes.
    pub(crate) fn full(workers: usize) -> Self {
        Self {
            works: Work::ALL.to_vec(),
            routes: Route::ALL.to_vec(),
            rounds: 9,
            window: Duration::from_millis(800),
            warm_up: Duration::from_millis(150),
            bulk_buffer: BULK_BUFFER,
            bulk_bytes_min: 128 << 20,
            idle_clients: 5000,
            idle_window: Duration::from_secs(8),
            workers,
            nginx_buffer: NGINX_BUFFER.to_owned(),
        }
    }

    /// To see that everything still runs: half a minute.
    pub(crate) fn quick(workers: usize) -> Self {
        Self {
            works: Work::ALL.to_vec(),
            routes: Route::ALL.to_vec(),
            rounds: 2,
            window: Duration::from_millis(350),
            warm_up: Duration::from_millis(100),
            bulk_buffer: BULK_BUFFER,
            bulk_bytes_min: 16 << 20,
            idle_clients: 500,
            idle_window: Duration::from_secs(2),
            workers,
            nginx_buffer: NGINX_BUFFER.to_owned(),
        }
    }
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
