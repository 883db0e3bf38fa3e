//! Interfaces that are made, and what they become members of.

use driver::model::{At, IfName, MacvlanMode, Place, SubinterfaceKind, SubinterfaceSpec};
use driver::node::Node as _;
use driver::plan::{Observed, Step, Stray, Subject};

use super::stage::{ON_HOST, Stage, ip, on_host};
use crate::bench::run;

const NAME: &str = "weir-0123abcd";

pub(super) fn spec(stage: &mut Stage, kind: SubinterfaceKind) -> SubinterfaceSpec {
    SubinterfaceSpec {
        name: NAME.parse().unwrap(),
        parent: ON_HOST.parse().unwrap(),
        parent_index: stage.index(ON_HOST),
        parent_was_down: false,
        kind,
    }
}

pub(super) fn all(stage: &mut Stage) -> Vec<IfName> {
    match stage.node.observe(&Subject::AllSubinterfaces).unwrap() {
        Observed::AllSubinterfaces(names) => names,
        other => panic!("{other:?}"),
    }
}

/// Makes a sub-interface and removes it; what `ip` tells of it meanwhile.
pub(super) fn made_and_removed(stage: &mut Stage, kind: SubinterfaceKind) -> serde_json::Value {
    let step = Step::AddSubinterface { spec: spec(stage, kind) };
    let was = stage.twice(&step);
    assert_eq!(all(stage), [NAME.parse().unwrap()]);
    let link = ip(&["link", "show", "dev", NAME])[0].take();
    assert_eq!(link["link"], ON_HOST, "{link:#}");
    assert!(!link["flags"].to_string().contains("\"UP\""), "{link:#}");
    stage.back(&step, &was);
    assert_eq!(all(stage), []);
    link["linkinfo"].clone()
}

#[test]
fn macvlans_of_all_modes_are_made_and_removed() {
    on_host(|stage| {
        for (mode, word) in [
            (MacvlanMode::Bridge, "bridge"),
            (MacvlanMode::Private, "private"),
            (MacvlanMode::Vepa, "vepa"),
            (MacvlanMode::Passthru, "passthru"),
        ] {
            let info = made_and_removed(stage, SubinterfaceKind::Macvlan { mode });
            assert_eq!(info["info_kind"], "macvlan");
            assert_eq!(info["info_data"]["mode"], word, "{info:#}");
        }
    });
}

#[test]
fn a_sub_interface_of_another_kind_is_in_the_way_and_stays() {
    on_host(|stage| {
        let bridge = spec(stage, SubinterfaceKind::Macvlan { mode: MacvlanMode::Bridge });
        let vepa = spec(stage, SubinterfaceKind::Macvlan { mode: MacvlanMode::Vepa });
        stage.twice(&Step::AddSubinterface { spec: bridge });
        let error = stage.refused(&Step::AddSubinterface { spec: vepa });
        assert!(error.message.contains(NAME), "{error}");
        assert_eq!(all(stage), [NAME.parse().unwrap()]);
    });
}

#[test]
fn a_sub_interface_goes_with_its_parent_and_that_is_no_error() {
    on_host(|stage| {
        let spec = spec(stage, SubinterfaceKind::Macvlan { mode: MacvlanMode::Bridge });
        stage.twice(&Step::AddSubinterface { spec: spec.clone() });
        stage.host.delete(spec.parent_index).unwrap();
        let step = Step::RemoveSubinterface { name: spec.name.clone() };
        assert_eq!(stage.node.apply(&step).unwrap(), driver::plan::Was::Same);
        stage.refused(&Step::AddSubinterface { spec });
    });
}

#[test]
fn only_names_of_ours_are_sub_interfaces() {
    on_host(|stage| {
        run("ip", &["link", "add", "link", "v0", "name", "mac0", "type", "macvlan"]);
        run("ip", &["link", "add", "name", "weir-00000000", "type", "bridge"]);
        assert_eq!(all(stage), []);
        let name = "weir-00000000".parse().unwrap();
        stage.refused(&Step::RemoveSubinterface { name });
    });
}

#[test]
fn an_interface_becomes_a_member_and_ceases_to_be_one() {
    on_host(|stage| {
        for bridge in ["br0", "br1"] {
            run("ip", &["link", "add", "name", bridge, "type", "bridge"]);
        }
        let at = Stage::on_host();
        let controller = |name: Option<&str>| Step::SetController {
            at: at.clone(),
            controller: name.map(|name| name.parse().unwrap()),
        };
        let step = controller(Some("br0"));
        let was = stage.twice(&step);
        assert_eq!(ip(&["link", "show", "dev", "v0"])[0]["master"], "br0");
        let change = controller(Some("br1"));
        let former = stage.twice(&change);
        assert_eq!(ip(&["link", "show", "dev", "v0"])[0]["master"], "br1");
        stage.back(&change, &former);
        assert_eq!(ip(&["link", "show", "dev", "v0"])[0]["master"], "br0");
        stage.back(&step, &was);
        assert!(ip(&["link", "show", "dev", "v0"])[0]["master"].is_null());
        let error = stage.refused(&controller(Some("br9")));
        assert!(error.message.contains("br9"), "{error}");
    });
}

/// A veth never falls back to the host: it ends with its namespace.
#[test]
fn what_software_made_is_no_stray() {
    on_host(|stage| {
        let at = At { place: Place::Host, interface: ON_HOST.parse().unwrap() };
        let mac = stage.state(&at).mac.unwrap();
        let stray = Stray { pci: None, macs: vec![mac] };
        let strays = stage.node.observe(&Subject::Strays(stray)).unwrap();
        assert_eq!(strays, Observed::Strays(Vec::new()));
    });
}
