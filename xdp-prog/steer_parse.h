/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Headers of a frame, down to where TCP or ICMP begins. Nothing here looks into a map.
 *
 * Every parser returns EXITS to say "go on", or the exit by which the packet leaves. Lengths are taken from the IP
 * header, not from the frame: a short packet is padded to 60 bytes by Ethernet, and padding is not payload.
 *
 * Positions are offsets from the frame's first byte, not pointers, and parse_frame is not inlined: so the verifier
 * takes it by itself, and all the ways through it as one way out. Inlined, each would be followed through all
 * that comes after, which is 580,000 instructions instead of a few thousand.
 */

/* linux/ipv6.h of user space lacks it; RFC 8200 (4.5). */
struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 identification;
};
#define IPV6_FRAGMENT_OFFSET 0xfff8
#define IPV6_FRAGMENT_MORE 0x0001
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV4_FRAGMENT_MORE 0x2000

/* RFC 9293 (3.1), RFC 792: the first 8 bytes of TCP, of which a router quotes no less. */
struct ports {
	__be16 source;
	__be16 destination;
	__be32 sequence;
};

struct vlan_tag {
	__be16 control;
	__be16 protocol;
};

enum fragment { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

/* What is known of a packet once its IP header has been read. Without holes: the verifier wants every byte set. */
struct ip_packet {
	__u32 header;	/* where the IP header is */
	__u32 payload;	/* where that begins which follows it, and extension headers */
	__s32 length;	/* bytes of payload, as the IP header has it */
	__u32 fragment;	/* enum fragment */
	__u32 protocol;
	__u32 v6;	/* bool */
	struct addr source;
	struct addr destination;
};

/* The packet that an ICMP error is about. */
struct quote {
	struct addr source;
	struct addr destination;
	__be16 source_port;
	__be16 destination_port;
};

static __always_inline struct addr addr_v4(__be32 ip)
{
	return (struct addr){ .words = { 0, 0, bpf_htonl(0xffff), ip } };
}

static __always_inline struct addr addr_v6(const struct in6_addr *ip)
{
	struct addr addr;

	__builtin_memcpy(&addr, ip, sizeof(addr));
	return addr;
}

static __always_inline bool is_mapped_v4(const struct addr *addr)
{
	return !addr->words[0] && !addr->words[1] && addr->words[2] == bpf_htonl(0xffff);
}

static __always_inline bool same_addr(const struct addr *a, const struct addr *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1] && a->words[2] == b->words[2] &&
	       a->words[3] == b->words[3];
}

/* No frame of an AF_XDP socket is longer than a page, less its headroom; the verifier wants some bound. */
#define OFFSET_MAX 4096

/* So many bytes at an offset, or NULL if the frame does not have them. */
static __always_inline void *bytes_at(struct xdp_md *ctx, __u32 offset, __u32 size)
{
	void *at = (void *)(long)ctx->data;

	if (offset > OFFSET_MAX)
		return NULL;
	at += offset;
	return at + size <= (void *)(long)ctx->data_end ? at : NULL;
}

static __always_inline enum exit parse_ipv4(struct xdp_md *ctx, __u32 offset, struct ip_packet *packet)
{
	struct iphdr *header = bytes_at(ctx, offset, sizeof(*header));
	__u32 header_length;
	__u16 fragment;

	if (!header)
		return EXIT_IP_MALFORMED;
	header_length = header->ihl * 4;
	packet->length = (__s32)bpf_ntohs(header->tot_len) - (__s32)header_length;
	if (header->version != 4 || header_length < sizeof(*header) || packet->length < 0)
		return EXIT_IP_MALFORMED;

	fragment = bpf_ntohs(header->frag_off);
	if (fragment & IPV4_FRAGMENT_OFFSET)
		packet->fragment = FRAGMENT_LATER;
	else if (fragment & IPV4_FRAGMENT_MORE)
		packet->fragment = FRAGMENT_FIRST;
	packet->header = offset;
	packet->payload = offset + header_length;
	packet->protocol = header->protocol;
	packet->source = addr_v4(header->saddr);
	packet->destination = addr_v4(header->daddr);
	return EXITS;
}

static __always_inline bool is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS ||
	       protocol == IPPROTO_FRAGMENT;
}

/*
 * Walks the extension headers, up to and including the fragment header of a later fragment, behind which there is
 * nothing to read. A fragment header that announces neither more nor less than the whole (RFC 6946) is no fragment.
 */
static __always_inline enum exit walk_extensions(struct xdp_md *ctx, struct ip_packet *packet)
{
	for (int walked = 0; is_extension(packet->protocol); walked++) {
		struct fragment_header *header = bytes_at(ctx, packet->payload, sizeof(*header));
		__u32 length = sizeof(*header);

		/* Every one of them is 8 bytes or a multiple, with the next header's number first. */
		if (walked == EXTENSION_HEADERS_MAX || !header)
			return EXIT_IPV6_CHAIN;
		if (packet->protocol == IPPROTO_FRAGMENT) {
			if (header->offset & bpf_htons(IPV6_FRAGMENT_OFFSET))
				packet->fragment = FRAGMENT_LATER;
			else if (header->offset & bpf_htons(IPV6_FRAGMENT_MORE))
				packet->fragment = FRAGMENT_FIRST;
		} else {
			length += 8 * header->reserved; /* which is where the others have their length */
		}
		packet->protocol = header->next;
		packet->payload += length;
		packet->length -= length;
		if (packet->fragment == FRAGMENT_LATER)
			break;
	}
	return packet->length < 0 ? EXIT_IPV6_CHAIN : EXITS;
}

static __always_inline enum exit parse_ipv6(struct xdp_md *ctx, __u32 offset, struct ip_packet *packet)
{
	struct ipv6hdr *header = bytes_at(ctx, offset, sizeof(*header));

	if (!header || header->version != 6)
		return EXIT_IP_MALFORMED;
	packet->v6 = true;
	packet->header = offset;
	packet->payload = offset + sizeof(*header);
	packet->length = bpf_ntohs(header->payload_len);
	packet->protocol = header->nexthdr;
	packet->source = addr_v6(&header->saddr);
	packet->destination = addr_v6(&header->daddr);
	/* Such addresses do not belong on the wire (RFC 4291, 2.5.5.2), and in our maps they mean IPv4. */
	if (is_mapped_v4(&packet->source) || is_mapped_v4(&packet->destination))
		return EXIT_IP_MALFORMED;
	return walk_extensions(ctx, packet);
}

/* From the Ethernet header through at most two VLAN tags to the end of the IP header. */
__noinline int parse_frame(struct xdp_md *ctx, struct ip_packet *packet)
{
	struct ethhdr *ethernet = bytes_at(ctx, 0, sizeof(*ethernet));
	__u32 offset = sizeof(*ethernet);
	__be16 protocol;
	bool group;

	if (!packet || !ethernet)
		return EXIT_NOT_IP;
	protocol = ethernet->h_proto;
	group = ethernet->h_dest[0] & 1;
	for (int tags = 0; protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD); tags++) {
		struct vlan_tag *tag = bytes_at(ctx, offset, sizeof(*tag));

		if (tags == 2)
			return EXIT_VLAN_DEPTH;
		if (!tag)
			return EXIT_NOT_IP;
		protocol = tag->protocol;
		offset += sizeof(*tag);
	}
	if (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6))
		return EXIT_NOT_IP;
	if (group)
		return EXIT_GROUP_FRAME;
	return protocol == bpf_htons(ETH_P_IP) ? parse_ipv4(ctx, offset, packet) : parse_ipv6(ctx, offset, packet);
}

/* Is this type of ICMP an error that a TCP has to hear of? RFC 1122 (4.2.3.9); RFC 4443 (2.1): below 128. */
static __always_inline bool is_icmp_error(__u8 type, bool v6)
{
	enum { UNREACHABLE = 3, SOURCE_QUENCH = 4, TIME_EXCEEDED = 11, PARAMETER_PROBLEM = 12 };

	if (v6)
		return type >= 1 && type <= 4;
	return type == UNREACHABLE || type == SOURCE_QUENCH || type == TIME_EXCEEDED || type == PARAMETER_PROBLEM;
}

/* Reads what an ICMP error quotes, if it is an error and quotes TCP as we send it. */
static __always_inline bool parse_icmp_quote(struct xdp_md *ctx, const struct ip_packet *packet, struct quote *quote)
{
	const __u32 inner = packet->payload + 8; /* behind ICMP's own header */
	const __s32 inner_header = packet->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	__u8 *type = bytes_at(ctx, packet->payload, sizeof(*type));
	struct ports *ports;

	if (!type || !is_icmp_error(*type, packet->v6) || packet->length < 8 + inner_header + (__s32)sizeof(*ports))
		return false;
	if (packet->v6) {
		struct ipv6hdr *header = bytes_at(ctx, inner, sizeof(*header));

		if (!header || header->version != 6 || header->nexthdr != IPPROTO_TCP)
			return false;
		quote->source = addr_v6(&header->saddr);
		quote->destination = addr_v6(&header->daddr);
	} else {
		struct iphdr *header = bytes_at(ctx, inner, sizeof(*header));

		if (!header || header->version != 4 || header->ihl != 5 || header->protocol != IPPROTO_TCP ||
		    header->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET | IPV4_FRAGMENT_MORE))
			return false;
		quote->source = addr_v4(header->saddr);
		quote->destination = addr_v4(header->daddr);
	}
	ports = bytes_at(ctx, inner + inner_header, sizeof(*ports));
	if (!ports)
		return false;
	quote->source_port = ports->source;
	quote->destination_port = ports->destination;
	return true;
}
