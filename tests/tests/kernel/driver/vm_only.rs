//! Whole claims for kinds of interfaces that a machine's own kernel may not have.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use driver::sys::netns::Netns;
use serde_json::{Value, json};
use tests::node::Node;
use tests::runtime::Options;

use super::configured::{has, lines};
use super::snapshot::Snapshot;
use super::world::{
    PORT, answer_in, config, deploy, nothing_is_left, on_a_node, prepared_ids, talk, until,
};
use crate::config::stage::ip;

fn in_a_vrf() -> Value {
    let mut wishes = config(0, "auto");
    wishes["interface"]["vrf"] = json!({ "name": "blue", "table": 1234 });
    wishes["routes"] = json!([{ "destination": "10.50.0.0/16", "gateway": "198.18.0.1" }]);
    wishes
}

fn upon(nth: u8, subinterface: &Value) -> Value {
    let mut wishes = config(nth, "auto");
    wishes["subinterface"] = subinterface.clone();
    wishes
}

/// Has a server of the pod that knows of no VRF answer somebody at the wire.
fn serves_through_the_vrf(node: &Node, pod: &Netns) {
    let to = SocketAddr::from(([198, 18, 0, 10], PORT));
    let listener = pod.run(|_| TcpListener::bind(("0.0.0.0", to.port()))).unwrap().unwrap();
    let served = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"from a VRF"));
    let mut text = String::new();
    until("the server answers", || {
        let stream = node.network.wire().run(|_| TcpStream::connect(to)).unwrap();
        let mut stream = stream.map_err(|error| error.to_string())?;
        stream.read_to_string(&mut text).map_err(|error| error.to_string())
    });
    assert_eq!(text, "from a VRF");
    served.join().unwrap().unwrap();
}

fn is_as_asked_for(tag: u16) {
    let link = |name| ip(&["link", "show", "dev", name])[0].take();
    assert_eq!(link("net0")["master"], "blue");
    has(
        &ip(&["route", "show", "table", "1234"]),
        &[
            json!({ "dst": "10.50.0.0/16", "gateway": "198.18.0.1", "dev": "net0" }),
            json!({ "dst": "198.18.0.0/24", "dev": "net0" }),
        ],
    );
    let [ipvlan, vlan] = ["net1", "net2"].map(|name| link(name)["linkinfo"].take());
    assert_eq!(ipvlan["info_kind"], "ipvlan", "{ipvlan:#}");
    assert_eq!(vlan["info_kind"], "vlan", "{vlan:#}");
    assert_eq!(vlan["info_data"]["id"], tag, "{vlan:#}");
}

#[test]
#[ignore = "needs vrf, ipvlan and vlan: vm ring"]
fn a_pod_has_a_vrf_an_ipvlan_and_a_vlan_and_the_host_is_as_before_afterwards() {
    const TAG: u16 = 7;
    on_a_node(3, Options::default(), |node| {
        let tagged = "link add link wire2 name tagged type vlan id 7";
        node.network
            .wire()
            .run(|_| {
                let move_address =
                    ["addr del 198.18.2.1/24 dev wire2", "addr add 198.18.2.1/24 dev tagged"];
                lines(&[tagged, move_address[0], move_address[1], "link set tagged up"]);
            })
            .unwrap();
        let before = Snapshot::take();
        let web = deploy(
            node,
            "web",
            &[
                (0, in_a_vrf()),
                (1, upon(1, &json!({ "type": "ipvlan", "mode": "l2" }))),
                (2, upon(2, &json!({ "type": "vlan", "vlanId": TAG }))),
            ],
        );
        let ids = prepared_ids(node, &web);
        let (netns, _) = node.run_sandbox(&web.pod).unwrap();
        netns.run(|_| is_as_asked_for(TAG)).unwrap();
        drop(node.start_container(&web.pod, &ids).unwrap());
        serves_through_the_vrf(node, &netns);
        let echo = answer_in(&netns);
        talk(node, 1);
        talk(node, 2);
        echo.stop();
        drop(netns);
        web.end(node);
        before.is_as_now();
        nothing_is_left();
    });
}
