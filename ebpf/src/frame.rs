//! Packets as the kernel hands them out: the part that lies in one piece, and the slow way to the
//! rest.

use core::mem::MaybeUninit;

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

/// What a socket buffer is on the wire, where each segment has all the headers.
#[inline(always)]
pub(crate) fn load(skb: *mut __sk_buff, len: u32, packet: &Packet) -> Load {
    // SAFETY: the context is the program's own; the verifier turns the fields into those of the skb.
    let (segments, size, tagged) =
        unsafe { ((*skb).gso_segs, (*skb).gso_size, (*skb).vlan_present != 0) };
    let tagged = tagged || packet.is_tagged();
    if segments <= 1 {
        return Load { packets: 1, bytes: len.into(), size: len, tagged };
    }
    let packets = u64::from(segments);
    let headers = (packets - 1) * u64::from(packet.header_len);
    // The last segment may be smaller; it is counted as one of this size.
    let size = size + packet.header_len;
    Load { packets, bytes: u64::from(len) + headers, size, tagged }
}
