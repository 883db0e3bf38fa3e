//! The NICs of the box: veth ends on the node, their far ends in a namespace called the wire.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use driver::model::{By, DeviceName, IfIndex, IfName, InterfaceState, MacAddr, Segments};
use driver::sys::netlink::{LinkStatistics, Netlink, NetlinkError};
use driver::sys::netns::{Netns, NetnsError};
use ipnet::{IpNet, Ipv4Net};

/// Where namespaces are mounted, as `ip netns` and runtimes do it.
pub const NETNS_DIRECTORY: &str = "/run/netns";

/// Why the box has no network.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    #[error("change {interface}")]
    Netlink { interface: String, source: NetlinkError },
    #[error("interface {0} is not there")]
    Absent(String),
    #[error("{0:?} is no interface name")]
    Name(String),
    #[error("there are as many NICs as can be numbered")]
    Full,
    #[error("enter a namespace")]
    Netns(#[from] NetnsError),
    #[error("write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
}

fn on(interface: &IfName) -> impl FnOnce(NetlinkError) -> NicError {
    let interface = interface.to_string();
    move |source| NicError::Netlink { interface, source }
}

/// The node's network and the wire.
#[derive(Debug)]
pub struct Network {
    host: Netlink,
    wire: Netns,
    wire_links: Netlink,
    nics: Vec<Nic>,
}

/// One NIC of the node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Nic {
    /// Its name on the node.
    pub name: IfName,
    /// The name of its far end in the wire.
    pub far: IfName,
    far_index: IfIndex,
}

/// What the far end of a NIC has counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WireCount {
    /// Frames that went from the wire to the NIC.
    pub to_nic: u64,
    /// Frames that came from the NIC.
    pub from_nic: u64,
}

impl Network {
    /// Makes `count` NICs named `nic0`, `nic1` … in the calling thread's namespace. Each is up and
    /// has an address, a MAC address and, from the second on, an MTU that are not the defaults, so
    /// that putting a NIC back as it was takes some doing.
    pub fn new(count: u8) -> Result<Self, NicError> {
        let host = Netlink::open()
            .map_err(|source| NicError::Netlink { interface: "lo".into(), source })?;
        let loopback = name("lo")?;
        let lo = index(&host, &loopback)?;
        host.set_up(lo).map_err(on(&loopback))?;
        let directory = Path::new(NETNS_DIRECTORY);
        fs::create_dir_all(directory)
            .map_err(|source| NicError::Write { path: directory.to_owned(), source })?;
        let wire = Netns::create(&directory.join("wire"))?;
        let wire_links = Netlink::open_in(&wire).map_err(on(&loopback))?;
        let lo = index(&wire_links, &loopback)?;
        wire_links.set_up(lo).map_err(on(&loopback))?;
        silence()?;
        wire.run(|_| silence())??;
        let mut network = Self { host, wire, wire_links, nics: Vec::new() };
        for _ in 0..count {
            network.add()?;
        }
        Ok(network)
    }

    /// Makes one more NIC, with the next number.
    pub fn add(&mut self) -> Result<&Nic, NicError> {
        let nth = u8::try_from(self.nics.len()).map_err(|_| NicError::Full)?;
        let nic = self.plug(nth)?;
        self.nics.push(nic);
        Ok(&self.nics[usize::from(nth)])
    }

    fn plug(&self, nth: u8) -> Result<Nic, NicError> {
        let (near, far) = (name(&format!("nic{nth}"))?, name(&format!("wire{nth}"))?);
        self.host.add_veth(&near, &far).map_err(on(&near))?;
        let far_index = index(&self.host, &far)?;
        self.host.move_to(far_index, &self.wire, &far).map_err(on(&far))?;
        let far_index = index(&self.wire_links, &far)?;
        self.wire_links.set_mac(far_index, MacAddr([2, 0x77, 0, 0, 1, nth])).map_err(on(&far))?;
        self.wire_links.set_up(far_index).map_err(on(&far))?;

        let near_index = index(&self.host, &near)?;
        let address = Ipv4Net::new_assert(Ipv4Addr::new(172, 31, nth, 1), 24);
        self.host.set_mac(near_index, MacAddr([2, 0x77, 0, 0, 0, nth])).map_err(on(&near))?;
        self.host.set_mtu(near_index, 1500 - 10 * u32::from(nth)).map_err(on(&near))?;
        self.host.add_address(near_index, IpNet::V4(address)).map_err(on(&near))?;
        self.host.set_up(near_index).map_err(on(&near))?;
        Ok(Nic { name: near, far, far_index })
    }

    pub fn nics(&self) -> &[Nic] {
        &self.nics
    }

    /// The NIC that a published device stands for; devices of virtual interfaces are named after
    /// them.
    pub fn nic(&self, device: &DeviceName) -> Option<&Nic> {
        self.nics.iter().find(|nic| device.as_str().ends_with(nic.name.as_str()))
    }

    /// The namespace where the far ends are.
    pub fn wire(&self) -> &Netns {
        &self.wire
    }

    /// Gives the far end of `nic` an address.
    pub fn address_far_end(&self, nic: &Nic, address: IpNet) -> Result<(), NicError> {
        self.wire_links.add_address(nic.far_index, address).map_err(on(&nic.far))
    }

    /// What the far end of `nic` has counted since it exists.
    pub fn count(&self, nic: &Nic) -> Result<WireCount, NicError> {
        let statistics = self.wire_links.statistics(nic.far_index).map_err(on(&nic.far))?;
        let LinkStatistics { tx_packets, rx_packets, .. } =
            statistics.ok_or_else(|| NicError::Absent(nic.far.to_string()))?;
        Ok(WireCount { to_nic: tx_packets, from_nic: rx_packets })
    }

    /// What `interface` is like on the node now; `None` while it is elsewhere.
    pub fn state(&self, interface: &IfName) -> Result<Option<InterfaceState>, NicError> {
        state_in(&self.host, interface)
    }
}

/// What `interface` is like in the namespace of `links`.
pub fn state_in(links: &Netlink, interface: &IfName) -> Result<Option<InterfaceState>, NicError> {
    let Some(link) = links.link(&By::Name(interface.clone())).map_err(on(interface))? else {
        return Ok(None);
    };
    let addresses = links.addresses(link.index).map_err(on(interface))?;
    Ok(Some(InterfaceState {
        name: link.name,
        index: link.index,
        mac: link.mac,
        mtu: link.mtu,
        up: link.up,
        addresses,
        segments: Segments::default(),
        controller: None,
    }))
}

/// Keeps interfaces that the calling thread's namespace gets from now on from speaking for
/// themselves: with IPv6 they would ask for routers and neighbours now and then, and what the wire
/// counts would not be what was sent.
fn silence() -> Result<(), NicError> {
    // The sysctl tree shows the namespace of the thread that opens it.
    let path = PathBuf::from("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    fs::write(&path, "1").map_err(|source| NicError::Write { path, source })
}

fn name(text: &str) -> Result<IfName, NicError> {
    text.parse().map_err(|_| NicError::Name(text.to_owned()))
}

fn index(links: &Netlink, interface: &IfName) -> Result<IfIndex, NicError> {
    let link = links.link(&By::Name(interface.clone())).map_err(on(interface))?;
    link.map(|link| link.index).ok_or_else(|| NicError::Absent(interface.to_string()))
}
