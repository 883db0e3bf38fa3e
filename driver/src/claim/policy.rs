//! What an operator lays over a claim's filter: kind `NodePolicy`.

use serde_json::Value;

use super::filter;
use super::layer::envelope;
use super::reader::{Leaf, Spot};
use super::rule::Peer;
use crate::model::{OperatorPolicy, Origin, Overlay, Problems};
use crate::policy::{compile, overlay};

/// The kind that a policy has to give.
pub(super) const KIND: &str = "NodePolicy";

/// Reads a policy.
///
/// # Errors
///
/// Everything that is wrong with it, each problem with its path.
pub fn parse_policy(document: &Value) -> Result<OperatorPolicy, Problems> {
    let mut problems = Problems::default();
    let policy = read(document, &mut problems);
    if let (Some(policy), true) = (&policy, problems.is_empty())
        && let Some(filter) = overlay(None, Some(policy))
        && let Err(found) = compile(&filter, super::ANY_HZ)
    {
        problems.extend_below("filter", found);
    }
    problems.or(policy.unwrap_or_default())
}

fn read(document: &Value, problems: &mut Problems) -> Option<OperatorPolicy> {
    let root = Spot { path: String::new(), value: document };
    let root = root.object(&["apiVersion", "kind", "filter"], problems)?;
    envelope(&root, KIND, problems);
    let filter = root.required("filter", problems)?;
    let filter = filter.object(&["ingress", "egress"], problems)?;
    let mut direction = |field, peer| {
        Leaf::read(filter.field(field), |spot| filter::overlay(spot, peer, problems))
            .said()
            .map(of_operator)
    };
    let ingress = direction("ingress", Peer::Source);
    let egress = direction("egress", Peer::Destination);
    Some(OperatorPolicy { ingress, egress })
}

fn of_operator(mut overlay: Overlay) -> Overlay {
    for rule in &mut overlay.rules {
        rule.origin = Origin::Operator;
    }
    overlay
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Action, DefaultAction};

    fn problems(filter: &Value) -> String {
        let document =
            json!({ "apiVersion": "weir.dev/v1alpha1", "kind": "NodePolicy", "filter": filter });
        parse_policy(&document).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn all_rules_are_the_operators() {
        let policy = parse_policy(&json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "NodePolicy",
            "filter": {
                "ingress": { "rules": [{ "name": "out", "action": "deny", "cidrs": ["192.0.2.0/24"] }] },
                "egress": { "defaultAction": "deny" },
            },
        }));
        let policy = policy.unwrap();
        let (ingress, egress) = (policy.ingress.unwrap(), policy.egress.unwrap());
        assert_eq!((ingress.default_action, ingress.rules.len()), (None, 1));
        assert_eq!(
            (ingress.rules[0].origin, ingress.rules[0].action),
            (Origin::Operator, Action::Deny)
        );
        assert_eq!(ingress.rules[0].sources.len(), 1);
        assert_eq!((egress.default_action, egress.rules.len()), (Some(DefaultAction::Deny), 0));
    }

    #[test]
    fn rules_that_only_allow_need_no_default_here() {
        let rule = json!({ "name": "in", "action": "allow", "cidrs": ["192.0.2.0/24"] });
        assert_eq!(problems(&json!({ "ingress": { "rules": [rule] } })), "");
    }

    #[test]
    fn problems_of_a_policy_have_paths() {
        let said = parse_policy(&json!({ "kind": "NetworkConfig" })).unwrap_err().to_string();
        assert_eq!(
            said,
            "apiVersion: is required; kind: \"NetworkConfig\" is not NodePolicy; filter: is required"
        );
        let rule = json!({ "name": "in", "action": "drop" });
        assert_eq!(
            problems(&json!({ "ingress": { "stateful": true, "rules": [rule] } })),
            "filter.ingress.stateful: unknown field, known are defaultAction, rules; \
             filter.ingress.rules[0].action: \"drop\" is not one of allow, deny, rateLimit, count"
        );
    }

    #[test]
    fn a_policy_that_does_not_fit_is_refused() {
        let hosts = |third: u8| {
            let host = |n: u16| format!("10.{third}.{}.{}/32", n / 100, n % 100 * 2);
            (0..100).map(host).collect::<Vec<_>>()
        };
        let rule = json!({
            "name": "many", "action": "deny", "sources": hosts(0), "destinations": hosts(1),
        });
        assert_eq!(
            problems(&json!({ "egress": { "rules": [rule] } })),
            "filter.egress.rules: expand to more than 4096 entries"
        );
    }
}
