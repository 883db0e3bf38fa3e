//! What an operator lays over a claim's filter: kind `NodePolicy`.

use serde_json::Value;

use super::filter;
use super::layer::envelope;
use super::reader::{Leaf, Spot};
use crate::model::{OperatorPolicy, Origin, Overlay, Problems};

/// Reads a policy.
///
/// # Errors
///
/// Everything that is wrong with it, with its path.
pub fn parse_policy(document: &Value) -> Result<OperatorPolicy, Problems> {
    let mut problems = Problems::default();
    let root = Spot { path: String::new(), value: document };
    let mut policy = OperatorPolicy::default();
    if let Some(root) = root.object(&["apiVersion", "kind", "filter"], &mut problems) {
        envelope(&root, "NodePolicy", &mut problems);
        let filter = root
            .required("filter", &mut problems)
            .and_then(|spot| spot.object(&["ingress", "egress"], &mut problems));
        if let Some(filter) = filter {
            policy.ingress = filter.field("ingress").and_then(|spot| overlay(&spot, &mut problems));
            policy.egress = filter.field("egress").and_then(|spot| overlay(&spot, &mut problems));
        }
    }
    problems.or(policy)
}

fn overlay(spot: &Spot<'_>, problems: &mut Problems) -> Option<Overlay> {
    let direction = spot.object(&["defaultAction", "rules"], problems)?;
    let default =
        Leaf::read(direction.field("defaultAction"), |spot| spot.word(&filter::DEFAULTS, problems));
    let rules = Leaf::read(direction.field("rules"), |spot| filter::rules(spot, problems));
    let mut rules = rules.or(Vec::new())?;
    for rule in &mut rules {
        rule.origin = Origin::Operator;
    }
    Some(Overlay { default_action: default.said(), rules })
}
