//! What the pieces of core cost, one at a time: `make bench-micro`.
//!
//! No sockets, no kernel: what is measured here is what is left of a relay when reading and writing
//! cost nothing.

mod cbc;
mod cipher;
mod handshake;
mod relay;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// Short, as there are many: enough to see a change of a few percent on a quiet machine.
fn short_runs() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .without_plots()
}

criterion_group! {
    name = micro;
    config = short_runs();
    targets = cipher::bench, cbc::bench, handshake::bench_search, handshake::bench_whole, relay::bench
}
criterion_main!(micro);
