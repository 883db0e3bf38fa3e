/* Reads what most packets are: what `common::parse_quick` does, in C. */
#pragma once
#include "packet.h"

/* TCP or UDP in `room` bytes behind an IP header; `words` are the first two. */
INLINE int quick_carried(const struct frame *frame, struct packet *packet, u32 marks, u32 number,
			 u32 at, u32 room, const u32 *words)
{
	u32 header;
	if (number == 17) {
		u32 said = be32(words[1]) >> 16;
		if (said < 8 || said > room)
			return 0;
		marks |= UDP;
		header = 8;
	} else if (number == 6) {
		u32 *fourth = bytes(frame, at + 12, 4, 0);
		if (!fourth)
			return 0;
		u32 flags = be32(*fourth);
		header = (flags >> 28) * 4;
		if (header < 20 || header > room)
			return 0;
		flags = flags >> 16 & 0xff;
		marks |= TCP | flags << TCP_FLAGS_SHIFT | (flags & 0x10);
	} else {
		return 0;
	}
	packet->marks = marks | IP | REACH(WHOLE);
	packet->ports = be32(words[0]);
	packet->network = 14;
	packet->header_len = at + header;
	return 1;
}

/* Whether the packet is one of those; its addresses as well. */
INLINE int quick(const struct frame *frame, struct packet *packet, u64 *addresses)
{
	/* Aligned as in the headers; as many as any of these packets has. */
	u32 *words = bytes(frame, 2, 40, 0), available = frame->len - 14;
	if (!words)
		return 0;
	u32 first = be32(words[3]), second = words[4];
	switch (words[2] >> 16) {
	case 0x0008: {
		u32 total = first & 0xffff;
		if (first >> 24 != 0x45 || (second & 0xff3f0000) || total > available || total < 20)
			return 0;
		addresses[0] = words[6] | (u64)words[7] << 32;
		addresses[1] = addresses[2] = addresses[3] = 0;
		return quick_carried(frame, packet, 0, words[5] >> 8 & 0xff, 34, total - 20, words + 8);
	}
	case 0xdd86: {
		u32 *rest = bytes(frame, 22, 40, 0), len;
		second = be32(second);
		len = second >> 16;
		if (!rest || first >> 28 != 6 || available < 40 || len > available - 40)
			return 0;
		addresses[0] = rest[0] | (u64)rest[1] << 32;
		addresses[1] = rest[2] | (u64)rest[3] << 32;
		addresses[2] = rest[4] | (u64)rest[5] << 32;
		addresses[3] = rest[6] | (u64)rest[7] << 32;
		return quick_carried(frame, packet, V6, second >> 8 & 0xff, 54, len, rest + 8);
	}
	default:
		return 0;
	}
}
