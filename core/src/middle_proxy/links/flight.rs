//! The end of a turn: what links have gathered is encrypted, several chains side by side, and written.
//!
//! A chain of CBC is one long dependency: the CPU waits for each block. Several chains have none between them, so that
//! their blocks overlap (docs/benchmarks.md has what that wins).

use super::Links;
use crate::action::Actions;
use crate::middle_proxy::cbc::{CbcEncryptor, encrypt_interleaved};
use crate::middle_proxy::link::Link;
use crate::stream::Streams;

/// Chains encrypted side by side; more do not overlap any better.
const CHAINS: usize = 8;

impl Links {
    /// Writes everything that is gathered.
    pub(crate) fn flush(&mut self, streams: &mut Streams, actions: &mut Actions) {
        let mut links = self.table.values_mut().filter(|link| !link.outbox.is_empty() && !link.is_dialing());
        loop {
            let mut batch: [Option<&mut Link>; CHAINS] = std::array::from_fn(|_| links.next());
            if batch[0].is_none() {
                return;
            }
            encrypt(&mut batch);
            for link in batch.into_iter().flatten() {
                let sealed = link.outbox.sealed();
                let len = actions.write_with(link.stream, |out| out.extend_from_slice(sealed));
                streams.add_backlog(link.stream, len);
                link.outbox.clear();
            }
        }
    }
}

fn encrypt(batch: &mut [Option<&mut Link>; CHAINS]) {
    let mut chains: [Option<(&mut CbcEncryptor, &mut [u8])>; CHAINS] = [const { None }; CHAINS];
    for (chain, link) in chains.iter_mut().zip(batch.iter_mut().flatten()) {
        if let (Some(cipher), pending) = link.outbox.seal() {
            *chain = Some((cipher, pending));
        }
    }
    encrypt_interleaved(&mut chains);
}
