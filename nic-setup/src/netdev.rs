//! What the kernel's `netdev` family says a driver can do with XDP.
//!
//! Reference: `Documentation/netlink/specs/netdev.yaml` and `include/uapi/linux/netdev.h` of Linux 6.18.

use std::io;

use netlink_packet_core::DefaultNla;

use crate::facts::XdpHints;
use crate::generic::{Family, decode, unsigned};

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_A_DEV_XDP_ZC_MAX_SEGS: u16 = 4;
const NETDEV_A_DEV_XSK_FEATURES: u16 = 6;

const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_REDIRECT: u64 = 2;
const NETDEV_XDP_ACT_XSK_ZEROCOPY: u64 = 8;

pub(crate) fn xdp_hints(index: u32) -> io::Result<XdpHints> {
    let question = DefaultNla::new(NETDEV_A_DEV_IFINDEX, index.to_ne_bytes().to_vec());
    Ok(parse(&Family::find("netdev")?.ask(NETDEV_CMD_DEV_GET, &[question])?))
}

fn parse(attributes: &[u8]) -> XdpHints {
    let mut hints = XdpHints::default();
    for (kind, value) in decode(attributes) {
        match kind {
            NETDEV_A_DEV_XDP_FEATURES => {
                let features = unsigned(value).unwrap_or(0);
                hints.is_native = features & NETDEV_XDP_ACT_BASIC != 0;
                hints.redirects = features & NETDEV_XDP_ACT_REDIRECT != 0;
                hints.has_zero_copy = features & NETDEV_XDP_ACT_XSK_ZEROCOPY != 0;
            }
            NETDEV_A_DEV_XDP_ZC_MAX_SEGS => {
                hints.zero_copy_segments_max = unsigned(value).and_then(|most| u32::try_from(most).ok());
            }
            NETDEV_A_DEV_XSK_FEATURES => hints.xsk_features = unsigned(value).unwrap_or(0),
            _ => {}
        }
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_recorded_from_a_virtual_ethernet_device_says_native_without_zero_copy() {
        // Linux 6.18, veth: ifindex, xdp-features 0x23, xdp-rx-metadata-features 7, xsk-features 0.
        let mut recorded = vec![8, 0, 1, 0, 11, 0, 0, 0];
        recorded.extend([12, 0, 3, 0, 0x23, 0, 0, 0, 0, 0, 0, 0]);
        recorded.extend([12, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        recorded.extend([12, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let hints = parse(&recorded);
        assert!(hints.is_native && hints.redirects && !hints.has_zero_copy);
        assert_eq!(hints.zero_copy_segments_max, None);
    }

    #[test]
    fn zero_copy_comes_with_a_number_of_segments() {
        let mut answer = vec![12, 0, 3, 0, 0x0b, 0, 0, 0, 0, 0, 0, 0];
        answer.extend([8, 0, 4, 0, 8, 0, 0, 0]);
        let hints = parse(&answer);
        assert!(hints.has_zero_copy);
        assert_eq!(hints.zero_copy_segments_max, Some(8));
    }
}
