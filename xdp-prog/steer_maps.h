/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The maps, and the structs in them. What each is for is said where user space names it, in the crate
 * mtproxy-xdp-abi. BPF_F_RDONLY_PROG marks what only user space writes.
 */

/* Either family: IPv4 is ::ffff:a.b.c.d. */
struct addr {
	__be32 words[4];
};

struct listener {
	struct addr addr;
	__be16 port;
	__be16 zero;
};

struct local {
	__u16 port_lo;
	__u16 port_hi;
	__u32 flags;
};

struct prefix {
	__u32 bits;
	struct addr addr;
};

#define ASSERT_STRUCT(type, size) _Static_assert(sizeof(struct type) == size, #type);
#define ASSERT_FIELD(type, field, offset, size)                                                             \
	_Static_assert(offsetof(struct type, field) == offset && sizeof(((struct type *)0)->field) == size, \
		       #type "." #field);
ABI_LAYOUT(ASSERT_STRUCT, ASSERT_FIELD)

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUEUES_MAX);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, __u64);
} beats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SETTINGS);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, __u64);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LOCALS_MAX);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, struct addr);
	__type(value, struct local);
} locals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LISTENERS_MAX);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, struct listener);
	__type(value, __u8);
} listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, DENY_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__type(key, struct prefix);
	__type(value, __u8);
} deny SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SYN_SOURCES_MAX);
	__type(key, struct addr);
	__type(value, __u64);
} syn_sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} kernel_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EXITS);
	__type(key, __u32);
	__type(value, __u64);
} exits SEC(".maps");
