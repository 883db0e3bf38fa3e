//! Which interfaces are never offered to pods: those that the node itself lives by.

use std::collections::BTreeMap;

use crate::model::{IfIndex, SUBINTERFACE_PREFIX};
use crate::sys::netlink::LinkFacts;

pub(super) const LOOPBACK: &str = "loopback";
pub(super) const DEFAULT_ROUTE: &str = "default route";
/// What prepare has made upon a device, for one claim.
pub(super) const SUBINTERFACE: &str = "sub-interface of a claim";
pub(super) const BELOW_DEFAULT_ROUTE: &str = "below the default route";
/// The sysfs that we were given does not show the interface: it vanished while we looked, or that
/// sysfs was mounted in another namespace.
pub(super) const NOT_IN_SYSFS: &str = "not in sysfs";
/// The log says what is wrong.
pub(super) const UNREADABLE: &str = "unreadable in sysfs";

/// Interfaces to leave out, and why.
///
/// Whoever moved an interface that carries a default route into a pod would cut the node off. The
/// same goes for what is below such an interface: the members of a bridge or bond, what a VLAN or
/// macvlan is stacked on, and so on down. What is stacked *on* such an interface may go.
pub(super) fn left_out(
    links: &[LinkFacts],
    default_routes: &[IfIndex],
) -> BTreeMap<IfIndex, &'static str> {
    let mut reasons = BTreeMap::new();
    let mut pending = default_routes.to_vec();
    while let Some(upper) = pending.pop() {
        for lower in below(links, upper) {
            if reasons.insert(lower, BELOW_DEFAULT_ROUTE).is_none() {
                pending.push(lower);
            }
        }
    }
    reasons.extend(default_routes.iter().map(|index| (*index, DEFAULT_ROUTE)));
    let made = links.iter().filter(|link| link.name.as_str().starts_with(SUBINTERFACE_PREFIX));
    reasons.extend(made.map(|link| (link.index, SUBINTERFACE)));
    let loopbacks = links.iter().filter(|link| link.is_loopback);
    reasons.extend(loopbacks.map(|link| (link.index, LOOPBACK)));
    reasons
}

/// The interfaces directly below `upper`.
fn below(links: &[LinkFacts], upper: IfIndex) -> Vec<IfIndex> {
    let facts = links.iter().find(|link| link.index == upper);
    let parent = facts.and_then(|link| link.parent);
    // All ports of Open vSwitch have one and the same controller, which is no bridge's interface, so
    // nothing tells which of them are below the bridge that carries the route.
    let is_switched = facts.is_some_and(is_open_vswitch);
    let belongs = |index: IfIndex| {
        index == upper
            || is_switched && links.iter().any(|link| link.index == index && is_open_vswitch(link))
    };
    let members =
        links.iter().filter(|link| link.controller.is_some_and(belongs)).map(|link| link.index);
    parent.into_iter().chain(members).collect()
}

fn is_open_vswitch(link: &LinkFacts) -> bool {
    link.kind == "openvswitch"
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Links(Vec<LinkFacts>);

    impl Links {
        fn new() -> Self {
            Self(Vec::new()).with(1, "lo", "device", None, None).looped()
        }

        fn looped(mut self) -> Self {
            self.0[0].is_loopback = true;
            self
        }

        fn with(
            mut self,
            index: u32,
            name: &str,
            kind: &str,
            controller: Option<u32>,
            parent: Option<u32>,
        ) -> Self {
            self.0.push(LinkFacts {
                kind: kind.to_owned(),
                controller: controller.map(IfIndex),
                parent: parent.map(IfIndex),
                ..LinkFacts::named(IfIndex(index), name.parse().unwrap())
            });
            self
        }

        fn left_out(&self, default_routes: &[u32]) -> Vec<(u32, &'static str)> {
            let routes: Vec<_> = default_routes.iter().copied().map(IfIndex).collect();
            left_out(&self.0, &routes).into_iter().map(|(index, why)| (index.0, why)).collect()
        }
    }

    #[test]
    fn the_loopback_and_the_way_out_are_left_out() {
        let links = Links::new()
            .with(2, "eth0", "device", None, None)
            .with(3, "eth1", "device", None, None);
        assert_eq!(links.left_out(&[2]), [(1, LOOPBACK), (2, DEFAULT_ROUTE)]);
        assert_eq!(links.left_out(&[]), [(1, LOOPBACK)]);
    }

    #[test]
    fn what_is_made_for_a_claim_is_no_device_of_its_own() {
        let links = Links::new().with(2, "eth0", "device", None, None).with(
            3,
            "weir-0badcafe",
            "macvlan",
            None,
            Some(2),
        );
        assert_eq!(links.left_out(&[]), [(1, LOOPBACK), (3, SUBINTERFACE)]);
    }

    #[test]
    fn everything_below_the_way_out_is_left_out_too() {
        // A default route by a VLAN on a bridge on a bond of two.
        let links = Links::new()
            .with(2, "eth0", "device", Some(4), None)
            .with(3, "eth1", "device", Some(4), None)
            .with(4, "bond0", "bond", Some(5), None)
            .with(5, "br0", "bridge", None, None)
            .with(6, "br0.7", "vlan", None, Some(5))
            .with(7, "eth2", "device", None, None);
        let below = BELOW_DEFAULT_ROUTE;
        assert_eq!(
            links.left_out(&[6]),
            [(1, LOOPBACK), (2, below), (3, below), (4, below), (5, below), (6, DEFAULT_ROUTE)]
        );
    }

    #[test]
    fn what_is_stacked_on_the_way_out_may_go() {
        let links = Links::new().with(2, "eth0", "device", None, None).with(
            3,
            "macvlan0",
            "macvlan",
            None,
            Some(2),
        );
        assert_eq!(links.left_out(&[2]), [(1, LOOPBACK), (2, DEFAULT_ROUTE)]);
    }

    #[test]
    fn every_port_of_open_vswitch_may_be_below_the_way_out() {
        let links = Links::new()
            .with(2, "eth0", "device", Some(3), None)
            .with(3, "ovs-system", "openvswitch", None, None)
            .with(4, "br-ex", "openvswitch", None, None);
        assert_eq!(
            links.left_out(&[4]),
            [(1, LOOPBACK), (2, BELOW_DEFAULT_ROUTE), (4, DEFAULT_ROUTE)]
        );
    }

    #[test]
    fn interfaces_that_are_below_each_other_do_not_go_round_for_ever() {
        let links =
            Links::new().with(2, "a", "vlan", None, Some(3)).with(3, "b", "vlan", None, Some(2));
        assert_eq!(
            links.left_out(&[2]),
            [(1, LOOPBACK), (2, DEFAULT_ROUTE), (3, BELOW_DEFAULT_ROUTE)]
        );
    }
}
