//! What a claim asks for: the opaque configuration of class and claim, to typed [`Wishes`] or to
//! everything that is wrong with it, each problem with its path.
//!
//! The format is `weir.dev/v1alpha1`, kind `NetworkConfig`; what says neither is read as DraNet's, as
//! far as that means the same. Fields that it does not have are
//! refused wherever they stand, because a misspelt filter that is silently left out is worse than
//! a pod that does not start. The driver's own configuration file, kind `NodeConfig`, and an
//! operator's `NodePolicy` are read the same way. This room is pure; `dra` calls it, in prepare,
//! `config` and `admin` do with theirs.

mod address;
mod alignment;
mod combine;
mod dranet;
mod ebpf;
mod ethtool;
mod fields;
mod filter;
mod interface;
mod layer;
mod merge;
mod neighbor;
mod node_config;
mod policy;
mod ports;
mod profile;
mod rate;
mod reader;
mod route;
mod routing_rule;
mod rule;
mod schema;
mod sriov;
mod subinterface;
mod sysctl;
mod together;
mod vrf;

use serde_json::Value;

use self::layer::Layer;
use self::merge::Merge;
pub use self::node_config::{filters, parse_node_config};
pub use self::policy::parse_policy;
pub(crate) use self::reader::quote;
#[cfg(test)]
pub(crate) use self::schema::tests as schema_tests;
pub use self::schema::{node_config_schema, schema};
use crate::model::{Problem, Problems, Wishes};

/// Whether a filter fits does not depend on the clock that its limits are made for.
const ANY_HZ: u64 = 100;

/// One opaque configuration out of a claim's allocation.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub origin: Origin,
    /// The position in the claim's `status.allocation.devices.config`.
    pub index: usize,
    pub parameters: &'a Value,
}

/// Who wrote a configuration. The claim has the last word.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// A provider, about the device, whoever gets it.
    Provider,
    /// A provider, for this claim.
    Profile,
    Class,
    Claim,
}

/// One thing that is wrong, and which source it is in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Located {
    pub origin: Origin,
    /// As in [`Source`].
    pub index: usize,
    /// Its path is from the root of that source's parameters on.
    pub problem: Problem,
}

/// Whether everything that applies to a device is there to be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    All,
    /// What the class says is not. Nothing is reported that it could put right.
    AllButClass,
}

/// Reads and merges the sources that apply to one device.
///
/// Class comes before claim and, within one of them, a lower index before a higher. What the claim
/// says replaces what the class says, field by field: those of `interface`, `sriov`, `alignment`, `ebpf`
/// and `ebpf.flows` each for itself, `sysctls` and the groups of `ethtool` key by key; `routes`, `rules`, `neighbors`,
/// `interface.vrf`, `subinterface`, `ebpf.filter.ingress` and `ebpf.filter.egress` each as a whole.
/// Within one of them nothing is replaced: two values for one thing contradict each other. Without
/// any source the wishes are the defaults.
///
/// # Errors
///
/// All problems of all sources. With more than one source each path says where it leads into, as
/// in `config[1] (class): interface.mtu`.
pub fn parse(sources: &[Source<'_>]) -> Result<Wishes, Problems> {
    parse_located(sources, Known::All).map_err(|found| {
        let mut problems = Problems::default();
        for it in &found {
            report(sources.len() > 1, it, &mut problems);
        }
        problems
    })
}

/// The same, for those who know better where each source is from.
///
/// # Errors
///
/// All problems of all sources, each with its source.
pub fn parse_located(sources: &[Source<'_>], known: Known) -> Result<Wishes, Vec<Located>> {
    let mut sources = sources.to_vec();
    sources.sort_by_key(|source| (source.origin, source.index));
    let mut problems = Vec::new();
    let layers: Vec<_> = sources
        .iter()
        .map(|source| {
            let mut found = Problems::default();
            let layer = Layer::read(source.parameters, &mut found);
            problems.extend(found.iter().map(|problem| source.locate(problem.clone())));
            layer
        })
        .collect();
    let mut merge = Merge::new(&sources, &layers);
    let wishes = combine::wishes(&mut merge, known);
    problems.extend(merge.problems());
    if problems.is_empty() { Ok(wishes) } else { Err(problems) }
}

impl Source<'_> {
    fn locate(&self, problem: Problem) -> Located {
        Located { origin: self.origin, index: self.index, problem }
    }
}

/// Adds a problem and, where there are several sources, which one it is in.
fn report(is_one_of_many: bool, located: &Located, all: &mut Problems) {
    let Located { origin, index, problem: Problem { path, message } } = located;
    if !is_one_of_many {
        return all.add(path.as_str(), message);
    }
    let place = match origin {
        Origin::Provider => "what a provider says of the device".to_owned(),
        Origin::Profile => "what a provider made of the profile".to_owned(),
        Origin::Class => format!("config[{index}] (class)"),
        Origin::Claim => format!("config[{index}] (claim)"),
    };
    if path.is_empty() {
        all.add(place, message);
    } else {
        all.add(format!("{place}: {path}"), message);
    }
}

#[cfg(test)]
mod tests;
