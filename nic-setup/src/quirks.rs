//! Where drivers do not do what they say, and what we do about it: each with where that is known from, and the test or
//! the rule that keeps it so.
//!
//! A table, and a decision over it. A driver that is not in it is taken at its word, and what became of that is asked of
//! the kernel (XDP_OPTIONS): what a driver says is a hint, what a socket got is a fact.

use crate::facts::{KernelVersion, kernel_version};

/// Something that a driver does otherwise than it says.
#[derive(Clone, Copy, Debug)]
pub struct Quirk {
    /// The driver's name; the kernel's for the device.
    pub driver: &'static str,
    /// The first kernel that does it; `None`: from the beginning.
    pub since: Option<KernelVersion>,
    /// The first kernel that does it no longer; `None`: to this day.
    pub until: Option<KernelVersion>,
    /// What it does.
    pub what: &'static str,
    /// What we do.
    pub remedy: Remedy,
    /// Where that is known from.
    pub source: &'static str,
    /// What shows that the remedy helps.
    pub shown_by: &'static str,
}

/// What is done about a quirk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Packet buffers of a page each.
    PageChunks,
    /// Nothing of its own: the ladder of modes, or a stage of `mtproxy nic`, is made for it.
    Design,
}

/// All that are known.
pub const QUIRKS: [Quirk; 12] = [
    Quirk {
        driver: "igb",
        since: None,
        until: None,
        what: "in zero-copy, cuts packets above 1024 bytes in two where chunks have 2 KiB, and does not say so",
        remedy: Remedy::PageChunks,
        source: "seen on Linux 6.18 with an emulated 82576; SRRCTL counts buffers in KiB, and 2048 less the headroom is one",
        shown_by: "tests/vm igb_relays_in_zero_copy",
    },
    Quirk {
        driver: "igb",
        since: None,
        until: None,
        what: "resets the card when a program is attached or a socket bound: no carrier for a second and a half",
        remedy: Remedy::Design,
        source: "seen on Linux 6.12, 6.18 and 7.3",
        shown_by: "the proxy is ready when a carrier that was there is back; tests/vm prelude.sh, start_proxy",
    },
    Quirk {
        driver: "igb",
        since: None,
        until: None,
        what: "receives nothing ever if the fill ring was empty when zero-copy was switched on: it wakes up the wrong interrupt",
        remedy: Remedy::Design,
        source: "seen on Linux 6.18, with an interrupt for each direction; fill_ring_empty stays at 1 a queue",
        shown_by: "sockets are bound and filled before the program is attached (shards/mod.rs); tests/vm igb_relays_in_zero_copy",
    },
    Quirk {
        driver: "virtio_net",
        since: None,
        until: None,
        what: "says zero-copy, and refuses it with EINVAL unless the host offers VIRTIO_F_ACCESS_PLATFORM",
        remedy: Remedy::Design,
        source: "seen on Linux 6.18 and 7.3; drivers/net/virtio_net.c, virtnet_xsk_pool_enable",
        shown_by: "tests/vm virtio_without_an_iommu_falls_back_to_copying",
    },
    Quirk {
        driver: "virtio_net",
        since: None,
        until: None,
        what: "forgets a table of queues that was set before a program was attached",
        remedy: Remedy::Design,
        source: "seen on Linux 6.18 under QEMU 10",
        shown_by: "the stage rss-table says so; the proxy learns queues from what comes (ports/)",
    },
    Quirk {
        driver: "virtio_net",
        since: None,
        until: None,
        what: "refuses a program while the host merges packets (GRO_HW) and does not let it stop",
        remedy: Remedy::Design,
        source: "drivers/net/virtio_net.c, virtnet_xdp_set",
        shown_by: "the stage merging; generic mode or epoll take its place",
    },
    Quirk {
        driver: "virtio_net",
        since: None,
        until: None,
        what: "under QEMU with rss=on,hash=on, a queue stalls for good once it was overloaded",
        remedy: Remedy::Design,
        source: "seen on Linux 6.18 under QEMU 10; rss=on alone did not stall, nor did neither",
        shown_by: "a machine of yours should have rss=on alone; tests/vm machine.rs, VIRTIO, has neither",
    },
    Quirk {
        driver: "virtio_net",
        since: None,
        until: None,
        what: "in zero-copy, counts fill_ring_empty without end for a socket that only sends",
        remedy: Remedy::Design,
        source: "seen on Linux 6.18: some hundred thousand in three seconds",
        shown_by: "that count alone is no fault: the proxy speaks up only for packets that were dropped (shards/advice.rs)",
    },
    Quirk {
        driver: "vmxnet3",
        since: None,
        until: None,
        what: "has queues beyond the first that get nothing under QEMU",
        remedy: Remedy::Design,
        source: "seen on Linux 6.18 under QEMU 10",
        shown_by: "every queue has a socket, so none that gets packets is without; tests/vm vmxnet3_relays_in_copy_mode",
    },
    Quirk {
        driver: "mlx5_core",
        since: None,
        until: None,
        what: "refuses rings that are no powers of two",
        remedy: Remedy::Design,
        source: "reported by users of other AF_XDP programs",
        shown_by: "mtproxy_xsk refuses such rings for every driver (settings.rs)",
    },
    Quirk {
        driver: "i40e",
        since: None,
        until: None,
        what: "starves if the fill ring is empty when zero-copy is switched on",
        remedy: Remedy::Design,
        source: "reported for Intel's drivers by users of other AF_XDP programs",
        shown_by: "sockets are bound and filled before the program is attached",
    },
    Quirk {
        driver: "e1000e",
        since: None,
        until: None,
        what: "runs no programs: generic mode only",
        remedy: Remedy::Design,
        source: "seen on Linux 6.18; no ndo_bpf in drivers/net/ethernet/intel/e1000e",
        shown_by: "tests/vm e1000e_relays_in_generic_mode; auto takes epoll",
    },
];

/// How a socket on a driver is best asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// True if each packet buffer should be a page.
    pub page_chunks: bool,
}

/// What the table says of a driver under a kernel of this release, such as `6.18.3-generic`.
#[must_use]
pub fn advice(driver: &str, release: &str) -> Advice {
    let version = kernel_version(release);
    let applies = |quirk: &&Quirk| {
        // A kernel that cannot be read may be any.
        let is_since = |since| version.is_none_or(|version| version >= since);
        let is_before = |until| version.is_none_or(|version| version < until);
        quirk.driver == driver && quirk.since.is_none_or(is_since) && quirk.until.is_none_or(is_before)
    };
    QUIRKS.iter().filter(applies).fold(Advice::default(), |advice, quirk| match quirk.remedy {
        Remedy::PageChunks => Advice { page_chunks: true },
        Remedy::Design => advice,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_with_quirks_gets_its_remedies_and_others_are_taken_at_their_word() {
        assert_eq!(advice("igb", "6.18.15+deb13-amd64"), Advice { page_chunks: true });
        assert_eq!(advice("virtio_net", "6.18.15"), Advice::default());
        assert_eq!(advice("ice", "6.18.15"), Advice::default());
    }

    #[test]
    fn the_document_has_every_quirk() {
        let document = include_str!("../../docs/nic-setup.md");
        for quirk in QUIRKS {
            let row = format!("| `{}` | {} |", quirk.driver, quirk.what);
            assert!(document.contains(&row), "docs/nic-setup.md lacks {row}");
        }
    }
}
