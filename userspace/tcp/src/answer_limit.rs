//! How many answers a stack gives to segments that may be forged: challenge acknowledgements and resets.
//!
//! A fixed global limit is a side channel: who exhausts it learns, by counting what is left, whether another
//! connection was answered (CVE-2016-5696). So the limit of each second is drawn anew, between half of the
//! configured number and one and a half of it, as Linux does.

use std::net::{Ipv4Addr, SocketAddr};

use crate::secrets::Secrets;
use crate::tcb::millis;
use crate::time::Instant;

/// One connection gets one answer in this time: Linux's `tcp_invalid_ratelimit`.
pub(crate) const PER_CONNECTION_MS: u32 = 500;

/// What is left of this second's answers.
#[derive(Debug)]
pub(crate) struct AnswerLimit {
    per_second: u32,
    second: u64,
    left: u32,
}

impl AnswerLimit {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, second: u64::MAX, left: 0 }
    }

    /// Takes one answer of this second's, if there is one.
    pub(crate) fn take(&mut self, now: Instant, secrets: &Secrets) -> bool {
        let second = now.as_micros() / 1_000_000;
        if second != self.second {
            self.second = second;
            self.left = self.per_second / 2 + draw(second, secrets) % self.per_second.max(1);
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

/// A number that nobody can foretell who does not know the secrets.
fn draw(second: u64, secrets: &Secrets) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "any mixing of the second into the tuple will do")]
    let (low, high) = (second as u32, (second >> 16) as u16);
    let no_host = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    secrets.timestamp_offset(no_host, SocketAddr::from((Ipv4Addr::from(low), high)))
}

/// True if a connection that was answered at `last_ms` may be answered again; notes that it was.
pub(crate) fn connection_may_answer(last_ms: &mut u32, now: Instant) -> bool {
    let now = millis(now);
    if now.wrapping_sub(*last_ms) < PER_CONNECTION_MS {
        return false;
    }
    *last_ms = now;
    true
}
