//! What changes is looked at alone, and that comes to the same as looking at everything.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use driver::inventory::Scanner;
use driver::model::{By, PublishRules, Queues};
use driver::sys::asked::asked;
use driver::sys::bpf;
use driver::sys::netlink::{Changes, Events, Netlink};
use driver::sys::sysfs::Sysfs;
use tokio::runtime;
use tokio::sync::watch;

use super::{default_route, index, name, scan};
use crate::bench::{MadeNetns, in_own_namespaces, run, veth_pair};
use crate::datapath::{has_tcx, spec, strangers, tc};

fn scanner(sysfs: &Path) -> Scanner {
    Scanner::new(Sysfs::new(sysfs).unwrap()).unwrap()
}

/// Calls `test` with whoever listens in this namespace.
fn listening(test: impl FnOnce(&Events)) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    test(&Events::open().unwrap());
}

/// A bridge, four interfaces, and a way out.
fn furnish(netlink: &Netlink) {
    veth_pair(netlink, "nic0", "wire0");
    veth_pair(netlink, "eth0", "uplink");
    run("ip", &["link", "add", "br0", "type", "bridge"]);
    default_route(netlink, "eth0");
}

/// Each is something that people and programs do to interfaces.
const CHANGES: [&str; 16] = [
    "link set nic0 mtu 1400",
    "link set nic0 alias rail3",
    "link property add dev nic0 altname an-interface-of-a-long-name",
    "address add 192.0.2.7/24 dev nic0",
    "address del 192.0.2.7/24 dev nic0",
    "link set nic0 master br0",
    "link set nic0 nomaster",
    "link set wire0 down",
    "link set wire0 name other0",
    "link set other0 up",
    "route add default dev nic0 metric 7",
    "route del default dev nic0 metric 7",
    // Its routes go without a word.
    "link set eth0 down",
    "link add nic1 type veth peer name wire1",
    "link add link nic0 name nic0.5 type vlan id 5",
    "link del nic1",
];

#[test]
fn what_changed_is_all_that_a_look_at_everything_would_find() {
    in_own_namespaces(|sysfs| {
        let netlink = Netlink::open().unwrap();
        furnish(&netlink);
        listening(|events| {
            let mut scanner = scanner(sysfs);
            assert_eq!(scanner.scan().unwrap(), scan(sysfs));
            let mut follow = |what: &str| {
                let started = Instant::now();
                loop {
                    let changes = events.drain().unwrap();
                    assert!(!changes.everything, "{what}");
                    // Whether there is a carrier is told by and by.
                    let (seen, fresh) = (scanner.rescan(&changes).unwrap(), scan(sysfs));
                    if seen == fresh {
                        return;
                    }
                    let late = started.elapsed() > Duration::from_secs(2);
                    assert!(!late, "{what}: {seen:#?} instead of {fresh:#?}");
                    thread::sleep(Duration::from_millis(10));
                }
            };
            for change in CHANGES {
                let arguments: Vec<_> = change.split(' ').collect();
                // A kernel of the ring may lack VLANs, and nothing else.
                if change.ends_with("vlan id 5") && !has_vlans() {
                    continue;
                }
                run("ip", &arguments);
                follow(change);
            }
            let elsewhere = MadeNetns::new();
            let nic0 = name("nic0");
            netlink.move_to(index(&netlink, "nic0"), &elsewhere.netns, &nic0).unwrap();
            follow("nic0 goes into another namespace");
        });
    });
}

fn has_vlans() -> bool {
    let one = ["link", "add", "link", "lo", "name", "try.1", "type", "vlan", "id", "1"];
    let made = std::process::Command::new("ip").args(one).output().unwrap();
    made.status.success() && {
        run("ip", &["link", "del", "try.1"]);
        true
    }
}

#[test]
fn a_link_tells_what_people_call_it_and_how_it_is_doing() {
    in_own_namespaces(|sysfs| {
        let netlink = Netlink::open().unwrap();
        run(
            "ip",
            &[
                "link",
                "add",
                "nic0",
                "numrxqueues",
                "4",
                "numtxqueues",
                "3",
                "type",
                "veth",
                "peer",
                "name",
                "wire0",
            ],
        );
        run("ip", &["link", "set", "nic0", "alias", "rail 3"]);
        run("ip", &["link", "property", "add", "dev", "nic0", "altname", "enp7s0", "altname", "a"]);
        let nic0 = || scan(sysfs).devices.into_iter().find(|it| it.called() == "nic0").unwrap();
        let down = nic0();
        assert_eq!(down.altnames, ["a", "enp7s0"]);
        assert_eq!((down.alias.as_deref(), down.carrier), (Some("rail 3"), None));
        netlink.set_up(index(&netlink, "nic0")).unwrap();
        assert_eq!(nic0().carrier, Some(false), "the other end is down");
        // veth's driver tells of its channels; without one a queue counts that the kernel keeps.
        assert_eq!(nic0().queues, Some(Queues { rx: 4, tx: 3 }));
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        let include = vec!["br0".parse().unwrap()];
        let rules = Arc::new(PublishRules { include, ..PublishRules::default() });
        let mut scanner = scanner(sysfs).following(watch::channel(rules).1);
        let all = scanner.scan().unwrap().devices;
        let br0 = all.iter().find(|it| it.called() == "br0").unwrap();
        assert_eq!((br0.queues, &br0.firmware), (Some(Queues { rx: 1, tx: 1 }), &None));
    });
}

#[test]
fn drivers_say_who_they_are() {
    in_own_namespaces(|_| {
        Netlink::open().unwrap().add_veth(&name("nic0"), &name("wire0")).unwrap();
        let facts = driver::sys::ethtool::driver(&name("nic0")).unwrap().unwrap();
        assert_eq!((facts.driver.as_deref(), facts.firmware), (Some("veth"), None));
        assert_eq!(driver::sys::ethtool::driver(&name("nobody")).unwrap(), None);
    });
}

/// How often a thread asks for something.
fn requests<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = asked();
    let answer = work();
    (asked() - before, answer)
}

#[test]
fn a_scan_asks_no_more_of_twice_as_many_interfaces_and_a_change_is_asked_about_alone() {
    in_own_namespaces(|sysfs| {
        let netlink = Netlink::open().unwrap();
        let add = |nth| {
            netlink.add_veth(&name(&format!("nic{nth}")), &name(&format!("wire{nth}"))).unwrap();
        };
        (0..20).for_each(add);
        let mut scanner = scanner(sysfs);
        let (few, _) = requests(|| scanner.scan().unwrap());
        (20..40).for_each(add);
        let (many, all) = requests(|| scanner.scan().unwrap());
        assert_eq!(all.devices.len(), 80);
        assert!(many < few + 20, "{few} requests, then {many}");

        let nic7 = index(&netlink, "nic7");
        netlink.set_mtu(nic7, 1400).unwrap();
        let changes = Changes { interfaces: [nic7].into(), ..Changes::default() };
        let (one, seen) = requests(|| scanner.rescan(&changes).unwrap());
        // Link, addresses, what XDP can do, channels, speed, TCX either way.
        assert!(one <= 7, "{one}");
        assert_eq!(seen.devices.iter().find(|it| it.called() == "nic7").unwrap().mtu, 1400);
    });
}

/// Forty interfaces.
fn add_pairs(netlink: &Netlink) {
    for nth in 0..20 {
        netlink.add_veth(&name(&format!("nic{nth}")), &name(&format!("wire{nth}"))).unwrap();
    }
}

#[test]
fn a_quiet_node_is_asked_next_to_nothing() {
    in_own_namespaces(|sysfs| {
        let netlink = Netlink::open().unwrap();
        add_pairs(&netlink);
        let mut scanner = scanner(sysfs);
        scanner.scan().unwrap();
        let there = bpf::program_ids().unwrap().len() + bpf::link_ids().unwrap().len();
        let (asked, changes) = requests(|| scanner.attached().unwrap());
        assert_eq!(changes, Changes::default());
        // Each list has an end, which is asked for too.
        assert_eq!(asked, there as u64 + 2);
    });
}

/// As on a node of Cilium's, whose classifiers are never attached but jumped to.
#[test]
fn a_classifier_that_no_link_holds_does_not_have_all_devices_asked_again_and_again() {
    if !has_tcx() {
        return assert!(super::kernel() < (6, 6));
    }
    in_own_namespaces(|sysfs| {
        let netlink = Netlink::open().unwrap();
        add_pairs(&netlink);
        let mut scanner = scanner(sysfs);
        scanner.scan().unwrap();
        let _loose = strangers(&spec(tc(), None));
        let there = || (bpf::program_ids().unwrap().len() + bpf::link_ids().unwrap().len()) as u64;
        // The programs that are new are asked for as well.
        let (news, _) = requests(|| scanner.attached().unwrap());
        assert!(news >= there() + 2 + 2 * 40, "{news} requests");
        for _ in 0..2 {
            let (soon, _) = requests(|| scanner.attached().unwrap());
            assert_eq!(soon, there() + 2 + 2 * 40);
        }
        for _ in 0..3 {
            let (quiet, changes) = requests(|| scanner.attached().unwrap());
            assert_eq!((quiet, changes), (there() + 2 + 2 * 20, Changes::default()));
        }
    });
}

#[test]
fn what_happens_is_heard_of() {
    in_own_namespaces(|_| {
        let netlink = Netlink::open().unwrap();
        listening(|events| {
            assert!(events.drain().unwrap().is_empty());
            netlink.add_veth(&name("nic0"), &name("wire0")).unwrap();
            let both = ["nic0", "wire0"].map(|it| index(&netlink, it));
            let heard = events.drain().unwrap();
            assert_eq!(heard, Changes { interfaces: both.into(), ..Changes::default() });
            assert!(events.drain().unwrap().is_empty(), "nothing is told twice");
            netlink.delete(both[0]).unwrap();
            assert_eq!(events.drain().unwrap().interfaces, both.into());
            assert_eq!(netlink.link(&By::Index(both[0])).unwrap(), None);
        });
    });
}
