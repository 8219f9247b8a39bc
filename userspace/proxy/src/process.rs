//! Who this process says it is to middle proxies (protocol.md section 7.4).

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use mtproxy_core::middle_proxy::ProcessId;

/// Seconds of the wall clock when this was first asked.
static STARTED: LazyLock<u32> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // The wire has 32 bits, until 2106.
    (since & u64::from(u32::MAX)) as u32
});

/// What the official proxy says for a port where nobody listens.
const NO_PORT: u16 = u16::MAX;

/// This process, without an address: that is each link's own. Process numbers have 16 bits on the wire; of a larger one
/// the low half is said, where the official proxy aborts.
#[must_use]
pub fn identity() -> ProcessId {
    ProcessId { ip: 0, port: NO_PORT, pid: low_half(std::process::id()), start_unix: *STARTED }
}

fn low_half(pid: u32) -> u16 {
    (pid & u32::from(u16::MAX)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_number_beyond_16_bits_is_said_in_part() {
        assert_eq!((low_half(65_535), low_half(65_536), low_half(4_194_304)), (65_535, 0, 0));
        assert_eq!(low_half(70_001), 4465);
    }

    #[test]
    fn a_process_is_the_same_whenever_it_is_asked() {
        assert_eq!(identity(), identity());
    }
}
