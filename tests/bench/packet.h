/* Reads headers: what `common::parse` does, in C. */
#pragma once
#include "bpf.h"

enum { TCP, UDP, SCTP, ICMP, ICMPV6, ARP, OTHER_IP, NOT_IP, PROTOCOLS };
enum { LINK, ADDRESSES, PROTOCOL, WHOLE };

/* Marks: the lowest nine bits are the class. */
#define CLASS 0x1ff
#define V6 (1 << 3)
#define ESTABLISHED (1 << 4)
#define FIRST_FRAGMENT (1 << 5)
#define LATER_FRAGMENT (2 << 5)
#define FRAGMENT (3 << 5)
#define REACH(n) ((n) << 7)
#define IP (1 << 9)
#define MALFORMED (1 << 10)
#define NEIGHBOUR_DISCOVERY (1 << 11)
#define DEFERRED (1 << 12)
#define TAGGED (1 << 13)
#define TCP_FLAGS_SHIFT 16

struct packet {
	u32 marks;
	u32 ports;
	u32 network;
	u32 header_len;
};

/* Packet memory, or where `xdp` is set, what a helper copies from all of the packet's pieces. */
struct frame {
	void *data;
	void *end;
	u32 len;
	struct xdp_md *xdp;
};

INLINE void *bytes(const struct frame *frame, u32 offset, u32 len, void *copy)
{
	if (frame->xdp)
		return xdp_load_bytes(frame->xdp, offset, copy, len) ? 0 : copy;
	void *at = frame->data + offset;
	return at + len > frame->end ? 0 : at;
}

INLINE u32 protocol_of(u32 number, u32 v6)
{
	switch (number) {
	case 6: return TCP;
	case 17: return UDP;
	case 132: return SCTP;
	case 1: return v6 ? OTHER_IP : ICMP;
	case 58: return v6 ? ICMPV6 : OTHER_IP;
	default: return OTHER_IP;
	}
}

INLINE int is_extension(u32 number)
{
	return number == 0 || number == 43 || number == 44 || number == 51 || number == 60;
}

/* `marks` has family and fragment; `at` is where the header is, `end` where the IP packet ends. */
INLINE void transport(const struct frame *frame, struct packet *packet, u32 marks, u32 number, u32 at,
		      u32 end, u32 hop_limit)
{
	u32 copy[4], *words, protocol = protocol_of(number, marks & V6), more = 0;
	marks |= protocol;
	packet->marks = marks | REACH(PROTOCOL) | MALFORMED;
	if (protocol == TCP) {
		if (!(words = bytes(frame, at, 16, copy)))
			return;
		u32 flags = be32(words[3]), header = (flags >> 28) * 4;
		if (header < 20 || at + header > end)
			return;
		flags = flags >> 16 & 0xff;
		more = flags << TCP_FLAGS_SHIFT | (flags & 0x10);
		packet->ports = be32(words[0]);
		packet->header_len = at + header;
	} else if (protocol == UDP) {
		if (!(words = bytes(frame, at, 8, copy)))
			return;
		u32 len = be32(words[1]) >> 16;
		if (at + 8 > end || (len && len < 8))
			return;
		if (len && !(marks & FRAGMENT) && at + len > end)
			return;
		packet->ports = be32(words[0]);
		packet->header_len = at + 8;
	} else if (protocol == SCTP) {
		if (!(words = bytes(frame, at, 4, copy)) || at + 12 > end)
			return;
		packet->ports = be32(words[0]);
	} else if (protocol == ICMP || protocol == ICMPV6) {
		if (!(words = bytes(frame, at, 8, copy)) || at + 8 > end)
			return;
		u32 kind = be32(words[0]) >> 24;
		if ((marks & V6) && kind >= 133 && kind <= 137 && hop_limit == 255 && !(marks & FRAGMENT))
			more = NEIGHBOUR_DISCOVERY;
		packet->ports = (be32(words[1]) & 0xffff0000) | kind;
	}
	packet->marks = marks | REACH(WHOLE) | more;
}

INLINE u32 later_fragment(u32 marks, u32 number)
{
	marks = (marks & ~FRAGMENT) | LATER_FRAGMENT;
	if ((marks & V6) && is_extension(number))
		return marks | OTHER_IP | REACH(ADDRESSES);
	return marks | protocol_of(number, marks & V6) | REACH(WHOLE);
}

INLINE void ipv4(const struct frame *frame, struct packet *packet, u32 at)
{
	u32 copy[5], *words = bytes(frame, at, 20, copy), marks = IP;
	packet->marks = OTHER_IP | MALFORMED;
	if (!words)
		return;
	u32 available = frame->len - at, first = be32(words[0]), third = be32(words[2]);
	u32 header = (first >> 24 & 0xf) * 4, total = first & 0xffff, number = third >> 16 & 0xff;
	if (!total && available > 0xffff)
		total = available;
	if (first >> 28 != 4 || header < 20 || total < header || total > available)
		return;
	u32 fragment = be32(words[1]) & 0x3fff;
	if (fragment)
		marks |= FIRST_FRAGMENT;
	if (fragment & 0x1fff) {
		packet->marks = later_fragment(marks, number);
		return;
	}
	transport(frame, packet, marks, number, at + header, at + total, third >> 24);
}

INLINE void ipv6(const struct frame *frame, struct packet *packet, u32 at)
{
	u32 copy[10], *words = bytes(frame, at, 40, copy), marks = IP | V6;
	packet->marks = OTHER_IP | MALFORMED;
	if (!words)
		return;
	u32 available = frame->len - (at + 40), second = be32(words[1]);
	u32 len = second >> 16, number = second >> 8 & 0xff, hop_limit = second & 0xff;
	if (!len && available > 0xffff)
		len = available;
	if (be32(words[0]) >> 28 != 6 || len > available)
		return;
	u32 end = at + 40 + len;
	at += 40;
	if (is_extension(number) && !frame->xdp) {
		packet->marks = OTHER_IP | DEFERRED;
		return;
	}
	if (frame->xdp) {
#pragma clang loop unroll(disable)
		for (u32 n = 0; n < 8 && is_extension(number); n++) {
			u16 extension[2];
			u32 unknown = marks | OTHER_IP | REACH(ADDRESSES);
			packet->marks = unknown | MALFORMED;
			if (xdp_load_bytes(frame->xdp, at, extension, 4))
				return;
			u32 head = be16(extension[0]), fragment = be16(extension[1]) & 0xfff9;
			u32 size = number == 44 ? 8 : ((head & 0xff) + (number == 51 ? 2 : 1)) *
								(number == 51 ? 4 : 8);
			if (at + size > end)
				return;
			at += size;
			if (number == 44 && fragment)
				marks |= FIRST_FRAGMENT;
			if (number == 44 && (fragment & 0xfff8)) {
				packet->marks = later_fragment(marks, head >> 8);
				return;
			}
			number = head >> 8;
		}
		if (is_extension(number)) {
			packet->marks = marks | OTHER_IP | REACH(ADDRESSES);
			return;
		}
	}
	transport(frame, packet, marks, number, at, end, hop_limit);
}

INLINE int is_vlan(u16 ethertype)
{
	return ethertype == be16(0x8100) || ethertype == be16(0x88a8);
}

INLINE void parse(const struct frame *frame, struct packet *packet)
{
	u32 at = 14, tagged = 0;
	u16 copy, *ethertype = bytes(frame, 12, 2, &copy);
	*packet = (struct packet){ NOT_IP | MALFORMED, 0, 0, 0 };
	if (!ethertype)
		return;
	if (is_vlan(*ethertype)) {
		tagged = TAGGED;
		packet->marks |= TAGGED;
		at = 18;
		if (!(ethertype = bytes(frame, 16, 2, &copy)))
			return;
		if (is_vlan(*ethertype)) {
			at = 22;
			if (!(ethertype = bytes(frame, 20, 2, &copy)))
				return;
		}
	}
	switch (*ethertype) {
	case be16(0x0800): ipv4(frame, packet, at); break;
	case be16(0x86dd): ipv6(frame, packet, at); break;
	case be16(0x0806): packet->marks = ARP | REACH(WHOLE); break;
	case be16(0x8100):
	case be16(0x88a8): packet->marks = NOT_IP; break;
	default: packet->marks = NOT_IP | REACH(WHOLE);
	}
	packet->marks |= tagged;
	packet->network = at;
}
