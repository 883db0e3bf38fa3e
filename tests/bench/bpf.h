/* What the programs here need of the kernel's interface, so that they are compiled with nothing but
 * clang: numbers from include/uapi/linux/bpf.h, Linux 6.12. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define INLINE static inline __attribute__((always_inline))
#define SEC(name) __attribute__((section(name), used))
#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) typeof(type) *name

#define MAP_ARRAY 2
#define MAP_PERCPU_ARRAY 6
#define MAP_LRU_PERCPU_HASH 10
#define MAP_LPM_TRIE 11
#define MAP_RINGBUF 27
#define NO_PREALLOC 1

#define XDP_DROP 1
#define XDP_PASS 2

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*const jiffies64)(void) = (void *)118;
static long (*const ringbuf_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static long (*const xdp_load_bytes)(struct xdp_md *xdp, u32 offset, void *to, u32 len) = (void *)189;

#define be16(value) __builtin_bswap16(value)
#define be32(value) __builtin_bswap32(value)

char LICENSE[] SEC("license") = "GPL";
