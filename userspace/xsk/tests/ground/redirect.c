/* Redirects every packet to the AF_XDP socket of its queue, or passes it on if there is none. */

#define SEC(name) __attribute__((section(name), used))

typedef unsigned int u32;
typedef unsigned long long u64;

struct xdp_md { u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };

static long (*redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

enum { XSKMAP = 17, XDP_PASS = 2 };

struct {
	int (*type)[XSKMAP];
	int (*max_entries)[4];
	u32 *key;
	u32 *value;
} xsks SEC(".maps");

SEC("xdp") int redirect(struct xdp_md *packet)
{
	return redirect_map(&xsks, packet->rx_queue_index, XDP_PASS);
}

char _license[] SEC("license") = "GPL";
