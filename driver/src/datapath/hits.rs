//! Reads what each rule matched.

use std::os::fd::AsFd as _;

use common::{Count, Direction};

use super::CounterError;
use super::counters::{open, packet_count};
use super::layout::{BpffsLayout, Pin};
use crate::model::{DatapathSpec, DirectionFilter, RuleTraffic};
use crate::sys::bpf;

/// The rules of the filter of `spec` with what they matched, in the order of the map.
pub(super) fn read(
    layout: &BpffsLayout,
    spec: &DatapathSpec,
) -> Result<Vec<RuleTraffic>, CounterError> {
    let mut rules = names(spec);
    if rules.is_empty() {
        return Ok(rules);
    }
    let path = layout.pin(&spec.id, Pin::Map("hits"));
    let path = path.as_path();
    let map = open(path)?;
    let mut found = 0;
    let outcome = bpf::for_each_of_cpus(map.fd().as_fd(), |index, cpus: &[Count]| {
        found = index + 1;
        if let Some(rule) = rules.get_mut(index) {
            let mut sum = Count::default();
            for cpu in cpus {
                sum.add(cpu.packets, cpu.bytes);
            }
            rule.matched = packet_count(sum);
        }
    });
    outcome.map_err(|source| CounterError::Read { path: path.to_owned(), source })?;
    match rules.len() {
        expected if expected == found => Ok(rules),
        expected => Err(CounterError::Rules { path: path.to_owned(), found, expected }),
    }
}

/// All rules, in the order in which `policy::compile` numbers them.
fn names(spec: &DatapathSpec) -> Vec<RuleTraffic> {
    let filter = spec.filter.as_ref();
    let of = |direction: Direction, filter: Option<&DirectionFilter>| {
        let rules = filter.map(|filter| filter.rules.as_slice()).unwrap_or_default();
        let named = move |rule: &crate::model::FilterRule| RuleTraffic {
            direction: direction.name(),
            origin: rule.origin,
            rule: rule.name.clone(),
            matched: crate::model::PacketCount::default(),
        };
        rules.iter().map(named).collect::<Vec<_>>()
    };
    let mut rules = of(Direction::Ingress, filter.and_then(|filter| filter.ingress.as_ref()));
    rules.extend(of(Direction::Egress, filter.and_then(|filter| filter.egress.as_ref())));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Action, AttachmentId, DefaultAction, Filter, FilterRule, IngressHook, Origin,
    };
    use crate::testing::{rule, spec};

    fn id() -> AttachmentId {
        AttachmentId { claim: "1".parse().unwrap(), device: "eth1".parse().unwrap(), share: None }
    }

    #[test]
    fn rules_are_in_the_order_of_the_compiler() {
        let direction = |names: &[&str]| DirectionFilter {
            default_action: DefaultAction::Allow,
            stateful: false,
            rules: names.iter().map(|name| rule(name, Action::Deny)).collect(),
        };
        let mut ingress = direction(&["web"]);
        let operator = FilterRule { origin: Origin::Operator, ..rule("web", Action::Deny) };
        ingress.rules.insert(0, operator);
        let filter = Filter { ingress: Some(ingress), egress: Some(direction(&["b", "a"])) };
        let spec = DatapathSpec { filter: Some(filter), ..spec(id(), IngressHook::Tcx) };

        let names = names(&spec);

        let names: Vec<_> =
            names.iter().map(|it| (it.direction, it.origin, it.rule.as_str())).collect();
        let claim = Origin::Claim;
        assert_eq!(
            names,
            [
                ("ingress", Origin::Operator, "web"),
                ("ingress", claim, "web"),
                ("egress", claim, "b"),
                ("egress", claim, "a"),
            ]
        );
    }

    #[test]
    fn where_there_is_no_rule_no_map_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let layout = BpffsLayout::new(dir.path());
        assert_eq!(read(&layout, &spec(id(), IngressHook::Tcx)).unwrap(), []);
    }
}
