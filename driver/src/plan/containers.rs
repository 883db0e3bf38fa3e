//! What containers get that name a claim: one CDI specification for its devices that are attached.

use std::path::PathBuf;

use crate::model::{CdiDevice, CdiSpec, Form, Record};

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

/// Files of the device. A group of VFIO is opened by its own file, which is put into a container of
/// IOMMUs by another one that all share (`Documentation/driver-api/vfio.rst`, Linux 6.12).
fn nodes(record: &Record) -> Vec<PathBuf> {
    let device = &record.device;
    match (device.form(), device.iommu_group) {
        (Form::Vfio, Some(group)) => {
            vec![format!("/dev/vfio/{group}").into(), PathBuf::from("/dev/vfio/vfio")]
        }
        _ => device.rdma_nodes.clone(),
    }
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
        if let Some(rdma) = &record.device.rdma_device {
            add("RDMA_DEVICE", rdma.clone());
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
    use crate::model::Phase;
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
        };
        let mut vfio = answering("pci-0000-3b-00-2", "dpdk");
        vfio.device.interface = None;
        vfio.device.driver = Some(crate::model::VFIO_DRIVER.to_owned());
        vfio.device.iommu_group = Some(42);
        vfio.device.pci = Some(pci);
        assert_eq!(
            names(&vfio, &[&vfio]),
            [
                "WEIR_DPDK_DEVICE=pci-0000-3b-00-2",
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
    fn devices_of_one_request_are_counted() {
        let (one, other, third) =
            (answering("eth1", "a"), answering("eth2", "a"), answering("eth3", "b"));
        let all = [&one, &other, &third];
        assert_eq!(names(&other, &all)[0], "WEIR_A_1_IFNAME=eth2");
        assert_eq!(names(&third, &all)[0], "WEIR_B_IFNAME=eth3");
    }

    #[test]
    fn what_is_not_attached_lets_nobody_in() {
        assert_eq!(cdi([], 7), None);
        let record = answering("eth1", "a");
        let spec = cdi([&record], 7).unwrap();
        assert_eq!(spec.devices[0].name, format!("{}-eth1", record.claim.uid));
    }
}
