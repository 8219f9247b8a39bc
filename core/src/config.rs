//! Configuration, valid by construction: whoever has a [`Config`] need not check it again.
//!
//! Reading files, resolving names and wording errors for the operator happen outside core.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::credentials::Credentials;
use crate::dc::DcTable;
use crate::middle_proxy::settings::MiddleProxies;
use crate::secret::DomainName;

/// Everything an engine needs to know about its deployment. Shared by all workers, never changed:
/// a reload makes a new one.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may use the proxy.
    pub credentials: Credentials,
    /// The sites behind which the proxy hides.
    pub fronts: Fronts,
    /// Where the data centres are.
    pub dc_table: DcTable,
    /// How long each thing may take.
    pub timeouts: Timeouts,
    /// How to reach middle proxies, if anybody goes by them.
    pub middle_proxies: Option<Arc<MiddleProxies>>,
    /// The most bytes that may wait for one slow side before the other is no longer read.
    pub relay_window_bytes: usize,
}

/// Where an authentic client's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// To its data centre.
    Direct,
    /// To a middle proxy, which shows it the channel of our proxy tag; to its data centre if there are none.
    MiddleProxies,
}

/// Default of [`Config::relay_window_bytes`]. One read of a full socket buffer: smaller makes bulk
/// transfers pay a wake-up more often, larger only moves bytes from the kernel's buffer into ours.
pub const RELAY_WINDOW_BYTES_DEFAULT: usize = 64 * 1024;

/// How long each thing may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the client's first byte. Then it is fronted (spec: 10 s), or closed without a front.
    pub first_byte: Duration,
    /// From the client's first byte to an authentic init frame. Then as above.
    pub handshake: Duration,
    /// For one attempt to reach a data centre or a front; then the next address is tried.
    pub dial: Duration,
    /// Without a byte in either direction. A live client pings about once a minute.
    pub idle: Duration,
    /// For a peer to take more of what is still queued when a session ends, and to end its own side.
    pub linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            dial: Duration::from_secs(5),
            idle: Duration::from_secs(300),
            linger: Duration::from_secs(10),
        }
    }
}

/// The real sites that strangers are connected to. The first one is the default.
#[derive(Clone, Debug, Default)]
pub struct Fronts {
    fronts: Vec<Front>,
}

/// One real site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// The name in the client's hello.
    pub domain: DomainName,
    /// Where the site is, in the order tried. Empty if it could not be resolved: then it answers nobody.
    pub addresses: Vec<SocketAddr>,
    /// Size of the encrypted part of the site's first flight, which ours imitates (spec 6.7, 6.10).
    pub flight_len: u16,
}

/// What a record of TLS 1.3 may hold (RFC 8446 section 5.2), less the byte that the flight may vary by; at
/// the lower end, one byte is left when it varies down.
const FLIGHT_LEN_RANGE: (u16, u16) = (2, (1 << 14) + 256 - 1);

impl Fronts {
    /// The fronts in order of preference. Later entries for a domain that is already there are dropped;
    /// a flight that does not fit a record is made to fit.
    #[must_use]
    pub fn new(fronts: impl IntoIterator<Item = Front>) -> Self {
        let mut unique: Vec<Front> = Vec::new();
        for mut front in fronts {
            front.flight_len = front.flight_len.clamp(FLIGHT_LEN_RANGE.0, FLIGHT_LEN_RANGE.1);
            if unique.iter().all(|known| known.domain != front.domain) {
                unique.push(front);
            }
        }
        Self { fronts: unique }
    }

    /// True if no domain is configured: then there is no fake TLS, and strangers get silence.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fronts.is_empty()
    }

    /// Index of the front whose name is exactly `server_name`.
    #[must_use]
    pub fn find(&self, server_name: &[u8]) -> Option<usize> {
        self.fronts.iter().position(|front| front.domain.as_str().as_bytes() == server_name)
    }

    /// The front at `index`; `None` if a reload made the list shorter.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Front> {
        self.fronts.get(index)
    }

    /// Every front in order.
    pub fn iter(&self) -> impl Iterator<Item = &Front> {
        self.fronts.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(domain: &str, flight_len: u16) -> Front {
        Front { domain: domain.parse().unwrap(), addresses: Vec::new(), flight_len }
    }

    #[test]
    fn the_first_front_of_a_domain_wins_and_names_match_to_the_letter() {
        let fronts =
            Fronts::new([front("a.example", 1000), front("b.example", 2000), front("a.example", 3000)]);
        assert_eq!(fronts.iter().count(), 2);
        assert_eq!(fronts.find(b"a.example").and_then(|i| fronts.get(i)).unwrap().flight_len, 1000);
        assert_eq!(fronts.find(b"b.example"), Some(1));
        assert_eq!(fronts.find(b"A.example"), None);
        assert_eq!(fronts.find(b""), None);
    }
    #[test]
    fn a_flight_fits_one_record_whatever_was_measured() {
        for (measured, fitting) in [(0, 2), (2, 2), (2000, 2000), (u16::MAX, 16_639)] {
            let fronts = Fronts::new([front("a.example", measured)]);
            assert_eq!(fronts.get(0).unwrap().flight_len, fitting);
        }
    }
}
