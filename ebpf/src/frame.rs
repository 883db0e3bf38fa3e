//! Packets as the kernel hands them out: the part that lies in one piece, and the slow way to the
//! rest.

use core::mem::MaybeUninit;
use core::num::NonZero;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use common::{Frame, Packet};

use crate::Load;

/// Packet memory from `data` to `data_end`: read without a call.
#[derive(Clone, Copy)]
pub(crate) struct Linear {
    data: usize,
    end: usize,
    len: u32,
}

impl Linear {
    /// The first piece of a packet that has `len` bytes in all.
    #[inline(always)]
    pub(crate) fn new(data: usize, end: usize, len: u32) -> Self {
        Self { data, end, len }
    }

    /// `packet`, as it was read here, has more to it than could be seen.
    #[inline(always)]
    pub(crate) fn is_short_for(&self, packet: &Packet) -> bool {
        let is_partial = ((self.end - self.data) as u32) < self.len;
        packet.is_deferred() || packet.is_malformed() && is_partial
    }

    #[inline(always)]
    fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        let start = self.data + offset;
        if start + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: inside the packet, as just compared; the verifier insists on it. Only arrays of
        // integers are read, for which any bytes are a value.
        Some(unsafe { (start as *const T).read_unaligned() })
    }
}

impl Frame for Linear {
    const FOLLOWS: bool = false;

    #[inline(always)]
    fn full_len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn halves<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        self.read(offset)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.read(offset)
    }
}

/// A packet in several pieces: each read is a call that copies.
#[derive(Clone, Copy)]
pub(crate) struct Reloaded {
    source: Source,
    len: u32,
}

#[derive(Clone, Copy)]
enum Source {
    Skb(*mut __sk_buff),
    Xdp(*mut xdp_md),
}

impl Reloaded {
    #[inline(always)]
    pub(crate) fn skb(skb: *mut __sk_buff, len: u32) -> Self {
        Self { source: Source::Skb(skb), len }
    }

    #[inline(always)]
    pub(crate) fn xdp(xdp: *mut xdp_md, len: u32) -> Self {
        Self { source: Source::Xdp(xdp), len }
    }

    #[inline(always)]
    fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let (to, len, offset) = (value.as_mut_ptr().cast(), size_of::<T>() as u32, offset as u32);
        // SAFETY: the context is the program's own, and `to` has room for `len` bytes.
        let result = unsafe {
            match self.source {
                Source::Skb(skb) => bpf_skb_load_bytes(skb.cast(), offset, to, len),
                Source::Xdp(xdp) => bpf_xdp_load_bytes(xdp, offset, to, len),
            }
        };
        // SAFETY: on success the helper has written all of it. Only arrays of integers are read,
        // for which any bytes are a value.
        (result == 0).then(|| unsafe { value.assume_init() })
    }
}

impl Frame for Reloaded {
    const FOLLOWS: bool = true;

    #[inline(always)]
    fn full_len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn halves<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        self.read(offset)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.read(offset)
    }
}

/// Bytes of a packet in all its buffers. One call, the only one of `weir_xdp_frags`.
#[inline(always)]
pub(crate) fn xdp_len(xdp: *mut xdp_md) -> u32 {
    // SAFETY: the context is the program's own.
    (unsafe { bpf_xdp_get_buff_len(xdp) }) as u32
}

const VLAN_LEN: u32 = 4;

/// Segments of SCTP, each of its own size (`include/linux/skbuff.h`).
const GSO_BY_FRAGS: u32 = 0xffff;

/// What a socket buffer is on the wire, where each segment has all the headers.
#[inline(always)]
pub(crate) fn load(skb: *mut __sk_buff, len: u32, packet: &Packet) -> Load {
    // SAFETY: the context is the program's own; the verifier turns the fields into those of the skb.
    let (mut segments, gso_size, has_tag) =
        unsafe { ((*skb).gso_segs, (*skb).gso_size, (*skb).vlan_present != 0) };
    let tagged = has_tag || packet.is_tagged();
    // A tag that lies beside the packet is in each frame on the wire.
    let tag = if has_tag { VLAN_LEN } else { 0 };
    let header_len = packet.header_len;
    // As a type of its own, because the compiler does not see that it divides by no zero.
    if segments == 0
        && gso_size != GSO_BY_FRAGS
        && header_len != 0
        && let Some(of_each) = NonZero::new(gso_size)
    {
        // From a virtual machine or a tap, whose word for it nobody took (`SKB_GSO_DODGY`); the queueing
        // disciplines compute the number in this way, too (`qdisc_pkt_len_init()`).
        let payload = len.saturating_sub(header_len);
        segments = payload / of_each + u32::from(payload % of_each != 0);
    }
    if segments <= 1 {
        return Load { packets: 1, bytes: u64::from(len + tag), size: len + tag, tagged };
    }
    let packets = u64::from(segments);
    // The last segment may be smaller; it is counted as one of this size. Of SCTP, and in tunnels that we
    // do not look into, the headers of all but the first segment are not known.
    let size = if header_len == 0 {
        len.checked_div(segments).unwrap_or(len)
    } else {
        gso_size + header_len
    };
    let bytes = u64::from(len) + (packets - 1) * u64::from(header_len) + packets * u64::from(tag);
    Load { packets, bytes, size: size + tag, tagged }
}
