use std::collections::BTreeSet;

use super::*;
use crate::dra::fixtures::{device, everything};
use crate::model::ProvidedValue;

const STANDARD: &str = "resource.kubernetes.io";

fn ours() -> Vocabulary {
    Vocabulary { names: Names::Ours, domain: "weir.dev".to_owned() }
}

fn dranet() -> Vocabulary {
    Vocabulary { names: Names::Dranet, domain: "dra.net".to_owned() }
}

fn string(device: &Device, name: &str) -> Option<String> {
    attributes(device, &ours(), None, 100).remove(&format!("weir.dev/{name}"))?.string
}

#[test]
fn a_device_that_has_everything_stays_within_the_apis_limits() {
    for vocabulary in [ours(), dranet()] {
        let whole = attributes(&everything("eth1"), &vocabulary, Some("6.18.44"), 100);
        let all = attributes(&everything("eth1"), &vocabulary, Some("6.18.44"), 20);
        assert!(whole.len() > 20);
        assert_eq!(all.len(), 20);
        for (name, value) in whole {
            let (domain, id) = name.split_once('/').unwrap();
            assert!(domain == vocabulary.domain || domain == STANDARD, "{name}");
            assert!(id.len() <= 32 && id.bytes().all(|b| b.is_ascii_alphanumeric()), "{name}");
            let values = serde_json::to_value(&value).unwrap();
            assert_eq!(values.as_object().unwrap().len(), 1, "{name} has one value: {values}");
        }
    }
}

#[test]
fn what_matters_more_comes_first() {
    let few = attributes(&everything("eth1"), &ours(), None, 4);
    let names: Vec<_> = few.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "resource.kubernetes.io/numaNode",
            "resource.kubernetes.io/pcieRoot",
            "weir.dev/form",
            "weir.dev/ifName",
        ]
    );
}

/// The tables of the documentation are what is published, in the same order and of the same types.
#[test]
fn the_documentation_lists_the_attributes_as_they_are() {
    let page = include_str!("../../../../docs/attributes.md");
    for (names, title) in
        [(Names::Ours, "## Attributes"), (Names::Dranet, "## DraNet's attributes")]
    {
        let (_, section) = page.split_once(title).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let (priority, name, kind) = (cells.next()?, cells.next()?, cells.next()?);
            let priority: usize = priority.parse().ok()?;
            Some((priority, name.trim_matches('`').to_owned(), kind.to_owned()))
        });
        let entries = names.entries().iter().enumerate();
        let published: Vec<_> = entries
            .map(|(place, entry)| (place + 1, entry.name.to_owned(), entry.kind.to_owned()))
            .collect();
        assert_eq!(rows.collect::<Vec<_>>(), published, "{title}");
        let distinct: BTreeSet<_> = published.iter().map(|(_, name, _)| name).collect();
        assert_eq!(distinct.len(), published.len());
    }
}

#[test]
fn a_value_is_of_the_kind_that_is_announced() {
    for names in [Names::Ours, Names::Dranet] {
        let device = everything("eth1");
        let seen = Seen { device: &device, kernel: Some("6.18.44") };
        for entry in names.entries() {
            let kind = match (entry.of)(&seen) {
                Some(Value::Bool(_)) => "bool",
                Some(Value::Int(_)) => "int",
                Some(Value::String(_)) => "string",
                Some(Value::Version(_)) => "version",
                None => continue,
            };
            assert_eq!(kind, entry.kind, "{}", entry.name);
        }
    }
}

#[test]
fn what_providers_know_replaces_ours_and_comes_before_what_matters_less() {
    let mut device = everything("eth1");
    device.provided = [
        ("gce.dra.net/block".to_owned(), ProvidedValue::String("b7".to_owned())),
        ("weir.dev/pciDevice".to_owned(), ProvidedValue::String("gVNIC".to_owned())),
        ("weir.dev/rdma".to_owned(), ProvidedValue::Bool(false)),
    ]
    .into();
    let all = attributes(&device, &ours(), None, 30);
    assert_eq!(all["gce.dra.net/block"].string.as_deref(), Some("b7"));
    assert_eq!(all["weir.dev/pciDevice"].string.as_deref(), Some("gVNIC"));
    assert_eq!(all["weir.dev/rdma"].bool, Some(false), "which was true");
    assert_eq!(all.len(), 30);
}

#[test]
fn strings_are_cut_between_characters() {
    let mut long = device("eth1");
    long.kind = format!("{}é", "x".repeat(63));
    assert_eq!(string(&long, "type"), Some("x".repeat(63)));
}

#[test]
fn addresses_are_cut_between_addresses() {
    let mut many = device("eth1");
    many.addresses = (10..20).map(|n| format!("192.168.100.1{n}/24").parse().unwrap()).collect();
    assert_eq!(
        string(&many, "ipv4").as_deref(),
        Some("192.168.100.110/24,192.168.100.111/24,192.168.100.112/24")
    );
    assert_eq!(string(&many, "ipv6"), None);
}

#[test]
fn what_nobody_could_tell_is_left_out() {
    let all = attributes(&device("eth1"), &ours(), None, MOST);
    for absent in ["xdpNative", "pciAddress", "sriovVfs", "rdmaDevice", "kernelVersion"] {
        assert!(!all.contains_key(&format!("weir.dev/{absent}")), "{absent}");
    }
    assert_eq!(all["weir.dev/rdma"].bool, Some(false));
}

#[test]
fn a_sub_interface_is_selected_by_where_its_parent_is_but_is_not_there() {
    let mut vlan = device("vlan7");
    vlan.parent_pcie_root = Some("pci0000:3a".to_owned());
    let all = attributes(&vlan, &ours(), None, MOST);
    assert_eq!(all["resource.kubernetes.io/pcieRoot"].string.as_deref(), Some("pci0000:3a"));
    assert!(!all.contains_key("resource.kubernetes.io/pciBusID"));
    assert_eq!(all["weir.dev/virtual"].bool, Some(true));
}

#[test]
fn for_dranet_vendors_have_their_names() {
    let all = attributes(&everything("eth1"), &dranet(), None, MOST);
    assert_eq!(all["dra.net/pciVendor"].string.as_deref(), Some("Intel Corporation"));
    let product = all["dra.net/pciDevice"].string.as_deref().unwrap();
    assert_eq!(product, "Ethernet Controller E810-C for QSFP");
    assert_eq!(all["dra.net/numaNode"].int, Some(1));
    assert!(!all.contains_key("dra.net/isSriovVf"), "only where it is one");
    assert!(all.keys().all(|name| !name.starts_with("weir.dev")));
}

#[test]
fn a_kernel_release_yields_its_version() {
    for (release, version) in [
        ("6.18.44-cloud-amd64", Some("6.18.44")),
        ("6.1.0-18-amd64", Some("6.1.0")),
        ("6.12-rc1", Some("6.12.0")),
        ("6.12", Some("6.12.0")),
        ("06.1.2", Some("6.1.2")),
        ("6", None),
        ("", None),
        ("99999999999.1.1", None),
    ] {
        assert_eq!(kernel_version(release).as_deref(), version, "{release}");
    }
}
