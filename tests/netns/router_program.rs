//! What the router does to packets beside forwarding them: programs of `tc`, since not every kernel has netem
//! and skbedit.

use std::io::Write as _;
use std::process::{Command, Stdio};

use mtproxy_tests::{NetNs, TestClient};

/// Loses one packet in a hundred.
const LOSE_ONE_PERCENT: &str = r#"
static unsigned int (*random_u32)(void) = (void *)7; /* BPF_FUNC_get_prandom_u32 */
__attribute__((section("classifier"), used)) int classify(struct __sk_buff *packet)
{
	return random_u32() % 100 ? 0 /* TC_ACT_OK */ : 2 /* TC_ACT_SHOT */;
}
"#;

/// Chooses between two queues by a bit of the client's port, or of ours toward data centres, as a network card does
/// whose hash is known. `skb_tx_hash` takes the queue that a packet is said to have come by; zero says nothing.
const QUEUE_BY_PORT: &str = r#"
static long (*load_bytes)(void *, unsigned int, void *, unsigned int) = (void *)26; /* BPF_FUNC_skb_load_bytes */
__attribute__((section("classifier"), used)) int classify(struct __sk_buff *packet)
{
	unsigned char version, protocol, ports[4];
	unsigned int ip = 14, tcp;

	if (load_bytes(packet, ip, &version, 1))
		return 0;
	tcp = version >> 4 == 4 ? ip + 20 : ip + 40;
	if (load_bytes(packet, version >> 4 == 4 ? ip + 9 : ip + 6, &protocol, 1) || protocol != 6 ||
	    load_bytes(packet, tcp, ports, 4))
		return 0;
	packet->queue_mapping = 1 + (ports[2] == 443 >> 8 && ports[3] == (443 & 255) ? ports[1] >> 1 & 1 : ports[3] & 1);
	return 0;
}
"#;

/// Makes `interface` lose 1 % of what it receives and 1 % of what it sends.
pub(crate) fn lose_one_percent(namespace: &NetNs, interface: &str) {
    attach(namespace, interface, LOSE_ONE_PERCENT, &["ingress", "egress"]);
}

/// Makes `interface` send packets of clients [on its second queue](is_on_second_queue), and those for odd ports of
/// ours, by its second queue, and others by its first.
pub(crate) fn choose_queue_by_port(namespace: &NetNs, interface: &str) {
    attach(namespace, interface, QUEUE_BY_PORT, &["egress"]);
}

/// Where the program of [`choose_queue_by_port`] sends a client's packets. The lowest bit would not do: a kernel that
/// connects takes even ports first.
pub(crate) fn is_on_second_queue(client: &TestClient) -> bool {
    client.local_address().port() >> 1 & 1 == 1
}

fn attach(namespace: &NetNs, interface: &str, program: &str, directions: &[&str]) {
    let object = std::env::temp_dir().join(format!("mtproxy-router-{}.o", namespace.name()));
    let mut clang = Command::new("clang")
        .args(["-O2", "-target", "bpf", "-include", "linux/bpf.h", "-x", "c", "-", "-c", "-o"])
        .arg(&object)
        // Where Debian has asm/types.h, which the kernel's headers include.
        .args(["-idirafter", &format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH)])
        .stdin(Stdio::piped())
        .spawn()
        .expect("clang is installed: it compiles the steering program, too");
    clang.stdin.take().expect("piped").write_all(program.as_bytes()).expect("clang reads");
    assert!(clang.wait().expect("a child of ours").success());
    namespace.run(&format!("tc qdisc add dev {interface} clsact")).expect("clsact");
    for direction in directions {
        let object = object.display();
        let filter = format!(
            "tc filter add dev {interface} {direction} bpf direct-action obj {object} sec classifier"
        );
        namespace.run(&filter).expect("the program is taken");
    }
    std::fs::remove_file(&object).expect("what clang has written");
}
