//! What containers get that name a claim: one CDI specification for its devices that are attached,
//! and the CPUs that are near them.

use std::path::PathBuf;

use crate::model::{CdiDevice, CdiSpec, CpuAlignment, Cpus, Form, Record};

/// The specification for the devices of one claim in the namespace with this cookie; `None` where
/// there are none. `records` are in the order of their devices.
pub fn cdi<'a>(records: impl IntoIterator<Item = &'a Record>, cookie: u64) -> Option<CdiSpec> {
    let records: Vec<_> = records.into_iter().collect();
    let claim = records.first()?.claim.uid.clone();
    let devices = records.iter().map(|record| CdiDevice {
        name: record.id().cdi_device(),
        environment: environment(record, &records),
        nodes: nodes(record),
    });
    Some(CdiSpec { claim, cookie, devices: devices.collect() })
}

/// Files of the device, of which a sub-interface upon it has none. A group of VFIO is opened by its own file, which is put into a container of
/// IOMMUs by another one that all share (`Documentation/driver-api/vfio.rst`, Linux 6.12).
fn nodes(record: &Record) -> Vec<PathBuf> {
    let device = &record.device;
    if record.subinterface.is_some() {
        return Vec::new();
    }
    match (device.form(), device.iommu_group) {
        (Form::Vfio, Some(group)) => {
            vec![format!("/dev/vfio/{group}").into(), PathBuf::from("/dev/vfio/vfio")]
        }
        _ => device.rdma_nodes.clone(),
    }
}

/// The CPUs for a container with this environment, by the devices of the claims that it names: all
/// that are near one of those whose claim wishes so. `None` where nobody wishes it, or no device has
/// a NUMA node: then every CPU is as near as any other. `records` are those of its pod.
///
/// A container that names a claim is known by what the claim's CDI specification put into its
/// environment: runtimes resolve CDI devices before they ask plugins (containerd 1.7 and 2.1), but
/// tell plugins of the devices themselves only since NRI 0.11.
pub fn cpus(records: &[&Record], environment: &[String]) -> Option<Cpus> {
    let mut all = Cpus::default();
    for record in records.iter().filter(|it| it.wishes.alignment.cpus == CpuAlignment::NumaLocal) {
        let is_same = |other: &&&Record| other.claim.uid == record.claim.uid;
        let same_claim: Vec<_> = records.iter().filter(is_same).copied().collect();
        let mut given = self::environment(record, &same_claim).into_iter().peekable();
        let is_named = given.peek().is_some()
            && given.all(|(name, value)| environment.contains(&format!("{name}={value}")));
        if let Some(cpus) = record.device.local_cpus.as_ref().filter(|_| is_named) {
            all.extend(cpus);
        }
    }
    (!all.is_empty()).then_some(all)
}

/// `WEIR_REQUEST_IFNAME` and the like; where several devices answer one request, they are counted:
/// `WEIR_REQUEST_0_IFNAME`.
fn environment(record: &Record, all: &[&Record]) -> Vec<(String, String)> {
    let mut environment = Vec::new();
    for request in &record.requests {
        let same: Vec<_> = all.iter().filter(|other| other.requests.contains(request)).collect();
        let place = same.iter().position(|other| other.id() == record.id());
        let number = match place {
            Some(place) if same.len() > 1 => format!("_{place}"),
            _ => String::new(),
        };
        let prefix = format!("WEIR_{}{number}", variable(request));
        let mut add = |what: &str, value: String| {
            environment.push((format!("{prefix}_{what}"), value));
        };
        if record.has_interface() {
            add("IFNAME", record.pod_interface().to_string());
        }
        add("DEVICE", record.device.name.to_string());
        if let Some(pci) = &record.device.pci {
            add("PCI_ADDRESS", pci.address.to_string());
        }
        if let (Form::Vfio, Some(group)) = (record.device.form(), record.device.iommu_group) {
            add("VFIO_GROUP", group.to_string());
        }
        let rdma = record.device.rdma_device.as_ref();
        if let Some(rdma) = rdma.filter(|_| record.subinterface.is_none()) {
            add("RDMA_DEVICE", rdma.clone());
        }
        if let Some(node) = record.device.numa_node {
            add("NUMA_NODE", node.to_string());
        }
        if let Some(cpus) = &record.device.local_cpus {
            add("LOCAL_CPUS", cpus.to_string());
        }
    }
    environment
}

/// A request's name, which is a DNS label, as part of a variable's.
fn variable(request: &str) -> String {
    request.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{IfIndex, MacvlanMode, Phase, SubinterfaceKind, SubinterfaceSpec};
    use crate::testing::record;

    fn answering(device: &str, request: &str) -> Record {
        let mut record = record(device, None, Phase::Prepared);
        record.requests = vec![request.to_owned()];
        record
    }

    fn names(record: &Record, all: &[&Record]) -> Vec<String> {
        environment(record, all)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn a_container_learns_what_its_interfaces_are_called() {
        let mut fast = answering("eth1", "fast-nic");
        fast.wishes.interface.name = Some("net1".parse().unwrap());
        fast.device.rdma_device = Some("mlx5_0".to_owned());
        assert_eq!(
            names(&fast, &[&fast]),
            [
                "WEIR_FAST_NIC_IFNAME=net1",
                "WEIR_FAST_NIC_DEVICE=eth1",
                "WEIR_FAST_NIC_RDMA_DEVICE=mlx5_0"
            ]
        );
    }

    #[test]
    fn what_has_no_interface_comes_by_files_and_names() {
        let pci = crate::model::PciFacts {
            address: "0000:3b:00.2".parse().unwrap(),
            root: "pci0000:3a".to_owned(),
            vendor: None,
            device: None,
            subsystem: None,
        };
        let mut vfio = answering("vfio-3b-2", "dpdk");
        vfio.device.interface = None;
        vfio.device.driver = Some(crate::model::VFIO_DRIVER.to_owned());
        vfio.device.iommu_group = Some(42);
        vfio.device.pci = Some(pci);
        assert_eq!(
            names(&vfio, &[&vfio]),
            [
                "WEIR_DPDK_DEVICE=vfio-3b-2",
                "WEIR_DPDK_PCI_ADDRESS=0000:3b:00.2",
                "WEIR_DPDK_VFIO_GROUP=42"
            ]
        );
        assert_eq!(nodes(&vfio), ["/dev/vfio/42", "/dev/vfio/vfio"].map(PathBuf::from));

        let mut rdma = answering("mlx5-0", "ib");
        rdma.device.interface = None;
        rdma.device.rdma_device = Some("mlx5_0".to_owned());
        rdma.device.rdma_nodes = vec!["/dev/infiniband/uverbs0".into()];
        assert_eq!(names(&rdma, &[&rdma]), ["WEIR_IB_DEVICE=mlx5-0", "WEIR_IB_RDMA_DEVICE=mlx5_0"]);
        assert_eq!(nodes(&rdma), rdma.device.rdma_nodes);
    }

    #[test]
    fn a_sub_interface_does_not_open_what_is_beside_its_parent() {
        let mut record = answering("eth1", "a");
        record.device.rdma_device = Some("mlx5_0".to_owned());
        record.device.rdma_nodes = vec!["/dev/infiniband/uverbs0".into()];
        assert_eq!(nodes(&record).len(), 1);
        record.subinterface = Some(SubinterfaceSpec {
            name: "weir-0badcafe".parse().unwrap(),
            parent: "eth1".parse().unwrap(),
            parent_index: IfIndex(7),
            parent_was_down: false,
            kind: SubinterfaceKind::Macvlan { mode: MacvlanMode::Bridge },
        });
        assert!(nodes(&record).is_empty());
        assert!(!names(&record, &[&record]).iter().any(|it| it.contains("RDMA_DEVICE")));
    }

    #[test]
    fn devices_of_one_request_are_counted() {
        let (one, other, third) =
            (answering("eth1", "a"), answering("eth2", "a"), answering("eth3", "b"));
        let all = [&one, &other, &third];
        assert_eq!(names(&other, &all)[0], "WEIR_A_1_IFNAME=eth2");
        assert_eq!(names(&third, &all)[0], "WEIR_B_IFNAME=eth3");
    }

    #[test]
    fn a_container_that_names_the_claim_runs_near_its_devices() {
        let near = |device, request, node: u32, cpus: &str, wish| {
            let mut record = answering(device, request);
            record.device.numa_node = Some(node);
            record.device.local_cpus = Some(cpus.parse().unwrap());
            record.wishes.alignment.cpus = wish;
            record
        };
        let mut other = near("eth3", "c", 2, "16-23", CpuAlignment::NumaLocal);
        other.claim = crate::testing::claim("claim-b");
        let records = [
            near("eth1", "a", 0, "0-3", CpuAlignment::NumaLocal),
            near("eth2", "b", 1, "8-11", CpuAlignment::Off),
            other,
        ];
        let given = |claims: &[&Record]| -> Vec<String> {
            let names_of = |record| {
                let same: Vec<_> = records
                    .iter()
                    .filter(|it| it.claim.uid == (record as &Record).claim.uid)
                    .collect();
                names(record, &same)
            };
            claims.iter().flat_map(|record| names_of(record)).collect()
        };
        let all: Vec<_> = records.iter().collect();
        let shown = |environment: &[String]| cpus(&all, environment).map(|cpus| cpus.to_string());

        let [first, second, third] = &records;
        assert_eq!(shown(&given(&[first, second])).as_deref(), Some("0-3"));
        assert_eq!(shown(&given(&[first, second, third])).as_deref(), Some("0-3,16-23"));
        assert_eq!(shown(&given(&[second])), None, "its claim was not resolved for it");
        assert_eq!(shown(&[]), None);
        let mut forged = given(&[first]);
        forged.retain(|pair| !pair.contains("_LOCAL_CPUS="));
        assert_eq!(shown(&forged), None);
    }

    #[test]
    fn what_is_not_attached_lets_nobody_in() {
        assert_eq!(cdi([], 7), None);
        let record = answering("eth1", "a");
        let spec = cdi([&record], 7).unwrap();
        assert_eq!(spec.devices[0].name, format!("{}-eth1", record.claim.uid));
    }
}
