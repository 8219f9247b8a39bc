# What every scenario begins with. A command that fails ends it; what it printed is the reason.
set -eu
export RUST_BACKTRACE=0

SECRET=7369787465656e2062797465206b6579 # "sixteen byte key": the clients'
PROXY4=10.99.0.1:443
PROXY6=[fd99::1]:443
# Numbers of the data centre: reached by IPv4, by IPv6.
DC4=2
DC6=4

fail() {
    echo "FAILED: $*"
    [ ! -e /tmp/proxy.log ] || sed 's/^/  proxy: /' /tmp/proxy.log
    exit 1
}

in_peer() { ip netns exec peer "$@"; }

metric() { vm-guest metric "$1"; }

# until_true WHAT SECONDS COMMAND...
until_true() {
    what=$1 left=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || fail "awaiting $what in vain"
        sleep 1
    done
}

# start_proxy OPTION...
start_proxy() {
    in_peer vm-guest data-centre &
    mtproxy run --listen $PROXY4 --listen $PROXY6 --secret $SECRET --dc $DC4=10.99.0.2:4000 --dc "$DC6=[fd99::2]:4000" \
        --interface n0 --metrics 127.0.0.1:9090 "$@" >/tmp/proxy.log 2>&1 &
    PROXY=$!
    until_true "a proxy that is ready" 60 grep -q ready: /tmp/proxy.log
    # Attaching the program resets some cards; whoever is told that we are ready may rely on the link.
    grep -q 1 /sys/class/net/n0/carrier || fail "ready without a carrier"
    until_true "the peer by IPv4" 20 ping -c 1 -W 1 10.99.0.2
    until_true "the peer by IPv6" 20 ping -c 1 -W 1 fd99::2
}

# bound_as MODE QUEUES: every queue is bound so, by the kernel's own word (XDP_OPTIONS).
bound_as() {
    queues=$(metric "mtproxy_xdp_mode{mode=\"$1\"}")
    [ "$queues" = "$2" ] || fail "$queues queues are bound as $1, not $2"
}

# relay COUNT BYTES: clients of both families, each with a data centre of the other one's number, too.
relay() {
    before=$(metric 'mtproxy_xdp_packets_total{direction="received"}')
    in_peer vm-guest clients $PROXY4 "$1" $DC4 "$2" || fail "IPv4"
    in_peer vm-guest clients $PROXY6 "$1" $DC6 "$2" || fail "IPv6"
    carried=$(($(metric 'mtproxy_xdp_packets_total{direction="received"}') - before))
    # Full segments at the most: had the kernel relayed, there would be none.
    [ $carried -gt $(($1 * $2 / 1500 * 2)) ] || fail "only $carried packets over AF_XDP"
    echo "relayed over AF_XDP: $carried packets"
}

# Packets that each receive queue of n0 has taken, in their order.
rx_packets() { ethtool -S n0 | sed -n 's/^ *rx_queue_[0-9]*_packets: //p' | tr '\n' ' '; }

# Everything that anybody could have turned, as other tools show it. Counters are left out.
knobs() {
    for option in k c g l x; do ethtool -$option n0 2>&1 || true; done
    grep . /sys/class/net/n0/napi_defer_hard_irqs /sys/class/net/n0/gro_flush_timeout /sys/class/net/n0/threaded
    grep . /proc/irq/*/smp_affinity_list /proc/sys/vm/nr_hugepages
    grep . /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/ip_local_reserved_ports || true
}

# same_knobs WHEN: nothing differs from /tmp/before.
same_knobs() {
    knobs >/tmp/now
    diff /tmp/before /tmp/now >/tmp/difference || { cat /tmp/difference; fail "knobs differ $1"; }
}

# end_proxy: it stops as told, and every frame is accounted for.
end_proxy() {
    kill $PROXY
    wait $PROXY || fail "the proxy ended with $?"
    grep -q 'accounted=true' /tmp/proxy.log || fail "frames are missing"
    ! grep -q 'accounted=false' /tmp/proxy.log || fail "frames are missing"
}
