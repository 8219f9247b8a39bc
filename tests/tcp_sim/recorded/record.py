#!/usr/bin/env python3
"""Records exchanges between two Linux kernels, for tests/tcp_sim/recorded.rs. Needs root and iproute2.

    ./record.py          writes one NAME.txt for each exchange, here

Two network namespaces of its own, a TUN device in each, and this script in between: it passes packets on
after a millisecond, drops those that an exchange names, and writes down all of them as they leave.
"""
import fcntl, os, platform, select, socket, struct, subprocess, sys, time

NAMESPACES = ("w-sim-kernel", "w-sim-ours")
ADDRESSES = ("10.99.0.1", "10.99.0.2")
PORT = 443
DELAY = 0.001
CONTROL = open("/proc/sys/net/ipv4/tcp_congestion_control").read().strip()


def sh(*command):
    subprocess.run(command, check=True)


def tun(name, namespace, own, other):
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0001 | 0x1000))  # TUN, no header
    sh("ip", "link", "set", name, "netns", namespace)
    run = ("ip", "-n", namespace)
    sh(*run, "addr", "add", own, "peer", other, "dev", name)
    sh(*run, "link", "set", name, "mtu", "1500", "up")
    sh(*run, "link", "set", "lo", "up")
    return descriptor


# What each side does, as Python run in its namespace: `s` is its connected socket.
KERNEL_CONNECTS = (
    "s = socket.create_connection(('10.99.0.2', 443))",
    "l = socket.create_server(('10.99.0.2', 443)); l.settimeout(9); s, _ = l.accept()",
)
OURS_CONNECTS = (
    "l = socket.create_server(('10.99.0.1', 443)); l.settimeout(9); s, _ = l.accept()",
    "time.sleep(0.3); s = socket.create_connection(('10.99.0.1', 443))",
)
READ_ALL = "\nwhile s.recv(65536): pass\n"

# name: (what it shows, who connects, kernel's part, our part, payload packets of the kernel to drop once,
#        what the replay's driver does: (seconds after the connection is established, what, how much))
EXCHANGES = {
    "request_and_answer": (
        "a request of 100 bytes, an answer of 5,000, and the kernel closes first", KERNEL_CONNECTS,
        "s.sendall(bytes(100)); n = 0\nwhile n < 5000: n += len(s.recv(65536))\ns.shutdown(1)" + READ_ALL,
        "s.recv(65536); s.sendall(bytes(5000))" + READ_ALL + "s.shutdown(1)", (),
        [("after_read", 100, "write 5000"), ("after_end", 0, "shut")]),
    "kernel_listens": (
        "the same, but the kernel listens", OURS_CONNECTS,
        "s.recv(65536); s.sendall(bytes(5000))" + READ_ALL + "s.shutdown(1)",
        "s.sendall(bytes(100)); n = 0\nwhile n < 5000: n += len(s.recv(65536))\ns.shutdown(1)" + READ_ALL, (),
        [("after_read", 0, "write 100"), ("after_read", 5000, "shut")]),
    "fast_retransmission": (
        "20,000 bytes from the kernel, whose third packet is lost", KERNEL_CONNECTS,
        "s.sendall(bytes(20000)); s.shutdown(1)" + READ_ALL,
        READ_ALL + "s.shutdown(1)", (3,),
        [("after_end", 0, "shut")]),
    "tail_loss": (
        "3,000 bytes from the kernel, whose last packet is lost", KERNEL_CONNECTS,
        "s.sendall(bytes(3000)); time.sleep(1); s.shutdown(1)" + READ_ALL,
        READ_ALL + "s.shutdown(1)", (3,),
        [("after_end", 0, "shut")]),
    "half_close": (
        "the kernel says 10 bytes and FIN, then hears 14,000 bytes", KERNEL_CONNECTS,
        "s.sendall(bytes(10)); s.shutdown(1)" + READ_ALL,
        READ_ALL + "s.sendall(bytes(14000)); s.shutdown(1)", (),
        [("after_end", 0, "write 14000"), ("after_end", 0, "shut")]),
    "zero_window": (
        "the kernel does not read for 3 seconds, so that its window closes and is probed", KERNEL_CONNECTS,
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096); s.sendall(bytes(1)); time.sleep(3)" + READ_ALL,
        "s.recv(1); s.sendall(bytes(30000)); s.shutdown(1)" + READ_ALL, (),
        [("after_read", 1, "write 30000"), ("after_read", 1, "shut")]),
    "kernel_aborts": (
        "100 bytes from the kernel, and RST", KERNEL_CONNECTS,
        "s.sendall(bytes(100)); time.sleep(0.2)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()",
        "s.settimeout(9)\ntry:\n  while s.recv(65536): pass\nexcept ConnectionResetError: pass", (), []),
}


def headers_len(packet):
    tcp = (packet[0] & 15) * 4
    return tcp + (packet[tcp + 12] >> 4) * 4


def relay(descriptors, processes, drops, out):
    """Passes packets between both until both processes are done and nothing moves any more."""
    began, quiet, numbered, waiting = None, time.monotonic() + 2, 0, []
    while any(process.poll() is None for process in processes) or time.monotonic() < quiet:
        readable, _, _ = select.select(descriptors, [], [], 0.0002)
        now = time.monotonic()
        for descriptor in readable:
            side = descriptors.index(descriptor)
            packet = os.read(descriptor, 65536)
            if packet[0] != 0x45 or packet[9] != 6:
                continue
            began, quiet = began or now, now + 0.5
            headers, is_dropped = headers_len(packet), False
            payload_len = len(packet) - headers
            assert not any(packet[headers:]), "all text is zeros"
            if side == 0 and payload_len:
                numbered += 1
                is_dropped = numbered in drops
            mark = "x" if is_dropped else "><"[side]
            out.write(f"{now - began:.6f} {mark} {packet[:headers].hex()} {payload_len}\n")
            if not is_dropped:
                waiting.append((now + DELAY, descriptors[1 - side], packet))
        while waiting and waiting[0][0] <= now:
            _, descriptor, packet = waiting.pop(0)
            os.write(descriptor, packet)


def record(name):
    shows, (kernel_begins, ours_begins), kernel, ours, drops, driver = EXCHANGES[name]
    for namespace in NAMESPACES:
        sh("ip", "netns", "add", namespace)
    try:
        descriptors = [
            tun("wsimk", NAMESPACES[0], *ADDRESSES),
            tun("wsimo", NAMESPACES[1], *reversed(ADDRESSES)),
        ]
        programs = ((NAMESPACES[1], ours_begins, ours), (NAMESPACES[0], kernel_begins, kernel))
        if "create_server" in kernel_begins:
            programs = tuple(reversed(programs))
        processes = []
        for namespace, begins, acts in programs:
            text = f"import socket, struct, time\n{begins}\n{acts}\n"
            processes.append(subprocess.Popen(["ip", "netns", "exec", namespace, sys.executable, "-c", text]))
            time.sleep(0.4)
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".txt")
        with open(path, "w") as out:
            out.write(f"# {name}: {shows}\n")
            out.write(f"# Linux {platform.release()}, both sides, {CONTROL}, by tests/tcp_sim/recorded/record.py.\n")
            out.write("# > leaves the kernel that is replayed, x too but is lost, < leaves the kernel whose part the stack takes.\n")
            out.write("# Seconds, direction, IP and TCP header, bytes of text, which are zeros.\n")
            out.write(f"part {'listen' if 'create_connection' in kernel_begins else 'connect'}\n")
            for when, amount, what in driver:
                out.write(f"{when} {amount} {what}\n")
            relay(descriptors, processes, drops, out)
        for descriptor in descriptors:
            os.close(descriptor)
    finally:
        for namespace in NAMESPACES:
            sh("ip", "netns", "del", namespace)


for wanted in sys.argv[1:] or EXCHANGES:
    record(wanted)
