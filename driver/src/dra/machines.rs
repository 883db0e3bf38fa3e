//! Real machines, from what their kernels tell to what is published. The machines are in
//! `inventory/machines`, each with what it is after; `WEIR_GOLDEN=write` writes their slices anew.

use serde_json::{Value, json};

use super::attributes::{Names, Vocabulary, attributes};
use super::fixtures::{pool, record};
use super::golden::is_golden;
use super::slices::{Terms, render};
use crate::inventory::Scan;
use crate::inventory::machines::{scan, scan_by};
use crate::model::{Device, Form, PublishRules, Record};

macro_rules! machines {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let text = include_str!(concat!("../inventory/machines/", stringify!($name), ".txt"));
            is_golden(concat!("machines/", stringify!($name), ".json"), &published(text));
        }
    )*};
}

machines! {
    mlx5_with_vfs
    mlx5_switchdev
    mlx4_two_ports
    virtio_guest
    gvnic_guest
    efa_guest
    infiniband_only
    mlx5_bond
    ice_vf_and_vfio
    software_rdma
}

/// Nobody can have a bond or a bridge, or what is in one. Where they are included, claims find them by
/// what they belong to, and can have what is made upon them.
#[test]
fn bonds_bridges_and_their_members_are_told_where_they_are_included() {
    let include = vec!["*".parse().unwrap()];
    let rules = PublishRules { include, ..PublishRules::default() };
    for (name, machine) in [
        ("mlx5_bond", include_str!("../inventory/machines/mlx5_bond.txt")),
        ("mlx5_switchdev", include_str!("../inventory/machines/mlx5_switchdev.txt")),
    ] {
        let golden = format!("machines/{name}_included.json");
        is_golden(&golden, &rendered(&scan_by(machine, &rules)));
    }
}

/// The devices as they are published, and what is not.
fn published(machine: &str) -> Value {
    rendered(&scan(machine))
}

fn rendered(scan: &Scan) -> Value {
    let pool = pool();
    let slices = render(&scan.devices, &Terms::of(&pool), 1);
    let devices: Vec<_> =
        slices.into_iter().filter_map(|slice| slice.spec.devices).flatten().collect();
    for device in &devices {
        let attributes = device.attributes.iter().flatten().count();
        assert!(attributes + device.capacity.iter().flatten().count() <= 32, "{}", device.name);
    }
    let idle = scan.idle.iter().map(|it| json!({"pci": it.address.to_string(), "why": it.reason}));
    let left_out = scan.left_out.iter().map(|it| json!({"interface": it.called, "why": it.reason}));
    let left_out: Vec<_> = left_out.chain(idle).collect();
    json!({"devices": devices, "leftOut": left_out})
}

/// As DraNet has them: nothing that user space drives, and of RDMA alone no word about an interface.
#[test]
fn for_dranet_only_interfaces_and_rdma_devices_are_devices() {
    let vocabulary = Vocabulary { names: Names::Dranet, domain: "dra.net".to_owned() };
    let offered = |machine| -> Vec<_> {
        let all = scan(machine).devices.into_iter();
        all.filter(|device| vocabulary.names.has(device)).collect()
    };
    let functions = offered(include_str!("../inventory/machines/ice_vf_and_vfio.txt"));
    assert_eq!(functions.len(), 3);
    assert!(functions.iter().all(|device| device.form() == Form::Interface));

    let adapters = offered(include_str!("../inventory/machines/infiniband_only.txt"));
    let names = |device: &Device| -> Vec<_> {
        attributes(device, &vocabulary, None, 32).into_keys().collect()
    };
    let of_interfaces =
        ["ifName", "virtual", "type", "state", "mtu", "mac", "alias", "ebpf", "sriov"];
    let of_interfaces = of_interfaces.map(|name| format!("dra.net/{name}"));
    let [with, without] = &adapters[..] else { panic!() };
    let (with, without) = (names(with), names(without));
    for name in of_interfaces {
        assert!(with.contains(&name) && !without.contains(&name), "{name}");
    }
    for name in ["rdma", "rdmaDevice", "pciAddress", "numaNode"] {
        assert!(without.contains(&format!("dra.net/{name}")), "{name}");
    }
}

/// The machine of the fixture whose second virtual function is in a pod: its RDMA device is still to be
/// seen, its interface is not.
const WITH_ONE_IN_A_POD: &str = include_str!("../inventory/machines/mlx5_with_vfs.txt");

/// That function as it was before it went.
fn in_a_pod() -> Device {
    let at_home = scan(&WITH_ONE_IN_A_POD.replace(" moved", ""));
    let is_it = |device: &Device| device.rdma_device.as_deref() == Some("mlx5_3");
    at_home.devices.into_iter().find(is_it).unwrap()
}

fn names(devices: &[Device]) -> Vec<&str> {
    devices.iter().map(|device| device.name.as_str()).collect()
}

#[test]
fn an_allocated_roce_nic_stays_what_it_was() {
    let held = record(in_a_pod());
    let devices =
        super::slices::published(&scan(WITH_ONE_IN_A_POD).devices, std::slice::from_ref(&held));
    let [first, .., last] = &devices[..] else { panic!() };
    assert_eq!((names(&devices).len(), first.name.as_str()), (4, "pci-0000-81-00-0"));
    assert_eq!(*last, held.device);
    assert_eq!(last.form(), Form::Interface);
}

#[test]
fn after_a_restart_an_allocated_roce_nic_is_no_rdma_device_alone() {
    let held = serde_json::to_string(&record(in_a_pod())).unwrap();
    let held: Record = serde_json::from_str(&held).unwrap();
    let devices = super::slices::published(&scan(WITH_ONE_IN_A_POD).devices, &[held]);
    assert!(devices.iter().all(|device| device.form() == Form::Interface));
    assert_eq!(names(&devices).last(), Some(&"pci-0000-81-00-3"));
}

#[test]
fn an_allocated_roce_nic_whose_record_is_lost_is_nobodys_device() {
    let devices = super::slices::published(&scan(WITH_ONE_IN_A_POD).devices, &[]);
    assert_eq!(names(&devices), ["pci-0000-81-00-0", "pci-0000-81-00-1", "pci-0000-81-00-2"]);
    assert!(devices.iter().all(|device| device.form() == Form::Interface));
}
