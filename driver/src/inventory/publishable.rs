//! Which interfaces are never offered to pods: those that the node itself and its network live by.

use std::collections::{BTreeMap, BTreeSet};

use super::cni;
use crate::model::{
    Device, IMMOVABLE_KINDS, IfIndex, IfName, NamePattern, PublishRules, SUBINTERFACE_PREFIX,
};
use crate::sys::netlink::LinkFacts;

pub(super) const LOOPBACK: &str = "loopback";
pub(super) const DEFAULT_ROUTE: &str = "default route";
/// What prepare has made upon a device, for one claim.
pub(super) const SUBINTERFACE: &str = "sub-interface of a claim";
pub(super) const BELOW_DEFAULT_ROUTE: &str = "below the default route";
pub(super) const ABOVE_DEFAULT_ROUTE: &str = "above the default route";
/// Of the cluster's own network, or of another container runtime.
pub(super) const NETWORK: &str = "interface of a container network";
/// Of a kind that prepare refuses to hand over, as a bridge or a bond.
pub(super) const IMMOVABLE: &str = "the kernel keeps it in its namespace";
/// Of a bridge or a bond that would lose it, so that prepare refuses to hand it over.
pub(super) const MEMBER: &str = "member of another interface";
/// By the configuration file.
pub(super) const EXCLUDED: &str = "excluded";
/// The sysfs that we were given does not show the interface: it vanished while we looked, or that
/// sysfs was mounted in another namespace.
pub(super) const NOT_IN_SYSFS: &str = "not in sysfs";
/// The log says what is wrong.
pub(super) const UNREADABLE: &str = "unreadable in sysfs";

/// Why an interface is left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Why {
    /// One of a closed set.
    pub(super) reason: &'static str,
    /// Whose it is, or which rule says so.
    pub(super) detail: Option<String>,
}

impl From<&'static str> for Why {
    fn from(reason: &'static str) -> Self {
        Self { reason, detail: None }
    }
}

/// Interfaces to leave out, and why.
///
/// Whoever moved an interface that carries a default route into a pod would cut the node off. The
/// same goes for what is below such an interface: the members of a bridge or bond, what a VLAN or
/// macvlan is stacked on, and so on down. What is stacked on such an interface shares its link with
/// the node, and what a container network has made is that network's. What cannot be moved, or is a
/// member of something, is of use only to who makes a sub-interface upon it. All these are offered only
/// where the rules say so by name.
pub(super) fn left_out(
    links: &[LinkFacts],
    default_routes: &[IfIndex],
    rules: &PublishRules,
) -> BTreeMap<IfIndex, Why> {
    let routes: BTreeSet<_> = default_routes.iter().copied().collect();
    let lower = closure(&routes, |index| below(links, index));
    let upper = closure(&routes, |index| above(links, index));
    let networks = networks(links);
    let judge = |link: &LinkFacts| {
        let (name, index) = (link.name.as_str(), &link.index);
        let by = |patterns: &[NamePattern]| {
            patterns.iter().find(|pattern| pattern.matches(name)).map(ToString::to_string)
        };
        if link.is_loopback {
            Some(LOOPBACK.into())
        } else if name.starts_with(SUBINTERFACE_PREFIX) {
            Some(SUBINTERFACE.into())
        } else if routes.contains(index) {
            Some(DEFAULT_ROUTE.into())
        } else if lower.contains(index) {
            Some(BELOW_DEFAULT_ROUTE.into())
        } else if let Some(pattern) = by(&rules.exclude) {
            Some(Why { reason: EXCLUDED, detail: Some(pattern) })
        } else if by(&rules.include).is_some() {
            None
        } else if upper.contains(index) {
            Some(ABOVE_DEFAULT_ROUTE.into())
        } else if let Some(owner) = networks.get(index) {
            Some(Why { reason: NETWORK, detail: Some((*owner).to_owned()) })
        } else if IMMOVABLE_KINDS.contains(&link.kind.as_str()) {
            Some(Why { reason: IMMOVABLE, detail: Some(link.kind.clone()) })
        } else {
            let controller = called(links, link.controller?);
            Some(Why { reason: MEMBER, detail: Some(controller) })
        }
    };
    links.iter().filter_map(|link| Some((link.index, judge(link)?))).collect()
}

/// Why a device without an interface is left out: by its RDMA device or its place on the bus, by which
/// people know it. The rules of [`left_out`] have been applied to any other.
pub(super) fn excluded(device: &Device, rules: &PublishRules) -> Option<Why> {
    if device.interface.is_some() {
        return None;
    }
    let address = device.pci.as_ref().map(|pci| pci.address.to_string());
    let names = [Some(device.called()), address.as_deref()];
    let is_it = |pattern: &&NamePattern| names.iter().flatten().any(|name| pattern.matches(name));
    let pattern = rules.exclude.iter().find(is_it)?;
    Some(Why { reason: EXCLUDED, detail: Some(pattern.to_string()) })
}

/// What the host needs the interface called `name` for, if anything: a route out or a container network
/// goes by it, it is a member of another interface, or something is stacked on it.
pub fn needed_for(
    links: &[LinkFacts],
    default_routes: &[IfIndex],
    name: &IfName,
) -> Option<String> {
    let link = links.iter().find(|link| link.name == *name)?;
    let reasons = left_out(links, default_routes, &PublishRules::default());
    let why = reasons.get(&link.index).filter(|why| why.reason != MEMBER);
    let reason = why.map(|why| why.reason.to_owned()).or_else(|| {
        let upper = above(links, link.index);
        upper.first().map(|upper| format!("{} is above it", called(links, *upper)))
    });
    reason.map(|reason| format!("{name}: {reason}"))
}

fn called(links: &[LinkFacts], index: IfIndex) -> String {
    let found = links.iter().find(|link| link.index == index);
    found.map_or_else(|| format!("index {index}"), |link| link.name.to_string())
}

/// What `next` leads to from `start`, however many steps away.
fn closure(start: &BTreeSet<IfIndex>, next: impl Fn(IfIndex) -> Vec<IfIndex>) -> BTreeSet<IfIndex> {
    let mut found = BTreeSet::new();
    let mut pending: Vec<_> = start.iter().copied().collect();
    while let Some(index) = pending.pop() {
        pending.extend(next(index).into_iter().filter(|index| found.insert(*index)));
    }
    found
}

/// Which interfaces belong to a container network: by themselves, or as ports of a switch that does.
fn networks(links: &[LinkFacts]) -> BTreeMap<IfIndex, &'static str> {
    let mut owners: BTreeMap<_, _> =
        links.iter().filter_map(|link| Some((link.index, cni::owner(link)?))).collect();
    let ports: Vec<_> = links
        .iter()
        .filter_map(|link| Some((link.index, *owners.get(&link.controller?)?)))
        .collect();
    for (port, owner) in ports {
        owners.entry(port).or_insert(owner);
    }
    owners
}

/// The interfaces directly above `lower`: its bridge or bond, and what is stacked on it.
fn above(links: &[LinkFacts], lower: IfIndex) -> Vec<IfIndex> {
    let controller = links.iter().find(|link| link.index == lower).and_then(|link| link.controller);
    let stacked = links.iter().filter(|link| link.parent == Some(lower)).map(|link| link.index);
    controller.into_iter().chain(stacked).collect()
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
            self.left_out_by(default_routes, &PublishRules::default())
        }

        fn left_out_by(
            &self,
            default_routes: &[u32],
            rules: &PublishRules,
        ) -> Vec<(u32, &'static str)> {
            let routes: Vec<_> = default_routes.iter().copied().map(IfIndex).collect();
            let found = left_out(&self.0, &routes, rules);
            found.into_iter().map(|(index, why)| (index.0, why.reason)).collect()
        }

        /// The last one is linked to something in another namespace.
        fn linked_elsewhere(mut self) -> Self {
            if let Some(last) = self.0.last_mut() {
                last.is_linked_elsewhere = true;
            }
            self
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
    fn what_is_stacked_on_the_way_out_is_left_out_unless_it_is_included() {
        let links = Links::new()
            .with(2, "eth0", "device", None, None)
            .with(3, "macvlan0", "macvlan", Some(6), Some(2))
            .with(4, "eth0.7", "vlan", None, Some(2))
            .with(5, "eth0.7.8", "vlan", None, Some(4))
            .with(6, "vrf0", "vrf", None, None)
            .with(7, "eth1", "device", None, None)
            .with(8, "eth1.7", "vlan", None, Some(7));
        let (route, above) = ((2, DEFAULT_ROUTE), ABOVE_DEFAULT_ROUTE);
        let all = [(1, LOOPBACK), route, (3, above), (4, above), (5, above), (6, above)];
        assert_eq!(links.left_out(&[2]), all);
        let include = ["eth0*", "lo", "macvlan0"].map(|it| it.parse().unwrap()).to_vec();
        let rules = PublishRules { include, ..PublishRules::default() };
        assert_eq!(links.left_out_by(&[2], &rules), [(1, LOOPBACK), route, (6, above)]);
    }

    #[test]
    fn the_other_vlans_of_a_nic_whose_vlan_leads_out_may_go() {
        let links = Links::new()
            .with(2, "eth0", "device", None, None)
            .with(3, "eth0.7", "vlan", None, Some(2))
            .with(4, "eth0.8", "vlan", None, Some(2));
        let left = [(1, LOOPBACK), (2, BELOW_DEFAULT_ROUTE), (3, DEFAULT_ROUTE)];
        assert_eq!(links.left_out(&[3]), left);
    }

    #[test]
    fn what_a_container_network_has_made_is_left_out_by_name() {
        for (name, kind) in [
            ("antrea-gw0", "openvswitch"),
            ("azv768e8de", "veth"),
            ("br-0123456789ab", "bridge"),
            ("cali0a1b2c3d4e5", "veth"),
            ("tunl0", "ipip"),
            ("vxlan.calico", "vxlan"),
            ("wireguard.cali", "wireguard"),
            ("cilium_host", "veth"),
            ("lxc0a1b2c3d4e5f", "netkit"),
            ("cni0", "bridge"),
            ("docker0", "bridge"),
            ("eni0a1b2c3d4e5", "veth"),
            ("flannel.1", "vxlan"),
            ("gke0a1b2c3d4e5", "veth"),
            ("kube-bridge", "bridge"),
            ("kube-ipvs0", "dummy"),
            ("nodelocaldns", "dummy"),
            ("ovn-k8s-mp0", "openvswitch"),
            ("vethwepl0e18de4", "veth"),
            ("virbr0", "bridge"),
            ("weave", "bridge"),
        ] {
            let links = Links::new().with(2, name, kind, None, None);
            assert_eq!(links.left_out(&[]), [(1, LOOPBACK), (2, NETWORK)], "{name}");
            let include = vec![name.parse().unwrap()];
            let rules = PublishRules { include, ..PublishRules::default() };
            assert_eq!(links.left_out_by(&[], &rules), [(1, LOOPBACK)], "{name}");
        }
        for name in
            ["eth0", "eno1", "enp3s0", "ens1f0np0", "enx001122334455", "ib0", "bond0", "nic0"]
        {
            let links = Links::new().with(2, name, "device", None, None);
            assert_eq!(links.left_out(&[]), [(1, LOOPBACK)], "{name}");
        }
    }

    #[test]
    fn a_veth_is_left_out_where_its_peer_is_in_a_pod_and_nobody_chose_its_name() {
        let chosen = Links::new().with(2, "nic0", "veth", None, None).linked_elsewhere();
        assert_eq!(chosen.left_out(&[]), [(1, LOOPBACK)]);
        let here = Links::new().with(2, "veth0a1b2c3d", "veth", None, None);
        assert_eq!(here.left_out(&[]), [(1, LOOPBACK)]);
        assert_eq!(here.linked_elsewhere().left_out(&[]), [(1, LOOPBACK), (2, NETWORK)]);
        let port = Links::new()
            .with(2, "cni0", "bridge", None, None)
            .with(3, "odd", "veth", Some(2), None)
            .linked_elsewhere();
        assert_eq!(port.left_out(&[]), [(1, LOOPBACK), (2, NETWORK), (3, NETWORK)]);
    }

    #[test]
    fn what_prepare_refuses_is_left_out_unless_it_is_included() {
        for kind in ["bond", "bridge", "team", "vrf"] {
            let links = Links::new()
                .with(2, "eth0", "device", Some(4), None)
                .with(3, "rep0", "device", Some(4), None)
                .with(4, "upper0", kind, None, None)
                .with(5, "upper0.7", "vlan", None, Some(4));
            let left = [(1, LOOPBACK), (2, MEMBER), (3, MEMBER), (4, IMMOVABLE)];
            assert_eq!(links.left_out(&[]), left, "{kind}");
            let include = ["rep0", "upper0"].map(|it| it.parse().unwrap()).to_vec();
            let rules = PublishRules { include, ..PublishRules::default() };
            assert_eq!(links.left_out_by(&[], &rules), [(1, LOOPBACK), (2, MEMBER)], "{kind}");
            let found = left_out(&links.0, &[], &PublishRules::default());
            assert_eq!(found[&IfIndex(2)].detail.as_deref(), Some("upper0"));
            assert_eq!(found[&IfIndex(4)].detail.as_deref(), Some(kind));
        }
    }

    #[test]
    fn what_is_excluded_is_left_out_whatever_includes_it() {
        let links = Links::new().with(2, "eth0", "device", None, None);
        let all: Vec<NamePattern> = vec!["*".parse().unwrap()];
        let rules = PublishRules { include: all.clone(), exclude: all, filter: None };
        assert_eq!(links.left_out_by(&[], &rules), [(1, LOOPBACK), (2, EXCLUDED)]);
    }

    #[test]
    fn every_port_of_open_vswitch_may_be_below_the_way_out() {
        let links = Links::new()
            .with(2, "eth0", "device", Some(3), None)
            .with(3, "ovs-system", "openvswitch", None, None)
            .with(4, "br-ex", "openvswitch", None, None);
        assert_eq!(
            links.left_out(&[4]),
            [(1, LOOPBACK), (2, BELOW_DEFAULT_ROUTE), (3, NETWORK), (4, DEFAULT_ROUTE)]
        );
    }

    #[test]
    fn what_the_host_lives_by_is_needed() {
        let links = Links::new()
            .with(2, "eth0", "device", None, None)
            .with(3, "eth1", "device", Some(4), None)
            .with(4, "bond0", "bond", None, None)
            .with(5, "eth2", "device", None, None)
            .with(6, "eth2.7", "vlan", None, Some(5))
            .with(7, "eth3", "device", None, None);
        let needed = |routes: &[u32], name: &str| {
            let routes: Vec<_> = routes.iter().copied().map(IfIndex).collect();
            needed_for(&links.0, &routes, &name.parse().unwrap())
        };
        assert_eq!(needed(&[2], "eth0").as_deref(), Some("eth0: default route"));
        assert_eq!(needed(&[4], "eth1").as_deref(), Some("eth1: below the default route"));
        assert_eq!(needed(&[2], "eth1").as_deref(), Some("eth1: bond0 is above it"));
        assert_eq!(needed(&[2], "eth2").as_deref(), Some("eth2: eth2.7 is above it"));
        assert_eq!(needed(&[2], "eth3"), None);
        assert_eq!(needed(&[2], "eth9"), None, "it is not here");
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
