/* What a book would write: rules in an LPM trie, flows in an LRU hash for each CPU, counters for each
 * CPU. Same addresses, ports and protocol as Weir looks at; jiffies and no other clock, which many
 * such programs pay some 30 ns for. */
#include "bpf.h"

struct prefix {
	u32 len;
	u32 address;
};

struct key {
	u32 source, destination, ports, protocol;
};

struct flow {
	u64 packets, bytes, first_seen, last_seen;
};

struct count {
	u64 packets, bytes;
};

struct {
	UINT(type, MAP_LPM_TRIE);
	UINT(max_entries, 1024);
	UINT(map_flags, NO_PREALLOC);
	TYPE(key, struct prefix);
	TYPE(value, u32);
} prefixes SEC(".maps");

struct {
	UINT(type, MAP_LRU_PERCPU_HASH);
	UINT(max_entries, 4096);
	TYPE(key, struct key);
	TYPE(value, struct flow);
} flows SEC(".maps");

struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, 2);
	TYPE(key, u32);
	TYPE(value, struct count);
} counters SEC(".maps");

SEC("xdp") int textbook(struct xdp_md *xdp)
{
	void *data = (void *)(u64)xdp->data, *end = (void *)(u64)xdp->data_end;
	u16 *ethertype = data + 12;
	u32 *ip = data + 14, *ports = data + 34;
	if (data + 42 > end || *ethertype != be16(0x0800) || (be32(ip[0]) >> 24) != 0x45)
		return XDP_PASS;
	struct prefix prefix = { 32, ip[3] };
	struct key key = { ip[3], ip[4], *ports, be32(ip[2]) >> 16 & 0xff };
	u32 denied = map_lookup(&prefixes, &prefix) != 0;
	u64 len = end - data, now = jiffies64();

	struct count *count = map_lookup(&counters, &denied);
	if (count) {
		count->packets++;
		count->bytes += len;
	}
	struct flow *flow = map_lookup(&flows, &key);
	if (flow) {
		flow->packets++;
		flow->bytes += len;
		flow->last_seen = now;
	} else {
		struct flow fresh = { 1, len, now, now };
		map_update(&flows, &key, &fresh, 0);
	}
	return denied ? XDP_DROP : XDP_PASS;
}
