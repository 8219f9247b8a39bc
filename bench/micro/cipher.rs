//! AES-256-CTR as the relay uses it: a schedule expanded for each message, then one pass over it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use mtproxy_core::aes_ctr::AesCtr;

/// A small message, a segment, a large TLS record.
const LENS: [usize; 3] = [128, 1400, 16 * 1024];

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aes_ctr resume and apply");
    for len in LENS {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            let mut stream = AesCtr::new([7; 32], [9; 16]);
            // Not at a block's boundary, as in a real stream.
            stream.skip(13);
            let mut bytes = vec![0; len];
            bencher.iter(|| stream.apply(black_box(&mut bytes)));
        });
    }
    group.finish();
}
