//! SYN cookies: a handshake that costs us no memory until the third segment (RFC 4987 section 3.6).
//!
//! ```text
//!   the SYN-ACK's sequence number     3 bits: index of the peer's MSS, masked by the hash
//!                                    29 bits: hash of tuple, IRS and tick
//!   the low bits of its TSval         window scale (4), SACK permitted (1), ECN (1)
//! ```
//! The tick is not sent: the two that may be meant are tried. A blind guess succeeds once in 2^28. The index
//! is not authenticated, because whoever received the cookie chose the MSS anyway.

use std::net::SocketAddr;

use crate::secrets::Secrets;
use crate::seq::SeqNumber;
use crate::time::Instant;

/// Length of a tick: a cookie holds for one to two of them.
const TICK_MICROS: u64 = 64_000_000;

const INDEX_SHIFT: u32 = 29;

/// The MSS values that a cookie can name; a peer's is rounded down. The first is the least that we use
/// (Linux: TCP_MIN_MSS); 536 is the default of IPv4 and 1220 of
/// IPv6; 1300 to 1460 are what tunnels, PPPoE and Ethernet leave.
const MSS: [u16; 8] = [88, 536, 1220, 1300, 1360, 1400, 1440, 1460];

impl Secrets {
    /// The sequence number to answer a SYN with, if nothing is to be remembered of it.
    #[must_use]
    pub fn cookie(
        &self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        irs: SeqNumber,
        mss: u16,
    ) -> SeqNumber {
        let index = MSS.iter().rposition(|known| *known <= mss).unwrap_or(0);
        let index = u32::try_from(index).expect("eight entries");
        let hash = self.cookie_hash(local, remote, irs, tick(now));
        SeqNumber(hash ^ (index << INDEX_SHIFT))
    }

    /// The MSS that the peer offered in its SYN, rounded down, if the segment that acknowledges `ack` and
    /// follows a SYN of sequence number `irs` completes a handshake that we answered with a cookie.
    #[must_use]
    pub fn check_cookie(
        &self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        irs: SeqNumber,
        ack: SeqNumber,
    ) -> Option<u16> {
        let cookie = ack.minus(1);
        let newest = tick(now);
        [Some(newest), newest.checked_sub(1)].into_iter().flatten().find_map(|tick| {
            let difference = self.cookie_hash(local, remote, irs, tick) ^ cookie.0;
            let is_ours = difference & ((1 << INDEX_SHIFT) - 1) == 0;
            let index = usize::try_from(difference >> INDEX_SHIFT).expect("three bits");
            is_ours.then_some(MSS[index])
        })
    }
}

fn tick(now: Instant) -> u64 {
    now.as_micros() / TICK_MICROS
}

/// The options of a SYN that a cookie's timestamp carries. Not authenticated: the peer may only lie about
/// itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CookieOptions {
    /// Shift of the peer's windows, at most 14.
    pub window_scale: Option<u8>,
    /// The peer understands SACK.
    pub sack_permitted: bool,
    /// The peer offered ECN.
    pub ecn: bool,
}

impl CookieOptions {
    const BITS: u32 = 6;
    const MASK: u32 = (1 << Self::BITS) - 1;
    const WINDOW_SCALE_MASK: u32 = 0b1111;
    /// Shifts end at 14.
    const NO_WINDOW_SCALE: u32 = 15;
    const SACK_PERMITTED: u32 = 1 << 4;
    const ECN: u32 = 1 << 5;

    /// A timestamp that carries the options: at most 64 ms before `tsval` and never after it, so that what is
    /// sent later is not older (RFC 7323 section 5.3).
    #[must_use]
    pub fn encode_into(self, tsval: u32) -> u32 {
        let scale = self.window_scale.map_or(Self::NO_WINDOW_SCALE, |shift| u32::from(shift.min(14)));
        let sack_permitted = if self.sack_permitted { Self::SACK_PERMITTED } else { 0 };
        let ecn = if self.ecn { Self::ECN } else { 0 };
        let bits = scale | sack_permitted | ecn;
        let encoded = (tsval & !Self::MASK) | bits;
        if bits > tsval & Self::MASK { encoded.wrapping_sub(1 << Self::BITS) } else { encoded }
    }

    /// The options in a timestamp that came back.
    #[must_use]
    pub fn decode(tsecr: u32) -> Self {
        let scale = tsecr & Self::WINDOW_SCALE_MASK;
        Self {
            window_scale: (scale != Self::NO_WINDOW_SCALE).then(|| u8::try_from(scale).expect("four bits")),
            sack_permitted: tsecr & Self::SACK_PERMITTED != 0,
            ecn: tsecr & Self::ECN != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn secrets() -> Secrets {
        Secrets::from_seed([0x5a; 32])
    }

    fn endpoint(ip: u32, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(ip)), port)
    }

    #[test]
    fn the_mss_is_rounded_down_to_one_that_the_cookie_can_name() {
        let (local, remote) = (endpoint(1, 443), endpoint(2, 40000));
        let now = Instant::from_micros(0);
        for (offered, named) in [
            (0, 88),
            (88, 88),
            (535, 88),
            (536, 536),
            (1219, 536),
            (1220, 1220),
            (1399, 1360),
            (1452, 1440),
            (1460, 1460),
            (8960, 1460),
            (u16::MAX, 1460),
        ] {
            let cookie = secrets().cookie(now, local, remote, SeqNumber(9), offered);
            let mss = secrets().check_cookie(now, local, remote, SeqNumber(9), cookie + 1);
            assert_eq!(mss, Some(named), "{offered}");
        }
    }

    #[test]
    fn a_cookie_holds_until_the_end_of_the_tick_after_its_own() {
        let (local, remote) = (endpoint(1, 443), endpoint(2, 40000));
        for made in [0, 1, TICK_MICROS - 1] {
            let at = |micros| Instant::from_micros(10 * TICK_MICROS + micros);
            let cookie = secrets().cookie(at(made), local, remote, SeqNumber(9), 1460);
            let check = |micros| secrets().check_cookie(at(micros), local, remote, SeqNumber(9), cookie + 1);
            assert_eq!(check(made), Some(1460));
            assert_eq!(check(2 * TICK_MICROS - 1), Some(1460));
            assert_eq!(check(2 * TICK_MICROS), None);
        }
    }

    proptest! {
        #[test]
        fn a_cookie_is_good_for_its_own_handshake_only(
            now in 0_u64..1 << 50, ip: u32, port: u16, irs: u32, bit in 0_u32..32,
        ) {
            let now = Instant::from_micros(now);
            let (local, remote) = (endpoint(0x0a00_0001, 443), endpoint(ip, port));
            let irs = SeqNumber(irs);
            let cookie = secrets().cookie(now, local, remote, irs, 1460);
            let check = |secrets: Secrets, local, remote, irs, ack| secrets.check_cookie(now, local, remote, irs, ack);
            prop_assert_eq!(check(secrets(), local, remote, irs, cookie + 1), Some(1460));
            prop_assert_eq!(check(secrets(), endpoint(0x0a00_0001 ^ 1 << bit, 443), remote, irs, cookie + 1), None);
            prop_assert_eq!(check(secrets(), local, endpoint(ip ^ 1 << bit, port), irs, cookie + 1), None);
            prop_assert_eq!(check(secrets(), local, endpoint(ip, port ^ 1 << (bit % 16)), irs, cookie + 1), None);
            prop_assert_eq!(check(secrets(), local, remote, SeqNumber(irs.0 ^ 1 << bit), cookie + 1), None);
            prop_assert_eq!(check(Secrets::from_seed([0; 32]), local, remote, irs, cookie + 1), None);
            let damaged = SeqNumber(cookie.0 ^ 1 << (bit % INDEX_SHIFT)) + 1;
            prop_assert_eq!(check(secrets(), local, remote, irs, damaged), None);
        }

        #[test]
        fn options_survive_the_timestamp_which_never_runs_ahead(
            tsval: u32, scale in proptest::option::of(0_u8..=14), sack_permitted: bool, ecn: bool,
        ) {
            let options = CookieOptions { window_scale: scale, sack_permitted, ecn };
            let encoded = options.encode_into(tsval);
            prop_assert_eq!(CookieOptions::decode(encoded), options);
            prop_assert!(tsval.wrapping_sub(encoded) < 64);
        }
    }
}
