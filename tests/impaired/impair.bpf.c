// SPDX-License-Identifier: GPL-2.0-only OR MIT OR Apache-2.0
//
// Drops, duplicates, reorders and corrupts TCP segments as they come in from one
// end host (clsact ingress of a leg of the middle namespace: what a sender loses
// on its own egress, its kernel is told of). Which segment suffers what depends
// on the seed and on the segment's number alone. Test-only; `mod.rs` beside this
// file loads it, once for each leg.

#include <linux/types.h>
#include <linux/bpf.h>

// Of libbpf's headers this needs so little that it does without them.
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
static void *(*const bpf_map_lookup_elem)(void *, const void *) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const bpf_skb_load_bytes)(const void *, __u32, void *, __u32) = (void *)BPF_FUNC_skb_load_bytes;
static long (*const bpf_skb_store_bytes)(struct __sk_buff *, __u32, const void *, __u32, __u64) =
	(void *)BPF_FUNC_skb_store_bytes;
static long (*const bpf_clone_redirect)(struct __sk_buff *, __u32, __u64) = (void *)BPF_FUNC_clone_redirect;
static long (*const bpf_redirect)(__u32, __u64) = (void *)BPF_FUNC_redirect;

// As in <linux/pkt_cls.h>, which does not compile for BPF everywhere.
#define ACT_OK 0
#define ACT_SHOT 2
#define ETHER 14
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define IPV4 0x0008
#else
#define IPV4 0x0800
#endif
#define PROTO_TCP 6
// The mark of a copy that comes in a second time; packets from another
// namespace have none.
#define COPY 0x5252434f

// Parts of 2^32; a segment suffers at most one of these.
struct settings {
	__u64 seed;
	__u32 drop;
	__u32 duplicate;
	__u32 reorder;
	__u32 corrupt;
	// The interface of the slow lane: reordered segments take it.
	__u32 slow_lane;
	__u32 unused;
};

// `mod.rs` reads these in this order.
struct counters {
	__u64 segments;
	__u64 bytes;
	__u64 dropped;
	__u64 duplicated;
	__u64 reordered;
	__u64 corrupted;
	// Of the IPv4 packets that were not TCP.
	__u64 others;
	// Bytes of the largest frame, without its Ethernet header.
	__u64 largest;
	// Helpers of the kernel that refused; none should.
	__u64 failures;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

static __always_inline void count(__u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

// A well-mixed number of (seed, n), by the multiply-and-shift finisher of SplitMix64.
static __always_inline __u64 mixed(__u64 seed, __u64 n)
{
	__u64 z = seed + (n + 1) * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

// Turns one bit of the TCP header or its payload over: the checksum shows it.
static __always_inline int corrupt(struct __sk_buff *skb, __u32 from, __u32 draw)
{
	__u32 len = skb->len, at;
	__u8 byte;

	if (len <= from || len > 65535)
		return -1;
	at = from + (draw >> 3) % (len - from);
	if (bpf_skb_load_bytes(skb, at, &byte, 1) < 0)
		return -1;
	byte ^= 1 << (draw & 7);
	return bpf_skb_store_bytes(skb, at, &byte, 1, 0);
}

SEC("tc")
int impair(struct __sk_buff *skb)
{
	__u32 zero = 0, x, header;
	struct settings *s = bpf_map_lookup_elem(&settings, &zero);
	struct counters *c = bpf_map_lookup_elem(&counters, &zero);
	__u8 version_ihl, protocol;
	__u64 draw;

	if (!s || !c || skb->protocol != IPV4 || skb->mark == COPY)
		return ACT_OK;
	if (skb->len - ETHER > c->largest)
		c->largest = skb->len - ETHER;
	if (bpf_skb_load_bytes(skb, ETHER, &version_ihl, 1) < 0 ||
	    bpf_skb_load_bytes(skb, ETHER + 9, &protocol, 1) < 0 || protocol != PROTO_TCP) {
		count(&c->others);
		return ACT_OK;
	}
	header = ETHER + (version_ihl & 15) * 4;
	draw = mixed(s->seed, __sync_fetch_and_add(&c->segments, 1));
	__sync_fetch_and_add(&c->bytes, skb->len - ETHER);
	x = (__u32)draw;

	if (x < s->drop) {
		count(&c->dropped);
		return ACT_SHOT;
	}
	x -= s->drop;
	if (x < s->duplicate) {
		skb->mark = COPY;
		count(bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS) ? &c->failures : &c->duplicated);
		skb->mark = 0;
		return ACT_OK;
	}
	x -= s->duplicate;
	if (x < s->reorder) {
		count(&c->reordered);
		return bpf_redirect(s->slow_lane, 0);
	}
	x -= s->reorder;
	if (x < s->corrupt)
		count(corrupt(skb, header, draw >> 32) ? &c->failures : &c->corrupted);
	return ACT_OK;
}

char _license[] SEC("license") = "Dual MIT/GPL";
