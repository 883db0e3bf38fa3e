//! The rules of one direction.

use super::interface::network;
use super::reader::{Leaf, Object, Spot, quote};
use crate::model::{
    Action, DefaultAction, DeviceName, DirectionFilter, FilterRule, Origin, PortRange, Problems,
    Protocol,
};

const DEFAULTS: [(&str, DefaultAction); 2] =
    [("allow", DefaultAction::Allow), ("deny", DefaultAction::Deny)];

const ACTIONS: [(&str, Action); 2] = [("allow", Action::Allow), ("deny", Action::Deny)];

const PROTOCOLS: [(&str, Protocol); 5] = [
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("sctp", Protocol::Sctp),
    ("icmp", Protocol::Icmp),
    ("icmpv6", Protocol::Icmpv6),
];

/// Reads the filter of one direction; `None` if anything in it is wrong.
///
/// Where no default action is given, what no rule matches is allowed. Only if there are rules and
/// all of them allow, the default has to be given: left out, the filter would deny nothing, and
/// whoever wrote it hardly meant that.
pub(super) fn direction(spot: &Spot<'_>, problems: &mut Problems) -> Option<DirectionFilter> {
    let direction = spot.object(&["defaultAction", "rules"], problems)?;
    let default =
        Leaf::read(direction.field("defaultAction"), |spot| spot.word(&DEFAULTS, problems));
    let rules = Leaf::read(direction.field("rules"), |spot| rules(spot, problems)).or(Vec::new());
    if let Some(rules) = &rules
        && default.is_unsaid()
        && !rules.is_empty()
        && rules.iter().all(|rule| rule.action == Action::Allow)
    {
        problems.add(
            direction.path_of("defaultAction"),
            "is required where every rule allows: nothing would be denied",
        );
    }
    Some(DirectionFilter {
        default_action: default.or(DefaultAction::Allow)?,
        stateful: false,
        rules: rules?,
    })
}

fn rules(spot: &Spot<'_>, problems: &mut Problems) -> Option<Vec<FilterRule>> {
    let items = spot.list(problems)?;
    let (said, mut rules) = (items.len(), Vec::with_capacity(items.len()));
    let mut names = Vec::with_capacity(said);
    for item in items {
        rules.extend(rule(&item, &mut names, problems));
    }
    (rules.len() == said).then_some(rules)
}

fn rule<'a>(
    spot: &Spot<'a>,
    names: &mut Vec<&'a str>,
    problems: &mut Problems,
) -> Option<FilterRule> {
    let rule = spot.object(&["name", "action", "cidrs", "protocol", "ports"], problems)?;
    let name = rule.required("name", problems).and_then(|spot| name(&spot, names, problems));
    let action = rule.required("action", problems).and_then(|spot| spot.word(&ACTIONS, problems));
    let cidrs = some_of(&rule, "cidrs", "address", network, problems);
    let protocol =
        Leaf::read(rule.field("protocol"), |spot| spot.word(&PROTOCOLS, problems).map(Some));
    let ports = some_of(&rule, "ports", "port", ports, problems);
    if let Some(spot) = rule.field("ports") {
        needs_ports(&spot, protocol, problems)?;
    }
    Some(FilterRule {
        name: name?.to_owned(),
        action: action?,
        origin: Origin::Claim,
        sources: cidrs?,
        destinations: Vec::new(),
        protocol: protocol.or(None)?,
        source_ports: Vec::new(),
        destination_ports: ports?,
        established: false,
        icmp_types: Vec::new(),
        fragment: None,
    })
}

/// The name of a rule: a DNS label, that no rule before it has.
fn name<'a>(spot: &Spot<'a>, names: &mut Vec<&'a str>, problems: &mut Problems) -> Option<&'a str> {
    let text = spot.text(problems)?;
    // The same alphabet as a device's name.
    if text.parse::<DeviceName>().is_err() {
        let rule = "1 to 63 of a-z, 0-9 and `-`, with neither end a `-`";
        return spot.refuse(format_args!("{} is not {rule}", quote(text)), problems);
    }
    if names.contains(&text) {
        return spot.refuse(format_args!("{text} is the name of an earlier rule"), problems);
    }
    names.push(text);
    Some(text)
}

/// The list under `field`, empty where it is left out. A list that is there but empty is refused:
/// it reads like "none" and, as nothing narrows the rule then, would mean "any".
fn some_of<'a, T>(
    rule: &Object<'a>,
    field: &str,
    noun: &str,
    read: impl Fn(&Spot<'a>, &mut Problems) -> Option<T>,
    problems: &mut Problems,
) -> Option<Vec<T>> {
    let Some(spot) = rule.field(field) else {
        return Some(Vec::new());
    };
    let items = spot.list(problems)?;
    if items.is_empty() {
        let message = format!("is empty, leave it out to match any {noun}");
        return spot.refuse(message, problems);
    }
    let said = items.len();
    let values: Vec<_> = items.into_iter().filter_map(|item| read(&item, problems)).collect();
    (values.len() == said).then_some(values)
}

/// Refuses ports of a protocol that has none. A protocol that could not be read is let pass: there
/// is one problem with it already.
fn needs_ports(
    spot: &Spot<'_>,
    protocol: Leaf<Option<Protocol>>,
    problems: &mut Problems,
) -> Option<()> {
    match protocol {
        Leaf::Unsaid | Leaf::Said(None) => {
            spot.refuse("need a protocol: tcp, udp or sctp", problems)
        }
        Leaf::Said(Some(Protocol::Icmp | Protocol::Icmpv6)) => {
            spot.refuse("only tcp, udp and sctp have ports", problems)
        }
        Leaf::Wrong | Leaf::Said(_) => Some(()),
    }
}

/// One item of `ports`: a number, or a text with a number or two.
fn ports(spot: &Spot<'_>, problems: &mut Problems) -> Option<PortRange> {
    if let Some(number) = spot.value.as_number() {
        return match number.as_u64().and_then(port) {
            Some(port) => Some(PortRange { first: port, last: port }),
            None => spot.refuse(format_args!("{number} {NO_PORT}"), problems),
        };
    }
    let Some(text) = spot.value.as_str() else {
        return spot.refuse_type("a port or a range of ports", problems);
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (decimal(first).and_then(port), decimal(last).and_then(port)) {
        (Some(first), Some(last)) if first <= last => Some(PortRange { first, last }),
        (Some(first), Some(last)) => spot.refuse(format_args!("{first} is above {last}"), problems),
        (None, _) => spot.refuse(format_args!("{} {NO_PORT}", quote(first)), problems),
        (_, None) => spot.refuse(format_args!("{} {NO_PORT}", quote(last)), problems),
    }
}

const NO_PORT: &str = "is not a port (1 to 65535)";

fn port(number: u64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// Digits only: `str::parse` would take a sign as well.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> Result<DirectionFilter, String> {
        let mut problems = Problems::default();
        let spot = Spot { path: "ingress".to_owned(), value };
        let filter = direction(&spot, &mut problems);
        problems.or(()).map_err(|problems| problems.to_string())?;
        Ok(filter.expect("no problem, so there is a filter"))
    }

    fn rule_with(field: &str, value: Value) -> Value {
        let mut rule = json!({ "name": "r", "action": "deny", "protocol": "tcp" });
        rule[field] = value;
        json!({ "rules": [rule] })
    }

    #[test]
    fn a_whole_direction_is_read() {
        let filter = read(&json!({
            "defaultAction": "deny",
            "rules": [
                { "name": "web", "action": "allow", "cidrs": ["192.0.2.0/24", "2001:db8::/32"],
                  "protocol": "tcp", "ports": [443, "80", "8000-8080"] },
                { "name": "ping", "action": "allow", "protocol": "icmpv6" },
            ],
        }));
        let filter = filter.unwrap();
        assert_eq!(filter.default_action, DefaultAction::Deny);
        let [web, ping] = &filter.rules[..] else { panic!("{filter:?}") };
        assert_eq!(
            web.sources,
            ["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()]
        );
        let ports: Vec<_> =
            web.destination_ports.iter().map(|ports| (ports.first, ports.last)).collect();
        assert_eq!(ports, [(443, 443), (80, 80), (8000, 8080)]);
        assert_eq!((ping.name.as_str(), ping.protocol), ("ping", Some(Protocol::Icmpv6)));
        assert!(ping.sources.is_empty() && ping.destination_ports.is_empty());
    }

    #[rstest]
    #[case("ports", json!([70000]), "ports[0]: 70000 is not a port (1 to 65535)")]
    #[case("ports", json!([1, 0]), "ports[1]: 0 is not a port (1 to 65535)")]
    #[case("ports", json!([-1]), "ports[0]: -1 is not a port (1 to 65535)")]
    #[case("ports", json!([1.5]), "ports[0]: 1.5 is not a port (1 to 65535)")]
    #[case("ports", json!(["http"]), "ports[0]: \"http\" is not a port (1 to 65535)")]
    #[case("ports", json!(["+80"]), "ports[0]: \"+80\" is not a port (1 to 65535)")]
    #[case("ports", json!(["80-"]), "ports[0]: \"\" is not a port (1 to 65535)")]
    #[case("ports", json!(["1-2-3"]), "ports[0]: \"2-3\" is not a port (1 to 65535)")]
    #[case("ports", json!(["90-80"]), "ports[0]: 90 is above 80")]
    #[case("ports", json!([true]), "ports[0]: is a boolean, not a port or a range of ports")]
    #[case("ports", json!(80), "ports: is a number, not a list")]
    #[case("ports", json!([]), "ports: is empty, leave it out to match any port")]
    #[case("cidrs", json!([]), "cidrs: is empty, leave it out to match any address")]
    #[case("cidrs", json!(["10.0.0.1"]),
        "cidrs[0]: \"10.0.0.1\" is no CIDR such as 192.0.2.0/24 or 2001:db8::/64")]
    #[case("cidrs", json!(["10.0.0.1/8"]),
        "cidrs[0]: 10.0.0.1/8 has host bits, its network is 10.0.0.0/8")]
    #[case("protocol", json!("gre"), "protocol: \"gre\" is not one of tcp, udp, sctp, icmp, icmpv6")]
    #[case("action", json!("drop"), "action: \"drop\" is not one of allow, deny")]
    #[case("action", json!(null), "action: is required")]
    #[case("name", json!(null), "name: is required")]
    #[case("name", json!("Web"),
        "name: \"Web\" is not 1 to 63 of a-z, 0-9 and `-`, with neither end a `-`")]
    #[case("port", json!([80]), "port: unknown field, did you mean ports?")]
    fn a_wrong_field_of_a_rule_is_named(
        #[case] field: &str,
        #[case] value: Value,
        #[case] said: &str,
    ) {
        assert_eq!(read(&rule_with(field, value)), Err(format!("ingress.rules[0].{said}")));
    }

    #[test]
    fn only_protocols_with_ports_have_ports() {
        let with = |protocol: Value| {
            let rule = json!({ "name": "r", "action": "deny", "protocol": protocol, "ports": [1] });
            read(&json!({ "rules": [rule] })).map(drop)
        };
        for protocol in ["tcp", "udp", "sctp"] {
            assert_eq!(with(json!(protocol)), Ok(()));
        }
        let path = "ingress.rules[0].ports";
        for protocol in ["icmp", "icmpv6"] {
            let said = Err(format!("{path}: only tcp, udp and sctp have ports"));
            assert_eq!(with(json!(protocol)), said);
        }
        assert_eq!(with(json!(null)), Err(format!("{path}: need a protocol: tcp, udp or sctp")));
    }

    #[test]
    fn a_name_is_used_once_in_a_direction() {
        let rule = json!({ "name": "r", "action": "deny" });
        let said = read(&json!({ "rules": [rule, rule] })).unwrap_err();
        assert_eq!(said, "ingress.rules[1].name: r is the name of an earlier rule");
    }

    #[test]
    fn what_no_rule_matches_is_allowed_unless_that_makes_the_rules_pointless() {
        let rules = |action| json!({ "rules": [{ "name": "r", "action": action }] });
        assert_eq!(read(&rules("deny")).unwrap().default_action, DefaultAction::Allow);
        assert_eq!(read(&json!({})).unwrap().default_action, DefaultAction::Allow);
        assert_eq!(
            read(&rules("allow")).unwrap_err(),
            "ingress.defaultAction: is required where every rule allows: nothing would be denied"
        );
    }
}
