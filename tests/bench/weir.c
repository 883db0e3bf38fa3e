/* The XDP program of Weir once more, in C, to see what Rust costs: the same headers, counters, cache
 * of flows and narrow filter, in maps of the same layout (`common`), so that one compiled rule set
 * serves both. What the compared variants switch off is left out: counting rules, rate limits,
 * replies, and filters of more than 64 entries. */
#include "quick.h"

/* Constants at load. */
const volatile u8 WEIR_TELEMETRY = 1;
const volatile u64 WEIR_USED_IN = 0;
const volatile u32 WEIR_GENERATION = 0;
const volatile u32 WEIR_FLOWS = 0;
const volatile u64 WEIR_EXPORT = 0;
const volatile u64 WEIR_SEED = 0;

/* common/src/filter/used.rs */
#define USED_FILTER (1ull << 0)
#define USED_SOURCE_PORTS (1ull << 4)
#define USED_DESTINATION_PORTS (1ull << 5)
#define USED_RULES (1ull << 7)
/* How many leading octets of the addresses at one end are looked at. */
#define SOURCE_V4(used) ((used) >> 8 & 0x1f)
#define DESTINATION_V4(used) ((used) >> 16 & 0x1f)
#define SOURCE_V6(used) ((used) >> 24 & 0x1f)
#define DESTINATION_V6(used) ((used) >> 32 & 0x1f)
#define USED_DENY (1ull << 48)

enum { ALLOWED, BY_RULE, BY_DEFAULT, BY_RATE, UNREADABLE, VERDICTS };

struct count {
	u64 packets;
	u64 bytes;
};

struct counters {
	struct count traffic[VERDICTS * PROTOCOLS];
	u64 sizes[12];
	u64 tcp[4];
	u64 fragments, tagged, replies, evicted, exported, lost, generation, reserved;
};

struct flow {
	u64 addresses[4];
	u32 ports;
	u16 kind;
	u8 tcp_flags;
	u8 verdict;
	u64 packets;
	u64 bytes;
	u32 first_seen;
	u32 last_seen;
};

struct ports {
	u8 pages[256];
	u8 sets[64][256];
	u64 words[128];
};

struct ruleset {
	u64 allow, limit, count, reserved;
	u16 rules[64];
	u64 classes[512];
	struct ports source, destination;
	u64 v4[8][256];
	u64 v6[32][256];
};

struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, 2);
	TYPE(key, u32);
	TYPE(value, struct counters);
} weir_counters SEC(".maps");

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct ruleset);
} weir_rules SEC(".maps");

struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, 64);
	TYPE(key, u32);
	TYPE(value, struct count);
} weir_hits SEC(".maps");

struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, 4096);
	TYPE(key, u32);
	TYPE(value, struct flow);
} weir_flows SEC(".maps");

struct {
	UINT(type, MAP_RINGBUF);
	UINT(max_entries, 1 << 16);
} weir_evicted SEC(".maps");

static const u8 POSITIONS[64] = {
	0, 1, 48, 2, 57, 49, 28, 3, 61, 58, 50, 42, 38, 29, 17, 4,
	62, 55, 59, 36, 53, 51, 43, 22, 45, 39, 33, 30, 24, 18, 12, 5,
	63, 47, 56, 27, 60, 41, 37, 16, 54, 35, 52, 21, 44, 32, 23, 11,
	46, 26, 40, 15, 34, 20, 31, 10, 25, 14, 19, 9, 13, 8, 7, 6,
};

/* The number of the one bit that is set. */
INLINE u32 position(u64 bit)
{
	return POSITIONS[bit * 0x03f79d71b4cb0a89ull >> 58 & 63];
}

INLINE u64 of_port(const struct ports *ports, u32 port)
{
	u32 page = ports->pages[port >> 8 & 0xff] & 63;
	return ports->words[ports->sets[page][port & 0xff] & 127];
}

#define OCTET(words, n) ((words)[(n) / 8] >> 8 * ((n) % 8) & 0xff)

INLINE u64 matches(const struct ruleset *rules, const struct packet *packet, const u64 *addresses)
{
	u64 used = WEIR_USED_IN, found = rules->classes[packet->marks & CLASS];
	u32 marks = packet->marks;
	if ((marks & IP) && (marks & REACH(3)) && (marks & V6)) {
#pragma unroll
		for (u32 n = 0; n < 16; n++) {
			if (SOURCE_V6(used) > n)
				found &= rules->v6[n][OCTET(addresses, n)];
			if (DESTINATION_V6(used) > n)
				found &= rules->v6[16 + n][OCTET(addresses, 16 + n)];
		}
	} else if ((marks & IP) && (marks & REACH(3))) {
#pragma unroll
		for (u32 n = 0; n < 4; n++) {
			if (SOURCE_V4(used) > n)
				found &= rules->v4[n][OCTET(addresses, n)];
			if (DESTINATION_V4(used) > n)
				found &= rules->v4[4 + n][OCTET(addresses, 4 + n)];
		}
	}
	if ((marks & REACH(3)) == REACH(WHOLE)) {
		if (used & USED_SOURCE_PORTS)
			found &= of_port(&rules->source, packet->ports >> 16);
		if (used & USED_DESTINATION_PORTS)
			found &= of_port(&rules->destination, packet->ports & 0xffff);
	}
	return found;
}

/* Whether the packet passes. */
INLINE int judge(const struct packet *packet, const u64 *addresses, u32 len, u32 *verdict)
{
	u64 used = WEIR_USED_IN;
	u32 zero = 0, marks = packet->marks, allowed = marks & MALFORMED ? UNREADABLE : ALLOWED;
	*verdict = allowed;
	if (!(used & USED_FILTER) || (marks & NEIGHBOUR_DISCOVERY))
		return 1;
	if ((marks & REACH(3)) == REACH(WHOLE) && !(marks & IP))
		return 1;
	struct ruleset *rules;
	if ((used & USED_RULES) && (rules = map_lookup(&weir_rules, &zero))) {
		u64 found = matches(rules, packet, addresses) & ~rules->count;
		u64 bit = found & -found;
		if (bit) {
			u32 rule = rules->rules[position(bit) & 63];
			struct count *hits = map_lookup(&weir_hits, &rule);
			if (hits) {
				hits->packets++;
				hits->bytes += len;
			}
			if (rules->allow & bit)
				return 1;
			*verdict = marks & MALFORMED ? UNREADABLE : BY_RULE;
			return 0;
		}
	}
	if (used & USED_DENY) {
		*verdict = marks & MALFORMED ? UNREADABLE : BY_DEFAULT;
		return 0;
	}
	return 1;
}

INLINE u32 size_bucket(u32 size)
{
	if (size <= 1024) {
		if (size <= 128)
			return size <= 64 ? 0 : 1;
		return size <= 256 ? 2 : size <= 512 ? 3 : 4;
	}
	if (size <= 4096)
		return size <= 2048 ? 5 : 6;
	if (size <= 16384)
		return size <= 8192 ? 7 : 8;
	return size <= 32768 ? 9 : size <= 65536 ? 10 : 11;
}

INLINE void count(struct counters *counters, const struct packet *packet, u32 verdict, u32 len)
{
	u32 marks = packet->marks, flags = marks >> TCP_FLAGS_SHIFT;
	struct count *kind = &counters->traffic[verdict * PROTOCOLS + (marks & 7)];
	kind->packets++;
	kind->bytes += len;
	counters->sizes[size_bucket(len)]++;
	if (flags & 2)
		counters->tcp[flags & 0x10 ? 1 : 0]++;
	if (flags & 1)
		counters->tcp[2]++;
	if (flags & 4)
		counters->tcp[3]++;
	if (marks & FRAGMENT)
		counters->fragments++;
	if (marks & TAGGED)
		counters->tagged++;
	counters->generation = WEIR_GENERATION;
}

INLINE u32 mixed(const u64 *words, u64 rest, u32 v6)
{
	u64 hash = (words[0] ^ rest) * 0x9e3779b97f4a7c15ull;
	if (v6) {
		hash ^= hash >> 32;
		hash = (hash ^ words[1] ^ (words[2] << 29 | words[2] >> 35)) * 0xb504f333f9de6485ull;
		hash ^= hash >> 32;
		hash = (hash ^ words[3]) * 0x9e3779b97f4a7c15ull;
	}
	hash ^= hash >> 32;
	return (hash ^ rest) * 0xddb3d742c265539dull >> 32;
}

INLINE void flow(struct counters *counters, const struct packet *packet, const u64 *addresses,
		 u32 verdict, u32 len)
{
	u32 kind = packet->marks & (V6 | 7), v6 = kind & V6, now = jiffies64();
	u64 rest = (packet->ports | (u64)kind << 32) ^ WEIR_SEED;
	u32 place = mixed(addresses, rest, v6) & (WEIR_FLOWS - 1);
	struct flow *flow = map_lookup(&weir_flows, &place);
	if (!flow)
		return;
	if (flow->ports != packet->ports || flow->kind != kind || flow->addresses[0] != addresses[0] ||
	    (v6 && (flow->addresses[1] != addresses[1] || flow->addresses[2] != addresses[2] ||
		    flow->addresses[3] != addresses[3]))) {
		if (flow->packets) {
			counters->evicted++;
			if (flow->packets >= WEIR_EXPORT) {
				if (ringbuf_output(&weir_evicted, flow, sizeof(*flow), 0))
					counters->lost++;
				else
					counters->exported++;
			}
		}
		flow->addresses[0] = addresses[0];
		flow->addresses[1] = addresses[1];
		flow->addresses[2] = addresses[2];
		flow->addresses[3] = addresses[3];
		flow->ports = packet->ports;
		flow->kind = kind;
		flow->tcp_flags = 0;
		flow->packets = 0;
		flow->bytes = 0;
		flow->first_seen = now;
	}
	flow->packets++;
	flow->bytes += len;
	flow->tcp_flags |= packet->marks >> TCP_FLAGS_SHIFT;
	flow->verdict = verdict;
	flow->last_seen = now;
}

INLINE int load_addresses(const struct frame *frame, const struct packet *packet, u64 *addresses)
{
	u32 at = packet->network & 0xff, copy[8], *words;
	if (!(packet->marks & IP) || !(packet->marks & REACH(3)))
		return 0;
	if (packet->marks & V6) {
		if (!(words = bytes(frame, at + 8, 32, copy)))
			return 0;
		addresses[0] = words[0] | (u64)words[1] << 32;
		addresses[1] = words[2] | (u64)words[3] << 32;
		addresses[2] = words[4] | (u64)words[5] << 32;
		addresses[3] = words[6] | (u64)words[7] << 32;
	} else {
		if (!(words = bytes(frame, at + 12, 8, copy)))
			return 0;
		addresses[0] = words[0] | (u64)words[1] << 32;
	}
	return 1;
}

struct headers {
	struct packet packet;
	u64 addresses[4];
};

/* For the verifier on its own: it checks a global function once, whatever leads to it. */
__attribute__((noinline)) int far(struct xdp_md *xdp, u32 len, struct headers *headers)
{
	struct frame frame = { (void *)(u64)xdp->data, (void *)(u64)xdp->data_end, len, 0 };
	if (!headers)
		return 0;
	parse(&frame, &headers->packet);
	if (headers->packet.marks & DEFERRED) {
		frame.xdp = xdp;
		parse(&frame, &headers->packet);
	}
	load_addresses(&frame, &headers->packet, headers->addresses);
	return 0;
}

SEC("xdp") int weir_xdp(struct xdp_md *xdp)
{
	u32 zero = 0, verdict;
	struct packet packet;
	u64 addresses[4];
	struct frame frame = { (void *)(u64)xdp->data, (void *)(u64)xdp->data_end, 0, 0 };
	frame.len = frame.end - frame.data;
	if (!quick(&frame, &packet, addresses)) {
		struct headers slow = {};
		far(xdp, frame.len, &slow);
		packet = slow.packet;
		for (u32 n = 0; n < 4; n++)
			addresses[n] = slow.addresses[n];
	}
	int has_addresses = (packet.marks & IP) && (packet.marks & REACH(3));
	int passes = judge(&packet, addresses, frame.len, &verdict);
	struct counters *counters;
	if (WEIR_TELEMETRY && (counters = map_lookup(&weir_counters, &zero))) {
		count(counters, &packet, verdict, frame.len);
		if (WEIR_FLOWS && has_addresses)
			flow(counters, &packet, addresses, verdict, frame.len);
	}
	return passes ? XDP_PASS : XDP_DROP;
}
