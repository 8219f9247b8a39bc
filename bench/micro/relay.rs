//! What the engine adds to one message between two sockets.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use mtproxy_core::engine::Input;
use mtproxy_tests::tls_record::{CLIENT_BODY_LEN_MAX, write_records};

use mtproxy_bench::rig::{Mode, Rig, Streams, client, inner_init_frame, now};

/// A small message, and what a large read brings.
const LENS: [usize; 2] = [128, 16 * 1024];

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("relay");
    for (name, mode) in [("plain", Mode::Plain), ("ee", Mode::Ee(517))] {
        for len in LENS {
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::new(format!("{name}, to the data centre"), len), |bencher| {
                let mut rig = Rig::new(1);
                let streams = establish(&mut rig, mode);
                // The content does not matter to a stream cipher; the headers are left as they are.
                let mut wire = from_client(mode, len);
                bencher.iter(|| {
                    rig.input(Input::Bytes(streams.client, black_box(&mut wire)));
                    let sent = rig.written_to(streams.upstream);
                    rig.engine.sent(now(), streams.upstream, sent, &mut rig.actions);
                    sent
                });
            });
            group.bench_function(BenchmarkId::new(format!("{name}, to the client"), len), |bencher| {
                let mut rig = Rig::new(1);
                let streams = establish(&mut rig, mode);
                let mut wire = vec![0; len];
                bencher.iter(|| {
                    rig.input(Input::Bytes(streams.upstream, black_box(&mut wire)));
                    let sent = rig.written_to(streams.client);
                    rig.engine.sent(now(), streams.client, sent, &mut rig.actions);
                    sent
                });
            });
        }
    }
    group.finish();
}

fn establish(rig: &mut Rig, mode: Mode) -> Streams {
    let mut opening = client(mode, 0, 1).opening();
    match mode {
        Mode::Plain | Mode::Dd => rig.establish(1, None, &mut opening),
        Mode::Ee(_) => rig.establish(1, Some(&mut opening), &mut inner_init_frame(0, 1)),
    }
}

fn from_client(mode: Mode, len: usize) -> Vec<u8> {
    let payload = vec![0; len];
    match mode {
        Mode::Plain | Mode::Dd => payload,
        Mode::Ee(_) => {
            let mut wire = Vec::new();
            write_records(&payload, CLIENT_BODY_LEN_MAX, &mut wire);
            wire
        }
    }
}
