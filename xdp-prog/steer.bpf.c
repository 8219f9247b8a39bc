// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The steering program: which packets of an interface are ours, decided before the kernel sees them.
 *
 * frame -> parse_frame -> parse_ipv4 / parse_ipv6 -> decide -> leave
 *
 * It keeps no state for a flow. A packet is ours by its destination {address, port} alone, or, for an ICMP
 * error, by the source of the packet that it is about. Whatever is not certainly ours is passed, untouched; so is
 * everything when the process dies, because the kernel empties the dead sockets' slots.
 * It must never take a packet of another service, and never let the kernel answer for a live flow of ours.
 *
 * docs/steering.md has the order of decisions as a picture and the reasons for the exits; their names, and all
 * that user space must know, come from the crate mtproxy-xdp-abi by way of abi.h.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "steer_maps.h"
#include "steer_parse.h"

static __always_inline __u64 setting(__u32 index)
{
	__u64 *cell = bpf_map_lookup_elem(&settings, &index);

	return cell ? *cell : 0;
}

enum owner { OWNER_NONE, OWNER_LISTENER, OWNER_UPSTREAM };

/* Whose is {addr, port}, where `local` is what we do at addr? */
static __always_inline enum owner owner_of(const struct local *local, const struct addr *addr, __be16 port)
{
	struct listener key = { .addr = *addr, .port = port };
	__u16 number = bpf_ntohs(port);

	if (bpf_map_lookup_elem(&listeners, &key))
		return OWNER_LISTENER;
	return number >= local->port_lo && number <= local->port_hi ? OWNER_UPSTREAM : OWNER_NONE;
}

static __always_inline bool is_denied(const struct addr *source)
{
	struct prefix key = { .bits = 8 * sizeof(struct addr), .addr = *source };

	return bpf_map_lookup_elem(&deny, &key);
}

/*
 * A token bucket for each source, written as its equal, the GCRA: the only state is the time at which the next SYN
 * would be on schedule. Two CPUs that race for one cell let one SYN too many through, no more.
 */
static __always_inline bool syn_is_over_rate(const struct addr *source, bool v6, __u64 now)
{
	__u64 interval = setting(SETTING_SYN_INTERVAL_NS);
	struct addr key = *source;
	__u64 *scheduled, next;

	if (!interval)
		return false;
	/* A /64 is what one IPv6 customer has at the least, and can fill with addresses at will. */
	if (v6)
		key.words[2] = key.words[3] = 0;

	scheduled = bpf_map_lookup_elem(&syn_sources, &key);
	if (!scheduled) {
		next = now + interval;
		bpf_map_update_elem(&syn_sources, &key, &next, BPF_ANY);
		return false;
	}
	next = *scheduled;
	if (next > now + setting(SETTING_SYN_TOLERANCE_NS))
		return true;
	*scheduled = (next > now ? next : now) + interval;
	return false;
}

/* From here on the kernel may have a connection at a listener of ours. */
static __always_inline void note_kernel_flow(void)
{
	__u32 index = 0;
	__u64 *last = bpf_map_lookup_elem(&kernel_flows, &index);

	if (last)
		*last = bpf_ktime_get_ns();
}

static __always_inline bool kernel_may_have_flows(void)
{
	__u32 index = 0;
	__u64 *last = bpf_map_lookup_elem(&kernel_flows, &index);

	return last && *last > setting(SETTING_KERNEL_FLOWS_GONE_NS);
}

/* Does this segment acknowledge a SYN cookie of the kernel's? */
static __always_inline bool answers_cookie(struct xdp_md *ctx, struct bpf_sock *sk, const struct ip_packet *ip,
					   struct tcphdr *tcp)
{
	if (!tcp->ack || tcp->syn || tcp->rst)
		return false;
	if (ip->v6) {
		struct ipv6hdr *v6 = bytes_at(ctx, ip->header, sizeof(*v6));

		return v6 && !bpf_tcp_check_syncookie(sk, v6, sizeof(*v6), tcp, sizeof(*tcp));
	} else {
		struct iphdr *v4 = bytes_at(ctx, ip->header, sizeof(*v4));

		return v4 && !bpf_tcp_check_syncookie(sk, v4, sizeof(*v4), tcp, sizeof(*tcp));
	}
}

/*
 * Has the kernel a socket for exactly this connection? The look-up finds request sockets (a handshake under way)
 * and sockets in TIME-WAIT as well, and the listening socket when there is nothing better. A listening socket owns a
 * segment only if that answers a SYN cookie; the check is cheap, since the kernel refuses it unless the listener
 * has overflowed of late. Returns EXITS when the kernel has nothing.
 */
static __always_inline enum exit kernel_owner(struct xdp_md *ctx, const struct ip_packet *ip,
					      const struct addr *remote, __be16 remote_port,
					      const struct addr *local, __be16 local_port, struct tcphdr *tcp)
{
	struct bpf_sock_tuple tuple = {};
	enum exit exit = EXITS;
	struct bpf_sock *sk;
	__u32 size;

	if (ip->v6) {
		__builtin_memcpy(tuple.ipv6.saddr, remote, sizeof(*remote));
		__builtin_memcpy(tuple.ipv6.daddr, local, sizeof(*local));
		tuple.ipv6.sport = remote_port;
		tuple.ipv6.dport = local_port;
		size = sizeof(tuple.ipv6);
	} else {
		tuple.ipv4.saddr = remote->words[3];
		tuple.ipv4.daddr = local->words[3];
		tuple.ipv4.sport = remote_port;
		tuple.ipv4.dport = local_port;
		size = sizeof(tuple.ipv4);
	}

	sk = bpf_skc_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return EXITS;
	if (sk->state != BPF_TCP_LISTEN)
		exit = EXIT_KERNEL_FLOW;
	else if (tcp && answers_cookie(ctx, sk, ip, tcp))
		exit = EXIT_KERNEL_COOKIE;
	bpf_sk_release(sk);
	return exit;
}

/* Who takes a new connection: the shard of this queue if it is alive and willing, else the kernel. */
static __always_inline enum exit steer_syn(struct xdp_md *ctx, __u64 now)
{
	__u32 queue = ctx->rx_queue_index;
	__u64 *beat = bpf_map_lookup_elem(&beats, &queue);

	if (setting(SETTING_DRAINING))
		return EXIT_KERNEL_DRAINING;
	if (!beat || !*beat)
		return EXIT_KERNEL_NO_BEAT;
	/* Signed: a shard on another CPU may have beaten after we read the clock. */
	if ((__s64)(now - *beat) > (__s64)setting(SETTING_STALE_AFTER_NS))
		return EXIT_KERNEL_STALE;
	return EXIT_REDIRECTED_SYN;
}

static __always_inline enum exit steer_listener(struct xdp_md *ctx, const struct ip_packet *ip, struct tcphdr *tcp)
{
	bool syn = tcp->syn && !tcp->ack;
	enum exit exit;
	__u64 now = 0;

	if (syn) {
		now = bpf_ktime_get_ns();
		if (syn_is_over_rate(&ip->source, ip->v6, now))
			return EXIT_SYN_LIMITED;
	}
	/* A SYN too: when the kernel answered the first copy, the second is not for a shard. */
	if (kernel_may_have_flows()) {
		exit = kernel_owner(ctx, ip, &ip->source, tcp->source, &ip->destination, tcp->dest, tcp);
		if (exit != EXITS) {
			if (syn)
				note_kernel_flow();
			return exit;
		}
	}
	if (!syn)
		return EXIT_REDIRECTED_SEGMENT;
	exit = steer_syn(ctx, now);
	if (exit < FIRST_DROP)
		note_kernel_flow();
	return exit;
}

/*
 * An ICMP error is ours if the packet that it is about came from us. What we send has neither IP options nor
 * extension headers and is never a fragment; an error about anything else is not about us. RFC 792 and RFC 4443 (2.4)
 * let the router return 8 bytes of TCP at the least, in which the ports and the sequence number are.
 */
static __always_inline enum exit steer_icmp(struct xdp_md *ctx, const struct ip_packet *ip, const struct local *local)
{
	struct quote quote;
	enum owner owner;

	if (!parse_icmp_quote(ctx, ip, &quote) || !same_addr(&quote.source, &ip->destination))
		return EXIT_ICMP_OTHER;
	owner = owner_of(local, &quote.source, quote.source_port);
	if (owner == OWNER_NONE)
		return EXIT_ICMP_OTHER;
	if (owner == OWNER_LISTENER && kernel_may_have_flows() &&
	    kernel_owner(ctx, ip, &quote.destination, quote.destination_port, &quote.source, quote.source_port, NULL) !=
		    EXITS)
		return EXIT_KERNEL_FLOW;
	return EXIT_REDIRECTED_ICMP;
}

/*
 * A fragment is never redirected: user space does not reassemble. It must not reach the kernel either, which would
 * reassemble, find no socket, and answer for us with an RST that our peer believes. The kernel cannot complete a
 * packet without its first fragment, the one that has the ports, so dropping that is enough; at an
 * address where all TCP is ours the rest is dropped too, since it could only wait for its timeout.
 */
static __always_inline enum exit steer_fragment(struct xdp_md *ctx, const struct ip_packet *ip,
						const struct local *local)
{
	struct ports *ports = bytes_at(ctx, ip->payload, sizeof(*ports));

	if (ip->protocol != IPPROTO_TCP)
		return EXIT_FRAGMENT_PASSED;
	if (ip->fragment == FRAGMENT_FIRST && ip->length >= (__s32)sizeof(*ports) && ports)
		return owner_of(local, &ip->destination, ports->destination) == OWNER_NONE ? EXIT_FRAGMENT_PASSED
											   : EXIT_FRAGMENT_DROPPED;
	return local->flags & LOCAL_DEDICATED ? EXIT_FRAGMENT_DROPPED : EXIT_FRAGMENT_PASSED;
}

static __always_inline enum exit decide(struct xdp_md *ctx)
{
	struct ip_packet ip = {};
	enum exit exit = parse_frame(ctx, &ip);
	struct tcphdr *tcp;
	struct local *local;
	enum owner owner;

	if (exit != EXITS)
		return exit;
	local = bpf_map_lookup_elem(&locals, &ip.destination);
	if (!local)
		return EXIT_NOT_LOCAL;
	if (ip.fragment != FRAGMENT_NONE)
		return steer_fragment(ctx, &ip, local);
	if (ip.protocol == (ip.v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return steer_icmp(ctx, &ip, local);
	if (ip.protocol != IPPROTO_TCP)
		return EXIT_NOT_TCP;

	tcp = bytes_at(ctx, ip.payload, sizeof(*tcp));
	if (ip.length < (__s32)sizeof(*tcp) || !tcp)
		return EXIT_TCP_TRUNCATED;
	owner = owner_of(local, &ip.destination, tcp->dest);
	if (owner == OWNER_NONE)
		return EXIT_FOREIGN_PORT;
	if (is_denied(&ip.source))
		return EXIT_DENIED;
	if (owner == OWNER_UPSTREAM)
		return EXIT_REDIRECTED_UPSTREAM;
	return steer_listener(ctx, &ip, tcp);
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	__u32 exit = decide(ctx);
	int verdict = exit >= FIRST_DROP ? XDP_DROP : XDP_PASS;
	__u64 *packets;

	if (exit >= FIRST_REDIRECT) {
		verdict = bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
		if (verdict != XDP_REDIRECT) {
			if (exit == EXIT_REDIRECTED_SYN)
				note_kernel_flow();
			exit = EXIT_NO_SOCKET;
		}
	}
	packets = bpf_map_lookup_elem(&exits, &exit);
	if (packets)
		*packets += 1;
	return verdict;
}

/* The kernel lets only programs that say GPL here use its socket look-up; ours is offered under the MIT licence too. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
