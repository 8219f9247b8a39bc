//! AES-256-CBC as links to middle proxies use it: chains encrypted side by side at the end of a turn, and one chain
//! decrypted where it lies.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use mtproxy_core::middle_proxy::cbc::{CbcDecryptor, CbcEncryptor, Chain, encrypt_interleaved};
use mtproxy_core::middle_proxy::key_derivation::CbcKey;

/// What a link may have gathered in a busy turn.
const LEN: usize = 16 * 1024;
/// Links of a worker that have something to say in the same turn.
const LINKS: [usize; 4] = [1, 2, 4, 8];

fn key(link: usize) -> CbcKey {
    CbcKey { key: [link.to_le_bytes()[0]; 32], iv: [9; 16] }
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aes_cbc encrypt, links side by side");
    for links in LINKS {
        group.throughput(Throughput::Bytes((links * LEN) as u64));
        group.bench_function(BenchmarkId::from_parameter(links), |bencher| {
            let mut ciphers: Vec<CbcEncryptor> =
                (0..links).map(|link| CbcEncryptor::new(&key(link))).collect();
            let mut texts = vec![vec![0; LEN]; links];
            bencher.iter(|| {
                let chains = ciphers.iter_mut().zip(texts.iter_mut().map(Vec::as_mut_slice));
                let mut chains: Vec<Option<Chain<'_>>> = chains.map(Some).collect();
                encrypt_interleaved(black_box(&mut chains));
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("aes_cbc decrypt, one link");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.bench_function(BenchmarkId::from_parameter(LEN), |bencher| {
        let mut cipher = CbcDecryptor::new(&key(0));
        let mut text = vec![0; LEN];
        bencher.iter(|| cipher.decrypt(black_box(&mut text)));
    });
    group.finish();
}
