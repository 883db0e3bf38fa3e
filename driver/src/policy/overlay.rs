//! The operator's rules before those of the claim.

use crate::model::{DefaultAction, DirectionFilter, Filter, OperatorPolicy, Overlay};

/// What is in force where `operator` lays its rules over the filter of a `claim`. `None` where
/// neither has one.
pub fn overlay(claim: Option<&Filter>, operator: Option<&OperatorPolicy>) -> Option<Filter> {
    let Some(operator) = operator else {
        return claim.cloned();
    };
    let direction = |claim: Option<&DirectionFilter>, operator: Option<&Overlay>| {
        let Some(operator) = operator else {
            return claim.cloned();
        };
        let default_action = operator
            .default_action
            .or(claim.map(|claim| claim.default_action))
            .unwrap_or(DefaultAction::Allow);
        let stateful = claim.is_some_and(|claim| claim.stateful);
        let theirs = claim.iter().flat_map(|claim| &claim.rules);
        let rules = operator.rules.iter().chain(theirs).cloned().collect();
        Some(DirectionFilter { default_action, stateful, rules })
    };
    let ingress = direction(claim.and_then(|f| f.ingress.as_ref()), operator.ingress.as_ref());
    let egress = direction(claim.and_then(|f| f.egress.as_ref()), operator.egress.as_ref());
    (ingress.is_some() || egress.is_some()).then_some(Filter { ingress, egress })
}
