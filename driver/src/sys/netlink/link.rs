//! Interfaces: what they are like, and what can be changed about them.

use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    LinkPhysId, LinkXdp, Prop,
};
use rtnetlink::{LinkUnspec, LinkVeth};

use super::virtual_link::{self, Made};
use super::{Netlink, NetlinkError, segments};
use crate::model::{By, IfIndex, IfName, MacAddr, PortFacts, Queues, Segments};
use crate::sys::netns::Netns;

/// What netlink tells of an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkFacts {
    pub index: IfIndex,
    pub name: IfName,
    /// None where the link layer has no 48-bit addresses. All zeroes on `lo`.
    pub mac: Option<MacAddr>,
    /// In bytes, without the link-layer header.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`); says nothing about the carrier.
    pub up: bool,
    /// As in RFC 2863, in lower case and as sysfs spells it: `up`, `down`, `lowerlayerdown` …
    pub oper_state: String,
    /// `veth`, `bridge`, `bond` …; `device` for hardware.
    pub kind: String,
    /// The link layer: `ether`, `loopback`, `infiniband`, `none` …
    pub encapsulation: String,
    /// The bridge, bond or VRF that the interface belongs to.
    pub controller: Option<IfIndex>,
    /// The interface below this one in the same namespace, as of a VLAN or a macvlan. The peer of a
    /// veth is not below it.
    pub parent: Option<IfIndex>,
    /// Whether it is one end of a pair, or stacked, and the other part is in another namespace
    /// (`IFLA_LINK_NETNSID`).
    pub is_linked_elsewhere: bool,
    pub is_loopback: bool,
    /// Ids of attached XDP programs, sorted.
    pub xdp_programs: Vec<u32>,
    pub segments: Segments,
    /// What it is, where it is of software and of a kind that we make.
    pub made: Option<Made>,
    /// What the device is called on its bus (`IFLA_PARENT_DEV_NAME`), such as the address of a PCI
    /// function.
    pub bus_device: Option<String>,
    /// Which port of its device it is, where the driver tells.
    pub port: PortFacts,
    /// Its other names, sorted.
    pub altnames: Vec<String>,
    /// What somebody wrote on it.
    pub alias: Option<String>,
    /// `None` while it is set down.
    pub carrier: Option<bool>,
    /// As many as the kernel keeps for it; a driver may use fewer.
    pub queues: Queues,
}

/// What an interface has counted since it exists, by its driver.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LinkStatistics {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
}

impl LinkFacts {
    /// Whether an XDP program is attached, in whichever mode.
    pub fn is_xdp_attached(&self) -> bool {
        !self.xdp_programs.is_empty()
    }

    /// An interface of which nothing else is known.
    pub fn named(index: IfIndex, name: IfName) -> Self {
        Self {
            index,
            name,
            mac: None,
            mtu: 0,
            up: false,
            oper_state: "unknown".to_owned(),
            kind: "device".to_owned(),
            encapsulation: "none".to_owned(),
            controller: None,
            parent: None,
            is_linked_elsewhere: false,
            is_loopback: false,
            xdp_programs: Vec::new(),
            segments: Segments::default(),
            made: None,
            bus_device: None,
            port: PortFacts::default(),
            altnames: Vec::new(),
            alias: None,
            carrier: None,
            queues: Queues { rx: 0, tx: 0 },
        }
    }

    /// `None` for an interface without a name that can be an [`IfName`].
    pub(super) fn read(message: LinkMessage) -> Option<Self> {
        let header = message.header;
        let mut name = None;
        let mut is_pair = false;
        let mut facts = Self {
            up: header.flags.contains(LinkFlags::Up),
            encapsulation: header.link_layer_type.to_string().to_lowercase(),
            is_loopback: header.link_layer_type == LinkLayerType::Loopback,
            ..Self::named(IfIndex(header.index), "unnamed".parse().ok()?)
        };
        for attribute in message.attributes {
            segments::note(&attribute, &mut facts.segments);
            match attribute {
                LinkAttribute::IfName(text) => name = text.parse().ok(),
                LinkAttribute::Address(bytes) => {
                    facts.mac = <[u8; 6]>::try_from(bytes).ok().map(MacAddr);
                }
                LinkAttribute::Mtu(mtu) => facts.mtu = mtu,
                LinkAttribute::OperState(state) => {
                    facts.oper_state = state.to_string().to_lowercase();
                }
                LinkAttribute::Controller(index) => facts.controller = some_index(index),
                LinkAttribute::Link(index) => facts.parent = some_index(index),
                LinkAttribute::LinkNetNsId(_) => facts.is_linked_elsewhere = true,
                LinkAttribute::LinkInfo(infos) => {
                    facts.made = virtual_link::made(&infos);
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            is_pair |= has_peer(&kind);
                            facts.kind = kind.to_string();
                        }
                    }
                }
                LinkAttribute::ParentDevName(name) => facts.bus_device = Some(name),
                LinkAttribute::Xdp(attributes) => facts.xdp_programs = xdp_programs(&attributes),
                other => facts.note(other),
            }
        }
        if is_pair || facts.is_linked_elsewhere {
            facts.parent = None;
        }
        facts.name = name?;
        Some(facts)
    }
}

impl LinkFacts {
    /// Takes what is told for people, and how the interface is doing.
    fn note(&mut self, attribute: LinkAttribute) {
        match attribute {
            LinkAttribute::PropList(properties) => {
                let names = properties.into_iter().filter_map(|property| match property {
                    Prop::AltIfName(name) => Some(name),
                    _ => None,
                });
                self.altnames = names.collect();
                self.altnames.sort_unstable();
            }
            LinkAttribute::IfAlias(text) => self.alias = Some(text).filter(|text| !text.is_empty()),
            LinkAttribute::Carrier(carrier) => self.carrier = self.up.then_some(carrier != 0),
            LinkAttribute::NumRxQueues(count) => self.queues.rx = count,
            LinkAttribute::NumTxQueues(count) => self.queues.tx = count,
            LinkAttribute::PhysPortName(name) => self.port.name = Some(name),
            LinkAttribute::PhysPortId(id) => self.port.id = some_hex(&id),
            LinkAttribute::PhysSwitchId(id) => self.port.switch_id = some_hex(&id),
            _ => {}
        }
    }
}

/// An identifier as sysfs writes it (`%*phN` in `net/core/net-sysfs.c`, Linux 6.12).
fn some_hex(id: &LinkPhysId) -> Option<String> {
    let bytes = id.id.get(..id.len).unwrap_or_default();
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    Some(digits.collect()).filter(|text: &String| !text.is_empty())
}

fn some_index(index: u32) -> Option<IfIndex> {
    (index != 0).then_some(IfIndex(index))
}

/// Whether `IFLA_LINK` names the other end of a pair rather than what is below.
fn has_peer(kind: &InfoKind) -> bool {
    matches!(kind, InfoKind::Veth | InfoKind::Netkit | InfoKind::Vxcan)
}

/// With programs in several modes at once there is one attribute for each mode, and no common one.
fn xdp_programs(attributes: &[LinkXdp]) -> Vec<u32> {
    let mut ids: Vec<u32> = attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkXdp::ProgId(id)
            | LinkXdp::DrvProgId(id)
            | LinkXdp::SkbProgId(id)
            | LinkXdp::HwProgId(id) => Some(*id),
            _ => None,
        })
        .filter(|id| *id != 0)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

impl Netlink {
    /// All interfaces of the namespace, by index. One whose name is no [`IfName`] is left out.
    pub fn links(&self) -> Result<Vec<LinkFacts>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(without_counters());
        let request = RouteNetlinkMessage::GetLink(message);
        let answers = self.socket.list(&"list interfaces", &request)?;
        let mut links: Vec<_> = new_links(answers).filter_map(LinkFacts::read).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// One interface; `None` when there is none. Alternative names find nothing.
    pub fn link(&self, by: &By) -> Result<Option<LinkFacts>, NetlinkError> {
        let found = self.ask_about(by, vec![without_counters()])?.and_then(LinkFacts::read);
        Ok(found.filter(|facts| match by {
            By::Name(name) => facts.name == *name,
            By::Index(index) => facts.index == *index,
        }))
    }

    /// The interface's counters; `None` when there is no such interface.
    pub fn statistics(&self, index: IfIndex) -> Result<Option<LinkStatistics>, NetlinkError> {
        let found = self.find(&By::Index(index))?;
        let statistics = found.into_iter().flat_map(|link| link.attributes).find_map(|attribute| {
            let LinkAttribute::Stats64(counted) = attribute else { return None };
            Some(LinkStatistics {
                rx_packets: counted.rx_packets,
                rx_bytes: counted.rx_bytes,
                rx_dropped: counted.rx_dropped,
                tx_packets: counted.tx_packets,
                tx_bytes: counted.tx_bytes,
                tx_dropped: counted.tx_dropped,
            })
        });
        Ok(statistics)
    }

    /// Also finds by alternative name, as the kernel does.
    pub(super) fn find(&self, by: &By) -> Result<Option<LinkMessage>, NetlinkError> {
        self.ask_about(by, Vec::new())
    }

    fn ask_about(
        &self,
        by: &By,
        wishes: Vec<LinkAttribute>,
    ) -> Result<Option<LinkMessage>, NetlinkError> {
        let (request, mut message) = match by {
            By::Name(name) => (
                format!("look at interface {name}"),
                LinkUnspec::new_with_name(name.as_str()).build(),
            ),
            By::Index(index) => {
                (format!("look at interface {index}"), LinkUnspec::new_with_index(index.0).build())
            }
        };
        message.attributes.extend(wishes);
        match self.socket.ask(&request, RouteNetlinkMessage::GetLink(message), 0) {
            Ok(answers) => Ok(new_links(answers).next()),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn set_up(&self, index: IfIndex) -> Result<(), NetlinkError> {
        self.change(
            &format_args!("set interface {index} up"),
            LinkUnspec::new_with_index(index.0).up().build(),
        )
    }

    pub fn set_down(&self, index: IfIndex) -> Result<(), NetlinkError> {
        self.change(
            &format_args!("set interface {index} down"),
            LinkUnspec::new_with_index(index.0).down().build(),
        )
    }

    /// Sets the MTU, in bytes and without the link-layer header.
    pub fn set_mtu(&self, index: IfIndex, mtu: u32) -> Result<(), NetlinkError> {
        self.change(
            &format_args!("set MTU {mtu} on interface {index}"),
            LinkUnspec::new_with_index(index.0).mtu(mtu).build(),
        )
    }

    /// Sets the link-layer address. Drivers that cannot do so while up answer `EBUSY`.
    pub fn set_mac(&self, index: IfIndex, mac: MacAddr) -> Result<(), NetlinkError> {
        self.change(
            &format_args!("set MAC address {mac} on interface {index}"),
            LinkUnspec::new_with_index(index.0).address(mac.0.to_vec()).build(),
        )
    }

    /// Renames an interface that is down. Before Linux 6.2 one that is up answers `EBUSY`.
    pub fn rename(&self, index: IfIndex, name: &IfName) -> Result<(), NetlinkError> {
        self.change(
            &format_args!("rename interface {index} to {name}"),
            LinkUnspec::new_with_index(index.0).name(name.as_str()).build(),
        )
    }

    /// Moves an interface into `netns` under a new name, by one request. It arrives down and without
    /// addresses; MTU, MAC address and attached `bpf_link`s stay, and so does the index if it is
    /// free there.
    ///
    /// The name is looked up at the destination first. The kernel would notice a clash too, but if
    /// the *old* name is free there it notices after moving: it answers `EEXIST`, and the interface
    /// is gone from here all the same (`do_setlink()` in `net/core/rtnetlink.c`, Linux 6.12 and
    /// 6.18; kernel ring: `a_move_onto_a_taken_name_moves_nothing`).
    ///
    /// # Errors
    ///
    /// [`NetlinkError::is_exists`] when the name is taken there, as an alternative name too;
    /// [`NetlinkError::is_absent`] when there is no such interface here. It then is where it was.
    pub fn move_to(
        &self,
        index: IfIndex,
        netns: &Netns,
        name: &IfName,
    ) -> Result<(), NetlinkError> {
        self.move_between(index, netns, &Self::open_in(netns)?, name)
    }

    /// [`move_to`](Self::move_to), by a socket that is open in `netns` already.
    pub fn move_between(
        &self,
        index: IfIndex,
        netns: &Netns,
        there: &Self,
        name: &IfName,
    ) -> Result<(), NetlinkError> {
        let request = format!("move interface {index} to {} as {name}", netns.id());
        if there.find(&By::Name(name.clone()))?.is_some() {
            return Err(NetlinkError::Refused {
                request,
                explanation: Some("the name is taken there".to_owned()),
                source: std::io::Error::from_raw_os_error(libc::EEXIST),
            });
        }
        let message = LinkUnspec::new_with_index(index.0)
            .setns_by_fd(netns.as_fd().as_raw_fd())
            .name(name.as_str())
            .build();
        self.change(&request, message)
    }

    /// Makes a veth pair, both ends in this namespace.
    pub fn add_veth(&self, one: &IfName, other: &IfName) -> Result<(), NetlinkError> {
        let message = LinkVeth::new(one.as_str(), other.as_str()).build();
        let request = format_args!("add veth pair {one} and {other}");
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.socket.ask(&request, RouteNetlinkMessage::NewLink(message), flags).map(drop)
    }

    /// Deletes a virtual interface; of a veth pair both ends. Hardware answers `EOPNOTSUPP`.
    pub fn delete(&self, index: IfIndex) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index.0).build();
        let request = format_args!("delete interface {index}");
        self.socket.ask(&request, RouteNetlinkMessage::DelLink(message), 0).map(drop)
    }

    pub(super) fn change(
        &self,
        request: &dyn std::fmt::Display,
        message: LinkMessage,
    ) -> Result<(), NetlinkError> {
        self.socket.ask(request, RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }
}

/// Asks for everything but counters, which drivers may fetch from the hardware while the kernel holds
/// its lock on all interfaces.
fn without_counters() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

fn new_links(answers: Vec<RouteNetlinkMessage>) -> impl Iterator<Item = LinkMessage> {
    answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::Parseable;

    use super::*;

    fn link(attributes: Vec<LinkAttribute>) -> Option<LinkFacts> {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes = attributes;
        LinkFacts::read(message)
    }

    fn named(name: &str) -> LinkAttribute {
        LinkAttribute::IfName(name.to_owned())
    }

    fn kind(kind: InfoKind) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])
    }

    #[test]
    fn what_is_below_is_a_parent_and_a_peer_is_not() {
        let below = |kind_attribute| {
            link(vec![named("a"), LinkAttribute::Link(3), kind_attribute]).unwrap().parent
        };
        assert_eq!(below(kind(InfoKind::Vlan)), Some(IfIndex(3)));
        assert_eq!(below(kind(InfoKind::Veth)), None);
        assert_eq!(below(LinkAttribute::LinkNetNsId(0)), None, "an index of another namespace");
    }

    #[test]
    fn only_what_has_six_bytes_is_a_mac_address() {
        let mac = |bytes: &[u8]| {
            link(vec![named("a"), LinkAttribute::Address(bytes.to_vec())]).unwrap().mac
        };
        assert_eq!(mac(&[2, 0, 0, 0, 0, 1]), Some(MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!(mac(&[10, 0, 0, 1]), None);
        assert_eq!(mac(&[0; 20]), None);
    }

    #[test]
    fn programs_of_all_xdp_modes_are_seen_once() {
        let ids = [LinkXdp::ProgId(9), LinkXdp::DrvProgId(9), LinkXdp::SkbProgId(4)];
        let facts = link(vec![named("a"), LinkAttribute::Xdp(ids.to_vec())]).unwrap();
        assert_eq!(facts.xdp_programs, [4, 9]);
        assert!(facts.is_xdp_attached());
    }

    #[test]
    fn other_names_are_sorted_and_the_carrier_of_what_is_down_is_not_known() {
        let names = ["enp1s0", "altnic"].map(|name| Prop::AltIfName(name.to_owned()));
        let attributes = vec![
            named("a"),
            LinkAttribute::PropList(names.to_vec()),
            LinkAttribute::IfAlias("rail 3".to_owned()),
            LinkAttribute::Carrier(1),
            LinkAttribute::NumRxQueues(8),
            LinkAttribute::NumTxQueues(4),
        ];
        let mut message = LinkMessage::default();
        message.attributes = attributes;
        let down = LinkFacts::read(message.clone()).unwrap();
        assert_eq!(down.altnames, ["altnic", "enp1s0"]);
        assert_eq!((down.alias.as_deref(), down.carrier), (Some("rail 3"), None));
        assert_eq!(down.queues, Queues { rx: 8, tx: 4 });
        message.header.flags = LinkFlags::Up;
        assert_eq!(LinkFacts::read(message).unwrap().carrier, Some(true));
    }

    #[test]
    fn a_port_is_told_as_sysfs_would() {
        let id = |bytes: &[u8]| LinkPhysId::parse(bytes).unwrap();
        let attributes = vec![
            named("a"),
            LinkAttribute::PhysPortName("pf0vf1".to_owned()),
            LinkAttribute::PhysSwitchId(id(&[1, 0, 0xfe])),
            LinkAttribute::PhysPortId(id(&[])),
        ];
        let port = link(attributes).unwrap().port;
        let (name, switch_id) = (Some("pf0vf1".to_owned()), Some("0100fe".to_owned()));
        assert_eq!(port, PortFacts { name, id: None, switch_id });
    }

    #[test]
    fn an_interface_that_we_cannot_name_is_left_out() {
        assert_eq!(link(vec![named("na me")]), None);
        assert_eq!(link(vec![]), None);
    }
}
