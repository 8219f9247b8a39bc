//! `mtproxy nic` on drivers that have something to turn: everything comes back, byte by byte.

use crate::machine::{Card, E1000E, IGB, VIRTIO, VMXNET3, run};

/// The host is badly set up before, and what `apply` does is seen, so that there is something to take back.
#[track_caller]
fn what_was_applied_is_taken_back(card: Card) {
    run(
        card,
        "echo '1024 65000' >/proc/sys/net/ipv4/ip_local_port_range\n\
         ethtool -L n0 combined 1 2>/dev/null || echo 'the channels of this card are what they are'\n\
         sleep 3\n\
         knobs >/tmp/before\n\
         status=0\n\
         mtproxy nic check n0 --busy-poll --huge-pages || status=$?\n\
         [ $status != 0 ] || fail 'nothing is to be changed'\n\
         mtproxy nic apply n0 --busy-poll --huge-pages --queues 2 || echo 'some were refused'\n\
         knobs >/tmp/now\n\
         ! diff /tmp/before /tmp/now >/dev/null || fail 'nothing was changed'\n\
         mtproxy nic undo n0\n\
         same_knobs 'after undo'\n\
         for moment in 0.02 0.1 0.3 0.8; do\n\
             mtproxy nic apply n0 --busy-poll --huge-pages --queues 2 >/dev/null &\n\
             victim=$!\n\
             sleep $moment\n\
             kill -9 $victim 2>/dev/null || true\n\
             wait $victim || true\n\
             mtproxy nic undo n0\n\
             same_knobs \"after apply was killed at $moment s, and undo\"\n\
         done\n",
    );
}

#[test]
#[ignore = "make test-vm"]
fn igb_is_what_it_was_after_undo() {
    what_was_applied_is_taken_back(IGB);
}

#[test]
#[ignore = "make test-vm"]
fn virtio_is_what_it_was_after_undo() {
    what_was_applied_is_taken_back(VIRTIO);
}

#[test]
#[ignore = "make test-vm"]
fn vmxnet3_is_what_it_was_after_undo() {
    what_was_applied_is_taken_back(VMXNET3);
}

#[test]
#[ignore = "make test-vm"]
fn e1000e_is_what_it_was_after_undo() {
    what_was_applied_is_taken_back(E1000E);
}
