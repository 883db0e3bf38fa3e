//! The maps. How large they are is up to the loader: what an attachment has no use for has one
//! entry.

use aya_ebpf::btf_maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use common::{Bucket, Count, Counters, Flow, Limit, Page, Row, Ruleset};

/// One value for each direction.
#[btf_map(name = "weir_counters")]
pub(crate) static COUNTERS: PerCpuArray<Counters, 2> = PerCpuArray::new();

/// One value for each direction with a narrow filter.
#[btf_map(name = "weir_rules")]
pub(crate) static RULES: Array<Ruleset, 1> = Array::new();

#[btf_map(name = "weir_rows")]
pub(crate) static ROWS: Array<Row, 1> = Array::new();

#[btf_map(name = "weir_pages")]
pub(crate) static PAGES: Array<Page, 1> = Array::new();

#[btf_map(name = "weir_hits")]
pub(crate) static HITS: PerCpuArray<Count, 1> = PerCpuArray::new();

#[btf_map(name = "weir_limits")]
pub(crate) static LIMITS: Array<Limit, 1> = Array::new();

#[btf_map(name = "weir_state")]
pub(crate) static STATE: Array<Bucket, 1> = Array::new();

#[btf_map(name = "weir_flows")]
pub(crate) static FLOWS: PerCpuArray<Flow, 1> = PerCpuArray::new();

#[btf_map(name = "weir_evicted")]
pub(crate) static EVICTED: RingBuf<Flow, 4096> = RingBuf::new();
