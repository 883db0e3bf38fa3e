//! Namespaces and route netlink, against real namespaces and veths.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use driver::model::{By, IfIndex, IfName, MacAddr, NetnsRef, Route};
use driver::sys::netlink::Netlink;
use driver::sys::netns::{Netns, NetnsError};
use ipnet::IpNet;

use crate::bench::{MadeNetns, await_state, in_own_namespaces, run, veth_pair};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn route(destination: &str, gateway: Option<&str>) -> Route {
    Route { gateway: gateway.map(|text| text.parse().unwrap()), ..Route::to(net(destination)) }
}

#[test]
fn an_interface_shows_what_was_made_of_it() {
    in_own_namespaces(|_| {
        let netlink = Netlink::open().unwrap();
        let (v0, v1) = veth_pair(&netlink, "v0", "v1");
        let mac: MacAddr = "02:00:00:00:00:aa".parse().unwrap();
        netlink.set_mtu(v0, 9000).unwrap();
        netlink.set_mac(v0, mac).unwrap();

        let facts = netlink.link(&By::Index(v0)).unwrap().unwrap();
        assert_eq!(facts.name, name("v0"));
        assert_eq!((facts.mtu, facts.mac, facts.up), (9000, Some(mac), true));
        assert_eq!((facts.kind.as_str(), facts.encapsulation.as_str()), ("veth", "ether"));
        assert_eq!(facts.oper_state, "up");
        assert_eq!((facts.parent, facts.controller), (None, None), "a peer is no parent");

        netlink.set_down(v1).unwrap();
        await_state(&netlink, v0, "lowerlayerdown");
        netlink.rename(v1, &name("renamed")).unwrap();

        let links = netlink.links().unwrap();
        let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
        // veth numbers the peer first.
        assert_eq!(names, ["lo", "renamed", "v0"]);
        assert!(links[0].is_loopback);

        netlink.delete(v0).unwrap();
        assert_eq!(netlink.link(&By::Index(v1)).unwrap(), None, "both ends go");
        assert_eq!(netlink.link(&By::Name(name("v0"))).unwrap(), None);
    });
}

#[test]
fn alternative_names_find_nothing() {
    in_own_namespaces(|_| {
        let netlink = Netlink::open().unwrap();
        veth_pair(&netlink, "v0", "v1");
        run("ip", &["link", "property", "add", "dev", "v0", "altname", "other"]);
        assert_eq!(netlink.link(&By::Name(name("other"))).unwrap(), None);
    });
}

#[test]
fn addresses_come_back_in_the_kernels_order_and_without_what_it_made_itself() {
    in_own_namespaces(|_| {
        let netlink = Netlink::open().unwrap();
        let (v0, v1) = veth_pair(&netlink, "v0", "v1");
        let addresses = [net("10.0.0.9/32"), net("10.0.0.1/24"), net("fd00::1/64")];
        for address in addresses {
            netlink.add_address(v0, address).unwrap();
        }
        assert_eq!(netlink.addresses(v0).unwrap(), addresses);
        assert_eq!(netlink.addresses(v1).unwrap(), []);

        let error = netlink.add_address(v0, addresses[0]).unwrap_err();
        assert!(error.is_exists(), "{error:?}");
        netlink.remove_address(v0, addresses[2]).unwrap();
        for address in [addresses[2], net("10.7.7.7/24")] {
            let error = netlink.remove_address(v0, address).unwrap_err();
            assert!(error.is_absent(), "{error:?}");
        }
        assert_eq!(netlink.addresses(v0).unwrap(), addresses[..2]);
    });
}

/// What the fake node takes for true.
#[test]
fn the_first_address_of_a_network_takes_the_others_of_it_along() {
    in_own_namespaces(|_| {
        let netlink = Netlink::open().unwrap();
        let (v0, _) = veth_pair(&netlink, "v0", "v1");
        for address in ["10.0.0.1/24", "10.0.0.2/24", "10.9.0.1/24"] {
            netlink.add_address(v0, net(address)).unwrap();
        }
        netlink.remove_address(v0, net("10.0.0.1/24")).unwrap();
        assert_eq!(netlink.addresses(v0).unwrap(), [net("10.9.0.1/24")]);
    });
}

/// What the fake node takes for true, too.
#[test]
fn a_destination_leads_through_one_interface() {
    in_own_namespaces(|_| {
        let netlink = Netlink::open().unwrap();
        let (v0, v1) = veth_pair(&netlink, "v0", "v1");
        let route = Route::to(net("203.0.113.0/24"));
        netlink.add_route(v0, &route).unwrap();
        let error = netlink.add_route(v1, &route).unwrap_err();
        assert!(error.is_exists(), "{error:?}");
        assert_eq!(netlink.routes(v0).unwrap(), [route]);
        assert_eq!(netlink.routes(v1).unwrap(), []);
    });
}

#[test]
fn an_ipv6_address_is_usable_at_once() {
    in_own_namespaces(|_| {
        let netlink = Netlink::open().unwrap();
        let (v0, _) = veth_pair(&netlink, "v0", "v1");
        netlink.add_address(v0, net("fd00::1/64")).unwrap();
        // Binding to a tentative address fails.
        std::net::UdpSocket::bind("[fd00::1]:0").unwrap();
    });
}

#[test]
fn routes_come_back_as_added_and_without_what_the_kernel_made() {
    in_own_namespaces(|_| {
        let netlink = Netlink::open().unwrap();
        let (v0, v1) = veth_pair(&netlink, "v0", "v1");
        netlink.add_address(v0, net("10.0.0.1/24")).unwrap();
        netlink.add_address(v0, net("fd00::1/64")).unwrap();
        let mut routes = [
            route("0.0.0.0/0", Some("10.0.0.254")),
            route("10.9.0.0/16", None),
            Route { source: Some("10.0.0.1".parse().unwrap()), ..route("10.8.0.0/16", None) },
            route("10.7.0.0/16", Some("fd00::fe")),
            route("fd09::/64", Some("fd00::fe")),
        ];
        for route in &routes {
            netlink.add_route(v0, route).unwrap();
        }
        routes.sort_unstable();
        let mut found = netlink.routes(v0).unwrap();
        found.sort_unstable();
        assert_eq!(found, routes);
        assert_eq!(netlink.routes(v1).unwrap(), []);
        assert_eq!(netlink.default_route_interfaces().unwrap(), [v0]);

        for route in &routes {
            let error = netlink.add_route(v0, route).unwrap_err();
            assert!(error.is_exists(), "{error:?}");
        }
        for route in &routes {
            netlink.remove_route(v0, route).unwrap();
            let error = netlink.remove_route(v0, route).unwrap_err();
            assert!(error.is_absent(), "{error:?}");
        }
        assert_eq!(netlink.routes(v0).unwrap(), []);
        assert_eq!(netlink.default_route_interfaces().unwrap(), []);
    });
}

#[test]
fn every_hop_of_a_default_route_counts_and_other_tables_do_not() {
    in_own_namespaces(|_| {
        let netlink = Netlink::open().unwrap();
        let (v0, v1) = veth_pair(&netlink, "v0", "v1");
        netlink.add_address(v0, net("10.0.0.1/24")).unwrap();
        netlink.add_address(v1, net("10.0.1.1/24")).unwrap();
        run("ip", &["route", "add", "default", "via", "10.0.0.2", "table", "1000"]);
        assert_eq!(netlink.default_route_interfaces().unwrap(), []);

        // As VPNs have it: no default route, and yet the way for half of everything.
        run("ip", &["route", "add", "128.0.0.0/1", "via", "10.0.1.2"]);
        assert_eq!(netlink.default_route_interfaces().unwrap(), [v1]);
        run("ip", &["route", "del", "128.0.0.0/1"]);

        let hops = "default nexthop via 10.0.0.2 nexthop via 10.0.1.2";
        run("ip", &["route", "add"].into_iter().chain(hops.split(' ')).collect::<Vec<_>>());
        let mut both = [v0, v1];
        both.sort_unstable();
        assert_eq!(netlink.default_route_interfaces().unwrap(), both);
        let tables: Vec<_> =
            netlink.routes(v0).unwrap().iter().map(|route| route.table.0).collect();
        assert_eq!(tables, [1000], "what has two hops is no route of one interface");
    });
}

#[test]
fn a_refusal_carries_the_kernels_own_words() {
    in_own_namespaces(|_| {
        let netlink = Netlink::open().unwrap();
        let (v0, _) = veth_pair(&netlink, "v0", "v1");
        let error = netlink.set_mtu(v0, 70_000).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("set MTU 70000 on interface {v0}: mtu greater than device maximum")
        );
        let error = netlink.add_route(v0, &route("10.9.0.0/16", Some("10.0.0.9"))).unwrap_err();
        assert!(error.to_string().ends_with(": Nexthop has invalid gateway"), "{error}");

        let nobody = IfIndex(9999);
        for error in [
            netlink.set_up(nobody).unwrap_err(),
            netlink.delete(nobody).unwrap_err(),
            netlink.add_address(nobody, net("10.0.0.1/24")).unwrap_err(),
            netlink.add_address(nobody, net("fd00::1/64")).unwrap_err(),
            netlink.remove_address(nobody, net("fd00::1/64")).unwrap_err(),
            netlink.add_route(nobody, &route("10.9.0.0/16", None)).unwrap_err(),
        ] {
            assert!(error.is_absent(), "{error:?}");
        }
        let error = netlink.add_veth(&name("v0"), &name("v2")).unwrap_err();
        assert!(error.is_exists(), "{error:?}");
    });
}

#[test]
fn an_interface_moves_under_a_new_name_and_back() {
    in_own_namespaces(|_| {
        let pod = MadeNetns::new();
        let host = Netlink::open().unwrap();
        let here = Netns::of_this_thread().unwrap();
        let (v0, _) = veth_pair(&host, "v0", "v1");
        let mac: MacAddr = "02:00:00:00:00:aa".parse().unwrap();
        host.set_mtu(v0, 9000).unwrap();
        host.set_mac(v0, mac).unwrap();
        host.add_address(v0, net("10.0.0.1/24")).unwrap();
        host.set_down(v0).unwrap();

        host.move_to(v0, &pod.netns, &name("net1")).unwrap();
        assert_eq!(host.link(&By::Name(name("v0"))).unwrap(), None);
        let inside = Netlink::open_in(&pod.netns).unwrap();
        let moved = inside.link(&By::Name(name("net1"))).unwrap().unwrap();
        assert_eq!((moved.mtu, moved.mac, moved.up), (9000, Some(mac), false));
        assert_eq!(inside.addresses(moved.index).unwrap(), [], "addresses do not travel");
        assert_eq!(moved.parent, None, "the peer's index is of another namespace");

        inside.move_to(moved.index, &here, &name("v0")).unwrap();
        let back = host.link(&By::Name(name("v0"))).unwrap().unwrap();
        assert_eq!((back.mtu, back.mac, back.up), (9000, Some(mac), false));
    });
}

#[test]
fn a_move_takes_down_an_interface_that_is_up() {
    in_own_namespaces(|_| {
        let pod = MadeNetns::new();
        let host = Netlink::open().unwrap();
        let (v0, _) = veth_pair(&host, "v0", "v1");
        host.move_to(v0, &pod.netns, &name("net1")).unwrap();
        let inside = Netlink::open_in(&pod.netns).unwrap();
        assert!(!inside.link(&By::Name(name("net1"))).unwrap().unwrap().up);
    });
}

#[test]
fn a_move_onto_a_taken_name_moves_nothing() {
    in_own_namespaces(|_| {
        let pod = MadeNetns::new();
        let host = Netlink::open().unwrap();
        let (v0, _) = veth_pair(&host, "v0", "v1");
        let inside = Netlink::open_in(&pod.netns).unwrap();
        inside.add_veth(&name("eth0"), &name("other")).unwrap();

        let error = host.move_to(v0, &pod.netns, &name("eth0")).unwrap_err();
        assert!(error.is_exists(), "{error:?}");
        assert!(host.link(&By::Index(v0)).unwrap().is_some(), "it is where it was");
        assert_eq!(inside.link(&By::Name(name("v0"))).unwrap(), None);
    });
}

#[test]
fn packets_are_counted_on_both_ends() {
    in_own_namespaces(|_| {
        let netlink = Netlink::open().unwrap();
        let (v0, v1) = veth_pair(&netlink, "v0", "v1");
        netlink.add_address(v0, net("10.0.0.1/24")).unwrap();
        let before = netlink.statistics(v1).unwrap().unwrap();
        let socket = std::net::UdpSocket::bind("10.0.0.1:0").unwrap();
        socket.set_broadcast(true).unwrap();
        for _ in 0..10 {
            socket.send_to(&[0; 100], "10.0.0.255:9").unwrap();
        }
        let after = netlink.statistics(v1).unwrap().unwrap();
        // IPv6 may add a few packets of its own.
        assert!(after.rx_packets >= before.rx_packets + 10, "{before:?} {after:?}");
        assert!(after.rx_bytes >= before.rx_bytes + 10 * 142, "{before:?} {after:?}");
        assert_eq!(netlink.statistics(IfIndex(9999)).unwrap(), None);
    });
}

#[test]
fn a_visit_works_inside_and_leaves_this_thread_where_it_is() {
    in_own_namespaces(|_| {
        let made = MadeNetns::new();
        let before = Netns::of_this_thread().unwrap().id();
        let (seen, links) = made
            .netns
            .run(|inside| {
                assert_eq!(inside.id(), made.netns.id());
                (Netns::of_this_thread().unwrap().id(), Netlink::open().unwrap().links().unwrap())
            })
            .unwrap();
        assert_eq!(seen, made.netns.id());
        assert_eq!(links.len(), 1, "a new namespace has its loopback only: {links:?}");
        assert_eq!(Netns::of_this_thread().unwrap().id(), before);
        assert_ne!(before, made.netns.id());
    });
}

#[test]
fn a_namespace_that_is_unmounted_is_gone() {
    in_own_namespaces(|_| {
        let made = MadeNetns::new();
        let recorded = NetnsRef { path: made.path(), id: made.netns.id() };
        assert_eq!(Netns::open_ref(&recorded).unwrap().id(), made.netns.id());

        nix::mount::umount2(&recorded.path, nix::mount::MntFlags::MNT_DETACH).unwrap();
        let error = Netns::open_ref(&recorded).unwrap_err();
        assert!(error.is_gone(), "an empty file is left: {error}");
        let error = Netns::open(&recorded.path).unwrap_err();
        assert!(matches!(error, NetnsError::NotANamespace { .. }), "{error}");

        fs::remove_file(&recorded.path).unwrap();
        assert!(Netns::open_ref(&recorded).unwrap_err().is_gone());
        made.netns.run(|_| ()).expect("an open namespace lives on");
    });
}

#[test]
fn a_process_tells_of_its_namespace_where_the_path_does_not() {
    in_own_namespaces(|_| {
        // The child is born into this thread's namespace.
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let path = Path::new("/nowhere/at/all");
        // Which asks from outside; from inside it would be its own.
        assert!(Netns::resolve(path, Some(child.id())).is_err());
        let elsewhere = MadeNetns::new();
        let pid = Some(child.id());
        let found = elsewhere.netns.run(|_| Netns::resolve(path, pid)).unwrap().unwrap();
        assert_eq!(found.id, Netns::of_this_thread().unwrap().id());
        assert_eq!(found.path.to_str().unwrap(), format!("/proc/{}/ns/net", child.id()));

        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Netns::open_ref(&found).unwrap_err().is_gone());
        assert!(Netns::resolve(path, Some(child.id())).is_err());
    });
}
