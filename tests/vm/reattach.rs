//! Cards that are reset, changed or unplugged under load: AF_XDP outlives what it can, comes back from the rest by itself,
//! and a client of the kernel's sockets never notices.

use crate::machine::{IGB, VIRTIO, run};

/// `ethtool -r` and `-G` make the driver take its rings down and up again, as it does when a transmitter hangs.
#[test]
#[ignore = "make test-vm"]
fn igb_outlives_resets_and_comes_back_from_a_change_of_channels_and_from_being_unplugged() {
    run(
        IGB,
        "ethtool -L n0 combined 1\n\
         sleep 3\n\
         start_proxy --datapath xdp --xdp-mode zero-copy --workers 1\n\
         bound_as zero_copy 1\n\
         start_steady_over_sockets over_sockets\n\
         start_steady over_frames $PROXY6 $DC6\n\
         await_steady over_frames\n\
         ethtool -r n0\n\
         sleep 4\n\
         ethtool -G n0 rx 512\n\
         sleep 4\n\
         end_steady over_frames\n\
         ! grep 'AF_XDP is lost' /tmp/proxy.log || fail 'a reset is no loss'\n\
         ethtool -L n0 combined 2\n\
         back 1 zero_copy 2\n\
         lost_once queues_changed\n\
         relay 4 200000\n\
         replug pci igb\n\
         back 2 zero_copy 2\n\
         lost_once interface_gone\n\
         relay 4 200000\n\
         end_steady over_sockets\n\
         end_proxy\n",
    );
}

#[test]
#[ignore = "make test-vm"]
fn virtio_comes_back_from_being_unplugged() {
    run(
        VIRTIO,
        "start_proxy --datapath xdp --xdp-mode zero-copy --workers 1\n\
         bound_as zero_copy 1\n\
         start_steady_over_sockets over_sockets\n\
         replug virtio virtio_net\n\
         back 1 zero_copy 1\n\
         lost_once interface_gone\n\
         relay 4 200000\n\
         end_steady over_sockets\n\
         end_proxy\n",
    );
}
