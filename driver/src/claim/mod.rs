//! What a claim asks for: the opaque configuration of class and claim, to typed [`Wishes`] or to
//! everything that is wrong with it, each problem with its path.
//!
//! The format is `weir.dev/v1alpha1`, kind `NetworkConfig`. Fields that it does not have are
//! refused wherever they stand, because a misspelt filter that is silently left out is worse than
//! a pod that does not start. This room is pure; `dra` calls it, in prepare.

mod filter;
mod interface;
mod layer;
mod policy;
mod ports;
mod rate;
mod reader;
mod rule;

use ipnet::IpNet;
use serde_json::Value;

use self::layer::Layer;
pub use self::policy::parse_policy;
use self::reader::Leaf;
use crate::model::{
    DirectionFilter, EbpfWishes, Filter, FlowWishes, HookWish, InterfaceWishes, Problem, Problems,
    Telemetry, Wishes,
};
use crate::policy::compile;

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

/// Reads and merges the sources that apply to one device.
///
/// Class comes before claim and, within one of them, a lower index before a higher. What comes
/// later overrides what came earlier, field by field: those of `interface`, `ebpf` and `ebpf.flows`
/// each for itself, `routes`, `ebpf.filter.ingress` and `ebpf.filter.egress` each as a whole. Without any
/// source the wishes are the defaults.
///
/// # Errors
///
/// All problems of all sources. With more than one source each path says where it leads into, as
/// in `config[1] (class): interface.mtu`.
pub fn parse(sources: &[Source<'_>]) -> Result<Wishes, Problems> {
    parse_located(sources).map_err(|found| {
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
pub fn parse_located(sources: &[Source<'_>]) -> Result<Wishes, Vec<Located>> {
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
    let wishes = Merge { sources: &sources, layers: &layers }.wishes(&mut problems);
    if problems.is_empty() { Ok(wishes) } else { Err(problems) }
}

impl Source<'_> {
    fn locate(&self, problem: Problem) -> Located {
        Located { origin: self.origin, index: self.index, problem }
    }
}

/// The layers on top of each other.
struct Merge<'a> {
    sources: &'a [Source<'a>],
    layers: &'a [Layer],
}

impl Merge<'_> {
    fn wishes(&self, problems: &mut Vec<Located>) -> Wishes {
        let interface = InterfaceWishes {
            name: self.value(|layer| &layer.name),
            addresses: self.value(|layer| &layer.addresses),
            mtu: self.value(|layer| &layer.mtu),
            mac: self.value(|layer| &layer.mac),
            ..InterfaceWishes::default()
        };
        self.check_mtu(&interface, problems);
        let hook = self.value(|layer| &layer.hook).unwrap_or_default();
        if hook == HookWish::None {
            self.check_no_hook(problems);
        }
        let default = if hook == HookWish::None { Telemetry::Off } else { Telemetry::Counters };
        let ebpf = EbpfWishes {
            hook,
            telemetry: self.value(|layer| &layer.telemetry).unwrap_or(default),
            flows: self.flows(problems),
            filter: self.filter(problems),
        };
        let routes = self.value(|layer| &layer.routes).unwrap_or_default();
        Wishes { interface, routes, ebpf, ..Wishes::default() }
    }

    /// Linux takes IPv6 away from an interface whose MTU is below 1280 (`addrconf_notify()` in
    /// `net/ipv6/addrconf.c`, Linux 6.12), so that its addresses could not be added.
    fn check_mtu(&self, interface: &InterfaceWishes, problems: &mut Vec<Located>) {
        const LEAST_IPV6_MTU: u32 = 1280;
        let is_ipv6 = |address: &IpNet| address.addr().is_ipv6();
        let ipv6 = interface.addresses.iter().flatten().find(|address| is_ipv6(address));
        if let (Some(mtu), Some(address)) = (interface.mtu, ipv6)
            && mtu < LEAST_IPV6_MTU
        {
            let message = format!("{mtu} is below {LEAST_IPV6_MTU}, as IPv6 ({address}) needs it");
            self.add(|layer| &layer.mtu, "interface.mtu", message, problems);
        }
    }

    /// How flows are kept. Said where nothing is kept, it is a mistake, unless a later source has
    /// switched flows off.
    fn flows(&self, problems: &mut Vec<Located>) -> FlowWishes {
        let default = FlowWishes::default();
        let is_off = match self.last(|layer| &layer.telemetry) {
            None => true,
            Some((by, telemetry)) => {
                let is_later = self.last(|layer| &layer.flows).is_some_and(|(source, _)| {
                    (source.origin, source.index) >= (by.origin, by.index)
                });
                matches!(telemetry, Leaf::Said(Telemetry::Off | Telemetry::Counters)) && is_later
            }
        };
        if is_off && self.last(|layer| &layer.flows).is_some() {
            let message = "go with telemetry: flows only";
            self.add(|layer| &layer.flows, "ebpf.flows", message, problems);
        }
        FlowWishes {
            entries: self.value(|layer| &layer.flow_entries).unwrap_or(default.entries),
            export_packets: self
                .value(|layer| &layer.export_packets)
                .unwrap_or(default.export_packets),
        }
    }

    /// Without a program nothing can count or filter; asking for both is a contradiction.
    fn check_no_hook(&self, problems: &mut Vec<Located>) {
        let counts = match self.value(|layer| &layer.telemetry) {
            Some(Telemetry::Counters) => Some("counters"),
            Some(Telemetry::Flows) => Some("flows"),
            Some(Telemetry::Off) | None => None,
        };
        if let Some(counts) = counts {
            let message = format!("{counts} need a program, but hook is none");
            self.add(|layer| &layer.telemetry, "ebpf.telemetry", message, problems);
        }
        let message = "a filter needs a program, but hook is none";
        if self.last(|layer| &layer.ingress).is_some() {
            self.add(|layer| &layer.ingress, "ebpf.filter.ingress", message, problems);
        }
        if self.last(|layer| &layer.egress).is_some() {
            self.add(|layer| &layer.egress, "ebpf.filter.egress", message, problems);
        }
    }

    /// The filter, if it fits the programs.
    fn filter(&self, problems: &mut Vec<Located>) -> Option<Filter> {
        let (ingress, egress) =
            (self.value(|layer| &layer.ingress), self.value(|layer| &layer.egress));
        if ingress.is_none() && egress.is_none() {
            return None;
        }
        let filter = Filter { ingress, egress };
        if let Err(limits) = compile(&filter, ANY_HZ) {
            let mut found = Problems::default();
            found.extend_below("ebpf.filter", limits);
            for problem in &found {
                let leaf: fn(&Layer) -> &Leaf<DirectionFilter> =
                    if problem.path.starts_with("ebpf.filter.egress") {
                        |layer| &layer.egress
                    } else {
                        |layer| &layer.ingress
                    };
                self.add(leaf, &problem.path, problem.message.as_str(), problems);
            }
        }
        Some(filter)
    }

    /// The last source that says anything about a field, and what it says.
    fn last<T>(&self, leaf: impl Fn(&Layer) -> &Leaf<T>) -> Option<(&Source<'_>, &Leaf<T>)> {
        let layers = self.sources.iter().zip(self.layers).rev();
        layers.map(|(source, layer)| (source, leaf(layer))).find(|(_, leaf)| !leaf.is_unsaid())
    }

    fn value<T: Clone>(&self, leaf: impl Fn(&Layer) -> &Leaf<T>) -> Option<T> {
        self.last(leaf).and_then(|(_, leaf)| leaf.clone().said())
    }

    /// Reports a problem of a field in the source that had the last word on it.
    fn add<T>(
        &self,
        leaf: impl Fn(&Layer) -> &Leaf<T>,
        path: &str,
        message: impl Into<String>,
        problems: &mut Vec<Located>,
    ) {
        let problem = Problem { path: path.to_owned(), message: message.into() };
        if let Some((source, _)) = self.last(leaf) {
            problems.push(source.locate(problem));
        }
    }
}

/// Adds a problem and, where there are several sources, which one it is in.
fn report(is_one_of_many: bool, located: &Located, all: &mut Problems) {
    let Located { origin, index, problem: Problem { path, message } } = located;
    if !is_one_of_many {
        return all.add(path.as_str(), message);
    }
    let origin = match origin {
        Origin::Class => "class",
        Origin::Claim => "claim",
    };
    let place = format!("config[{index}] ({origin})");
    if path.is_empty() {
        all.add(place, message);
    } else {
        all.add(format!("{place}: {path}"), message);
    }
}

#[cfg(test)]
mod tests;
