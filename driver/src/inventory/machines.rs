//! Whole machines for tests: a sysfs tree and what netlink tells of its interfaces, as text.
//!
//! ```text
//! [sysfs]
//! devices/pci0000:3a/0000:3a:02.0/0000:3b:00.0:
//!   class = 0x020000
//!   net/eth0/speed = 100000
//! [links]
//! 2 eth0 mac=02:00:00:00:00:02 controller=4
//! 4 bond0 kind=bond state=down
//! ```
//!
//! The tree is written as [`SysfsTree::machine`] reads it. A link has its index, its name, and what is
//! not as usual: `mac`, `mtu` (1500), `kind` (`device`), `encap` (`ether`), `state` (`up`), `queues` (1),
//! `alt` (another name), `controller` and `parent`, both by index. One that is `moved` is in a pod: neither netlink nor sysfs shows it.

use std::collections::BTreeMap;

use super::Scan;
use super::assemble::DriverSaid;
use super::assemble::{Observed, assemble};
use super::rdma::look as rdma;
use super::scan::place;
use crate::model::{IfIndex, PortFacts, PublishRules, Queues};
use crate::sys::netlink::LinkFacts;
use crate::sys::sysfs::tree::SysfsTree;

/// What a scan finds on the machine that `text` describes.
pub(crate) fn scan(text: &str) -> Scan {
    scan_by(text, &PublishRules::default())
}

pub(crate) fn scan_by(text: &str, rules: &PublishRules) -> Scan {
    assemble(&observe(text), rules, &[])
}

fn observe(text: &str) -> Observed {
    let meant = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let said = meant.collect::<Vec<_>>().join("\n");
    let (planted, told) = said.split_once("[links]").unwrap_or((&said, ""));
    let planted = planted.split_once("[sysfs]").unwrap().1;
    let told = told.lines().map(str::trim).filter(|line| !line.is_empty());
    let (moved, here): (Vec<_>, Vec<_>) = told.partition(|line| line.ends_with(" moved"));
    let mut tree = SysfsTree::machine(planted);
    for line in moved {
        tree = tree.without_interface(line.split(' ').nth(1).unwrap());
    }
    let sysfs = tree.sysfs();
    let mut seen = sysfs.look();
    let mut links: Vec<_> = here.into_iter().map(link).collect();
    // The kernel tells these by netlink too, which here nobody has to write twice.
    let drivers = links.iter_mut().map(|link| {
        let at = |file: &str| tree.text(&format!("class/net/{}/{file}", link.name));
        link.port = PortFacts {
            name: at("phys_port_name"),
            id: at("phys_port_id"),
            switch_id: at("phys_switch_id"),
        };
        let speed_mbps = seen.speed_mbps(&link.name).unwrap();
        (link.index, DriverSaid { speed_mbps, ..DriverSaid::default() })
    });
    let drivers = drivers.collect();
    let places = links.iter().map(|link| (link.index, place(&mut seen, &link.name))).collect();
    Observed {
        rdma: rdma::all(&mut seen),
        usable_cpus: seen.usable_cpus().unwrap(),
        functions: seen.functions_without_interface().unwrap(),
        links,
        places,
        drivers,
        ..Observed::default()
    }
}

fn link(line: &str) -> LinkFacts {
    let mut words = line.split_whitespace();
    let index = IfIndex(words.next().unwrap().parse().unwrap());
    let name = words.next().unwrap().parse().unwrap();
    let mut said: BTreeMap<_, _> = words.map(|word| word.split_once('=').unwrap()).collect();
    let mut say = |key: &str| said.remove(key).map(str::to_owned);
    let some_index = |text: Option<String>| text.map(|text| IfIndex(text.parse().unwrap()));
    let state = say("state").unwrap_or_else(|| "up".to_owned());
    let queues = say("queues").map_or(1, |text| text.parse().unwrap());
    let facts = LinkFacts {
        mac: say("mac").map(|text| text.parse().unwrap()),
        mtu: say("mtu").map_or(1500, |text| text.parse().unwrap()),
        up: true,
        carrier: Some(state == "up"),
        oper_state: state,
        kind: say("kind").unwrap_or_else(|| "device".to_owned()),
        encapsulation: say("encap").unwrap_or_else(|| "ether".to_owned()),
        controller: some_index(say("controller")),
        parent: some_index(say("parent")),
        altnames: say("alt").into_iter().collect(),
        queues: Queues { rx: queues, tx: queues },
        ..LinkFacts::named(index, name)
    };
    assert!(said.is_empty(), "{line}: {said:?}");
    facts
}

mod tests;
