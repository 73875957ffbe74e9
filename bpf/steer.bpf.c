// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//
// Steers the frames of ringroad's sockets to their AF_XDP rings. Everything
// else goes on to the kernel, at once and unchanged (XDP_PASS): the road fails
// open. `src/device/xdp/steer.rs` holds the other side of these maps.
//
// Ours is
//  - on an owned address: every packet for it, and ARP that asks for it;
//  - on a shared address (one of the interface's own): TCP and UDP to a port
//    that we hold, the further fragments of such a packet, and ICMP errors about
//    a packet that such a port sent.
// In both cases only in frames to our MAC (ARP: broadcast too).

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

// The headers are defined here: not all of the system's compile for BPF.
#define ETH_P_IPV4 0x0800
#define ETH_P_ARP_ 0x0806
#define ETH_P_VLAN 0x8100
#define ETH_P_IPV6_ 0x86DD
#define ETH_P_QINQ 0x88A8
#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define FRAGMENT_OFFSET 0x1fff
#define FRAGMENT_MORE 0x2000
// How long a first fragment steers the rest (RFC 1122, 3.3.2: 60 to 120 s at
// most; a datagram of today is whole within a second).
#define FRAGMENT_LIFETIME_NS (30ULL * 1000 * 1000 * 1000)

struct eth_header {
	__u8 dst[6];
	__u8 src[6];
	__be16 type;
} __attribute__((packed));

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 src;
	__be32 dst;
} __attribute__((packed));

struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 rest;
} __attribute__((packed));

struct arp_header {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__be32 sender;
	__u8 target_mac[6];
	__be32 target;
} __attribute__((packed));

struct ports {
	__be16 src;
	__be16 dst;
};

// An address of either version: IPv4 as ::ffff:a.b.c.d.
struct address {
	__be32 words[4];
};

enum ownership {
	OWNERSHIP_SHARED = 1,
	OWNERSHIP_OWNED = 2,
};

// What user space writes at any time, without a system call.
struct settings {
	__u8 mac[6];
	__u8 pad[2];
};

// Two users counts to a slot: a memory-mapped array has slots of 8 bytes.
struct port_users {
	__u32 users[2];
};

struct fragment_key {
	struct address src;
	struct address dst;
	__be32 id;
	__u32 protocol;
};

// Keep in step with `STEER_REASONS` in src/device/xdp/steer.rs.
enum reason {
	REDIRECT_TCP,
	REDIRECT_UDP,
	REDIRECT_ICMP_ERROR,
	REDIRECT_FRAGMENT,
	REDIRECT_OWNED,
	REDIRECT_ARP,
	PASS_TRUNCATED,
	PASS_MAC,
	PASS_VLAN,
	PASS_IPV6,
	PASS_ETHERTYPE,
	PASS_ARP,
	PASS_MALFORMED,
	PASS_ADDRESS,
	PASS_PROTOCOL,
	PASS_PORT,
	PASS_ICMP,
	PASS_FRAGMENT,
	PASS_NO_SOCKET,
	REASONS,
};

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64); // the number of queues, set before loading
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

// users[protocol TCP 0, UDP 1][local port], two ports to a slot.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct port_users);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct address);
	__type(value, __u32); // enum ownership
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fragment_key);
	__type(value, __u64); // when the first fragment came
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 reason)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &reason);

	if (counter)
		*counter += 1; // per CPU, and XDP does not nest
}

static __always_inline int pass(__u32 reason)
{
	count(reason);
	return XDP_PASS;
}

static __always_inline int redirect(struct xdp_md *ctx, __u32 reason)
{
	// With XDP_PASS as its flags the call itself answers XDP_PASS where the
	// queue has no socket (Linux 5.3 and later).
	int action = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);

	count(action == XDP_REDIRECT ? reason : PASS_NO_SOCKET);
	return action;
}

static __always_inline void map_ipv4(struct address *address, __be32 ipv4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = bpf_htonl(0xffff);
	address->words[3] = ipv4;
}

static __always_inline __u32 ownership_of(__be32 ipv4)
{
	struct address key;
	__u32 *value;

	map_ipv4(&key, ipv4);
	value = bpf_map_lookup_elem(&addresses, &key);
	return value ? *value : 0;
}

static __always_inline int port_held(__u32 is_udp, __be16 port)
{
	__u32 host = bpf_ntohs(port);
	__u32 slot = (is_udp << 15) | (host >> 1);
	struct port_users *entry = bpf_map_lookup_elem(&ports, &slot);

	return entry && ((host & 1) ? entry->users[1] : entry->users[0]);
}

static __always_inline int to_our_mac(const struct eth_header *eth)
{
	__u32 zero = 0;
	struct settings *own = bpf_map_lookup_elem(&settings, &zero);
	__u8 differs = 0;

	if (!own)
		return 0;
#pragma unroll
	for (int i = 0; i < 6; i++)
		differs |= own->mac[i] ^ eth->dst[i];
	return !differs;
}

static __always_inline int is_broadcast(const struct eth_header *eth)
{
	__u8 all = 0xff;

#pragma unroll
	for (int i = 0; i < 6; i++)
		all &= eth->dst[i];
	return all == 0xff;
}

static __always_inline int steer_arp(struct xdp_md *ctx, void *data, void *end)
{
	struct arp_header *arp = data;

	if ((void *)(arp + 1) > end)
		return pass(PASS_TRUNCATED);
	if (arp->hardware != bpf_htons(1) || arp->protocol != bpf_htons(ETH_P_IPV4) ||
	    arp->hardware_length != 6 || arp->protocol_length != 4)
		return pass(PASS_ARP);
	if (ownership_of(arp->target) != OWNERSHIP_OWNED)
		return pass(PASS_ARP);
	return redirect(ctx, REDIRECT_ARP);
}

static __always_inline void fragment_key(struct fragment_key *key, const struct ipv4_header *ip)
{
	map_ipv4(&key->src, ip->src);
	map_ipv4(&key->dst, ip->dst);
	key->id = ip->id;
	key->protocol = ip->protocol;
}

// A fragment that is not the first: it goes where the first one went. What
// comes before the first goes to the kernel, and is lost if it was ours.
static __always_inline int steer_later_fragment(struct xdp_md *ctx, const struct ipv4_header *ip)
{
	struct fragment_key key;
	__u64 *since;

	fragment_key(&key, ip);
	since = bpf_map_lookup_elem(&fragments, &key);
	if (!since || bpf_ktime_get_ns() - *since > FRAGMENT_LIFETIME_NS)
		return pass(PASS_FRAGMENT);
	return redirect(ctx, REDIRECT_FRAGMENT);
}

static __always_inline void note_first_fragment(const struct ipv4_header *ip, int ours)
{
	struct fragment_key key;

	fragment_key(&key, ip);
	if (ours) {
		__u64 now = bpf_ktime_get_ns();

		bpf_map_update_elem(&fragments, &key, &now, BPF_ANY);
	} else {
		// The identification is in use again, by a packet of the kernel's.
		bpf_map_delete_elem(&fragments, &key);
	}
}

// ICMP on a shared address: echo and the like are the kernel's; an error is ours
// if it quotes a packet that one of our ports sent.
static __always_inline int steer_icmp(struct xdp_md *ctx, __be32 dst, void *data, void *end)
{
	struct icmp_header *icmp = data;
	struct ipv4_header *quoted;
	struct ports *l4;
	__u32 ihl;

	if ((void *)(icmp + 1) > end)
		return pass(PASS_ICMP);
	// Destination unreachable, time exceeded, parameter problem.
	if (icmp->type != 3 && icmp->type != 11 && icmp->type != 12)
		return pass(PASS_ICMP);
	quoted = (void *)(icmp + 1);
	if ((void *)(quoted + 1) > end)
		return pass(PASS_ICMP);
	ihl = (quoted->version_ihl & 15) * 4;
	if (quoted->version_ihl >> 4 != 4 || ihl < sizeof(*quoted) || quoted->src != dst)
		return pass(PASS_ICMP);
	if (quoted->fragment & bpf_htons(FRAGMENT_OFFSET))
		return pass(PASS_ICMP);
	if (quoted->protocol != PROTO_TCP && quoted->protocol != PROTO_UDP)
		return pass(PASS_ICMP);
	l4 = (void *)quoted + ihl;
	if ((void *)(l4 + 1) > end)
		return pass(PASS_ICMP);
	if (!port_held(quoted->protocol == PROTO_UDP, l4->src))
		return pass(PASS_ICMP);
	return redirect(ctx, REDIRECT_ICMP_ERROR);
}

static __always_inline int steer_ipv4(struct xdp_md *ctx, void *data, void *end)
{
	struct ipv4_header *ip = data;
	struct ports *l4;
	__u32 ownership, ihl, is_udp;
	int held;

	if ((void *)(ip + 1) > end)
		return pass(PASS_TRUNCATED);
	ihl = (ip->version_ihl & 15) * 4;
	if (ip->version_ihl >> 4 != 4 || ihl < sizeof(*ip))
		return pass(PASS_MALFORMED);
	ownership = ownership_of(ip->dst);
	if (ownership == OWNERSHIP_OWNED)
		return redirect(ctx, REDIRECT_OWNED);
	if (ownership != OWNERSHIP_SHARED)
		return pass(PASS_ADDRESS);

	if (ip->protocol != PROTO_TCP && ip->protocol != PROTO_UDP && ip->protocol != PROTO_ICMP)
		return pass(PASS_PROTOCOL);
	if (ip->fragment & bpf_htons(FRAGMENT_OFFSET))
		return steer_later_fragment(ctx, ip);
	if (ip->protocol == PROTO_ICMP)
		return steer_icmp(ctx, ip->dst, data + ihl, end);

	l4 = data + ihl;
	if ((void *)(l4 + 1) > end)
		return pass(PASS_TRUNCATED);
	is_udp = ip->protocol == PROTO_UDP;
	held = port_held(is_udp, l4->dst);
	if (ip->fragment & bpf_htons(FRAGMENT_MORE))
		note_first_fragment(ip, held);
	if (!held)
		return pass(PASS_PORT);
	return redirect(ctx, is_udp ? REDIRECT_UDP : REDIRECT_TCP);
}

static __always_inline int steer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct eth_header *eth = data;
	void *next = eth + 1;

	if (next > end)
		return pass(PASS_TRUNCATED);
	if (!to_our_mac(eth)) {
		if (eth->type == bpf_htons(ETH_P_ARP_) && is_broadcast(eth))
			return steer_arp(ctx, next, end);
		return pass(PASS_MAC);
	}
	switch (eth->type) {
	case bpf_htons(ETH_P_IPV4):
		return steer_ipv4(ctx, next, end);
	case bpf_htons(ETH_P_ARP_):
		return steer_arp(ctx, next, end);
	case bpf_htons(ETH_P_IPV6_):
		return pass(PASS_IPV6);
	case bpf_htons(ETH_P_VLAN):
	case bpf_htons(ETH_P_QINQ):
		return pass(PASS_VLAN);
	default:
		return pass(PASS_ETHERTYPE);
	}
}

SEC("xdp")
int ringroad_steer(struct xdp_md *ctx)
{
	return steer(ctx);
}

// The same for packets of several buffers (jumbo frames): the headers lie in the
// first, which is the part that direct access reaches.
SEC("xdp.frags")
int ringroad_frags(struct xdp_md *ctx)
{
	return steer(ctx);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
