//! Reads what the first version of the file says.
//!
//! Its rules named `cidrs`, the peer's networks, and `ports`, those of the destination. Read as
//! rules of today they would name neither, and so match everything.

use serde_json::{Map, Value};

use crate::model::Record;

/// The records of a file of version 1.
///
/// # Errors
///
/// What makes a record not one of that version.
pub(super) fn read(text: &str) -> serde_json::Result<Vec<Record>> {
    let mut records: Vec<Value> = serde_json::from_str(text)?;
    for record in &mut records {
        // One that wishes no filter, or no datapath, has nothing there.
        for place in ["/wishes/ebpf/filter", "/datapath/filter"] {
            for (direction, peer) in [("ingress", "sources"), ("egress", "destinations")] {
                let rules = format!("{place}/{direction}/rules");
                let rules = record.pointer_mut(&rules).and_then(Value::as_array_mut);
                for rule in rules.into_iter().flatten().filter_map(Value::as_object_mut) {
                    rename(rule, "cidrs", peer);
                    rename(rule, "ports", "destinationPorts");
                }
            }
        }
    }
    serde_json::from_value(records.into())
}

fn rename(rule: &mut Map<String, Value>, former: &str, present: &str) {
    if let Some(value) = rule.remove(former) {
        rule.insert(present.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Action, DefaultAction, FilterRule, Origin, PortRange, Protocol};
    use crate::state::{Checkpoint, Found, file};

    /// A file that the driver of before reads: two rules, of which one names what it can.
    const FILE: &str = include_str!("version-1.json");
    const BOOT: &str = "6f1d5b1c-3c5e-4b0e-9a53-0d4b7a0c9e11";

    #[test]
    fn rules_of_the_first_version_mean_what_they_meant() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(file::NAME), FILE.trim_end()).unwrap();
        let (checkpoint, found) = Checkpoint::open(directory.path(), BOOT).unwrap();
        assert_eq!(found, Found::Records(1));
        let record = checkpoint.records().next().unwrap();

        let web = FilterRule {
            sources: vec!["198.51.100.0/24".parse().unwrap()],
            protocol: Some(Protocol::Tcp),
            destination_ports: vec![PortRange { first: 443, last: 443 }],
            ..crate::testing::rule("web", Action::Allow)
        };
        let mail = FilterRule {
            destinations: vec!["2001:db8::/32".parse().unwrap()],
            ..crate::testing::rule("mail", Action::Deny)
        };
        let filter = record.wishes.ebpf.filter.as_ref().unwrap();
        let (ingress, egress) = (filter.ingress.as_ref().unwrap(), filter.egress.as_ref().unwrap());
        assert_eq!((ingress.default_action, &ingress.rules), (DefaultAction::Deny, &vec![web]));
        assert_eq!((egress.default_action, &egress.rules), (DefaultAction::Allow, &vec![mail]));
        assert_eq!(ingress.rules[0].origin, Origin::Claim);
        let spec = record.datapath.as_ref().unwrap();
        assert_eq!((spec.filter.as_ref(), spec.generation), (Some(filter), 1));
        assert_eq!(record.policy, None);
    }
}
