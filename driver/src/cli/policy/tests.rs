use super::*;
use crate::model::{
    Action, BuildId, DefaultAction, Filter, FilterRule, OperatorPolicy, Overlay, PortRange,
    Protocol, Rate, RateLimit,
};
use crate::telemetry::samples;
use crate::testing::rule;

fn policy() -> OperatorPolicy {
    let incident = FilterRule {
        origin: crate::model::Origin::Operator,
        sources: vec!["198.51.100.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        ..rule("incident", Action::Deny)
    };
    let ingress = Overlay { default_action: None, rules: vec![incident] };
    let egress = Overlay { default_action: Some(DefaultAction::Deny), rules: Vec::new() };
    OperatorPolicy { ingress: Some(ingress), egress: Some(egress) }
}

/// A record whose claim has rules, with a policy over them.
fn record() -> Record {
    let mut record = samples::record("eth1");
    let web = FilterRule {
        protocol: Some(Protocol::Tcp),
        destination_ports: vec![
            PortRange { first: 443, last: 443 },
            PortRange { first: 8000, last: 8080 },
        ],
        ..rule("web", Action::Allow)
    };
    let rate = RateLimit { rate: Rate::PacketsPerSecond(100), burst: 10 };
    let ping = FilterRule {
        protocol: Some(Protocol::Icmp),
        icmp_types: vec![8],
        fragment: Some(false),
        ..rule("ping", Action::RateLimit(rate))
    };
    let rules = vec![web, ping, rule("all", Action::Count)];
    let ingress = crate::model::DirectionFilter {
        default_action: DefaultAction::Deny,
        stateful: true,
        rules,
    };
    record.wishes.ebpf.filter = Some(Filter { ingress: Some(ingress), egress: None });
    record.policy = Some(policy());
    let spec = record.datapath.as_mut().unwrap();
    spec.filter =
        crate::policy::overlay(record.wishes.ebpf.filter.as_ref(), record.policy.as_ref());
    spec.generation = 2;
    record
}

#[test]
fn what_is_in_force_is_shown_with_its_origin() {
    assert_eq!(
        text(&record()),
        "\
DEVICE      eth1
pod         default/web (uid-web)
claim       default/nic (uid-nic)
phase       attached
generation  2, in force
form        narrow
policy      applied

DIRECTION  RULE      ORIGIN    ACTION                  WHAT
ingress    incident  operator  deny                    from 198.51.100.0/24, 2001:db8::/32
ingress    web       claim     allow                   tcp to port 443, 8000-8080
ingress    ping      claim     limit to 100 packets/s  icmp of type 8 not in fragments
ingress    all       claim     count                   everything
ingress    -         claim     allow                   replies
ingress    -         claim     deny                    everything else
egress     -         operator  deny                    everything else
"
    );
    let json = as_json(&record());
    assert_eq!(json["filter"]["ingress"]["rules"][0]["origin"], "operator");
    assert_eq!((&json["inForce"], &json["generation"]), (&json!(true), &json!(2)));
}

#[test]
fn what_is_not_in_force_is_said() {
    let mut record = record();
    record.build = BuildId::default();
    assert!(text(&record).contains("generation  2, not yet in force\n"));
    assert_eq!(as_json(&record)["inForce"], false);
    record.datapath = None;
    assert!(text(&record).contains("generation  none, it has no programs\n"));
    assert_eq!(as_json(&record)["inForce"], false);
}

#[test]
fn what_was_applied_is_a_row_for_each_device() {
    let took = Duration::from_micros(12_345);
    let applied =
        [Applied::of(&record(), took).unwrap(), Applied::of(&record(), Duration::ZERO).unwrap()];
    assert_eq!(
        applied_text(&applied),
        "\
DEVICE  POD          GENERATION  OPERATOR'S  CLAIM'S  FORM         TOOK
eth1    default/web           2           1        3  narrow     12.3ms
eth1    default/web           2           1        3  narrow  unchanged
"
    );
}

#[test]
fn yaml_and_json_are_read_and_nothing_larger_than_the_driver_takes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy");
    let name = file.to_str().unwrap();
    for text in ["kind: NodePolicy\n", "{\"kind\": \"NodePolicy\"}"] {
        std::fs::write(&file, text).unwrap();
        assert_eq!(read(name).unwrap(), json!({ "kind": "NodePolicy" }));
    }
    std::fs::write(&file, "kind: [").unwrap();
    let error = read(name).unwrap_err().to_string();
    assert!(error.starts_with(name), "{error}");
    std::fs::write(&file, vec![b' '; usize::try_from(input::LARGEST).unwrap() + 1]).unwrap();
    assert!(matches!(read(name), Err(CliError::Read { .. })));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(read(name), Err(CliError::Read { .. })));
}
