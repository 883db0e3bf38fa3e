//! Which interfaces belong to the cluster's own network: whoever moved one into a pod would cut off
//! all the others.

use crate::model::matches;
use crate::sys::netlink::LinkFacts;

/// Names that networks of clusters and of containers give their interfaces, and which of them do.
/// From their sources and manuals; `docs/node-config.md` has the same list.
pub(super) const NAMES: [(&str, &str); 46] = [
    ("antrea-*", "Antrea"),
    ("azure*", "Azure CNI"),
    ("azv*", "Azure CNI"),
    ("br-*", "Docker or Open vSwitch"),
    ("calico_*", "Calico"),
    ("cali*", "Calico"),
    ("bpfin.cali", "Calico"),
    ("bpfout.cali", "Calico"),
    ("tunl0", "Calico"),
    ("vxlan.calico", "Calico"),
    ("vxlan-v6.calico", "Calico"),
    ("wireguard.cali", "Calico"),
    ("wg-v6.cali", "Calico"),
    ("cbr0", "kubenet"),
    ("cilium_*", "Cilium"),
    ("lxc*", "Cilium or LXC"),
    ("cni0", "the bridge plugin"),
    ("cni-podman*", "Podman"),
    ("podman*", "Podman"),
    ("docker*", "Docker"),
    ("eni*", "Amazon VPC CNI"),
    ("flannel*", "Flannel"),
    ("genev_sys_*", "Open vSwitch"),
    ("gre_sys", "Open vSwitch"),
    ("vxlan_sys_*", "Open vSwitch"),
    ("ovs-system", "Open vSwitch"),
    ("ovs-netdev", "Open vSwitch"),
    ("gke*", "GKE"),
    ("kube-bridge", "kube-router"),
    ("kube-dummy-if", "kube-router"),
    ("kube-ipvs0", "kube-proxy"),
    ("lxdbr*", "LXD"),
    ("nerdctl*", "nerdctl"),
    ("nodelocaldns", "NodeLocal DNSCache"),
    ("ovn-k8s-*", "OVN-Kubernetes"),
    ("ovn0", "Kube-OVN"),
    ("vethwe*", "Weave Net"),
    ("vxlan-6784", "Weave Net"),
    ("weave", "Weave Net"),
    ("virbr*", "libvirt"),
    ("vnet*", "libvirt"),
    // The kernel's own, which cannot leave the namespace that they are in (`ip_tunnel_init_net()` in
    // `net/ipv4/ip_tunnel.c`, Linux 6.12).
    ("gre0", "the kernel"),
    ("gretap0", "the kernel"),
    ("erspan0", "the kernel"),
    ("sit0", "the kernel"),
    ("ip6tnl0", "the kernel"),
];

/// What ports of a switch have in front of their names where nobody chose one: `veth` and some
/// hexadecimal digits, from the bridge plugin, kindnet, Docker and others.
const ANY_PORT: &str = "veth";

/// Whose network an interface belongs to, by itself.
pub(super) fn owner(link: &LinkFacts) -> Option<&'static str> {
    let name = link.name.as_str();
    // All begin with a letter, by which most are ruled out: this is asked about every interface.
    let named = NAMES.iter().find(|(pattern, _)| {
        pattern.as_bytes().first() == name.as_bytes().first() && matches(pattern, name)
    });
    if let Some((_, owner)) = named {
        return Some(owner);
    }
    if link.kind == "openvswitch" {
        return Some("Open vSwitch");
    }
    let number = name.strip_prefix(ANY_PORT);
    let is_port = number.is_some_and(|it| it.bytes().all(|b| b.is_ascii_hexdigit()));
    let is_pair = matches!(link.kind.as_str(), "veth" | "netkit");
    (is_port && is_pair && link.is_linked_elsewhere).then_some("a pod or a container")
}
