//! The operator's rules over those of a claim.

use crate::model::{
    DefaultAction, DirectionFilter, Filter, FilterRule, OperatorPolicy, Origin, Overlay,
};

/// The filter that is in force: the operator's rules first, then the claim's. `None` where neither
/// has anything to say.
pub fn overlay(claim: Option<&Filter>, operator: Option<&OperatorPolicy>) -> Option<Filter> {
    let (of_claim, of_operator) = (claim.cloned().unwrap_or_default(), operator.cloned());
    let of_operator = of_operator.unwrap_or_default();
    let filter = Filter {
        ingress: direction(of_claim.ingress, of_operator.ingress),
        egress: direction(of_claim.egress, of_operator.egress),
    };
    (filter.ingress.is_some() || filter.egress.is_some()).then_some(filter)
}

fn direction(claim: Option<DirectionFilter>, over: Option<Overlay>) -> Option<DirectionFilter> {
    let Some(over) = over else { return claim };
    let claim = claim.unwrap_or(DirectionFilter {
        default_action: DefaultAction::Allow,
        stateful: false,
        rules: Vec::new(),
    });
    let first = over.rules.into_iter().map(|rule| FilterRule { origin: Origin::Operator, ..rule });
    Some(DirectionFilter {
        default_action: over.default_action.unwrap_or(claim.default_action),
        stateful: claim.stateful,
        rules: first.chain(claim.rules).collect(),
    })
}
