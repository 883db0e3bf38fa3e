//! Kinds of interfaces that are no hardware, or upon it.

use serde_json::{Value, json};
use tests::node::Node;

use super::machine::{
    IGB0, IGB1, Running, VIRTIO, Wish, awaited, config, interface, is_called, on_the_machine,
    published,
};
use crate::config::ip;
use crate::driver::configured::lines;
use crate::driver::snapshot::Snapshot;
use crate::driver::world::{deploy_claim, nothing_is_left, until};

fn upon(address: &str, subinterface: &Value) -> Value {
    let mut wishes = config("net0", address, "auto");
    wishes["subinterface"] = subinterface.clone();
    wishes
}

/// Has two pods talk, each with a sub-interface of such a kind upon its NIC.
fn talk_by(node: &Node, kind: &str, subinterface: &Value) {
    let pods = [(IGB0, 1), (IGB1, 2)].map(|(mac, host)| {
        let parameters = upon(&format!("10.9.0.{host}/24"), subinterface);
        let pod = format!("{kind}-{host}");
        let pod = Running::start(node, &pod, &[Wish::of(&interface(mac), parameters)]);
        assert_eq!(pod.link("net0")["linkinfo"]["info_kind"], kind);
        pod
    });
    pods[0].talks_to(&pods[1], [10, 9, 0, 2]);
    for pod in pods {
        pod.end(node);
    }
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn sub_interfaces_upon_hardware_talk_and_leave_it_as_it_was() {
    on_the_machine(|node| {
        for mac in [IGB0, IGB1] {
            lines(&[&format!("link set {} up", interface(mac))]);
        }
        let before = Snapshot::take();
        talk_by(node, "vlan", &json!({ "type": "vlan", "vlanId": 7 }));
        talk_by(node, "macvlan", &json!({ "type": "macvlan", "mode": "bridge" }));
        talk_by(node, "ipvlan", &json!({ "type": "ipvlan", "mode": "l2" }));
        before.is_as_now();
        nothing_is_left();
    });
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn a_dummy_is_a_device_like_others_and_a_nic_may_be_in_a_vrf_of_its_pod() {
    on_the_machine(|node| {
        lines(&[
            "link add spare type dummy",
            "addr add 10.8.0.1/24 broadcast + dev spare",
            "link set spare up",
        ]);
        awaited(node, "the dummy is published", |device| is_called(device, "spare"));
        let before = Snapshot::take();
        let nic = interface(VIRTIO);
        let mut in_a_vrf = config("net1", "10.9.0.1/24", "auto");
        in_a_vrf["interface"]["vrf"] = json!({ "name": "blue", "table": 1234 });
        let dummy = Wish::of("spare", config("net0", "10.9.1.1/24", "auto"));
        let virtio = Wish { request: "other", ..Wish::of(&nic, in_a_vrf) };
        let pod = Running::start(node, "web", &[dummy, virtio]);
        assert_eq!(pod.link("net0")["linkinfo"]["info_kind"], "dummy");
        assert_eq!(pod.link("net1")["master"], "blue");
        pod.end(node);
        before.is_as_now();
        lines(&["link del spare"]);
        nothing_is_left();
    });
}

#[test]
#[ignore = "needs hardware: vm ring"]
fn a_nic_that_became_the_member_of_a_bond_is_refused_and_stays_one() {
    on_the_machine(|node| {
        let nic = interface(IGB0);
        awaited(node, "the NIC is published", |device| is_called(device, &nic));
        let parameters = config("net0", "10.9.0.1/24", "auto");
        let claim = super::machine::claim(&[Wish::of(&nic, parameters)]);
        let web = deploy_claim(node, "web", &claim);
        lines(&["link add bond7 type bond", &format!("link set {nic} master bond7")]);
        until("the NIC is offered no more", || {
            let devices = published(node);
            let is_offered = devices.iter().any(|device| is_called(device, &nic));
            if is_offered { Err(format!("{devices:?}")) } else { Ok(()) }
        });
        let before = Snapshot::take();
        let answers = node.ask_to_prepare(&web.claims()).unwrap();
        let refused = answers[web.claim.uid.as_str()].as_ref().unwrap_err();
        assert!(refused.contains("not offered any more"), "{refused}");
        before.is_as_now();
        assert_eq!(ip(&["link", "show", "dev", &nic])[0]["master"], "bond7");
        node.unprepare(&web.claims()).unwrap();
        lines(&[&format!("link set {nic} nomaster"), "link del bond7"]);
        nothing_is_left();
    });
}
