//! What a handshake costs, by the number of secrets and by whether the hint about them is right.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion};
use mtproxy_core::credentials::SecretId;
use mtproxy_core::fake_tls::ClientHello;
use mtproxy_tests::client_hello::{HelloOptions, compose};

use mtproxy_bench::rig::{DOMAIN, Mode, Rig, client, credentials, inner_init_frame, key, random};

const SECRETS: [usize; 3] = [1, 100, 1000];
/// The classic hello, and one with a post-quantum key share.
const HELLO_LENS: [usize; 2] = [517, 1800];

/// Finding the secret that something was made under: always the last one, which is the worst case.
pub(crate) fn bench_search(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("search of an init frame's secret");
    for count in SECRETS {
        let credentials = credentials(count);
        let frame = client(Mode::Plain, count - 1, 1).opening();
        let frame = frame.first_chunk().expect("64 bytes");
        let hit = u32::try_from(count - 1).map(SecretId).ok();
        for (name, likely) in [("hint", hit), ("no hint", None)] {
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    credentials.authenticate_init_frame(black_box(frame), likely).expect("authentic")
                });
            });
        }
    }
    group.finish();
    for hello_len in HELLO_LENS {
        bench_hello(criterion, hello_len);
    }
}

fn bench_hello(criterion: &mut Criterion, hello_len: usize) {
    let mut group = criterion.benchmark_group(format!("hello of {hello_len} bytes"));
    let hello_of = |index| {
        let options = HelloOptions { record_len: hello_len, ..HelloOptions::new(DOMAIN, 1) };
        compose(&options, &key(index), &mut random(2)).wire
    };
    let wire = hello_of(0);
    group.bench_function("parse", |bencher| {
        bencher.iter(|| ClientHello::parse(black_box(&wire)).expect("well-formed").cipher_suite());
    });
    for count in SECRETS {
        let credentials = credentials(count);
        let wire = hello_of(count - 1);
        let hello = ClientHello::parse(&wire).expect("well-formed");
        let hit = u32::try_from(count - 1).map(SecretId).ok();
        for (name, likely) in [("search, hint", hit), ("search, no hint", None)] {
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher
                    .iter(|| credentials.authenticate_hello(black_box(&hello), likely).expect("authentic"));
            });
        }
    }
    group.finish();
}

/// The whole way through the engine, from accept to the end of the session.
pub(crate) fn bench_whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session from accept to reset");
    for count in SECRETS {
        for (name, mode) in [("plain", Mode::Plain), ("ee 517", Mode::Ee(517)), ("ee 1800", Mode::Ee(1800))] {
            // A client seen before, and one from a new address each time.
            for (hint, source_step) in [("hint", 0u32), ("no hint", 1)] {
                let mut rig = Rig::new(count);
                let mut serial = 0;
                let parameter = format!("{hint}/{count}");
                group.bench_function(BenchmarkId::new(name, parameter), |bencher| {
                    bencher.iter_batched(
                        || {
                            serial += 1;
                            flights(mode, count - 1, serial)
                        },
                        |mut flights| {
                            let source = flights.serial.wrapping_mul(source_step);
                            let hello = flights.hello.as_deref_mut();
                            let streams = rig.establish(source, hello, &mut flights.init);
                            rig.end(streams);
                            flights
                        },
                        BatchSize::SmallInput,
                    );
                });
            }
        }
    }
    group.finish();
}

/// What a client sends until it is established.
struct Flights {
    serial: u32,
    hello: Option<Vec<u8>>,
    init: Vec<u8>,
}

fn flights(mode: Mode, secret: usize, serial: u32) -> Flights {
    let mut codec = client(mode, secret, u64::from(serial));
    let opening = codec.opening();
    match mode {
        Mode::Plain | Mode::Dd => Flights { serial, hello: None, init: opening },
        Mode::Ee(_) => {
            let init = inner_init_frame(secret, u64::from(serial));
            Flights { serial, hello: Some(opening), init }
        }
    }
}
