//! The rules of one direction.

use std::collections::HashSet;

use super::reader::{Leaf, Object, Spot};
use super::rule::{self, Peer};
use crate::model::{Action, DefaultAction, DirectionFilter, FilterRule, Overlay, Problems};

/// Most rules of one direction. Each is at least one entry of the compiled form, which has room for
/// as many.
pub(super) const MOST_RULES: usize = 4096;

pub(super) const DEFAULTS: [(&str, DefaultAction); 2] =
    [("allow", DefaultAction::Allow), ("deny", DefaultAction::Deny)];

/// Reads the filter of one direction; `None` if anything in it is wrong.
///
/// Where no default action is given, what no rule matches is allowed. Only if that makes the filter
/// pointless the default has to be given: whoever wrote it hardly meant that.
pub(super) fn direction(
    spot: &Spot<'_>,
    peer: Peer,
    problems: &mut Problems,
) -> Option<DirectionFilter> {
    let direction = spot.object(&["defaultAction", "stateful", "rules"], problems)?;
    let default = default_action(&direction, problems);
    let stateful = Leaf::read(direction.field("stateful"), |spot| spot.flag(problems)).or(false);
    let rules =
        Leaf::read(direction.field("rules"), |spot| rules(spot, peer, problems)).or(Vec::new());
    if default.is_unsaid() {
        let pointless = if rules.as_ref().is_some_and(|rules| deny_nothing(rules)) {
            Some("is required where every rule allows: nothing would be denied")
        } else if stateful == Some(true) {
            Some("is required with stateful: where the default allows, all replies pass anyway")
        } else {
            None
        };
        if let Some(message) = pointless {
            problems.add(direction.path_of("defaultAction"), message);
        }
    }
    Some(DirectionFilter {
        default_action: default.or(DefaultAction::Allow)?,
        stateful: stateful?,
        rules: rules?,
    })
}

/// Reads what an operator lays over one direction; `None` if anything in it is wrong.
pub(super) fn overlay(spot: &Spot<'_>, peer: Peer, problems: &mut Problems) -> Option<Overlay> {
    let direction = spot.object(&["defaultAction", "rules"], problems)?;
    let default = default_action(&direction, problems);
    let rules =
        Leaf::read(direction.field("rules"), |spot| rules(spot, peer, problems)).or(Vec::new());
    let default_action = match default {
        Leaf::Unsaid => None,
        Leaf::Said(action) => Some(action),
        Leaf::Wrong => return None,
    };
    Some(Overlay { default_action, rules: rules? })
}

fn default_action(direction: &Object<'_>, problems: &mut Problems) -> Leaf<DefaultAction> {
    Leaf::read(direction.field("defaultAction"), |spot| spot.word(&DEFAULTS, problems))
}

/// Rules that let packets through and keep none out.
fn deny_nothing(rules: &[FilterRule]) -> bool {
    rules.iter().any(|rule| rule.action == Action::Allow)
        && rules.iter().all(|rule| matches!(rule.action, Action::Allow | Action::Count))
}

fn rules(spot: &Spot<'_>, peer: Peer, problems: &mut Problems) -> Option<Vec<FilterRule>> {
    let items = spot.list_up_to(MOST_RULES, "rules", problems)?;
    let (said, mut rules) = (items.len(), Vec::with_capacity(items.len()));
    let mut names = HashSet::with_capacity(said);
    for item in items {
        rules.extend(rule::read(&item, peer, &mut names, problems));
    }
    (rules.len() == said).then_some(rules)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> Result<DirectionFilter, String> {
        let mut problems = Problems::default();
        let spot = Spot { path: "ingress".to_owned(), value };
        let filter = direction(&spot, Peer::Source, &mut problems);
        problems.or(()).map_err(|problems| problems.to_string())?;
        Ok(filter.expect("no problem, so there is a filter"))
    }

    #[test]
    fn a_name_is_used_once() {
        let rule = json!({ "name": "r", "action": "deny" });
        let said = read(&json!({ "rules": [rule, rule] })).unwrap_err();
        assert_eq!(said, "ingress.rules[1].name: r is the name of an earlier rule");
    }

    #[test]
    fn what_no_rule_matches_is_allowed_unless_that_makes_the_rules_pointless() {
        let rules = |action| json!({ "rules": [{ "name": "r", "action": action }] });
        for action in ["deny", "count"] {
            assert_eq!(read(&rules(action)).unwrap().default_action, DefaultAction::Allow);
        }
        assert_eq!(read(&json!({})).unwrap().default_action, DefaultAction::Allow);
        assert_eq!(
            read(&rules("allow")).unwrap_err(),
            "ingress.defaultAction: is required where every rule allows: nothing would be denied"
        );
        assert_eq!(
            read(&json!({ "stateful": true })).unwrap_err(),
            "ingress.defaultAction: is required with stateful: where the default allows, all \
             replies pass anyway"
        );
    }

    #[test]
    fn replies_are_let_in_only_where_that_is_asked_for() {
        let with = |stateful| read(&json!({ "defaultAction": "deny", "stateful": stateful }));
        assert!(with(json!(true)).unwrap().stateful);
        assert!(!with(json!(false)).unwrap().stateful);
        assert!(!with(json!(null)).unwrap().stateful);
        assert_eq!(with(json!("yes")).unwrap_err(), "ingress.stateful: is a string, not a boolean");
    }

    #[test]
    fn more_rules_than_fit_are_not_read() {
        let rules = |count: usize| {
            let rule = |n| json!({ "name": format!("r{n}"), "action": "deny" });
            json!({ "rules": (0..count).map(rule).collect::<Vec<_>>() })
        };
        assert_eq!(read(&rules(4096)).unwrap().rules.len(), 4096);
        let said = read(&rules(4097)).unwrap_err();
        assert_eq!(said, "ingress.rules: 4097 rules are more than 4096");
    }
}
