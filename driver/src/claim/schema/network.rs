//! Everything of the schema but programs.

use serde_json::{Map, Value, json};

use super::{described, flag, integer, list, map, object, text, words};
use crate::claim::sysctl::{self, Values, key_of};
use crate::claim::{
    ethtool, interface, neighbor, route, routing_rule, sriov as vf, subinterface, vrf,
};
use crate::model::{CHANNELS, COALESCE, IfName, RINGS, SYSCTLS};

pub(super) fn interface() -> Value {
    let bytes = |text| described(text, integer(interface::SEGMENTS));
    object(
        "How the interface is inside the pod. What is left out stays as it is on the host.",
        &[],
        [
            ("name", described("Its name in the pod.", name())),
            ("addresses", addresses()),
            (
                "noDad",
                described(
                    "IPv6 addresses can be used at once, without duplicate address detection. Default: true.",
                    flag(),
                ),
            ),
            ("dhcp", described("An IPv4 address from a DHCP server. Default: false.", flag())),
            ("mtu", described("In bytes.", integer(interface::MTU))),
            ("hardwareAddr", described("A unicast MAC address.", text())),
            (
                "gsoMaxSize",
                bytes("The largest packet that the stack hands down in one piece, in bytes."),
            ),
            ("groMaxSize", bytes("The largest packet that the stack puts together, in bytes.")),
            ("gsoIPv4MaxSize", bytes("As gsoMaxSize, for IPv4.")),
            ("groIPv4MaxSize", bytes("As groMaxSize, for IPv4.")),
            ("forwarding", described("Forwards packets, of IPv4 and IPv6.", flag())),
            ("arpIgnore", described("As the setting arp_ignore.", values("arp_ignore"))),
            ("arpAnnounce", described("As the setting arp_announce.", values("arp_announce"))),
            ("sysctls", sysctls()),
            ("disableEbpfPrograms", programs()),
            ("vrf", vrf()),
            (
                "inherit",
                described(
                    "What it takes along from the host. Default: all without addresses, dhcp and subinterface, none with any of them.",
                    words(&interface::INHERITS),
                ),
            ),
        ],
    )
}

fn name() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": IfName::MAX_LEN })
}

fn addresses() -> Value {
    list("Addresses with prefix length. Empty means none.", interface::MOST_ADDRESSES, &text())
}

fn values(setting: &str) -> Value {
    let Values { range, besides } = Values::of(setting);
    match besides {
        None => integer(range),
        Some(besides) => {
            json!({ "type": "integer", "enum": range.chain([besides]).collect::<Vec<_>>() })
        }
    }
}

fn sysctls() -> Value {
    let value = |setting| {
        let Values { range, besides } = Values::of(setting);
        let all: Vec<_> = range.chain(besides).collect();
        // Digits may have zeros before them, which `enum` could not say.
        let digits = all.iter().map(u32::to_string).collect::<Vec<_>>().join("|");
        let text = json!({ "type": "string", "pattern": format!("^0*({digits})$") });
        json!({ "anyOf": [{ "type": "integer", "enum": all }, text] })
    };
    let settings: Map<_, _> =
        SYSCTLS.into_iter().map(|(family, name)| (key_of(family, name), value(name))).collect();
    json!({
        "description": format!(
            "Settings of the network stack for the interface, {} in its place.",
            sysctl::PLACEHOLDER,
        ),
        "type": "object",
        "properties": settings,
        "additionalProperties": false,
    })
}

fn programs() -> Value {
    let mut names = list("By the kernel's names.", interface::MOST_PROGRAMS, &text());
    super::extend(&mut names, json!({ "minItems": 1 }));
    described(
        "Programs of others that leave the interface: all, or those named.",
        json!({ "anyOf": [flag(), names] }),
    )
}

fn vrf() -> Value {
    object(
        "The VRF that it is in.",
        &["name"],
        [
            ("name", described("Name of the VRF's own interface.", name())),
            ("table", described("Default: made from the name, 1000 to 1999.", integer(vrf::TABLE))),
        ],
    )
}

pub(super) fn routes() -> Value {
    let scopes: Vec<_> = route::SCOPES.iter().map(|(_, scope)| scope.0).collect();
    let scope = json!({ "anyOf": [words(&route::SCOPES), { "type": "integer", "enum": scopes }] });
    let route = object(
        "A route through the interface.",
        &["destination"],
        [
            ("destination", described("A network.", text())),
            ("gateway", described("Left out, the destination is on the link.", text())),
            ("source", described("Preferred source address.", text())),
            ("scope", described("Default: link without a gateway, global with one.", scope)),
            ("table", described("Default: 254, the main one.", integer(vrf::TABLE))),
            ("metric", integer(route::METRIC)),
            ("onlink", described("The gateway is on the link, whatever routes say.", flag())),
        ],
    );
    list("Routes through the interface.", route::MOST_ROUTES, &route)
}

pub(super) fn rules() -> Value {
    let rule = object(
        "A rule of policy routing, for a source or a destination or both.",
        &["priority", "table"],
        [
            ("priority", integer(routing_rule::PRIORITY)),
            ("source", described("A network.", text())),
            ("destination", described("A network.", text())),
            ("table", described("The table to look routes up in.", integer(vrf::TABLE))),
        ],
    );
    list("Rules of policy routing.", routing_rule::MOST_RULES, &rule)
}

pub(super) fn neighbors() -> Value {
    let neighbor = object(
        "A permanent neighbour.",
        &["destination", "hardwareAddr"],
        [("destination", text()), ("hardwareAddr", text())],
    );
    list("Permanent neighbours.", neighbor::MOST_NEIGHBORS, &neighbor)
}

pub(super) fn ethtool() -> Value {
    object(
        "Settings of the device's driver, while the claim is prepared.",
        &[],
        [
            (
                "features",
                map("By the names of ethtool --show-features.", ethtool::MOST_NAMES, &flag()),
            ),
            (
                "privateFlags",
                map("By the names of ethtool --show-priv-flags.", ethtool::MOST_NAMES, &flag()),
            ),
            ("rings", group("Descriptors of each ring.", &RINGS, ethtool::descriptors)),
            ("channels", group("Queues.", &CHANNELS, ethtool::queues)),
            ("coalesce", group("When the device interrupts.", &COALESCE, ethtool::coalescing)),
        ],
    )
}

fn group(description: &str, names: &[&str], values_of: ethtool::ValuesOf) -> Value {
    let value = |name: &str| match values_of(name) {
        ethtool::Values::Number(range) => integer(range),
        ethtool::Values::Flag => flag(),
    };
    let properties: Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), value(name))).collect();
    json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

pub(super) fn sriov() -> Value {
    let rate = |text| described(text, integer(vf::RATE));
    let vlan = object(
        "The VLAN that all its packets are in.",
        &["id"],
        [
            ("id", described("0 is none.", integer(vf::VLAN_ID))),
            ("qos", described("Priority. Default: 0.", integer(vf::QOS))),
            ("protocol", described("Of the tag. Default: 802.1Q.", words(&vf::PROTOCOLS))),
        ],
    );
    object(
        "What the physical function is told, while the claim is prepared; of virtual functions only.",
        &[],
        [
            ("vlan", vlan),
            ("trust", described("May have modes and addresses of its own choice.", flag())),
            ("spoofCheck", described("Sends from its own MAC address only.", flag())),
            ("minTxRateMbps", rate("Warranted, in megabits per second; 0 is nothing.")),
            ("maxTxRateMbps", rate("The limit, in megabits per second; 0 is none.")),
            ("linkState", described("Whether it sees a carrier.", words(&vf::LINK_STATES))),
        ],
    )
}

pub(super) fn subinterface() -> Value {
    let modes = json!({ "anyOf": [words(&subinterface::MACVLAN_MODES), words(&subinterface::IPVLAN_MODES)] });
    object(
        "An interface upon the device, in its place.",
        &["type"],
        [
            ("type", words(&subinterface::TYPES)),
            ("mode", described("Of a macvlan, default bridge; of an ipvlan, default l2.", modes)),
            ("vlanId", described("Required with vlan.", integer(subinterface::VLAN_ID))),
        ],
    )
}
