//! The relay over each driver, in each mode that it has.

use crate::machine::{Card, E1000E, IGB, VIRTIO, VIRTIO_WITHOUT_IOMMU, VMXNET3, run};

/// A transfer for each family; the issue of the first two is zero-copy, where it must be long.
const LONG_BYTES: u64 = 100_000_000;
const SHORT_BYTES: u64 = 4_000_000;

/// Clients of both families through the proxy with this mode, bound as that.
#[track_caller]
fn relays(card: Card, mode: &str, bound: &str, clients: u32, bytes: u64) {
    run(
        card,
        &format!(
            "start_proxy --datapath xdp --xdp-mode {mode} --workers 1\n\
             bound_as {bound} \"$(ls -d /sys/class/net/n0/queues/rx-* | wc -l)\"\n\
             relay {clients} {}\n\
             end_proxy\n",
            bytes / u64::from(clients)
        ),
    );
}

#[test]
#[ignore = "make test-vm"]
fn igb_relays_in_zero_copy() {
    relays(IGB, "zero-copy", "zero_copy", 4, LONG_BYTES);
}

#[test]
#[ignore = "make test-vm"]
fn igb_relays_in_copy_mode() {
    relays(IGB, "copy", "copy", 4, SHORT_BYTES);
}

#[test]
#[ignore = "make test-vm"]
fn virtio_relays_in_zero_copy() {
    relays(VIRTIO, "zero-copy", "zero_copy", 4, LONG_BYTES);
}

#[test]
#[ignore = "make test-vm"]
fn virtio_relays_in_copy_mode() {
    relays(VIRTIO, "copy", "copy", 4, SHORT_BYTES);
}

#[test]
#[ignore = "make test-vm"]
fn vmxnet3_relays_in_copy_mode() {
    relays(VMXNET3, "copy", "copy", 4, SHORT_BYTES);
}

#[test]
#[ignore = "make test-vm"]
fn e1000e_relays_in_generic_mode() {
    relays(E1000E, "generic", "generic", 4, SHORT_BYTES);
}

/// The driver says zero-copy in its features, and then refuses it with EINVAL.
#[test]
#[ignore = "make test-vm"]
fn virtio_without_an_iommu_falls_back_to_copying() {
    relays(VIRTIO_WITHOUT_IOMMU, "auto", "copy", 4, SHORT_BYTES);
}

/// With a queue for each core and a hash that spreads clients over them, every queue carries.
#[test]
#[ignore = "make test-vm"]
fn both_queues_of_igb_carry_in_zero_copy() {
    run(
        IGB,
        "start_proxy --datapath xdp --xdp-mode zero-copy --workers 1\n\
         bound_as zero_copy 2\n\
         before=$(rx_packets)\n\
         relay 24 200000\n\
         after=$(rx_packets)\n\
         echo \"$before\" \"$after\" | awk '{ for (i = 1; i <= NF / 2; i++) if ($(i + NF / 2) - $i < 100) exit 1 }' || \
             fail \"packets of each queue: $before before, $after after\"\n\
         end_proxy\n",
    );
}

/// A gateway that answered before and is silent behind zero-copy stands for a driver that never receives: to a program
/// both look the same.
#[test]
#[ignore = "make test-vm"]
fn zero_copy_is_proven_by_the_gateways_answer_or_left_for_copying() {
    run(
        VIRTIO,
        "ip route add default via 10.99.0.2\n\
         until_true 'the gateway' 20 ping -c 1 -W 1 10.99.0.2\n\
         ip -n peer link set n1 down\n\
         run_proxy --datapath xdp --xdp-mode auto --workers 1\n\
         bound_as copy 1\n\
         grep 'found no packet coming in with zero-copy' /tmp/proxy.log || fail 'it is not said'\n\
         end_proxy\n\
         ip -n peer link set n1 up\n\
         ip -n peer addr add fd99::2/64 dev n1 nodad\n\
         until_true 'the gateway' 20 ping -c 1 -W 1 10.99.0.2\n\
         start_proxy --datapath xdp --xdp-mode auto --workers 1\n\
         bound_as zero_copy 1\n\
         grep 'zero-copy receives' /tmp/proxy.log || fail 'it is not proven'\n\
         relay 4 200000\n\
         end_proxy\n",
    );
}
