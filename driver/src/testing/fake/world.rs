//! What there is in the model, and what can be seen of it.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};

use super::error;
use super::function::{FakeRdma, FakeVf};
use crate::model::{
    At, AttachmentId, Belongings, By, CdiSpec, ClaimUid, DatapathSpec, EthtoolState, Family,
    IfIndex, IfName, InterfaceState, MacAddr, Neighbor, NetnsId, PciAddress, PfState, Place, Route,
    Rule, SUBINTERFACE_PREFIX, Segments, SysctlName, TableId,
};
use crate::node::StepError;
use crate::plan::{DatapathState, FunctionSeen, Observed, Stray, Subject};
use crate::testing::well_formed;

/// One interface of the model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FakeInterface {
    /// Tells interfaces apart wherever they go.
    pub identity: u32,
    pub index: IfIndex,
    /// Falls back to the host when its namespace ends.
    pub is_hardware: bool,
    pub mac: MacAddr,
    pub mtu: u32,
    pub up: bool,
    pub addresses: Vec<IpNet>,
    pub routes: Vec<Route>,
    pub neighbors: Vec<Neighbor>,
    pub segments: Segments,
    /// What differs from what a new interface gets, by `ipv4/NAME`.
    pub sysctls: BTreeMap<String, String>,
    pub ethtool: EthtoolState,
    pub controller: Option<IfName>,
    /// Whose filters are on it.
    pub filters: Option<AttachmentId>,
    /// Names of programs of others.
    pub strangers: Vec<String>,
}

/// Everything there is: namespaces by identity (`None` is the host) and datapaths by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a trouble of its own")]
pub struct World {
    pub interfaces: BTreeMap<Option<NetnsId>, BTreeMap<IfName, FakeInterface>>,
    pub rules: BTreeMap<Option<NetnsId>, Vec<Rule>>,
    pub vrfs: BTreeMap<Option<NetnsId>, BTreeMap<IfName, TableId>>,
    /// Settings of whole namespaces.
    pub stack: BTreeMap<(Option<NetnsId>, String), String>,
    /// The identity of the interface that each datapath is linked to; `None` where it has no links,
    /// but only programs to be attached as filters.
    pub datapaths: BTreeMap<AttachmentId, Option<u32>>,
    /// What each of them was specialised by.
    pub programs: BTreeMap<AttachmentId, DatapathSpec>,
    pub cdi: BTreeMap<ClaimUid, CdiSpec>,
    /// By the index of the physical function's interface, and by number.
    pub vfs: BTreeMap<(IfIndex, u32), FakeVf>,
    /// By name.
    pub rdma: BTreeMap<String, FakeRdma>,
    pub is_rdma_exclusive: bool,
    /// RDMA devices do not leave the namespaces of pods.
    pub is_rdma_stuck: bool,
    /// RDMA devices end when their interface goes to another namespace, as `rxe` ones do.
    pub is_rdma_software: bool,
    /// RDMA devices have no character devices.
    pub is_rdma_without_files: bool,
    /// That user space may have.
    pub functions: BTreeMap<PciAddress, FunctionSeen>,
    /// Where interfaces sit, by their identity.
    pub places: BTreeMap<u32, PciAddress>,
    pub physical_functions: Vec<PfState>,
    /// Physical functions do not take back the address that they told a virtual one, but let it have
    /// that one.
    pub do_pfs_keep_macs: bool,
    /// Physical functions take no settings of virtual ones.
    pub are_pfs_deaf: bool,
    /// Only interfaces with a setting `ipv6/disable_ipv6` of their own can have IPv6 addresses.
    pub ipv6_is_off: bool,
}

/// What an interface gets for a setting of its own when it is new in a namespace.
pub(super) const SYSCTL_DEFAULT: &str = "0";

impl World {
    pub(super) fn with(names: &[&str]) -> Self {
        let mut host = BTreeMap::new();
        for (number, name) in (1_u8..).zip(names) {
            host.insert(well_formed(name.parse()), host_interface(number));
        }
        let policy = Rule {
            family: Family::Ipv4,
            priority: 100,
            source: Some(Ipv4Net::new_assert([192, 0, 2, 0].into(), 24).into()),
            destination: None,
            table: TableId(100),
        };
        Self {
            interfaces: [(None, host)].into(),
            rules: [(None, vec![policy])].into(),
            ..Self::default()
        }
    }

    /// Hardware keeps its name unless it is taken on the host; then it is called `dev%d`.
    pub(super) fn remove_netns(&mut self, id: NetnsId) {
        let key = Some(id);
        self.rules.remove(&key);
        self.vrfs.remove(&key);
        self.stack.retain(|(place, _), _| *place != key);
        let back: Vec<_> = self
            .rdma
            .iter()
            .filter(|(_, it)| it.netns == key)
            .map(|(name, _)| name.clone())
            .collect();
        for name in back {
            if let Some(device) = self.rdma.get_mut(&name) {
                device.netns = None;
            }
            self.renumber(&name);
        }
        let ended = self.interfaces.remove(&key).unwrap_or_default();
        let host = self.interfaces.entry(None).or_default();
        for (name, mut interface) in ended {
            if interface.is_hardware {
                interface.leave();
                let other = || (0..).map(|n| well_formed(format!("dev{n}").parse::<IfName>()));
                let free = |name: &IfName| !host.contains_key(name);
                let name = std::iter::once(name.clone()).chain(other()).find(free);
                host.extend(name.map(|name| (name, interface)));
            }
        }
    }

    pub(super) fn observe(&self, subject: &Subject) -> Result<Observed, StepError> {
        Ok(match subject {
            Subject::Interface { place, by } => Observed::Interface(self.find(place, by)),
            Subject::Datapath(id) => Observed::Datapath(self.datapath(id)),
            Subject::AllDatapaths => {
                Observed::AllDatapaths(self.datapaths.keys().cloned().collect())
            }
            Subject::Belongings(index) => {
                let mut host = self.interfaces[&None].values();
                let found = host.find(|interface| interface.index == *index);
                let found = found.ok_or_else(|| error(format!("{index}: no such device")))?;
                Observed::Belongings(Box::new(self.belongings(found)))
            }
            Subject::Ethtool(name) => {
                let found = self.interfaces[&None].get(name);
                let found = found.ok_or_else(|| error(format!("{name}: no such device")))?;
                Observed::Ethtool(Box::new(found.ethtool.clone()))
            }
            Subject::Strays(stray) => Observed::Strays(self.strays(stray)),
            Subject::Cookie(netns) if !self.interfaces.contains_key(&Some(netns.id)) => {
                return Err(error(format!("{} is gone", netns.id)));
            }
            Subject::Cookie(netns) => Observed::Cookie(netns.id.inode),
            Subject::Vf(_)
            | Subject::Rdma { .. }
            | Subject::RdmaNodes { .. }
            | Subject::Function(_)
            | Subject::PhysicalFunctions => self.observe_function(subject),
            Subject::Namespace(netns) => {
                Observed::Namespace(self.interfaces.contains_key(&Some(netns.id)))
            }
            Subject::AllCdi => Observed::AllCdi(self.cdi.keys().cloned().collect()),
            Subject::AllSubinterfaces => {
                let host = self.interfaces[&None].keys();
                let ours = host.filter(|name| name.as_str().starts_with(SUBINTERFACE_PREFIX));
                Observed::AllSubinterfaces(ours.cloned().collect())
            }
        })
    }

    fn belongings(&self, interface: &FakeInterface) -> Belongings {
        let in_table = |rule: &&Rule| interface.routes.iter().any(|r| r.table == rule.table);
        let special = |rule: &&Rule| rule.table != TableId::MAIN;
        let rules = self.rules.get(&None).into_iter().flatten();
        let sysctl = |(name, value): (&String, &String)| {
            let (family, name) = name.split_once('/').unwrap_or(("ipv4", name));
            let family = if family == "ipv4" { Family::Ipv4 } else { Family::Ipv6 };
            (SysctlName { family, name: name.to_owned() }, value.clone())
        };
        Belongings {
            routes: interface.routes.clone(),
            rules: rules.filter(special).filter(in_table).cloned().collect(),
            neighbors: interface.neighbors.clone(),
            sysctls: interface.sysctls.iter().map(sysctl).collect(),
        }
    }

    fn strays(&self, stray: &Stray) -> Vec<InterfaceState> {
        let host = &self.interfaces[&None];
        let fallen = host.iter().filter(|(_, found)| {
            let is_there =
                self.places.get(&found.identity).is_some_and(|it| stray.pci == Some(*it));
            is_there || found.is_hardware && stray.macs.contains(&found.mac)
        });
        fallen.map(|(name, found)| found.state(name)).collect()
    }

    pub(super) fn find(&self, place: &Place, by: &By) -> Option<InterfaceState> {
        let namespace = self.interfaces.get(&key(place))?;
        let (name, found) = namespace.iter().find(|(name, interface)| match by {
            By::Name(wanted) => *name == wanted,
            By::Index(index) => interface.index == *index,
        })?;
        Some(found.state(name))
    }

    pub(super) fn datapath(&self, id: &AttachmentId) -> DatapathState {
        match self.datapaths.get(id) {
            None => DatapathState::Absent,
            Some(Some(identity)) if !self.all().any(|i| i.identity == *identity) => {
                DatapathState::Broken
            }
            Some(_) => DatapathState::Attached,
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &FakeInterface> {
        self.interfaces.values().flat_map(BTreeMap::values)
    }

    pub(super) fn at(&mut self, at: &At) -> Result<&mut FakeInterface, StepError> {
        self.interfaces
            .get_mut(&key(&at.place))
            .and_then(|namespace| namespace.get_mut(&at.interface))
            .ok_or_else(|| error(format!("{at}: no such device")))
    }
}

impl FakeInterface {
    /// What a change of namespace takes away.
    pub(super) fn leave(&mut self) {
        self.up = false;
        self.addresses.clear();
        self.routes.clear();
        self.neighbors.clear();
        self.sysctls.clear();
        self.controller = None;
        self.filters = None;
    }

    fn state(&self, name: &IfName) -> InterfaceState {
        InterfaceState {
            name: name.clone(),
            index: self.index,
            mac: Some(self.mac),
            mtu: self.mtu,
            up: self.up,
            addresses: self.addresses.clone(),
            controller: None,
            segments: self.segments,
        }
    }
}

pub(super) fn key(place: &Place) -> Option<NetnsId> {
    match place {
        Place::Host => None,
        Place::Pod(netns) => Some(netns.id),
    }
}

fn host_interface(number: u8) -> FakeInterface {
    let network = |prefix: [u8; 2]| -> IpNet {
        Ipv4Net::new_assert([prefix[0], prefix[1], number, 0].into(), 24).into()
    };
    let routes = vec![
        Route::to(network([198, 18])),
        Route { table: TableId(100), ..Route::to(network([198, 19])) },
    ];
    let flags = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), true)).collect();
    let numbers = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 64)).collect();
    FakeInterface {
        identity: u32::from(number),
        index: IfIndex(u32::from(number)),
        is_hardware: false,
        mac: MacAddr([2, 0, 0, 0, 0, number]),
        mtu: 1500,
        up: true,
        // The second is a secondary address of the first one's network.
        addresses: [number, 100 + number]
            .map(|host| Ipv4Net::new_assert([192, 0, 2, host].into(), 24).into())
            .to_vec(),
        routes,
        neighbors: vec![Neighbor {
            destination: [192, 0, 2, 200 + number].into(),
            mac: MacAddr([2, 0, 0, 0, 1, number]),
        }],
        segments: Segments {
            gso_max_size: Some(65_536),
            gro_max_size: Some(65_536),
            gso_ipv4_max_size: Some(65_536),
            gro_ipv4_max_size: Some(65_536),
        },
        sysctls: [("ipv4/rp_filter".to_owned(), "2".to_owned())].into(),
        ethtool: EthtoolState {
            features: flags(&["rx-gro", "tx-tcp-segmentation"]),
            private_flags: flags(&["legacy-rx"]),
            rings: numbers(&["rx", "tx"]),
            channels: numbers(&["combined"]),
            coalesce: numbers(&["rxUsecs"]),
            ..EthtoolState::default()
        },
        controller: None,
        filters: None,
        strangers: vec!["stranger".to_owned()],
    }
}
