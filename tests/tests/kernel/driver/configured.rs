//! A claim that asks for all that can be had on this kernel, read back by other means than the
//! driver's, and the node as it was when the claim is gone.

use std::fs;

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{SchedClassifier, TcAttachType};
use common::names;
use driver::model::By;
use driver::sys::bpf::{self, Place};
use driver::sys::ethtool::{Older, ask_older};
use driver::sys::netlink::Netlink;
use driver::sys::netns::Netns;
use serde_json::{Value, json};
use tests::node::Node;
use tests::runtime::Options;

use super::snapshot::Snapshot;
use super::world::{Deployed, answer_in, deploy, nothing_is_left, on_a_node, prepared_ids, talk};
use crate::bench::run;
use crate::config::stage::ip;
use crate::datapath::{spec, strangers, tc};

pub(crate) fn lines(lines: &[&str]) {
    for line in lines {
        run("ip", &line.split(' ').collect::<Vec<_>>());
    }
}

/// Gives the host on its first NIC whatever it could lose.
pub(super) fn furnish() {
    for (path, value) in [
        ("ipv6/conf/nic0/addr_gen_mode", "1"),
        ("ipv6/conf/nic0/accept_ra", "0"),
        ("ipv6/conf/nic0/disable_ipv6", "0"),
        ("ipv4/conf/nic0/arp_ignore", "2"),
        ("ipv4/conf/nic0/rp_filter", "1"),
    ] {
        fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
    }
    lines(&[
        "addr add 172.31.0.9/24 brd + dev nic0",
        "addr add 10.20.0.1/16 brd + dev nic0",
        "addr add 172.31.0.2/24 brd + dev nic0",
        "addr add fd31::1/64 dev nic0 nodad",
        "addr add fd31::9/64 dev nic0 nodad",
        "link set nic0 gso_max_size 60000 gro_max_size 61000",
        // A default route in the main table would keep the NIC from being given away.
        "route add default via 172.31.0.254 metric 100 proto dhcp table 5000",
        "route add 10.93.0.0/16 via 172.31.0.254 metric 100",
        "route add 10.90.0.0/16 via 172.31.0.254 table 5000",
        "-6 route add default via fd31::fe table 5000",
        "-6 route add fd93::/64 via fd31::fe",
        "-6 route add fd90::/64 via fd31::fe table 5000",
        "rule add from 172.31.0.0/24 table 5000 priority 700",
        "-6 rule add from fd31::/64 table 5000 priority 700",
        "neigh add 172.31.0.254 lladdr 02:00:00:00:00:fe dev nic0",
        "-6 neigh add fd31::fe lladdr 02:00:00:00:00:fe dev nic0",
    ]);
}

/// The second one is taken along whole.
fn furnish_second() {
    lines(&[
        "addr add 172.31.1.5/24 brd + dev nic1",
        "route add 10.91.0.0/16 via 172.31.1.254 src 172.31.1.5",
        "neigh add 172.31.1.254 lladdr 02:00:00:00:01:fe dev nic1",
    ]);
}

/// Every field that is said of a veth here. There is no VRF on this kernel, and no driver with rings
/// or private flags; DHCP has tests of its own.
pub(super) fn everything() -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig",
        "interface": {
            "name": "net0",
            "addresses": ["198.18.0.10/24", "172.31.0.77/24", "fd18::10/64", "fd31::77/64"],
            "noDad": false,
            "mtu": 1400,
            "hardwareAddr": "02:99:00:00:00:01",
            "gsoMaxSize": 32000, "groMaxSize": 33000,
            "gsoIPv4MaxSize": 20000, "groIPv4MaxSize": 21000,
            "forwarding": true, "arpIgnore": 1, "arpAnnounce": 2,
            "sysctls": { "net.ipv4.conf.IFNAME.rp_filter": "2", "net.ipv6.conf.IFNAME.proxy_ndp": 1 },
            "disableEbpfPrograms": true,
            "inherit": "all",
        },
        "routes": [
            { "destination": "10.50.0.0/16", "gateway": "198.18.0.1", "metric": 77, "table": 4000 },
            { "destination": "10.51.0.0/16", "gateway": "192.0.2.9", "onlink": true },
            { "destination": "10.52.0.0/16", "source": "198.18.0.10", "scope": "link" },
            { "destination": "fd52::/64", "gateway": "fd18::1", "metric": 7 },
        ],
        "rules": [
            { "priority": 800, "source": "198.18.0.10/32", "destination": "10.50.0.0/16", "table": 4000 },
        ],
        "neighbors": [
            { "destination": "198.18.0.1", "hardwareAddr": "02:77:00:00:01:00" },
            { "destination": "fd18::1", "hardwareAddr": "02:77:00:00:01:00" },
        ],
        "ethtool": {
            "features": { "tso": false, "rx-gro": true },
            "channels": { "rx": 2, "tx": 2 },
        },
        "ebpf": { "hook": "tcx", "telemetry": "counters" },
    })
}

fn taken_along() -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig",
        "interface": { "name": "net1" },
    })
}

fn made_upon() -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "NetworkConfig",
        "interface": { "name": "net2", "addresses": ["198.18.2.10/24"], "mtu": 1300 },
        "subinterface": { "type": "macvlan", "mode": "bridge" },
    })
}

/// Somebody else's program on an interface, for as long as what is answered lives.
pub(crate) fn stranger(interface: &str) -> Ebpf {
    let mut ebpf = strangers(&spec(tc(), None));
    let program: &mut SchedClassifier =
        ebpf.program_mut(names::EGRESS).unwrap().try_into().unwrap();
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    program.attach_with_options(interface, TcAttachType::Ingress, options).unwrap();
    ebpf
}

/// How many programs are at TCX of an interface of the calling thread's namespace.
pub(crate) fn programs_at_tcx(interface: &str) -> [usize; 2] {
    let by = By::Name(interface.parse().unwrap());
    let index = Netlink::open().unwrap().link(&by).unwrap().unwrap().index;
    [Place::TcxIngress, Place::TcxEgress].map(|place| bpf::chain(index, place).unwrap().len())
}

/// What `ip` tells of one thing: those parts of it that are asked for.
pub(crate) fn has(found: &Value, wanted: &[Value]) {
    let has_all = |entry: &Value, wanted: &Value| {
        wanted.as_object().unwrap().iter().all(|(key, value)| entry.get(key) == Some(value))
    };
    for wanted in wanted {
        let found = found.as_array().unwrap();
        assert!(found.iter().any(|entry| has_all(entry, wanted)), "{wanted} is not in {found:#?}");
    }
}

fn looks_as_asked_for() {
    let link = &ip(&["link", "show", "dev", "net0"])[0];
    for (key, value) in [
        ("mtu", json!(1400)),
        ("address", json!("02:99:00:00:00:01")),
        ("gso_max_size", json!(32000)),
        ("gro_max_size", json!(33000)),
    ] {
        assert_eq!(link[key], value, "{key} of {link:#}");
    }
    // Of these `ip` knows nothing before iproute2 6.3.
    let by = By::Name("net0".parse().unwrap());
    let segments = Netlink::open().unwrap().link(&by).unwrap().unwrap().segments;
    let ipv4 = (segments.gso_ipv4_max_size, segments.gro_ipv4_max_size);
    assert_eq!(ipv4, (Some(20_000), Some(21_000)));
    for (name, value) in [
        ("ipv4/conf/net0/forwarding", "1"),
        ("ipv6/conf/net0/forwarding", "1"),
        ("ipv4/conf/net0/arp_ignore", "1"),
        ("ipv4/conf/net0/arp_announce", "2"),
        ("ipv4/conf/net0/rp_filter", "2"),
        ("ipv6/conf/net0/proxy_ndp", "1"),
    ] {
        let text = fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
        assert_eq!(text.trim_end(), value, "{name}");
    }
    let ask = |command| ask_older(&"net0".parse().unwrap(), command).unwrap();
    assert_eq!((ask(Older::Tso)[1], ask(Older::Gro)[1]), (0, 1));
    assert_eq!(ask(Older::Channels)[5..7], [2, 2]);
    // The stranger is gone; each of ours is alone at its place.
    assert_eq!(programs_at_tcx("net0"), [1, 1]);
}

fn has_its_luggage() {
    let addresses = &ip(&["addr", "show", "dev", "net0"])[0]["addr_info"];
    let address = |local, prefixlen| json!({ "local": local, "prefixlen": prefixlen });
    let v6 = addresses.as_array().unwrap().iter().filter(|entry| entry["family"] == "inet6");
    assert!(v6.into_iter().all(|entry| entry.get("nodad").is_none()), "{addresses:#}");
    has(
        addresses,
        &[
            address("198.18.0.10", 24),
            address("172.31.0.77", 24),
            address("fd18::10", 64),
            address("fd31::77", 64),
        ],
    );
    let routes = |family| ip(&[family, "route", "show", "table", "all", "dev", "net0"]);
    has(
        &routes("-4"),
        &[
            json!({ "dst": "10.50.0.0/16", "gateway": "198.18.0.1", "metric": 77, "table": "4000" }),
            json!({ "dst": "10.51.0.0/16", "gateway": "192.0.2.9", "flags": ["onlink"] }),
            json!({ "dst": "10.52.0.0/16", "prefsrc": "198.18.0.10", "scope": "253" }),
            // The host's.
            json!({ "dst": "default", "gateway": "172.31.0.254", "metric": 100, "table": "5000" }),
            json!({ "dst": "10.93.0.0/16", "gateway": "172.31.0.254", "metric": 100 }),
            json!({ "dst": "10.90.0.0/16", "gateway": "172.31.0.254", "table": "5000" }),
        ],
    );
    has(
        &routes("-6"),
        &[
            json!({ "dst": "fd52::/64", "gateway": "fd18::1", "metric": 7 }),
            json!({ "dst": "default", "gateway": "fd31::fe", "table": "5000" }),
            json!({ "dst": "fd93::/64", "gateway": "fd31::fe" }),
            json!({ "dst": "fd90::/64", "gateway": "fd31::fe", "table": "5000" }),
        ],
    );
    has(
        &ip(&["-4", "rule"]),
        &[
            json!({ "priority": 800, "src": "198.18.0.10", "dst": "10.50.0.0", "dstlen": 16, "table": "4000" }),
            json!({ "priority": 700, "src": "172.31.0.0", "srclen": 24, "table": "5000" }),
        ],
    );
    has(&ip(&["-6", "rule"]), &[json!({ "priority": 700, "src": "fd31::", "table": "5000" })]);
    let neighbor = |dst, lladdr| json!({ "dst": dst, "lladdr": lladdr, "state": ["PERMANENT"] });
    has(
        &ip(&["neigh", "show", "dev", "net0", "nud", "permanent"]),
        &[
            neighbor("198.18.0.1", "02:77:00:00:01:00"),
            neighbor("fd18::1", "02:77:00:00:01:00"),
            neighbor("172.31.0.254", "02:00:00:00:00:fe"),
            neighbor("fd31::fe", "02:00:00:00:00:fe"),
        ],
    );
}

/// What the host had on the second NIC, and the third in the host's stead.
fn has_companions() {
    let second = &ip(&["addr", "show", "dev", "net1"])[0]["addr_info"];
    let local: Vec<_> = second.as_array().unwrap().iter().map(|entry| &entry["local"]).collect();
    assert_eq!(local[..2], ["172.31.1.1", "172.31.1.5"]);
    has(
        &ip(&["route", "show", "dev", "net1"]),
        &[json!({ "dst": "10.91.0.0/16", "gateway": "172.31.1.254", "prefsrc": "172.31.1.5" })],
    );
    has(
        &ip(&["neigh", "show", "dev", "net1", "nud", "permanent"]),
        &[json!({ "dst": "172.31.1.254", "lladdr": "02:00:00:00:01:fe" })],
    );
    let third = &ip(&["link", "show", "dev", "net2"])[0];
    assert_eq!(third["linkinfo"]["info_kind"], "macvlan", "{third:#}");
    assert_eq!(third["linkinfo"]["info_data"]["mode"], "bridge", "{third:#}");
    assert_eq!(third["mtu"], 1300);
}

fn wants_everything(node: &Node) -> Deployed {
    deploy(node, "web", &[(0, everything()), (1, taken_along()), (2, made_upon())])
}

fn is_as_asked_for(netns: &Netns) {
    netns
        .run(|_| {
            looks_as_asked_for();
            has_its_luggage();
            has_companions();
        })
        .unwrap();
}

#[test]
fn every_field_of_a_claim_is_there_in_the_pod_and_the_host_is_as_before_afterwards() {
    on_a_node(3, Options::default(), |node| {
        furnish();
        furnish_second();
        let _stranger = stranger("nic0");
        assert_eq!(programs_at_tcx("nic0"), [1, 0]);
        let before = Snapshot::take();
        let web = wants_everything(node);
        let ids = prepared_ids(node, &web);
        for nth in 0..2 {
            let (netns, _) = node.run_sandbox(&web.pod).unwrap();
            is_as_asked_for(&netns);
            let container = node.start_container(&web.pod, &ids).unwrap();
            for pair in ["WEIR_R0_IFNAME=net0", "WEIR_R1_IFNAME=net1", "WEIR_R2_IFNAME=net2"] {
                assert!(container.environment.iter().any(|it| it == pair), "{container:?}");
            }
            let echo = answer_in(&netns);
            talk(node, 0);
            talk(node, 2);
            echo.stop();
            drop((container, netns));
            node.stop_sandbox(&web.pod).unwrap();
            assert!(web.records().iter().all(|record| record.residue.is_empty()), "time {nth}");
        }
        node.unprepare(&web.claims()).unwrap();
        before.is_as_now();
        nothing_is_left();
    });
}
