//! Maps as a whole: what they are, all their values at once, and the memory that they take.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc;

use super::{BPF_OBJ_GET_INFO_BY_FD, InfoAttr, bpf, number};

const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;

/// `BPF_MAP_TYPE_PERCPU_ARRAY` of `enum bpf_map_type`.
const PER_CPU_ARRAY: u32 = 6;

/// Indices in one call: with 64 bytes and 256 CPUs, 4 MiB.
const AT_ONCE: usize = 256;

/// `struct { … } batch` of `union bpf_attr`.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// What the kernel says about a map: the head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MapFacts {
    kind: u32,
    pub id: u32,
    key_size: u32,
    /// In bytes.
    pub value_size: u32,
    pub max_entries: u32,
    padding: u32,
}

impl MapFacts {
    pub fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        let mut facts = Self::default();
        let mut attr = InfoAttr {
            fd: number(map),
            len: u32::try_from(size_of::<Self>()).map_err(io::Error::other)?,
            info: std::ptr::from_mut(&mut facts).expose_provenance() as u64,
        };
        bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
        Ok(facts)
    }

    /// Each CPU has a copy of its own of each value.
    pub fn is_per_cpu(&self) -> bool {
        self.kind == PER_CPU_ARRAY
    }
}

/// Hands every value of a per-CPU array to `visit`, in the order of the indices: for each, a copy of
/// each CPU's value. A call reads hundreds of them, so 4096 take less than a millisecond.
///
/// # Errors
///
/// `InvalidData`: it is no such map, or of other values. `ENOTSUPP` (524): the kernel cannot read
/// this kind of map in batches (before 5.13). `visit` may have seen some values then.
pub fn for_each_of_cpus<T: aya::Pod + Default>(
    map: BorrowedFd<'_>,
    mut visit: impl FnMut(usize, &[T]),
) -> io::Result<()> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let facts = MapFacts::of(map)?;
    let is_of = |size| usize::try_from(facts.value_size).is_ok_and(|value| value == size);
    // What the kernel writes for each CPU is a whole number of words.
    let is_fit = is_of(size_of::<T>()) && size_of::<T>().is_multiple_of(8);
    if !facts.is_per_cpu() || facts.key_size != 4 || !is_fit || cpus == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a map of another kind"));
    }
    let mut keys = vec![0_u32; AT_ONCE];
    let mut values = vec![T::default(); AT_ONCE * cpus];
    let (mut from, mut to) = (0_u32, 0_u32);
    let mut seen = 0;
    loop {
        let from_here = std::ptr::from_mut(&mut from).expose_provenance() as u64;
        let mut attr = BatchAttr {
            in_batch: if seen == 0 { 0 } else { from_here },
            out_batch: std::ptr::from_mut(&mut to).expose_provenance() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: u32::try_from(AT_ONCE).map_err(io::Error::other)?,
            map: number(map),
            element_flags: 0,
            flags: 0,
        };
        let is_last = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => false,
            // Fewer were left than there was room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        let read = usize::try_from(attr.count).map_err(io::Error::other)?;
        for values in values.chunks_exact(cpus).take(read) {
            visit(seen, values);
            seen += 1;
        }
        if is_last || read == 0 {
            return Ok(());
        }
        from = to;
    }
}

/// Bytes of kernel memory that a map takes.
pub fn memory_bytes(map: BorrowedFd<'_>) -> io::Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    let text = std::fs::read_to_string(path)?;
    let told = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    let facts = MapFacts::of(map)?;
    let cpus = match facts.is_per_cpu() {
        true => aya::util::nr_cpus().map_err(|(_, error)| error)?,
        false => 1,
    };
    let values = u64::from(facts.value_size.next_multiple_of(8)) * u64::from(facts.max_entries);
    // Before Linux 6.4 the kernel tells of one CPU's values only.
    let least = values.saturating_mul(u64::try_from(cpus).unwrap_or(u64::MAX));
    Ok(told.unwrap_or(0).max(least))
}
