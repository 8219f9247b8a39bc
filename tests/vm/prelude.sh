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

# run_proxy OPTION...: until it is ready.
run_proxy() {
    mtproxy run --listen $PROXY4 --listen $PROXY6 --secret $SECRET --dc $DC4=10.99.0.2:4000 --dc "$DC6=[fd99::2]:4000" \
        --interface n0 --metrics 127.0.0.1:9090 "$@" >/tmp/proxy.log 2>&1 &
    PROXY=$!
    until_true "a proxy that is ready" 60 grep -q ready: /tmp/proxy.log
    # Attaching the program resets some cards; whoever is told that we are ready may rely on the link.
    grep -q 1 /sys/class/net/n0/carrier || fail "ready without a carrier"
}

# start_proxy OPTION...: with a data centre, and a peer that hears it.
start_proxy() {
    in_peer vm-guest data-centre &
    run_proxy "$@"
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
    # Full segments at the most: had the kernel relayed, there would be none. Shards show what they count with their beats.
    until_true "packets over AF_XDP" 5 has_carried $((before + $1 * $2 / 1500 * 2))
}

has_carried() { [ "$(metric 'mtproxy_xdp_packets_total{direction="received"}')" -gt "$1" ]; }

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

# start_steady NAME ADDRESS DC: a client that downloads again and again.
start_steady() {
    rm -f /tmp/$1.end
    in_peer vm-guest steady "$2" "$3" /tmp/$1.end >/tmp/$1 2>&1 &
    eval "$1=\$!"
}

# await_steady NAME: it has got something.
await_steady() { until_true "the client $1" 30 grep -q 'a first piece' /tmp/$1; }

# start_steady_over_sockets NAME: a client of the kernel's sockets, since it comes while the proxy stands still.
start_steady_over_sockets() {
    kill -STOP $PROXY
    sleep 1
    start_steady $1 $PROXY4 $DC4
    until_true "the kernel's handshake" 20 grep -q ':01BB [0-9A-F]*:[0-9A-F]* 01 ' /proc/net/tcp
    kill -CONT $PROXY
    await_steady $1
}

# end_steady NAME: it has got all that it asked for.
end_steady() {
    touch /tmp/$1.end
    eval "wait \$$1" || { cat /tmp/$1; fail "the client $1"; }
    tail -n 1 /tmp/$1
}

# lost_once REASON: AF_XDP has been lost for this reason once.
lost_once() {
    [ "$(metric "mtproxy_xdp_lost_total{reason=\"$1\"}")" = 1 ] || fail "AF_XDP was not lost once for $1"
}

# back TIMES MODE QUEUES: AF_XDP has come back so often, and is bound so.
back() {
    until_true "AF_XDP's return" 60 sh -c "[ \"\$(grep -c 'AF_XDP is back' /tmp/proxy.log)\" = $1 ]"
    bound_as "$2" "$3"
}

# unplug BUS DRIVER DEVICE, plug_in BUS DRIVER DEVICE: the card leaves its driver, and comes back as a new interface.
unplug() { echo "$3" >"/sys/bus/$1/drivers/$2/unbind"; }
plug_in() {
    echo "$3" >"/sys/bus/$1/drivers/$2/bind"
    for card in /sys/class/net/*; do
        [ "$(cat "$card/address")" != 52:54:00:00:00:01 ] || ip link set "${card##*/}" name n0
    done
    ip addr add 10.99.0.1/24 dev n0
    ip addr add fd99::1/64 dev n0 nodad
    ip link set n0 up
}

# replug BUS DRIVER: the proxy's card is gone for two seconds.
replug() {
    device=$(basename "$(readlink /sys/class/net/n0/device)")
    unplug "$1" "$2" "$device"
    sleep 2
    plug_in "$1" "$2" "$device"
}

# end_proxy: it stops as told, and every frame is accounted for.
end_proxy() {
    kill $PROXY
    wait $PROXY || fail "the proxy ended with $?"
    grep -q 'accounted=true' /tmp/proxy.log || fail "frames are missing"
    ! grep -q 'accounted=false' /tmp/proxy.log || fail "frames are missing"
}
